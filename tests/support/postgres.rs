//! A real PostgreSQL of its own for each test: a temporary folder, a free port, a unix socket, stopped by pid.
//!
//! ```ignore
//! let server = Postgres::start();
//! server.psql("CREATE TABLE t (id bigint)");
//! let pool = connect(&server.url()); // or server.url_unix()
//! ```
//!
//! The binaries are looked for in `$SNIP_TEST_PG_BIN`, then `/usr/lib/postgresql/*/bin` (Debian package
//! `postgresql-15`). As root the server runs as the user `postgres`, for it refuses root.
//!
//! `fsync` is off: what a test may claim is that a commit outlives `kill -9` of the server, not a power cut.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::ports::free_port;
use super::process;
use super::wait::wait_until;

/// Starting is waited for this long; on a busy machine `initdb` alone may take ten seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Ports are picked free and then bound by another process, so another server may be quicker.
const PORT_TRIES: usize = 5;

/// How the server is to be set up; `Setup::default()` is what [`Postgres::start`] uses.
#[derive(Default)]
pub struct Setup {
    /// Lines for `postgresql.conf`, after the usual ones.
    pub conf: String,
    /// The whole `pg_hba.conf`; empty: everybody is trusted.
    pub hba: String,
    /// Server certificate and key (PEM). With them the server speaks TLS.
    pub tls: Option<(String, String)>,
}

/// A running server; dropping it stops it and removes its folder.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    /// Ends the server and removes the folder even if the test process is killed: its standard input is our pipe.
    watchdog: Child,
}

impl Postgres {
    /// A server that trusts everybody, with the superuser `postgres` and the database `postgres`.
    pub fn start() -> Postgres {
        Self::start_with(&Setup::default())
    }

    /// A server set up as said.
    pub fn start_with(setup: &Setup) -> Postgres {
        let folder = tempfile::Builder::new().prefix("snip-pg-").tempdir().unwrap();
        give_to_server_user(folder.path());
        let data = folder.path().join("data");
        let initdb = server_command("initdb").arg("-D").arg(&data).args(INITDB_FLAGS).output().unwrap();
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        write_setup(&data, setup);
        let watchdog = watchdog(folder.path());
        let mut postgres = Postgres { folder, port: 0, server: None, watchdog };
        for _ in 0..PORT_TRIES {
            postgres.port = free_port().port();
            if postgres.launch() {
                return postgres;
            }
        }
        panic!("PostgreSQL does not start:\n{}", postgres.log());
    }

