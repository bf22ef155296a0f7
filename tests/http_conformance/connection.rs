//! The connection: what stays open, pipelines, half-close, expectations, HTTP/1.0.

use super::{Case, SMUGGLED, URL, case};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

fn with(section: &'static str, expect: &'static str, version: &str, fields: &str) -> Case {
    case(section, expect, format!("GET /livez {version}\r\n{fields}\r\n"))
}

fn half(section: &'static str, expect: &'static str, input: impl AsRef<[u8]>) -> Case {
    Case { half_close: true, ..case(section, expect, input) }
}

fn post(fields: &str) -> String {
    let (start, length) = ("POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json", URL.len());
    format!("{start}\r\n{fields}Content-Length: {length}\r\n\r\n{URL}")
}

pub fn cases() -> Vec<Case> {
    let good = post("");
    let head = "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    vec![
        // Persistence
        with("9112 9.3", "200 open", "HTTP/1.1", "Host: x\r\n"),
        with("9112 9.3", "200 open", "HTTP/1.1", "Host: x\r\nConnection: keep-alive\r\n"),
        with("9112 9.3", "200 open", "HTTP/1.1", "Host: x\r\nConnection:\r\n"),
        with("9112 9.3", "200 open", "HTTP/1.1", "Host: x\r\nConnection: closed\r\n"),
        with("9112 9.3", "200 open", "HTTP/1.1", "Host: x\r\nProxy-Connection: close\r\n"),
        with("9112 9.6", "200 closed", "HTTP/1.1", "Host: x\r\nConnection: close\r\n"),
        with("9112 9.6", "200 closed", "HTTP/1.1", "Host: x\r\nconnection:CLOSE\r\n"),
        with("9110 7.6.1", "200 closed", "HTTP/1.1", "Host: x\r\nConnection: a, close ,b\r\n"),
        with("9110 7.6.1", "200 closed", "HTTP/1.1", "Host: x\r\nConnection: ,,close\r\n"),
        with("9110 7.6.1", "200 closed", "HTTP/1.1", "Host: x\r\nConnection: keep-alive\r\nConnection: close\r\n"),
        with("9112 9.3", "200 closed", "HTTP/1.0", ""),
        with("9112 9.3", "200 closed", "HTTP/1.0", "Connection: close\r\n"),
        with("9112 9.3", "200 open", "HTTP/1.0", "Connection: keep-alive\r\n"),
        with("9112 9.3", "200 closed", "HTTP/1.0", "Connection: keep-alive, close\r\n"),
        with(
            "9110 7.8",
            "200 open",
            "HTTP/1.1",
            "Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        with("9110 7.8", "200 open", "HTTP/1.1", "Host: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
        case(
            "9112 9.6",
            "200 closed",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{SMUGGLED}"),
        ),
        case("9112 9.3", "200 closed", format!("GET /livez HTTP/1.0\r\n\r\n{SMUGGLED}")),
        // Pipelines
        case("9112 9.3.2", "200 200 open", LIVEZ.repeat(2)),
        case("9112 9.3.2", "200 200 200 200 200 200 200 200 open", LIVEZ.repeat(8)),
        case(
            "9112 9.3.2",
            "200 404 405 open",
            format!("{LIVEZ}GET /no/such HTTP/1.1\r\nHost: x\r\n\r\nPUT /urls HTTP/1.1\r\nHost: x\r\n\r\n"),
        ),
        case("9112 9.3.2", "201 200 201 open", format!("{good}{LIVEZ}{good}")),
        case("9112 2.2", "201 200 open", format!("{good}\r\n{LIVEZ}")),
        case("9112 2.2", "201 400 closed", format!("{good}\n{LIVEZ}")),
        case("9112 9.3.2", "200 200 400 closed", format!("{LIVEZ}{LIVEZ}GARBAGE\r\n\r\n{SMUGGLED}")),
        case("9112 9.3.2", "201 400 closed", format!("{good}GET /livez HTTP/1.1\r\n\r\n{SMUGGLED}")),
        case("9112 9.3.2", "200 505 closed", format!("{LIVEZ}GET /livez HTTP/9.9\r\nHost: x\r\n\r\n{SMUGGLED}")),
        case(
            "9112 9.3.2",
            "200 413 closed",
            format!("{LIVEZ}POST /urls HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{SMUGGLED}"),
        ),
        // One byte too few or too many in a length shifts the next request.
        case("9112 6.3", "201 400 closed", format!("{good}}}{LIVEZ}")),
        // HEAD: a length, no body; the next answer follows at once.
        case("9110 9.3.2", "H200 200 open", format!("{head}{LIVEZ}")),
        case("9110 9.3.2", "H200 H200 200 open", format!("{head}{head}{LIVEZ}")),
        case("9110 9.3.2", "H404 200 open", format!("HEAD /no/such HTTP/1.1\r\nHost: x\r\n\r\n{LIVEZ}")),
        case("9110 9.3.2", "H200 closed", "HEAD /livez HTTP/1.0\r\n\r\n"),
        case("9110 15.3.5", "404 200 open", format!("DELETE /urls/9999 HTTP/1.1\r\nHost: x\r\n\r\n{LIVEZ}")),
        // Half-close
        half("9112 9.6", "200 closed", LIVEZ),
        half("9112 9.6", "200 200 closed", LIVEZ.repeat(2)),
        half("9112 9.6", "201 closed", &good),
        half("9112 8", "closed", "GET /livez HTTP/1.1\r\nHost"),
        half("9112 8", "closed", &good[..good.len() - 1]),
        half("9112 8", "200 closed", format!("{LIVEZ}GET")),
        half("9112 8", "closed", "POST /urls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
        half("9112 8", "closed", "\r\n"),
        // Expectations
        case("9110 10.1.1", "C201 open", post("Expect: 100-continue\r\n")),
        case("9110 10.1.1", "C201 open", post("Expect: 100-CONTINUE\r\n")),
        case("9110 10.1.1", "200 open", "GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"),
        case("9110 10.1.1", "417 closed", post("Expect: 200-ok\r\n")),
        case("9110 10.1.1", "417 closed", post("Expect: 100-continue, x\r\n")),
        case("9110 10.1.1", "417 closed", post("Expect:\r\n")),
        case(
            "9110 10.1.1",
            "413 closed",
            "POST /urls HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n",
        ),
        case("9110 10.1.1", "201 closed", post("Expect: 100-continue\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        // HTTP/1.0
        case("9112 6.3", "201 closed", good.replace("HTTP/1.1", "HTTP/1.0")),
        case("9112 9.3", "201 open", post("Connection: keep-alive\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        case(
            "9112 9.3",
            "200 200 closed",
            "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /livez HTTP/1.0\r\n\r\n",
        ),
        // Bodies that nobody reads
        case(
            "9112 9.3",
            "404 200 open",
            format!(
                "POST /nothing/here HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{LIVEZ}",
                SMUGGLED.len()
            ),
        ),
        case(
            "9112 9.3",
            "405 200 open",
            format!("PUT /livez HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{LIVEZ}", SMUGGLED.len()),
        ),
        case(
            "9112 9.3",
            "400 200 open",
            format!(
                "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{LIVEZ}",
                SMUGGLED.len()
            ),
        ),
        case(
            "9112 9.3",
            "404 200 open",
            format!(
                "DELETE /urls/9999 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n{LIVEZ}",
                SMUGGLED.len()
            ),
        ),
    ]
}
