//! A segment's file in memory: the one place of the journal that is not checked by the compiler.
//!
//! What keeps it sound: bytes of a mapping are reached through [`Pen`] alone, of which there is one for each mapping; all
//! others, this process included, read the file by system calls. Mapped bytes that are not there end a process (SIGBUS),
//! so a file is given its blocks before it is mapped and nobody shortens it: the folder is locked, and is ours.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

/// Bytes that the processor fetches at once.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// A mapping, for those who look after its memory.
pub(super) struct Map(MmapRaw);

/// The right to write into a mapping.
pub(super) struct Pen {
    map: Arc<Map>,
}

/// Maps the first `bytes` of the file, all of which must have been allocated.
pub(super) fn map(file: &File, bytes: usize) -> io::Result<(Pen, Arc<Map>)> {
    let map = Arc::new(Map(MmapOptions::new().len(bytes).map_raw(file)?));
    Ok((Pen { map: Arc::clone(&map) }, map))
}

impl Map {
    /// Has the pages of the range present and writable, so that writing into them meets no fault. What the kernel makes
    /// of it is its own affair: before Linux 5.14 it refuses, and the faults come.
    pub fn populate(&self, range: Range<usize>) {
        if !range.is_empty() {
            let _ = self.0.advise_range(Advice::PopulateWrite, range.start, range.len());
        }
    }

    /// Takes the pages of the range out of this process's memory; they stay in the file.
    #[allow(
        unsafe_code,
        reason = "memmap2 marks DONTNEED as unsafe, because on private mappings it drops what was written"
    )]
    pub fn release(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        // SAFETY: the mapping is shared with its file, so the bytes keep their values: a later access finds them again
        // in the page cache. `advise_range` checks that the range lies within the mapping.
        let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}

impl Pen {
    /// The bytes of the range, to be written; `None` if they do not lie within the mapping.
    #[allow(unsafe_code, reason = "a mapping is a raw pointer")]
    pub fn bytes(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        if range.start > range.end || range.end > self.map.0.len() {
            return None;
        }
        // SAFETY: the range lies within the mapping, which lives as long as `self.map`. Nobody else has a reference to
        // these bytes: `map` makes one pen for each mapping, `self` is borrowed mutably for as long as the slice lives,
        // and no other process writes to the file, whose folder is locked. The blocks of the file are allocated.
        Some(unsafe { std::slice::from_raw_parts_mut(self.map.0.as_mut_ptr().add(range.start), range.len()) })
    }

    /// Tells the processor that the range will soon be written into. It fetches these bytes from memory meanwhile, for which
    /// the writer would else wait: nobody has touched them since the kernel filled them with zeros. A hint: where it is not
    /// known how to give it, nothing happens.
    #[allow(unsafe_code, reason = "a mapping is a raw pointer")]
    pub fn prefetch(&self, range: Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        for at in range.step_by(CACHE_LINE_BYTES) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing that the program could see and never faults, whatever the address;
            // `wrapping_add` makes one without the promise that it lies within the mapping.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.map.0.as_ptr().wrapping_add(at).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = range;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_is_in_the_file_and_stays_there() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        let (mut pen, map) = map(&file, 1 << 16).unwrap();
        map.populate(0..1 << 16);
        pen.bytes(8190..8194).unwrap().copy_from_slice(b"snip");
        map.release(0..1 << 16);
        let mut found = [0; 4];
        file.read_exact_at(&mut found, 8190).unwrap();
        assert_eq!((&found, &*pen.bytes(8190..8194).unwrap()), (b"snip", &b"snip"[..]));
    }

    #[test]
    fn nothing_is_reached_outside() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let (mut pen, _map) = map(&file, 4096).unwrap();
        assert!(pen.bytes(4090..4097).is_none());
        assert!(pen.bytes(usize::MAX - 1..usize::MAX).is_none());
        #[allow(clippy::reversed_empty_ranges, reason = "that is what is tried")]
        let reversed = pen.bytes(9..8).is_none();
        assert!(reversed);
        assert!(pen.bytes(4096..4096).is_some_and(|bytes| bytes.is_empty()));
    }
}
