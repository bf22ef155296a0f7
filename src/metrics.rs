//! Figures for Prometheus. The names are the contract's; `docs/metrics.md` explains them.
//!
//! The children of labelled metrics are looked up once and kept, so that a request costs a few atomic additions.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::http::{self, CloseReason, Method};
use crate::redis;

/// What a request was for, as the label `endpoint` names it. Unknown paths share one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the paths")]
pub enum Endpoint {
    Redirect,
    Users,
    UsersBulk,
    User,
    Urls,
    Url,
    UrlStats,
    UrlEvents,
    Events,
    Health,
    Livez,
    Readyz,
    Metrics,
    Unknown,
}

impl Endpoint {
    const COUNT: usize = Self::Unknown as usize + 1;

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "/<short_code>",
            Self::Users => "/users",
            Self::UsersBulk => "/users/bulk",
            Self::User => "/users/<id>",
            Self::Urls => "/urls",
            Self::Url => "/urls/<id>",
            Self::UrlStats => "/urls/<id>/stats",
            Self::UrlEvents => "/urls/<id>/events",
            Self::Events => "/events",
            Self::Health => "/health",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Unknown => "unknown",
        }
    }
}

const METHODS: usize = Method::Other as usize + 1;

/// Every status that the service answers with; anything else would be counted as 500.
const STATUSES: [u16; 17] = [200, 201, 204, 302, 400, 404, 405, 408, 409, 413, 414, 417, 431, 500, 501, 503, 505];

/// Upper bounds in seconds: they resolve 100 µs as well as seconds.
const BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The children of one endpoint and method, made when they are first used.
#[derive(Default)]
struct Children {
    seconds: OnceLock<Histogram>,
    requests: [OnceLock<IntCounter>; STATUSES.len()],
}

/// Kinds of outcome of a look into one of the caches.
pub const CACHE_LOOKUPS: usize = 12;

/// Figures that other rooms count and that are read when Prometheus asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Redirects answered from a cache.
    pub cache_hits: u64,
    /// Redirects that the store was asked for.
    pub cache_misses: u64,
    /// Bytes of the in-process cache.
    pub cache_bytes: u64,
    /// Links in the in-process cache.
    pub cache_links: u64,
    /// Clicks taken in.
    pub clicks_recorded: u64,
    /// Clicks stored.
    pub clicks_stored: u64,
    /// Clicks lost because the journal was full.
    pub clicks_shed: u64,
    /// Clicks of earlier runs found unstored.
    pub clicks_recovered: u64,
    /// Clicks answered before they were on disk as they should have been.
    pub clicks_unsynced: u64,
    /// Batches that the store refused.
    pub clicks_batches_refused: u64,
    /// Clicks in the journal and not yet stored.
    pub clicks_waiting: u64,
    /// Age of the oldest of these in seconds.
    pub clicks_lag_seconds: f64,
    /// Segment files of the journal.
    pub journal_segments: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Segments set aside because they could not be read.
    pub journal_damaged: u64,
    /// Clicks not stored because of damage within a segment.
    pub clicks_skipped: u64,
    /// Segments that could not be made.
    pub journal_prepare_failures: u64,
    /// Syncs that failed.
    pub journal_sync_failures: u64,
    /// Log lines dropped because the queue was full.
    pub log_lines_dropped: u64,
    /// Lookups by level and result: the names, and how many.
    pub cache_lookups: [(&'static str, &'static str, u64); CACHE_LOOKUPS],
    /// Changes of links heard of by way of Redis.
    pub cache_messages: u64,
    /// The same by way of the store's list.
    pub cache_changes: u64,
    /// Readings of that list, and those that failed.
    pub cache_polls: (u64, u64),
    /// The connection to Redis and whether Redis is trusted; `None` without one.
    pub redis: Option<(redis::Stats, bool)>,
    /// Active short URLs; `None` leaves the last figure while the store is away.
    pub active_urls: Option<u64>,
}

