//! The journal by itself, and what it does when the disk does not do what it should.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::clicks::segment::{FORMAT_VERSION, Header, NUMBERS_END, Next, Reader, read_header};
use crate::limits::JOURNAL_BYTES_MIN;
use crate::model::{Id, Timestamp};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn click(id: Id) -> ClickRef<'static> {
    ClickRef {
        url_id: id,
        user_id: None,
        at: Timestamp::from_micros(id),
        client: None,
        user_agent: None,
        referrer: None,
    }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> Options {
        Options::new(&self.0.path().join("web-1"), "web-1")
    }

    fn open(&self) -> Journal {
        Journal::open(self.options()).unwrap()
    }

    fn refusal(&self, options: Options) -> String {
        let error = Journal::open(options).map(|_| ()).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error.replace(&self.options().folder.display().to_string(), "DIR")
    }

    /// All clicks in all segments.
    fn ids(&self) -> Vec<Id> {
        let files = numbered_files(&self.options().folder).unwrap();
        files.iter().flat_map(|(number, path)| ids_in(*number, path)).collect()
    }

    fn newest(&self) -> PathBuf {
        numbered_files(&self.options().folder).unwrap().pop().unwrap().1
    }
}

fn ids_in(number: u64, path: &Path) -> Vec<Id> {
    let bytes = fs::metadata(path).unwrap().len();
    let mut reader = Reader::open(path, number).unwrap();
    let mut ids = Vec::new();
    while let Next::Click(click) = reader.next(bytes).unwrap() {
        ids.push(click.url_id);
    }
    ids
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A disk that allows so many segments, and then is full until it allows more.
fn small_disk(segments: usize) -> (Disk, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(segments));
    let allowed = Arc::clone(&left);
    let allocate = move |_: &fs::File, _| {
        let took = allowed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        took.map(drop).map_err(|_| ErrorKind::StorageFull.into())
    };
    // Files without blocks would end the process when written: the tests' disk has room.
    let real = Disk::default();
    let both = move |file: &fs::File, bytes| allocate(file, bytes).and_then(|()| (real.allocate)(file, bytes));
    (Disk { allocate: Arc::new(both), ..Disk::default() }, left)
}

const PER_SEGMENT: Id = (JOURNAL_SEGMENT_BYTES as Id - HEADER_BYTES as Id) / 64;

fn counts(journal: &Journal) -> (u64, u64) {
    let stats = &journal.shared().stats;
    (stats.recorded.load(Ordering::Relaxed), stats.shed.load(Ordering::Relaxed))
}

#[test]
fn what_is_appended_is_in_the_files_at_once() {
    let place = Place::new();
    let journal = place.open();
    for id in 0..1000 {
        journal.append(click(id));
    }
    // Read by system calls, as after a kill: nothing of the writer is asked.
    assert_eq!(place.ids(), Vec::from_iter(0..1000));
    assert_eq!(counts(&journal), (1000, 0));
}

#[test]
fn segments_follow_one_another() {
    let place = Place::new();
    let journal = place.open();
    let count = 2 * PER_SEGMENT + 10;
    (0..count).for_each(|id| journal.append(click(id)));
    assert_eq!(journal.shared().folder.count(), 3);
    assert_eq!(place.ids(), Vec::from_iter(0..count));
    let segments = journal.shared().folder.segments();
    assert!(segments.windows(2).all(|pair| pair[0].is_sealed() && pair[1].number > pair[0].number));
    assert!(!segments[2].is_sealed());
}

#[test]
fn threads_may_append_at_once() {
    let place = Place::new();
    let journal = place.open();
    thread::scope(|scope| {
        for n in 0..4 {
            let journal = &journal;
            scope.spawn(move || (0..5000).for_each(|id| journal.append(click(n * 5000 + id))));
        }
    });
    let mut ids = place.ids();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..20_000));
}

#[test]
fn a_second_run_goes_on_with_the_same_journal() {
    let place = Place::new();
    let first = place.open();
    let name = first.shared().folder.journal;
    first.append(click(1));
    drop(first);
    let second = place.open();
    assert_eq!(second.shared().folder.journal, name);
    second.append(click(2));
    assert_eq!(place.ids(), [1, 2]);
    let other = Journal::open(Options::new(&place.0.path().join("web-2"), "web-2")).unwrap();
    assert_ne!(other.shared().folder.journal, name);
}

// ---- Refusals --------------------------------------------------------------------------------------------------

#[test]
fn a_journal_has_one_process() {
    let place = Place::new();
    let journal = place.open();
    assert_eq!(place.refusal(place.options()), "the click journal in DIR is in use by another process");
    drop(journal);
    place.open();
}

