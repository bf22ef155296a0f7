//! The thread that reads on in the store's list of changes. When to, and what it proves, is decided in `coherence`.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;

use quanta::Instant;

use super::coherence::Polled;
use super::{Inner, count};
use crate::limits::{LINK_CHANGES_FORGET, LINK_POLL};
use crate::model::ChangeCursor;

/// Wakes the thread before its time.
#[derive(Default)]
pub(super) struct Nudge {
    is_set: Mutex<bool>,
    told: Condvar,
}

impl Nudge {
    pub fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_one();
    }

    fn wait(&self) {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(is_set, LINK_POLL, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Starts the thread; it ends with the links.
pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    let (links, nudge) = (Arc::downgrade(inner), Arc::clone(&inner.nudge));
    thread::Builder::new().name("snip-links".into()).spawn(move || run(&links, &nudge)).map(drop)
}

fn run(links: &Weak<Inner>, nudge: &Nudge) {
    let mut follower = Follower::default();
    loop {
        let Some(links) = links.upgrade() else { return };
        follower.poll(&links);
        // While it waits, the thread keeps nothing alive.
        drop(links);
        nudge.wait();
    }
}

#[derive(Default)]
struct Follower {
    cursor: Option<ChangeCursor>,
    has_failed: bool,
    last_forgotten: Option<Instant>,
}

impl Follower {
    fn poll(&mut self, links: &Inner) {
        let poll = links.with_coherence(|state| state.begin_poll(Instant::now()));
        if poll.rewinds {
            self.cursor = None;
        }
        let polled = self.read_on(links, poll.repairs);
        let before = links.trusts_redis();
        links.with_coherence(|state| state.end_poll(poll, polled));
        if links.trusts_redis() && !before {
            tracing::info!("what Redis holds is up to date and used");
        }
        count(if polled.is_complete { &links.stats.polls } else { &links.stats.poll_failures });
        if polled.is_complete {
            self.forget_old(links);
        }
    }

    fn read_on(&mut self, links: &Inner, repairs: bool) -> Polled {
        let mut polled = Polled { is_complete: false, is_repaired: true };
        while !polled.is_complete {
            let part = match links.store.link_changes(self.cursor) {
                Ok(part) => part,
                Err(error) => {
                    if !std::mem::replace(&mut self.has_failed, true) {
                        tracing::warn!(%error, "the list of changed links cannot be read");
                    }
                    return polled;
                }
            };
            // Redis first: what is read there after this instance has forgotten the old is new.
            if repairs && polled.is_repaired && !part.changes.is_empty() {
                polled.is_repaired = links.redis.get().is_some_and(|redis| redis.repair(&part.changes));
            }
            part.changes.iter().for_each(|change| links.forget_older(&change.short_code, change.version));
            links.stats.changes.fetch_add(part.changes.len() as u64, std::sync::atomic::Ordering::Relaxed);
            self.cursor = Some(part.next);
            polled.is_complete = part.is_end;
        }
        self.has_failed = false;
        polled
    }

    fn forget_old(&mut self, links: &Inner) {
        if self.last_forgotten.is_none_or(|last| last.elapsed() >= LINK_CHANGES_FORGET) {
            self.last_forgotten = Some(Instant::now());
            if let Err(error) = links.store.forget_link_changes() {
                tracing::warn!(%error, "old entries stay in the list of changed links");
            }
        }
    }
}
