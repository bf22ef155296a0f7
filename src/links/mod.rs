//! The read path of a redirect: this process's memory, then Redis, then the store, with one question under way for a
//! code at a time.
//!
//! Reading order: [`fence`] (what may be written over what in Redis), [`lookup`] (which question comes next), [`board`]
//! (who asks for whom), [`coherence`] (what is believed when) — all pure, and shown together in `model_tests`; then
//! `local` and `redis`, the two levels, `follow` and `warm`, their threads. `docs/caching.md` has the whole argument.
//!
//! Whoever changes a link says so here after the commit (`changed`); from then on no redirect that starts on this
//! instance follows the old state. A question that was under way at that moment answers those who waited for it and
//! fills nothing.

pub mod board;
pub mod coherence;
pub mod fence;
mod follow;
mod local;
pub mod lookup;
#[cfg(test)]
mod model_tests;
mod redis;
mod warm;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use board::{Board, Flight, Part};
use coherence::{Coherence, Memory};
use fence::Held;
use follow::Nudge;
use local::Local;
pub use local::{Known, Link};
use lookup::Next;
use quanta::Instant;
use redis::Level2;

use crate::error::{StoreError, StoreResult};
use crate::figures::{Figures, add_alone, count, read};
use crate::limits::{LINK_TTL, LINK_TTL_ATTESTED, STORE_DEADLINE};
use crate::model::{ChangedUrl, Version};
use crate::redis::{Config, Events};
use crate::runtime::{Filler, Wait, slot, waited};
use crate::store::Store;

/// What a redirect learns of its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The link; `None` for an unknown or inactive code.
    pub link: Option<Link>,
    /// Whether a cache knew.
    pub is_hit: bool,
}

/// Figures of the read path, counted since the start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the metrics, which say what they count")]
pub struct Stats {
    pub local_hits: AtomicU64,
    pub local_absent: AtomicU64,
    pub local_misses: AtomicU64,
    /// Callers who waited for another's question.
    pub joined: AtomicU64,
    pub redis_hits: AtomicU64,
    pub redis_tombstones: AtomicU64,
    pub redis_misses: AtomicU64,
    pub redis_leased: AtomicU64,
    pub redis_garbage: AtomicU64,
    pub redis_no_answer: AtomicU64,
    pub redis_bypassed: AtomicU64,
    /// Questions put to the store.
    pub queries: AtomicU64,
    /// Callers whom a cache beyond this memory answered, by way of another's question or their own.
    pub hits_elsewhere: AtomicU64,
    /// Callers whom the store answered.
    pub misses: AtomicU64,
    /// Announcements of changes heard.
    pub messages: AtomicU64,
    /// Entries of the store's list of changes read.
    pub changes: AtomicU64,
    pub polls: AtomicU64,
    pub poll_failures: AtomicU64,
}

impl Stats {
    fn tell(&self, figures: &mut Figures) {
        let hits = "Lookups of a code that a cache knew";
        figures.counter(
            "cache_hits_total",
            hits,
            read(&self.local_hits) + read(&self.local_absent) + read(&self.hits_elsewhere),
        );
        figures.counter("cache_misses_total", "Lookups of a code that the store was asked for", read(&self.misses));
        let looks = [
            ("local", "hit", &self.local_hits),
            ("local", "absent", &self.local_absent),
            ("local", "miss", &self.local_misses),
            ("redis", "hit", &self.redis_hits),
            ("redis", "tombstone", &self.redis_tombstones),
            ("redis", "miss", &self.redis_misses),
            ("redis", "leased", &self.redis_leased),
            ("redis", "garbage", &self.redis_garbage),
            ("redis", "no_answer", &self.redis_no_answer),
            ("redis", "bypassed", &self.redis_bypassed),
            ("store", "query", &self.queries),
            ("store", "joined", &self.joined),
        ]
        .map(|(level, result, looks)| ([level, result], read(looks)));
        figures.counters("cache_lookups_total", "Looks into a level of the cache", ["level", "result"], looks);
        figures.counter("cache_messages_total", "Changes of links heard of by way of Redis", read(&self.messages));
        figures.counter("cache_changes_total", "Changes of links read in the store's list", read(&self.changes));
        let failed = read(&self.poll_failures);
        let polls = [(["ok"], read(&self.polls)), (["failed"], failed)];
        figures.counters("cache_polls_total", "Readings of the store's list of changes", ["result"], polls);
    }
}

/// What a question gave: what is known, and whether a cache knew.
type Outcome = StoreResult<(Known, bool)>;
type Waiter = Filler<Outcome>;

/// The links of the store, by way of the caches. Clones share them.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    local: Local,
    /// Held while memory is filled or emptied, so that neither comes in between the other's steps; never across a wait.
    board: Mutex<Board<Waiter>>,
    /// How often something was forgotten; moves under the board's lock.
    forgets: AtomicU64,
    redis: OnceLock<Level2>,
    coherence: Mutex<Coherence>,
    /// What `coherence` says, for those who only read.
    trusts_redis: AtomicBool,
    /// Until when links in memory count for the longer time, in ms since `began`.
    long_until_ms: AtomicU64,
    began: Instant,
    nudge: Arc<Nudge>,
    stats: Stats,
}

