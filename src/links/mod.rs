//! The read path of a redirect: in-process cache, then the store, with one query under way for a code at a time.
//!
//! Whoever changes a link says so here after the commit (`invalidate`); from then on no redirect that starts follows the
//! old state. A query that was under way at that moment answers those who waited for it and fills nothing.

mod local;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ahash::RandomState;

use local::Local;
pub use local::{Known, Link};

use crate::error::{StoreError, StoreResult};
use crate::limits::STORE_DEADLINE;
use crate::runtime::{Filler, slot};
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
pub struct Stats {
    /// Codes that a cache knew.
    pub hits: AtomicU64,
    /// Codes that the store was asked for, or that waited for another's question.
    pub misses: AtomicU64,
    /// Questions put to the store.
    pub queries: AtomicU64,
}

/// A query under way and those who wait for its outcome.
#[derive(Default)]
struct Flight {
    waiters: Mutex<Vec<Filler<StoreResult<Known>>>>,
}

/// The links of the store, by way of the cache.
pub struct Links {
    store: Arc<dyn Store>,
    local: Local,
    /// Held while the cache is filled or emptied, so that neither comes in between the other's steps; never across a wait.
    flights: Mutex<HashMap<Box<str>, Arc<Flight>, RandomState>>,
    stats: Stats,
}

impl Links {
    /// Links of `store`, cached in at most `local_bytes`.
    pub fn new(store: Arc<dyn Store>, local_bytes: u64) -> Self {
        Self { store, local: Local::new(local_bytes), flights: Mutex::default(), stats: Stats::default() }
    }

    /// The figures.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Bytes and entries of the in-process cache.
    pub fn local_size(&self) -> (u64, usize) {
        (self.local.bytes(), self.local.count())
    }

    /// What `code` leads to. `now` is the present, which the caller has at hand.
    pub fn resolve(&self, code: &str, now: Instant) -> StoreResult<Resolved> {
        if let Some(known) = self.local.get(code, now) {
            self.stats.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(resolved(known, true));
        }
        self.stats.misses.fetch_add(1, Ordering::Relaxed);
        self.ask(code, now).map(|known| resolved(known, false))
    }

    /// Forgets a code whose link was made, changed or switched off. To be called after the commit, before the answer.
    pub fn invalidate(&self, code: &str) {
        let mut flights = self.lock();
        flights.remove(code);
        self.local.remove(code);
    }

    /// Forgets all codes.
    pub fn invalidate_all(&self) {
        let mut flights = self.lock();
        flights.clear();
        self.local.clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Flight>, RandomState>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store, or joins the one who is asking already.
    fn ask(&self, code: &str, now: Instant) -> StoreResult<Known> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(code) {
            let (slot, filler) = slot();
            flight.waiters.lock().unwrap_or_else(PoisonError::into_inner).push(filler);
            drop(flights);
            return slot.wait(STORE_DEADLINE).unwrap_or_else(|_| Err(StoreError::Unavailable("no answer".into())));
        }
        let flight = Arc::new(Flight::default());
        flights.insert(code.into(), Arc::clone(&flight));
        drop(flights);
        self.lead(code, &flight, now)
    }

    /// Puts the question and shares the outcome.
    fn lead(&self, code: &str, flight: &Arc<Flight>, now: Instant) -> StoreResult<Known> {
        self.stats.queries.fetch_add(1, Ordering::Relaxed);
        let landing = Landing { links: self, code, flight };
        let outcome = self.store.resolve(code).map(|target| target.map_or(Known::Absent, |t| Known::Link(Arc::new(t))));
        landing.land(&outcome, now);
        let waiters = std::mem::take(&mut *flight.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        waiters.into_iter().for_each(|waiter| waiter.fill(outcome.clone()));
        outcome
    }
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
    links: &'l Links,
    code: &'l str,
    flight: &'l Arc<Flight>,
}

impl Landing<'_> {
    /// Fills the cache, unless the code was invalidated since the question was put: then the flight is off the board, or
    /// another's is in its place.
    fn land(self, outcome: &StoreResult<Known>, now: Instant) {
        let flights = self.links.lock();
        if let (true, Ok(known)) = (self.is_on_board(&flights), outcome) {
            self.links.local.insert(self.code, known, now);
        }
        drop(flights);
        // Dropping `self` takes the flight off the board.
    }

    fn is_on_board(&self, flights: &HashMap<Box<str>, Arc<Flight>, RandomState>) -> bool {
        flights.get(self.code).is_some_and(|flight| Arc::ptr_eq(flight, self.flight))
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.links.lock();
        if self.is_on_board(&flights) {
            flights.remove(self.code);
        }
    }
}
