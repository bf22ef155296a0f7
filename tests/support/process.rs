//! Lets processes stand still.

use std::time::Duration;

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};

use super::wait::eventually;

/// How long the threads of a process may take to stand still; on a busy machine each has to be scheduled for it once.
const FREEZE_LIMIT: Duration = Duration::from_secs(30);

/// Sends a signal to a process. One that has ended meanwhile needs none, as long as nobody has waited for it.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, signal).unwrap_or_else(|error| assert_eq!(error, rustix::io::Errno::SRCH, "signal"));
}

/// Lets a process stand still, and returns when it does: each of its threads notices the signal by itself, and one that
/// runs on another core goes on for a while.
#[track_caller]
pub fn freeze(pid: u32) {
    signal(pid, Signal::STOP);
    eventually("all threads stand still", FREEZE_LIMIT, || stands_still(pid));
}

/// Lets a frozen process run on.
pub fn thaw(pid: u32) {
    signal(pid, Signal::CONT);
}

/// Whether no thread of it runs or will; those of one that has ended do not, and one that a tracer holds (`t`) takes the signal
/// before it goes on.
fn stands_still(pid: u32) -> bool {
    let Ok(tasks) = Process::new(pid.cast_signed()).and_then(|process| process.tasks()) else { return true };
    tasks.flatten().filter_map(|task| task.stat().ok()).all(|stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}