impl Links {
    /// Links of `store`, cached in at most `local_bytes`.
    pub fn new(store: Arc<dyn Store>, local_bytes: u64) -> Self {
        let inner = Inner {
            store,
            local: Local::new(local_bytes),
            board: Mutex::default(),
            forgets: AtomicU64::new(0),
            redis: OnceLock::new(),
            coherence: Mutex::default(),
            trusts_redis: AtomicBool::new(false),
            long_until_ms: AtomicU64::new(0),
            began: Instant::now(),
            nudge: Arc::default(),
            stats: Stats::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts Redis between memory and store. Connecting goes on behind; nobody waits for it. To be called once.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn use_redis(&self, config: Config) -> std::io::Result<()> {
        let ears = Arc::new(Ears { links: Arc::downgrade(&self.inner) });
        let redis = Level2::open(config, ears)?;
        // A second one would be dropped, and with it its connection.
        let _ = self.inner.redis.set(redis);
        warm::start(&self.inner)
    }

    /// Hears of what other instances change, by way of the store. Needed where there are any, or Redis is used.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn follow_changes(&self) -> std::io::Result<()> {
        follow::start(&self.inner)
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub fn tell(&self, figures: &mut Figures) {
        let links = &*self.inner;
        links.stats.tell(figures);
        figures.gauge("cache_local_bytes", "Bytes of the in-process cache of links", links.local.bytes() as f64);
        figures.gauge("cache_local_links", "Links in the in-process cache", links.local.count() as f64);
        if let Some(redis) = links.redis.get() {
            redis.tell(figures);
            let is_trusted = f64::from(links.trusts_redis());
            figures.gauge("cache_redis_trusted", "1 while links are asked of Redis", is_trusted);
        }
    }

    /// What `code` leads to. `now` is the present, which the caller has at hand.
    pub fn resolve(&self, code: &str, now: Instant) -> StoreResult<Resolved> {
        let links = &*self.inner;
        if let Some(known) = links.local.get(code, now, links.ttl(now)) {
            // Codes are resolved by the one thread that answers requests.
            add_alone(if known == Known::Absent { &links.stats.local_absent } else { &links.stats.local_hits }, 1);
            return Ok(resolved(known, true));
        }
        self.resolve_elsewhere(code, now)
    }

    /// Its frame is not to be a part of the one that every redirect stands on.
    #[inline(never)]
    fn resolve_elsewhere(&self, code: &str, now: Instant) -> StoreResult<Resolved> {
        let links = &*self.inner;
        count(&links.stats.local_misses);
        let (known, is_hit) = links.ask(code, now)?;
        count(if is_hit { &links.stats.hits_elsewhere } else { &links.stats.misses });
        Ok(resolved(known, is_hit))
    }

    /// Makes a change known. To be called after the commit, before the answer.
    pub fn changed(&self, changed: &ChangedUrl) {
        let (links, code) = (&*self.inner, &changed.url.short_code);
        links.forget(code);
        let Some(redis) = links.redis.get() else { return };
        redis.change(code, &changed.link_state());
        // Whoever asked Redis before the change got there has brought back the old state.
        links.forget(code);
    }

    /// Makes a new link known: its code may be remembered as unknown. The other instances forget that by themselves,
    /// after `limits::ABSENT_TTL`.
    pub fn created(&self, code: &str) {
        self.inner.forget(code);
    }

    /// Makes a change of many links known.
    pub fn changed_many(&self) {
        let mut board = self.inner.board();
        board.cancel_all();
        self.inner.note_forget();
        self.inner.local.clear();
        drop(board);
        // The store's list names them.
        self.inner.nudge.set();
    }
}

impl Inner {
    fn board(&self) -> MutexGuard<'_, Board<Waiter>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trusts_redis(&self) -> bool {
        self.trusts_redis.load(Ordering::Relaxed)
    }

    /// How long links in memory count: [`Memory::ttl`] without a lock.
    fn ttl(&self, now: Instant) -> Duration {
        let until = self.long_until_ms.load(Ordering::Relaxed);
        if until == u64::MAX || self.millis(now) < until { LINK_TTL_ATTESTED } else { LINK_TTL }
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64
    }

    fn with_coherence<T>(&self, act: impl FnOnce(&mut Coherence) -> T) -> T {
        let mut state = self.coherence.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut state);
        self.trusts_redis.store(state.trusts_redis(), Ordering::Relaxed);
        let until = match state.memory() {
            Memory::Long => u64::MAX,
            Memory::LongUntil(end) => self.millis(end),
            Memory::Short => 0,
        };
        self.long_until_ms.store(until, Ordering::Relaxed);
        outcome
    }

    fn forgets(&self) -> u64 {
        self.forgets.load(Ordering::Relaxed)
    }

    fn note_forget(&self) {
        self.forgets.fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&self, code: &str) {
        let mut board = self.board();
        board.cancel(code);
        self.note_forget();
        self.local.remove(code);
    }

