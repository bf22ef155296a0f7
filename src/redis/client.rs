//! What callers use: the one connection, kept open by a thread.
//!
//! Callers are coroutines or plain threads. No call waits past its deadline, and none waits for a connection: without
//! one it fails at once, for Redis is never needed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ::redis::{Cmd, Value};

use super::breaker::{Breaker, State};
use super::config::Config;
use super::conn::Conn;
use super::connect::{self, refuse_errors};
use super::error::{Error, Result};
use super::wire::Values;
use crate::figures::{Figures, Latency, read};
use crate::limits;
use crate::runtime::{self, Empty, Wait};

/// A connection that breaks sooner than this counts as one that could not be opened.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Who hears of what happens on the connection. Called on its thread or its coroutine: must neither wait nor block.
pub trait Events: Send + Sync + 'static {
    /// A connection is open, subscribed to the channel. It may be to another server than the last, or to one that has
    /// forgotten something.
    fn up(&self);
    /// The connection is gone: messages may have been missed.
    fn down(&self);
    /// A message was published on the channel. Its order among the replies is the server's.
    fn message(&self, text: &[u8]);
    /// A command that had to be carried out was refused or could not be sent.
    fn failed(&self);
}

/// A Lua script, loaded when a connection is opened.
#[derive(Debug)]
pub struct Script {
    pub(super) text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// A script of one key.
    pub const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceLock::new() }
    }

    pub(super) fn learn(&self, hash: &[u8]) {
        // The same text has the same hash on every server.
        let _ = self.hash.set(String::from_utf8_lossy(hash).into_owned());
    }

    /// The command that runs it: by its hash, or in full for a server that has forgotten it.
    fn cmd(&self, key: &str, args: &[&[u8]], in_full: bool) -> Cmd {
        let mut cmd = Cmd::new();
        match self.hash.get() {
            Some(hash) if !in_full => cmd.arg("EVALSHA").arg(hash),
            _ => cmd.arg("EVAL").arg(self.text),
        };
        cmd.arg(1).arg(key).arg(args);
        cmd
    }
}

/// Whether a command must be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// If not, nothing is lost.
    Best,
    /// If not, [`Events::failed`] is told, whether or not the caller still waits.
    Sure,
}

/// A handle to the connection. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    scripts: Vec<&'static Script>,
    channel: String,
    events: Arc<dyn Events>,
    counters: Counters,
    latency: Latency,
    breaker: Mutex<Breaker>,
    conn: Mutex<Option<Arc<Conn>>>,
    is_closed: AtomicBool,
    closing: Condvar,
}

/// Counts since the start.
#[derive(Default)]
struct Counters {
    commands: AtomicU64,
    errors: AtomicU64,
    busy: AtomicU64,
    timeouts: AtomicU64,
    unavailable: AtomicU64,
    skipped: AtomicU64,
    connects: AtomicU64,
    connect_errors: AtomicU64,
}

