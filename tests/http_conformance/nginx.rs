//! A real Nginx before a server, with connections that it keeps. Stopped by its process id.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::{Address, Conn};
use crate::support::command::{text_of, wait};
use crate::support::ports::free_port;
use crate::support::snip::Snip;
use crate::support::wait::eventually;

pub struct Nginx {
    master: Child,
    address: Address,
    folder: TempDir,
}

impl Nginx {
    /// In front of `snip`, with one connection that all requests share as far as Nginx lets them.
    pub fn start(snip: &Snip, request_buffering: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("snip-nginx-").tempdir().expect("a folder");
        let (port, path) = (free_port(), folder.path().display());
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log warn;
             events {{ worker_connections 512; }}
             http {{
                 log_format forwarded '$upstream_status';
                 access_log {path}/access.log forwarded;
                 client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
                 fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
                 upstream snip {{ server {upstream}; keepalive 1; }}
                 server {{
                     listen {port}; server_name snip.test;
                     location / {{
                         proxy_pass http://snip;
                         proxy_http_version 1.1;
                         proxy_set_header Connection \"\";
                         proxy_set_header Host $host;
                         proxy_pass_header Server;
                         proxy_request_buffering {request_buffering};
                         proxy_ignore_client_abort on;
                     }}
                 }}
             }}",
            upstream = snip.authority()
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).expect("a configuration");
        let mut command = Command::new("nginx");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = command.spawn().expect("nginx: install the Debian package nginx-light");
        let nginx = Self { master, address: Address::Tcp(port), folder };
        eventually("Nginx to listen", Duration::from_secs(20), || Conn::try_open(&nginx.address).is_ok());
        nginx
    }

    /// Requests that the server has answered, as Nginx sees it: a line has the status of each try, and `-` without one.
    pub fn forwarded(&self) -> u64 {
        let log = text_of(&self.folder.path().join("access.log"));
        let tries = log.lines().flat_map(|line| line.split(", "));
        tries.filter(|status| !matches!(*status, "-" | "502" | "504")).count() as u64
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM to the master, which ends its worker; one that was killed would leave it.
        let pid = rustix::process::Pid::from_child(&self.master);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if wait(&mut self.master, Duration::from_secs(10)).is_none() {
            let _ = self.master.kill();
            let _ = self.master.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- error log of Nginx\n{}----", text_of(&self.folder.path().join("error.log")));
        }
    }
}
