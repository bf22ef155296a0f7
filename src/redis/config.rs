//! `redis://`, `rediss://`, `unix://`: where the server is and how to log in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::error::{Error, Result};
use crate::net::tls::{Roots, Verify};

const DEFAULT_PORT: u16 = 6379;

/// Where the server is and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub host: Host,
    /// User of its access control list; `default` when only a password is given.
    pub user: Option<String>,
    /// Password, never shown.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u16,
    /// What is asked of the server's certificate; `None`: no TLS.
    pub tls: Option<(Verify, Roots)>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Config {
    /// For the log: where and who, never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match &self.host {
            Host::Tcp(host, port) => write!(f, "{host}:{port}/{}", self.database),
            Host::Unix(path) => write!(f, "{}?db={}", path.display(), self.database),
        }
    }
}

impl FromStr for Config {
    type Err = Error;

    /// `redis[s]://[[user]:password@]host[:port][/db]`, `unix:///path` or `redis+unix:///path`, each with parameters:
    /// `db`, `user`, `pass`, and for TLS `sslrootcert=FILE` and `verify=full|chain|none`.
    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(unknown_scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut config = match scheme {
            "redis" => tcp(rest, None)?,
            "rediss" => tcp(rest, Some((Verify::Full, Roots::System)))?,
            "unix" | "redis+unix" => unix(rest)?,
            _ => return Err(unknown_scheme()),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| Error::config("a URL parameter has no ="))?;
            config.set(key, decode(value)?)?;
        }
        Ok(config)
    }
}

impl Config {
    fn set(&mut self, key: &str, value: String) -> Result<()> {
        match (key, &mut self.tls) {
            ("db", _) => self.database = database(&value)?,
            ("user", _) => self.user = Some(value),
            ("pass" | "password", _) => self.password = Some(value),
            ("sslrootcert", Some((_, roots))) => *roots = Roots::File(value.into()),
            ("verify", Some((verify, _))) => {
                *verify = match value.as_str() {
                    "full" => Verify::Full,
                    "chain" => Verify::Chain,
                    "none" => Verify::Nothing,
                    _ => return Err(Error::config("verify is neither full, chain nor none")),
                }
            }
            ("sslrootcert" | "verify", None) => {
                return Err(Error::config(format!("{key} is for rediss:// URLs alone")));
            }
            _ => return Err(Error::config(format!("the parameter {key:?} is not known"))),
        }
        Ok(())
    }
}

fn unknown_scheme() -> Error {
    Error::config("the URL must begin with redis://, rediss://, unix:/// or redis+unix:///")
}

fn tcp(rest: &str, tls: Option<(Verify, Roots)>) -> Result<Config> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login_of(login)?;
    let (host, port) = split_address(address)?;
    let host = if host.is_empty() { "127.0.0.1".to_owned() } else { decode(host)? };
    let database = if path.is_empty() { 0 } else { database(path)? };
    Ok(Config { host: Host::Tcp(host, port), user, password, database, tls })
}

fn unix(rest: &str) -> Result<Config> {
    let (login, path) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (user, password) = login_of(login)?;
    if !path.starts_with('/') {
        return Err(Error::config("the path of a unix socket must begin with / (three slashes in all)"));
    }
    Ok(Config { host: Host::Unix(decode(path)?.into()), user, password, database: 0, tls: None })
}

/// `user:password`, `:password`, or nothing.
fn login_of(login: &str) -> Result<(Option<String>, Option<String>)> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let some = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
    Ok((some(user)?, some(password)?))
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn split_address(address: &str) -> Result<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| Error::config("the address has no closing ]"))?;
            (host, after.strip_prefix(':').unwrap_or(after))
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    match port {
        "" => Ok((host, DEFAULT_PORT)),
        // The text is not repeated: with an unescaped : or / in a password, a part of it lands here.
        port => match port.parse() {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(Error::config("the port is not a number from 1 to 65535 (escape :, / and @ in a password by %)")),
        },
    }
}

fn database(text: &str) -> Result<u16> {
    text.parse().map_err(|_| Error::config("the database is not a small number"))
}

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::config("a part of the URL is not UTF-8 once decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Config {
        Config { host: Host::Tcp("cache".into(), 6379), user: None, password: None, database: 0, tls: None }
    }

    #[test]
    fn urls_are_read() {
        let some = |text: &str| Some(text.to_owned());
        let unix = Config { host: Host::Unix("/run/r.sock".into()), ..base() };
        let tls = |verify, roots| Config { tls: Some((verify, roots)), ..base() };
        for (text, expect) in [
            ("redis://cache", base()),
            (" redis://cache:6379/0 ", base()),
            ("redis://cache/?db=3", Config { database: 3, ..base() }),
            ("redis://:s%40fe@cache/2", Config { password: some("s@fe"), database: 2, ..base() }),
            ("redis://ann:p@ss@cache", Config { user: some("ann"), password: some("p@ss"), ..base() }),
            ("redis://[::1]:7000", Config { host: Host::Tcp("::1".into(), 7000), ..base() }),
            ("redis://", Config { host: Host::Tcp("127.0.0.1".into(), 6379), ..base() }),
            ("rediss://cache", tls(Verify::Full, Roots::System)),
            ("rediss://cache?verify=chain&sslrootcert=/ca.pem", tls(Verify::Chain, Roots::File("/ca.pem".into()))),
            ("unix:///run/r.sock", unix.clone()),
            ("redis+unix:///run/r.sock?db=4&pass=x", Config { database: 4, password: some("x"), ..unix.clone() }),
            ("unix://ann:x@/run/r.sock", Config { user: some("ann"), password: some("x"), ..unix }),
        ] {
            assert_eq!(text.parse(), Ok(expect), "{text}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong_and_never_the_password() {
        for (text, says) in [
            ("", "must begin with"),
            ("cache:6379", "must begin with"),
            ("http://cache", "must begin with"),
            ("redis://cache:0", "port"),
            ("redis://ann:hunter2/x@cache", "port"),
            ("redis://cache/x", "database"),
            ("redis://[::1", "closing ]"),
            ("redis://cache?db", "no ="),
            ("redis://cache?tls=1", "\"tls\""),
            ("redis://cache?verify=none", "rediss://"),
            ("rediss://cache?verify=maybe", "verify"),
            ("unix://run/r.sock", "three slashes"),
            ("redis://:%ff@cache", "UTF-8"),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error} does not say {says:?}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let config: Config = "redis://ann:hunter2@cache".parse().unwrap();
        assert!(!format!("{config} {config:?}").contains("hunter2"));
    }
}