/// What the client has done and is doing, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commands that callers had.
    pub commands: u64,
    /// Of these: refused by the server, or answered by something that is no answer.
    pub errors: u64,
    /// Of these: not sent because the queue was full.
    pub busy: u64,
    /// Of these: without an answer within their deadline.
    pub timeouts: u64,
    /// Of these: without a connection, or on one that broke.
    pub unavailable: u64,
    /// Of these: not sent because the breaker was open.
    pub skipped: u64,
    /// Connections opened.
    pub connects: u64,
    /// Tries to open a connection that failed.
    pub connect_errors: u64,
    /// Whether a connection is open.
    pub is_connected: bool,
    /// Requests on it without an answer.
    pub in_flight: u64,
    /// The breaker: 0 closed, 1 half open, 2 open.
    pub breaker_state: u64,
    /// How often it opened.
    pub breaker_opened: u64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Client {
    /// A client of the server in `config`, which is connected to from a thread, now and whenever the connection breaks.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn open(
        config: Config,
        scripts: &[&'static Script],
        channel: &str,
        events: Arc<dyn Events>,
    ) -> std::io::Result<Self> {
        runtime::start()?;
        let shared = Arc::new(Shared {
            config,
            scripts: scripts.to_vec(),
            channel: channel.to_owned(),
            events,
            counters: Counters::default(),
            latency: Latency::default(),
            breaker: Mutex::default(),
            conn: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            closing: Condvar::new(),
        });
        let keeper = Arc::clone(&shared);
        thread::Builder::new().name("snip-redis".into()).spawn(move || keeper.keep())?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Runs a command.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn call(&self, cmd: &Cmd) -> Result<Value> {
        let mut values = self.shared().run(std::slice::from_ref(cmd), limits::REDIS_DEADLINE, Care::Best)?;
        refuse_errors(values.pop().unwrap_or_default())
    }

    /// Runs commands in one go, at most `limits::REDIS_BATCH_COMMANDS`; gives their answers in order. They are not a
    /// transaction. The limit must be one of few constants.
    ///
    /// # Errors
    /// Any of [`Error`], if there are no answers at all.
    pub fn batch(&self, cmds: &[Cmd], limit: Duration) -> Result<Vec<Result<Value>>> {
        if cmds.is_empty() {
            return Ok(Vec::new());
        }
        if cmds.len() > limits::REDIS_BATCH_COMMANDS {
            return Err(Error::Busy);
        }
        Ok(self.shared().run(cmds, limit, Care::Best)?.into_iter().map(refuse_errors).collect())
    }

    /// Runs a script on a key.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn script(&self, script: &Script, key: &str, args: &[&[u8]], care: Care) -> Result<Value> {
        let run = |in_full| {
            let cmd = script.cmd(key, args, in_full);
            let mut values = self.shared().run(std::slice::from_ref(&cmd), limits::REDIS_DEADLINE, care)?;
            refuse_errors(values.pop().unwrap_or_default())
        };
        match run(false) {
            Err(Error::Server { code, .. }) if &*code == "NOSCRIPT" => run(true),
            outcome => outcome,
        }
    }

    /// Sends off a script without waiting for its answer. What becomes of it, nobody hears.
    pub fn script_unheard<A: AsRef<[u8]>>(&self, script: &Script, key: &str, args: &[A]) {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let shared = self.shared();
        count(&shared.counters.commands, 1);
        let conn = shared.lock().clone();
        let sent = conn.is_some_and(|conn| conn.submit(&[script.cmd(key, &args, false)], false).is_ok());
        if !sent {
            count(&shared.counters.unavailable, 1);
        }
    }

    /// Runs a script on many keys in one go, at most `limits::REDIS_BATCH_COMMANDS`.
    ///
    /// # Errors
    /// As [`Client::batch`].
    pub fn script_batch(&self, script: &Script, calls: &[(String, Vec<Vec<u8>>)]) -> Result<Vec<Result<Value>>> {
        let run = |in_full| {
            let cmds: Vec<Cmd> = calls
                .iter()
                .map(|(key, args)| {
                    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                    script.cmd(key, &args, in_full)
                })
                .collect();
            self.batch(&cmds, limits::REDIS_BATCH_DEADLINE)
        };
        let answers = run(false)?;
        let is_forgotten =
            |answer: &Result<Value>| matches!(answer, Err(Error::Server { code, .. }) if &**code == "NOSCRIPT");
        // The scripts that are run this way may be run twice.
        if answers.iter().any(is_forgotten) { run(true) } else { Ok(answers) }
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub fn tell(&self, figures: &mut Figures) {
        let stats = self.stats();
        figures.counter("redis_commands_total", "Commands for Redis", stats.commands);
        let failures = [
            (["refused"], stats.errors),
            (["busy"], stats.busy),
            (["timeout"], stats.timeouts),
            (["unavailable"], stats.unavailable),
            (["breaker"], stats.skipped),
        ];
        figures.counters("redis_failures_total", "Commands for Redis without an answer", ["reason"], failures);
        let help = "From a request to Redis to its answer, or to its deadline";
        figures.latency("redis_request_duration_seconds", help, &self.shared().latency);
        figures.counter("redis_connects_total", "Connections to Redis opened", stats.connects);
        let help = "Connections to Redis that failed to open";
        figures.counter("redis_connect_errors_total", help, stats.connect_errors);
        figures.gauge("redis_connected", "1 while there is a connection to Redis", f64::from(stats.is_connected));
        figures.gauge("redis_in_flight", "Requests to Redis without an answer", stats.in_flight as f64);
        figures.counter("redis_breaker_opened_total", "Times that Redis was left alone", stats.breaker_opened);
        let help = "0 Redis is asked, 1 one caller tries, 2 it is left alone";
        figures.gauge("redis_breaker_state", help, stats.breaker_state as f64);
    }

    /// What the client has done and is doing.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        let conn = self.shared.lock().take();
        self.shared.closing.notify_all();
        if let Some(conn) = conn {
            conn.kill(closed());
        }
    }
}