#[test]
fn a_journal_of_another_instance_is_refused() {
    let place = Place::new();
    place.open().append(click(1));
    assert_eq!(
        place.refusal(Options { instance: "web-2".into(), ..place.options() }),
        "the click journal in DIR was written by the instance 'web-1'; store its clicks with 'snip journal ship DIR', or \
         move it away"
    );
    assert_eq!(place.ids(), [1], "nothing was touched");
}

#[test]
fn a_journal_of_another_format_is_refused() {
    let place = Place::new();
    place.open().append(click(1));
    let mut bytes = fs::read(place.newest()).unwrap();
    bytes[8] = 99;
    fs::write(place.newest(), &bytes).unwrap();
    let expected = format!(
        "the click journal in DIR has format 99, this program knows {FORMAT_VERSION}; store its clicks with the version \
         that wrote it, or move it away"
    );
    assert_eq!(place.refusal(place.options()), expected);
    assert_eq!(fs::read(place.newest()).unwrap(), bytes, "nothing was touched");
}

#[test]
fn files_of_several_journals_are_refused() {
    let (place, other) = (Place::new(), Place::new());
    place.open().append(click(1));
    other.open().append(click(2));
    let number = numbered_files(&other.options().folder).unwrap()[0].0;
    // Another number, if both were made within the same second.
    let (number, mut header) = (number + 9, read_header(&other.newest()).unwrap().unwrap());
    header.number = number;
    fs::write(place.options().folder.join(format!("{number:016}.clicks")), header.encode()).unwrap();
    assert_eq!(place.refusal(place.options()), "the files in DIR are of several click journals; move those apart");
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let place = Place::new();
    // A file in the folder's place; permissions would not stop root.
    fs::write(place.options().folder, "").unwrap();
    assert!(place.refusal(place.options()).starts_with("cannot keep the click journal in DIR: "));
    let read_only = Disk { allocate: Arc::new(|_, _| Err(ErrorKind::ReadOnlyFilesystem.into())), ..Disk::default() };
    let options = Options { folder: place.0.path().join("ro"), disk: read_only, ..place.options() };
    let error = Journal::open(options).map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("read-only filesystem or storage medium"), "{error}");
}

// ---- Damage ----------------------------------------------------------------------------------------------------

#[test]
fn a_damaged_header_is_set_aside() {
    let place = Place::new();
    place.open().append(click(1));
    let (damaged, mut bytes) = (place.newest(), fs::read(place.newest()).unwrap());
    bytes[70] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let journal = place.open();
    assert_eq!(journal.shared().folder.damaged.load(Ordering::Relaxed), 1);
    assert!(damaged.with_extension("damaged").exists());
    journal.append(click(2));
    assert_eq!(place.ids(), [2]);
    drop(journal);
    assert_eq!(place.open().shared().folder.damaged.load(Ordering::Relaxed), 0, "it is told once");
}

#[test]
fn a_number_that_has_no_next_is_set_aside() {
    let place = Place::new();
    place.open().append(click(1));
    let newest = place.newest();
    let header = read_header(&newest).unwrap().unwrap();
    for number in [u64::MAX, NUMBERS_END] {
        let last = newest.with_file_name(format!("{number}.clicks"));
        fs::write(&last, Header { number, ..header.clone() }.encode()).unwrap();
        let journal = place.open();
        assert!(last.with_extension("damaged").exists());
        assert!(journal.shared().folder.first_own < NUMBERS_END);
    }
    assert_eq!(place.ids(), [1]);
}

#[test]
fn what_a_crash_left_unfinished_is_removed() {
    let place = Place::new();
    drop(place.open());
    let folder = place.options().folder;
    let names = ["1.unfinished", "2.clicks", "3.clicks", "4.spare"];
    let leftovers = names.map(|name| format!("000000000000000{name}"));
    let contents: [&[u8]; 4] = [b"anything", &[0; 10_000], b"", b"anything"];
    for (name, content) in leftovers.iter().zip(contents) {
        fs::write(folder.join(name), content).unwrap();
    }
    let journal = place.open();
    assert!(leftovers.iter().all(|name| !folder.join(name).exists()));
    assert_eq!(journal.shared().folder.damaged.load(Ordering::Relaxed), 0);
}

/// The inodes of the folder's files with this ending.
fn inodes(place: &Place, ending: &str) -> Vec<u64> {
    let entries = fs::read_dir(place.options().folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == ending));
    files.map(|entry| entry.metadata().unwrap().ino()).collect()
}

