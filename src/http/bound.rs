//! Addresses: how a socket comes to listen on one, and how it leaves it without losing a connection.
//!
//! The kernel resets what waits in the queue of a listening socket that closes. So an address is first withdrawn, so that
//! nobody comes any more, and the socket closes only when those who had come are accepted (`docs/restart.md`).

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use crate::limits::{LISTEN_BACKLOG, LISTEN_LINGER_ALONE, LISTEN_LINGER_SHARED};

/// Where to listen: `host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; the host may be a name.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("'{text}': a unix socket needs an absolute path, as in unix:/run/snip.sock"))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("'{text}' is neither host:port nor unix:/path")),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct BindError {
    address: ListenAddress,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: it is in use; stop the other program or choose another --listen")
            }
            io::ErrorKind::PermissionDenied => write!(f, "cannot listen on {address}: permission denied"),
            _ => write!(f, "cannot listen on {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Whether another process may listen on an address too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// An address in use is refused.
    Alone,
    /// The new process takes its place beside the old one, which is to be stopped then: TCP by `SO_REUSEPORT`, a unix
    /// socket by putting its own file in the place of the other's.
    HandOver,
}

/// What the process has of an address, and so what it does when it leaves.
#[derive(Debug)]
pub(super) enum Hold {
    /// A TCP port.
    Port(Sharing),
    /// A unix socket's file.
    File(SocketFile),
    /// A socket that was handed in, and which somebody else keeps open: connections wait in it for the next process.
    Inherited,
}

impl Hold {
    /// Sends clients elsewhere who would come to this socket from now on. Those who have come are still to be accepted,
    /// for as long as [`Hold::linger`] says.
    pub fn withdraw(&self, socket: &Socket) {
        match self {
            // Without it there is the moment between the last accept and the close, as with any server.
            Self::Port(_) => drop(socket.attach_filter(&NO_NEW_CONNECTIONS)),
            Self::File(file) => file.remove(),
            Self::Inherited => {}
        }
    }

    /// How long the socket still listens once withdrawn: as long as it may take to come for those who are on their way.
    pub fn linger(&self) -> Duration {
        match self {
            Self::Port(Sharing::HandOver) => LISTEN_LINGER_SHARED,
            Self::Port(Sharing::Alone) | Self::File(_) | Self::Inherited => LISTEN_LINGER_ALONE,
        }
    }

    /// Whether somebody else keeps the socket open.
    pub fn is_inherited(&self) -> bool {
        matches!(self, Self::Inherited)
    }
}

/// A socket that is bound to an address, not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: ListenAddress,
    hold: Hold,
}

impl Bound {
    /// Binds. Port 0 takes a free port. Where another process's place is taken, clients notice nothing before
    /// [`Bound::open`].
    pub fn bind(address: &ListenAddress, sharing: Sharing) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddress::Tcp(text) => bind_tcp(text, sharing),
            ListenAddress::Unix(path) => bind_unix(path, sharing),
        };
        bound.map_err(|source| BindError { address: address.clone(), source })
    }

    /// The sockets that a supervisor opened for this process (`LISTEN_FDS`, sd_listen_fds(3)); none without one.
    ///
    /// To be called first of all, while no descriptor of the process's own can be taken for one of them.
    pub fn inherited() -> Result<Vec<Self>, String> {
        let given = sd_notify::listen_fds_with_names()
            .map_err(|error| format!("LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES name no sockets to serve: {error}"))?;
        given
            .map(|(descriptor, name)| {
                inherit(descriptor).map_err(|why| format!("cannot serve descriptor {descriptor} ({name}): {why}"))
            })
            .collect()
    }

    /// Lets clients come, if they do not already.
    pub(super) fn open(mut self) -> Result<(Socket, Hold), BindError> {
        let opened = match &mut self.hold {
            Hold::Port(Sharing::HandOver) => self.socket.listen(LISTEN_BACKLOG),
            Hold::File(file) => file.put_in_place(),
            Hold::Port(Sharing::Alone) | Hold::Inherited => Ok(()),
        };
        opened.map_err(|source| BindError { address: self.address, source })?;
        Ok((self.socket, self.hold))
    }

    /// Where it listens, with the port that port 0 became.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The TCP address, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

