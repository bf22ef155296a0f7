//! Forwarding to Discord: a bounded queue, and one thread that posts what is in it.
//!
//! The webhook's URL is a secret, since whoever has it may post. It is in no log line and no error: what the HTTP client
//! says of an error is not shown either, because it may repeat it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::discord::{Embed, Message, next_batch};
use super::figures::{Figures, Lost};
use crate::limits::{
    ALERT_FORWARD_BACKOFF_MAX, ALERT_FORWARD_BACKOFF_MIN, ALERT_FORWARD_QUEUE, ALERT_FORWARD_RETRY_AFTER_MAX,
    ALERT_FORWARD_TIMEOUT, ALERT_FORWARD_TRIES,
};

/// Where messages are posted to. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// Reads an `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong, without the URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.trim().parse().map_err(|_| "it is not a URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("it must begin with https:// or http://");
        }
        Ok(Self(uri))
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The queue, seen from where alerts come in.
pub struct Forwarder {
    shared: Arc<Shared>,
}

struct Shared {
    url: WebhookUrl,
    agent: Agent,
    figures: Arc<Figures>,
    queue: Mutex<Queue>,
    /// Told when the queue or what is said in it changes.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Embed>,
    /// Embeds of the message that is being posted.
    under_way: usize,
    /// When to give up what is left, once the end has come.
    closing: Option<Instant>,
}

/// What came of one try.
enum Tried {
    Taken,
    /// Trying again is of no use.
    Refused,
    /// To be tried again, not before this time has passed if it is said.
    Failed(Option<Duration>),
}

impl Forwarder {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(url: WebhookUrl, figures: Arc<Figures>) -> io::Result<Self> {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { url, agent: agent(), figures, queue, changed });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new().name("snip-forward".into()).spawn(move || thread.run())?;
        Ok(Self { shared })
    }

    /// Has an alert forwarded, unless too many wait.
    pub fn forward(&self, embed: Embed) {
        let mut queue = self.shared.lock();
        if queue.waiting.len() >= ALERT_FORWARD_QUEUE {
            drop(queue);
            self.shared.figures.lost(Lost::QueueFull, 1);
            return;
        }
        queue.waiting.push_back(embed);
        self.shared.figures.forward_waiting.inc();
        self.shared.changed.notify_all();
    }

    /// Lets what waits be forwarded, for `limit` at the most; returns how many alerts were not.
    pub fn close(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        queue.closing = Some(deadline);
        self.shared.changed.notify_all();
        loop {
            let left = queue.waiting.len() + queue.under_way;
            let time = deadline.saturating_duration_since(Instant::now());
            if left == 0 || time.is_zero() {
                return left;
            }
            queue = self.shared.wait(queue, time);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>, limit: Duration) -> MutexGuard<'q, Queue> {
        self.changed.wait_timeout(queue, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Does not end: the process does.
    fn run(&self) {
        loop {
            let batch = self.next();
            let lost = self.deliver(&batch).err();
            self.lock().under_way = 0;
            // Before it counts as forwarded or lost, so that no alert is seen as both.
            self.figures.forward_waiting.sub(batch.len() as i64);
            match lost {
                None => self.figures.forwarded.inc_by(batch.len() as u64),
                Some(reason) => self.figures.lost(reason, batch.len()),
            }
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Vec<Embed> {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let batch = next_batch(&mut queue.waiting);
        queue.under_way = batch.len();
        batch
    }

    fn deliver(&self, batch: &[Embed]) -> Result<(), Lost> {
        let message = sonic_rs::to_vec(&Message::new(batch)).map_err(|_| Lost::Refused)?;
        let mut backoff = ALERT_FORWARD_BACKOFF_MIN;
        for tries in 1..=ALERT_FORWARD_TRIES {
            let pause = match self.post(&message) {
                Tried::Taken => return Ok(()),
                Tried::Refused => return Err(Lost::Refused),
                Tried::Failed(said) => {
                    said.map_or(backoff, |said| said.clamp(ALERT_FORWARD_BACKOFF_MIN, ALERT_FORWARD_RETRY_AFTER_MAX))
                }
            };
            if tries < ALERT_FORWARD_TRIES && !self.pause(pause) {
                break;
            }
            backoff = (backoff * 2).min(ALERT_FORWARD_BACKOFF_MAX);
        }
        tracing::error!(alerts = batch.len(), "alerts were not forwarded; they are in alerts.jsonl");
        Err(Lost::GaveUp)
    }

    /// One try.
    fn post(&self, message: &[u8]) -> Tried {
        let request = self.agent.post(&self.url.0).content_type("application/json");
        let answer = match request.send(message) {
            Ok(answer) => answer,
            Err(error) => return self.failed(None, why(&error), None),
        };
        let status = answer.status();
        if status.is_success() {
            return Tried::Taken;
        }
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return self.failed(Some(status.as_u16()), "it asks to be tried again later", retry_after(&answer));
        }
        self.figures.forward_failures.inc();
        tracing::error!(
            status = status.as_u16(),
            "Discord refuses to take alerts; is DISCORD_WEBHOOK_URL still valid?"
        );
        Tried::Refused
    }

    fn failed(&self, status: Option<u16>, why: &str, retry_after: Option<Duration>) -> Tried {
        self.figures.forward_failures.inc();
        tracing::warn!(status, why, "Discord did not take alerts");
        Tried::Failed(retry_after)
    }

    /// Waits, and says whether there is time left for another try.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut queue = self.lock();
        loop {
            if queue.closing.is_some_and(|end| end <= until) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            queue = self.wait(queue, left);
        }
    }
}

const INSECURE: &str = "no secure connection; is its certificate one that this machine trusts?";

/// The kind of an error, in words that hold nothing of the URL.
fn why(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "its host name has no address",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => INSECURE,
        ureq::Error::Io(error) if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => INSECURE,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused",
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time",
            _ => "the connection broke",
        },
        ureq::Error::ConnectionFailed => "no connection",
        _ => "its answer is not to be understood",
    }
}

