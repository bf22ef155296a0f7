//! Every bound of the system, in one place. A queue, a buffer or a wait without a bound named here is a defect.
//!
//! Names end in their unit. What happens past a bound stands with it.

use std::time::Duration;

// ---- Coroutines ------------------------------------------------------------------------------------------------

/// Stack of a connection's coroutine, in machine words (128 KiB; only touched pages cost memory). A guard page stops
/// what outgrows it: that coroutine never ends, so nothing on it may recurse on network input. Unoptimized code needs
/// more: there the JSON parser alone puts a quarter of a megabyte of tables on the stack (optimized: under 16 KiB).
pub const CONNECTION_STACK_WORDS: usize = if cfg!(debug_assertions) { 0x20000 } else { 0x4000 };
/// Stack of a database or cache socket's coroutine, in machine words (256 KiB).
pub const SOCKET_STACK_WORDS: usize = 0x8000;
/// Stacks that `may` keeps for reuse: short connections would else pay for mapping one and touching it anew. What they
/// have touched stays in memory, about 12 KiB each.
pub const STACK_POOL_COUNT: usize = 512;

// ---- Work handed to OS threads ---------------------------------------------------------------------------------

/// Jobs waiting for the blocking-work threads; past it the caller gets 503.
pub const OFFLOAD_QUEUE_JOBS: usize = 64;
/// Threads for blocking work (CSV parsing and the like).
pub const OFFLOAD_THREADS: usize = 1;

// ---- HTTP ------------------------------------------------------------------------------------------------------