/// All figures of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    children: Vec<Children>,
    /// Short URLs made.
    pub urls_created: IntCounter,
    /// Redirects answered with 302 to a GET.
    pub redirects: IntCounter,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    clicks_recorded: IntCounter,
    clicks_stored: IntCounter,
    clicks_shed: IntCounter,
    clicks_recovered: IntCounter,
    clicks_unsynced: IntCounter,
    clicks_batches_refused: IntCounter,
    journal_damaged: IntCounter,
    clicks_skipped: IntCounter,
    journal_prepare_failures: IntCounter,
    journal_sync_failures: IntCounter,
    log_lines_dropped: IntCounter,
    connections_accepted: IntCounter,
    connections_over_limit: IntCounter,
    accept_errors: IntCounter,
    connections_closed: IntCounterVec,
    cache_lookups: IntCounterVec,
    cache_messages: IntCounter,
    cache_changes: IntCounter,
    cache_polls: IntCounterVec,
    redis_trusted: IntGauge,
    redis_commands: IntCounter,
    redis_failures: IntCounterVec,
    redis_connects: IntCounter,
    redis_connect_errors: IntCounter,
    redis_breaker_opened: IntCounter,
    redis_breaker_state: IntGauge,
    redis_connected: IntGauge,
    redis_in_flight: IntGauge,
    active_urls: IntGauge,
    clicks_waiting: IntGauge,
    clicks_lag_seconds: Gauge,
    journal_segments: IntGauge,
    journal_bytes: IntGauge,
    cache_bytes: IntGauge,
    cache_links: IntGauge,
    connections_open: IntGauge,
    body_bytes: IntGauge,
}

