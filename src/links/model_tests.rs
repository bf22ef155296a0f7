//! Three instances, one store and one Redis, in every order that a seed can think of: no value older than the published
//! bound is ever served.
//!
//! The decisions are those of production: [`fence`], [`lookup`], [`board`], [`coherence`], `local::is_fresh`. The model
//! adds what they live in: a store with its list of changes; a Redis that evicts, forgets, comes back with what it held
//! long ago, refuses writes; connections that carry commands late and lose messages when they break; writers that die
//! between the commit and the announcement. One code, for codes share nothing but the bounds of the caches.
//!
//! A seed is one interleaving. `SNIP_MODEL_SEED=n` runs one, `SNIP_MODEL_SEEDS=n` so many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quanta::Instant;

use super::board::{Board, Flight, Part};
use super::coherence::{Coherence, Poll, Polled};
use super::fence::{self, Held, Verdict};
use super::local::is_fresh;
use super::lookup::{self, Next};
use crate::limits::{LINK_ATTESTED_FOR, LINK_POLL, LINK_TTL, STORE_DEADLINE};
use crate::model::{Target, Version};

const INSTANCES: usize = 3;
const STEPS: usize = 64;
const CODE: &str = "c";

/// What is taken out to see whether the model would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Fills are written over whatever is there, or over nothing.
    Fence,
    /// A change writes its value even where nothing is.
    ReplaceOnly,
    /// After a connection was lost, the list is read on from where it was.
    Rewind,
    /// Answers of canceled questions are remembered.
    Board,
}

/// Time of the model: whole milliseconds since the start of a run.
type Millis = u64;

/// A command on its way to Redis, on a connection that keeps the order.
#[derive(Clone, Debug)]
enum Command {
    Get { reader: u64 },
    Clean,
    Lease { reader: u64, lease: String },
    Fill { lease: String, version: Version },
    Change { version: Version, has_value: bool, repair: bool },
}

/// What an instance hears from Redis, in the order of Redis.
#[derive(Clone, Debug)]
enum Reply {
    Got { reader: u64, held: Held },
    Leased { reader: u64, lease: Option<String> },
    Changed { version: Version },
    Repaired,
}

/// Somebody who looks a code up.
struct Reader {
    /// Tells an answer of its own from a late one for another.
    id: u64,
    flight: Arc<Flight<()>>,
    began: Millis,
    lease: Option<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A command is on its way; so many ms may be waited for its answer.
    Waiting { until: Millis },
    /// The store is to be asked.
    Query,
    /// The store has answered.
    Answered { version: Version, read_at: Millis },
}

struct Instance {
    memory: Option<(Version, Millis)>,
    board: Board<()>,
    readers: Vec<Option<Reader>>,
    coherence: Coherence,
    /// The read connection: commands that Redis has not carried out, replies that have not arrived.
    is_up: bool,
    sent: VecDeque<Command>,
    arriving: VecDeque<Reply>,
    /// How much of the list is known.
    cursor: usize,
    poll: Option<UnderWay>,
    last_poll: Millis,
}

struct UnderWay {
    poll: Poll,
    seen: Version,
    end: usize,
    began: Millis,
    awaits_repair: bool,
    is_repaired: bool,
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and quick without optimization too.
struct Random(u64);

impl Random {
    fn random_range(&mut self, range: impl std::ops::RangeBounds<usize>) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let first = match range.start_bound() {
            std::ops::Bound::Included(first) => *first,
            _ => 0,
        };
        let count = match range.end_bound() {
            std::ops::Bound::Included(last) => last + 1 - first,
            std::ops::Bound::Excluded(end) => end - first,
            std::ops::Bound::Unbounded => usize::MAX,
        };
        first + (mixed % count as u64) as usize
    }
}