/// Drops segments that have SYN and not ACK, the first of a connection; everything else passes. Classic BPF over the TCP
/// header, whose byte 13 holds the flags. The client's kernel sends the segment again a second later and then finds
/// whoever listens by then. Connections accepted from now on inherit the filter, which never drops anything of theirs.
const NO_NEW_CONNECTIONS: [SockFilter; 5] = {
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, FLAGS_AT),
        SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, SYN | ACK),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, SYN),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ]
};

fn bind_tcp(text: &str, sharing: Sharing) -> io::Result<Bound> {
    let address = text.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the host name has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
    match sharing {
        // Not SO_REUSEPORT: a second process on the same port must be told so.
        Sharing::Alone => {
            socket.bind(&address.into())?;
            socket.listen(LISTEN_BACKLOG)?;
        }
        // The kernel gives it its share of the connections as soon as it listens.
        Sharing::HandOver => {
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
        }
    }
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket, address: ListenAddress::Tcp(address.to_string()), hold: Hold::Port(sharing) })
}

/// Under a name of its own at first: there is never a moment in which the path leads nowhere or may not be entered.
fn bind_unix(path: &Path, sharing: Sharing) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    may_be_replaced(path, sharing)?;
    let file = SocketFile::bind(&socket, path)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(Bound { socket, address: ListenAddress::Unix(path.to_owned()), hold: Hold::File(file) })
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn may_be_replaced(path: &Path, sharing: Sharing) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::other("a file that is no socket is in the way"))
        }
        Ok(_) if sharing == Sharing::Alone => {
            match Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?.connect(&SockAddr::unix(path)?) {
                Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => Ok(()),
            }
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The file of a unix socket: first beside its path, then in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Where the file is until it is put in its place.
    beside: Option<PathBuf>,
    /// Device and inode: by them a process tells its file from one that another has put there since.
    identity: (u64, u64),
}

