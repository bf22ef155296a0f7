//! Warm-up: one of the instances brings the active links into Redis and, as far as there is room, into its own memory.
//! In the background, the youngest first; nobody waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use quanta::Instant;

use super::redis::LockHolder;
use super::{Inner, Known};
use crate::error::StoreResult;
use crate::limits::{WARM_UP_LIMIT, WARM_UP_PAGE, WARM_UP_REST, WARM_UP_RETRY};
use crate::model::{Id, ShortCode, Target};

/// Links between two lines in the log.
const PROGRESS_LINKS: u64 = 50_000;

/// Starts the thread that does it.
pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    let links = Arc::downgrade(inner);
    thread::Builder::new().name("snip-warm-up".into()).spawn(move || run(&links)).map(drop)
}

fn run(links: &Weak<Inner>) {
    let began = Instant::now();
    let mut progress = Progress { before: Id::MAX, links: 0, filled: 0, told: 0 };
    let mut has_lock = false;
    while began.elapsed() < WARM_UP_LIMIT {
        let Some(links) = links.upgrade() else { return };
        let redis = links.redis.get().filter(|_| links.trusts_redis());
        match redis.and_then(|redis| if has_lock { Some(LockHolder::Ours) } else { redis.lock_warm_up() }) {
            Some(LockHolder::Ours) => has_lock = true,
            Some(LockHolder::Other) => return tracing::info!("another instance warms the cache up"),
            // Whoever took that for another's lock might leave the cache to nobody.
            None => {
                drop(links);
                thread::sleep(WARM_UP_RETRY);
                continue;
            }
        }
        let page_began = Instant::now();
        match progress.page(&links) {
            Ok(true) => {}
            Ok(false) => return progress.tell("the cache is warm", began.elapsed()),
            Err(error) => return tracing::warn!(%error, "the warm-up ends early"),
        }
        drop(links);
        thread::sleep(page_began.elapsed() * WARM_UP_REST);
    }
    if has_lock {
        progress.tell("the warm-up took too long and ends", began.elapsed());
    }
}

struct Progress {
    /// All links with this id and higher are done.
    before: Id,
    links: u64,
    filled: u64,
    /// Links at the last line in the log.
    told: u64,
}

impl Progress {
    /// One page; whether there was one. It is read twice: the codes that need leases are known only from the store, and
    /// what is filled must have been read after the leases were left.
    fn page(&mut self, links: &Inner) -> StoreResult<bool> {
        let codes = links.store.links_below(self.before, WARM_UP_PAGE)?;
        let Some((_, last)) = codes.last() else { return Ok(false) };
        let (below, before) = (self.before, last.url_id);
        let Some(redis) = links.redis.get() else { return Ok(false) };
        let leases = redis.lease_many(codes.iter().map(|(code, _)| code.as_str())).unwrap_or_default();
        let leases: HashMap<&str, String> = codes
            .iter()
            .zip(leases)
            .filter_map(|((code, _), lease)| lease.map(|lease| (code.as_str(), lease)))
            .collect();
        let forgets = links.forgets();
        let read_at = Instant::now();
        let page = links.store.links_below(below, WARM_UP_PAGE)?;
        let fills =
            page.iter().filter_map(|(code, target)| Some((code.as_str(), leases.get(code.as_str())?.as_str(), target)));
        self.filled += redis.fill_many(fills).unwrap_or(0) as u64;
        self.links += page.len() as u64;
        self.before = before;
        remember(links, page, forgets, read_at);
        if self.links - self.told >= PROGRESS_LINKS {
            self.told = self.links;
            tracing::info!(links = self.links, in_redis = self.filled, "warming the cache up");
        }
        Ok(true)
    }

    fn tell(&self, what: &str, took: Duration) {
        let millis = took.as_millis() as u64;
        tracing::info!(links = self.links, in_redis = self.filled, millis, "{what}");
    }
}

/// Takes a page into memory, unless a change was heard of since it was read: it may be one of these.
fn remember(links: &Inner, page: Vec<(ShortCode, Target)>, forgets: u64, read_at: Instant) {
    let _board = links.board();
    if links.forgets() != forgets {
        return;
    }
    for (code, target) in page {
        if !links.local.has_room() {
            return;
        }
        if links.local.get(&code, read_at, Duration::MAX).is_none() {
            links.local.insert(&code, &Known::Link(Arc::new(target)), read_at);
        }
    }
}