struct World {
    without: Without,
    random: Random,
    base: Instant,
    now: Millis,
    /// When each version was committed; the first at 0.
    commits: Vec<Millis>,
    /// The list of changes: versions in the order of commits.
    list: Vec<Version>,
    redis: Held,
    /// What Redis comes back with when it falls: an older state, or nothing.
    saved: Held,
    refuses: bool,
    instances: Vec<Instance>,
    leases: u64,
    lookups: u64,
    served: u64,
    trace: Vec<String>,
    is_traced: bool,
}

fn target(version: Version) -> Target {
    Target { url_id: 1, user_id: None, version, original_url: String::new() }
}

/// Every fourth version is a link that is switched off.
fn value(version: Version) -> Held {
    if version % 4 == 0 { Held::Tombstone(version) } else { Held::Link(target(version)) }
}

fn version_of(held: &Held) -> Option<Version> {
    match held {
        Held::Link(target) => Some(target.version),
        Held::Tombstone(version) => Some(*version),
        _ => None,
    }
}

impl World {
    fn new(seed: u64, without: Without, base: Instant) -> Self {
        let instance = |_| Instance {
            memory: None,
            board: Board::default(),
            readers: (0..3).map(|_| None).collect(),
            coherence: Coherence::default(),
            is_up: false,
            sent: VecDeque::new(),
            arriving: VecDeque::new(),
            cursor: 0,
            poll: None,
            last_poll: 0,
        };
        Self {
            without,
            random: Random(seed),
            base,
            now: 0,
            commits: vec![0],
            list: Vec::new(),
            redis: Held::Missing,
            saved: value(1),
            refuses: false,
            instances: (0..INSTANCES).map(instance).collect(),
            leases: 0,
            lookups: 0,
            served: 0,
            trace: Vec::new(),
            is_traced: false,
        }
    }

    fn at(&self, millis: Millis) -> Instant {
        self.base + Duration::from_millis(millis)
    }

    fn note(&mut self, what: impl FnOnce(&Held) -> String) {
        if self.is_traced {
            self.trace.push(format!("{:6} {}", self.now, what(&self.redis)));
        }
    }

    fn version(&self) -> Version {
        self.commits.len() as Version
    }