fn closed() -> Error {
    Error::unavailable("the client is closed")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Conn>>> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, cmds: &[Cmd], limit: Duration, care: Care) -> Result<Values> {
        let counters = &self.counters;
        count(&counters.commands, cmds.len());
        let outcome = self.ask(cmds, limit, care);
        let refused = |values: &Values| values.iter().filter(|value| matches!(value, Value::ServerError(_))).count();
        match &outcome {
            Ok(values) => count(&counters.errors, refused(values)),
            Err(Error::Busy) => count(&counters.busy, cmds.len()),
            Err(Error::Open) => count(&counters.skipped, cmds.len()),
            Err(Error::TimedOut) => count(&counters.timeouts, cmds.len()),
            Err(Error::Unavailable(_)) => count(&counters.unavailable, cmds.len()),
            Err(_) => count(&counters.errors, cmds.len()),
        }
        // After a time-out the command is still on its way: of its refusal the connection tells, of its loss its end.
        let is_lost = matches!(outcome, Err(Error::Busy | Error::Open | Error::Unavailable(_)));
        if care == Care::Sure && is_lost {
            self.events.failed();
        }
        outcome
    }

    fn ask(&self, cmds: &[Cmd], limit: Duration, care: Care) -> Result<Values> {
        let conn = self.lock().clone().ok_or_else(|| Error::unavailable("no connection"))?;
        if !self.breaker().admits(Instant::now()) {
            return Err(Error::Open);
        }
        let begun = Instant::now();
        let outcome = match conn.submit(cmds, care == Care::Sure) {
            Ok(slot) => slot.wait(limit).unwrap_or_else(|empty| {
                Err(match empty {
                    Empty::TimedOut => Error::TimedOut,
                    Empty::Abandoned => Error::unavailable("the connection's coroutine failed"),
                })
            }),
            Err(error) => Err(error),
        };
        self.latency.observe(runtime::waited(Wait::Redis, begun.elapsed()));
        match &outcome {
            Ok(_) => self.breaker().succeeded(),
            Err(_) => self.breaker().failed(Instant::now()),
        }
        outcome
    }

    /// Keeps the connection open until the client is closed. Runs on a thread of its own.
    fn keep(&self) {
        let mut failures = 0;
        while !self.is_closed.load(Ordering::Acquire) {
            let begun = Instant::now();
            match self.open() {
                Ok(conn) => {
                    tracing::info!(server = %self.config, "connected to Redis");
                    let why = self.use_while_open(&conn);
                    if self.is_closed.load(Ordering::Acquire) {
                        return;
                    }
                    tracing::warn!(server = %self.config, %why, "the connection to Redis ended");
                    if begun.elapsed() >= SHORT_LIFE {
                        failures = 0;
                    }
                }
                // The first failure and then one in so many: Redis may be away for days.
                Err(error) if failures % 64 == 0 => {
                    tracing::warn!(server = %self.config, %error, "Redis cannot be reached");
                }
                Err(_) => {}
            }
            failures += 1;
            self.pause(backoff(failures));
        }
    }

    fn open(&self) -> Result<Arc<Conn>> {
        let opened = connect::open(&self.config, &self.scripts, &self.channel)
            .and_then(|session| Conn::start(session, Arc::clone(&self.events)));
        count(if opened.is_ok() { &self.counters.connects } else { &self.counters.connect_errors }, 1);
        opened
    }

    /// Lets callers use the connection until it ends; says why it did.
    fn use_while_open(&self, conn: &Arc<Conn>) -> Error {
        // First the events: from the first command on, a change may be announced.
        self.events.up();
        self.breaker().succeeded();
        *self.lock() = Some(Arc::clone(conn));
        if self.is_closed.load(Ordering::Acquire) {
            conn.kill(closed());
        }
        let why = watch(conn);
        *self.lock() = None;
        self.events.down();
        why
    }

    fn pause(&self, pause: Duration) {
        let conn = self.lock();
        // The result says whether the client was closed, which the caller looks at anyway.
        let _ = self.closing.wait_timeout_while(conn, pause, |_| !self.is_closed.load(Ordering::Acquire));
    }

    fn stats(&self) -> Stats {
        let conn = self.lock().clone();
        let (breaker_state, breaker_opened) = {
            let breaker = self.breaker();
            (breaker.state(), breaker.opened())
        };
        let counters = &self.counters;
        Stats {
            commands: read(&counters.commands),
            errors: read(&counters.errors),
            busy: read(&counters.busy),
            timeouts: read(&counters.timeouts),
            unavailable: read(&counters.unavailable),
            skipped: read(&counters.skipped),
            connects: read(&counters.connects),
            connect_errors: read(&counters.connect_errors),
            is_connected: conn.is_some(),
            in_flight: conn.map_or(0, |conn| conn.in_flight() as u64),
            breaker_state: State::as_number(breaker_state),
            breaker_opened,
        }
    }
}