impl Metrics {
    /// Registers everything. Fails only if two metrics had one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from a request's arrival to its answer")
                .buckets(BUCKETS.to_vec()),
            &["method", "endpoint"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            requests: counters("http_requests_total", "Requests answered", &["method", "endpoint", "status"])?,
            seconds,
            children: (0..Endpoint::COUNT * METHODS).map(|_| Children::default()).collect(),
            urls_created: counter("urls_created_total", "Short URLs made")?,
            redirects: counter("redirects_total", "Redirects followed")?,
            cache_hits: counter("cache_hits_total", "Redirects that a cache knew")?,
            cache_misses: counter("cache_misses_total", "Redirects that the store was asked for")?,
            clicks_recorded: counter("clicks_recorded_total", "Clicks appended to the journal")?,
            clicks_stored: counter("clicks_stored_total", "Clicks stored as events")?,
            clicks_shed: counter("clicks_shed_total", "Clicks lost because the journal had no room")?,
            clicks_recovered: counter(
                "clicks_recovered_total",
                "Clicks of earlier runs found unstored in the journal",
            )?,
            clicks_unsynced: counter("clicks_unsynced_total", "Redirects answered before their click was on disk")?,
            clicks_batches_refused: counter(
                "clicks_batches_refused_total",
                "Batches of clicks that the store refused",
            )?,
            journal_damaged: counter("journal_damaged_segments_total", "Segments set aside because of damage")?,
            clicks_skipped: counter("clicks_skipped_total", "Clicks not stored because of damage in the journal")?,
            journal_prepare_failures: counter("journal_prepare_failures_total", "Segments that could not be made")?,
            journal_sync_failures: counter("journal_sync_failures_total", "Syncs of the journal that failed")?,
            log_lines_dropped: counter("log_lines_dropped_total", "Log lines dropped because their queue was full")?,
            connections_accepted: counter("http_connections_accepted_total", "Connections accepted")?,
            connections_over_limit: counter("http_connections_over_limit_total", "Connections refused at the limit")?,
            accept_errors: counter("http_accept_errors_total", "Failures to accept for want of descriptors or memory")?,
            connections_closed: counters("http_connections_closed_total", "Connections closed", &["reason"])?,
            cache_lookups: counters("cache_lookups_total", "Looks into a level of the cache", &["level", "result"])?,
            cache_messages: counter("cache_messages_total", "Changes of links heard of by way of Redis")?,
            cache_changes: counter("cache_changes_total", "Changes of links read in the store's list")?,
            cache_polls: counters("cache_polls_total", "Readings of the store's list of changes", &["result"])?,
            redis_trusted: gauge("cache_redis_trusted", "1 while links are asked of Redis")?,
            redis_commands: counter("redis_commands_total", "Commands for Redis")?,
            redis_failures: counters("redis_failures_total", "Commands for Redis without an answer", &["reason"])?,
            redis_connects: counter("redis_connects_total", "Connections to Redis opened")?,
            redis_connect_errors: counter("redis_connect_errors_total", "Connections to Redis that failed to open")?,
            redis_breaker_opened: counter("redis_breaker_opened_total", "Times that Redis was left alone")?,
            redis_breaker_state: gauge("redis_breaker_state", "0 Redis is asked, 1 one caller tries, 2 left alone")?,
            redis_connected: gauge("redis_connected", "1 while there is a connection to Redis")?,
            redis_in_flight: gauge("redis_in_flight", "Requests to Redis without an answer")?,
            clicks_waiting: gauge("clicks_waiting", "Clicks in the journal that are not stored yet")?,
            clicks_lag_seconds: {
                let lag = Gauge::new("clicks_lag_seconds", "Age of the oldest click that is not stored yet")?;
                registry.register(Box::new(lag.clone())).map(|()| lag)?
            },
            journal_segments: gauge("journal_segments", "Segments of the click journal")?,
            journal_bytes: gauge("journal_bytes", "Bytes of the click journal on disk")?,
            active_urls: gauge("active_urls", "Active short URLs in the store")?,
            cache_bytes: gauge("cache_local_bytes", "Bytes of the in-process cache of links")?,
            cache_links: gauge("cache_local_links", "Links in the in-process cache")?,
            connections_open: gauge("http_connections_open", "Connections open now")?,
            body_bytes: gauge("http_body_buffer_bytes", "Memory of bodies that outgrew their buffer")?,
            registry,
        })
    }

    /// Counts an answered request.
    pub fn observe(&self, endpoint: Endpoint, method: Method, status: u16, took: Duration) {
        self.count(endpoint, method, status);
        let labels = [method.as_str(), endpoint.as_str()];
        let children = self.children(endpoint, method);
        children.seconds.get_or_init(|| self.seconds.with_label_values(&labels)).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused before it could be timed.
    pub fn count(&self, endpoint: Endpoint, method: Method, status: u16) {
        let at = STATUSES.iter().position(|&known| known == status).unwrap_or(STATUSES.len() - 4);
        let child = self.children(endpoint, method).requests[at].get_or_init(|| {
            self.requests.with_label_values(&[method.as_str(), endpoint.as_str(), &STATUSES[at].to_string()])
        });
        child.inc();
    }

    fn children(&self, endpoint: Endpoint, method: Method) -> &Children {
        &self.children[endpoint as usize * METHODS + method as usize]
    }

    /// Appends everything in the text format 0.0.4.
    pub fn write(&self, sample: Sample, connections: &http::Stats, out: &mut Vec<u8>) {
        use std::sync::atomic::Ordering::Relaxed;
        advance(&self.cache_hits, sample.cache_hits);
        advance(&self.cache_misses, sample.cache_misses);
        advance(&self.clicks_recorded, sample.clicks_recorded);
        advance(&self.clicks_stored, sample.clicks_stored);
        advance(&self.clicks_shed, sample.clicks_shed);
        advance(&self.clicks_recovered, sample.clicks_recovered);
        advance(&self.clicks_unsynced, sample.clicks_unsynced);
        advance(&self.clicks_batches_refused, sample.clicks_batches_refused);
        advance(&self.journal_damaged, sample.journal_damaged);
        advance(&self.clicks_skipped, sample.clicks_skipped);
        advance(&self.journal_prepare_failures, sample.journal_prepare_failures);
        advance(&self.journal_sync_failures, sample.journal_sync_failures);
        set(&self.clicks_waiting, sample.clicks_waiting);
        self.clicks_lag_seconds.set(sample.clicks_lag_seconds);
        set(&self.journal_segments, sample.journal_segments);
        set(&self.journal_bytes, sample.journal_bytes);
        advance(&self.log_lines_dropped, sample.log_lines_dropped);
        advance(&self.connections_accepted, connections.accepted.load(Relaxed));
        advance(&self.connections_over_limit, connections.over_limit.load(Relaxed));
        advance(&self.accept_errors, connections.accept_errors.load(Relaxed));
        for reason in CloseReason::ALL {
            advance(&self.connections_closed.with_label_values(&[reason.as_str()]), connections.closed(reason));
        }
        self.take_cache(&sample);
        if let Some(active_urls) = sample.active_urls {
            set(&self.active_urls, active_urls);
        }
        set(&self.cache_bytes, sample.cache_bytes);
        set(&self.cache_links, sample.cache_links);
        set(&self.connections_open, connections.open.load(Relaxed) as u64);
        set(&self.body_bytes, http::bodies_bytes() as u64);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), out) {
            tracing::error!(%error, "metrics could not be written");
        }
    }
}

