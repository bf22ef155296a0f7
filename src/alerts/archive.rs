//! What is kept on disk: `alerts.jsonl`, one line a notification, and `evidence/`, one file an alert and status.
//!
//! The line is the record: it is written last and synced, so a notification that was refused leaves none, and one that
//! is sent again overwrites its own evidence. Blocks; belongs on a thread that may.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence;
use super::payload::Notification;
use crate::limits::{ALERT_LOG_BYTES_MAX, ALERT_LOG_FILES_MAX};

const LOG: &str = "alerts.jsonl";
const EVIDENCE: &str = "evidence";

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// When it came.
    pub received_at: Timestamp,
    /// What came.
    pub notification: Notification,
}

/// The folder. One process at a time has it.
pub struct Archive {
    folder: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
    /// The log, opened for appending; `None` until the next append when a rotation went wrong.
    log: Option<File>,
    /// Bytes of the log that are whole lines.
    log_bytes: u64,
    evidence: evidence::Folder,
}

impl Archive {
    /// Opens or makes the folder, and cuts off a line that a crash left unfinished.
    ///
    /// # Errors
    /// As the system says; `WouldBlock` when another process has the folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = File::open(folder)?;
        lock.try_lock().map_err(io::Error::from)?;
        let evidence = evidence::Folder::open(&folder.join(EVIDENCE))?;
        let mut archive = Self { folder: folder.to_owned(), _lock: lock, log: None, log_bytes: 0, evidence };
        archive.log = Some(archive.open_log()?);
        Ok(archive)
    }

    /// All whole lines that are kept, the oldest first. Lines that are none are skipped.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let files = (0..=ALERT_LOG_FILES_MAX).rev().filter_map(|age| File::open(self.log_path(age)).ok());
        files.flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok)).filter_map(|line| {
            // Written by this program, and therefore as shallow as the notification was.
            sonic_rs::from_slice(&line).ok()
        })
    }

    /// Stores a notification: the evidence, then the line, both synced.
    ///
    /// # Errors
    /// As the system says; then the log is as it was before.
    pub fn store(&mut self, line: &Line) -> io::Result<()> {
        self.evidence.store(line)?;
        let mut text = sonic_rs::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.append(&text)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.log_bytes + line.len() as u64 > ALERT_LOG_BYTES_MAX {
            self.rotate()?;
        }
        let log = match self.log.take() {
            Some(log) => log,
            None => self.open_log()?,
        };
        let written = (&log).write_all(line).and_then(|()| log.sync_data());
        match written {
            Ok(()) => self.log_bytes += line.len() as u64,
            // The part that was written must not become the beginning of the next line.
            Err(_) => log.set_len(self.log_bytes)?,
        }
        self.log = Some(log);
        written
    }

    /// `alerts.jsonl` becomes `.1`, that `.2`, and so on; the last is dropped. Failing half-way loses nothing but names.
    fn rotate(&mut self) -> io::Result<()> {
        for age in (0..ALERT_LOG_FILES_MAX).rev() {
            match fs::rename(self.log_path(age), self.log_path(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.log = None;
        self.log_bytes = 0;
        Ok(())
    }

    /// Opens the log and makes it end with a whole line.
    fn open_log(&mut self) -> io::Result<File> {
        let mut log = OpenOptions::new().read(true).append(true).create(true).open(self.log_path(0))?;
        self.log_bytes = whole_lines(&mut log)?;
        log.set_len(self.log_bytes)?;
        // The name is to outlive a crash as well as what is written under it.
        File::open(&self.folder)?.sync_all()?;
        Ok(log)
    }

    fn log_path(&self, age: usize) -> PathBuf {
        self.folder.join(if age == 0 { LOG.to_owned() } else { format!("{LOG}.{age}") })
    }
}

/// Bytes up to and with the last line feed.
fn whole_lines(log: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = log.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        log.seek(SeekFrom::Start(start))?;
        bytes.clear();
        log.take(end - start).read_to_end(&mut bytes)?;
        if let Some(at) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether an error means that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::super::payload;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn line(receiver: &str) -> Line {
        let mut notification = payload::sample();
        notification.receiver = receiver.to_owned();
        Line { received_at: "2026-01-02T03:05:00Z".parse().unwrap(), notification }
    }

    fn receivers(archive: &Archive) -> Vec<String> {
        archive.lines().map(|line| line.notification.receiver).collect()
    }

    /// A program that another test is just starting has a copy of a lock that was let go here, until it runs.
    fn open_again(folder: &Path) -> Archive {
        let begun = Instant::now();
        loop {
            match Archive::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                    thread::yield_now()
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn keeps_lines_over_a_restart_and_cuts_off_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(200_000);
        for (receiver, left_over, expect) in [
            ("first", &b""[..], &["first"][..]),
            ("second", b"{\"received_at\":\"2026", &["first", "second"]),
            ("third", long.as_bytes(), &["first", "second", "third"]),
            ("fourth", b"no JSON, and yet a line\n", &["first", "second", "third", "fourth"]),
        ] {
            let mut log = OpenOptions::new().append(true).create(true).open(folder.path().join(LOG)).unwrap();
            log.write_all(left_over).unwrap();
            let mut archive = open_again(folder.path());
            archive.store(&line(receiver)).unwrap();
            assert_eq!(receivers(&archive), expect);
        }
    }

    #[test]
    fn rotates_and_keeps_so_many_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(folder.path()).unwrap();
        // A file takes two of these lines.
        let name = |n: usize| format!("{n:02}{}", "x".repeat(ALERT_LOG_BYTES_MAX as usize * 2 / 5));
        for n in 0..16 {
            archive.store(&line(&name(n))).unwrap();
        }
        let kept: Vec<String> = receivers(&archive).iter().map(|name| name[..2].to_owned()).collect();
        let expect: Vec<String> = (16 - 2 * (ALERT_LOG_FILES_MAX + 1)..16).map(|n| format!("{n:02}")).collect();
        assert_eq!(kept, expect);
        assert!(!archive.log_path(ALERT_LOG_FILES_MAX + 1).exists());
        for age in 0..=ALERT_LOG_FILES_MAX {
            assert!(fs::metadata(archive.log_path(age)).unwrap().len() <= ALERT_LOG_BYTES_MAX);
        }
    }

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Archive::open(folder.path()).unwrap();
        let second = Archive::open(folder.path()).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    }
}
