//! A real Nginx of its own for each test, with the project's configuration: a temporary folder, a free port, stopped by
//! pid. The binary is Debian's package `nginx-light`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Address, Client, Conn};
use super::command::{run, text_of, wait};
use super::ports::free_port;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const FILES: [&str; 4] = ["nginx.conf", "routes.conf", "rate-limit.conf", "tls.conf"];

/// The project's folder of Nginx files.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx")
}

/// A running server; dropping it stops it and removes its folder.
pub struct Nginx {
    folder: TempDir,
    address: SocketAddr,
    tls: SocketAddr,
    server: Child,
}

impl Nginx {
    /// In front of these, as `host:port` or `unix:/path`.
    pub fn start(instances: &[String; 3]) -> Self {
        Self::start_with(instances, &[], |_| {})
    }

    /// With files of `enabled/`, once `prepare` has put into the folder what they need.
    pub fn start_with(instances: &[String; 3], enabled: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new().prefix("snip-nginx-").tempdir().expect("a temporary folder");
        // The worker is another user when we are root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let (address, tls) = (free_port(), free_port());
        let conf = folder.path().join("conf");
        fs::create_dir_all(conf.join("enabled")).expect("a folder");
        render(&conf, &values(folder.path(), instances, address, tls));
        for name in enabled {
            fs::copy(conf.join(name), conf.join("enabled").join(name)).expect("a file");
        }
        prepare(&conf);
        let log = File::create(folder.path().join("error.log")).expect("a log");
        let mut command = Command::new("nginx");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(&conf).arg("-c").arg(conf.join("nginx.conf")).args(["-e", "stderr", "-g", "daemon off;"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("stdout")).stderr(log);
        let server = command.spawn().expect("nginx: install the Debian package nginx-light");
        let mut nginx = Self { folder, address, tls, server };
        nginx.wait_ready();
        nginx
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Tcp(self.address)
    }

    /// Where it speaks TLS when `tls.conf` is enabled.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls
    }

    /// A new client.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// A new connection.
    pub fn connect(&self) -> Conn {
        Conn::open(&self.address())
    }

    /// What it has logged: errors, and a line for each request.
    pub fn log(&self) -> String {
        text_of(&self.folder.path().join("error.log")) + &text_of(&self.folder.path().join("access.log"))
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while Conn::try_open(&self.address()).is_err() {
            if let Some(status) = wait(&mut self.server, Duration::from_millis(5)) {
                panic!("nginx ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "nginx does not listen:\n{}", self.log());
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Not SIGKILL: the workers would be left.
        let pid = Pid::from_raw(self.server.id().cast_signed()).expect("a process id");
        let _ = kill_process(pid, Signal::TERM);
        if wait(&mut self.server, STOP_LIMIT).is_none() {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- log of Nginx at {}\n{}----", self.address, self.log());
        }
    }
}

fn values(folder: &Path, instances: &[String; 3], address: SocketAddr, tls: SocketAddr) -> Vec<String> {
    let worker = if rustix::process::getuid().is_root() { "www-data".to_owned() } else { whoami() };
    let [first, second, third] = instances;
    let folder = folder.display();
    vec![
        format!("NGINX_USER={worker}"),
        "WORKER_PRIORITY=0".to_owned(),
        format!("RUN_DIR={folder}"),
        format!("LISTEN={address}"),
        format!("TLS_LISTEN={tls}"),
        format!("ACCESS_LOG={folder}/access.log"),
        "ERROR_LOG=stderr".to_owned(),
        "LOG_REDIRECTS=1".to_owned(),
        format!("SNIP_1={first}"),
        format!("SNIP_2={second}"),
        format!("SNIP_3={third}"),
    ]
}

fn whoami() -> String {
    run(Command::new("id").arg("-un"), STOP_LIMIT).success().stdout.trim().to_owned()
}

fn render(into: &Path, values: &[String]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/lib/render.py");
    let files = FILES.map(|name| source().join(name));
    run(Command::new("python3").arg(script).arg("--into").arg(into).args(files).args(values), START_LIMIT).success();
}
