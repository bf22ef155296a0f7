//! The ledger: what clients were told against what the store holds, with servers killed at random moments in between.
//!
//! Each request carries a number as its user agent. In the end each request whose 302 was read in full must be in the
//! store exactly once; one that got no full answer may be there once; nothing else may be there, and the counters must
//! agree with the rows. `SNIP_LEDGER_ROUNDS` sets the number of kills, `SNIP_LEDGER_SEED` repeats their order
//! (`make ledger` runs the long version).

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rusqlite::Connection;
use rustix::process::Signal;

use support::client::{Address, Conn};
use support::postgres::Postgres;
use support::snip::{Launch, Place, Snip, StoreKind};
use support::wait::eventually;

const ROUNDS_DEFAULT: u64 = 10;
const URLS: u64 = 20;
/// Clients of each server.
const CLIENTS: usize = 4;
/// Requests that a client sends before it reads.
const PIPELINE: u64 = 8;
/// The longest time from the beginning of the load to a kill.
const KILL_WITHIN_MS: u64 = 250;
/// Room for all that comes while the store is away, which is most of the time: what is shed is not on the ledger.
const JOURNAL_BYTES: &str = "8589934592";
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Millions of clicks may be left: optimized servers answer more than a database stores that is down most of the time.
const DRAIN_LIMIT: Duration = Duration::from_secs(1200);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What clients did and heard.
struct Ledger {
    codes: Vec<String>,
    ids: Vec<i64>,
    next: AtomicU64,
}

impl Ledger {
    fn new(snip: &Snip) -> Self {
        let mut client = snip.client();
        let made = (0..URLS).map(|n| client.shorten(&format!("https://example.com/{n}")));
        let (ids, codes) = made.unzip();
        Self { codes, ids, next: AtomicU64::new(0) }
    }

    /// Sends requests until there is no answer or it is time to stop; returns the numbers of those that were answered.
    fn load(&self, address: &Address, stop: &AtomicBool) -> Vec<u64> {
        let mut answered = Vec::new();
        let Ok(mut conn) = Conn::try_open(address) else { return answered };
        while !stop.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(PIPELINE, Ordering::Relaxed);
            let mut requests = String::new();
            for number in first..first + PIPELINE {
                let code = &self.codes[(number % URLS) as usize];
                let _ = write!(requests, "GET /{code} HTTP/1.1\r\nHost: snip.test\r\nUser-Agent: n{number}\r\n\r\n");
            }
            if conn.try_send(requests).is_err() {
                break;
            }
            for number in first..first + PIPELINE {
                match conn.try_response_to("GET") {
                    Ok(response) if response.status == 302 => answered.push(number),
                    // With the store gone and the cache outlived, a redirect is refused, and is no click.
                    Ok(response) => assert_eq!(response.status, 503, "{response:?}"),
                    Err(_) => return answered,
                }
            }
        }
        answered
    }

    /// Holds the rows (URL's id, user agent) to what was answered.
    fn check(&self, answered: &[u64], rows: &[(i64, String)]) {
        let mut stored = BTreeMap::<u64, u64>::new();
        let sent = self.next.load(Ordering::Relaxed);
        for (url_id, user_agent) in rows {
            let number = user_agent.strip_prefix('n').and_then(|number| number.parse().ok());
            let number: u64 = number.unwrap_or_else(|| panic!("{user_agent} was never sent"));
            assert!(number < sent, "the click {number} was invented");
            assert_eq!(*url_id, self.ids[(number % URLS) as usize], "the click {number} is another URL's");
            *stored.entry(number).or_default() += 1;
        }
        let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(10).collect();
        let lost: Vec<_> = answered.iter().filter(|number| !stored.contains_key(number)).take(10).collect();
        assert!(twice.is_empty() && lost.is_empty(), "stored more than once: {twice:?}; answered and lost: {lost:?}");
        eprintln!("sent {sent}, answered {}, stored {}", answered.len(), rows.len());
    }
}

/// Servers, their data, and what is killed.
struct World {
    /// How many servers share the database.
    servers: usize,
    place: Arc<Place>,
    postgres: Option<Postgres>,
    draw: ChaCha8Rng,
}

