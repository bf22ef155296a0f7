//! The files that segments are made of: new ones, with all their blocks, or such whose clicks are stored. To write zeros into
//! a file that is there is cheaper than to remove it and to make another, for the kernel has its pages already (decision 51).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::folder::Allocate;
use crate::limits::{JOURNAL_SEGMENT_BYTES, JOURNAL_SPARE_KEEP};

/// The ending of a spare file's name; what an earlier run left of them is removed.
pub(super) const SPARE: &str = "spare";
/// Zeros written at a time.
const ZEROS_BYTES: usize = 512 * 1024;

/// How the pages of a new file come into memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// One by one, when their turn comes: it may not come soon.
    One,
    /// Many at once, by writing zeros into the file: the kernel then gets them in large pieces, which is far cheaper than each
    /// by itself when it is first touched (decision 40).
    Many,
}

/// Where blank files come from.
pub(super) struct Blanks {
    allocate: Arc<Allocate>,
    /// The last one was given back last, and is the likeliest to have its pages.
    spares: Mutex<Vec<Spare>>,
    spares_max: usize,
}

struct Spare {
    path: PathBuf,
    since: Instant,
}

impl Blanks {
    /// Keeps up to `spares_max` files that were given back.
    pub fn new(allocate: Arc<Allocate>, spares_max: usize) -> Self {
        Self { allocate, spares: Mutex::default(), spares_max }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of a segment's bytes, all zero and with all its blocks, under this path. While there are spare ones no other is
    /// made, so that both together keep to the bounds of the journal.
    pub fn make(&self, path: &Path, pages: Pages) -> io::Result<File> {
        let spare = self.spares().pop();
        if let Some(spare) = spare {
            fs::rename(&spare.path, path)?;
            let file = File::options().read(true).write(true).open(path)?;
            write_zeros(&file)?;
            return Ok(file);
        }
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        (self.allocate)(&file, JOURNAL_SEGMENT_BYTES)?;
        if pages == Pages::Many {
            // Without it pages come one by one, and fewer clicks fit a second; no more than that.
            let _ = write_zeros(&file);
        }
        Ok(file)
    }

    /// Takes back the file of a segment that has all its blocks, and whose clicks are stored; or removes it.
    pub fn give_back(&self, path: &Path) -> io::Result<()> {
        let mut spares = self.spares();
        if spares.len() >= self.spares_max {
            drop(spares);
            return fs::remove_file(path);
        }
        let spare = path.with_extension(SPARE);
        fs::rename(path, &spare)?;
        spares.push(Spare { path: spare, since: Instant::now() });
        Ok(())
    }

    /// Removes those that were not needed for [`JOURNAL_SPARE_KEEP`].
    pub fn remove_stale(&self) {
        self.remove_older(JOURNAL_SPARE_KEEP);
    }

    /// Removes all of them.
    pub fn remove_all(&self) {
        self.remove_older(Duration::ZERO);
    }

    fn remove_older(&self, age: Duration) {
        let mut spares = self.spares();
        // They lie in the order in which they were given back.
        let stale = spares.partition_point(|spare| spare.since.elapsed() >= age);
        for spare in spares.drain(..stale) {
            // Were it to stay, the next start would remove it.
            let _ = fs::remove_file(&spare.path);
        }
    }
}

fn write_zeros(file: &File) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    (0..JOURNAL_SEGMENT_BYTES).step_by(ZEROS_BYTES).try_for_each(|at| file.write_all_at(&zeros, at))
}

const _: () = assert!(JOURNAL_SEGMENT_BYTES.is_multiple_of(ZEROS_BYTES as u64));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clicks::journal::Disk;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_given_back_is_blank_when_it_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(Disk::default().allocate, 1);
        let paths = ["1.clicks", "2.clicks", "3.clicks"].map(|name| folder.path().join(name));
        for path in &paths[..2] {
            blanks.make(path, Pages::One).unwrap().write_all_at(&vec![7; JOURNAL_SEGMENT_BYTES as usize], 0).unwrap();
            blanks.give_back(path).unwrap();
        }
        assert_eq!(names(folder.path()), ["2.spare"], "one is kept: the second was made of the first");
        for pages in [Pages::One, Pages::Many] {
            blanks.make(&paths[2], pages).unwrap();
            assert!(fs::read(&paths[2]).unwrap() == vec![0; JOURNAL_SEGMENT_BYTES as usize]);
            fs::remove_file(&paths[2]).unwrap();
        }
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn spares_are_bounded_in_number_and_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(Disk::default().allocate, 2);
        let paths = ["1.clicks", "2.clicks", "3.clicks"].map(|name| folder.path().join(name));
        paths.iter().for_each(|path| drop(blanks.make(path, Pages::One).unwrap()));
        paths.iter().for_each(|path| blanks.give_back(path).unwrap());
        assert_eq!(names(folder.path()), ["1.spare", "2.spare"]);
        blanks.remove_stale();
        assert_eq!(names(folder.path()).len(), 2, "they are not old");
        blanks.spares()[0].since -= JOURNAL_SPARE_KEEP;
        blanks.remove_stale();
        assert_eq!(names(folder.path()), ["2.spare"]);
        blanks.remove_all();
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
