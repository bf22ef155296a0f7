//! What `snip journal inspect` tells of a journal, by reading its files. Needs neither lock nor store.

use std::fmt::Write;
use std::io;
use std::path::Path;

use super::journal::numbered_files;
use super::segment::{self, Header, Next, Reader, Unreadable, index_of, segment_of};
use crate::model::Timestamp;

/// What is known of the clicks of one segment, or of all.
#[derive(Default)]
struct Count {
    clicks: u64,
    /// Those behind the journal's own mark, which the store may know better.
    unmarked: u64,
    bytes: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.clicks += other.clicks;
        self.unmarked += other.unmarked;
        self.bytes += other.bytes;
        self.first = self.first.or(other.first);
        self.last = other.last.or(self.last);
    }

    fn period(&self) -> String {
        let text = |at: Option<Timestamp>| at.map_or_else(|| "-".into(), Timestamp::sql_text);
        format!("{} .. {}", text(self.first), text(self.last))
    }
}

/// The summary of a folder, and a line for each segment.
pub fn report(folder: &Path) -> io::Result<String> {
    let files = numbered_files(folder)?;
    let mark = files.iter().filter_map(|(_, path)| segment::read_mark(path).ok()).max().unwrap_or(0);
    let (mut lines, mut total) = (String::new(), Count::default());
    let mut newest = None;
    for (number, path) in &files {
        match segment::read_header(path)? {
            Ok(header) => {
                let (count, ending) = count(path, *number, mark)?;
                let _ = writeln!(
                    lines,
                    "{number:>16}  {:>8}  {:>8}  {}  {ending}",
                    count.clicks,
                    count.unmarked,
                    count.period()
                );
                total.add(&count);
                newest = Some(header);
            }
            Err(unreadable) => {
                let _ = writeln!(lines, "{number:>16}  {}", describe(unreadable));
            }
        }
    }
    let mut report = summary(folder, newest.as_ref(), files.len(), &total, mark);
    if !lines.is_empty() {
        let _ = write!(report, "\n{:>16}  {:>8}  {:>8}  first .. last (UTC)\n{lines}", "segment", "clicks", "unmarked");
    }
    Ok(report)
}

fn summary(folder: &Path, newest: Option<&Header>, files: usize, total: &Count, mark: u64) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name:<10} {value}");
    };
    line("folder", &folder.display());
    if let Some(header) = newest {
        line("instance", &header.instance);
        line("journal", &header.journal);
    }
    line("format", &segment::FORMAT_VERSION);
    line("segments", &format!("{files}, {} bytes", total.bytes));
    line("clicks", &format!("{}, {}", total.clicks, total.period()));
    match mark {
        0 => line("mark", &"none: nothing was stored yet, as far as the journal knows"),
        mark => {
            let place = format!("segment {}, click {}", segment_of(mark), index_of(mark));
            line("mark", &format!("{place}: {} clicks behind it; the store's position is what counts", total.unmarked));
        }
    }
    out
}

fn describe(unreadable: Unreadable) -> String {
    match unreadable {
        Unreadable::Empty => "empty: its header was never written".into(),
        Unreadable::Version(version) => format!("format {version}, which this program does not know"),
        Unreadable::Damaged => "damaged header".into(),
    }
}

fn count(path: &Path, number: u64, mark: u64) -> io::Result<(Count, String)> {
    let mut reader = Reader::open(path, number)?;
    let bytes = std::fs::metadata(path)?.len();
    let mut count = Count { bytes, ..Count::default() };
    loop {
        let sequence = reader.sequence();
        match reader.next(bytes)? {
            Next::Click(click) => {
                count.clicks += 1;
                count.unmarked += u64::from(sequence >= mark);
                count.first = count.first.or(Some(click.at));
                count.last = Some(click.at);
            }
            Next::End => return Ok((count, format!("ends at byte {}", reader.offset()))),
            Next::Unfinished => {
                return Ok((count, format!("ends at byte {}, behind it half a record", reader.offset())));
            }
            Next::Torn => return Ok((count, format!("TORN at byte {} of {bytes}", reader.offset()))),
        }
    }
}