impl World {
    fn new(servers: usize, postgres: Option<Postgres>) -> Self {
        let seed = setting("SNIP_LEDGER_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("SNIP_LEDGER_SEED={seed}");
        Self { servers, place: Place::new(StoreKind::Sqlite), postgres, draw: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn start(&self, number: usize) -> Snip {
        let launch = Launch::at(Arc::clone(&self.place)).arg("--instance-id").arg(format!("ledger-{number}"));
        let launch = launch.arg("--journal-max-bytes").arg(JOURNAL_BYTES);
        match &self.postgres {
            Some(postgres) => launch.arg("--database-url").arg(postgres.url()).start(),
            None => launch.start(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.draw.next_u32()) % bound
    }

    fn pause(&mut self) {
        let time = self.below(KILL_WITHIN_MS * 1000);
        thread::sleep(Duration::from_micros(time));
    }

    /// Kills one of the servers, the database, or both one after the other; what was killed is started again.
    fn strike(&mut self, snips: &mut [Snip]) {
        let number = self.below(snips.len() as u64) as usize;
        let snip = &mut snips[number];
        self.pause();
        let strikes = if self.postgres.is_some() { self.below(4) } else { 0 };
        let mut is_killed = false;
        // 0: the server; 1: the database; 2: the database, then the server; 3: the other way round.
        let order: &[bool] = [&[true][..], &[false], &[false, true], &[true, false]][strikes as usize];
        for (at, &server) in order.iter().enumerate() {
            if at > 0 {
                self.pause();
            }
            if server {
                snip.signal(Signal::KILL);
                snip.wait_exit(STOP_LIMIT);
                is_killed = true;
            } else if let Some(postgres) = &mut self.postgres {
                postgres.stop_kill9();
            }
        }
        if let Some(postgres) = self.postgres.as_mut().filter(|_| order.contains(&false)) {
            postgres.restart();
        }
        if is_killed {
            *snip = self.start(number);
        }
    }

    fn run(mut self) {
        let rounds = setting("SNIP_LEDGER_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
        let mut snips: Vec<Snip> = (0..self.servers).map(|number| self.start(number)).collect();
        let ledger = Ledger::new(&snips[0]);
        let mut answered = Vec::new();
        for _ in 0..rounds {
            let stop = AtomicBool::new(false);
            let addresses: Vec<Address> = snips.iter().map(|snip| snip.address().clone()).collect();
            thread::scope(|scope| {
                let (ledger, stop) = (&ledger, &stop);
                let of_server = |address| [(); CLIENTS].map(|()| scope.spawn(move || ledger.load(address, stop)));
                let clients: Vec<_> = addresses.iter().flat_map(of_server).collect();
                self.strike(&mut snips);
                stop.store(true, Ordering::Relaxed);
                clients.into_iter().for_each(|client| answered.extend(client.join().expect("a client")));
            });
        }
        // Reading the counters through the API first has what is left in that server's journal stored. That may be much.
        for snip in &snips {
            let mut client = snip.client();
            let stats = format!("/urls/{}/stats", ledger.ids[0]);
            eventually("the journal is stored", DRAIN_LIMIT, || client.get(&stats).status == 200);
            let metrics = client.get("/metrics").expect(200);
            for none in ["clicks_shed_total 0", "clicks_waiting 0", "journal_damaged_segments_total 0"] {
                assert!(metrics.text().lines().any(|line| line == none), "{none} is not in\n{}", metrics.text());
            }
        }
        let mut client = snips[0].client();
        let counters: Vec<i64> = ledger
            .ids
            .iter()
            .map(|id| client.get(&format!("/urls/{id}/stats")).expect(200).json()["redirect_count"].as_i64().unwrap())
            .collect();
        snips.iter_mut().for_each(Snip::stop);
        let rows = self.rows();
        ledger.check(&answered, &rows);
        assert!(answered.len() as u64 > rounds * PIPELINE, "there was a load");
        for (id, counter) in ledger.ids.iter().zip(counters) {
            assert_eq!(rows.iter().filter(|(url_id, _)| url_id == id).count() as i64, counter, "stats of URL {id}");
        }
    }

    /// The URL's id and the user agent of each redirect event.
    fn rows(&self) -> Vec<(i64, String)> {
        let sql = |agent: &str| format!("SELECT url_id, {agent} FROM events WHERE event_type = 'redirect'");
        if let Some(postgres) = &self.postgres {
            let text = postgres.psql(&sql("details::json ->> 'user_agent'"));
            let fields = text.lines().map(|line| line.split_once('|').expect("two fields"));
            return fields.map(|(id, agent)| (id.parse().expect("an id"), agent.to_owned())).collect();
        }
        let db = Connection::open(self.place.data_dir().join("snip.db")).expect("the file");
        let mut statement = db.prepare(&sql("details ->> 'user_agent'")).expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<rusqlite::Result<_>>().expect("two fields")
    }
}

#[test]
fn every_answered_click_is_in_sqlite_once() {
    World::new(1, None).run();
}

#[test]
fn every_answered_click_is_in_postgres_once() {
    World::new(1, Some(Postgres::start())).run();
}

#[test]
fn every_answered_click_of_three_servers_is_in_postgres_once() {
    World::new(3, Some(Postgres::start())).run();
}
