//! Who the client is: the peer itself, or whom a trusted proxy names.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::http::Request;

/// The peers whose word on the client's address is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Default for TrustedProxies {
    /// Loopback and unix sockets: proxies on the same machine.
    fn default() -> Self {
        let loopback = [IpNet::from(IpAddr::from([127, 0, 0, 0])), IpNet::from(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))];
        let networks = vec![IpNet::new(loopback[0].addr(), 8).unwrap_or(loopback[0]), loopback[1]];
        Self { networks, unix: true }
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// A comma-separated list of addresses, networks (`10.0.0.0/8`), `loopback` and `unix`; empty trusts nobody.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut trusted = Self { networks: Vec::new(), unix: false };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item {
                "unix" => trusted.unix = true,
                "loopback" => trusted.networks.extend(Self::default().networks),
                _ => {
                    let network = item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
                    let reason = "is neither an address, a network such as 10.0.0.0/8, 'loopback' nor 'unix'";
                    trusted.networks.push(network.map_err(|_| format!("'{item}' {reason}"))?);
                }
            }
        }
        Ok(trusted)
    }
}

impl TrustedProxies {
    /// The client's address; `None` when it came over a unix socket and no proxy named one.
    ///
    /// `X-Forwarded-For` is walked from the right, where the nearest proxy added its peer, to the first address that is
    /// not a trusted proxy's: what stands further left is the client's own claim. `X-Real-IP` counts without it.
    pub fn client(&self, request: &Request<'_>) -> Option<IpAddr> {
        let peer = request.peer.map(|peer| canonical(peer.ip()));
        if !self.trusts(request.peer) {
            return peer;
        }
        let forwarded = request.head.x_forwarded_for.and_then(|list| self.walk(list));
        forwarded.or_else(|| request.head.x_real_ip.and_then(address)).or(peer)
    }

    /// Whether the peer's word is taken; `None` is a unix socket.
    pub fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.contains(canonical(peer.ip())))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    fn walk(&self, list: &[u8]) -> Option<IpAddr> {
        let mut nearest = None;
        for item in list.rsplit(|&b| b == b',') {
            // Nonsense in the list: what stands left of it can't be trusted.
            let Some(ip) = address(item) else { return nearest };
            nearest = Some(ip);
            if !self.contains(ip) {
                break;
            }
        }
        nearest
    }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let ip = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    let ip = ip.or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    ip.ok().map(canonical)
}

/// An IPv4 client of a socket that listens on both is shown as IPv4.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Parsed, parse};

    fn check(trusted: &str, peer: Option<&str>, headers: &str, expect: Option<&str>) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let Ok(Parsed::Complete(head)) = parse(bytes.as_bytes()) else { panic!("{headers}") };
        let peer = peer.map(|peer| SocketAddr::new(peer.parse().unwrap(), 1234));
        let trusted: TrustedProxies =
            if trusted == "default" { TrustedProxies::default() } else { trusted.parse().unwrap() };
        let client = trusted.client(&Request { head: &head, body: b"", peer });
        assert_eq!(client, expect.map(|ip| ip.parse().unwrap()), "{peer:?} {headers}");
    }

    #[test]
    fn trusted_peers_are_believed_and_others_are_not() {
        let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
        check("default", Some("127.0.0.1"), "", Some("127.0.0.1"));
        check("default", Some("127.0.0.1"), forwarded, Some("203.0.113.9"));
        check("default", Some("::1"), forwarded, Some("203.0.113.9"));
        check("default", Some("::ffff:127.0.0.1"), forwarded, Some("203.0.113.9"));
        check("default", Some("198.51.100.7"), forwarded, Some("198.51.100.7"));
        check("default", None, forwarded, Some("203.0.113.9"));
        check("default", None, "", None);
        check("", Some("127.0.0.1"), forwarded, Some("127.0.0.1"));
        check("", None, forwarded, None);
        check("default", Some("127.0.0.1"), "X-Real-IP: 203.0.113.5\r\n", Some("203.0.113.5"));
    }

    #[test]
    fn the_list_is_walked_from_the_right() {
        let check = |list: &str, expect: &str| {
            let headers = format!("X-Forwarded-For: {list}\r\n");
            check("loopback, 10.0.0.0/8", Some("127.0.0.1"), &headers, Some(expect));
        };
        check("1.1.1.1, 203.0.113.9", "203.0.113.9");
        check("1.1.1.1, 203.0.113.9, 10.1.2.3", "203.0.113.9");
        check("203.0.113.9:5555", "203.0.113.9");
        check("[2001:db8::1]:443", "2001:db8::1");
        check("2001:db8::1", "2001:db8::1");
        check("10.0.0.1, 10.0.0.2", "10.0.0.1");
        check("unknown", "127.0.0.1");
        check("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!("10.0.0.0/99".parse::<TrustedProxies>().is_err());
        assert!("somewhere".parse::<TrustedProxies>().is_err());
    }
}
