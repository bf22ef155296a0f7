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
    use std::io::Write;

    use super::*;

    /// The mapping that an address lies in, and the bytes of it that are resident.
    fn mapping(address: usize) -> (MemoryMap, u64) {
        let smaps = Process::myself().unwrap().smaps().unwrap();
        let found = smaps.into_iter().find(|map| (map.address.0..map.address.1).contains(&(address as u64))).unwrap();
        let resident = found.extension.map["Rss"];
        (found, resident)
    }

    #[test]
    fn knows_code_and_outlives_its_loss() {
        let (here, _) = mapping(forget_start as fn() -> io::Result<usize> as usize);
        let text = String::from("neither code nor a file");
        assert!(is_code(&here) && !is_code(&mapping(text.as_ptr().addr()).0));
        assert!(forget_start().unwrap() >= (here.address.1 - here.address.0) as usize);
    }

    #[test]
    #[allow(unsafe_code, reason = "a file is mapped that nobody else has")]
    fn what_is_forgotten_leaves_and_comes_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        // SAFETY: the file is this test's alone.
        let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file).unwrap() };
        assert!(map.iter().all(|&byte| byte == 7));
        let (found, resident) = mapping(map.as_ptr().addr());
        assert!(resident >= 1 << 20, "{resident}");
        forget(&found);
        assert_eq!(mapping(map.as_ptr().addr()).1, 0);
        assert!(map.iter().all(|&byte| byte == 7));
    }
}
