//! When Redis is believed, and how long this instance's own memory is. Pure: time comes in as an argument.
//!
//! The store keeps a list of what changed lately. Every instance reads on in it once a second ([`Poll`]), removes what
//! it finds there from its own memory, and sees to it that Redis holds nothing older. So a change whose announcement
//! was lost, whoever lost it, is known everywhere after the next poll. After anything that may have put old values back
//! into Redis, or kept a change out of it, Redis is not believed until a poll has gone through all of the list that is
//! young enough to matter.

use quanta::Instant;

use crate::limits::{LINK_ATTESTED_FOR, LINK_TTL, LINK_TTL_ATTESTED};

/// How far Redis is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redis {
    /// There is no connection.
    Away,
    /// There is one; what changed lately is being brought in.
    Repairing,
    /// What it says counts, and its messages arrive.
    Trusted,
}

/// The state of one instance.
#[derive(Debug)]
pub struct Coherence {
    redis: Redis,
    /// Moves with everything that takes trust away: what was begun before it proves nothing.
    epoch: u64,
    /// The next poll must begin at the start of the list.
    must_rewind: bool,
    /// All changes before this moment have been applied to this instance's memory.
    attested: Option<Instant>,
}

/// A walk through the list of changes.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    epoch: u64,
    began: Instant,
    /// Begin at the start of the list, not where the last poll ended.
    pub rewinds: bool,
    /// Bring the changes into Redis, too.
    pub repairs: bool,
}

/// How a poll went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The store gave all of the list, and this instance's memory holds nothing older.
    pub is_complete: bool,
    /// Redis took all changes that it was offered.
    pub is_repaired: bool,
}

/// How long links in this instance's memory count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// [`LINK_TTL_ATTESTED`], for as long as Redis is trusted.
    Long,
    /// The same, until this moment; then [`LINK_TTL`].
    LongUntil(Instant),
    /// [`LINK_TTL`].
    Short,
}

impl Default for Coherence {
    fn default() -> Self {
        Self { redis: Redis::Away, epoch: 0, must_rewind: false, attested: None }
    }
}

impl Coherence {
    /// There is a connection to Redis, subscribed to the messages.
    pub fn up(&mut self) {
        self.distrust(Redis::Repairing);
    }

    /// The connection is gone.
    pub fn down(&mut self) {
        self.distrust(Redis::Away);
    }

    /// Redis did not carry out a change.
    pub fn failed(&mut self) {
        if self.redis != Redis::Away {
            self.distrust(Redis::Repairing);
        }
    }

    fn distrust(&mut self, redis: Redis) {
        self.redis = redis;
        self.epoch += 1;
        self.must_rewind = true;
    }

    /// Begins a poll. There must be one at a time.
    pub fn begin_poll(&mut self, now: Instant) -> Poll {
        let repairs = self.redis != Redis::Away;
        Poll { epoch: self.epoch, began: now, rewinds: self.must_rewind && repairs, repairs }
    }

    /// Takes in how it went.
    pub fn end_poll(&mut self, poll: Poll, polled: Polled) {
        if polled.is_complete {
            self.attested = Some(poll.began);
        }
        if poll.epoch != self.epoch || !poll.repairs {
            return;
        }
        match (polled.is_complete, polled.is_repaired) {
            (_, false) => self.failed(),
            (true, true) if poll.rewinds => {
                self.redis = Redis::Trusted;
                self.must_rewind = false;
            }
            _ => {}
        }
    }

    /// Whether links are asked of Redis.
    pub fn trusts_redis(&self) -> bool {
        self.redis == Redis::Trusted
    }

    /// How long links in memory count.
    pub fn memory(&self) -> Memory {
        match (self.redis, self.attested) {
            (Redis::Trusted, _) => Memory::Long,
            (_, Some(attested)) => Memory::LongUntil(attested + LINK_ATTESTED_FOR),
            (_, None) => Memory::Short,
        }
    }
}

impl Memory {
    /// The longest age at `now`.
    pub fn ttl(self, now: Instant) -> std::time::Duration {
        match self {
            Self::Long => LINK_TTL_ATTESTED,
            Self::LongUntil(end) if now < end => LINK_TTL_ATTESTED,
            Self::LongUntil(_) | Self::Short => LINK_TTL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Polled = Polled { is_complete: true, is_repaired: true };

    #[test]
    fn redis_is_trusted_after_a_whole_walk_and_until_something_happens() {
        let now = Instant::now();
        let mut state = Coherence::default();
        let poll = state.begin_poll(now);
        assert!(!poll.repairs && !poll.rewinds);
        state.end_poll(poll, GOOD);
        assert_eq!((state.trusts_redis(), state.memory()), (false, Memory::LongUntil(now + LINK_ATTESTED_FOR)));

        state.up();
        let poll = state.begin_poll(now);
        assert!(poll.repairs && poll.rewinds && !state.trusts_redis());
        state.end_poll(poll, Polled { is_complete: false, is_repaired: true });
        assert!(!state.trusts_redis(), "the store did not answer");
        let poll = state.begin_poll(now);
        state.end_poll(poll, GOOD);
        assert_eq!((state.trusts_redis(), state.memory()), (true, Memory::Long));

        for (what, happens) in [("failed", Coherence::failed as fn(&mut Coherence)), ("down", Coherence::down)] {
            let poll = state.begin_poll(now);
            assert!(!poll.rewinds, "reads on");
            happens(&mut state);
            state.end_poll(poll, GOOD);
            assert!(!state.trusts_redis(), "{what}: what began before proves nothing");
            state.up();
            let poll = state.begin_poll(now);
            state.end_poll(poll, GOOD);
            assert!(state.trusts_redis());
        }
        let poll = state.begin_poll(now);
        state.end_poll(poll, Polled { is_complete: true, is_repaired: false });
        assert!(!state.trusts_redis() && state.begin_poll(now).rewinds);
    }

    #[test]
    fn memory_shortens_when_nothing_vouches_for_it() {
        let now = Instant::now();
        let until = Memory::LongUntil(now + LINK_ATTESTED_FOR);
        assert_eq!(until.ttl(now), LINK_TTL_ATTESTED);
        assert_eq!(until.ttl(now + LINK_ATTESTED_FOR), LINK_TTL);
        assert_eq!((Memory::Long.ttl(now), Memory::Short.ttl(now)), (LINK_TTL_ATTESTED, LINK_TTL));
    }
}
