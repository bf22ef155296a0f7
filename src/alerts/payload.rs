//! What Alertmanager posts to a webhook: its payload, version 4. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::json;
use crate::limits::ALERTS_PER_NOTIFICATION_MAX;

/// Names and values, in the order of the names.
pub type Labels = BTreeMap<String, String>;

/// A notification: the alerts of one group. The names of the fields are Alertmanager's, here and where it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Version of the payload: `"4"`.
    pub version: String,
    /// What the alerts are grouped by, as text.
    #[serde(default)]
    pub group_key: String,
    /// Alerts that `max_alerts` of Alertmanager left out.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// Firing if any alert is.
    pub status: Status,
    /// The route's receiver.
    #[serde(default)]
    pub receiver: String,
    /// Labels that the alerts are grouped by.
    #[serde(default)]
    pub group_labels: Labels,
    /// Labels that all alerts have.
    #[serde(default)]
    pub common_labels: Labels,
    /// Annotations that all alerts have.
    #[serde(default)]
    pub common_annotations: Labels,
    /// Where Alertmanager is.
    #[serde(default, rename = "externalURL")]
    pub external_url: String,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Firing or resolved.
    pub status: Status,
    /// What identifies it.
    pub labels: Labels,
    /// What is told about it.
    #[serde(default)]
    pub annotations: Labels,
    /// When it began to fire.
    pub starts_at: Timestamp,
    /// When it ended; see [`Alert::ended_at`].
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// Where the rule can be looked at, in Prometheus.
    #[serde(default, rename = "generatorURL")]
    pub generator_url: String,
    /// Alertmanager's name for the set of labels.
    #[serde(default)]
    pub fingerprint: String,
}

/// Whether an alert goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the payload's")]
pub enum Status {
    Firing,
    Resolved,
}

impl Status {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Firing, Self::Resolved];

    /// The name in the payload.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// The label `severity`, folded into few values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the label's values")]
pub enum Severity {
    Critical,
    Warning,
    Info,
    /// Absent, or any other word.
    Other,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Warning, Self::Info, Self::Other];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Other => "other",
        }
    }
}

/// Why a body is no notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It is not JSON of the right shape; the parser's words, for the log.
    Malformed(String),
    /// It has more alerts than are taken at once.
    TooManyAlerts,
}

impl Notification {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        if !json::is_shallow(body) {
            return Err(Invalid::Malformed("nested too deeply".to_owned()));
        }
        let notification: Self = sonic_rs::from_slice(body).map_err(|error| {
            // The first line is the reason, the others show the place.
            Invalid::Malformed(error.to_string().lines().next().unwrap_or_default().to_owned())
        })?;
        if notification.version != "4" {
            return Err(Invalid::Malformed("the version is not 4".to_owned()));
        }
        if notification.alerts.len() > ALERTS_PER_NOTIFICATION_MAX {
            return Err(Invalid::TooManyAlerts);
        }
        Ok(notification)
    }
}

impl Alert {
    /// Its name, which Prometheus always sets.
    pub fn name(&self) -> &str {
        self.label("alertname").unwrap_or("unnamed alert")
    }

    /// A label that is there and not empty.
    pub fn label(&self, name: &str) -> Option<&str> {
        present(&self.labels, name)
    }

    /// An annotation that is there and not empty.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        present(&self.annotations, name)
    }

    /// How grave it is.
    pub fn severity(&self) -> Severity {
        let label = self.label("severity").unwrap_or_default();
        Severity::ALL.into_iter().find(|known| label.eq_ignore_ascii_case(known.as_str())).unwrap_or(Severity::Other)
    }

    /// When it ended. While it fires, Alertmanager sends the year 1, or the time at which it would be given up.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ends_at.filter(|_| self.status == Status::Resolved)
    }
}

fn present<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// For the tests of this room: a notification with one alert, as Alertmanager writes it.
#[cfg(test)]
pub(super) fn sample() -> Notification {
    let body = r#"{
        "version": "4", "groupKey": "{}:{alertname=\"ServiceDown\"}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "snip", "groupLabels": {"alertname": "ServiceDown"}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:9093", "notificationReason": {"unknown": ["fields", "are", "left", "out"]},
        "alerts": [{
            "status": "firing",
            "labels": {"alertname": "ServiceDown", "instance": "web-1", "severity": "critical"},
            "annotations": {"summary": "web-1 is down", "description": "No scrape for a minute."},
            "startsAt": "2026-01-02T03:04:05.678Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://127.0.0.1:9090/graph?g0.expr=up", "fingerprint": "0123456789abcdef"
        }]
    }"#;
    Notification::parse(body.as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_alertmanager_sends() {
        let notification = sample();
        let alert = &notification.alerts[0];
        assert_eq!((alert.name(), alert.severity(), alert.status), ("ServiceDown", Severity::Critical, Status::Firing));
        assert_eq!(alert.annotation("summary"), Some("web-1 is down"));
        assert_eq!(alert.ended_at(), None);
        let again = Notification::parse(&sonic_rs::to_vec(&notification).unwrap()).unwrap();
        assert_eq!(again, notification);
    }

    #[test]
    fn severities_are_folded() {
        let check = |label: &str, expect: Severity| {
            let mut alert = sample().alerts.remove(0);
            alert.labels.insert("severity".to_owned(), label.to_owned());
            assert_eq!(alert.severity(), expect, "{label}");
        };
        check("critical", Severity::Critical);
        check("Warning", Severity::Warning);
        check(" info ", Severity::Info);
        check("page", Severity::Other);
        check("", Severity::Other);
    }

    #[test]
    fn refuses_what_is_no_notification() {
        let alert = r#"{"status":"firing","labels":{},"startsAt":"2026-01-01T00:00:00Z"}"#;
        let whole = |alerts: &str| format!(r#"{{"version":"4","status":"firing","alerts":[{alerts}]}}"#);
        assert!(Notification::parse(whole("").as_bytes()).is_ok());
        assert!(Notification::parse(whole(alert).as_bytes()).is_ok());
        let check = |body: &str| {
            let outcome = Notification::parse(body.as_bytes());
            assert!(matches!(&outcome, Err(Invalid::Malformed(why)) if !why.contains('\n')), "{body}: {outcome:?}");
        };
        for body in ["", "[]", "null", "{}", "{\"version\":\"4\"}", "\u{1}"] {
            check(body);
        }
        check(&whole(alert).replace("\"4\"", "\"3\""));
        check(&whole(alert).replace("\"4\"", "4"));
        check(&whole(alert).replace("firing", "pending"));
        check(&whole(alert).replace("{}", "{\"a\":1}"));
        check(&whole(alert).replace("{}", "null"));
        check(&whole(alert).replace("2026-01-01T00:00:00Z", "yesterday"));
        check(&whole(alert).replace(",\"startsAt\":\"2026-01-01T00:00:00Z\"", ""));
        check(&(whole(alert) + "x"));
        check(&whole(alert)[1..]);
        check(&whole(&("[".repeat(1000) + &"]".repeat(1000))));
        let many = vec![alert; ALERTS_PER_NOTIFICATION_MAX + 1].join(",");
        assert_eq!(Notification::parse(whole(&many).as_bytes()), Err(Invalid::TooManyAlerts));
    }
}