/// Connections open at once, when not configured. Past it a new one gets a ready-made 503 and is closed. Each stack is
/// two memory maps of the 65,530 that Linux allows a process by default.
pub const CONNECTIONS_MAX_DEFAULT: usize = 10_000;
/// More than this cannot be configured: the kernel's memory maps would run out.
pub const CONNECTIONS_MAX_CEILING: usize = 30_000;
/// Connections beyond that number that are let in to ask a probe (`/livez`, `/readyz`, `/metrics`) and nothing else, so
/// that whoever looks after the service still can. Past these, too, 503 without a look at the request.
pub const CONNECTIONS_RESERVE: usize = 64;
/// How long one of these may take to ask: few are held up by those that never do.
pub const RESERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// File descriptors beside those of the connections: the reserve, listeners, the store's files, epoll, the log.
pub const DESCRIPTORS_RESERVE: u64 = 128 + CONNECTIONS_RESERVE as u64;
/// Connections the kernel may queue before they are accepted.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Connections accepted in a row before the accept loop lets the others run.
pub const ACCEPT_BATCH: usize = 64;
/// Pause after an accept failed for want of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A pooled read buffer: what a connection in the middle of a request holds at least. It grows with what arrives.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;
/// The longest head: request line and headers. Past it 414 or 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest request target. Past it 414. Leaves room in the head for headers.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Headers of a request; past it 431.
pub const HEADERS_MAX: usize = 64;
/// A pooled write buffer, held from an answer's first byte until its last is written. A larger answer grows it; then it is
/// not pooled again.
pub const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// Answers to pipelined requests are written out before more than this waits, whatever else is to be answered.
pub const PIPELINE_OUTPUT_BYTES: usize = 64 * 1024;
/// Answers that wait for those of other connections to be made, so that all are sent in a row; with so many they are sent.
pub const OUTBOX_ANSWERS_MAX: usize = 16;
/// Read and write buffers kept for reuse, each.
pub const BUFFER_POOL_COUNT: usize = 64;
/// A body of an ordinary route (JSON). Past it 413.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The file of a bulk upload. Past it 413, with the contract's message.
pub const UPLOAD_FILE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The whole multipart body around that file: boundaries, part headers, small other fields.
pub const UPLOAD_BODY_BYTES_MAX: usize = UPLOAD_FILE_BYTES_MAX + 64 * 1024;
/// Memory of all buffers in use, read and write, over all connections. Past it a request gets 503, and an answer that its
/// client does not take at once is given up. An answer in the making may go beyond it, one at a time.
pub const BUFFERS_TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// From here on no buffer grows beyond its pooled size, and no client that is slow to take its answer has one that did:
/// large bodies, heads and answers get 503, while small requests still have the rest.
pub const BUFFERS_GROWTH_BYTES_MAX: usize = 48 * 1024 * 1024;
/// An answer of this size, the metrics say, is made even then. Its client must take it at once.
pub const MODEST_ANSWER_BYTES: usize = 128 * 1024;
/// A chunk-size line with its extensions, and the whole trailer section. Past it 400.
pub const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Bytes read and thrown away after a refusal, so that the client sees the answer and not a reset connection.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Time for the same.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// From the first byte of a request to the end of its head; past it 408.
pub const HEAD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// For a body, or for as much of it as the minimum rate asks of this time; past it 408.
pub const BODY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Between requests; longer than Nginx keeps its upstream connections (60 s), so that Nginx closes first.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);
/// For the client to take what waits for it, or as much of it as the minimum rate asks; past it the connection is closed.
pub const WRITE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Bytes a second below which a body, or the taking of an answer, counts as stalled. Those that end within their timeout
/// are not measured by it.
pub const RATE_MIN_DEFAULT: u32 = 8 * 1024;
/// How long a connection is idle before it gives back the memory of its stack that it does not use at present.
pub const IDLE_TRIM_AFTER: Duration = Duration::from_secs(5);
/// The longest time that can be set: a year, as good as for ever. Deadlines are reckoned with it, and no clock goes on for
/// ever.
pub const SETTING_TIME_MAX: Duration = Duration::from_hours(365 * 24);
/// From SIGTERM to the end of the process, whatever is still in flight.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// From SIGTERM until connections between two requests are closed, at the most half of the drain's time. A client that asks
/// again within it is told that the connection closes; one that asks at the very moment of the close loses its request.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// The last part of it, in which nobody is accepted any more, so that those who came last can send their first request.
pub const DRAIN_LAST_CALL: Duration = Duration::from_millis(500);
/// How long a TCP port that another process shares is still listened on once new connections go elsewhere: the longest
/// handshake under way. Below a second, after which the kernels of those who were turned away try again.
pub const LISTEN_LINGER_SHARED: Duration = Duration::from_millis(500);
/// The same for other addresses: clients on this machine, the proxy above all, who are in the middle of connecting.
pub const LISTEN_LINGER_ALONE: Duration = Duration::from_millis(20);
/// For the process to let go of everything once its work is done and said to be; past it, it is ended as it stands.
pub const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// How often expired connections are looked for, and how coarse the clock of the server is.
pub const TICK: Duration = Duration::from_millis(100);
/// As much of the time between two ticks counts against connections. A tick that comes later than that had no CPU, and the
/// connections had none either.
pub const TICK_COUNTED_MAX: Duration = Duration::from_millis(250);
/// Levels of nesting in JSON from the network; deeper is refused before it is parsed.
pub const JSON_DEPTH_MAX: usize = 32;

// ---- Links and clicks -------------------------------------------------------------------------------------------

