//! Evidence: one file for each alert, once as it fires and once as it is resolved.
//!
//! The name holds when the alert began, its name as far as it is harmless, and a digest of all that identifies it. The
//! same alert has the same file, however often Alertmanager repeats it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::archive::Line;
use super::payload::Alert;
use crate::limits::{
    ALERT_EVIDENCE_AGE_MAX, ALERT_EVIDENCE_BYTES_MAX, ALERT_EVIDENCE_FILES_MAX, ALERT_EVIDENCE_NAME_CHARS,
    ALERT_EVIDENCE_SWEEP,
};
use crate::model;

/// Bytes of the digest that are in the name: no two alerts meet by chance, nor by design.
const DIGEST_BYTES: usize = 16;
/// Where a file is written before it has its name. No alert's file is called so.
const UNFINISHED: &str = "unfinished";

/// What a file holds.
#[derive(Serialize)]
struct Evidence<'a> {
    received_at: Timestamp,
    receiver: &'a str,
    #[serde(rename = "groupKey")]
    group_key: &'a str,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alert: &'a Alert,
}

/// The name of an alert's file: letters, digits, `-`, `_`, and the dot of `.json`.
pub fn file_name(alert: &Alert) -> String {
    let began = model::Timestamp::from_micros(alert.starts_at.as_microsecond()).text();
    let began: String = began.iter().map(|&byte| char::from(byte)).filter(|c| !matches!(c, '-' | ':')).collect();
    let harmless = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = alert.name().chars().take(ALERT_EVIDENCE_NAME_CHARS).map(harmless).collect();
    format!("{began}Z-{name}-{}-{}.json", digest(alert), alert.status.as_str())
}

