//! The folder of a journal: its lock, its segment files, and which of them still hold clicks for the store.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::blanks::{Blanks, Pages, SPARE};
use crate::clicks::segment::{self, FORMAT_VERSION, HEADER_BYTES, Header, Reader, Unreadable};
use crate::limits::{JOURNAL_LOCK_PAUSE, JOURNAL_LOCK_TRIES, JOURNAL_SEGMENT_BYTES};
use crate::model::{JournalId, Timestamp};

/// The ending of a segment's name; before it stands the segment's number.
const SUFFIX: &str = "clicks";
/// A segment that is being made has this ending; one that is found is the rest of a crash.
const UNFINISHED: &str = "unfinished";
/// A file that cannot be read gets this ending and is left alone.
const DAMAGED: &str = "damaged";
/// The file that is locked.
const LOCK: &str = "lock";

/// Why a folder cannot serve as a journal, in one line for people.
#[derive(Debug)]
pub struct OpenError {
    folder: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Io(io::Error),
    Missing,
    InUse,
    OtherInstance(String),
    Mixed,
    Version(u32),
}

impl OpenError {
    pub(crate) fn io(folder: &Path, error: io::Error) -> Self {
        Self { folder: folder.to_owned(), why: Why::Io(error) }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        match &self.why {
            Why::Io(error) => write!(f, "cannot keep the click journal in {folder}: {error}"),
            Why::Missing => write!(f, "there is no click journal in {folder}"),
            Why::InUse => write!(f, "the click journal in {folder} is in use by another process"),
            Why::OtherInstance(name) => write!(
                f,
                "the click journal in {folder} was written by the instance '{name}'; store its clicks with \
                 'snip journal ship {folder}', or move it away"
            ),
            Why::Mixed => write!(f, "the files in {folder} are of several click journals; move those apart"),
            Why::Version(version) => write!(
                f,
                "the click journal in {folder} has format {version}, this program knows {FORMAT_VERSION}; store its \
                 clicks with the version that wrote it, or move it away"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A segment whose clicks are not all stored, as far as is known.
#[derive(Debug)]
pub(crate) struct Segment {
    pub number: u64,
    pub path: PathBuf,
    /// Where its records end so far. For one from an earlier run: the end of the file, as its records must be looked for.
    written: AtomicU64,
    /// Nothing will be added.
    sealed: AtomicBool,
    /// Bytes of the file.
    bytes: AtomicU64,
}

impl Segment {
    fn fresh(number: u64, path: PathBuf) -> Self {
        let (written, bytes) = (AtomicU64::new(HEADER_BYTES as u64), AtomicU64::new(JOURNAL_SEGMENT_BYTES));
        Self { number, path, written, sealed: AtomicBool::new(false), bytes }
    }

    fn found(number: u64, path: PathBuf, bytes: u64) -> Self {
        let (written, bytes) = (AtomicU64::new(bytes), AtomicU64::new(bytes));
        Self { number, path, written, sealed: AtomicBool::new(true), bytes }
    }

    /// Gives back the room behind the last record, unless something lies behind it. Returns whether there are records.
    fn trim_if_sound(&self) -> io::Result<bool> {
        let mut reader = Reader::open(&self.path, self.number)?;
        let count = reader.skip_to(u64::MAX, self.written())?;
        let end = reader.offset();
        if reader.is_at_the_end(self.written())? {
            self.trim(end)?;
        }
        Ok(count > 0)
    }

    /// Gives back the room behind the last record of a segment from an earlier run: nothing will be written there.
    fn trim(&self, end: u64) -> io::Result<()> {
        if self.is_sealed() && end < self.bytes.load(Ordering::Relaxed) {
            File::options().write(true).open(&self.path)?.set_len(end)?;
            self.publish(end);
            self.bytes.store(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether more may come, and where the records end. In this order: what is sealed has its last length.
    pub fn extent(&self) -> (bool, u64) {
        let is_sealed = self.sealed.load(Ordering::Acquire);
        (is_sealed, self.written())
    }

    /// Where the records end.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Tells readers of records up to `offset`, which are complete.
    pub(super) fn publish(&self, offset: u64) {
        self.written.store(offset, Ordering::Release);
    }

    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }
}

/// The system calls that can fail for want of space or of a sound disk; tests put others in their place.
#[derive(Clone)]
pub struct Disk {
    pub(super) allocate: Arc<Allocate>,
    pub(super) sync: Arc<SyncFile>,
}

pub(super) type Allocate = dyn Fn(&File, u64) -> io::Result<()> + Send + Sync;
type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

impl Default for Disk {
    fn default() -> Self {
        Self { allocate: Arc::new(allocate), sync: Arc::new(File::sync_data) }
    }
}

/// Gives a file all its blocks, so that a full disk is found out now and not while it is written through memory.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // File systems without the call: write them.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; 64 * 1024];
            (0..bytes).step_by(zeros.len()).try_for_each(|at| {
                let count = zeros.len().min((bytes - at) as usize);
                file.write_all_at(&zeros[..count], at)
            })
        }
        outcome => Ok(outcome?),
    }
}

/// A locked folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// Closed, it lets the next process in.
    _lock: File,
    pub journal: JournalId,
    pub instance: Arc<str>,
    disk: Disk,
    pub(super) blanks: Blanks,
    /// Whether what is made must outlive a crash of the host.
    is_synced: bool,
    /// Oldest first; the last one is being written, unless it is sealed.
    live: Mutex<VecDeque<Arc<Segment>>>,
    next_number: AtomicU64,
    /// Number of the first segment that this process makes: nobody else can have stored a click from there on.
    pub first_own: u64,
    /// Files that could not be read and were set aside.
    pub damaged: AtomicU64,
    /// Clicks that are not stored because of damage within their file, as far as they can be counted.
    pub skipped: AtomicU64,
}

impl Folder {
    /// Opens the folder of an instance, which is made if it is missing. Up to `spares_max` files of stored segments are kept to
    /// make others of.
    pub fn open(
        path: &Path,
        instance: &str,
        disk: Disk,
        is_synced: bool,
        spares_max: usize,
    ) -> Result<Self, OpenError> {
        let made = fs::create_dir_all(path).map_err(Why::Io);
        let opened = made.and_then(|()| Self::open_there(path, Some(instance), disk, is_synced, spares_max));
        opened.map_err(|why| OpenError { folder: path.to_owned(), why })
    }

    /// Opens a folder that is there, whosever it is, to read it.
    pub fn adopt(path: &Path) -> Result<Self, OpenError> {
        let opened = Self::open_there(path, None, Disk::default(), false, 0);
        opened.map_err(|why| OpenError { folder: path.to_owned(), why })
    }

    fn open_there(
        path: &Path,
        instance: Option<&str>,
        disk: Disk,
        is_synced: bool,
        spares_max: usize,
    ) -> Result<Self, Why> {
        // Looked at before the lock, whose file would be made in any folder.
        if instance.is_none() && numbered_files(path)?.is_empty() {
            return Err(Why::Missing);
        }
        let lock = lock_patiently(path)?;
        remove_unfinished(path)?;
        let damaged = AtomicU64::new(0);
        let found = read_headers(path, &damaged)?;
        let newest = found.last().map(|(header, _)| header);
        if found.iter().any(|(header, _)| Some(header.journal) != newest.map(|newest| newest.journal)) {
            return Err(Why::Mixed);
        }
        let foreign = found.iter().find(|(header, _)| instance.is_some_and(|name| name != header.instance));
        if let Some((header, _)) = foreign {
            return Err(Why::OtherInstance(header.instance.clone()));
        }
        let journal = newest.map_or_else(|| JournalId(rand::random()), |header| header.journal);
        let instance = instance.map_or_else(|| newest.map_or("", |header| &header.instance).into(), Into::into);
        let first_own = next_number(newest.map(|header| header.number));
        let next_number = AtomicU64::new(first_own);
        let live = found.into_iter().map(|(header, path)| {
            let bytes = fs::metadata(&path)?.len();
            Ok(Arc::new(Segment::found(header.number, path, bytes)))
        });
        let live: VecDeque<Arc<Segment>> = live.collect::<io::Result<_>>()?;
        trim_newest(&live)?;
        let live = Mutex::new(live);
        let path = path.to_owned();
        Ok(Self {
            path,
            _lock: lock,
            journal,
            instance,
            blanks: Blanks::new(Arc::clone(&disk.allocate), spares_max),
            disk,
            is_synced,
            live,
            next_number,
            first_own,
            damaged,
            skipped: AtomicU64::new(0),
        })
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    fn live(&self) -> MutexGuard<'_, VecDeque<Arc<Segment>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments with clicks for the store, oldest first.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.live().iter().cloned().collect()
    }

    /// Number of those.
    pub fn count(&self) -> u64 {
        self.live().len() as u64
    }

    /// Bytes of their files.
    pub fn bytes(&self) -> u64 {
        self.live().iter().map(|segment| segment.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The oldest of them behind the one with this number.
    pub fn segment_after(&self, number: u64) -> Option<Arc<Segment>> {
        self.live().iter().find(|segment| segment.number > number).cloned()
    }

    /// Counts a segment among those with clicks for the store.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.live().push_back(segment);
    }

    /// Removes a segment all of whose clicks are stored. The newest file stays, for it carries the journal's name and its
    /// last number; it goes when there is a newer one.
    pub fn remove(&self, number: u64) {
        let mut live = self.live();
        while live.len() > 1 && live.front().is_some_and(|oldest| oldest.number <= number) {
            let Some(oldest) = live.pop_front() else { return };
            // One from an earlier run may have been copied back without all its blocks.
            let is_own = oldest.number >= self.first_own;
            let outcome = if is_own { self.blanks.give_back(&oldest.path) } else { fs::remove_file(&oldest.path) };
            if let Err(error) = outcome {
                // Harmless: the store knows that its clicks are stored.
                tracing::warn!(file = %oldest.path.display(), %error, "a stored segment could not be removed");
            }
        }
    }

    /// Removes everything, when all of it is stored and nobody will go on with the journal.
    pub fn remove_all(self) -> io::Result<()> {
        self.live().iter().try_for_each(|segment| fs::remove_file(&segment.path))?;
        fs::remove_file(self.path.join(LOCK))
    }

    /// Makes the file of a new segment, with all its blocks and its header.
    pub(super) fn make_segment(&self, pages: Pages) -> io::Result<(Arc<Segment>, File)> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number:016}.{SUFFIX}"));
        let unfinished = path.with_extension(UNFINISHED);
        let made = self.make_file(number, &unfinished, pages).and_then(|file| {
            fs::rename(&unfinished, &path)?;
            if self.is_synced {
                File::open(&self.path)?.sync_all()?;
            }
            Ok(file)
        });
        match made {
            Ok(file) => Ok((Arc::new(Segment::fresh(number, path)), file)),
            Err(error) => {
                // What could not be made takes up space where there may be none.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }

    fn make_file(&self, number: u64, path: &Path, pages: Pages) -> io::Result<File> {
        let file = self.blanks.make(path, pages)?;
        let header = Header {
            number,
            journal: self.journal,
            instance: self.instance.to_string(),
            created_at: Timestamp::now(),
            bytes: JOURNAL_SEGMENT_BYTES,
        };
        file.write_all_at(&header.encode(), 0)?;
        if self.is_synced {
            file.sync_all()?;
        }
        Ok(file)
    }

    /// Notes how far the clicks are stored, for the day when the store is another one.
    pub fn mark(&self, sequence: u64) {
        let number = segment::segment_of(sequence);
        let path = self.live().iter().find(|segment| segment.number == number).map(|segment| segment.path.clone());
        if let Some(error) = path.and_then(|path| segment::write_mark(&path, sequence).err()) {
            tracing::warn!(%error, "the journal's own mark could not be written");
        }
    }

    /// The highest mark.
    pub fn read_mark(&self) -> io::Result<u64> {
        let marks =
            self.segments().iter().map(|segment| segment::read_mark(&segment.path)).collect::<io::Result<Vec<_>>>();
        Ok(marks?.into_iter().max().unwrap_or(0))
    }
}

/// A run that is killed leaves a segment that it filled in part and one that it had ready. Were they to stay as long as
/// they are, a server that is killed again and again would fill the journal's bounds with nothing. The others are full.
fn trim_newest(live: &VecDeque<Arc<Segment>>) -> io::Result<()> {
    for segment in live.iter().rev() {
        if segment.trim_if_sound()? {
            break;
        }
    }
    Ok(())
}

/// Numbers follow the clock where it is ahead: a folder that is an old copy of itself (a restored backup) then does not
/// use numbers again that the store has seen.
fn next_number(newest: Option<u64>) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    newest.map_or(clock, |newest| clock.max(newest + 1)).max(1)
}

/// The folders beside `own` that hold a journal which no process has open: of instances that had another name, mostly.
pub(crate) fn left_over(own: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(parent) = own.parent() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        // A folder that cannot be read is not this process's business.
        let is_journal = path != own && numbered_files(&path).is_ok_and(|files| !files.is_empty());
        if is_journal && lock(&path).is_ok() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Tries several times: another process that looks for journals left over holds the lock for a moment.
fn lock_patiently(path: &Path) -> Result<File, Why> {
    for _ in 1..JOURNAL_LOCK_TRIES {
        match lock(path) {
            Err(Why::InUse) => std::thread::sleep(JOURNAL_LOCK_PAUSE),
            outcome => return outcome,
        }
    }
    lock(path)
}

fn lock(path: &Path) -> Result<File, Why> {
    let lock = File::options().write(true).create(true).truncate(false).open(path.join(LOCK))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(Why::InUse),
        Err(error) => Err(Why::Io(error.into())),
    }
}

/// The segment files of a folder by number.
pub(crate) fn numbered_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ending| ending == SUFFIX)) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == UNFINISHED || ending == SPARE) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The segments that can be read. Those that a crash of the host left empty are removed, damaged ones are set aside.
fn read_headers(folder: &Path, damaged: &AtomicU64) -> Result<Vec<(Header, PathBuf)>, Why> {
    let mut found = Vec::new();
    for (number, path) in numbered_files(folder)? {
        match segment::read_header(&path)? {
            Ok(header) if header.number == number && number < segment::NUMBERS_END => found.push((header, path)),
            Err(Unreadable::Version(version)) => return Err(Why::Version(version)),
            Err(Unreadable::Empty) if is_all_zero(&path)? => fs::remove_file(&path)?,
            Ok(_) | Err(Unreadable::Empty | Unreadable::Damaged) => {
                tracing::error!(
                    file = %path.display(),
                    "a segment of the click journal cannot be read; it is set aside and its clicks are not stored"
                );
                damaged.fetch_add(1, Ordering::Relaxed);
                fs::rename(&path, path.with_extension(DAMAGED))?;
            }
        }
    }
    Ok(found)
}

fn is_all_zero(path: &Path) -> io::Result<bool> {
    use io::Read;
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            count if buffer[..count].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
