//! The calling coroutine's stack: what it has touched and does not use at present, given back to the system.

use std::cell::Cell;

use crate::limits::CONNECTION_STACK_WORDS;

const PAGE_BYTES: usize = 4096;
const STACK_BYTES: usize = CONNECTION_STACK_WORDS * size_of::<usize>();
/// Bytes below the present frame that are left alone: the red zone, and the frame of the call that gives back.
const BELOW_BYTES: usize = 512;
/// Bytes at the low end that are left alone when it is not known for sure where that is.
const MARGIN_BYTES: usize = 16 * 1024;
/// What the generator crate writes to the lowest words of each stack. At a coroutine's end `may` takes their change for an
/// overflow and ends the process.
const SENTINEL: [usize; 8] = [0xDEAD_BEEF; 8];

/// The high end of a coroutine's stack.
pub struct StackTop(usize);

/// A stack that was given back in part. Dropped, it is as `may` wants it at the coroutine's end.
#[must_use = "the end of the wait is the end of this"]
pub struct Trimmed {
    /// Where the sentinel is missing.
    bottom: Option<usize>,
}

impl StackTop {
    /// To be called in one of the first frames of a coroutine with a stack of [`CONNECTION_STACK_WORDS`]: within the first
    /// page of it.
    #[inline(never)]
    pub fn here() -> Self {
        Self(position().next_multiple_of(PAGE_BYTES))
    }

    /// Gives back all whole pages below the present frame, to be had again as zeros when they are touched. An idle
    /// connection is left with one page. Costs two system calls, and a page fault for each page that is needed again.
    #[allow(unsafe_code, reason = "only the kernel can take back pages of a stack")]
    #[inline(never)]
    pub fn trim(&self) -> Trimmed {
        let bottom = self.0 - STACK_BYTES;
        let sentinel = has_sentinel(bottom).then_some(bottom);
        let from = sentinel.unwrap_or(bottom + MARGIN_BYTES);
        let to = (position() - BELOW_BYTES) / PAGE_BYTES * PAGE_BYTES;
        if from >= to {
            return Trimmed { bottom: None };
        }
        // SAFETY: [from, to) is whole pages of the stack that this code runs on. Its low end is `bottom`: either the
        // sentinel is there, or `from` is further from it than `here` can have been from the high end. `to` is below the
        // present frame, and a stack holds nothing below that and its red zone save for the sentinel, which comes back
        // when `Trimmed` is dropped. A signal handler wants nothing of what an earlier one left there. Anonymous private
        // pages given back read as zeros; nothing else happens. An error leaves all as it was.
        let given =
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(from), to - from, libc::MADV_DONTNEED) };
        Trimmed { bottom: sentinel.filter(|_| given == 0) }
    }
}

impl Drop for Trimmed {
    #[allow(unsafe_code, reason = "the sentinel is not ours, and must be there at the end")]
    fn drop(&mut self) {
        if let Some(bottom) = self.bottom {
            // SAFETY: the sentinel was seen there by `trim` on this stack, which lives as long as the coroutine that this
            // is dropped on. Nobody else reads or writes these words before the coroutine's end, unless the stack has
            // grown down to them: and then no frame of this drop would fit.
            unsafe { std::ptr::with_exposed_provenance_mut::<[usize; 8]>(bottom).write(SENTINEL) };
        }
    }
}

/// Whether a stack ends at this address. The kernel is asked to read there, since it might be a guard page.
#[allow(unsafe_code, reason = "a read that may fail")]
fn has_sentinel(bottom: usize) -> bool {
    let mut words = [0_usize; SENTINEL.len()];
    let bytes = size_of_val(&words);
    let to = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: bytes };
    let from = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(bottom), iov_len: bytes };
    // SAFETY: `to` is the array above, which outlives the call and is writable for `bytes`. `from` is only an address: the
    // kernel checks it, and fails where nothing can be read.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
    read == bytes.cast_signed() && words == SENTINEL
}

/// An address within the caller's frame, or next to it.
#[inline(always)]
fn position() -> usize {
    let here = Cell::new(0_u8);
    std::ptr::from_ref(std::hint::black_box(&here)).expose_provenance()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    /// Touches a good part of the stack.
    #[inline(never)]
    fn touch() -> u8 {
        let bytes = std::hint::black_box([1_u8; 15_000]);
        bytes[std::hint::black_box(14_999)]
    }

    /// Bytes of the stack that are present in memory.
    fn present(top: &StackTop) -> usize {
        let mut pages = [0_u8; STACK_BYTES / PAGE_BYTES];
        let start = std::ptr::with_exposed_provenance_mut(top.0 - STACK_BYTES);
        #[allow(unsafe_code, reason = "there is no safe way to ask")]
        // SAFETY: mincore looks at the page tables of a range, and writes a byte for each of its pages.
        let asked = unsafe { libc::mincore(start, STACK_BYTES, pages.as_mut_ptr()) };
        assert_eq!(asked, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count() * PAGE_BYTES
    }

    #[test]
    fn a_trimmed_coroutine_goes_on_and_ends_in_order() {
        runtime::init();
        let (slot, filler) = runtime::slot();
        runtime::spawn(CONNECTION_STACK_WORDS, move || {
            let top = StackTop::here();
            let kept = [7_u8; 100];
            touch();
            let before = present(&top);
            let trimmed = top.trim();
            let after = present(&top);
            // It waits, and others run, before it needs its stack again.
            runtime::yield_to_reactor();
            drop(trimmed);
            let sound = std::hint::black_box(kept) == [7; 100] && touch() == 1 && has_sentinel(top.0 - STACK_BYTES);
            filler.fill((before, after, sound));
        })
        .unwrap();
        let (before, after, sound) = slot.wait_until_filled().unwrap();
        assert!(sound && before >= 15_000 && after + 8_192 <= before, "{before} bytes, then {after}; {sound}");
    }
}
