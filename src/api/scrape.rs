//! What `/metrics` answers: the figures of all rooms. Gathered on a thread that may block, since the process is asked by
//! reading files, and written while requests go on.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clicks::Clicks;
use crate::figures::Figures;
use crate::limits::{SCRAPE_COUNT_REST, SCRAPE_FIRST_WAIT, SCRAPE_STORE_WAIT};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::{http, log, runtime};

/// Everything that has figures.
pub(super) struct Scrape {
    pub store: Arc<dyn Store>,
    pub links: Links,
    pub clicks: Arc<Clicks>,
    pub metrics: Arc<Metrics>,
    pub connections: Arc<http::Stats>,
    pub looker: Looker,
}

impl Scrape {
    /// The answer. Blocks.
    pub fn text(&self) -> Vec<u8> {
        let mut figures = Figures::default();
        self.metrics.tell(&mut figures);
        self.connections.tell(&mut figures);
        self.links.tell(&mut figures);
        self.clicks.tell(&mut figures);
        self.store.tell(&mut figures);
        self.looker.look().tell(&mut figures);
        runtime::tell(&mut figures);
        log::tell(&mut figures);
        let mut out = Vec::new();
        figures.write(&mut out);
        out
    }
}

/// What the store said when it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    is_up: bool,
    /// Keeps its value while the store is away; `None` if it was never there.
    active_urls: Option<u64>,
}

impl Seen {
    fn tell(self, figures: &mut Figures) {
        figures.gauge("store_up", "1 if the store answered a query when it was last asked", f64::from(self.is_up));
        if let Some(active_urls) = self.active_urls {
            figures.gauge("active_urls", "Active short URLs in the store", active_urls as f64);
        }
    }
}

/// Looks at the store for those who scrape, on a thread of its own: a store that is away answers late, and a large one counts
/// for long.
pub(super) struct Looker {
    shared: Arc<Shared>,
    // Fields drop in this order: without the sender the thread comes to its end, and only then can it be joined.
    orders: SyncSender<()>,
    _thread: Joined,
}

/// Waits for the thread to let go of the store, which is to be closed in order at the end of the process.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at the store panicked");
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// When the look that is under way began.
    since: Option<Instant>,
    /// `None` until the first look has ended.
    seen: Option<Seen>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looker {
    /// Starts the thread; it ends with the looker.
    pub fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (orders, taken) = sync_channel(1);
        let work = Arc::clone(&shared);
        let body = move || run(&work, store.as_ref(), &taken);
        let thread = thread::Builder::new().name("snip-look".into()).spawn(body)?;
        Ok(Self { shared, orders, _thread: Joined(Some(thread)) })
    }

    /// Has the store looked at, and says what was seen: now, if that is quick, or else the last time.
    fn look(&self) -> Seen {
        let mut state = self.shared.lock();
        let since = *state.since.get_or_insert_with(|| {
            // Full means that there is an order already.
            let _ = self.orders.try_send(());
            Instant::now()
        });
        let wait = if state.seen.is_some() { SCRAPE_STORE_WAIT } else { SCRAPE_FIRST_WAIT };
        let patience = wait.saturating_sub(since.elapsed());
        state = { self.shared.news.wait_timeout_while(state, patience, |state| state.since == Some(since)) }
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        state.seen.unwrap_or_default()
    }
}

fn run(shared: &Shared, store: &dyn Store, orders: &Receiver<()>) {
    let mut count_at = Instant::now();
    while orders.recv().is_ok() {
        let is_up = store.health().inspect_err(|error| tracing::warn!(%error, "the store is not healthy")).is_ok();
        let began = Instant::now();
        let counted = (is_up && began >= count_at).then(|| store.active_urls().ok()).flatten();
        if counted.is_some() {
            count_at = Instant::now() + rest(began.elapsed());
        }
        let mut state = shared.lock();
        let known = state.seen.and_then(|seen| seen.active_urls);
        state.seen = Some(Seen { is_up, active_urls: counted.or(known) });
        state.since = None;
        drop(state);
        shared.news.notify_all();
    }
}

/// A table of millions takes a while to count: it is counted for at most one part in so many of the time.
fn rest(took: Duration) -> Duration {
    took.saturating_mul(SCRAPE_COUNT_REST)
}
