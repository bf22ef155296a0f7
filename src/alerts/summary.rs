//! What `GET /` tells: counts, and the latest alerts. In memory, and made anew from the log at the start.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use super::archive::Line;
use super::discord;
use super::evidence;
use super::payload::{Alert, Severity, Status};
use crate::limits::{ALERT_SHOWN_CHARS_MAX, ALERTS_SHOWN_MAX};

/// Counts and the latest alerts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// When the first of the counted notifications came.
    pub since: Option<Timestamp>,
    /// Notifications in the log.
    pub notifications: u64,
    /// Alerts that they told of as firing, each as often as it was told.
    pub firing: Counts,
    /// The same of resolved ones.
    pub resolved: Counts,
    /// The latest first.
    pub latest: VecDeque<Shown>,
}

/// Alerts by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the severities")]
pub struct Counts {
    pub critical: u64,
    pub warning: u64,
    pub info: u64,
    pub other: u64,
}

/// An alert, its texts cut to a bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are those of the alert")]
pub struct Shown {
    pub received_at: Timestamp,
    pub status: Status,
    pub severity: Severity,
    pub name: String,
    pub instance: Option<String>,
    pub summary: Option<String>,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    /// Where the rule can be looked at, if that is a link.
    pub prometheus: Option<String>,
    /// The name of its evidence file.
    pub evidence: String,
}

impl Summary {
    /// Counts a notification.
    pub fn add(&mut self, line: &Line) {
        self.since.get_or_insert(line.received_at);
        self.notifications += 1;
        for alert in &line.notification.alerts {
            let counts = match alert.status {
                Status::Firing => &mut self.firing,
                Status::Resolved => &mut self.resolved,
            };
            *counts.of(alert.severity()) += 1;
            self.latest.push_front(Shown::new(line.received_at, alert));
        }
        self.latest.truncate(ALERTS_SHOWN_MAX);
    }
}

impl Counts {
    fn of(&mut self, severity: Severity) -> &mut u64 {
        match severity {
            Severity::Critical => &mut self.critical,
            Severity::Warning => &mut self.warning,
            Severity::Info => &mut self.info,
            Severity::Other => &mut self.other,
        }
    }
}

impl Shown {
    fn new(received_at: Timestamp, alert: &Alert) -> Self {
        Self {
            received_at,
            status: alert.status,
            severity: alert.severity(),
            name: cut(alert.name()),
            instance: alert.label("instance").map(cut),
            summary: alert.annotation("summary").or_else(|| alert.annotation("description")).map(cut),
            starts_at: alert.starts_at,
            ends_at: alert.ended_at(),
            prometheus: discord::link(&alert.generator_url),
            evidence: evidence::file_name(alert),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(ALERT_SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::payload;
    use super::*;

    #[test]
    fn counts_and_keeps_the_latest() {
        let mut summary = Summary::default();
        for n in 0..ALERTS_SHOWN_MAX + 10 {
            let mut notification = payload::sample();
            notification.alerts[0].labels.insert("alertname".to_owned(), format!("{n:04}{}", "x".repeat(10_000)));
            let mut other = notification.alerts[0].clone();
            other.status = Status::Resolved;
            other.labels.remove("severity");
            notification.alerts.push(other);
            summary.add(&Line { received_at: "2026-01-02T03:05:00Z".parse().unwrap(), notification });
        }
        let count = (ALERTS_SHOWN_MAX + 10) as u64;
        assert_eq!(summary.notifications, count);
        assert_eq!(summary.firing, Counts { critical: count, ..Counts::default() });
        assert_eq!(summary.resolved, Counts { other: count, ..Counts::default() });
        assert_eq!(summary.latest.len(), ALERTS_SHOWN_MAX);
        assert!(summary.latest[0].name.starts_with(&format!("{:04}", count - 1)));
        assert!(summary.latest.iter().all(|shown| shown.name.len() == ALERT_SHOWN_CHARS_MAX));
    }
}
