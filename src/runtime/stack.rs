//! The calling coroutine's stack: what it has touched and does not use at present, given back to the system.

use std::cell::Cell;

use crate::limits::CONNECTION_STACK_WORDS;

/// Bytes at the stack's low end that are left alone. They keep what is given back clear of the guard page, and of the
/// little that the runtime puts at the high end before a coroutine's first frame.
const MARGIN_BYTES: usize = 16 * 1024;
/// Bytes below the present frame that are left alone: the red zone, and the frames of the call that gives back.
const BELOW_BYTES: usize = 4096;
const PAGE_BYTES: usize = 4096;

/// Where a coroutine's stack begins, as seen from one of its first frames.
pub struct StackTop(usize);

impl StackTop {
    /// To be called near the start of a coroutine with a stack of [`CONNECTION_STACK_WORDS`], and to stay on it.
    #[inline(never)]
    pub fn here() -> Self {
        Self(position())
    }

    /// Gives back all whole pages between the present frame and the low end. They read as zeros when they are touched
    /// next. Costs a system call, and a page fault for each page that is needed again.
    #[allow(unsafe_code, reason = "only the kernel can take back pages of a stack")]
    #[inline(never)]
    pub fn trim(&self) {
        let low = (self.0 + MARGIN_BYTES).saturating_sub(CONNECTION_STACK_WORDS * size_of::<usize>());
        let (from, to) = (low.next_multiple_of(PAGE_BYTES), (position() - BELOW_BYTES) / PAGE_BYTES * PAGE_BYTES);
        if from >= to || to > self.0 {
            return;
        }
        // SAFETY: [from, to) is whole pages of the stack that this code runs on: `self.0` is an address within it, no
        // further than MARGIN_BYTES from its high end, so that `from` is not below its low end; and `to` is below the
        // present frame. A stack holds nothing below the present frame and its red zone, which BELOW_BYTES spare, as
        // they do the frame of the call itself. A signal handler wants nothing of what an earlier one left
        // there. Anonymous private pages given back read as zeros; nothing else happens. An error leaves all as it was.
        let _ = unsafe { libc::madvise(std::ptr::without_provenance_mut(from), to - from, libc::MADV_DONTNEED) };
    }
}

/// An address within the caller's frame, or next to it.
#[inline(always)]
fn position() -> usize {
    let here = Cell::new(0_u8);
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}