#[test]
fn the_file_of_a_stored_segment_is_written_anew() {
    let place = Place::new();
    let journal = place.open();
    (0..2 * PER_SEGMENT + 1).for_each(|id| journal.append(click(id)));
    wait_until("the next one is ready, too", || inodes(&place, "clicks").len() == 4);
    let first = journal.shared().folder.segments().remove(0);
    let inode = fs::metadata(&first.path).unwrap().ino();
    journal.shared().folder.remove(first.number);
    assert_eq!(inodes(&place, "spare"), [inode]);
    (2 * PER_SEGMENT + 1..4 * PER_SEGMENT + 1).for_each(|id| journal.append(click(id)));
    assert_eq!(inodes(&place, "spare"), [0; 0]);
    assert!(inodes(&place, "clicks").contains(&inode));
    assert_eq!(place.ids(), Vec::from_iter(PER_SEGMENT..4 * PER_SEGMENT + 1));
    let segments = journal.shared().folder.segments();
    journal.shared().folder.remove(segments[2].number);
    drop(journal);
    assert_eq!(inodes(&place, "spare"), [0; 0], "at the end they go");
}

#[test]
fn what_must_outlive_a_crash_of_the_host_is_written_into_new_files() {
    let place = Place::new();
    let durability = Durability::Interval(Duration::from_millis(100));
    let journal = Journal::open(Options { durability, ..place.options() }).unwrap();
    (0..PER_SEGMENT + 1).for_each(|id| journal.append(click(id)));
    let first = journal.shared().folder.segments()[0].number;
    journal.shared().folder.remove(first);
    assert_eq!(inodes(&place, "spare"), [0; 0]);
    assert_eq!(journal.shared().folder.count(), 1);
}

// ---- No room ---------------------------------------------------------------------------------------------------

#[test]
fn past_the_cap_clicks_are_shed_and_counted() {
    let place = Place::new();
    let journal = Journal::open(Options { bytes_max: JOURNAL_BYTES_MIN, ..place.options() }).unwrap();
    let room = (JOURNAL_BYTES_MIN / JOURNAL_SEGMENT_BYTES) as Id * PER_SEGMENT;
    (0..room + 5).for_each(|id| journal.append(click(id)));
    assert_eq!(counts(&journal), (room as u64, 5));
    assert_eq!(place.ids(), Vec::from_iter(0..room));
    // The store is back and took the oldest segment.
    let oldest = journal.shared().folder.segments()[0].number;
    journal.shared().folder.remove(oldest);
    journal.append(click(room + 5));
    assert_eq!(counts(&journal), (room as u64 + 1, 5));
    assert!(journal.shared().bytes() <= JOURNAL_BYTES_MIN + JOURNAL_SEGMENT_BYTES);
}

#[test]
fn runs_that_end_at_once_do_not_fill_the_journal() {
    let place = Place::new();
    let options = || Options { bytes_max: JOURNAL_BYTES_MIN, ..place.options() };
    for id in 0..50 {
        let journal = Journal::open(options()).unwrap();
        journal.append(click(id));
        assert_eq!(counts(&journal), (1, 0), "run {id}");
    }
    assert_eq!(place.ids(), Vec::from_iter(0..50));
}

#[test]
fn with_a_full_disk_clicks_are_shed_until_there_is_room() {
    let place = Place::new();
    let (disk, left) = small_disk(1);
    let journal = Journal::open(Options { disk, ..place.options() }).unwrap();
    (0..PER_SEGMENT + 3).for_each(|id| journal.append(click(id)));
    assert_eq!(counts(&journal), (PER_SEGMENT as u64, 3));
    assert!(journal.shared().stats.prepare_failures.load(Ordering::Relaxed) >= 1);
    left.store(10, Ordering::SeqCst);
    let mut shed = 3;
    wait_until("there is room again", || {
        journal.append(click(-1));
        let is_back = counts(&journal).0 > PER_SEGMENT as u64;
        shed += u64::from(!is_back);
        is_back
    });
    assert_eq!(counts(&journal), (PER_SEGMENT as u64 + 1, shed), "each click is either");
    assert_eq!(place.ids(), Vec::from_iter((0..PER_SEGMENT).chain([-1])));
}

#[test]
fn with_the_disk_full_at_the_start_it_starts_and_sheds() {
    let place = Place::new();
    let (disk, left) = small_disk(0);
    let journal = Journal::open(Options { disk, ..place.options() }).unwrap();
    journal.append(click(1));
    assert_eq!(counts(&journal), (0, 1));
    left.store(10, Ordering::SeqCst);
    wait_until("there is room", || {
        journal.append(click(2));
        counts(&journal).0 == 1
    });
    assert_eq!(place.ids(), [2]);
    // The next segment may be on its way at this moment; what the full disk broke off would stay.
    wait_until("no file is left unfinished", || {
        let mut paths = fs::read_dir(place.options().folder).unwrap().map(|entry| entry.unwrap().path());
        !paths.any(|path| path.extension().is_some_and(|it| it == "unfinished"))
    });
}

