//! Every bound of the system, in one place. A queue, a buffer or a wait without a bound named here is a defect.
//!
//! Names end in their unit. What happens past a bound stands with it.

use std::time::Duration;

// ---- Coroutines ------------------------------------------------------------------------------------------------

/// Stack of a connection's coroutine, in machine words (128 KiB; only touched pages cost memory).
/// Overflow hits a guard page and kills the process, so nothing on it may recurse on network input.
pub const CONNECTION_STACK_WORDS: usize = 0x4000;
/// Stack of a database or cache socket's coroutine, in machine words (256 KiB).
pub const SOCKET_STACK_WORDS: usize = 0x8000;
/// Stacks that `may` keeps for reuse. Each is touched when the pool is made, so it costs memory while idle.
pub const STACK_POOL_COUNT: usize = 64;

// ---- Work handed to OS threads ---------------------------------------------------------------------------------

/// Jobs waiting for the blocking-work threads; past it the caller gets 503.
pub const OFFLOAD_QUEUE_JOBS: usize = 64;
/// Threads for blocking work (CSV parsing and the like).
pub const OFFLOAD_THREADS: usize = 1;

// ---- Model -----------------------------------------------------------------------------------------------------

/// Characters of a user name, an e-mail address or a title (the columns are `varchar(255)`).
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of a short code (the column is `varchar(20)`).
pub const SHORT_CODE_CHARS_MAX: usize = 20;
/// Characters of a generated short code.
pub const SHORT_CODE_CHARS: usize = 6;
/// Tries at a free short code before a 500; at ten million links one try fails with a chance of 0.02 %.
pub const SHORT_CODE_TRIES: usize = 10;
/// Characters of an event type (the column is `varchar(255)`).
pub const EVENT_TYPE_CHARS_MAX: usize = 255;
/// Bytes of a user agent kept with a click; the rest is cut at a character boundary.
pub const USER_AGENT_BYTES_MAX: usize = 512;

// ---- Lists -----------------------------------------------------------------------------------------------------

/// Rows on a page when the client does not say.
pub const PER_PAGE_DEFAULT: u32 = 25;
/// Rows on a page at the most; more is capped, as the contract has it.
pub const PER_PAGE_MAX: u32 = 100;

// ---- Store -----------------------------------------------------------------------------------------------------

/// How long a request waits for the store before it answers 503.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// How long `/health` and `/readyz` wait for the store.
pub const HEALTH_DEADLINE: Duration = Duration::from_secs(1);
/// Jobs waiting for the SQLite thread; past it the caller gets 503 with `Retry-After`.
pub const SQLITE_QUEUE_JOBS: usize = 1024;
/// Jobs that share one SQLite transaction (group commit).
pub const SQLITE_BATCH_JOBS: usize = 256;

// ---- PostgreSQL ------------------------------------------------------------------------------------------------

/// Connections that all callers of an instance share. One backend does some 20,000 point queries a second.
pub const PG_CONNECTIONS: usize = 4;
/// Connections leased for transactions of several round trips, besides the shared ones; past it `Busy`.
pub const PG_LEASES_MAX: usize = 2;
/// Requests under way on one connection; past it `Busy`. Four connections carry ten thousand callers.
pub const PG_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of requests that wait to be written to one connection; past it `Busy`. A single request cannot be larger.
pub const PG_QUEUE_BYTES: usize = 8 << 20;
/// Statements of one batch; past it the program is told that it uses the client wrongly.
pub const PG_BATCH_STATEMENTS: usize = 256;
/// Statements prepared on one connection; further ones are parsed at each use.
pub const PG_STATEMENTS_MAX: usize = 256;
/// Callers that wait while the first connection is being made; past it `Busy`.
pub const PG_WAITERS_MAX: usize = 4096;
/// Read buffer of one connection; a larger message grows it for as long as it takes.
pub const PG_READ_BYTES: usize = 64 << 10;
/// Bytes of one message from the server; past it the connection is closed.
pub const PG_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the rows that answer one request; past it the rows are dropped and the caller gets an error.
pub const PG_REPLY_BYTES_MAX: usize = 32 << 20;
/// Bytes that one connection reads before others get their turn.
pub const PG_TURN_BYTES: usize = 256 << 10;
/// Bytes of a text that the server sends for the log (messages, details); the rest is cut.
pub const PG_TEXT_BYTES_MAX: usize = 1024;
/// Messages before the session is open; a server that sends more is not one.
pub const PG_STARTUP_MESSAGES_MAX: usize = 256;
/// Rounds of password hashing that a server may ask for; PostgreSQL asks for 4,096.
pub const PG_SCRAM_ROUNDS_MAX: u32 = 1_000_000;
/// How long opening a connection may take, all in, when the connection string does not say.
pub const PG_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancel request may take, and then how long the canceled statement may take to end; past it the
/// connection counts as dead.
pub const PG_CANCEL_GRACE: Duration = Duration::from_secs(2);
/// First pause after a connection could not be opened; it doubles with each further failure.
pub const PG_BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries to open a connection.
pub const PG_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Silence after which the kernel asks whether the peer is still there.
pub const PG_KEEPALIVE: Duration = Duration::from_secs(30);

const _: () = assert!(SHORT_CODE_CHARS <= SHORT_CODE_CHARS_MAX);
const _: () = assert!(PER_PAGE_DEFAULT <= PER_PAGE_MAX);
const _: () = assert!(SQLITE_BATCH_JOBS <= SQLITE_QUEUE_JOBS);
const _: () = assert!(PG_READ_BYTES <= PG_TURN_BYTES && PG_TURN_BYTES <= PG_MESSAGE_BYTES_MAX);
const _: () = assert!(PG_CONNECTIONS * PG_IN_FLIGHT_MAX >= 10_000); // what the client promises
