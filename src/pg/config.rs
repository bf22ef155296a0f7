//! Connection strings as libpq writes them (PostgreSQL manual, 34.1.1): URLs and `key=value` lists.
//!
//! What is read: host (names, addresses, folders of unix sockets), port, user, password, dbname, connect_timeout,
//! application_name, sslmode, sslrootcert. One key is not libpq's: `pgbouncer=true` says that a pooler in transaction
//! mode stands in between. Anything else is an error that names the key: a setting that is silently dropped, a
//! security setting most of all, is worse than none. No error repeats the string, which may hold a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Error, Result};
use crate::limits;

/// Debian's folder for unix sockets, which its libpq uses when no host is given.
const DEFAULT_SOCKET_FOLDER: &str = "/var/run/postgresql";
const DEFAULT_PORT: u16 = 5432;

/// Where the server is and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub host: Host,
    /// TCP port; also part of a unix socket's name.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Password, if the server wants one.
    pub password: Option<Password>,
    /// Database.
    pub database: String,
    /// Name under which the connections stand in `pg_stat_activity`.
    pub application_name: String,
    /// How much TLS is asked for. Unix sockets never use TLS.
    pub ssl_mode: SslMode,
    /// Certificates that the server's is checked against.
    pub ssl_root: SslRoot,
    /// How long opening a connection may take, all in.
    pub connect_timeout: Duration,
    /// Whether a pooler in transaction mode stands in between, where sessions forget prepared statements.
    pub pooler: bool,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The folder of a unix socket.
    Unix(PathBuf),
}

/// What libpq calls `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it, not verified; the default.
    Prefer,
    /// TLS. Verified like `VerifyCa` if root certificates are named, else not at all (both as libpq).
    Require,
    /// TLS with a certificate from a known authority.
    VerifyCa,
    /// The same, and the certificate is for this host.
    VerifyFull,
}

/// What libpq calls `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslRoot {
    /// Not given: the operating system's, where something is verified.
    Unset,
    /// `system`: the operating system's. As in libpq, this needs `verify-full`.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Config {
    /// For the log: where and who, never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) => write!(f, "{}@{host}:{}/{}", self.user, self.port, self.database),
            Host::Unix(folder) => {
                write!(f, "{}@{}:{}/{}", self.user, folder.display(), self.port, self.database)
            }
        }
    }
}

impl Config {
    /// Reads a connection string.
    ///
    /// # Errors
    /// `Error::Config` for what is malformed, unknown or contradictory.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let mut settings = Settings::default();
        match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            Some(rest) => settings.read_url(rest)?,
            None if text.contains("://") => {
                return Err(Error::config("the URL must begin with postgres:// or postgresql://"));
            }
            None => settings.read_pairs(text)?,
        }
        settings.finish()
    }

    /// Takes the parts that are often given one by one: `DATABASE_HOST`, `_PORT`, `_NAME`, `_USER`, `_PASSWORD`.
    ///
    /// # Errors
    /// `Error::Config` for what is malformed.
    pub fn from_parts(host: &str, port: &str, database: &str, user: &str, password: Option<&str>) -> Result<Self> {
        let mut settings = Settings::default();
        for (key, value) in [("host", host), ("port", port), ("dbname", database), ("user", user)] {
            settings.set(key, value.to_owned())?;
        }
        if let Some(password) = password {
            settings.set("password", password.to_owned())?;
        }
        settings.finish()
    }

    /// The path of the unix socket, if that is how the server is reached.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        match &self.host {
            Host::Unix(folder) => Some(folder.join(format!(".s.PGSQL.{}", self.port))),
            Host::Tcp(_) => None,
        }
    }
}

/// The settings as they are read, each at most once but for the URL's own parts, which parameters override.
#[derive(Default)]
struct Settings {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<Password>,
    database: Option<String>,
    application_name: Option<String>,
    ssl_mode: Option<SslMode>,
    ssl_root: Option<SslRoot>,
    connect_timeout: Option<Duration>,
    pooler: bool,
}

