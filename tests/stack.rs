//! `ops/stack` as people use it: up, a walk through Nginx, a killed instance, a rolling restart, down.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use support::client::{Address, Client, Conn};
use support::command::{Finished, clean, run, text_of};
use support::wait::eventually;
use tempfile::TempDir;

/// Far more than any of the commands takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// An instance that was killed is back after this time.
const BACK_LIMIT: Duration = Duration::from_secs(2);

struct Stack {
    folder: TempDir,
}

impl Stack {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("snip-stack-").tempdir().expect("a temporary folder");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("permissions");
        Self { folder }
    }

    fn run(&self, args: &[&str]) -> Finished {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/stack");
        run(clean(Command::new(script)).arg("--folder").arg(self.folder.path()).args(args), LIMIT)
    }

    fn up(&self) -> Finished {
        self.run(&["up", "--binary", env!("CARGO_BIN_EXE_snip")]).success()
    }

    fn settings(&self) -> Value {
        serde_json::from_str(&text_of(&self.folder.path().join("stack.json"))).expect("stack.json")
    }

    fn client(&self) -> Client {
        let port = u16::try_from(self.settings()["ports"]["nginx"].as_u64().expect("a port")).expect("a port");
        Client::new(Address::Tcp(([127, 0, 0, 1], port).into()))
    }

    /// The process of a role, as the status tells it.
    fn process(&self, role: &str) -> Pid {
        let status = self.run(&["status"]).success().stdout;
        let line = status.lines().find(|line| line.starts_with(role)).unwrap_or_else(|| panic!("no {role}: {status}"));
        let pid = line.split_whitespace().nth(2).expect("a process id").parse().expect("a number");
        Pid::from_raw(pid).expect("a process id")
    }

    /// Kills an instance, which nobody sees who asks for a redirect; returns when it listens again.
    fn kill_one(&self, client: &mut Client, path: &str) -> Duration {
        let before = self.process("snip-1");
        kill_process(before, Signal::KILL).expect("signal");
        let killed = Instant::now();
        // One that dies has its socket until its last thread is gone.
        eventually("the killed instance is gone", LIMIT, || {
            client.get(path).expect(302);
            test_kill_process(before).is_err()
        });
        let socket = Address::Unix(self.folder.path().join("run/snip-1.sock"));
        eventually("the killed instance is back", LIMIT, || {
            client.get(path).expect(302);
            Conn::try_open(&socket).is_ok()
        });
        let took = killed.elapsed();
        eprintln!("the killed instance listens {took:?} later");
        assert_ne!(self.process("snip-1"), before);
        took
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if std::thread::panicking() {
            eprintln!("---- {}{}", down.stderr, self.run(&["logs"]).stdout);
        }
    }
}

#[test]
fn the_whole_stack_goes_up_heals_restarts_and_goes_down() {
    let stack = Stack::new();
    stack.up();
    let mut client = stack.client();
    let (id, code) = client.shorten("https://example.com/hello");
    let path = format!("/{code}");
    client.get(&path).expect(302);
    eventually("the click is counted", LIMIT, || {
        client.get(&format!("/urls/{id}/stats")).expect(200).json()["redirect_count"] == 1
    });

    // A second start changes nothing.
    let before = stack.process("snip-1");
    stack.up();
    assert_eq!(stack.process("snip-1"), before);

    // Killed, an instance is back in time; a machine that is busy elsewhere may take longer for once.
    assert!((0..3).any(|_| stack.kill_one(&mut client, &path) < BACK_LIMIT), "never back within {BACK_LIMIT:?}");

    // A rolling restart under requests: all of them are answered.
    let before = ["snip-1", "snip-2", "snip-3"].map(|role| stack.process(role));
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| stack.run(&["restart"]).success());
        let mut answered = 0;
        while !restart.is_finished() {
            client.get(&path).expect(302);
            client.shorten("https://example.com/hello");
            answered += 2;
        }
        assert!(answered > 20, "{answered} answers are too few to show anything");
    });
    let after = ["snip-1", "snip-2", "snip-3"].map(|role| stack.process(role));
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");

    // A program that is no good is found out in its trial; the instances are not touched.
    let broken = stack.folder.path().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 1\n").expect("a script");
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let refused = stack.run(&["restart", "--binary", broken.to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("ends at once"), "{}", refused.stderr);
    assert_eq!(["snip-1", "snip-2", "snip-3"].map(|role| stack.process(role)), after);
    let good = stack.folder.path().join("good");
    std::fs::copy(env!("CARGO_BIN_EXE_snip"), &good).expect("a copy");
    stack.run(&["restart", "--binary", good.to_str().expect("a path")]).success();
    assert_eq!(stack.settings()["binary"], good.to_str().expect("a path"));
    client.get(&path).expect(302);

    let down = stack.run(&["down"]).success();
    assert!(down.stderr.ends_with("stack: all of it is stopped\n"), "{}", down.stderr);
    let status = stack.run(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", status.stdout);
    assert!(!status.stdout.contains("running"), "{}", status.stdout);
}

#[test]
fn mistakes_are_told_in_a_line() {
    let stack = Stack::new();
    let check = |args: &[&str], status: i32, line: &str| {
        let done = stack.run(args);
        assert_eq!(done.status.code(), Some(status), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(line), "{args:?}: {}", done.stderr);
    };
    check(&["restart"], 1, "the stack does not run; ops/stack up starts it");
    check(&["logs"], 1, "there are no logs in");
    check(&["up", "--binary", "/nonexistent"], 1, "there is no program /nonexistent");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let up = ["up", "--binary", env!("CARGO_BIN_EXE_snip"), "--port", &format!("nginx={port}")];
    check(&up, 1, &format!("port {port}, wanted for nginx, is in use"));
    check(&["up", "--port", "snip-9=1"], 2, "'snip-9=1' is not ROLE=PORT");
    check(&["down"], 0, "all of it is stopped");
}