/// Waits for the connection's end, which it brings about if the server owes a reply for too long.
fn watch(conn: &Conn) -> Error {
    let mut progress = (conn.completed(), Instant::now());
    loop {
        if let Some(why) = conn.wait_over(limits::REDIS_TICK) {
            return why;
        }
        let completed = conn.completed();
        if completed != progress.0 {
            progress = (completed, Instant::now());
        } else if conn.in_flight() == 0 {
            // Nobody has asked lately. A link that says nothing may be dead, and its messages lost.
            progress.1 = Instant::now();
            // The reply is for the count alone.
            let _ = conn.submit(std::slice::from_ref(Cmd::new().arg("PING")), false);
        } else if progress.1.elapsed() >= limits::REDIS_STALL {
            conn.kill(Error::unavailable("the server owes a reply for too long"));
        }
    }
}

/// Doubles from the shortest pause to the longest; between half of that and all of it, so that instances do not come
/// back in step.
fn backoff(failures: u32) -> Duration {
    let doubled = limits::REDIS_BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(limits::REDIS_BACKOFF_MAX).mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, longest) in [(1, 50), (2, 100), (3, 200), (5, 800), (6, 1000), (1000, 1000)] {
            let (longest, pause) = (Duration::from_millis(longest), backoff(failures));
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn a_script_goes_by_its_hash_once_that_is_known() {
        let script = Script::new("return 1");
        let packed = |in_full| String::from_utf8(script.cmd("k", &[b"a"], in_full).get_packed_command()).unwrap();
        assert!(packed(false).contains("EVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na"));
        script.learn(b"abc");
        assert!(packed(false).contains("EVALSHA\r\n$3\r\nabc"));
        assert!(packed(true).contains("EVAL\r\n$8\r\nreturn 1"));
    }
}
