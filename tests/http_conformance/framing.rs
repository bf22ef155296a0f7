//! Where a body ends, and what to do when that can be read in two ways: refuse, and believe nothing behind it.

use super::{Case, SMUGGLED, URL, case};

/// A POST with these fields, a body that two servers might end at different places, and a request hidden in it.
fn ambiguous(section: &'static str, expect: &'static str, fields: impl AsRef<[u8]>) -> Case {
    let start = b"POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    case(section, expect, [start, fields.as_ref(), b"\r\n0\r\n\r\n", SMUGGLED.as_bytes()].concat())
}

/// A good POST with these fields about its body.
fn post(section: &'static str, fields: &str, body: &str) -> Case {
    let start = "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
    case(section, "201 open", format!("{start}\r\n{fields}\r\n\r\n{body}"))
}

pub fn cases() -> Vec<Case> {
    let (length, chunked) = (URL.len(), format!("{:x}\r\n{URL}\r\n0\r\n\r\n", URL.len()));
    let mut cases = vec![
        // Good ones
        post("9112 6.2", &format!("Content-Length: {length}"), URL),
        post("9112 6.2", &format!("content-length:{length}"), URL),
        post("9112 6.2", &format!("Content-Length: \t{length} \t"), URL),
        post("9110 8.6", &format!("Content-Length: 000{length}"), URL),
        post("9112 7.1", "Transfer-Encoding: chunked", &chunked),
        post("9112 6.1", "transfer-encoding:CHUNKED", &chunked),
        post("9112 6.1", "Transfer-Encoding: \tchunked\t ", &chunked),
        // Names that only look like those
        post("9112 6.3", &format!("Transfer_Encoding: chunked\r\nContent-Length: {length}"), URL),
        post("9112 6.3", &format!("X-Transfer-Encoding: chunked\r\nContent-Length: {length}"), URL),
        post("9112 6.3", &format!("Content_Length: 3\r\nContent-Length: {length}"), URL),
        post("9112 6.3", "Content-Lengt: 3\r\nTransfer-Encoding: chunked", &chunked),
        post("9110 7.6.1", &format!("Connection: content-length\r\nContent-Length: {length}"), URL),
        // No body
        case("9112 6.3", "400 open", "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"),
        case("9112 6.3", "400 open", "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        case("9112 6.3", "200 open", "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        case("9110 9.3.1", "200 open", "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /"),
        case(
            "9110 9.3.1",
            "200 open",
            "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        case("9110 9.3.2", "H200 open", "HEAD /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        case("9110 9.3.5", "404 open", "DELETE /urls/99 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        // A body that is a request is a body.
        case(
            "9112 6.3",
            "200 open",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        ),
        case(
            "9112 6.3",
            "404 open",
            format!("GET /no/such HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        ),
        case(
            "9112 7.1",
            "405 open",
            format!(
                "PATCH /urls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                SMUGGLED.len()
            ),
        ),
        case("9110 15.5.14", "413 closed", "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"),
    ];
    // Lengths that are none
    let lengths = [
        "",
        "+5",
        "-5",
        "-0",
        "5 6",
        "5,",
        ",5",
        "5, 5",
        "5, 6",
        "5;",
        "5.0",
        "5a",
        "0x5",
        "0X5",
        "5e0",
        "1_0",
        "\"5\"",
        "'5'",
        "five",
        "\u{665}",
        "\u{ff15}",
        "\x0b5",
        "5\x0b",
        "5\0",
        "5\r6",
        "18446744073709551616",
        "99999999999999999999999",
    ];
    cases.extend(lengths.map(|length| ambiguous("9112 6.3", "400 closed", format!("Content-Length: {length}\r\n"))));
    // Lengths that no body has, though they are numbers
    for length in ["9223372036854775807", "18446744073709551615", "4294967296"] {
        cases.push(ambiguous("9110 8.6", "400|413 closed", format!("Content-Length: {length}\r\n")));
    }
    // Two lengths
    for (first, second) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("5", ""), ("", "5"), ("5", "x")] {
        let fields = format!("Content-Length: {first}\r\nContent-Length: {second}\r\n");
        cases.push(ambiguous("9112 6.3", "400 closed", fields));
    }
    cases.extend([
        ambiguous("9112 6.3", "400 closed", "Content-Length: 5\r\ncontent-LENGTH: 5\r\n"),
        ambiguous("9112 6.3", "400 closed", "Content-Length: 5\r\nA: b\r\nContent-Length: 5\r\n"),
        ambiguous("9112 5.1", "400 closed", "Content-Length : 5\r\n"),
        ambiguous("9112 5.1", "400 closed", "Content-Length\t: 5\r\n"),
        ambiguous("9112 5.2", "400 closed", "Content-Length:\r\n 5\r\n"),
        ambiguous("9112 5.2", "400 closed", "A: b\r\n Content-Length: 5\r\n"),
        ambiguous("9112 2.2", "400 closed", "A: b\nContent-Length: 5\r\n"),
        ambiguous("9112 2.2", "400 closed", "A: b\rContent-Length: 5\r\n"),
        // A length and a coding
        ambiguous("9112 6.3", "400 closed", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ambiguous("9112 6.3", "400 closed", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ambiguous("9112 6.3", "400 closed", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ambiguous("9112 6.3", "400|501 closed", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
        ambiguous("9112 6.3", "400|501 closed", "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"),
        ambiguous("9112 6.3", "400|501 closed", "Content-Length: 5\r\nTransfer-Encoding:\r\n"),
        // HTTP/1.0 has no codings.
        case(
            "9112 6.1",
            "400 closed",
            format!("POST /urls HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        case(
            "9112 6.1",
            "400 closed",
            format!(
                "POST /urls HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
        ),
    ]);
    // Codings that are not one `chunked`
    let codings = [
        "",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked,,",
        "chunkedchunked",
        "chunke",
        "xchunked",
        "chunkedx",
        "chunked, gzip",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip, chunked",
        "gzip",
        "deflate",
        "compress, chunked",
        "x chunked",
        "chunked x",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked; a=b",
        "chunked;",
        "\x0bchunked",
        "chunked\x0b",
        "\x0cchunked",
        "chunked\0",
        "\0chunked",
        "ch\0unked",
        "\u{a0}chunked",
        "chun\u{212a}ed",
        "chunked\r",
        "\rchunked",
        "chunked\u{1}",
        "=chunked",
        "{chunked}",
        "ch unked",
    ];
    for coding in codings {
        cases.push(ambiguous("9112 6.1", "400|501 closed", format!("Transfer-Encoding: {coding}\r\n")));
    }
    let fields: [&[u8]; 13] = [
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b"Transfer-Encoding\x0b: chunked\r\n",
        b"Transfer-Encoding\0: chunked\r\n",
        b"Transfer-Encoding\xa0: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding:\r\n\tchunked\r\n",
        b"A: b\nTransfer-Encoding: chunked\r\n",
        b"A: b\rTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n b\r\n",
        b"Transfer Encoding: chunked\r\n",
        b"Transfer-Encoding chunked\r\n",
    ];
    cases.extend(fields.map(|field| ambiguous("9112 5.1", "400 closed", field)));
    for (first, second) in
        [("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("gzip", "chunked")]
    {
        let fields = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n");
        cases.push(ambiguous("9112 6.1", "400|501 closed", fields));
    }
    cases
}
