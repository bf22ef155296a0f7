//! Restarts: sockets that are handed in, addresses that are handed over, and no request lost by either.

mod support;

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use snip::limits::DRAIN_GRACE;
use support::client::{Address, Client, Conn};
use support::command::{run, wait};
use support::ports::free_port;
use support::snip::{Launch, Place, StoreKind};
use support::wait::eventually;

const LIMIT: Duration = Duration::from_secs(30);
/// Time of one variant of the load, its PostgreSQL and its servers included.
const LOAD_LIMIT: Duration = Duration::from_secs(240);

fn new_place() -> Arc<Place> {
    Place::new(StoreKind::Sqlite)
}

// ---- Under load ------------------------------------------------------------------------------------------------

/// A short run of what `make restart-test` runs for longer.
#[track_caller]
fn loses_nothing(variant: &str) {
    // One after the other: together they leave each other's servers and stores too little of a small machine.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/loadtests/restart"));
    command.args(["--binary", env!("CARGO_BIN_EXE_snip"), "--seconds", "10", "--restarts", "3", variant]);
    let finished = run(&mut command, LOAD_LIMIT);
    assert!(finished.status.success(), "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(" 0 failed"), "{}", finished.stdout);
}

#[test]
fn nothing_is_lost_with_inherited_sockets() {
    loses_nothing("activation");
}

#[test]
fn nothing_is_lost_beside_another_process() {
    loses_nothing("reuse-port");
}

#[test]
fn nothing_is_lost_behind_nginx() {
    loses_nothing("nginx");
}

// ---- Sockets that are handed in --------------------------------------------------------------------------------

/// The server with these as its descriptors 3 and on, as sd_listen_fds(3) has it, and with these further arguments.
fn with_descriptors(place: &Place, descriptors: &[OwnedFd], args: &[&str]) -> Command {
    let mut moves = String::new();
    for (at, descriptor) in descriptors.iter().enumerate() {
        // Above those that they are to become: see `out_of_the_way`.
        let number = descriptor.as_raw_fd();
        moves += &format!(" {}<&{number} {number}<&-", 3 + at);
        fcntl_setfd(descriptor, FdFlags::empty()).expect("to be inherited");
    }
    let script = format!("exec{moves}; LISTEN_PID=$$ exec \"$@\"");
    let serve = place.command("serve");
    let mut command = support::command::clean(Command::new("bash"));
    command.args(["-c", &script, "bash"]).arg(serve.get_program()).args(serve.get_args()).args(args);
    command.env("LISTEN_FDS", descriptors.len().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn out_of_the_way(descriptor: impl Into<OwnedFd>) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(descriptor.into(), 100).expect("a descriptor")
}

fn term(child: &mut Child) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
    kill_process(pid, Signal::TERM).expect("signal");
    let status = wait(child, LIMIT).expect("an end");
    assert!(status.success(), "{status}");
}

#[test]
fn inherited_sockets_are_served_and_stay_open() {
    let place = new_place();
    let path = place.path().join("held.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addresses = [Address::Tcp(tcp.local_addr().expect("an address")), Address::Unix(path.clone())];
    let held = [out_of_the_way(tcp), out_of_the_way(UnixListener::bind(&path).expect("bind"))];
    let not_used = free_port().to_string();
    for _ in 0..2 {
        let mut child = with_descriptors(&place, &held, &["--listen", &not_used]).spawn().expect("start");
        for address in &addresses {
            // The socket listens already: the connection waits in it until the server is there.
            Client::new(address.clone()).get("/livez").expect(200);
        }
        assert!(Conn::try_open(&Address::Tcp(not_used.parse().expect("an address"))).is_err());
        term(&mut child);
        assert!(path.exists(), "the file belongs to the one who made it");
        addresses.iter().for_each(|address| assert!(Conn::try_open(address).is_ok(), "{address} is closed"));
    }
}

#[test]
fn descriptors_that_cannot_be_served_are_told() {
    let place = new_place();
    let told = |descriptor: OwnedFd, words: &str| {
        let finished = run(&mut with_descriptors(&place, &[out_of_the_way(descriptor)], &[]), LIMIT);
        let line = finished.one_line_of_complaint();
        assert!(line.contains("descriptor 3") && line.contains(words), "{line}");
    };
    told(std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").into(), "no stream socket");
    told(UnixDatagram::pair().expect("a pair").0.into(), "no stream socket");
    told(tempfile::tempfile().expect("a file").into(), "no socket");
    let missing = run(with_descriptors(&place, &[], &[]).env("LISTEN_FDS", "5"), LIMIT);
    assert!(missing.one_line_of_complaint().contains("LISTEN_FDS"), "{missing:?}");
}

#[test]
fn descriptors_for_another_process_are_left_alone() {
    let snip = Launch::on(StoreKind::Sqlite).env("LISTEN_FDS", "1").env("LISTEN_PID", "1").start();
    snip.client().get("/livez").expect(200);
}

#[test]
fn the_supervisor_hears_of_start_and_end() {
    let place = new_place();
    let path = place.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).expect("bind");
    supervisor.set_read_timeout(Some(LIMIT)).expect("a limit");
    let hear = || {
        let mut text = [0; 100];
        let count = supervisor.recv(&mut text).expect("a word");
        String::from_utf8_lossy(&text[..count]).trim().to_owned()
    };
    let mut snip = Launch::at(Arc::clone(&place)).env("NOTIFY_SOCKET", path.to_str().expect("a plain path")).start();
    assert_eq!(hear(), "READY=1");
    snip.stop();
    assert_eq!(hear(), "STOPPING=1");
}

// ---- Addresses that are handed over ----------------------------------------------------------------------------

#[test]
fn a_start_that_fails_takes_nothing_over() {
    let place = new_place();
    let path = place.path().join("shared.sock");
    let listen = format!("unix:{}", path.display());
    let launch = |name: &str| {
        let launch = Launch::at(Arc::clone(&place)).arg("--reuse-port").arg("--listen").arg(&listen);
        launch.arg("--instance-id").arg(name)
    };
    let old = launch("a").start();
    // The journal of this instance is in use.
    let args = ["--reuse-port", "--listen", &listen, "--instance-id", "a"];
    let finished = run(place.command("serve").args(args), LIMIT);
    assert!(finished.one_line_of_complaint().contains("in use by another process"), "{finished:?}");
    let shared = Address::Unix(path.clone());
    Client::new(shared.clone()).get("/livez").expect(200);

    let mut new = launch("b").start();
    drop(old);
    Client::new(shared).get("/livez").expect(200);
    new.stop();
    assert!(!path.exists(), "the last one takes the file with it");
}

#[test]
fn a_kept_connection_is_told_that_it_closes() {
    assert!((0..3).any(|_| is_told_that_it_closes()), "three times nothing was asked for {DRAIN_GRACE:?}");
}

/// Asks on a kept connection while the server ends. False if the machine kept us from asking for so long that it was
/// closed without a word, as idle ones are.
fn is_told_that_it_closes() -> bool {
    let mut snip = Launch::on(StoreKind::Sqlite).start();
    let mut kept = snip.connect();
    let mut asked = Instant::now();
    let mut ask = || {
        let before = std::mem::replace(&mut asked, Instant::now());
        let answer = kept.try_send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").and_then(|()| kept.try_response_to("GET"));
        assert!(answer.is_ok() || before.elapsed() >= DRAIN_GRACE, "{answer:?}");
        answer.ok().map(|answer| answer.expect(200).closes())
    };
    assert_eq!(ask(), Some(false));
    snip.term();
    let mut last = Some(false);
    eventually("an answer that is the last one", LIMIT, || {
        last = ask();
        last != Some(false)
    });
    kept.expect_close();
    assert!(snip.wait_exit(LIMIT).success());
    last.is_some()
}