/// Memory of the in-process cache of links, keys, values and bookkeeping included.
pub const LINKS_LOCAL_BYTES: u64 = 16 * 1024 * 1024;
/// What one cached link costs beside its code and its target: table slot, queue entry, allocation headers.
pub const LINK_OVERHEAD_BYTES: u64 = 160;
/// Codes remembered as unknown or inactive. They have a cache of their own, so that a scan of random codes cannot push
/// real links out.
pub const ABSENT_CODES_MAX: usize = 4096;
/// How long a link in memory is served when nothing vouches for it: the bound on staleness then.
pub const LINK_TTL: Duration = Duration::from_secs(10);
/// The same while changes are being heard of, by way of Redis or of the store.
pub const LINK_TTL_ATTESTED: Duration = Duration::from_secs(60);
/// The same for codes remembered as unknown or inactive.
pub const ABSENT_TTL: Duration = Duration::from_secs(1);
/// How often the store's list of changed links is read on.
pub const LINK_POLL: Duration = Duration::from_secs(1);
/// For how long a reading of that list vouches for what is in memory, from its beginning: the bound on staleness when
/// Redis is away and the store answers.
pub const LINK_ATTESTED_FOR: Duration = Duration::from_secs(3);
/// Entries of that list read, and brought into Redis, at a time.
pub const LINK_CHANGES_PAGE: u32 = 512;
/// How far back the list goes that must have been read before Redis is trusted: further than any value in Redis can be
/// old, by which much a transaction may take from its change to its commit.
pub const LINK_CHANGES_WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long entries stay in that list.
pub const LINK_CHANGES_KEPT: Duration = Duration::from_secs(30 * 60);
/// How often older ones are dropped.
pub const LINK_CHANGES_FORGET: Duration = Duration::from_secs(60);
/// How long a link stays in Redis, give or take the next: so that what was written together does not end together.
pub const REDIS_LINK_TTL: Duration = Duration::from_secs(600);
/// The largest deviation from that.
pub const REDIS_LINK_TTL_JITTER: Duration = Duration::from_secs(60);
/// How long an instance that found nothing in Redis may take to ask the store and fill: longer than the store's
/// deadline.
pub const REDIS_LEASE_TTL: Duration = Duration::from_secs(10);
/// Bytes of a value in Redis; a longer one is garbage, and a longer link is not written.
pub const CACHED_LINK_BYTES_MAX: usize = 64 * 1024;
/// Links read, leased and filled at a time by the warm-up.
pub const WARM_UP_PAGE: u32 = 256;
/// How long the warm-up waits before it tries again, while Redis is not trusted or does not say whose the lock is: a
/// part of the time in which trust can come back ([`LINK_POLL`]), so that little of it is lost, and no burden.
pub const WARM_UP_RETRY: Duration = Duration::from_millis(250);
/// How long the warm-up rests between two pages, as a multiple of the time the last one took: requests come first.
pub const WARM_UP_REST: u32 = 1;
/// Time after which the warm-up ends, done or not, and the life of the lock that makes one instance do it.
pub const WARM_UP_LIMIT: Duration = Duration::from_secs(300);
/// Clicks stored in one transaction. While as many wait, more of them are cheaper each: what is done once for each URL and
/// each page of an index is shared (`benches/journal.rs`).
pub const CLICKS_BATCH_MAX: usize = 16_384;
/// A batch that the store did not take is offered again in halves, which are not made smaller than this.
pub const CLICKS_BATCH_MIN: usize = 64;
/// After a batch that took less than this the next one may be twice as large, up to the usual: so that one of that size
/// will meet its deadline, too.
pub const CLICKS_BATCH_QUICK: Duration = Duration::from_millis(STORE_DEADLINE.as_millis() as u64 / 4);
/// Bytes of their texts: with the rest of a row, a batch fits one request to PostgreSQL.
pub const CLICKS_BATCH_TEXT_BYTES: usize = 4 << 20;
/// What a click takes in such a request beside its texts, at the most.
pub const CLICK_ROW_BYTES: usize = 200;
/// How long a click waits for others to share its transaction.
pub const CLICKS_FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// It waits longer when batches take long, as they do where requests and the store share a busy core: so many times as
/// long as the last one took. What is in the store a little later is there at less cost each.
pub const CLICKS_FLUSH_SHARE: u32 = 8;
/// But not longer than this.
pub const CLICKS_FLUSH_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long a read of events waits for the clicks before it; past it 503.
pub const CLICKS_FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before clicks that the store refused are offered again: from this, doubled each time, up to the next.
pub const CLICKS_RETRY_MIN: Duration = Duration::from_millis(100);
/// Time for the last clicks at shutdown, even if the drain has used all of its own.
pub const CLICKS_CLOSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause between two offers.
pub const CLICKS_RETRY_MAX: Duration = Duration::from_secs(5);
/// While more than a batch waits, the shipper rests for this share of the time that its last batch took (one in so
/// many), so that a store that comes back is not the backlog's alone.
pub const CLICKS_REST_SHARE: u32 = 8;
/// The longest such rest.
pub const CLICKS_REST_MAX: Duration = Duration::from_millis(25);
/// Clicks of this instance a second from which on a burst is possible. What an instance with less to do stores takes little of
/// a core, and a neighbour that keeps the core busy is no reason for its clicks to wait.
pub const CLICKS_BURST_RATE: u64 = 2_000;
/// In a burst the processors that this process may run on are idle for less than this share of their time, in percent: storing
/// the clicks of a core full of redirects takes a fifth to a third of it (`docs/performance.md`, "all in"), and where less is
/// idle the store would take the rest from them. The kernel's figure is a tick or two off, in the 25 of a look.
pub const CLICKS_BURST_IDLE_PERCENT: u64 = 25;
/// How often the shipper looks whether a burst goes on, and the least time that its figures are of: 25 of the kernel's ticks for
/// each processor, fewer would tell little. Both ends of a burst are noticed so much later, which is short beside the second
/// that clicks may wait for each other on a busy core.
pub const CLICKS_BURST_LOOK: Duration = Duration::from_millis(250);
/// How long clicks wait in one burst, at the most. Past it the load is no burst, and they are stored beside it. What gathers
/// by then at 13,000 a second, an instance's share of a full core, is stored beside the load within the 5 s that a reader
/// waits ([`CLICKS_FLUSH_DEADLINE`]; `docs/performance.md` has what was measured). A third of the 30 s from which on
/// `JournalLagging` (`ops/prometheus/rules/snip.yml`) looks at them; the rest is for storing them.
pub const CLICKS_BURST_MAX: Duration = Duration::from_secs(10);
/// The share of the journal's bytes (one in so many) past which a burst's clicks wait no longer. The rest is for the time that a
/// store may be away.
pub const CLICKS_BURST_JOURNAL_SHARE: u64 = 4;
/// Bytes of one segment file of the journal, its header included. Rotation costs a file each; what is mapped and
/// touched of it is [`JOURNAL_AHEAD_BYTES`], whatever its size.
pub const JOURNAL_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of all segment files, when not configured. Past it clicks are shed: counted, not stored; redirects go on.
pub const JOURNAL_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;
/// The least that can be configured: a segment that is written, one ready, and two on their way to the store.
pub const JOURNAL_BYTES_MIN: u64 = 4 * JOURNAL_SEGMENT_BYTES;
/// How long the file of a stored segment is kept to make another of it, if none is needed. Longer than the pauses between
/// bursts; an instance that is left alone gives the disk back.
pub const JOURNAL_SPARE_KEEP: Duration = Duration::from_secs(60);
/// Bytes in front of the journal's end that are kept mapped and present, so that an append meets no page fault. Counts
/// as resident memory. Three quarters of it last for one [`JOURNAL_LOOK_INTERVAL`] at 150,000 clicks/s, more than a core
/// serves.
pub const JOURNAL_AHEAD_BYTES: usize = 1024 * 1024;
/// How often the journal's thread looks whether it must prepare something. It is not told: that would be a system call.
pub const JOURNAL_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Pause before a segment that could not be prepared (a full disk, say) is tried again.
pub const JOURNAL_PREPARE_RETRY: Duration = Duration::from_secs(1);
/// How often clicks are made to outlive a crash of the host under `--journal-sync interval`, when not configured.
pub const JOURNAL_SYNC_INTERVAL_DEFAULT: Duration = Duration::from_millis(100);
/// How long a redirect waits under `--journal-sync always`; then it is answered, and the click counted as unsynced.
pub const JOURNAL_SYNC_DEADLINE: Duration = Duration::from_secs(5);
/// Segments whose failed sync is remembered for redirects that still wait for it.
pub const JOURNAL_DISTRUSTED_MAX: usize = 64;
/// Tries to lock a journal's folder, and the pause between two: whoever looks for journals left over holds a lock for a
/// moment, and a program that the process before was just starting has a copy of its lock until it runs.
pub const JOURNAL_LOCK_TRIES: u32 = 100;
/// See [`JOURNAL_LOCK_TRIES`].
pub const JOURNAL_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of an instance's name: a folder's name and a field of each segment.
pub const INSTANCE_ID_BYTES_MAX: usize = 64;
/// Bytes that the shipper reads from a segment at a time.
pub const JOURNAL_READ_BYTES: usize = 256 * 1024;

