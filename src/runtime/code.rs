//! The program's code in memory: what only the start has needed does not stay there.

use std::io;

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// Takes all code out of this process's memory, that of shared libraries included. What is needed from now on comes back from
/// the kernel's cache when it is next run, sixteen pages at a time; the start's own code (migrations, the command line, the
/// first look at certificates) does not. Returns the bytes of all code, resident or not.
///
/// # Errors
/// The system does not tell where the code lies.
pub fn forget_start() -> io::Result<usize> {
    let maps = Process::myself().and_then(|process| process.maps()).map_err(io::Error::other)?;
    Ok(maps.iter().filter(|map| is_code(map)).map(forget).sum())
}

/// Private, from a file, and never to be written: so nothing in it is this process's own.
fn is_code(map: &MemoryMap) -> bool {
    let is_file = matches!(map.pathname, MMapPath::Path(_));
    is_file && map.perms == MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE
}

#[allow(unsafe_code, reason = "only the kernel can take pages back")]
fn forget(map: &MemoryMap) -> usize {
    let (start, end) = (map.address.0 as usize, map.address.1 as usize);
    // SAFETY: the range is a mapping of a file that may be read and run and not written. Its pages are the file's as long as
    // nobody has changed them by other means, as debuggers do for breakpoints; given back they are read from the file
    // again, the page that this runs on among them. An error leaves all as it was.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    end - start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_code_kib() -> u64 {
        let smaps = Process::myself().unwrap().smaps().unwrap();
        smaps.iter().filter(|map| is_code(map)).map(|map| map.extension.map["Rss"] / 1024).sum()
    }

    #[test]
    fn code_comes_back_when_it_is_run() {
        let before = resident_code_kib();
        assert!(forget_start().unwrap() > 1 << 20);
        let after = resident_code_kib();
        assert!(after < before, "{before} KiB before, {after} KiB after");
    }
}
