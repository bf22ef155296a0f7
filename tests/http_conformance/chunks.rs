//! The chunked coding: sizes, extensions, ends of lines, trailers.

use super::{Case, SMUGGLED, URL, case};

const HEAD: &str =
    "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn good(section: &'static str, chunks: impl AsRef<str>) -> Case {
    case(section, "201 open", format!("{HEAD}{}", chunks.as_ref()))
}

/// Refused, and what follows is not carried out.
fn bad(section: &'static str, chunks: impl AsRef<[u8]>) -> Case {
    case(section, "400 closed", [HEAD.as_bytes(), chunks.as_ref(), SMUGGLED.as_bytes()].concat())
}

pub fn cases() -> Vec<Case> {
    let size = URL.len();
    let single: String = URL.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let last = "0\r\n\r\n";
    let mut cases = vec![
        good("9112 7.1", format!("{size:x}\r\n{URL}\r\n{last}")),
        good("9112 7.1", format!("{size:X}\r\n{URL}\r\n{last}")),
        good("9112 7.1", format!("0000000000{size:x}\r\n{URL}\r\n00000\r\n\r\n")),
        good("9112 7.1", format!("{single}{last}")),
        // Extensions
        good("9112 7.1.1", format!("{size:x};a\r\n{URL}\r\n{last}")),
        good("9112 7.1.1", format!("{size:x};a=b;c=\"d;e\"\r\n{URL}\r\n0;f\r\n\r\n")),
        good("9112 7.1.1", format!("{size:x} ; a = b\r\n{URL}\r\n{last}")),
        // Trailers
        good("9112 7.1.2", format!("{size:x}\r\n{URL}\r\n0\r\nA: b\r\n\r\n")),
        good("9112 7.1.2", format!("{size:x}\r\n{URL}\r\n0\r\nA: b\r\nC:\r\n\r\n")),
        good("9112 7.1.2", format!("{size:x}\r\n{URL}\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\n\r\n")),
        good("9112 7.1.2", format!("{size:x}\r\n{URL}\r\n0\r\nHost: y\r\nConnection: close\r\n\r\n")),
        // An empty body
        case("9112 7.1", "400 open", format!("{HEAD}{last}")),
        case(
            "9112 7.1",
            "200 open",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{last}"),
        ),
        case("9110 15.5.14", "413 closed", format!("{HEAD}fffffff\r\n")),
        case("9110 15.5.14", "413 closed", format!("{HEAD}7fffffffffffffff\r\n")),
        case("9110 15.5.14", "413 closed", format!("{HEAD}ffffffffffffffff\r\n")),
        bad("9112 7.1", format!("5;{}\r\n", "x".repeat(100_000))),
        bad("9112 7.1", "0".repeat(100_000)),
        bad("9112 7.1.2", format!("0\r\nA: {}\r\n\r\n", "x".repeat(100_000))),
        bad("9112 7.1.2", format!("0\r\n{}\r\n", "A: b\r\n".repeat(1000))),
    ];
    let sizes: [&[u8]; 29] = [
        b"\r\n",
        b" \r\n",
        b"x\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"0X1\r\n",
        b"#1\r\n",
        b"1_0\r\n",
        b"1.0\r\n",
        b"1h\r\n",
        b" 1\r\n",
        b"\t1\r\n",
        b"1 \r\n",
        b"1\t\r\n",
        b"1 1\r\n",
        b"1\0\r\n",
        b"\x001\r\n",
        b"1\x0b\r\n",
        b"\xd9\xa1\r\n",
        b"1,1\r\n",
        b"10000000000000000\r\n",
        b"fffffffffffffffff\r\n",
        b"-0\r\n",
        b"1:\r\n",
        b"\"1\"\r\n",
        b"\r\n1\r\n",
        b"1=\r\n",
    ];
    cases.extend(sizes.map(|line| bad("9112 7.1", [line, b"{\r\n0\r\n\r\n"].concat())));
    // Ends of lines, and data that is longer or shorter than its size
    for chunks in [
        "1\n{\r\n0\r\n\r\n",
        "1\r{\r\n0\r\n\r\n",
        "1\r\r\n{\r\n0\r\n\r\n",
        "1\r\n{\n0\r\n\r\n",
        "1\r\n{\r0\r\n\r\n",
        "1\r\n{0\r\n\r\n",
        "1\r\n{x\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "3\r\n{}\r\n0\r\n\r\n",
        "1\r\n\r\n0\r\n\r\n",
        "1\r\n{\r\n0\n\r\n",
        "1\r\n{\r\n0\r\n\n",
        "1\r\n{\r\n0\r\n\rx",
        "1\r\n{\r\n\r\n0\r\n\r\n",
        "1\r\n{ \r\n0\r\n\r\n",
        "0\r\rx",
        "0\n\n",
    ] {
        cases.push(bad("9112 7.1", chunks));
    }
    for extension in
        [";", "; ", " ;", ";;a", ";=b", ";a\nb", ";a\rb", ";a\0", ";a=\"\n\"", ";\u{1}", ";a\x7f", ";\u{e9}", ";(a)"]
    {
        cases.push(bad("9112 7.1.1", format!("1{extension}\r\n{{\r\n0\r\n\r\n")));
    }
    for trailer in [
        "A\r\n",
        "A b\r\n",
        ": b\r\n",
        "A : b\r\n",
        " A: b\r\n",
        "A: b\r\n c\r\n",
        "A: b\n",
        "A: \0\r\n",
        "A: b\rc\r\n",
        "\n",
        "A(: b\r\n",
        "GET /livez HTTP/1.1\r\n",
    ] {
        cases.push(bad("9112 7.1.2", format!("0\r\n{trailer}\r\n")));
    }
    cases
}
