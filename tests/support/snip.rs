//! Starts and stops the built binary: each server on its own port, in its own folder, over its own store.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{Address, Client, Conn};
use super::command::{self, text_of, wait};
use super::ports::free_port;
use super::postgres::Postgres;
use super::process;

/// How long a server may take to get ready, and to stop.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Another process may take a free port between the look and the start.
const PORT_TRIES: usize = 5;

/// Which store a server keeps its data in. `SNIP_TEST_STORE` chooses it for a whole run of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The embedded default: a file in the data folder.
    Sqlite,
    /// A database of its own on the one PostgreSQL server that the test file starts.
    Postgres,
}

impl StoreKind {
    /// The store of this run.
    pub fn of_this_run() -> Self {
        match std::env::var("SNIP_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("SNIP_TEST_STORE={other} is no store the tests know"),
        }
    }

    /// Makes a store that is empty: the arguments that lead the binary there, and what keeps it alive.
    fn lay_out(self) -> StorePlace {
        match self {
            Self::Sqlite => StorePlace { args: Vec::new() },
            Self::Postgres => StorePlace { args: vec!["--database-url".to_owned(), new_database()] },
        }
    }
}

struct StorePlace {
    args: Vec<String>,
}

/// An empty database on the server of this test file, as a connection string. The server outlives the tests and goes
/// with the process: its watchdog sees to that.
fn new_database() -> String {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(Postgres::start);
    let name = format!("snip_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.psql(&format!("CREATE DATABASE {name}"));
    server.url().replace("/postgres?", &format!("/{name}?"))
}

/// The folder and the store of a server; outlives it when the server is started again.
pub struct Place {
    folder: TempDir,
    store: StorePlace,
    launches: AtomicU32,
}

impl Place {
    /// A new folder and an empty store.
    pub fn new(store: StoreKind) -> Arc<Self> {
        let folder = tempfile::Builder::new().prefix("snip-test-").tempdir().expect("a temporary folder");
        Arc::new(Self { folder, store: store.lay_out(), launches: AtomicU32::new(0) })
    }

    /// The folder; the data folder and the logs are in it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What `--data-dir` is given.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// A command of the binary on this store, say `seed`.
    pub fn command(&self, name: &str) -> Command {
        let mut command = command::snip();
        command.arg(name).arg("--data-dir").arg(self.data_dir()).args(&self.store.args);
        command
    }
}

/// How a server is to be started.
pub struct Launch {
    place: Arc<Place>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    unix: bool,
}

impl Launch {
    /// With nothing special, on the store of this run.
    pub fn new() -> Self {
        Self::on(StoreKind::of_this_run())
    }

    /// On a new store of this kind.
    pub fn on(store: StoreKind) -> Self {
        Self::at(Place::new(store))
    }

    /// Where another server has been, on its data.
    pub fn at(place: Arc<Place>) -> Self {
        Self { place, args: Vec::new(), env: Vec::new(), unix: false }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listen on a unix socket instead of a port.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Starts the server and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Snip {
        for _ in 0..PORT_TRIES {
            let mut snip = self.spawn();
            match snip.wait_ready() {
                Ok(()) => return snip,
                Err(e) if e.contains("in use") => {}
                Err(e) => panic!("{e}"),
            }
        }
        panic!("{PORT_TRIES} ports were taken, one after the other");
    }

    fn spawn(&self) -> Snip {
        let launch = self.place.launches.fetch_add(1, Ordering::Relaxed);
        let log_path = self.place.path().join(format!("server-{launch}.log"));
        let log = File::create(&log_path).expect("a file for the log");
        let address = if self.unix {
            Address::Unix(self.place.path().join(format!("snip-{launch}.sock")))
        } else {
            Address::Tcp(free_port())
        };
        let mut command = self.place.command("serve");
        command.arg("--listen").arg(address.to_string()).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone().expect("stdout")).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("can't start {command:?}: {e}"));
        Snip { child, address, log_path, place: Arc::clone(&self.place) }
    }
}

/// A running server. Stopped when dropped; its log is shown when the test fails.
pub struct Snip {
    child: Child,
    address: Address,
    log_path: PathBuf,
    place: Arc<Place>,
}

impl Snip {
    /// Starts a server with nothing special.
    #[track_caller]
    pub fn start() -> Self {
        Launch::new().start()
    }

    /// Starts a server on a new store of this kind.
    #[track_caller]
    pub fn start_on(store: StoreKind) -> Self {
        Launch::on(store).start()
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `host:port`, for tools that take no unix socket.
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Conn {
        Conn::open(&self.address)
    }

    /// A new client.
    pub fn client(&self) -> Client {
        Client::new(self.address.clone())
    }

    /// Folder and store.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        text_of(&self.log_path)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // The child is not waited for yet, so the number is still its own.
        process::signal(self.pid(), signal);
    }

    /// Lets it stand still.
    #[track_caller]
    pub fn freeze(&self) {
        process::freeze(self.pid());
    }

    /// Lets it run on.
    pub fn thaw(&self) {
        process::thaw(self.pid());
    }

    /// Waits for its end, and fails when the limit passes first.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit).unwrap_or_else(|| panic!("still running {limit:?} later"))
    }

    /// Stops it in order, with exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.term();
        let status = self.wait_exit(STOP_LIMIT);
        assert!(status.success(), "stopped with {status}");
    }

    /// Stops it in order and starts another one on the same data.
    #[track_caller]
    pub fn restart(mut self) -> Self {
        self.stop();
        Launch::at(Arc::clone(&self.place)).start()
    }

    /// Fails unless the process still lives and answers.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("wait");
        assert!(ended.is_none(), "the server has ended: {ended:?}");
        self.client().get("/livez").expect(200);
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.says_ready() {
                return Ok(());
            }
            if let Some(status) = wait(&mut self.child, Duration::from_millis(10)) {
                return Err(format!("the server ended with {status} before it was ready:\n{}", self.log()));
            }
            if Instant::now() > deadline {
                return Err(format!("the server was not ready within {START_LIMIT:?}:\n{}", self.log()));
            }
        }
    }

    fn says_ready(&self) -> bool {
        let Ok(mut conn) = Conn::try_open(&self.address) else { return false };
        let asked = conn.try_send("GET /readyz HTTP/1.1\r\nHost: snip.test\r\nConnection: close\r\n\r\n");
        asked.is_ok() && conn.try_response_to("GET").is_ok_and(|response| response.status == 200)
    }
}

impl Drop for Snip {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.term();
            if wait(&mut self.child, STOP_LIMIT).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("---- log of the server at {}\n{}----", self.address, self.log());
        }
    }
}
