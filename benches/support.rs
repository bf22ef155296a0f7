//! What the benches share: the API on an embedded store, asked with bytes, and the inputs.

use std::sync::Arc;

use snip::api::{Api, TrustedProxies};
use snip::clicks::{Clicks, Options};
use snip::http::head::{self, Parsed, Request};
use snip::http::response::Connection;
use snip::http::{Response, Service};
use snip::limits::{LINKS_LOCAL_BYTES, SLOW_REQUEST_DEFAULT};
use snip::links::Links;
use snip::model::{Id, NewUrl};
use snip::store::Store;
use snip::store::sqlite::SqliteStore;

/// Where the link of [`REDIRECT`] leads.
pub const TARGET: &str = "https://www.example.com/a/page/that/is/linked?from=here";

/// What Nginx passes on of a browser's request.
pub const REDIRECT: &[u8] = b"GET /bEnch1 HTTP/1.1\r\nHost: snip.example\r\nX-Real-IP: 203.0.113.7\r\n\
    X-Forwarded-For: 203.0.113.7\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/129.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, br\r\n\r\n";

/// A link to be made.
pub const CREATE: &[u8] = b"POST /urls HTTP/1.1\r\nHost: snip.example\r\nContent-Type: application/json\r\n\
    Content-Length: 93\r\n\r\n{\"url\": \"https://www.example.com/a/page/that/is/linked?from=here\", \"title\": \"A page of ours\"}";

/// A page of links.
pub const LIST: &[u8] = b"GET /urls?per_page=25 HTTP/1.1\r\nHost: snip.example\r\n\r\n";

/// The product without its sockets.
pub struct Served {
    api: Api,
    output: Vec<u8>,
    /// Holds the store and the journal; goes last.
    _folder: tempfile::TempDir,
}

impl Served {
    /// An API over an embedded store with 25 links, `bEnch1` among them.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("snip.db")).expect("a store"));
        for number in 1..=25 {
            store.create_url(link(number)).expect("a link");
        }
        let journal = Options::new(&folder.path().join("journal"), "bench");
        let clicks = Clicks::start(Arc::clone(&store) as _, journal).expect("a journal");
        let links = Links::new(Arc::clone(&store), LINKS_LOCAL_BYTES);
        let api = Api::new(store, links, clicks, Arc::default(), TrustedProxies::default(), SLOW_REQUEST_DEFAULT);
        let api = api.expect("a thread");
        Self { api, output: Vec::with_capacity(64 * 1024), _folder: folder }
    }

    /// Answers one whole request, as a connection does once its bytes are there; returns the answer.
    pub fn answer(&mut self, bytes: &[u8]) -> &[u8] {
        let Ok(Parsed::Complete(head)) = head::parse(bytes) else { panic!("a whole request") };
        let body = &bytes[head.bytes..];
        let method = head.method;
        self.output.clear();
        let request = Request { head, body, peer: None };
        self.api.call(&request, &mut Response::new(&mut self.output, method, Connection::Persistent));
        &self.output
    }
}

fn link(number: Id) -> NewUrl {
    let short_code = format!("bEnch{number}");
    NewUrl { user_id: None, short_code, original_url: TARGET.to_owned(), title: None }
}
