//! What requests are counted by, and the process they are counted in. The names are the contract's; `docs/metrics.md`
//! explains them. What other rooms count stands in those rooms (`tell`).

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::figures::{Figures, Latency, add_alone, read};
use crate::http::Method;

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
    /// All of them, in the order of their numbers.
    const ALL: [Self; 14] = [
        Self::Redirect,
        Self::Users,
        Self::UsersBulk,
        Self::User,
        Self::Urls,
        Self::Url,
        Self::UrlStats,
        Self::UrlEvents,
        Self::Events,
        Self::Health,
        Self::Livez,
        Self::Readyz,
        Self::Metrics,
        Self::Unknown,
    ];

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

/// The methods, in the order of their numbers.
const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Other];

/// Every status that the service answers with; anything else would be counted as [`STATUS_500`].
const STATUSES: [(u16, &str); 17] = [
    (200, "200"),
    (201, "201"),
    (204, "204"),
    (302, "302"),
    (400, "400"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (414, "414"),
    (417, "417"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (503, "503"),
    (505, "505"),
];
const STATUS_302: usize = 3;
const STATUS_500: usize = 13;

/// What is counted of one endpoint and method.
#[derive(Default)]
struct Requests {
    latency: Latency,
    by_status: [AtomicU64; STATUSES.len()],
}

/// What is counted of requests: a table with a place for every endpoint, method and status, so that counting is an addition.
/// Requests are answered, and counted, by one thread (`runtime::init`).
pub struct Metrics {
    requests: Vec<Requests>,
    /// Short URLs made.
    pub urls_created: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = (0..Endpoint::ALL.len() * METHODS.len()).map(|_| Requests::default()).collect();
        Self { requests, urls_created: AtomicU64::new(0) }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn observe(&self, endpoint: Endpoint, method: Method, status: u16, took: Duration) {
        self.count(endpoint, method, status);
        self.requests(endpoint, method).latency.observe_alone(took);
    }

    /// Counts a request that was refused before it could be timed.
    pub fn count(&self, endpoint: Endpoint, method: Method, status: u16) {
        let at = STATUSES.iter().position(|(known, _)| *known == status).unwrap_or(STATUS_500);
        add_alone(&self.requests(endpoint, method).by_status[at], 1);
    }

    fn requests(&self, endpoint: Endpoint, method: Method) -> &Requests {
        &self.requests[endpoint as usize * METHODS.len() + method as usize]
    }

    /// Tells Prometheus. What never happened has no line.
    pub fn tell(&self, figures: &mut Figures) {
        let pairs = || Endpoint::ALL.into_iter().flat_map(|endpoint| METHODS.map(|method| (endpoint, method)));
        let requests = pairs().flat_map(|(endpoint, method)| {
            let by_status = STATUSES.iter().zip(&self.requests(endpoint, method).by_status);
            by_status.map(move |((_, status), total)| ([endpoint.as_str(), method.as_str(), status], read(total)))
        });
        let requests = requests.filter(|(_, total)| *total > 0);
        figures.counters("http_requests_total", "Requests answered", ["endpoint", "method", "status"], requests);
        let latencies = pairs()
            .map(|(endpoint, method)| ([endpoint.as_str(), method.as_str()], &self.requests(endpoint, method).latency));
        let latencies = latencies.filter(|(_, latency)| latency.count() > 0);
        let help = "Time from a request's arrival to its answer";
        figures.latencies("http_request_duration_seconds", help, ["endpoint", "method"], latencies);
        figures.counter("urls_created_total", "Short URLs made", read(&self.urls_created));
        let redirects = &self.requests(Endpoint::Redirect, Method::Get).by_status[STATUS_302];
        figures.counter("redirects_total", "Redirects followed", read(redirects));
        tell_process(figures);
    }
}

/// Commit that the program was built from, if whoever built it said so.
const REVISION: &str = match option_env!("SNIP_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Reads files of the system: not for a coroutine.
fn tell_process(figures: &mut Figures) {
    figures.collected(ProcessCollector::for_self().collect());
    let build = [([env!("CARGO_PKG_VERSION"), REVISION], 1.0)];
    figures.gauges("snip_build_info", "1; what was built stands in the labels", ["version", "revision"], build);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_route_and_status() {
        let metrics = Metrics::default();
        metrics.observe(Endpoint::Redirect, Method::Get, 302, Duration::from_micros(80));
        metrics.observe(Endpoint::Redirect, Method::Get, 302, Duration::from_micros(80));
        metrics.count(Endpoint::Unknown, Method::Other, 431);
        metrics.count(Endpoint::Unknown, Method::Other, 999);
        let (mut figures, mut out) = (Figures::default(), Vec::new());
        metrics.tell(&mut figures);
        figures.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        for line in [
            r#"http_requests_total{endpoint="/<short_code>",method="GET",status="302"} 2"#,
            r#"http_requests_total{endpoint="unknown",method="OTHER",status="431"} 1"#,
            r#"http_requests_total{endpoint="unknown",method="OTHER",status="500"} 1"#,
            r#"http_request_duration_seconds_bucket{endpoint="/<short_code>",method="GET",le="0.0001"} 2"#,
            "urls_created_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
        assert_eq!(text.matches("http_requests_total{").count(), 3);
    }

    #[test]
    fn tables_stand_in_the_order_of_their_numbers() {
        assert_eq!((STATUSES[STATUS_302].0, STATUSES[STATUS_500].0), (302, 500));
        assert!(STATUSES.iter().all(|(status, text)| status.to_string() == *text));
        assert!(Endpoint::ALL.iter().enumerate().all(|(at, &endpoint)| endpoint as usize == at));
        assert!(METHODS.iter().enumerate().all(|(at, &method)| method as usize == at));
        assert_eq!((Endpoint::Unknown as usize, Method::Other as usize), (Endpoint::ALL.len() - 1, METHODS.len() - 1));
    }
}
