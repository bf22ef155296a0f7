//! L2: links in Redis, shared by all instances. What may be written is decided in `fence`.
//!
//! Nothing here fails its caller: an answer that does not come is `None`, and the way goes on without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fence::{self, CHANGE, FILL, Held};
use crate::figures::Figures;
use crate::limits::{
    CACHED_LINK_BYTES_MAX, REDIS_BATCH_DEADLINE, REDIS_LEASE_TTL, REDIS_LINK_TTL, REDIS_LINK_TTL_JITTER, WARM_UP_LIMIT,
};
use crate::model::{LinkChange, LinkState, Target, Version};
use crate::redis::client::Care;
use crate::redis::{Client, Cmd, Config, Error, Events, Result, Value};

/// Where links are in Redis; other tools read them there.
const KEY_PREFIX: &str = "url:";

/// Links in Redis.
pub(super) struct Level2 {
    client: Client,
    channel: String,
    lock_key: String,
    /// Makes leases unique: of this process, and each a number.
    nonce: u64,
    leases: AtomicU64,
}

impl Level2 {
    /// Connects, now and whenever it must; `events` hear of it.
    pub fn open(config: Config, events: std::sync::Arc<dyn Events>) -> std::io::Result<Self> {
        // Channels are common to all databases of a server; the keys are not.
        let channel = format!("snip:changed:{}", config.database);
        let client = Client::open(config, &[&CHANGE, &FILL], &channel, events)?;
        let (nonce, leases) = (rand::random(), AtomicU64::new(0));
        Ok(Self { client, channel, lock_key: "snip:warming".into(), nonce, leases })
    }

    /// What is there for a code.
    pub fn get(&self, code: &str) -> Option<Held> {
        match self.client.call(Cmd::new().arg("GET").arg(key(code))) {
            Ok(Value::Nil) => Some(Held::Missing),
            Ok(Value::BulkString(bytes)) => Some(fence::read(&bytes)),
            Ok(_) => None,
            // A list or the like under our key.
            Err(Error::Server { code, .. }) if &*code == "WRONGTYPE" => Some(Held::Garbage),
            Err(_) => None,
        }
    }

    /// Removes what is there. Always allowed: at worst somebody asks the store once more.
    pub fn remove(&self, code: &str) {
        // If it fails, the next reader tries again.
        let _ = self.client.call(Cmd::new().arg("DEL").arg(key(code)));
    }

    /// Leaves a lease where nothing is; `None` if something is, or Redis takes none.
    pub fn lease(&self, code: &str) -> Option<String> {
        let lease = self.new_lease();
        match self.client.call(&lease_cmd(code, &lease)) {
            Ok(Value::Okay) => Some(lease),
            _ => None,
        }
    }

    /// Leaves leases for many codes.
    pub fn lease_many<'c>(&self, codes: impl Iterator<Item = &'c str>) -> Option<Vec<Option<String>>> {
        let (cmds, leases): (Vec<_>, Vec<_>) = codes
            .map(|code| {
                let lease = self.new_lease();
                (lease_cmd(code, &lease), lease)
            })
            .unzip();
        let answers = self.client.batch(&cmds, REDIS_BATCH_DEADLINE).ok()?;
        Some(
            answers
                .into_iter()
                .zip(leases)
                .map(|(answer, lease)| matches!(answer, Ok(Value::Okay)).then_some(lease))
                .collect(),
        )
    }

    fn new_lease(&self) -> String {
        format!("{:016x}-{}", self.nonce, self.leases.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes a link over the lease that was left for it, if that is still there. Does not wait.
    pub fn fill(&self, code: &str, lease: &str, target: &Target) {
        if let Some(value) = cacheable(fence::link_json(target)) {
            self.client.script_unheard(&FILL, &key(code), &fill_args(lease, &value));
        }
    }

    /// The same for many; gives how many were written.
    pub fn fill_many<'c>(&self, fills: impl Iterator<Item = (&'c str, &'c str, &'c Target)>) -> Option<usize> {
        let calls: Vec<_> = fills
            .filter_map(|(code, lease, target)| {
                let value = cacheable(fence::link_json(target))?;
                Some((key(code), fill_args(lease, &value).to_vec()))
            })
            .collect();
        let answers = self.client.script_batch(&FILL, &calls).ok()?;
        Some(answers.iter().filter(|answer| matches!(answer, Ok(Value::Int(1)))).count())
    }

    /// Makes a change known: to Redis, and through it to the other instances. Waits for it, within the deadline.
    pub fn change(&self, code: &str, state: &LinkState) {
        let value = cacheable(fence::state_json(state)).unwrap_or_default();
        let args = self.change_args(code, state.version, &value);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        // Refused or lost, the events hear of it.
        let _ = self.client.script(&CHANGE, &key(code), &args, Care::Sure);
    }

    /// Sees to it that Redis holds nothing older than these; whether it did all.
    pub fn repair(&self, changes: &[LinkChange]) -> bool {
        let calls: Vec<_> = changes
            .iter()
            .map(|change| (key(&change.short_code), self.change_args(&change.short_code, change.version, "").to_vec()))
            .collect();
        match self.client.script_batch(&CHANGE, &calls) {
            Ok(answers) => answers.iter().all(Result::is_ok),
            Err(_) => false,
        }
    }

    fn change_args(&self, code: &str, version: Version, value: &str) -> [Vec<u8>; 5] {
        let message = format!("{code} {version}");
        [version.to_string().into(), value.into(), life_ms().into(), self.channel.clone().into(), message.into()]
    }

    /// Takes the lock of the warm-up if nobody has it; who has it now. `None` if Redis does not say.
    pub fn lock_warm_up(&self) -> Option<LockHolder> {
        let (mut set, mut get) = (Cmd::new(), Cmd::new());
        set.arg("SET").arg(&self.lock_key).arg(self.nonce).arg("NX").arg("PX").arg(millis(WARM_UP_LIMIT));
        get.arg("GET").arg(&self.lock_key);
        lock_holder(&self.client.batch(&[set, get], REDIS_BATCH_DEADLINE).ok()?, self.nonce)
    }

    /// Tells Prometheus of the client.
    pub fn tell(&self, figures: &mut Figures) {
        self.client.tell(figures);
    }
}