// ---- Requests in the log ---------------------------------------------------------------------------------------

/// Bytes of a request's id; a longer one from a proxy is not taken, and one of our own stands in its place.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Waits of a coroutine that are remembered, for the line of a slow request; the oldest make room.
pub const WAITS_KEPT: usize = 16;
/// From this time on a request is slow and gets a line in the log that tells what it waited for, when not configured.
pub const SLOW_REQUEST_DEFAULT: Duration = Duration::from_millis(100);

// ---- Metrics ---------------------------------------------------------------------------------------------------

/// How long a scrape waits for the store to be looked at; then it tells what was seen the time before. Under a load that
/// takes the whole core the store's answer passes through several hands, each of which waits for its turn.
pub const SCRAPE_STORE_WAIT: Duration = Duration::from_millis(2);
/// The same as long as nothing was ever seen.
pub const SCRAPE_FIRST_WAIT: Duration = Duration::from_millis(100);
/// The active URLs are counted again after so many times the time that it took: at most 0.1 % of it goes into counting, by
/// each instance.
pub const SCRAPE_COUNT_REST: u32 = 1000;

// ---- Clock -----------------------------------------------------------------------------------------------------

/// How long a redirect's time is reckoned from the last look at the system's clock, which costs each of them otherwise.
pub const CLOCK_LOOK_INTERVAL: Duration = Duration::from_millis(100);

