//! L1: links in this process's memory, bounded in bytes. A hit allocates nothing.

use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use quanta::Instant;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::limits::{ABSENT_CODES_MAX, ABSENT_TTL, LINK_OVERHEAD_BYTES};
use crate::model::{Target, Version};

/// A link as it is cached: shared, never changed.
pub type Link = Arc<Target>;

/// What L1 knows of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// An active link.
    Link(Link),
    /// The code is unknown or inactive.
    Absent,
}

/// Weighs an entry by its bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, (Link, Instant)> for Bytes {
    fn weight(&self, code: &Box<str>, (link, _): &(Link, Instant)) -> u64 {
        code.len() as u64 + link.original_url.capacity() as u64 + LINK_OVERHEAD_BYTES
    }
}

/// The cache. Links and absent codes live apart, so that a scan of random codes pushes out no link.
pub struct Local {
    links: Cache<Box<str>, (Link, Instant), Bytes, RandomState>,
    absent: Cache<Box<str>, Instant, quick_cache::UnitWeighter, RandomState>,
    bytes_max: u64,
}

impl Local {
    /// An empty cache of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        // A guess at the number of entries, which only sizes the tables: 200 bytes each.
        let entries = (bytes / (LINK_OVERHEAD_BYTES + 40)).max(16) as usize;
        Self {
            links: Cache::with(entries, bytes, Bytes, RandomState::new(), DefaultLifecycle::default()),
            absent: Cache::with(
                ABSENT_CODES_MAX,
                ABSENT_CODES_MAX as u64,
                quick_cache::UnitWeighter,
                RandomState::new(),
                DefaultLifecycle::default(),
            ),
            bytes_max: bytes,
        }
    }

    /// What is known of `code` and fresh enough at `now`: links count for `ttl`.
    pub fn get(&self, code: &str, now: Instant, ttl: Duration) -> Option<Known> {
        if let Some((link, filled)) = self.links.get(code) {
            return is_fresh(filled, now, ttl).then_some(Known::Link(link));
        }
        let filled = self.absent.get(code)?;
        is_fresh(filled, now, ABSENT_TTL).then_some(Known::Absent)
    }

    /// Remembers what the store said at `now`.
    pub fn insert(&self, code: &str, known: &Known, now: Instant) {
        match known {
            Known::Link(link) => {
                self.absent.remove(code);
                self.links.insert(code.into(), (Arc::clone(link), now));
            }
            Known::Absent => {
                self.links.remove(code);
                self.absent.insert(code.into(), now);
            }
        }
    }

    /// Forgets a code.
    pub fn remove(&self, code: &str) {
        self.links.remove(code);
        self.absent.remove(code);
    }

    /// Forgets what is older than a version. Of absent codes no version is known.
    pub fn remove_older(&self, code: &str, version: Version) {
        if self.links.peek(code).is_some_and(|(link, _)| link.version < version) {
            self.links.remove(code);
        }
        self.absent.remove(code);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.links.clear();
        self.absent.clear();
    }

    /// Whether more may be brought in that nobody asked for: a tenth is left for what is asked for meanwhile.
    pub fn has_room(&self) -> bool {
        self.bytes() < self.bytes_max / 10 * 9
    }

    /// Bytes in use, by the weights of the entries.
    pub fn bytes(&self) -> u64 {
        self.links.weight()
    }

    /// Links held.
    pub fn count(&self) -> usize {
        self.links.len()
    }
}

/// Whether what was filled in at one moment counts at another.
pub fn is_fresh(filled: Instant, now: Instant, ttl: Duration) -> bool {
    now.saturating_duration_since(filled) < ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(url: &str) -> Known {
        Known::Link(Arc::new(Target { url_id: 1, user_id: None, version: 2, original_url: url.to_owned() }))
    }

    #[test]
    fn remembers_until_it_is_stale() {
        let local = Local::new(1 << 20);
        let then = Instant::now();
        let long = Duration::from_secs(60);
        for (known, ttl) in [(link("http://ab"), long), (Known::Absent, ABSENT_TTL)] {
            local.insert("abc", &known, then);
            assert_eq!(local.get("abc", then, long), Some(known.clone()));
            assert_eq!(local.get("abc", then + ttl, long), None);
            local.remove("abc");
            assert_eq!(local.get("abc", then, long), None);
        }
    }

    #[test]
    fn forgets_what_is_older() {
        let local = Local::new(1 << 20);
        let now = Instant::now();
        let knows = |code| local.get(code, now, Duration::from_secs(1)).is_some();
        local.insert("abc", &link("http://ab"), now); // version 2
        local.remove_older("abc", 2);
        assert!(knows("abc"));
        local.remove_older("abc", 3);
        assert!(!knows("abc"));
        local.insert("abc", &Known::Absent, now);
        local.remove_older("abc", 1);
        assert!(!knows("abc"), "whoever says that there is a version says that there is a link");
    }

    #[test]
    fn keeps_to_its_bytes() {
        let local = Local::new(100_000);
        let now = Instant::now();
        for n in 0..10_000 {
            local.insert(&format!("c{n}"), &link(&format!("http://example.com/{n}")), now);
        }
        assert!(local.bytes() <= 100_000, "{}", local.bytes());
        assert!(local.count() > 100);
    }

    #[test]
    fn a_scan_of_unknown_codes_pushes_out_no_link() {
        let local = Local::new(100_000);
        let now = Instant::now();
        local.insert("hot", &link("http://example.com"), now);
        for n in 0..100_000 {
            local.insert(&format!("x{n}"), &Known::Absent, now);
        }
        assert!(matches!(local.get("hot", now, Duration::from_secs(1)), Some(Known::Link(_))));
        assert!(local.absent.len() <= ABSENT_CODES_MAX);
    }
}
