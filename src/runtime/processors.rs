//! How busy the processors are that this process may run on: with its own work, and with everybody else's.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity};

/// What these processors have done since they were started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Those in which there was nothing to do, or nothing but to wait for a disk.
    pub idle: u64,
    /// All.
    pub all: u64,
}

impl Ticks {
    /// Up to now. `None` where the system does not tell: without `/proc`, or where it is one of other processors, as in some
    /// containers.
    pub fn now() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let stat = fs::read_to_string("/proc/stat").ok()?;
        Self::of(&stat, |processor| processor < CpuSet::MAX_CPU && allowed.is_set(processor))
    }

    /// Those of some processors, from the text of `/proc/stat`. (The `procfs` crate does not tell whose line is whose, and those
    /// of processors that are switched off are missing.)
    fn of(stat: &str, is_counted: impl Fn(usize) -> bool) -> Option<Self> {
        let processors = stat.lines().filter_map(processor);
        let counted = processors.filter(|(number, _)| is_counted(*number)).map(|(_, ticks)| ticks);
        counted.reduce(|sum, one| Self { idle: sum.idle + one.idle, all: sum.all + one.all })
    }

    /// The share of the time since `earlier` for which the processors were idle, in percent. `None` if it was no time.
    pub fn idle_percent_since(self, earlier: Self) -> Option<u64> {
        let all = self.all.saturating_sub(earlier.all);
        // Time that was counted as a wait for a disk may be less at the next look (proc_stat(5)).
        let idle = self.idle.saturating_sub(earlier.idle).min(all);
        (idle * 100).checked_div(all)
    }
}

/// A processor's number and ticks, if this is its line: user, nice, system, idle, iowait, irq, softirq, steal; and two more that
/// the first two have in them. What a hypervisor gave to others is not idle: it was not to be had.
fn processor(line: &str) -> Option<(usize, Ticks)> {
    let mut fields = line.strip_prefix("cpu")?.split(' ');
    // The line of all processors together has no number.
    let number = fields.next()?.parse().ok()?;
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((number, Ticks { idle, all: ticks.iter().sum() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  8000 100 300 4400 50 7 33 43 9 9
cpu0 100 10 20 300 40 5 6 7 99 99
cpu2 1000 0 0 9000 0 0 0 0 0 0
cpu10 1 1 1 1 1 1 1 1 1 1
intr 1500 0 3
ctxt 123
btime 1700000000
";

    #[test]
    fn the_lines_of_those_that_count_are_summed() {
        let check = |stat: &str, counted: &[usize], expect: Option<(u64, u64)>| {
            let ticks = Ticks::of(stat, |number| counted.contains(&number));
            assert_eq!(ticks, expect.map(|(idle, all)| Ticks { idle, all }), "{counted:?} of {stat}");
        };
        check(STAT, &[0], Some((340, 488)));
        check(STAT, &[10], Some((2, 8)));
        check(STAT, &[0, 2], Some((9340, 10_488)));
        // Switched off, or this is not the list of these processors.
        check(STAT, &[1], None);
        check(STAT, &[], None);
        check("", &[0], None);
        // Kernels from before steal.
        check("cpu0 1 2 3 4 5", &[0], Some((9, 15)));
        // No kernel writes these.
        check("cpu0 1 2 3 4", &[0], None);
        check("cpu0 1 2 x 4 5 6 7 8", &[0], None);
        check("cpu0", &[0], None);
    }

    #[test]
    fn idle_is_a_share_of_the_time_between() {
        let check = |earlier: (u64, u64), later: (u64, u64), expect: Option<u64>| {
            let [earlier, later] = [earlier, later].map(|(idle, all)| Ticks { idle, all });
            assert_eq!(later.idle_percent_since(earlier), expect, "from {earlier:?} to {later:?}");
        };
        check((1000, 5000), (1000, 5025), Some(0));
        check((1000, 5000), (1002, 5025), Some(8));
        check((1000, 5000), (1025, 5025), Some(100));
        check((1000, 5000), (999, 5025), Some(0));
        // Fewer processors than before, or the same moment.
        check((1000, 5000), (500, 2500), None);
        check((1000, 5000), (1000, 5000), None);
        check((1000, 5000), (1030, 5025), Some(100));
    }

    #[test]
    fn this_machine_tells() {
        let ticks = Ticks::now().unwrap();
        assert!(ticks.idle <= ticks.all && ticks.all > 0, "{ticks:?}");
    }
}