/// Who has the lock of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockHolder {
    Ours,
    Other,
}

/// Reads the answers to a try to take the lock and to the question whose it is after that. The second counts: a try
/// whose answer was lost may have been carried out, and a later one then finds the lock taken, by this very instance.
fn lock_holder(answers: &[Result<Value>], nonce: u64) -> Option<LockHolder> {
    match answers {
        [_, Ok(Value::BulkString(held))] if *held == nonce.to_string().as_bytes() => Some(LockHolder::Ours),
        [_, Ok(Value::BulkString(_))] => Some(LockHolder::Other),
        _ => None,
    }
}

/// Reads a message as `change_args` makes it.
pub(super) fn read_message(text: &[u8]) -> Option<(&str, Version)> {
    let (code, version) = std::str::from_utf8(text).ok()?.rsplit_once(' ')?;
    Some((code, version.parse().ok()?))
}

/// A value, unless it is too long to be read.
fn cacheable(value: String) -> Option<String> {
    (value.len() <= CACHED_LINK_BYTES_MAX).then_some(value)
}

fn key(code: &str) -> String {
    format!("{KEY_PREFIX}{code}")
}

fn lease_cmd(code: &str, lease: &str) -> Cmd {
    let mut cmd = Cmd::new();
    cmd.arg("SET").arg(key(code)).arg(fence::lease_json(lease)).arg("NX").arg("PX").arg(millis(REDIS_LEASE_TTL));
    cmd
}

fn fill_args(lease: &str, value: &str) -> [Vec<u8>; 3] {
    [fence::lease_json(lease).into(), value.into(), life_ms().into()]
}

fn life_ms() -> String {
    let jitter = millis(REDIS_LINK_TTL_JITTER);
    (millis(REDIS_LINK_TTL) - jitter + rand::random_range(0..=2 * jitter)).to_string()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_nonsense_is_not() {
        for (text, expect) in [
            (&b"abc 7"[..], Some(("abc", 7))),
            (b"a b 7", Some(("a b", 7))),
            (b"abc 9223372036854775807", Some(("abc", Version::MAX))),
            (b"abc", None),
            (b"abc x", None),
            (b"\xff 1", None),
            (b"", None),
        ] {
            assert_eq!(read_message(text), expect);
        }
    }

    #[test]
    fn the_lock_is_whose_redis_says() {
        let held = |by: &str| Ok(Value::BulkString(by.into()));
        let refused = || Err(Error::Server { code: "OOM".into(), text: "".into() });
        for (answers, expect) in [
            ([Ok(Value::Okay), held("7")], Some(LockHolder::Ours)),
            // An earlier try was carried out, and its answer lost.
            ([Ok(Value::Nil), held("7")], Some(LockHolder::Ours)),
            ([Ok(Value::Nil), held("8")], Some(LockHolder::Other)),
            ([refused(), held("8")], Some(LockHolder::Other)),
            // It ran out in between.
            ([Ok(Value::Nil), Ok(Value::Nil)], None),
            ([refused(), Ok(Value::Nil)], None),
            ([Ok(Value::Okay), refused()], None),
        ] {
            assert_eq!(lock_holder(&answers, 7), expect, "{answers:?}");
        }
        assert_eq!(lock_holder(&[], 7), None);
    }

    #[test]
    fn lives_differ_within_their_bounds() {
        for _ in 0..1000 {
            let life = life_ms().parse::<u64>().unwrap();
            assert!((540_000..=660_000).contains(&life), "{life}");
        }
    }
}