// ---- Log -------------------------------------------------------------------------------------------------------

/// Lines waiting for the log's writer. Past it lines are dropped and counted, never waited for.
pub const LOG_QUEUE_LINES: usize = 8192;

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
/// Bytes of a referrer kept with a click; the rest is cut at a character boundary.
pub const REFERRER_BYTES_MAX: usize = 512;

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
/// Clicks of one job: whatever else is asked of the SQLite thread waits for it.
pub const SQLITE_CLICKS_MAX: usize = 4096;
/// How long the SQLite thread waits for another process's lock; then writers get 503. Everything queued waits with it,
/// so it is shorter than what `/health` grants.
pub const SQLITE_LOCK_WAIT: Duration = Duration::from_millis(500);
/// Prepared statements kept by the SQLite thread: more than there are, so that each is compiled once.
pub const SQLITE_STATEMENTS: usize = 64;
/// Memory for pages of the SQLite file, in KiB.
pub const SQLITE_PAGE_CACHE_KIB: i64 = 2048;
/// Bytes that the write-ahead log of SQLite keeps on disk after a checkpoint; a burst may make it longer for a while.
pub const SQLITE_WAL_KEPT_BYTES: i64 = 16 * 1024 * 1024;

// ---- Connections to PostgreSQL and Redis -------------------------------------------------------------------------

/// Silence after which the kernel asks whether the peer is still there.
pub const SOCKET_KEEPALIVE: Duration = Duration::from_secs(30);
/// A write buffer larger than this is given back once it is written, so that bulk loads leave no memory behind.
pub const CLIENT_WRITE_KEEP_BYTES: usize = 256 << 10;

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
/// While more requests than this are with the server, further ones are gathered until there are as many again, and then
/// written in one system call (`benches/pg_select.rs`). Fewer are written at once.
pub const PG_GATHER_REQUESTS: usize = 16;
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
/// Bytes of rows that one statement of an import or of `snip seed` carries; more go in several.
pub const PG_CHUNK_BYTES: usize = 1 << 20;
/// How long a statement of a migration or of `snip seed` may take: it is a command's work, on tables of any size.
pub const PG_COMMAND_DEADLINE: Duration = Duration::from_secs(3600);
/// Pause between two tries to bring the tables of a database up to date that was not there at the start.
pub const PG_SCHEMA_RETRY: Duration = Duration::from_millis(500);

// ---- Redis -----------------------------------------------------------------------------------------------------

