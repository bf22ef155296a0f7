//! What Discord is told: an alert as an embed, embeds in messages within Discord's limits. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use super::payload::{Alert, Severity, Status};
use crate::limits::{
    DISCORD_DESCRIPTION_CHARS_MAX, DISCORD_EMBEDS_MAX, DISCORD_LINK_CHARS_MAX, DISCORD_MESSAGE_CHARS_MAX,
    DISCORD_SHORT_CHARS_MAX, DISCORD_TITLE_CHARS_MAX, DISCORD_VALUE_CHARS_MAX,
};

/// How long before an alert, and after it, its link to Grafana shows.
const AROUND_MILLIS: i64 = 15 * 60 * 1000;
/// Labels that the embed shows elsewhere.
const SHOWN_ELSEWHERE: [&str; 3] = ["alertname", "severity", "instance"];

/// The body of a post to a webhook.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    username: &'static str,
    /// Nobody is to be called by what stands in a label.
    allowed_mentions: AllowedMentions,
    embeds: &'a [Embed],
}

#[derive(Debug, Serialize)]
struct AllowedMentions {
    parse: [&'static str; 0],
}

impl<'a> Message<'a> {
    /// A message with these embeds.
    pub fn new(embeds: &'a [Embed]) -> Self {
        Self { username: "Snip alerts", allowed_mentions: AllowedMentions { parse: [] }, embeds }
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Embed {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    color: u32,
    timestamp: Timestamp,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Field {
    name: &'static str,
    value: String,
    inline: bool,
}

impl Embed {
    /// The embed of an alert, with a link to the page of Grafana that is configured.
    pub fn new(alert: &Alert, grafana: Option<&str>) -> Self {
        let severity = alert.severity();
        let heading = match alert.status {
            Status::Firing => format!("{} FIRING: ", emoji(severity)),
            Status::Resolved => "✅ RESOLVED: ".to_owned(),
        };
        let grafana = grafana.and_then(|page| link(&around(page, alert)));
        Self {
            title: format!("{heading}{}", escaped(alert.name(), DISCORD_TITLE_CHARS_MAX - chars(&heading))),
            url: grafana.clone(),
            description: description(alert),
            color: color(alert.status, severity),
            timestamp: alert.ended_at().unwrap_or(alert.starts_at),
            fields: fields(alert, grafana),
        }
    }

    /// Characters that count towards the limit of a message.
    fn chars(&self) -> usize {
        let fields = self.fields.iter().map(|field| chars(field.name) + chars(&field.value));
        chars(&self.title) + chars(&self.description) + fields.sum::<usize>()
    }
}

/// Takes as many embeds from the front as one message may have.
pub fn next_batch(waiting: &mut VecDeque<Embed>) -> Vec<Embed> {
    let mut count = 0;
    let mut chars = 0;
    for embed in waiting.iter().take(DISCORD_EMBEDS_MAX) {
        chars += embed.chars();
        // Any one embed fits: see the limits.
        if chars > DISCORD_MESSAGE_CHARS_MAX && count > 0 {
            break;
        }
        count += 1;
    }
    waiting.drain(..count).collect()
}

const fn emoji(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "🚨",
        Severity::Warning => "⚠️",
        Severity::Info => "ℹ️",
        Severity::Other => "🔔",
    }
}

const fn color(status: Status, severity: Severity) -> u32 {
    match (status, severity) {
        (Status::Resolved, _) => 0x2E_CC_71,
        (_, Severity::Critical) => 0xE7_4C_3C,
        (_, Severity::Warning) => 0xF3_9C_12,
        (_, Severity::Info) => 0x34_98_DB,
        (_, Severity::Other) => 0x95_A5_A6,
    }
}

fn description(alert: &Alert) -> String {
    let texts = ["summary", "description"].into_iter().filter_map(|name| alert.annotation(name));
    escaped(&texts.collect::<Vec<_>>().join("\n\n"), DISCORD_DESCRIPTION_CHARS_MAX)
}

fn fields(alert: &Alert, grafana: Option<String>) -> Vec<Field> {
    let short = |name, value: &str| Field { name, value: escaped(value, DISCORD_SHORT_CHARS_MAX), inline: true };
    let long = |name, value| Field { name, value, inline: false };
    let mut fields = vec![short("Severity", alert.label("severity").unwrap_or("none"))];
    fields.extend(alert.label("instance").map(|instance| short("Instance", instance)));
    fields.push(short("Started", &time(alert.starts_at)));
    fields.extend(alert.ended_at().map(|end| short("Ended", &time(end))));
    let labels = alert.labels.iter().filter(|(name, _)| !SHOWN_ELSEWHERE.contains(&name.as_str()));
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name} = {value}")).collect();
    if !labels.is_empty() {
        fields.push(long("Labels", escaped(&labels.join("\n"), DISCORD_VALUE_CHARS_MAX)));
    }
    // The title links to Grafana, where it is known.
    let source = || link(&alert.generator_url).map(|url| long("Prometheus", url));
    fields.extend(alert.annotation("runbook_url").and_then(link).map(|url| long("Runbook", url)));
    fields.extend(grafana.map_or_else(source, |url| Some(long("Grafana", url))));
    fields
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The page, showing the time around the alert.
fn around(page: &str, alert: &Alert) -> String {
    let mark = if page.contains('?') { '&' } else { '?' };
    let from = alert.starts_at.as_millisecond() - AROUND_MILLIS;
    let to = alert.ended_at().map_or("now".to_owned(), |end| (end.as_millisecond() + AROUND_MILLIS).to_string());
    format!("{page}{mark}from={from}&to={to}")
}

/// A link that may be clicked: `http` or `https`, of one word, and not too long.
pub fn link(url: &str) -> Option<String> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let is_one_word = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '\'' | '`' | '\\'));
    (is_web && is_one_word && chars(url) <= DISCORD_LINK_CHARS_MAX).then(|| url.to_owned())
}

