//! A real Redis of its own for each test: a temporary folder, a unix socket and a free port, stopped by pid.
//!
//! The binary is `redis-server` of the path, or `$SNIP_TEST_REDIS` (Debian package `redis-server`).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use tempfile::TempDir;

use super::ports::free_port;
use super::process;

/// Starting takes milliseconds; on a busy machine it may take seconds.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A server, running or not; dropping it stops it and removes its folder.
pub struct Redis {
    folder: TempDir,
    port: u16,
    args: Vec<String>,
    server: Option<Child>,
}

impl Redis {
    /// A server that lets everybody in and keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments, as `redis-server` takes them.
    pub fn start_with(args: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("snip-redis-").tempdir().unwrap();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut redis = Self { folder, port: free_port().port(), args, server: None };
        redis.launch();
        redis
    }

    /// `redis://` over TCP.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `unix://`.
    pub fn url_unix(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command over a connection of its own.
    pub fn run(&self, args: &[&str]) -> Value {
        let mut stream = UnixStream::connect(self.socket()).expect("the server listens");
        stream.set_read_timeout(Some(START_DEADLINE)).unwrap();
        ask(&mut stream, args)
    }

    /// The text under a key.
    pub fn get(&self, key: &str) -> Option<String> {
        match self.run(&["GET", key]) {
            Value::BulkString(text) => Some(String::from_utf8(text).unwrap()),
            Value::Nil => None,
            other => panic!("GET {key}: {other:?}"),
        }
    }

    /// Kills the server without a chance to say good-bye.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts it again where it was, with what it had saved.
    pub fn launch(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(std::env::var_os("SNIP_TEST_REDIS").unwrap_or("redis-server".into()));
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.folder.path()).args(&self.args);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = command.spawn().expect("redis-server: install the Debian package of that name");
        let started = Instant::now();
        while !self.answers() {
            let ended = server.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < START_DEADLINE, "Redis does not start:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
        self.server = Some(server);
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

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        // With a password set it refuses, which is an answer.
        stream.write_all(b"PING\r\n").is_ok() && stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        if thread::panicking() {
            eprintln!("---- log of Redis\n{}----", self.log());
        }
    }
}

fn ask(stream: &mut UnixStream, args: &[&str]) -> Value {
    let mut cmd = redis::Cmd::new();
    cmd.arg(args);
    stream.write_all(&cmd.get_packed_command()).unwrap();
    redis::Parser::new().parse_value(stream).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// A server that says what it is told to, whatever it is asked, and then nothing more.
pub fn impostor(says: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(says);
            held.push(stream);
        }
    });
    port
}
