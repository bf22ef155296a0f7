//! The published server for the runtime, with the same fixed answer.

use std::io;

use may_minihttp::{HttpServer, HttpService, Request, Response};
use snip::runtime;

#[derive(Clone)]
struct Fixed;

impl HttpService for Fixed {
    fn call(&mut self, _request: Request, response: &mut Response) -> io::Result<()> {
        response.status_code(302, "Found");
        response.header("X-Cache: HIT");
        response.header("Location: https://www.example.com/a/page/that/is/linked?from=here");
        Ok(())
    }
}

pub fn serve(address: &str) {
    runtime::init();
    let server = HttpServer(Fixed).start(address).expect("a free address");
    server.join().expect("the server");
}