    fn forget_older(&self, code: &str, version: Version) {
        let mut board = self.board();
        // What the flight will bring is not known yet.
        board.cancel(code);
        self.note_forget();
        self.local.remove_older(code, version);
    }

    /// Asks, or joins the one who is asking already.
    fn ask(&self, code: &str, now: Instant) -> Outcome {
        let mut waiting = None;
        let part = self.board().take_part(code, || {
            let (slot, filler) = slot();
            waiting = Some(slot);
            filler
        });
        match (part, waiting) {
            (Part::Lead(flight), _) => self.lead(code, flight, now),
            (Part::Join, Some(slot)) => {
                count(&self.stats.joined);
                let begun = Instant::now();
                let outcome = slot.wait(STORE_DEADLINE).unwrap_or_else(|_| Err(no_answer()));
                waited(Wait::Joined, begun.elapsed());
                outcome
            }
            (Part::Join, None) => Err(no_answer()),
        }
    }

    /// Puts the questions and shares the outcome.
    fn lead(&self, code: &str, flight: Arc<Flight<Waiter>>, now: Instant) -> Outcome {
        let landing = Landing { links: self, code, flight };
        let mut lease = None;
        let outcome = self.find(code, &mut lease);
        let flight = landing.land(&outcome, now);
        flight.take_waiters().into_iter().for_each(|waiter| waiter.fill(outcome.clone()));
        if let (Some(lease), Ok((Known::Link(link), _)), Some(redis)) = (lease, &outcome, self.redis.get()) {
            redis.fill(code, &lease, link);
        }
        outcome
    }

    /// Asks one after the other until there is an answer. `lease`: what was left in Redis on the way.
    fn find(&self, code: &str, lease: &mut Option<String>) -> Outcome {
        let mut next = lookup::begin(self.trusts_redis());
        if next == Next::Query && self.redis.get().is_some() {
            count(&self.stats.redis_bypassed);
        }
        while let (Some(redis), true) = (self.redis.get(), next != Next::Query) {
            next = match next {
                Next::Get => {
                    let held = redis.get(code);
                    self.count_held(held.as_ref());
                    match (lookup::after_get(held.as_ref()), held) {
                        (Next::Done, Some(Held::Link(target))) => return Ok((Known::Link(Arc::new(target)), true)),
                        (Next::Done, _) => return Ok((Known::Absent, true)),
                        (next, _) => next,
                    }
                }
                Next::Clean => {
                    redis.remove(code);
                    Next::Lease
                }
                Next::Lease => {
                    *lease = redis.lease(code);
                    Next::Query
                }
                Next::Query | Next::Done => break,
            };
        }
        count(&self.stats.queries);
        let target = self.store.resolve(code)?;
        Ok((target.map_or(Known::Absent, |target| Known::Link(Arc::new(target))), false))
    }

    fn count_held(&self, held: Option<&Held>) {
        count(match held {
            Some(Held::Link(_)) => &self.stats.redis_hits,
            Some(Held::Tombstone(_)) => &self.stats.redis_tombstones,
            Some(Held::Missing) => &self.stats.redis_misses,
            Some(Held::Lease(_)) => &self.stats.redis_leased,
            Some(Held::Garbage) => &self.stats.redis_garbage,
            None => &self.stats.redis_no_answer,
        });
    }
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("no answer".into())
}

fn resolved(known: Known, is_hit: bool) -> Resolved {
    let link = match known {
        Known::Link(link) => Some(link),
        Known::Absent => None,
    };
    Resolved { link, is_hit }
}

/// Takes the flight off the board, whatever happens to the question.
struct Landing<'l> {
    links: &'l Inner,
    code: &'l str,
    flight: Arc<Flight<Waiter>>,
}

impl Landing<'_> {
    /// Fills memory, unless the code was forgotten since the question was put.
    fn land(self, outcome: &Outcome, now: Instant) -> Arc<Flight<Waiter>> {
        let mut board = self.links.board();
        if let (true, Ok((known, _))) = (board.land(self.code, &self.flight), outcome) {
            self.links.local.insert(self.code, known, now);
        }
        drop(board);
        Arc::clone(&self.flight)
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // After `land` there is nothing on the board to take off.
        self.links.board().land(self.code, &self.flight);
    }
}

/// Hears what happens on the connection to Redis.
struct Ears {
    links: Weak<Inner>,
}

impl Ears {
    fn tell(&self, what: fn(&mut Coherence)) {
        if let Some(links) = self.links.upgrade() {
            links.with_coherence(what);
            links.nudge.set();
        }
    }
}

impl Events for Ears {
    fn up(&self) {
        self.tell(Coherence::up);
    }

    fn down(&self) {
        self.tell(Coherence::down);
    }

    fn failed(&self) {
        self.tell(Coherence::failed);
    }

    fn message(&self, text: &[u8]) {
        let Some(links) = self.links.upgrade() else { return };
        if let Some((code, version)) = redis::read_message(text) {
            count(&links.stats.messages);
            links.forget_older(code, version);
        }
    }
}