impl SocketFile {
    fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        // A short name: a socket's path is limited to 107 bytes.
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_file_name(format!(".{:x}-{number:x}", std::process::id()));
        let _ = fs::remove_file(&beside); // of a process that had this number and was killed
        socket.bind(&SockAddr::unix(&beside)?)?;
        // The proxy runs as another user. Who may reach the folder may connect, as with a loopback port.
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666))?;
        let identity = identity(&beside)?;
        Ok(Self { path: path.to_owned(), beside: Some(beside), identity })
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            fs::rename(beside, &self.path)?;
            self.beside = None;
        }
        Ok(())
    }

    /// Removes the file, unless it is gone or another process's by now.
    fn remove(&self) {
        let path = self.beside.as_ref().unwrap_or(&self.path);
        if identity(path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[allow(unsafe_code, reason = "a descriptor that was handed in becomes a socket")]
fn inherit(descriptor: RawFd) -> Result<Bound, String> {
    // SAFETY: the descriptor is open (listen_fds has set a flag on it), it was handed to this process to serve it, and
    // nobody else here has made it his own: this runs once, before anything else is opened.
    let socket = unsafe { Socket::from_raw_fd(descriptor) };
    adopt(socket)
}

/// A socket that listens already.
fn adopt(socket: Socket) -> Result<Bound, String> {
    let is_listening = socket.is_listener().map_err(|_| "it is no socket")?;
    if socket.r#type().ok() != Some(Type::STREAM) {
        return Err("it is no stream socket; use ListenStream= in the .socket unit".to_owned());
    }
    if !is_listening {
        return Err("it does not listen; a service per connection (Accept=yes) is not what this server is".to_owned());
    }
    let local = socket.local_addr().map_err(|error| error.to_string())?;
    let address = match (local.as_socket(), local.as_pathname(), local.as_abstract_namespace()) {
        (Some(address), ..) => ListenAddress::Tcp(address.to_string()),
        (_, Some(path), _) => ListenAddress::Unix(path.to_owned()),
        (.., Some(name)) => ListenAddress::Unix(format!("@{}", String::from_utf8_lossy(name)).into()),
        _ => return Err("it is neither TCP nor a unix socket".to_owned()),
    };
    socket.set_nonblocking(true).map_err(|error| error.to_string())?;
    if matches!(address, ListenAddress::Tcp(_)) {
        socket.set_tcp_nodelay(true).map_err(|error| error.to_string())?;
    }
    Ok(Bound { socket, address, hold: Hold::Inherited })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn addresses() {
        let tcp = |text: &str| assert_eq!(text.parse(), Ok(ListenAddress::Tcp(text.into())));
        tcp("127.0.0.1:8080");
        tcp("localhost:0");
        tcp("[::1]:80");
        assert_eq!("unix:/run/s.sock".parse(), Ok(ListenAddress::Unix("/run/s.sock".into())));
        for bad in ["", "8080", ":8080", "host:", "host:99999", "unix:relative"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    /// A socket that listens, its hold on the address, and the address.
    #[derive(Debug)]
    struct Open(Socket, Hold, ListenAddress);

    fn bind(address: &ListenAddress, sharing: Sharing) -> Result<Open, BindError> {
        let bound = Bound::bind(address, sharing)?;
        let address = bound.address().clone();
        bound.open().map(|(socket, hold)| Open(socket, hold, address))
    }

    #[test]
    fn a_taken_port_is_told() {
        let first = bind(&"127.0.0.1:0".parse().unwrap(), Sharing::Alone).unwrap();
        for sharing in [Sharing::Alone, Sharing::HandOver] {
            let error = bind(&first.2, sharing).unwrap_err().to_string();
            assert!(error.contains("is in use"), "{error}");
        }
    }

    #[test]
    fn a_port_is_shared_by_those_who_agree() {
        let first = bind(&"127.0.0.1:0".parse().unwrap(), Sharing::HandOver).unwrap();
        bind(&first.2, Sharing::HandOver).unwrap();
        assert!(bind(&first.2, Sharing::Alone).unwrap_err().to_string().contains("is in use"));
    }

    #[test]
    fn a_withdrawn_port_lets_nobody_in() {
        let Open(socket, hold, _) = bind(&"127.0.0.1:0".parse().unwrap(), Sharing::HandOver).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _before = std::net::TcpStream::connect(address).unwrap();
        hold.withdraw(&socket);
        let after = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(after.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(socket.accept().is_ok(), "who came before is still there");
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = ListenAddress::Unix(path.clone());
        let first = bind(&address, Sharing::Alone).unwrap();
        assert!(bind(&address, Sharing::Alone).unwrap_err().to_string().contains("is in use"));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        bind(&address, Sharing::Alone).unwrap();
        let file = ListenAddress::Unix(folder.path().join("f"));
        fs::write(folder.path().join("f"), "x").unwrap();
        for sharing in [Sharing::Alone, Sharing::HandOver] {
            assert!(bind(&file, sharing).unwrap_err().to_string().contains("in the way"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the file that was in the way is left");
    }

    #[test]
    fn a_unix_socket_is_handed_over_and_the_old_one_leaves_the_new_ones_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = ListenAddress::Unix(path.clone());
        let old = bind(&address, Sharing::Alone).unwrap();
        let unopened = Bound::bind(&address, Sharing::HandOver).unwrap();
        let _to_old = UnixStream::connect(&path).unwrap();
        drop(unopened); // a start that failed leaves all as it was
        let new = bind(&address, Sharing::HandOver).unwrap();
        let _to_new = UnixStream::connect(&path).unwrap();
        old.1.withdraw(&old.0);
        drop(UnixStream::connect(&path).unwrap());
        assert!(old.0.accept().is_ok() && old.0.accept().is_err());
        drop(old);
        assert!(new.0.accept().is_ok() && new.0.accept().is_ok());
        new.1.withdraw(&new.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_handed_in_is_looked_at() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let expect = listening.local_addr().unwrap();
        let bound = adopt(listening.into()).unwrap();
        assert_eq!(bound.tcp_address(), Some(expect));
        assert!(bound.socket.nonblocking().unwrap());
        let refuse = |socket: Socket, words: &str| {
            let error = adopt(socket).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refuse(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), "no stream socket");
        refuse(UnixStream::pair().unwrap().0.into(), "does not listen");
        refuse(Socket::from(std::os::fd::OwnedFd::from(tempfile::tempfile().unwrap())), "no socket");
    }

    #[test]
    fn the_file_of_an_inherited_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bound = adopt(std::os::unix::net::UnixListener::bind(&path).unwrap().into()).unwrap();
        assert_eq!(bound.address(), &ListenAddress::Unix(path.clone()));
        bound.hold.withdraw(&bound.socket);
        drop(bound);
        assert!(path.exists());
    }
}
