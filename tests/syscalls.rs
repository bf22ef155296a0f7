//! What redirects ask of the kernel, as strace sees it on a running server: each a read, and a write and the wait that those
//! share which came together.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use snip::limits::OUTBOX_ANSWERS_MAX;
use snip::runtime::SendRing;

use support::client::Conn;
use support::command::{text_of, wait};
use support::snip::Snip;
use support::wait::eventually;

const REDIRECTS: usize = 500;
/// Times that requests on several connections come together.
const TOGETHER: usize = 20;
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

type Counts<'a> = BTreeMap<&'a str, usize>;

fn count(calls: &Counts<'_>, names: &[&str]) -> usize {
    names.iter().filter_map(|name| calls.get(name)).sum()
}

const READS: &[&str] = &["read", "readv", "recvfrom", "recvmsg"];
const SINGLE_WRITES: &[&str] = &["write", "writev", "sendto", "sendmsg"];
const SHARED_WRITES: &[&str] = &["io_uring_enter"];
const WAITS: &[&str] = &["epoll_wait", "epoll_pwait", "epoll_pwait2"];

/// How many reads, writes of one connection's, shared ones, and waits the worker asked of the kernel during `body`, and next to
/// nothing else. `None` if there is no strace, or it may not trace.
fn traced(snip: &Snip, body: impl FnOnce()) -> Option<[usize; 4]> {
    let output = snip.place().path().join("trace");
    let mut strace = trace(snip, &output)?;
    body();
    kill_process(Pid::from_child(&strace), Signal::INT).expect("a signal");
    wait(&mut strace, LIMIT).expect("strace ends");
    let trace = text_of(&output);
    let calls = calls(&trace);
    // The worker is the thread that reads requests.
    let worker = calls.values().max_by_key(|calls| count(calls, READS)).expect("a thread");
    eprintln!("{worker:?}");
    let counts = [READS, SINGLE_WRITES, SHARED_WRITES, WAITS].map(|names| count(worker, names));
    let others = worker.values().sum::<usize>() - counts.iter().sum::<usize>();
    assert!(others <= OTHERS_MAX, "{worker:?}");
    Some(counts)
}

/// A server, a request for a redirect of its, and connections that have made it.
fn warm(connections: usize) -> (Snip, String, Vec<Conn>) {
    let snip = Snip::start();
    let (_, code) = snip.client().shorten("https://example.com/");
    let request =
        format!("GET /{code} HTTP/1.1\r\nHost: snip.test\r\nUser-Agent: a browser\r\nReferer: a page\r\n\r\n");
    let mut conns: Vec<_> = (0..connections).map(|_| snip.connect()).collect();
    // The first ones fill the cache and make what is made once.
    for _ in 0..10 {
        conns.iter_mut().for_each(|conn| assert_eq!(conn.send(&request).response().status, 302));
    }
    (snip, request, conns)
}

fn assert_about(count: usize, expected: usize) {
    assert!((expected..=expected + OTHERS_MAX).contains(&count), "{count} calls, expected {expected}");
}

#[test]
fn a_redirect_reads_writes_and_waits() {
    let (snip, request, mut conns) = warm(1);
    let follow = || (0..REDIRECTS).for_each(|_| assert_eq!(conns[0].send(&request).response().status, 302));
    let Some([reads, single_writes, shared_writes, waits]) = traced(&snip, follow) else {
        return eprintln!("not tried: no strace here, or it may not trace");
    };
    assert_about(reads, REDIRECTS);
    assert_about(single_writes, REDIRECTS);
    assert_about(shared_writes, 0);
    assert!(waits <= REDIRECTS + OTHERS_MAX, "{waits}");
}

#[test]
fn redirects_that_come_together_share_a_write_and_a_wait() {
    let (snip, request, mut conns) = warm(OUTBOX_ANSWERS_MAX);
    let follow = || {
        for _ in 0..TOGETHER {
            snip.freeze();
            for conn in &mut conns {
                conn.send(&request);
            }
            snip.thaw();
            conns.iter_mut().for_each(|conn| assert_eq!(conn.response().status, 302));
        }
    };
    let Some([reads, single_writes, shared_writes, waits]) = traced(&snip, follow) else {
        return eprintln!("not tried: no strace here, or it may not trace");
    };
    let redirects = TOGETHER * OUTBOX_ANSWERS_MAX;
    assert_about(reads, redirects);
    let is_shared = SendRing::open(OUTBOX_ANSWERS_MAX).is_ok();
    let (single, shared) = if is_shared { (0, TOGETHER) } else { (redirects, 0) };
    assert_about(single_writes, single);
    assert_about(shared_writes, shared);
    // Stopping the server ends one, too.
    assert!(waits <= 2 * TOGETHER + OTHERS_MAX, "{waits}");
}