impl Settings {
    /// `[user[:password]@][host][:port][/dbname][?name=value[&…]]`
    fn read_url(&mut self, rest: &str) -> Result<()> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @ ends the user part: a password with a bare @ is what people write, though it should be %40.
        let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (user, None),
        };
        self.set_unless_empty("user", user)?;
        self.set_unless_empty("password", password.unwrap_or_default())?;
        self.set_unless_empty("dbname", database)?;
        let (host, port) = split_address(address)?;
        self.set_unless_empty("host", host)?;
        self.set_unless_empty("port", port)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| Error::config("a URL parameter has no ="))?;
            self.set(&percent_decode(key)?, percent_decode(value)?)?;
        }
        Ok(())
    }

    /// `key = value key='value with spaces, \' and \\'`
    fn read_pairs(&mut self, text: &str) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let (key, after) = rest
                .split_once('=')
                .ok_or_else(|| Error::config("neither a postgres:// URL nor a list of key=value pairs"))?;
            let (value, after) = take_value(after.trim_start())?;
            self.set(key.trim_end(), value)?;
            rest = after.trim_start();
        }
        Ok(())
    }

    fn set_unless_empty(&mut self, key: &str, value: &str) -> Result<()> {
        if value.is_empty() { Ok(()) } else { self.set(key, percent_decode(value)?) }
    }

    fn set(&mut self, key: &str, value: String) -> Result<()> {
        if value.contains('\0') {
            return Err(Error::config(format!("the value of {key} holds a zero byte")));
        }
        match key {
            "host" => self.host = Some(value),
            "port" => self.port = Some(parse_port(&value)?),
            "user" => self.user = Some(value),
            "password" => self.password = Some(Password(value)),
            "dbname" => self.database = Some(value),
            "application_name" => self.application_name = Some(value),
            "sslmode" => self.ssl_mode = Some(parse_ssl_mode(&value)?),
            "sslrootcert" if value == "system" => self.ssl_root = Some(SslRoot::System),
            "sslrootcert" => self.ssl_root = Some(SslRoot::File(value.into())),
            "connect_timeout" => self.connect_timeout = Some(parse_timeout(&value)?),
            "pgbouncer" => self.pooler = parse_bool(key, &value)?,
            _ => return Err(Error::config(format!("the parameter {key:?} is not known"))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Config> {
        let user = self.user.ok_or_else(|| Error::config("no user is given"))?;
        let database = self.database.unwrap_or_else(|| user.clone());
        let ssl_root = self.ssl_root.unwrap_or(SslRoot::Unset);
        let ssl_mode = match (self.ssl_mode, &ssl_root) {
            (None, SslRoot::System) => SslMode::VerifyFull,
            (Some(mode), SslRoot::System) if mode != SslMode::VerifyFull => {
                return Err(Error::config("sslrootcert=system needs sslmode=verify-full"));
            }
            (mode, _) => mode.unwrap_or(SslMode::Prefer),
        };
        Ok(Config {
            host: parse_host(self.host.unwrap_or_else(|| DEFAULT_SOCKET_FOLDER.to_owned()))?,
            port: self.port.unwrap_or(DEFAULT_PORT),
            user,
            password: self.password,
            database,
            application_name: self.application_name.unwrap_or_else(|| "snip".to_owned()),
            ssl_mode,
            ssl_root,
            connect_timeout: self.connect_timeout.unwrap_or(limits::PG_CONNECT_TIMEOUT),
            pooler: self.pooler,
        })
    }
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn split_address(address: &str) -> Result<(&str, &str)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| Error::config("the address has no closing ]"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(Error::config("something other than a port follows the address in brackets")),
        };
    }
    Ok(address.split_once(':').unwrap_or((address, "")))
}

/// Takes one value off a `key=value` list, quoted or not.
fn take_value(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                let (_, escaped) = chars.next().ok_or_else(|| Error::config("a value ends in a backslash"))?;
                value.push(escaped);
            }
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            _ if !quoted && char.is_ascii_whitespace() => return Ok((value, &text[at..])),
            _ => value.push(char),
        }
    }
    if quoted { Err(Error::config("a quoted value has no closing quote")) } else { Ok((value, "")) }
}

fn percent_decode(text: &str) -> Result<String> {
    let malformed = || Error::config("a % in the URL is not followed by two hexadecimal digits (write %25 for %)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(malformed);
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| malformed())?
            }
            _ => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| Error::config("a part of the URL is not UTF-8 once decoded"))
}

fn parse_host(host: String) -> Result<Host> {
    if host.contains(',') {
        return Err(Error::config("several hosts are given; this client connects to one"));
    }
    match host.as_str() {
        "" => Ok(Host::Unix(DEFAULT_SOCKET_FOLDER.into())),
        _ if host.starts_with('/') => Ok(Host::Unix(host.into())),
        _ if host.starts_with('@') => Err(Error::config("abstract unix sockets are not supported")),
        _ => Ok(Host::Tcp(host)),
    }
}

fn parse_port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        // The text is not repeated: with an unescaped : or / in a password, a part of it lands here.
        _ => Err(Error::config("the port is not a number from 1 to 65535 (escape :, / and @ in a password by %)")),
    }
}

fn parse_ssl_mode(text: &str) -> Result<SslMode> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err(Error::config(format!(
            "sslmode is {text:?}; it can be disable, prefer, require, verify-ca or verify-full"
        ))),
    }
}

fn parse_timeout(text: &str) -> Result<Duration> {
    // As wide as libpq's: the deadline that is reckoned with it is to be within what the clock can tell.
    let seconds: i32 = text
        .parse()
        .map_err(|_| Error::config(format!("connect_timeout is not a number of seconds up to {}", i32::MAX)))?;
    // libpq takes 0 and less for "for ever"; here every wait has an end.
    Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map_or(limits::PG_CONNECT_TIMEOUT, Duration::from_secs))
}