    /// `postgres://` over TCP, without TLS.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// `postgres://` over the unix socket.
    pub fn url_unix(&self) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/postgres", self.port)
    }

    /// The TCP port on 127.0.0.1, also part of the unix socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds the unix socket, the data and the log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// CPU time of all the server's processes that run now, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        self.sessions().into_iter().chain([self.pid()]).map(cpu_ticks).sum()
    }

    /// Kills the server without a chance to say good-bye.
    pub fn stop_kill9(&mut self) {
        process::signal(self.pid(), Signal::KILL);
        self.reap();
        // Sessions see that the postmaster is gone and end; a new server cannot start before.
        wait_until("the sessions of the killed server ended", || self.sessions().is_empty());
    }

    /// Starts the server again on its old port; stops it first if it runs.
    pub fn restart(&mut self) {
        if self.server.is_some() {
            process::signal(self.pid(), Signal::INT);
            self.reap();
        }
        assert!(self.launch(), "PostgreSQL does not start again:\n{}", self.log());
    }

    /// Lets the server and all its sessions stand still, as a machine does that swaps itself to death.
    #[track_caller]
    pub fn freeze(&self) {
        // First the one that starts sessions. Signals to its group would not reach them: each has a group of its own.
        process::freeze(self.pid());
        self.sessions().into_iter().for_each(process::freeze);
    }

    /// Lets a frozen server run on.
    pub fn thaw(&self) {
        self.sessions().into_iter().chain([self.pid()]).for_each(process::thaw);
    }

    /// Runs SQL as superuser over a connection of its own; gives the rows as text, fields separated by `|`.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// [`Postgres::psql`] in another database.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let output = self.run_psql(database, sql);
        assert!(output.status.success(), "psql {sql:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn run_psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
        command.arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string(), "-c", sql]);
        command.env("PGCONNECT_TIMEOUT", "10").output().unwrap()
    }

    /// Whether the server came up; `false` if it ended at once, which is what a taken port makes it do.
    fn launch(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = server_command("postgres");
        command.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // A group of its own: signals reach the sessions too, and Ctrl-C in the terminal does not.
        let mut server = command.process_group(0).spawn().unwrap();
        let started = Instant::now();
        while started.elapsed() < START_DEADLINE {
            if server.try_wait().unwrap().is_some() {
                return false;
            }
            if self.run_psql("postgres", "SELECT 1").status.success() {
                self.server = Some(server);
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = server.kill();
        let _ = server.wait();
        panic!("PostgreSQL hangs while starting:\n{}", self.log());
    }

    /// Pids of processes other than the postmaster that work in this server's data folder.
    fn sessions(&self) -> Vec<u32> {
        let data = self.folder.path().join("data");
        let postmaster = self.server.as_ref().map(Child::id);
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| Some(*pid) != postmaster)
            .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
            .collect()
    }

    fn reap(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.thaw();
            process::signal(self.pid(), Signal::QUIT);
            self.reap();
        }
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

const INITDB_FLAGS: [&str; 8] =
    ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "-k"];

const CONF: &str = "
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 50
max_wal_size = 256MB
log_line_prefix = '%m [%p] '
";

fn write_setup(data: &Path, setup: &Setup) {
    let mut conf = File::options().append(true).open(data.join("postgresql.conf")).unwrap();
    conf.write_all(CONF.as_bytes()).unwrap();
    if let Some((certificate, key)) = &setup.tls {
        write_secret(&data.join("server.crt"), certificate);
        write_secret(&data.join("server.key"), key);
        conf.write_all(b"ssl = on\n").unwrap();
    }
    conf.write_all(setup.conf.as_bytes()).unwrap();
    if !setup.hba.is_empty() {
        fs::write(data.join("pg_hba.conf"), &setup.hba).unwrap();
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    give_to_server_user(path);
}

/// User and system time of a process, in clock ticks; 0 if it is gone (proc(5)).
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, the state is the first field and these are the 12th and 13th.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Where a program of PostgreSQL is.
pub fn binary(name: &str) -> PathBuf {
    let given = std::env::var_os("SNIP_TEST_PG_BIN").map(PathBuf::from);
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map(|entry| entry.unwrap().path().join("bin"));
    let found = given.into_iter().chain(debian).map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name}: install the Debian package postgresql-15 or set SNIP_TEST_PG_BIN"))
}

/// A command that runs as an unprivileged user: `postgres` if we are root, else as we are.
fn server_command(name: &str) -> Command {
    as_server_user(Command::new(binary(name)))
}

/// The same for any program (a pooler, for one, refuses root too).
pub fn as_server_user(mut command: Command) -> Command {
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// Lets the server's user write in a folder of ours.
pub fn give_to_server_user(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn server_user() -> Option<(u32, u32)> {
    let we_are_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.starts_with("postgres:")).filter(|_| we_are_root)?;
    let mut fields = entry.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next()?, fields.next()?))
}

fn watchdog(folder: &Path) -> Child {
    // The pid is the server's only while its lock file is there and a process called postgres has it.
    let script = r#"
        read -r _
        pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm")" = postgres ]; then
            kill -CONT "$pid"
            kill -QUIT "$pid"
            while [ -d "/proc/$pid" ]; do sleep 0.1; done
        fi 2>/dev/null
        rm -rf "$0"
    "#;
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().unwrap()
}