/// How long a caller waits for Redis; then it goes on without. The reply keeps its place in the queue.
pub const REDIS_DEADLINE: Duration = Duration::from_millis(50);
/// The same for batches in the background (warm-up, repair).
pub const REDIS_BATCH_DEADLINE: Duration = Duration::from_secs(2);
/// Requests under way; past it `Busy`, and the caller goes on without Redis.
pub const REDIS_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of requests that wait to be written; past it `Busy`.
pub const REDIS_QUEUE_BYTES: usize = 4 << 20;
/// Commands of one batch.
pub const REDIS_BATCH_COMMANDS: usize = 512;
/// Read buffer; a larger reply grows it for as long as it takes.
pub const REDIS_READ_BYTES: usize = 32 << 10;
/// Bytes of one reply; past it the connection is closed.
pub const REDIS_REPLY_BYTES_MAX: usize = 1 << 20;
/// Values within one reply; past it the connection is closed.
pub const REDIS_REPLY_ELEMENTS_MAX: usize = 4096;
/// Nesting of one reply; past it the connection is closed.
pub const REDIS_REPLY_DEPTH_MAX: usize = 8;
/// Bytes that are read before others get their turn.
pub const REDIS_TURN_BYTES: usize = 256 << 10;
/// How long opening the connection may take, all in.
pub const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that owes a reply for so long is given up: the server is frozen or gone.
pub const REDIS_STALL: Duration = Duration::from_secs(2);
/// How often that is looked at, and the server asked for a sign of life if nobody else asks.
pub const REDIS_TICK: Duration = Duration::from_millis(500);
/// First pause after the connection could not be opened or broke; it doubles with each further failure.
pub const REDIS_BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries to connect.
pub const REDIS_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Failures in a row after which Redis is left alone for a while.
pub const REDIS_BREAKER_FAILURES: u32 = 5;
/// For how long, at first; it doubles with each failed try.
pub const REDIS_BREAKER_PAUSE_MIN: Duration = Duration::from_millis(100);
/// For how long at the most.
pub const REDIS_BREAKER_PAUSE_MAX: Duration = Duration::from_secs(1);

// ---- Alert receiver --------------------------------------------------------------------------------------------

/// Connections of `snip alerts` open at once: one Alertmanager, Prometheus, some people. Past it 503.
pub const ALERT_CONNECTIONS_MAX: usize = 128;
/// A notification. Past it 413; `max_alerts` in Alertmanager keeps them small.
pub const ALERT_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Alerts of one notification, each a file and an embed; past it 413.
pub const ALERTS_PER_NOTIFICATION_MAX: usize = 500;
/// Bytes of `alerts.jsonl`; past it the file is rotated.
pub const ALERT_LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Rotated files that are kept, `alerts.jsonl.1` being the newest.
pub const ALERT_LOG_FILES_MAX: usize = 5;
/// Evidence files; past it the oldest are removed.
pub const ALERT_EVIDENCE_FILES_MAX: usize = 5000;
/// Bytes of all evidence files; past it the oldest are removed.
pub const ALERT_EVIDENCE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Age of an evidence file; older ones are removed.
pub const ALERT_EVIDENCE_AGE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often age is looked at; number and bytes are looked at with each notification.
pub const ALERT_EVIDENCE_SWEEP: Duration = Duration::from_secs(3600);
/// Characters of an alert's name within the name of its evidence file.
pub const ALERT_EVIDENCE_NAME_CHARS: usize = 64;
/// Alerts shown by `GET /`, the latest first.
pub const ALERTS_SHOWN_MAX: usize = 50;
/// Characters of any one text of an alert shown there; the rest is cut.
pub const ALERT_SHOWN_CHARS_MAX: usize = 500;
/// Alerts that were forwarded although the disk would not take them, remembered so that Alertmanager's next try does not
/// forward them again. Past it the oldest are forgotten.
pub const ALERT_UNSTORED_MAX: usize = 1000;
/// Alerts waiting to be forwarded; past it new ones are dropped and counted. They are in the log all the same.
pub const ALERT_FORWARD_QUEUE: usize = 1000;
/// Tries to forward one message, the first included.
pub const ALERT_FORWARD_TRIES: u32 = 8;
/// How long one try may take.
pub const ALERT_FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a first failure; it doubles with each further one.
pub const ALERT_FORWARD_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest pause that a failure makes.
pub const ALERT_FORWARD_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest `Retry-After` that is kept to; a longer one counts as this.
pub const ALERT_FORWARD_RETRY_AFTER_MAX: Duration = Duration::from_secs(900);
/// From SIGTERM to the end of the requests in flight, and then to the end of forwarding: less, in all, than the 10 s that
/// container engines grant.
pub const ALERT_DRAIN: Duration = Duration::from_secs(3);
/// See [`ALERT_DRAIN`].
pub const ALERT_FORWARD_FLUSH: Duration = Duration::from_secs(5);
/// Embeds of one Discord message (Discord's documentation of its webhooks, as all of these).
pub const DISCORD_EMBEDS_MAX: usize = 10;
/// Characters of all embeds of one message.
pub const DISCORD_MESSAGE_CHARS_MAX: usize = 6000;
/// Characters of an embed's title.
pub const DISCORD_TITLE_CHARS_MAX: usize = 256;
/// Characters of an embed's description. Discord takes 4096; an embed of ours fits a message whatever else it has.
pub const DISCORD_DESCRIPTION_CHARS_MAX: usize = 1500;
/// Characters of a field's value.
pub const DISCORD_VALUE_CHARS_MAX: usize = 1024;
/// Characters of a link. Discord takes 2048; two of them must fit the fields of an embed.
pub const DISCORD_LINK_CHARS_MAX: usize = 1000;
/// Characters of the short fields of an embed.
pub const DISCORD_SHORT_CHARS_MAX: usize = 100;

