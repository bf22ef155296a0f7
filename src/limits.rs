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

const _: () = assert!(SHORT_CODE_CHARS <= SHORT_CODE_CHARS_MAX);
const _: () = assert!(PER_PAGE_DEFAULT <= PER_PAGE_MAX);
const _: () = assert!(SQLITE_BATCH_JOBS <= SQLITE_QUEUE_JOBS);