impl Metrics {
    fn take_cache(&self, sample: &Sample) {
        for (level, result, total) in sample.cache_lookups.iter().filter(|(level, ..)| !level.is_empty()) {
            advance(&self.cache_lookups.with_label_values(&[level, result]), *total);
        }
        advance(&self.cache_messages, sample.cache_messages);
        advance(&self.cache_changes, sample.cache_changes);
        advance(&self.cache_polls.with_label_values(&["ok"]), sample.cache_polls.0);
        advance(&self.cache_polls.with_label_values(&["failed"]), sample.cache_polls.1);
        let Some((redis, is_trusted)) = &sample.redis else { return };
        set(&self.redis_trusted, u64::from(*is_trusted));
        advance(&self.redis_commands, redis.commands);
        for (reason, total) in [
            ("refused", redis.errors),
            ("busy", redis.busy),
            ("timeout", redis.timeouts),
            ("unavailable", redis.unavailable),
            ("breaker", redis.skipped),
        ] {
            advance(&self.redis_failures.with_label_values(&[reason]), total);
        }
        advance(&self.redis_connects, redis.connects);
        advance(&self.redis_connect_errors, redis.connect_errors);
        advance(&self.redis_breaker_opened, redis.breaker_opened);
        set(&self.redis_breaker_state, redis.breaker_state);
        set(&self.redis_connected, u64::from(redis.is_connected));
        set(&self.redis_in_flight, redis.in_flight);
    }
}

/// Brings a counter up to what another room has counted.
fn advance(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_route_and_status() {
        let metrics = Metrics::new().unwrap();
        metrics.observe(Endpoint::Redirect, Method::Get, 302, Duration::from_micros(80));
        metrics.observe(Endpoint::Redirect, Method::Get, 302, Duration::from_micros(80));
        metrics.count(Endpoint::Unknown, Method::Other, 431);
        let sample = Sample { cache_hits: 5, active_urls: Some(3), ..Sample::default() };
        let mut out = Vec::new();
        metrics.write(Sample { cache_hits: 2, ..sample }, &http::Stats::default(), &mut Vec::new());
        metrics.write(sample, &http::Stats::default(), &mut out);
        let text = String::from_utf8(out).unwrap();
        for line in [
            r#"http_requests_total{endpoint="/<short_code>",method="GET",status="302"} 2"#,
            r#"http_requests_total{endpoint="unknown",method="OTHER",status="431"} 1"#,
            r#"http_request_duration_seconds_bucket{endpoint="/<short_code>",method="GET",le="0.0001"} 2"#,
            r#"http_connections_closed_total{reason="idle_timeout"} 0"#,
            "cache_hits_total 5",
            "active_urls 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn what_is_not_listed_counts_as_500() {
        assert_eq!(STATUSES[STATUSES.len() - 4], 500);
    }
}
