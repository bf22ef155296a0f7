//! What a redirect asks of the kernel, as strace sees it on a running server: one read, one write, and the wait.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use support::command::{text_of, wait};
use support::snip::Snip;
use support::wait::eventually;

const REDIRECTS: usize = 500;
/// Calls that have to do with other work of the thread: a few, whatever the number of redirects.
const OTHERS_MAX: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// strace on all threads of a process; `None` if there is none, or it may not.
fn trace(snip: &Snip, output: &Path) -> Option<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-p", &snip.pid().to_string(), "-o"]).arg(output);
    let mut strace = command.stderr(Stdio::null()).spawn().ok()?;
    let mut has_ended = false;
    eventually("strace has all threads", LIMIT, || {
        has_ended = wait(&mut strace, Duration::from_millis(1)).is_some();
        has_ended || is_traced(snip.pid())
    });
    (!has_ended).then_some(strace)
}

fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").map(|task| task.expect("a task").path());
    tasks.into_iter().all(|task| {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

/// How often each thread made each call.
fn calls(trace: &str) -> BTreeMap<&str, BTreeMap<&str, usize>> {
    let mut calls = BTreeMap::<_, BTreeMap<_, usize>>::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        // A call that was interrupted by another thread's has a second line, which names it differently.
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *calls.entry(thread).or_default().entry(name).or_default() += 1;
        }
    }
    calls
}

#[test]
fn a_redirect_reads_writes_and_waits() {
    let snip = Snip::start();
    let (_, code) = snip.client().shorten("https://example.com/");
    let request =
        format!("GET /{code} HTTP/1.1\r\nHost: snip.test\r\nUser-Agent: a browser\r\nReferer: a page\r\n\r\n");
    let mut conn = snip.connect();
    // The first ones fill the cache and make what is made once.
    (0..10).for_each(|_| assert_eq!(conn.send(&request).response().status, 302));
    let output = snip.place().path().join("trace");
    let Some(mut strace) = trace(&snip, &output) else {
        eprintln!("not tried: no strace here, or it may not trace");
        return;
    };
    (0..REDIRECTS).for_each(|_| assert_eq!(conn.send(&request).response().status, 302));
    kill_process(Pid::from_child(&strace), Signal::INT).expect("a signal");
    wait(&mut strace, LIMIT).expect("strace ends");
    let trace = text_of(&output);
    let calls = calls(&trace);
    let is_write = |name: &str| matches!(name, "write" | "writev" | "sendto" | "sendmsg");
    let is_read = |name: &str| matches!(name, "read" | "readv" | "recvfrom" | "recvmsg");
    let is_wait = |name: &str| matches!(name, "epoll_wait" | "epoll_pwait" | "epoll_pwait2");
    let count = |calls: &BTreeMap<&str, usize>, is: &dyn Fn(&str) -> bool| -> usize {
        calls.iter().filter(|(name, _)| is(name)).map(|(_, count)| count).sum()
    };
    // The worker is the thread that answers.
    let worker = calls.values().max_by_key(|calls| count(calls, &is_write)).expect("a thread");
    let (writes, reads) = (count(worker, &is_write), count(worker, &is_read));
    eprintln!("{REDIRECTS} redirects: {worker:?}");
    assert!((REDIRECTS..=REDIRECTS + OTHERS_MAX).contains(&writes), "{worker:?}");
    assert!((REDIRECTS..=REDIRECTS + OTHERS_MAX).contains(&reads), "{worker:?}");
    assert!(count(worker, &is_wait) <= REDIRECTS + OTHERS_MAX, "{worker:?}");
    let others = count(worker, &|name| !is_write(name) && !is_read(name) && !is_wait(name));
    assert!(others <= OTHERS_MAX, "{worker:?}");
}