/// Seconds, with a fraction or without. The form with a date is not Discord's.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds: f64 = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// No redirects, which could take alerts elsewhere, and no proxy: what is configured is where alerts go. Alerts are rare,
/// so no connection is kept that would be found dead the next time.
fn agent() -> Agent {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let roots: RootCerts = certificates.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).into();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(roots)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("snip/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(ALERT_FORWARD_TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_the_web_and_never_shown() {
        let check = |text: &str, expect: bool| {
            let outcome = WebhookUrl::parse(text);
            assert_eq!(outcome.is_ok(), expect, "{text}");
            assert!(!format!("{outcome:?}").contains("secret"), "{outcome:?}");
        };
        check("https://discord.example/api/webhooks/1/secret", true);
        check(" http://127.0.0.1:8000/secret\n", true);
        for text in ["", "secret", "/secret", "ftp://host/secret", "https://", "https://host/a secret", "host:80"] {
            check(text, false);
        }
    }

    #[test]
    fn an_error_says_nothing_of_the_url() {
        let check = |error: ureq::Error| assert!(!why(&error).contains("secret"));
        check(ureq::Error::BadUri("http://host/secret".to_owned()));
        check(ureq::Error::Io(io::Error::other("http://host/secret")));
    }

    #[test]
    fn past_the_bound_alerts_are_dropped_and_counted() {
        // It takes connections and never answers.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = WebhookUrl::parse(&format!("http://{}", deaf.local_addr().unwrap())).unwrap();
        let figures = Arc::new(Figures::new().unwrap());
        let forwarder = Forwarder::start(url, Arc::clone(&figures)).unwrap();
        let alert = super::super::payload::sample().alerts.remove(0);
        let count = ALERT_FORWARD_QUEUE + 100;
        (0..count).for_each(|_| forwarder.forward(Embed::new(&alert, None)));
        let lost = figures.lost_in_all() as usize;
        // Some may be under way already.
        assert!((1..=100).contains(&lost), "{lost}");
        assert_eq!(forwarder.close(Duration::ZERO), count - lost);
        assert_eq!(figures.forward_waiting.get(), (count - lost) as i64);
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let check = |value: &str, expect: Option<u64>| {
            let answer = Response::builder().header("Retry-After", value).body(Body::builder().data("")).unwrap();
            assert_eq!(retry_after(&answer), expect.map(Duration::from_millis), "{value}");
        };
        check("2", Some(2000));
        check(" 0.5", Some(500));
        check("0", Some(0));
        for value in ["", "soon", "-1", "NaN", "inf", "1e300", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            check(value, None);
        }
    }
}
