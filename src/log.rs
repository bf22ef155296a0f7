//! The log: one line an event, as JSON or, on a terminal, for people.
//!
//! Lines go through a bounded queue to a thread that writes: a coroutine must not wait for a terminal or a full pipe.
//! When the queue is full, lines are dropped and counted.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::str::FromStr;
use std::sync::OnceLock;
use std::thread;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::figures::Figures;
use crate::limits::LOG_QUEUE_LINES;
use crate::runtime::NO_PANIC_TEXT;

/// The least severe events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names are the levels")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, unless the standard output is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Format {
    /// Whether lines are for people.
    pub fn is_text(self) -> bool {
        match self {
            Self::Auto => io::stdout().is_terminal(),
            Self::Json => false,
            Self::Text => true,
        }
    }
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Tells Prometheus.
pub fn tell(figures: &mut Figures) {
    let dropped = DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64);
    figures.counter("log_lines_dropped_total", "Log lines dropped because their queue was full", dropped);
}

/// Starts the log. It is written out in full when the guard is dropped.
pub fn start(level: Level, format: Format) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_QUEUE_LINES).lossy(true).finish(io::stdout());
    // A second log in one process (tests) keeps the first one's counter.
    let _ = DROPPED.set(writer.error_counter());
    let level = LevelFilter::from_str(&format!("{level:?}")).unwrap_or(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(level);
    let started = if format.is_text() {
        let ansi = io::stdout().is_terminal();
        registry.with(fmt::layer().with_target(false).with_ansi(ansi).with_writer(writer)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    };
    // Only a second log could be refused; the first one then serves.
    let _ = started;
    panic::set_hook(Box::new(tell_panic));
    guard
}

/// A panic is a line like any other: what Rust would print is no JSON, and has whoever panics wait for the standard error.
/// What became of the work, whoever catches it tells.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    tracing::error!(
        panic = panic.payload_as_str().unwrap_or(NO_PANIC_TEXT),
        location = panic.location().map(tracing::field::display),
        thread = thread::current().name(),
        "panicked"
    );
}