/// Of the labels and the beginning: an alert that fires again later is another one.
fn digest(alert: &Alert) -> String {
    let mut hash = Sha256::new();
    hash.update(alert.starts_at.as_nanosecond().to_le_bytes());
    for text in alert.labels.iter().flat_map(|(name, value)| [name, value]) {
        // With its length before it, no text runs into the next.
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize()[..DIGEST_BYTES].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How much may be kept.
struct Bounds {
    files: usize,
    bytes: u64,
    age: Duration,
}

const BOUNDS: Bounds =
    Bounds { files: ALERT_EVIDENCE_FILES_MAX, bytes: ALERT_EVIDENCE_BYTES_MAX, age: ALERT_EVIDENCE_AGE_MAX };

/// The folder of the files.
pub struct Folder {
    path: PathBuf,
    /// Files and their bytes, at least: a file written anew counts twice until the next sweep.
    files: usize,
    bytes: u64,
    swept: Instant,
}

impl Folder {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mut folder = Self { path: path.to_owned(), files: 0, bytes: 0, swept: Instant::now() };
        folder.sweep(&BOUNDS)?;
        Ok(folder)
    }

    /// Writes the files of a notification's alerts and makes room for them.
    ///
    /// # Errors
    /// As the system says; some of the files may then be there.
    pub fn store(&mut self, line: &Line) -> io::Result<()> {
        let notification = &line.notification;
        for alert in &notification.alerts {
            let evidence = Evidence {
                received_at: line.received_at,
                receiver: &notification.receiver,
                group_key: &notification.group_key,
                external_url: &notification.external_url,
                alert,
            };
            self.write(&file_name(alert), &sonic_rs::to_vec_pretty(&evidence).map_err(io::Error::other)?)?;
        }
        if self.files > BOUNDS.files || self.bytes > BOUNDS.bytes || self.swept.elapsed() > ALERT_EVIDENCE_SWEEP {
            self.sweep(&BOUNDS)?;
        }
        File::open(&self.path)?.sync_all()
    }

    /// Under another name first, so that nobody ever sees half a file.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&unfinished, self.path.join(name))?;
        self.files += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Counts the files and removes those that are too old, and then the oldest until a tenth is free again.
    fn sweep(&mut self, bounds: &Bounds) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let is_over = |files: usize, bytes: u64| files > bounds.files || bytes > bounds.bytes;
        let is_tight = |files: usize, bytes: u64| files > bounds.files / 10 * 9 || bytes > bounds.bytes / 10 * 9;
        let make_room = is_over(files.len(), bytes);
        let mut left = files.len();
        for (modified, size, path) in files {
            let is_old = modified.elapsed().is_ok_and(|age| age > bounds.age);
            let goes = is_old || (make_room && is_tight(left, bytes));
            if !goes {
                break;
            }
            fs::remove_file(path)?;
            left -= 1;
            bytes -= size;
        }
        (self.files, self.bytes, self.swept) = (left, bytes, Instant::now());
        Ok(())
    }

    /// When each file was written, its bytes, and its path. Only files of ours: others are nobody's to remove.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let metadata = entry.metadata()?;
            if metadata.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{self, Status};
    use super::*;

    fn alert(name: &str) -> Alert {
        let mut alert = payload::sample().alerts.remove(0);
        alert.labels.insert("alertname".to_owned(), name.to_owned());
        alert
    }

    #[test]
    fn names_are_harmless() {
        let check = |name: &str, expect: &str| {
            let file = file_name(&alert(name));
            let hex = digest(&alert(name));
            assert_eq!(file, format!("20260102T030405Z-{expect}-{hex}-firing.json"));
            assert!(
                file.len() < 160 && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
                "{file}"
            );
        };
        check("ServiceDown", "ServiceDown");
        check("../../etc/passwd", "______etc_passwd");
        check("..", "__");
        check("/", "_");
        check("a b\0\n\"<ü>", "a_b______");
        check("", "unnamed_alert");
        check(&"x".repeat(500), &"x".repeat(ALERT_EVIDENCE_NAME_CHARS));
    }

    #[test]
    fn different_alerts_have_different_names() {
        let one = alert("a/b");
        let mut names = vec![file_name(&one), file_name(&alert("a_b"))];
        let mut other = one.clone();
        other.labels.insert("instance".to_owned(), "web-2".to_owned());
        names.push(file_name(&other));
        other = one.clone();
        other.status = Status::Resolved;
        names.push(file_name(&other));
        other = one.clone();
        other.starts_at += Duration::from_nanos(1);
        names.push(file_name(&other));
        let (mut left, mut right) = (one.clone(), one.clone());
        left.labels.extend([("x".to_owned(), "yz".to_owned())]);
        right.labels.extend([("xy".to_owned(), "z".to_owned())]);
        names.extend([file_name(&left), file_name(&right)]);
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        // What does not identify it changes nothing: a repetition overwrites.
        other = one.clone();
        other.annotations.clear();
        assert_eq!(file_name(&other), file_name(&one));
    }

    #[test]
    fn the_oldest_go_first() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path()).unwrap();
        let write = |folder: &mut Folder, n: u64, age: u64| {
            let name = format!("{n:02}.json");
            folder.write(&name, &[b'x'; 10]).unwrap();
            let file = File::options().write(true).open(place.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_mins(age)).unwrap();
        };
        fs::write(place.path().join("notes.txt"), "not ours").unwrap();
        for n in 0..20 {
            write(&mut folder, n, 1000 - n);
        }
        let mut check = |files: usize, bytes: u64, age: u64, left: usize| {
            folder.sweep(&Bounds { files, bytes, age: Duration::from_mins(age) }).unwrap();
            let mut names: Vec<_> = folder.files().unwrap().into_iter().map(|(_, _, path)| path).collect();
            names.sort();
            let expect: Vec<_> = (20 - left..20).map(|n| place.path().join(format!("{n:02}.json"))).collect();
            assert_eq!(names, expect);
            assert_eq!((folder.files, folder.bytes), (left, left as u64 * 10));
        };
        check(20, 200, 2000, 20);
        check(20, 199, 2000, 17); // 90 % of 199, in tens: 171
        check(10, 1000, 2000, 9);
        check(20, 1000, 985, 4);
        assert!(place.path().join("notes.txt").exists());
    }
}
