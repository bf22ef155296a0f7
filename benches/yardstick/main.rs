//! Yardsticks: servers that answer every request with one fixed 302, to be measured beside the product, and the load that all
//! of them are put under.
//!
//!     yardstick may|epoll|minihttp host:port|unix:/path
//!     yardstick load host:port path connections seconds depth each
//!
//! They parse the head with httparse and look nothing up, count nothing and bound nothing: what they cost is the floor of
//! the runtime (`may`), of the kernel (`epoll`), and of the published server for the runtime (`minihttp`, TCP only).
//! `loadtests/ceiling` builds and drives them; started by hand they serve until they are killed.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a tool: its servers speak to people, its load to loadtests/ceiling"
)]

mod epoll_loop;
mod load;
mod may_loop;
mod minihttp;

use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// What every server answers: the head that the product sends for a cached link, with a date that stands still.
const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\nServer: snip\r\nCache-Control: no-store\r\nX-Cache: HIT\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Location: https://www.example.com/a/page/that/is/linked?from=here\r\nContent-Length: 0\r\n\r\n";
/// Room for requests that arrive together.
const INPUT_BYTES: usize = 16 * 1024;
/// Headers of a request; a load generator sends three.
const HEADERS_MAX: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["may", address] => may_loop::serve(listen(address)),
        ["epoll", address] => epoll_loop::serve(&listen(address)),
        ["minihttp", address] => minihttp::serve(address),
        ["load", to, path, connections, seconds, depth, each] => {
            let number = |text: &str| text.parse().expect("a number");
            let plan = load::Plan {
                to: to.parse().expect("host:port"),
                path: path.to_owned(),
                connections: number(connections),
                seconds: seconds.parse().expect("a number"),
                depth: number(depth),
                each: number(each),
            };
            if let Err(error) = load::run(&plan) {
                eprintln!("yardstick: {error}");
                std::process::exit(1);
            }
        }
        // `cargo bench` runs every bench; this one measures nothing by itself.
        [] => eprintln!("yardstick: run by loadtests/ceiling"),
        _ => {
            eprintln!("usage: yardstick may|epoll|minihttp host:port|unix:/path");
            eprintln!("       yardstick load host:port path connections seconds depth each");
            std::process::exit(2);
        }
    }
}

fn listen(address: &str) -> Socket {
    let (domain, at) = match address.strip_prefix("unix:") {
        Some(path) => {
            let _ = std::fs::remove_file(Path::new(path));
            (Domain::UNIX, SockAddr::unix(path).expect("a path"))
        }
        None => {
            let at: std::net::SocketAddr = address.parse().expect("host:port");
            (Domain::for_address(at), at.into())
        }
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None).expect("a socket");
    if domain != Domain::UNIX {
        socket.set_reuse_address(true).expect("an option");
        socket.set_tcp_nodelay(true).expect("an option");
    }
    socket.bind(&at).expect("a free address");
    socket.listen(4096).expect("a backlog");
    socket
}

/// Appends an answer for each whole request in `input`; returns how many bytes these took.
fn answer_all(input: &[u8], output: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        match httparse::Request::new(&mut headers).parse(&input[taken..]) {
            Ok(httparse::Status::Complete(bytes)) => {
                output.extend_from_slice(ANSWER);
                taken += bytes;
            }
            // A yardstick is driven by a load generator, which sends no nonsense.
            Ok(httparse::Status::Partial) | Err(_) => return taken,
        }
    }
}
