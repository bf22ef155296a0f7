//! Whether a burst goes on, in which clicks wait in the journal: the core is the redirects' then. Nothing here waits, and nothing
//! is read but by [`Watch`].

use std::time::{Duration, Instant};

use crate::limits::{CLICKS_BURST_IDLE_PERCENT, CLICKS_BURST_LOOK, CLICKS_BURST_MAX, CLICKS_BURST_RATE};
use crate::runtime::processors::Ticks;

/// What is seen of the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// When.
    pub at: Instant,
    /// Clicks a second that arrive.
    pub rate: u64,
    /// How idle the processors are, in percent. `None`: not known; that counts as room.
    pub idle_percent: Option<u64>,
}

/// What is seen of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    /// Every click that waited for a burst's end is stored.
    pub is_stored: bool,
    /// There are so many that they cannot wait.
    pub is_large: bool,
}

/// Where we are with the load. A burst is over once its clicks are stored, and the core was seen with room or clicks come slowly
/// again; a load under which that does not happen is no burst, and there is no second wait in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Load {
    /// The last burst, if there was one, is over.
    #[default]
    Light,
    /// A burst, which began then.
    Burst(Instant),
    /// It lasts longer than a burst does, or brings more clicks.
    Lasting,
}

impl Load {
    /// How long the clicks are to wait before the next look. `None`: they are to be stored.
    pub fn pause(&mut self, sight: &Sight, backlog: Backlog) -> Option<Duration> {
        let has_room = sight.idle_percent.is_none_or(|percent| percent >= CLICKS_BURST_IDLE_PERCENT);
        let is_fast = sight.rate > CLICKS_BURST_RATE;
        // A core that is busy with others' work, while clicks are few, says nothing of the next burst.
        if backlog.is_stored && (has_room || !is_fast) {
            *self = Self::Light;
        }
        if has_room {
            return None;
        }
        let began = match *self {
            Self::Light if is_fast => sight.at,
            Self::Burst(began) => began,
            Self::Light | Self::Lasting => return None,
        };
        let left = CLICKS_BURST_MAX.saturating_sub(sight.at.saturating_duration_since(began));
        *self = if left.is_zero() || backlog.is_large { Self::Lasting } else { Self::Burst(began) };
        (is_fast && *self != Self::Lasting).then_some(left.min(CLICKS_BURST_LOOK))
    }
}

/// Looks at the load.
pub(super) trait Lookout: Send {
    /// What is to be seen, with so many clicks recorded by now.
    fn look(&mut self, recorded: u64, load: Load) -> Sight;
}

/// The lookout over the machine. Its figures are those of the time between two looks that are [`CLICKS_BURST_LOOK`] apart, or more.
pub(super) struct Watch {
    at: Instant,
    recorded: u64,
    rate: u64,
    ticks: Option<Ticks>,
    idle_percent: Option<u64>,
}

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self { at: Instant::now(), recorded: 0, rate: 0, ticks: None, idle_percent: None }
    }

    fn look_at(&mut self, at: Instant, recorded: u64, load: Load, ticks: impl FnOnce() -> Option<Ticks>) -> Sight {
        let passed = at.saturating_duration_since(self.at);
        if passed >= CLICKS_BURST_LOOK {
            self.rate = (recorded - self.recorded) * 1000 / passed.as_millis() as u64;
            // Few clicks begin no burst, and cost no look. Those that come at last must have two: one has nothing to compare
            // with.
            let ticks = if self.rate > CLICKS_BURST_RATE || load != Load::Light { ticks() } else { None };
            let before = std::mem::replace(&mut self.ticks, ticks);
            self.idle_percent = ticks.zip(before).and_then(|(now, before)| now.idle_percent_since(before));
            (self.at, self.recorded) = (at, recorded);
        }
        Sight { at, rate: self.rate, idle_percent: self.idle_percent }
    }
}