/// The real thing, if this process may mount: a file system of 20 MiB, which holds two segments.
#[test]
fn a_disk_that_is_really_full_ends_in_shedding() {
    let place = Place::new();
    let mounted = place.0.path().join("small");
    fs::create_dir(&mounted).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"]).arg(&mounted).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        eprintln!("not tried: this process may not mount");
        return;
    }
    let journal = Journal::open(Options { folder: mounted.join("web-1"), ..place.options() }).unwrap();
    (0..3 * PER_SEGMENT).for_each(|id| journal.append(click(id)));
    let counts = counts(&journal);
    drop(journal);
    std::process::Command::new("umount").arg(&mounted).status().unwrap();
    assert_eq!(counts, (2 * PER_SEGMENT as u64, PER_SEGMENT as u64));
}

// ---- Syncing ---------------------------------------------------------------------------------------------------

/// A disk that counts its syncs and fails those that it is told to.
fn counting_disk(fails: impl Fn(usize) -> bool + Send + Sync + 'static) -> (Disk, Arc<AtomicUsize>) {
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let sync = move |_: &fs::File| match counted.fetch_add(1, Ordering::SeqCst) {
        number if fails(number) => Err(io::Error::from_raw_os_error(5)),
        _ => Ok(()),
    };
    (Disk { sync: Arc::new(sync), ..Disk::default() }, syncs)
}

#[test]
fn under_process_nothing_is_synced() {
    let place = Place::new();
    let (disk, syncs) = counting_disk(|_| false);
    let journal = Journal::open(Options { disk, ..place.options() }).unwrap();
    journal.append(click(1));
    drop(journal);
    assert_eq!(syncs.load(Ordering::SeqCst), 0);
}

#[test]
fn under_always_a_click_is_synced_when_it_is_taken() {
    let place = Place::new();
    let (disk, syncs) = counting_disk(|_| false);
    let journal = Journal::open(Options { disk, durability: Durability::Always, ..place.options() }).unwrap();
    for id in 1..=5 {
        journal.append(click(id));
        assert_eq!(syncs.load(Ordering::SeqCst), id as usize);
    }
    assert_eq!(journal.shared().stats.unsynced.load(Ordering::Relaxed), 0);
}

#[test]
fn clicks_that_come_together_share_a_sync() {
    crate::runtime::init();
    let place = Place::new();
    let (mut disk, syncs) = counting_disk(|_| false);
    let slow = Arc::clone(&disk.sync);
    disk.sync = Arc::new(move |file| {
        thread::sleep(Duration::from_millis(20));
        slow(file)
    });
    let options = Options { disk, durability: Durability::Always, ..place.options() };
    let journal = Arc::new(Journal::open(options).unwrap());
    let redirects: Vec<_> = (0..200)
        .map(|id| {
            let journal = Arc::clone(&journal);
            may::go!(move || journal.append(click(id)))
        })
        .collect();
    redirects.into_iter().for_each(|redirect| redirect.join().unwrap());
    assert_eq!(counts(&journal), (200, 0));
    assert!(syncs.load(Ordering::SeqCst) < 50, "{syncs:?} syncs for 200 clicks");
}

#[test]
fn under_interval_clicks_are_synced_soon_and_at_the_end() {
    let place = Place::new();
    let (disk, syncs) = counting_disk(|_| false);
    let durability = Durability::Interval(Duration::from_millis(5));
    let journal = Journal::open(Options { disk, durability, ..place.options() }).unwrap();
    journal.append(click(1));
    wait_until("the click is synced", || syncs.load(Ordering::SeqCst) == 1);
    drop(journal);
    let (disk, syncs) = counting_disk(|_| false);
    let durability = Durability::Interval(PATIENCE);
    let journal = Journal::open(Options { disk, durability, ..place.options() }).unwrap();
    journal.append(click(2));
    drop(journal);
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failed_sync_ends_the_trust_in_its_segment() {
    let place = Place::new();
    let (disk, syncs) = counting_disk(|number| number == 1);
    let journal = Journal::open(Options { disk, durability: Durability::Always, ..place.options() }).unwrap();
    for id in 0..4 {
        journal.append(click(id));
    }
    let stats = &journal.shared().stats;
    assert_eq!(stats.sync_failures.load(Ordering::Relaxed), 1);
    assert_eq!(stats.unsynced.load(Ordering::Relaxed), 1, "the second click, whose sync failed");
    let segments = journal.shared().folder.segments();
    let ids: Vec<_> = segments.iter().map(|segment| ids_in(segment.number, &segment.path)).collect();
    assert_eq!(ids, [vec![0, 1], vec![2, 3]], "going on in another file");
    assert_eq!(syncs.load(Ordering::SeqCst), 4);
}