// ---- Seed ------------------------------------------------------------------------------------------------------

/// Bytes of one CSV file of `snip seed`; a longer one is refused, since the data set is held in memory.
pub const SEED_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bad rows that `snip seed` lists; of the rest it tells the number.
pub const SEED_PROBLEMS_MAX: usize = 20;
/// Characters of a bad value that `snip seed` shows.
pub const SEED_SHOWN_CHARS_MAX: usize = 40;

const _: () = assert!(JOURNAL_BYTES_MIN <= JOURNAL_BYTES_DEFAULT);
const _: () = assert!((JOURNAL_AHEAD_BYTES as u64) < JOURNAL_SEGMENT_BYTES);
const _: () = assert!(STACK_POOL_COUNT <= CONNECTIONS_MAX_CEILING);
const _: () = assert!(READ_BUFFER_BYTES <= HEAD_BYTES_MAX && TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(WRITE_BUFFER_BYTES <= PIPELINE_OUTPUT_BYTES);
// A buffer grows by doubling: while a body is copied from one that is full to the next, both count.
const _: () = assert!(BODY_BYTES_MAX <= UPLOAD_BODY_BYTES_MAX && 2 * UPLOAD_BODY_BYTES_MAX <= BUFFERS_GROWTH_BYTES_MAX);
// Thousands of small requests have room whatever the large ones hold; with no large ones, those of all connections.
const _: () = assert!(BUFFERS_GROWTH_BYTES_MAX + 4096 * READ_BUFFER_BYTES <= BUFFERS_TOTAL_BYTES_MAX);
const _: () = assert!(CONNECTIONS_MAX_DEFAULT * READ_BUFFER_BYTES <= BUFFERS_GROWTH_BYTES_MAX);
const _: () = assert!(CONNECTIONS_MAX_DEFAULT <= CONNECTIONS_MAX_CEILING);
const _: () = assert!(LISTEN_LINGER_SHARED.as_millis() + DRAIN_LAST_CALL.as_millis() <= DRAIN_GRACE.as_millis());
const _: () = assert!(LISTEN_LINGER_SHARED.as_millis() < 1000); // the kernel's first retry
const _: () = assert!(SHORT_CODE_CHARS <= SHORT_CODE_CHARS_MAX);
const _: () = assert!(PER_PAGE_DEFAULT <= PER_PAGE_MAX);
const _: () = assert!(CLICKS_BATCH_MIN <= SQLITE_CLICKS_MAX && SQLITE_CLICKS_MAX <= CLICKS_BATCH_MAX);
const _: () = assert!(CLICKS_FLUSH_INTERVAL.as_millis() <= CLICKS_FLUSH_INTERVAL_MAX.as_millis());
const _: () = assert!(CLICKS_FLUSH_INTERVAL_MAX.as_millis() < CLICKS_FLUSH_DEADLINE.as_millis());
const _: () = assert!(CLICKS_BURST_LOOK.as_millis() >= 200); // ticks of the kernel are 10 ms
const _: () = assert!(CLICKS_BURST_LOOK.as_millis() <= CLICKS_FLUSH_INTERVAL_MAX.as_millis());
const _: () = assert!(3 * CLICKS_BURST_MAX.as_secs() <= 30); // JournalLagging
const _: () = assert!(SQLITE_BATCH_JOBS <= SQLITE_QUEUE_JOBS);
const _: () = assert!(SQLITE_LOCK_WAIT.as_millis() < HEALTH_DEADLINE.as_millis());
const _: () = assert!(PG_READ_BYTES <= PG_TURN_BYTES && PG_TURN_BYTES <= PG_MESSAGE_BYTES_MAX);
// Else it might never be met.
const _: () = assert!(PG_GATHER_REQUESTS > 0 && PG_GATHER_REQUESTS <= PG_IN_FLIGHT_MAX / 2);
const _: () = assert!(PG_CHUNK_BYTES * 4 <= PG_QUEUE_BYTES); // each row has some bytes beside its texts
const _: () = assert!(CLICKS_BATCH_MAX * CLICK_ROW_BYTES + CLICKS_BATCH_TEXT_BYTES < PG_QUEUE_BYTES);
const _: () = assert!(PG_CONNECTIONS * PG_IN_FLIGHT_MAX >= 10_000); // what the client promises
const _: () = assert!(REDIS_READ_BYTES <= REDIS_TURN_BYTES && REDIS_READ_BYTES <= REDIS_REPLY_BYTES_MAX);
const _: () = assert!(REDIS_BATCH_COMMANDS <= REDIS_REPLY_ELEMENTS_MAX);
const _: () = assert!(REDIS_DEADLINE.as_millis() < REDIS_BATCH_DEADLINE.as_millis());
const _: () = assert!(REDIS_BATCH_DEADLINE.as_millis() <= REDIS_STALL.as_millis());
const _: () = assert!(LINK_POLL.as_millis() < LINK_ATTESTED_FOR.as_millis());
const _: () = assert!(LINK_ATTESTED_FOR.as_millis() < LINK_TTL.as_millis());
const _: () = assert!(REDIS_LEASE_TTL.as_millis() > STORE_DEADLINE.as_millis());
const _: () = assert!(
    LINK_CHANGES_WINDOW.as_secs()
        > REDIS_LINK_TTL.as_secs() + REDIS_LINK_TTL_JITTER.as_secs() + REDIS_LEASE_TTL.as_secs() + 60
);
const _: () = assert!(LINK_CHANGES_KEPT.as_secs() > LINK_CHANGES_WINDOW.as_secs());
const _: () =
    assert!(LINK_CHANGES_PAGE as usize <= REDIS_BATCH_COMMANDS && WARM_UP_PAGE as usize <= REDIS_BATCH_COMMANDS);
const _: () =
    assert!(ALERT_BODY_BYTES_MAX <= BUFFERS_GROWTH_BYTES_MAX && ALERT_BODY_BYTES_MAX as u64 * 2 < ALERT_LOG_BYTES_MAX);
const _: () = assert!(ALERTS_PER_NOTIFICATION_MAX <= ALERT_FORWARD_QUEUE);
const _: () = assert!(ALERTS_PER_NOTIFICATION_MAX <= ALERT_EVIDENCE_FILES_MAX);
const _: () = assert!(ALERT_DRAIN.as_secs() + ALERT_FORWARD_FLUSH.as_secs() < 10);
const _: () = assert!(DISCORD_LINK_CHARS_MAX <= DISCORD_VALUE_CHARS_MAX);
// Title, description, labels, two links, four short fields, and 200 for the names of the fields and the footer.
const _: () = assert!(
    DISCORD_TITLE_CHARS_MAX
        + DISCORD_DESCRIPTION_CHARS_MAX
        + DISCORD_VALUE_CHARS_MAX
        + 2 * DISCORD_LINK_CHARS_MAX
        + 4 * DISCORD_SHORT_CHARS_MAX
        + 200
        <= DISCORD_MESSAGE_CHARS_MAX
);
const _: () = assert!(CACHED_LINK_BYTES_MAX < REDIS_REPLY_BYTES_MAX);