    /// Serves a value to a request that began at `began`: what was committed longer ago than the bound must be in it.
    ///
    /// The bound of the model: a poll is begun at least every second (`LINK_POLL`), takes no longer than its deadlines
    /// allow here, and until it has ended the memory of another may be as old as it may be when nothing vouches for it.
    fn serve(&mut self, instance: usize, version: Version, began: Millis, bound: Duration) -> Result<(), String> {
        self.served += 1;
        let Some(replaced_at) = self.commits.get(version as usize) else { return Ok(()) };
        let age = began.saturating_sub(*replaced_at);
        if age > bound.as_millis() as u64 {
            let newest = self.version();
            return Err(format!(
                "instance {instance} serves version {version} of {newest}, {age} ms after it was replaced (bound {bound:?})"
            ));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let i = self.random.random_range(0..INSTANCES);
        match self.random.random_range(0..100) {
            0..=24 => self.read(i)?,
            25..=54 => self.advance(i)?,
            55..=66 => self.carry_out(i),
            67..=80 => self.hear(i)?,
            81..=85 => self.write(i)?,
            86..=87 => self.connect(i),
            88 => self.cut(i),
            89..=92 => self.trouble(),
            93..=95 => self.poll(i),
            _ => self.pass(),
        }
        Ok(())
    }

    /// Time goes on; nobody may be overdue with a poll.
    fn pass(&mut self) {
        let millis = match self.random.random_range(0..8) {
            0..=4 => self.random.random_range(1..50),
            5 | 6 => self.random.random_range(50..700),
            _ => self.random.random_range(700..2500),
        };
        self.let_pass(millis as Millis);
    }

    fn let_pass(&mut self, millis: Millis) {
        self.now += millis;
        for i in 0..INSTANCES {
            if self.now.saturating_sub(self.instances[i].last_poll) > LINK_POLL.as_millis() as u64 {
                self.finish_poll(i);
                self.poll(i);
            }
        }
    }

    /// The end of a run: everything that is on its way arrives, the bound passes, and nobody may serve anything old.
    fn settle(&mut self) -> Result<(), String> {
        self.note(|_| "everything arrives".to_owned());
        self.refuses = false;
        // In half of the runs whoever is cut off stays so: a connection made anew heals more than it may have to.
        if self.random.random_range(0..2) == 0 {
            (0..INSTANCES).for_each(|i| self.connect(i));
        }
        self.arrive()?;
        for _ in 0..=BOUND.as_millis() / LINK_POLL.as_millis() {
            self.let_pass(LINK_POLL.as_millis() as Millis + 1);
            self.arrive()?;
        }
        let began = self.served;
        for i in 0..INSTANCES {
            // The first may find a lease and go to the store; the second reads what that left.
            for _ in 0..2 {
                self.read(i)?;
                self.arrive()?;
            }
        }
        assert!(self.served >= began + 2 * INSTANCES as u64, "not everybody could be asked");
        Ok(())
    }

    /// All commands are carried out, all replies heard, all readers answered.
    fn arrive(&mut self) -> Result<(), String> {
        let is_quiet =
            |i: &Instance| i.sent.is_empty() && i.arriving.is_empty() && i.readers.iter().all(Option::is_none);
        while !self.instances.iter().all(is_quiet) {
            for i in 0..INSTANCES {
                self.carry_out(i);
                self.hear(i)?;
                for place in 0..self.instances[i].readers.len() {
                    self.advance_reader(i, place)?;
                }
            }
            self.now += 1;
        }
        Ok(())
    }

    // ---- Reading -----------------------------------------------------------------------------------------------

    fn read(&mut self, i: usize) -> Result<(), String> {
        let now = self.at(self.now);
        let ttl = self.instances[i].coherence.memory().ttl(now);
        if let Some((version, filled)) = self.instances[i].memory
            && is_fresh(self.at(filled), now, ttl)
        {
            self.note(|_| format!("{i} serves {version} from memory"));
            return self.serve(i, version, self.now, bound());
        }
        let Some(place) = self.instances[i].readers.iter().position(Option::is_none) else { return Ok(()) };
        // A joiner began later than the leader and hears the leader's answer: it is checked when that comes.
        let Part::Lead(flight) = self.instances[i].board.take_part(CODE, || ()) else { return Ok(()) };
        let next = lookup::begin(self.instances[i].coherence.trusts_redis());
        let reader = Reader { id: self.lookups, flight, began: self.now, lease: None, state: State::Query };
        self.lookups += 1;
        self.instances[i].readers[place] = Some(reader);
        self.note(|_| format!("{i}.{place} begins with {next:?}"));
        self.ask(i, place, next);
        Ok(())
    }

    fn ask(&mut self, i: usize, place: usize, next: Next) {
        let lease = format!("{i}-{}", self.leases);
        let until = self.now + 50;
        let is_up = self.instances[i].is_up;
        let instance = &mut self.instances[i];
        let Some(reader) = &mut instance.readers[place] else { return };
        reader.state = State::Waiting { until };
        let id = reader.id;
        match next {
            _ if !is_up => reader.state = State::Query,
            Next::Get => instance.sent.push_back(Command::Get { reader: id }),
            Next::Clean => {
                instance.sent.push_back(Command::Clean);
                self.ask(i, place, Next::Lease);
            }
            Next::Lease => {
                instance.sent.push_back(Command::Lease { reader: id, lease });
                self.leases += 1;
            }
            Next::Query | Next::Done => reader.state = State::Query,
        }
    }

    /// A reader takes its next step.
    fn advance(&mut self, i: usize) -> Result<(), String> {
        let place = self.random.random_range(0..self.instances[i].readers.len());
        self.advance_reader(i, place)
    }

    fn advance_reader(&mut self, i: usize, place: usize) -> Result<(), String> {
        let (now, version) = (self.now, self.version());
        let Some(reader) = &mut self.instances[i].readers[place] else { return Ok(()) };
        match reader.state {
            State::Waiting { until } if now >= until => reader.state = State::Query,
            State::Waiting { .. } => {}
            State::Query => reader.state = State::Answered { version, read_at: now },
            State::Answered { version, read_at } => {
                // The store's deadline: an answer that takes longer is none.
                let is_in_time = now - read_at <= STORE_DEADLINE.as_millis() as u64;
                let fill = reader.lease.take().filter(|_| is_in_time);
                if let (Some(lease), true) = (fill, self.instances[i].is_up) {
                    // Inactive links are unknown to a reader: nothing is filled.
                    if version % 4 != 0 {
                        self.instances[i].sent.push_back(Command::Fill { lease, version });
                    }
                }
                self.note(|_| format!("{i}.{place} has {version} from the store"));
                return self.land(i, place, version);
            }
        }
        Ok(())
    }

    fn land(&mut self, i: usize, place: usize, version: Version) -> Result<(), String> {
        let Some(reader) = self.instances[i].readers[place].take() else { return Ok(()) };
        let on_board = self.instances[i].board.land(CODE, &reader.flight) || self.without == Without::Board;
        if on_board {
            self.instances[i].memory = Some((version, reader.began));
        }
        self.serve(i, version, reader.began, bound())
    }

    // ---- Redis -------------------------------------------------------------------------------------------------

    /// Redis carries out the next command of a connection.
    fn carry_out(&mut self, i: usize) {
        let Some(command) = self.instances[i].sent.pop_front() else { return };
        self.note(|held| format!("Redis, holding {held:?}, does {command:?} of {i}"));
        let reply = match command {
            Command::Get { reader } => Reply::Got { reader, held: self.redis.clone() },
            Command::Clean => {
                self.redis = Held::Missing;
                return;
            }
            Command::Lease { reader, lease } => {
                let is_taken = self.redis == Held::Missing && !self.refuses;
                if is_taken {
                    self.redis = Held::Lease(lease.clone());
                }
                Reply::Leased { reader, lease: is_taken.then_some(lease) }
            }
            Command::Fill { lease, version } => {
                let may = fence::may_fill(&self.redis, &lease) || self.without == Without::Fence;
                if may && !self.refuses {
                    self.redis = value(version);
                }
                return;
            }
            Command::Change { version, has_value, repair } => {
                self.change(version, has_value);
                if repair { Reply::Repaired } else { Reply::Changed { version } }
            }
        };
        // Published messages go to all that listen, in the order of Redis.
        if let Reply::Changed { version } = reply {
            self.instances.iter_mut().filter(|other| other.is_up).for_each(|other| {
                other.arriving.push_back(Reply::Changed { version });
            });
        } else {
            self.instances[i].arriving.push_back(reply);
        }
    }

    fn change(&mut self, version: Version, has_value: bool) {
        let verdict = fence::judge(&self.redis, version, has_value);
        match verdict {
            Verdict::Missing if self.without == Without::ReplaceOnly && has_value => self.redis = value(version),
            Verdict::Missing | Verdict::Kept => {}
            Verdict::Replaced if !self.refuses => self.redis = value(version),
            Verdict::Replaced | Verdict::Removed => self.redis = Held::Missing,
        }
    }

    /// An instance hears the next reply.
    fn hear(&mut self, i: usize) -> Result<(), String> {
        let Some(reply) = self.instances[i].arriving.pop_front() else { return Ok(()) };
        self.note(|_| format!("{i} hears {reply:?}"));
        match reply {
            Reply::Got { reader, held } => {
                let Some(place) = self.waiting(i, reader) else { return Ok(()) };
                match (lookup::after_get(Some(&held)), version_of(&held)) {
                    (Next::Done, Some(version)) => return self.land(i, place, version),
                    (next, _) => self.ask(i, place, next),
                }
            }
            Reply::Leased { reader, lease } => {
                if let Some(place) = self.waiting(i, reader)
                    && let Some(reader) = &mut self.instances[i].readers[place]
                {
                    reader.lease = lease;
                    reader.state = State::Query;
                }
            }
            Reply::Changed { version } => self.forget_older(i, version),
            Reply::Repaired => {
                if let Some(under_way) = &mut self.instances[i].poll {
                    under_way.awaits_repair = false;
                    self.finish_poll(i);
                }
            }
        }
        Ok(())
    }

    fn waiting(&self, i: usize, id: u64) -> Option<usize> {
        let waits = |reader: &Reader| reader.id == id && matches!(reader.state, State::Waiting { .. });
        self.instances[i].readers.iter().position(|reader| reader.as_ref().is_some_and(waits))
    }

    fn forget_older(&mut self, i: usize, version: Version) {
        let instance = &mut self.instances[i];
        instance.board.cancel(CODE);
        if instance.memory.is_some_and(|(held, _)| held < version) {
            instance.memory = None;
        }
    }

    /// Eviction, a fall with what was saved, memory that runs out.
    fn trouble(&mut self) {
        match self.random.random_range(0..6) {
            0 | 1 => self.redis = Held::Missing,
            2 => self.saved = self.redis.clone(),
            3 => {
                // A fall cuts every connection. What was in leases is saved too: they have not run out.
                self.redis = self.saved.clone();
                (0..INSTANCES).for_each(|i| self.cut(i));
            }
            4 => self.refuses = !self.refuses,
            _ if matches!(self.redis, Held::Lease(_)) => self.redis = Held::Missing,
            _ => self.redis = Held::Garbage,
        }
        self.note(|held| format!("trouble: Redis holds {held:?}"));
    }

    fn connect(&mut self, i: usize) {
        if !self.instances[i].is_up {
            self.instances[i].is_up = true;
            self.instances[i].coherence.up();
            self.note(|_| format!("{i} is connected"));
        }
    }

    /// The connection breaks; of the commands on their way Redis still carries out some, later ones never.
    fn cut(&mut self, i: usize) {
        if !self.instances[i].is_up {
            return;
        }
        self.note(|_| format!("{i} is cut off"));
        let carried_out = self.random.random_range(0..=self.instances[i].sent.len());
        for _ in 0..carried_out {
            self.carry_out(i);
        }
        let instance = &mut self.instances[i];
        instance.is_up = false;
        instance.sent.clear();
        instance.arriving.clear();
        instance.coherence.down();
        for reader in instance.readers.iter_mut().flatten() {
            if matches!(reader.state, State::Waiting { .. }) {
                reader.state = State::Query;
            }
        }
        if instance.poll.as_ref().is_some_and(|poll| poll.awaits_repair) {
            if let Some(poll) = &mut instance.poll {
                (poll.awaits_repair, poll.is_repaired) = (false, false);
            }
            self.finish_poll(i);
        }
    }

    // ---- Writing -----------------------------------------------------------------------------------------------

    /// A commit, and what follows it: all of it, or nothing if the writer dies.
    fn write(&mut self, i: usize) -> Result<(), String> {
        let now = self.now;
        self.commits.push(now);
        let version = self.version();
        self.list.push(version);
        if self.random.random_range(0..6) == 0 {
            self.note(|_| format!("{i} commits {version} and dies"));
            return Ok(());
        }
        self.note(|_| format!("{i} commits {version}"));
        let instance = &mut self.instances[i];
        instance.board.cancel(CODE);
        instance.memory = None;
        if instance.is_up {
            instance.sent.push_back(Command::Change { version, has_value: true, repair: false });
        } else {
            instance.coherence.failed();
        }
        Ok(())
    }

    // ---- Polls -------------------------------------------------------------------------------------------------

    fn poll(&mut self, i: usize) {
        if self.instances[i].poll.is_some() {
            return;
        }
        let (now, at) = (self.now, self.at(self.now));
        let instance = &mut self.instances[i];
        instance.last_poll = now;
        let poll = instance.coherence.begin_poll(at);
        if poll.rewinds && self.without != Without::Rewind {
            instance.cursor = 0;
        }
        let seen = self.list[instance.cursor..].iter().copied().max().unwrap_or(0);
        let repairs = poll.repairs && seen > 0;
        let under_way =
            UnderWay { poll, seen, end: self.list.len(), began: now, awaits_repair: repairs, is_repaired: true };
        if repairs && instance.is_up {
            instance.sent.push_back(Command::Change { version: seen, has_value: false, repair: true });
        }
        instance.poll = Some(under_way);
        self.note(|_| format!("{i} polls: up to {seen}, {poll:?}"));
        if !repairs {
            self.finish_poll(i);
        }
    }

    /// The poll's end: Redis has answered, or its deadline has passed.
    fn finish_poll(&mut self, i: usize) {
        let Some(under_way) = self.instances[i].poll.take() else { return };
        let is_repaired = under_way.is_repaired && !under_way.awaits_repair;
        if under_way.seen > 0 {
            self.forget_older(i, under_way.seen);
        }
        self.instances[i].cursor = under_way.end;
        self.instances[i].coherence.end_poll(under_way.poll, Polled { is_complete: true, is_repaired });
        let trusted = self.instances[i].coherence.trusts_redis();
        self.note(|_| format!("{i} has polled since {}, repaired: {is_repaired}, trusts: {trusted}", under_way.began));
    }
}

/// What the document publishes for an instance that reaches the store: the list is read every second, a reading ends
/// within the next (steps of time here are up to 2.5 s), and vouches for three.
fn bound() -> Duration {
    BOUND
}

const BOUND: Duration = Duration::from_millis(2 * (1000 + 2500));
const _: () = assert!(BOUND.as_millis() < LINK_TTL.as_millis() && LINK_ATTESTED_FOR.as_millis() < BOUND.as_millis());

fn run(seed: u64, without: Without, base: Instant, is_traced: bool) -> Result<u64, String> {
    let mut world = World::new(seed, without, base);
    world.is_traced = is_traced;
    // Most runs begin with everything connected and trusted, where the interesting things happen.
    if !seed.is_multiple_of(8) {
        for i in 0..INSTANCES {
            world.connect(i);
            world.poll(i);
        }
    }
    for _ in 0..STEPS {
        world.step().map_err(|why| format!("seed {seed}: {why}\n{}", world.trace.join("\n")))?;
    }
    world.settle().map_err(|why| format!("seed {seed}, at the end: {why}\n{}", world.trace.join("\n")))?;
    Ok(world.served)
}

fn first_failure(seeds: std::ops::Range<u64>, without: Without) -> Option<(u64, String)> {
    let base = Instant::now();
    seeds.into_iter().find_map(|seed| run(seed, without, base, false).err().map(|why| (seed, why)))
}

fn seeds() -> u64 {
    std::env::var("SNIP_MODEL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn a_million_interleavings_serve_nothing_older_than_the_bound() {
    if let Some(seed) = std::env::var("SNIP_MODEL_SEED").ok().and_then(|text| text.parse().ok()) {
        run(seed, Without::Nothing, Instant::now(), true).unwrap();
        return;
    }
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get() as u64);
    let served: u64 = std::thread::scope(|scope| {
        let part = seeds() / threads;
        let runs: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn(move || {
                    let base = Instant::now();
                    (n * part..(n + 1) * part)
                        .map(|seed| run(seed, Without::Nothing, base, false).unwrap())
                        .sum::<u64>()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(served > 5 * seeds(), "too few answers were looked at: {served}");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let (base, other) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    for seed in 0..100 {
        assert_eq!(run(seed, Without::Nothing, base, false), run(seed, Without::Nothing, other, false));
    }
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
/// The test of the test: whatever is taken out, the model notices.
#[test]
fn without_one_of_its_parts_the_model_fails() {
    for without in [Without::Fence, Without::ReplaceOnly, Without::Rewind, Without::Board] {
        let found = first_failure(0..400_000, without);
        let (seed, _) = found.unwrap_or_else(|| panic!("{without:?} is not missed"));
        println!("{without:?} is missed by seed {seed}");
    }
}