fn parse_bool(key: &str, text: &str) -> Result<bool> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::config(format!("{key} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Config {
        Config {
            host: Host::Tcp("db".into()),
            port: 5432,
            user: "ann".into(),
            password: None,
            database: "ann".into(),
            application_name: "snip".into(),
            ssl_mode: SslMode::Prefer,
            ssl_root: SslRoot::Unset,
            connect_timeout: limits::PG_CONNECT_TIMEOUT,
            pooler: false,
        }
    }

    fn password(text: &str) -> Option<Password> {
        Some(Password::new(text))
    }

    #[test]
    fn connection_strings_are_read() {
        let unix = |folder: &str| Host::Unix(folder.into());
        let table: Vec<(&str, Config)> = vec![
            ("postgres://ann@db", base()),
            ("postgresql://ann@db/", base()),
            ("  host=db user=ann  ", base()),
            ("host = db user= ann", base()),
            ("postgres://ann:p%40s%2Fs@db:6000/x%20y", {
                Config { password: password("p@s/s"), port: 6000, database: "x y".into(), ..base() }
            }),
            ("postgres://ann:p@ss@db", Config { password: password("p@ss"), ..base() }),
            ("postgres://ann@[::1]:6000/ann", Config { host: Host::Tcp("::1".into()), port: 6000, ..base() }),
            ("postgres://ann@[::1]", Config { host: Host::Tcp("::1".into()), ..base() }),
            ("postgres://ann@%2Frun%2Fpg:6000", Config { host: unix("/run/pg"), port: 6000, ..base() }),
            ("postgres://ann@/ann?host=/run/pg", Config { host: unix("/run/pg"), ..base() }),
            ("postgres:///d?user=ann", Config { host: unix(DEFAULT_SOCKET_FOLDER), database: "d".into(), ..base() }),
            ("user=ann", Config { host: unix(DEFAULT_SOCKET_FOLDER), ..base() }),
            (r"host=db user=ann password='it\'s \\ \a'", Config { password: password(r"it's \ a"), ..base() }),
            (r"host=db user=ann password=a\ b dbname=''", {
                Config { password: password("a b"), database: String::new(), ..base() }
            }),
            ("postgres://ann@db?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=7&application_name=a+b", {
                let (ssl_mode, ssl_root) = (SslMode::VerifyFull, SslRoot::File("/ca.pem".into()));
                let connect_timeout = Duration::from_secs(7);
                Config { ssl_mode, ssl_root, connect_timeout, application_name: "a+b".into(), ..base() }
            }),
            ("host=db user=ann sslrootcert=system", {
                Config { ssl_mode: SslMode::VerifyFull, ssl_root: SslRoot::System, ..base() }
            }),
            ("host=db user=ann sslmode=disable", Config { ssl_mode: SslMode::Disable, ..base() }),
            ("host=db user=ann connect_timeout=0", base()),
            ("host=db user=ann connect_timeout=2147483647", {
                let connect_timeout = Duration::from_secs(i32::MAX as u64);
                assert!(std::time::Instant::now().checked_add(connect_timeout).is_some());
                Config { connect_timeout, ..base() }
            }),
            ("postgres://ann@db?pgbouncer=true", Config { pooler: true, ..base() }),
        ];
        for (text, expect) in table {
            assert_eq!(Config::parse(text), Ok(expect), "{text}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, says) in [
            ("", "no user"),
            ("mydb", "key=value"),
            ("mysql://ann@db", "postgres://"),
            ("postgres://db", "no user"),
            ("postgres://ann@db?target_session_attrs=any", "\"target_session_attrs\""),
            ("host=db user=ann optoins=x", "\"optoins\""),
            ("postgres://ann@db?sslmode", "no ="),
            ("postgres://ann@db?sslmode=allow", "\"allow\""),
            ("postgres://ann@a,b", "several hosts"),
            ("postgres://ann@db:0", "port"),
            ("postgres://ann@db:99999", "port"),
            ("postgres://ann@[::1", "closing ]"),
            ("postgres://ann@[::1]x", "brackets"),
            ("postgres://ann:50%off@db", "%25"),
            ("postgres://ann@db/%ff", "UTF-8"),
            ("postgres://ann@db/%00", "zero byte"),
            ("host=db user='ann", "closing quote"),
            (r"host=db user=ann\", "backslash"),
            ("host=db user=ann connect_timeout=soon", "connect_timeout"),
            ("host=db user=ann connect_timeout=9223372036854775807", "up to 2147483647"),
            ("host=db user=ann sslmode=require sslrootcert=system", "verify-full"),
            ("host=@x user=ann", "abstract"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error} does not say {says:?}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        let config = Config::parse("postgres://ann:hunter2@db").unwrap();
        assert!(!format!("{config} {config:?}").contains("hunter2"));
        for text in ["postgres://ann:hunter2@db:x", "postgres://ann:hunter2/@db", "password='hunter2 user=ann"] {
            assert!(!Config::parse(text).unwrap_err().to_string().contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn parts_are_taken_literally() {
        let config = Config::from_parts("db", "6000", "d", "ann", Some("50%off")).unwrap();
        assert_eq!(config, Config { port: 6000, database: "d".into(), password: password("50%off"), ..base() });
        assert!(Config::from_parts("db", "x", "d", "ann", None).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_strings_never_panic(text in "(postgres://)?[a-z%=@:/?&'\\\\ \\[\\],\0é]{0,40}") {
            let _ = Config::parse(&text);
        }
    }
}
