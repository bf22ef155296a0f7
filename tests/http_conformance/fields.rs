//! Header fields: names, values, ends of lines, number and size, and Host.

use super::{Case, case};

/// A request with a Host and this behind it.
fn with(section: &'static str, expect: &'static str, field: impl AsRef<[u8]>) -> Case {
    case(section, expect, [b"GET /livez HTTP/1.1\r\nHost: x\r\n", field.as_ref(), b"\r\n"].concat())
}

/// A request with these as its only fields.
fn only(section: &'static str, expect: &'static str, fields: impl AsRef<[u8]>) -> Case {
    case(section, expect, [b"GET /livez HTTP/1.1\r\n", fields.as_ref(), b"\r\n"].concat())
}

/// A head of so many bytes.
fn head_of(bytes: usize) -> Vec<u8> {
    let (start, end) = ("GET /livez HTTP/1.1\r\nHost: x\r\nA: ", "\r\n\r\n");
    format!("{start}{}{end}", "b".repeat(bytes - start.len() - end.len())).into_bytes()
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        // Names
        with("9112 5", "200 open", "A: b\r\n"),
        with("9110 5.1", "200 open", "a-B_c.1!#$%&'*+^`|~: b\r\n"),
        with("9112 5.1", "400 closed", "A : b\r\n"),
        with("9112 5.1", "400 closed", "A\t: b\r\n"),
        with("9112 5.1", "400 closed", "A B: b\r\n"),
        with("9110 5.1", "400 closed", ": b\r\n"),
        with("9110 5.1", "400 closed", ":\r\n"),
        with("9112 5", "400 closed", "A\r\n"),
        with("9112 5", "400 closed", "A b\r\n"),
        with("9110 5.1", "400 closed", "A(: b\r\n"),
        with("9110 5.1", "400 closed", "A,B: b\r\n"),
        with("9110 5.1", "400 closed", "A;: b\r\n"),
        with("9110 5.1", "400 closed", "[A]: b\r\n"),
        with("9110 5.1", "400 closed", "{A}: b\r\n"),
        with("9110 5.1", "400 closed", "\"A\": b\r\n"),
        with("9110 5.1", "400 closed", "A@: b\r\n"),
        with("9110 5.1", "400 closed", "A/B: b\r\n"),
        with("9110 5.1", "400 closed", "A\\: b\r\n"),
        with("9110 5.1", "400 closed", "A\0: b\r\n"),
        with("9110 5.1", "400 closed", "A\x7f: b\r\n"),
        with("9110 5.1", "400 closed", "\u{c4}: b\r\n"),
        with("9110 5.1", "400 closed", b"\xff: b\r\n"),
        // Values
        with("9110 5.5", "200 open", "A:\r\n"),
        with("9110 5.5", "200 open", "A:b\r\n"),
        with("9112 5.1", "200 open", "A: \t b \t \r\n"),
        with("9110 5.5", "200 open", "A: b: c, d; e=\"f\"\r\n"),
        with("9110 5.5", "200 open", "A: b\tc\r\n"),
        with("9110 5.5", "200 open", b"A: \x80\xff\r\n"),
        with("9110 5.5", "200 open", "A: b\r\na: b\r\nA: c\r\n"),
        with("9110 5.5", "400 closed", "A: b\0c\r\n"),
        with("9110 5.5", "400 closed", "A: \0\r\n"),
        with("9110 5.5", "400 closed", "A: b\rc\r\n"),
        with("9110 5.5", "400 closed", "A: b\r\r\n"),
        with("9110 5.5", "400 closed", "A: \x01\r\n"),
        with("9110 5.5", "400 closed", "A: b\x08\r\n"),
        with("9110 5.5", "400 closed", "A: b\x0bc\r\n"),
        with("9110 5.5", "400 closed", "A: \x1b[0m\r\n"),
        with("9110 5.5", "400 closed", "A: b\x7f\r\n"),
        // Folded lines
        with("9112 5.2", "400 closed", "A: b\r\n c\r\n"),
        with("9112 5.2", "400 closed", "A: b\r\n\tc\r\n"),
        with("9112 5.2", "400 closed", "A:\r\n b\r\n"),
        with("9112 5.2", "400 closed", "A: b\r\n \r\n"),
        only("9112 2.2", "400 closed", " Host: x\r\n"),
        only("9112 2.2", "400 closed", "\tHost: x\r\n"),
        only("9112 2.2", "400 closed", " \r\nHost: x\r\n"),
        // Ends of lines
        with("9112 2.2", "400 closed", "A: b\nC: d\r\n"),
        with("9112 2.2", "400 closed", "A: b\n"),
        with("9112 2.2", "400 closed", "\nA: b\r\n"),
        with("9112 2.2", "400 closed", "A:\nB: c\r\n"),
        case("9112 2.2", "400 closed", "GET /livez HTTP/1.1\r\nHost: x\n\r\n"),
        case("9112 2.2", "400 closed", "GET /livez HTTP/1.1\r\nHost: x\r\n\n"),
        case("9112 2.2", "400 closed", "GET /livez HTTP/1.1\r\nHost: x\r\n\rA: b\r\n\r\n"),
        // Number and size
        with("6585 5", "200 open", "A: b\r\n".repeat(63)),
        with("6585 5", "431 closed", "A: b\r\n".repeat(64)),
        with("6585 5", "431 closed", "A: b\r\n".repeat(2000)),
        case("6585 5", "200 open", head_of(4095)),
        case("6585 5", "200 open", head_of(4096)),
        case("6585 5", "200 open", head_of(4097)),
        case("6585 5", "200 open", head_of(16_000)),
        case("6585 5", "431 closed", head_of(17_000)),
        case("6585 5", "431 closed", head_of(60_000)),
        with("6585 5", "431 closed", format!("{}: b\r\n", "A".repeat(40_000))),
        case("6585 5", "431 closed", format!("GET /livez HTTP/1.1\r\nHost: x\r\nA: {}", "b".repeat(40_000))),
        case("9110 15.6.6", "431 closed", "\r\n".repeat(20_000)),
    ];
    cases.extend([
        // Host
        only("9112 3.2", "200 open", "hOST: x\r\n"),
        only("9112 3.2", "200 open", "Host:x\r\n"),
        only("9112 3.2", "200 open", "Host:\r\n"),
        only("9110 7.2", "200 open", "Host: x:80\r\n"),
        only("9110 7.2", "200 open", "Host: x:\r\n"),
        only("9110 7.2", "200 open", "Host: 192.0.2.1:8080\r\n"),
        only("9110 7.2", "200 open", "Host: [::1]\r\n"),
        only("9110 7.2", "200 open", "Host: [2001:db8::1]:8080\r\n"),
        only("9110 7.2", "200 open", "Host: a_b-c.example.\r\n"),
        only("9110 7.2", "200 open", "A: b\r\nHost: x\r\n"),
        only("9112 3.2", "400 closed", ""),
        only("9112 3.2", "400 closed", "A: b\r\n"),
        only("9112 3.2", "400 closed", "Hos: x\r\n"),
        only("9112 3.2", "400 closed", "Host: x\r\nHost: x\r\n"),
        only("9112 3.2", "400 closed", "Host: x\r\nhost: y\r\n"),
        only("9112 3.2", "400 closed", "Host:\r\nHost: x\r\n"),
        only("9112 3.2", "400 closed", "Host: x\r\nA: b\r\nHOST: x\r\n"),
        only("9112 3.2", "400 closed", "Host: x, y\r\n"),
        only("9112 3.2", "400 closed", "Host: x,y\r\n"),
        only("9112 3.2", "400 closed", "Host: x y\r\n"),
        only("9112 3.2", "400 closed", "Host: x\ty\r\n"),
        only("9112 3.2", "400 closed", "Host: http://x\r\n"),
        only("9112 3.2", "400 closed", "Host: x/y\r\n"),
        only("9112 3.2", "400 closed", "Host: x?y\r\n"),
        only("9112 3.2", "400 closed", "Host: x#y\r\n"),
        only("9112 3.2", "400 closed", "Host: u@x\r\n"),
        only("9112 3.2", "400 closed", "Host: x\\y\r\n"),
        only("9112 3.2", "400 closed", "Host: \"x\"\r\n"),
        only("9112 3.2", "400 closed", "Host: <x>\r\n"),
        only("9112 3.2", "400 closed", "Host: x:port\r\n"),
        only("9112 3.2", "400 closed", "Host: x:-1\r\n"),
        only("9112 3.2", "400 closed", "Host: x:80:80\r\n"),
        only("9112 3.2", "400 closed", "Host: x:999999\r\n"),
        only("9112 3.2", "400 closed", "Host: :80\r\n"),
        only("9112 3.2", "400 closed", "Host: ::1\r\n"),
        only("9112 3.2", "400 closed", "Host: [::1\r\n"),
        only("9112 3.2", "400 closed", "Host: []\r\n"),
        only("9112 3.2", "400 closed", "Host: [::1]x\r\n"),
        only("9112 3.2", "400 closed", "Host: x]\r\n"),
        only("9112 3.2", "400 closed", "Host: \u{e9}\r\n"),
        only("9112 3.2", "400 closed", "Host: x\0\r\n"),
        only("9112 3.2", "400 closed", "Host : x\r\n"),
        case("9112 3.2.2", "400 closed", "GET http://x/livez HTTP/1.1\r\n\r\n"),
        case("9112 3.2.2", "400 closed", "GET http://x/livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
        case("9112 3.2.2", "200 open", "GET http://x/livez HTTP/1.1\r\nHost: y\r\n\r\n"),
        case("9112 3.2", "200 closed", "GET /livez HTTP/1.0\r\n\r\n"),
        case("9112 3.2", "400 closed", "GET /livez HTTP/1.0\r\nHost: x y\r\n\r\n"),
        case("9112 3.2", "400 closed", "GET /livez HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"),
    ]);
    cases
}