impl Lookout for Watch {
    fn look(&mut self, recorded: u64, load: Load) -> Sight {
        self.look_at(Instant::now(), recorded, load, Ticks::now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: u64 = CLICKS_BURST_RATE + 1;
    const STORED: Backlog = Backlog { is_stored: true, is_large: false };
    const BEHIND: Backlog = Backlog { is_stored: false, is_large: false };
    const LARGE: Backlog = Backlog { is_stored: false, is_large: true };

    /// The pause in milliseconds, 0 for none, after each look: when (in milliseconds), clicks a second, idle percent, backlog.
    #[track_caller]
    fn check(looks: &[(u64, u64, Option<u64>, Backlog)], expect: &[u128]) {
        let began = Instant::now();
        let mut load = Load::default();
        let pauses = looks.iter().map(|&(at, rate, idle_percent, backlog)| {
            let sight = Sight { at: began + Duration::from_millis(at), rate, idle_percent };
            load.pause(&sight, backlog).map_or(0, |pause| pause.as_millis())
        });
        assert_eq!(pauses.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn clicks_wait_in_a_burst_alone() {
        let (least, busy) = (CLICKS_BURST_IDLE_PERCENT, CLICKS_BURST_IDLE_PERCENT - 1);
        check(&[(0, FAST, Some(busy), STORED)], &[250]);
        check(&[(0, FAST, Some(0), STORED)], &[250]);
        check(&[(0, FAST, Some(least), STORED)], &[0]);
        check(&[(0, FAST, None, STORED)], &[0]);
        check(&[(0, CLICKS_BURST_RATE, Some(0), STORED)], &[0]);
        check(&[(0, FAST, Some(0), LARGE)], &[0]);
    }

    #[test]
    fn room_ends_the_wait_and_the_burst_when_its_clicks_are_stored() {
        check(
            &[(0, FAST, Some(0), STORED), (250, FAST, Some(50), BEHIND), (500, FAST, Some(0), BEHIND)],
            &[250, 0, 250],
        );
        // The time is that since the first wait, until all is stored.
        let all_in = [(0, FAST, Some(0), STORED), (6_000, FAST, Some(50), BEHIND), (9_900, FAST, Some(0), BEHIND)];
        check(&[&all_in[..], &[(10_000, FAST, Some(0), BEHIND)]].concat(), &[250, 0, 100, 0]);
        let stored = [(0, FAST, Some(0), STORED), (6_000, FAST, Some(50), STORED), (9_900, FAST, Some(0), STORED)];
        check(&[&stored[..], &[(10_000, FAST, Some(0), BEHIND)]].concat(), &[250, 0, 250, 250]);
    }

    #[test]
    fn a_rate_that_falls_ends_the_wait() {
        check(&[(0, FAST, Some(0), STORED), (250, 0, Some(0), BEHIND), (500, FAST, Some(0), STORED)], &[250, 0, 250]);
        // Storing what has waited keeps the core busy, and the rate is low: nothing waits for it.
        let after = (1..80).map(|look| (250 * look, 10, Some(0), BEHIND));
        let looks: Vec<_> = std::iter::once((0, FAST, Some(0), STORED)).chain(after).collect();
        check(&looks, &[&[250][..], &[0; 79]].concat());
    }

    #[test]
    fn under_a_load_that_lasts_there_is_one_wait() {
        let minute: Vec<_> = (0..240).map(|look| (250 * look, FAST, Some(0), BEHIND)).collect();
        check(&minute, &[[250; 40].as_slice(), &[0; 200]].concat());
        let over = [(0, FAST, Some(0), STORED), (10_000, FAST, Some(0), BEHIND), (30_000, FAST, Some(0), STORED)];
        // The core has room, and not all is stored; it is; now there may be another.
        let room = [(31_000, FAST, Some(50), BEHIND), (32_000, FAST, Some(0), STORED), (33_000, 0, Some(50), STORED)];
        check(&[&over[..], &room, &[(34_000, FAST, Some(0), STORED)]].concat(), &[250, 0, 0, 0, 0, 0, 250]);
        let large = [(0, FAST, Some(0), STORED), (250, FAST, Some(0), LARGE), (500, FAST, Some(0), STORED)];
        check(&large, &[250, 0, 0]);
    }

    #[test]
    fn clicks_that_come_slowly_again_end_the_burst_on_a_core_that_stays_busy() {
        let over = [(0, FAST, Some(0), STORED), (10_000, FAST, Some(0), BEHIND), (11_000, 0, Some(0), BEHIND)];
        // What has gathered is stored first: without that the next ones would wait on top of it.
        check(&[&over[..], &[(12_000, FAST, Some(0), STORED)]].concat(), &[250, 0, 0, 0]);
        let stored = [(12_000, CLICKS_BURST_RATE, Some(0), STORED), (13_000, FAST, Some(0), STORED)];
        check(&[&over[..], &stored].concat(), &[250, 0, 0, 0, 250]);
    }

    fn backlog() -> impl Strategy<Value = Backlog> {
        (any::<bool>(), prop::bool::weighted(0.02)).prop_map(|(is_stored, is_large)| Backlog { is_stored, is_large })
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_none_follows_in_a_load_that_lasts(
            looks in prop::collection::vec(
                (1u64..2_000, 0..3 * CLICKS_BURST_RATE, prop::option::weighted(0.98, 0..CLICKS_BURST_IDLE_PERCENT + 2), backlog()),
                1..300,
            ),
        ) {
            let mut load = Load::default();
            let mut at = Instant::now();
            // The first wait since all was stored, with room or with few clicks; and whether it has been over for good since.
            let (mut first, mut is_over) = (None, false);
            for (passed, rate, idle_percent, backlog) in looks {
                at += Duration::from_millis(passed);
                let has_room = idle_percent.is_none_or(|percent| percent >= CLICKS_BURST_IDLE_PERCENT);
                let pause = load.pause(&Sight { at, rate, idle_percent }, backlog);
                if let Some(pause) = pause {
                    let first = *first.get_or_insert(at);
                    prop_assert!(at + pause <= first + CLICKS_BURST_MAX && !pause.is_zero() && pause <= CLICKS_BURST_LOOK);
                    prop_assert!(!is_over && !has_room && rate > CLICKS_BURST_RATE && !backlog.is_large);
                }
                if (has_room || rate <= CLICKS_BURST_RATE) && backlog.is_stored {
                    (first, is_over) = (None, false);
                } else if !has_room && first.is_some_and(|first| backlog.is_large || at >= first + CLICKS_BURST_MAX) {
                    is_over = true;
                }
            }
        }
    }

    /// Looks of a watch: milliseconds since its start, clicks recorded by then, load, and ticks if it may look at them. Expects
    /// rate and idle percent.
    type Look = (u64, u64, Load, Option<(u64, u64)>, (u64, Option<u64>));

    #[track_caller]
    fn watch(looks: &[Look]) {
        let mut watch = Watch::start();
        let start = watch.at;
        for &(at, recorded, load, ticks, expect) in looks {
            let mut is_asked = false;
            let sight = watch.look_at(start + Duration::from_millis(at), recorded, load, || {
                is_asked = true;
                ticks.map(|(idle, all)| Ticks { idle, all })
            });
            assert_eq!((sight.rate, sight.idle_percent), expect, "at {at}");
            assert_eq!(is_asked, ticks.is_some(), "at {at}");
        }
    }

    #[test]
    fn processors_are_looked_at_when_clicks_are_many() {
        let light = Load::Light;
        // A first look has nothing to compare with, and what was seen before a lull tells nothing of now.
        watch(&[
            (250, 500, light, None, (2_000, None)),
            (500, 1_001, light, Some((100, 1_000)), (2_004, None)),
            (750, 2_000, light, Some((101, 1_025)), (3_996, Some(4))),
            (1_000, 2_000, light, None, (0, None)),
            (1_250, 3_000, light, Some((150, 1_075)), (4_000, None)),
            (1_500, 4_000, light, Some((155, 1_100)), (4_000, Some(20))),
        ]);
    }

    #[test]
    fn a_short_time_is_not_judged() {
        let light = Load::Light;
        watch(&[
            (249, 9_999, light, None, (0, None)),
            (250, 10_000, light, Some((0, 0)), (40_000, None)),
            (300, 20_000, light, None, (40_000, None)),
            (500, 20_000, light, Some((0, 25)), (40_000, Some(0))),
            (749, 20_000, light, None, (40_000, Some(0))),
            (750, 20_000, light, None, (0, None)),
        ]);
    }

    #[test]
    fn until_the_load_is_light_again_few_clicks_are_looked_at_too() {
        for load in [Load::Lasting, Load::Burst(Instant::now())] {
            watch(&[
                (250, 0, load, Some((0, 0)), (0, None)),
                (500, 0, load, Some((1, 25)), (0, Some(4))),
                (5_500, 0, load, Some((251, 525)), (0, Some(50))),
                (5_750, 0, Load::Light, None, (0, None)),
            ]);
        }
    }
}
