//! The page for people. Pure. Every text of an alert goes through [`Escaped`].

use std::fmt::{self, Display, Write};

use jiff::Timestamp;

use super::Overview;
use super::payload::Status;
use super::summary::{Counts, Shown};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;\
    color:#1b1f24;background:#fff}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;\
    border-bottom:1px solid #d8dee4;vertical-align:top;overflow-wrap:anywhere}.firing{color:#b42318;font-weight:600}\
    .resolved{color:#1a7f37;font-weight:600}";

/// Text within an element or a quoted attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// The whole page.
pub fn html(overview: &Overview) -> String {
    let mut page = String::new();
    // Writing into a String does not fail.
    let _ = write(&mut page, overview);
    page
}

fn write(page: &mut String, overview: &Overview) -> fmt::Result {
    let summary = &overview.summary;
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Snip alerts</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body><h1>Snip alerts</h1>\n"
    )?;
    match summary.since {
        None => page.push_str("<p>No notification has come yet.</p>\n"),
        Some(since) => writeln!(page, "<p>{} notifications since {}.</p>", summary.notifications, Time(since))?,
    }
    writeln!(page, "<table><tr><th></th><th>critical</th><th>warning</th><th>info</th><th>other</th></tr>")?;
    counts(page, Status::Firing, summary.firing)?;
    counts(page, Status::Resolved, summary.resolved)?;
    page.push_str("</table>\n");
    match &overview.forwarding {
        None => page.push_str("<p>Nothing is forwarded to Discord.</p>\n"),
        Some(to) => writeln!(
            page,
            "<p>To Discord since the start: {} forwarded, {} waiting, {} lost.</p>",
            to.forwarded, to.waiting, to.lost
        )?,
    }
    page.push_str(
        "<h2>Latest alerts</h2>\n<table><tr><th>received</th><th>status</th><th>severity</th><th>alert</th>\
        <th>instance</th><th>summary</th><th>started</th><th>ended</th><th>evidence</th></tr>\n",
    );
    for shown in &summary.latest {
        row(page, shown)?;
    }
    page.push_str("</table></body></html>\n");
    Ok(())
}

fn counts(page: &mut String, status: Status, counts: Counts) -> fmt::Result {
    let status = status.as_str();
    let Counts { critical, warning, info, other } = counts;
    write!(page, "<tr><td class=\"{status}\">{status}</td><td>{critical}</td><td>{warning}</td>")?;
    writeln!(page, "<td>{info}</td><td>{other}</td></tr>")
}

fn row(page: &mut String, shown: &Shown) -> fmt::Result {
    let status = shown.status.as_str();
    let text = |text: &Option<String>| Escaped(text.as_deref().unwrap_or_default()).to_string();
    write!(page, "<tr><td>{}</td><td class=\"{status}\">{status}</td>", Time(shown.received_at))?;
    write!(page, "<td>{}</td><td>", shown.severity.as_str())?;
    match &shown.prometheus {
        Some(url) => write!(page, "<a href=\"{}\" rel=\"noreferrer\">{}</a>", Escaped(url), Escaped(&shown.name))?,
        None => write!(page, "{}", Escaped(&shown.name))?,
    }
    write!(page, "</td><td>{}</td><td>{}</td>", text(&shown.instance), text(&shown.summary))?;
    write!(page, "<td>{}</td><td>", Time(shown.starts_at))?;
    if let Some(end) = shown.ends_at {
        write!(page, "{}", Time(end))?;
    }
    writeln!(page, "</td><td>{}</td></tr>", Escaped(&shown.evidence))
}

struct Time(Timestamp);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%Y-%m-%d %H:%M:%S UTC").fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::Line;
    use super::super::payload;
    use super::super::summary::Summary;
    use super::*;

    fn page(change: impl FnOnce(&mut payload::Alert)) -> String {
        let mut notification = payload::sample();
        change(&mut notification.alerts[0]);
        let mut summary = Summary::default();
        summary.add(&Line { received_at: "2026-01-02T03:05:00Z".parse().unwrap(), notification });
        html(&Overview { summary, disk_errors: 0, forwarding: None })
    }

    #[test]
    fn shows_an_alert() {
        let page = page(|_| ());
        for part in ["1 notifications since 2026-01-02 03:05:00 UTC", ">ServiceDown</a>", "web-1 is down", "critical"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let hostile = "<script>alert('1')</script>\"&";
        let page = page(|alert| {
            for name in ["alertname", "instance", "severity"] {
                alert.labels.insert(name.to_owned(), hostile.to_owned());
            }
            alert.annotations.insert("summary".to_owned(), hostile.to_owned());
            alert.generator_url = "javascript:alert(1)".to_owned();
        });
        assert!(!page.contains("<script") && !page.contains("javascript:"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;").count(), 3, "{page}");
    }
}
