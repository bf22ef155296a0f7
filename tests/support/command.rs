//! Runs commands to their end, with a deadline.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts exit code 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }

    /// Asserts an exit code other than 0 (a signal is none) and one clear line on standard error; returns it.
    #[track_caller]
    pub fn one_line_of_complaint(&self) -> &str {
        assert!(self.status.code().is_some_and(|code| code != 0), "{self:#?}");
        let mut lines = self.stderr.lines().filter(|line| !line.trim().is_empty());
        let line = lines.next().unwrap_or_else(|| panic!("nothing on stderr: {self:#?}"));
        assert!(lines.next().is_none(), "more than one line on stderr: {self:#?}");
        assert!(!line.contains("panicked"), "{line}");
        line
    }
}

/// The built binary, with nothing of this process's environment that could change what it does.
pub fn snip() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_snip")))
}

/// Takes the environment away, save what a process needs to be found and measured.
pub fn clean(mut command: Command) -> Command {
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end; past the limit it is killed and the test fails. Output goes through files, so that a
/// command that prints much never waits for a reader.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let mut out = tempfile::tempfile().expect("a file for stdout");
    let mut err = tempfile::tempfile().expect("a file for stderr");
    command.stdout(out.try_clone().expect("stdout")).stderr(err.try_clone().expect("stderr"));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("can't start {command:?}: {e}"));
    let status = wait(&mut child, limit);
    let mut finished = |status| Finished { status, stdout: slurp(&mut out), stderr: slurp(&mut err) };
    match status {
        Some(status) => finished(status),
        None => {
            child.kill().expect("kill");
            let status = child.wait().expect("wait");
            panic!("{command:?} did not end within {limit:?}: {:#?}", finished(status));
        }
    }
}

/// Waits for the end of a process; `None` when the limit passes first.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The text of a file; what is not there is empty.
pub fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn slurp(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}
