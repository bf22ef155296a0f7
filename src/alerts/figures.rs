//! Figures of the receiver for Prometheus. `docs/alert-receiver.md` explains them.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::payload::{Alert, Severity, Status};

/// What came of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On disk.
    Stored,
    /// Not a notification: 400.
    Invalid,
    /// Too many bytes or alerts: 413.
    TooLarge,
    /// Too many notifications at once: 503.
    Busy,
    /// The disk would not take it: 507 or 500.
    Unstored,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Stored, Self::Invalid, Self::TooLarge, Self::Busy, Self::Unstored];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Unstored => "unstored",
        }
    }
}

/// Why an alert was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The queue was full.
    QueueFull,
    /// Discord refused it, for good.
    Refused,
    /// Every try failed.
    GaveUp,
}

impl Lost {
    const ALL: [Self; 3] = [Self::QueueFull, Self::Refused, Self::GaveUp];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::GaveUp => "gave_up",
        }
    }
}

/// Why the disk did not take a notification.
const DISK_ERRORS: [&str; 2] = ["full", "other"];

/// All figures of the process.
pub struct Figures {
    registry: Registry,
    notifications: IntCounterVec,
    alerts: IntCounterVec,
    lost: IntCounterVec,
    disk_errors: IntCounterVec,
    /// Alerts that Discord took.
    pub forwarded: IntCounter,
    /// Tries to forward that failed.
    pub forward_failures: IntCounter,
    /// Alerts that wait to be forwarded, those under way included.
    pub forward_waiting: IntGauge,
}

impl Figures {
    /// Registers everything, each label's values included, so that a first event is seen as an increase.
    ///
    /// # Errors
    /// Only if two metrics had one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let notifications = counters("alert_notifications_total", "Notifications by what came of them", &["result"])?;
        let alerts = counters("alerts_received_total", "Alerts of stored notifications", &["status", "severity"])?;
        let lost = counters("alerts_not_forwarded_total", "Alerts that were not forwarded", &["reason"])?;
        let disk_errors = counters("alert_disk_errors_total", "Notifications that the disk did not take", &["reason"])?;
        let forwarded = counter("alerts_forwarded_total", "Alerts that Discord took")?;
        let forward_failures = counter("alert_forward_failures_total", "Tries to forward a message that failed")?;
        let forward_waiting = IntGauge::new("alerts_forward_waiting", "Alerts that wait to be forwarded")?;
        registry.register(Box::new(forward_waiting.clone()))?;
        for outcome in Outcome::ALL {
            notifications.with_label_values(&[outcome.as_str()]);
        }
        for (status, severity) in Status::ALL.into_iter().flat_map(|s| Severity::ALL.map(|severity| (s, severity))) {
            alerts.with_label_values(&[status.as_str(), severity.as_str()]);
        }
        for reason in Lost::ALL {
            lost.with_label_values(&[reason.as_str()]);
        }
        for reason in DISK_ERRORS {
            disk_errors.with_label_values(&[reason]);
        }
        Ok(Self { registry, notifications, alerts, lost, disk_errors, forwarded, forward_failures, forward_waiting })
    }

    /// Counts a notification.
    pub fn notification(&self, outcome: Outcome) {
        self.notifications.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts an alert of a stored notification.
    pub fn alert(&self, alert: &Alert) {
        self.alerts.with_label_values(&[alert.status.as_str(), alert.severity().as_str()]).inc();
    }

    /// Counts alerts that were not forwarded.
    pub fn lost(&self, reason: Lost, alerts: usize) {
        self.lost.with_label_values(&[reason.as_str()]).inc_by(alerts as u64);
    }

    /// Alerts that were not forwarded, for whatever reason.
    pub fn lost_in_all(&self) -> u64 {
        Lost::ALL.into_iter().map(|reason| self.lost.with_label_values(&[reason.as_str()]).get()).sum()
    }

    /// Notifications that the disk did not take.
    pub fn disk_errors_in_all(&self) -> u64 {
        DISK_ERRORS.into_iter().map(|reason| self.disk_errors.with_label_values(&[reason]).get()).sum()
    }

    /// Counts a notification that the disk did not take.
    pub fn disk_error(&self, is_full: bool) {
        self.disk_errors.with_label_values(&[if is_full { "full" } else { "other" }]).inc();
    }

    /// Appends everything in Prometheus' text format.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), out) {
            out.truncate(start);
            tracing::error!(%error, "the metrics can't be written");
        }
    }
}