/// Characters as Discord may count them: UTF-16 units, the largest of the usual counts.
fn chars(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The text with Discord's marks taken literally, of `limit` characters at the most; what is cut ends in an ellipsis.
fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut used, mut last_fit) = (0, 0);
    for c in text.chars() {
        let mark = matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | '#');
        let literal = if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
        used += literal.len_utf16() + usize::from(mark);
        if used > limit {
            out.truncate(last_fit);
            out.push('…');
            return out;
        }
        if mark {
            out.push('\\');
        }
        out.push(literal);
        if used < limit {
            last_fit = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::payload;
    use super::*;

    fn firing() -> Alert {
        payload::sample().alerts.remove(0)
    }

    fn resolved() -> Alert {
        let ends_at = Some("2026-01-02T03:14:05Z".parse().unwrap());
        Alert { status: Status::Resolved, ends_at, ..firing() }
    }

    fn with_label(name: &str, value: &str) -> Alert {
        let mut alert = firing();
        alert.labels.insert(name.to_owned(), value.to_owned());
        alert
    }

    fn value<'e>(embed: &'e Embed, name: &str) -> Option<&'e str> {
        embed.fields.iter().find(|field| field.name == name).map(|field| field.value.as_str())
    }

    #[test]
    fn shows_status_and_severity() {
        let check = |alert: &Alert, title: &str, color: u32, severity: &str| {
            let embed = Embed::new(alert, None);
            assert_eq!((embed.title.as_str(), embed.color), (title, color));
            assert_eq!(value(&embed, "Severity"), Some(severity));
        };
        check(&firing(), "🚨 FIRING: ServiceDown", 0xE7_4C_3C, "critical");
        check(&with_label("severity", "warning"), "⚠️ FIRING: ServiceDown", 0xF3_9C_12, "warning");
        check(&with_label("severity", "info"), "ℹ️ FIRING: ServiceDown", 0x34_98_DB, "info");
        check(&with_label("severity", "page_me"), "🔔 FIRING: ServiceDown", 0x95_A5_A6, "page\\_me");
        check(&with_label("severity", ""), "🔔 FIRING: ServiceDown", 0x95_A5_A6, "none");
        check(&resolved(), "✅ RESOLVED: ServiceDown", 0x2E_CC_71, "critical");
    }

    #[test]
    fn shows_start_end_and_links() {
        let embed = Embed::new(&firing(), None);
        assert_eq!(value(&embed, "Started"), Some("2026-01-02 03:04:05 UTC"));
        assert_eq!((value(&embed, "Ended"), value(&embed, "Grafana"), &embed.url), (None, None, &None));
        assert_eq!(value(&embed, "Prometheus"), Some("http://127.0.0.1:9090/graph?g0.expr=up"));
        assert_eq!(embed.description, "web-1 is down\n\nNo scrape for a minute.");
        let embed = Embed::new(&resolved(), Some("http://grafana.test/d/snip?var=1"));
        assert_eq!(value(&embed, "Ended"), Some("2026-01-02 03:14:05 UTC"));
        let page = "http://grafana.test/d/snip?var=1&from=1767322145678&to=1767324545000"; // 15 minutes on either side
        assert_eq!((embed.url.as_deref(), value(&embed, "Grafana")), (Some(page), Some(page)));
        let embed = Embed::new(&firing(), Some("http://grafana.test"));
        assert_eq!(embed.url.as_deref(), Some("http://grafana.test?from=1767322145678&to=now"));
    }

    #[test]
    fn links_are_of_the_web_and_of_one_word() {
        let check = |url: &str, expect: bool| assert_eq!(link(url).is_some(), expect, "{url}");
        check("https://a.example/b?c=d&e=%20#f", true);
        check("http://127.0.0.1:9090/", true);
        for url in
            ["", "javascript:alert(1)", "ftp://a", "http://a b", "http://a\n", "http://a\"", "http://a>", "HTTP://a"]
        {
            check(url, false);
        }
        check(&format!("http://a/{}", "x".repeat(DISCORD_LINK_CHARS_MAX - 9)), true);
        check(&format!("http://a/{}", "x".repeat(DISCORD_LINK_CHARS_MAX - 8)), false);
    }

    #[test]
    fn texts_are_taken_literally_and_cut() {
        let check = |text: &str, limit: usize, expect: &str| {
            let cut = escaped(text, limit);
            assert_eq!(cut, expect);
            assert!(chars(&cut) <= limit);
        };
        check("plain text", 10, "plain text");
        check("plain text", 9, "plain te…");
        check("*b* [x](y) `c` <@1>", 100, "\\*b\\* \\[x](y) \\`c\\` \\<@1\\>");
        check("a\\b\u{7}\nc", 100, "a\\\\b\u{fffd}\nc");
        check("ab*c", 5, "ab\\*c");
        check("ab*cd", 5, "ab\\*…");
        check("abc*d", 5, "abc…");
        check("🚨🚨🚨", 6, "🚨🚨🚨");
        check("🚨🚨🚨", 5, "🚨🚨…");
        check("", 5, "");
    }

    #[test]
    fn the_largest_embed_keeps_to_every_limit() {
        let long = "*".repeat(20_000);
        let mut alert = resolved();
        for name in ["alertname", "severity", "instance", "job"] {
            alert.labels.insert(name.to_owned(), long.clone());
        }
        alert.annotations.extend(["summary", "description"].map(|name| (name.to_owned(), long.clone())));
        let url = format!("http://a/{}", "x".repeat(DISCORD_LINK_CHARS_MAX - 9));
        alert.annotations.insert("runbook_url".to_owned(), url.clone());
        alert.generator_url = url;
        let embed = Embed::new(&alert, None);
        assert!(chars(&embed.title) <= 256 && chars(&embed.description) <= 4096 && embed.fields.len() <= 25);
        assert!(embed.fields.iter().all(|field| (1..=1024).contains(&chars(&field.value))), "{embed:?}");
        assert!(embed.fields.iter().any(|field| field.name == "Runbook"));
        assert!(embed.fields.iter().any(|field| field.name == "Prometheus"));
        assert!(embed.chars() > 5000 && embed.chars() <= DISCORD_MESSAGE_CHARS_MAX, "{}", embed.chars());
    }

    #[test]
    fn messages_keep_to_their_limits() {
        let sized = |extra: usize| {
            let mut embed = Embed::new(&firing(), None);
            embed.description = "x".repeat(extra);
            embed.description.extend(std::iter::repeat_n('x', extra - embed.chars().min(extra)));
            embed.description.truncate(embed.description.len() - (embed.chars() - extra));
            assert_eq!(embed.chars(), extra);
            embed
        };
        let check = |sizes: &[usize], expect: &[usize]| {
            let mut waiting: VecDeque<Embed> = sizes.iter().map(|&size| sized(size)).collect();
            let mut batches = Vec::new();
            while !waiting.is_empty() {
                batches.push(next_batch(&mut waiting).len());
            }
            assert_eq!(batches, expect, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[6000], &[1]);
        check(&[3000, 3000], &[2]);
        check(&[3000, 3001], &[1, 1]);
        check(&[600; 10], &[10]);
        check(&[600; 11], &[10, 1]);
        check(&[200; 25], &[10, 10, 5]);
        check(&[2000, 2000, 2000, 2000], &[3, 1]);
    }

    #[test]
    fn a_message_calls_nobody() {
        let embeds = [Embed::new(&with_label("alertname", "@everyone \" \n }"), None)];
        let json: serde_json::Value =
            serde_json::from_slice(&sonic_rs::to_vec(&Message::new(&embeds)).unwrap()).unwrap();
        assert_eq!(json["allowed_mentions"], serde_json::json!({ "parse": [] }));
        assert_eq!(json["embeds"][0]["title"], "🚨 FIRING: @everyone \" \n }");
        assert_eq!(json["embeds"][0]["timestamp"], "2026-01-02T03:04:05.678Z");
        assert_eq!(json.get("content"), None);
    }
}
