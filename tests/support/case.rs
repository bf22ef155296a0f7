//! The form of the contract tables: one line says what is asked and what is to come back, `Session::check` holds the
//! server to it.
//!
//! Wanted bodies are JSON texts. Keys are compared in their order. `"<time>"` stands for any timestamp in the contract's
//! form, `"<code>"` for any generated short code, `"<any>"` for anything. `{name}` in paths, bodies and wanted texts is
//! replaced by what an earlier line kept under this name.

use std::collections::HashMap;
use std::panic::Location;

use serde_json::Value;

use super::client::{Client, Response};
use super::snip::Snip;

/// What the body of an answer is to be.
enum Want {
    /// This JSON.
    Json(String),
    /// A list of objects with these ids in this order.
    Ids(Vec<i64>),
    /// `{"error": "…"}` with any text.
    AnyError,
    /// Nothing.
    Empty,
    /// Not looked at.
    Anything,
}

/// A line of a table.
pub struct Case {
    at: &'static Location<'static>,
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    status: u16,
    want: Want,
    want_headers: Vec<(&'static str, String)>,
    allow: Option<&'static str>,
    keeps: Vec<(&'static str, &'static str)>,
}

/// A request without a body.
#[track_caller]
pub fn request(method: &'static str, path: impl Into<String>) -> Case {
    Case {
        at: Location::caller(),
        method,
        path: path.into(),
        headers: Vec::new(),
        body: None,
        status: 200,
        want: Want::Anything,
        want_headers: Vec::new(),
        allow: None,
        keeps: Vec::new(),
    }
}

/// GET
#[track_caller]
pub fn get(path: impl Into<String>) -> Case {
    request("GET", path)
}

/// DELETE
#[track_caller]
pub fn delete(path: impl Into<String>) -> Case {
    request("DELETE", path)
}

/// POST of a JSON text
#[track_caller]
pub fn post(path: impl Into<String>, json: impl Into<String>) -> Case {
    request("POST", path).json(json)
}

/// PUT of a JSON text
#[track_caller]
pub fn put(path: impl Into<String>, json: impl Into<String>) -> Case {
    request("PUT", path).json(json)
}

impl Case {
    /// A header field of the request.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// A body without a media type.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    fn json(self, json: impl Into<String>) -> Self {
        let json: String = json.into();
        self.body(json).header("Content-Type", "application/json")
    }

    /// The answer is this status with this JSON.
    pub fn gives(mut self, status: u16, json: impl Into<String>) -> Self {
        self.status = status;
        self.want = Want::Json(json.into());
        self
    }

    /// The answer is this status with exactly this message.
    pub fn fails(self, status: u16, message: &str) -> Self {
        self.gives(status, serde_json::json!({ "error": message }).to_string())
    }

    /// The answer is this status with a message that the contract does not fix.
    pub fn fails_somehow(mut self, status: u16) -> Self {
        self.status = status;
        self.want = Want::AnyError;
        self
    }

    /// The answer is 200 with a list of objects with these ids, in this order.
    pub fn lists(mut self, ids: impl IntoIterator<Item = i64>) -> Self {
        self.status = 200;
        self.want = Want::Ids(ids.into_iter().collect());
        self
    }

    /// The answer is this status without a body.
    pub fn empty(mut self, status: u16) -> Self {
        self.status = status;
        self.want = Want::Empty;
        self
    }

    /// The answer is this status, whatever its body.
    pub fn answers(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The answer is a redirect to exactly this URL.
    pub fn leads_to(self, url: impl Into<String>) -> Self {
        self.answers(302).with("Location", url)
    }

    /// The answer is 405 with at least these methods, comma-separated, in `Allow`, and not the one asked for.
    pub fn allows_only(self, methods: &'static str) -> Self {
        let mut case = self.fails(405, "Method not allowed");
        case.allow = Some(methods);
        case
    }

    /// A header field of the answer, byte for byte.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.want_headers.push((name, value.into()));
        self
    }

    /// Keeps a value of the answer's body for later lines.
    pub fn keeps(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keeps.push((name, pointer));
        self
    }
}

/// A client of a server, and what earlier lines kept.
pub struct Session {
    client: Client,
    names: HashMap<&'static str, String>,
}

impl Session {
    /// With nothing kept.
    pub fn new(snip: &Snip) -> Self {
        Self::over(snip.client())
    }

    /// The same with a client of whatever stands before the server.
    pub fn over(client: Client) -> Self {
        Self { client, names: HashMap::new() }
    }

    /// What was kept under a name.
    pub fn kept(&self, name: &str) -> &str {
        &self.names[name]
    }

    /// The client, for what does not fit a line.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs the lines of a table one after the other.
    pub fn check_all(&mut self, cases: impl IntoIterator<Item = Case>) {
        for case in cases {
            self.check(&case);
        }
    }

    /// Asks, and holds the answer to what the line wants.
    pub fn check(&mut self, case: &Case) {
        let path = self.fill(&case.path);
        let headers: Vec<_> = case.headers.iter().map(|(n, v)| (n.clone(), self.fill(v))).collect();
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let body = case.body.as_ref().map(|body| match std::str::from_utf8(body) {
            Ok(text) => self.fill(text).into_bytes(),
            Err(_) => body.clone(),
        });
        let response = self.client.send(case.method, &path, &headers, body.as_deref());
        if let Err(why) = self.judge(case, &response) {
            let shown = String::from_utf8_lossy(body.as_deref().unwrap_or_default());
            panic!(
                "{}: {} {path} {}\n  {why}\n  answer: {} {:?}\n  {}",
                case.at,
                case.method,
                cut(&shown),
                response.status,
                response.headers,
                cut(&String::from_utf8_lossy(&response.body)),
            );
        }
        for (name, pointer) in &case.keeps {
            let value = response.json();
            let value = value.pointer(pointer).unwrap_or_else(|| panic!("{}: no {pointer} in {value}", case.at));
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.names.insert(name, text);
        }
        if case.method == "GET" {
            self.check_head(case, &path, &headers, &response);
        }
    }

    /// RFC 9110, section 9.3.2: HEAD is GET without the body.
    fn check_head(&mut self, case: &Case, path: &str, headers: &[(&str, &str)], get: &Response) {
        let head = self.client.send("HEAD", path, headers, None);
        let what = format!("{}: HEAD {path}", case.at);
        assert_eq!(head.status, get.status, "{what}");
        assert!(head.body.is_empty(), "{what}");
        for name in ["Content-Type", "Content-Length", "Location"] {
            assert_eq!(head.header(name), get.header(name), "{what}: {name}");
        }
    }

    fn judge(&self, case: &Case, response: &Response) -> Result<(), String> {
        expect(response.status == case.status, || format!("wanted status {}", case.status))?;
        if !response.body.is_empty() && response.status != 302 && !matches!(case.want, Want::Anything) {
            let media_type = response.header("Content-Type");
            expect(media_type == Some("application/json"), || "wanted Content-Type: application/json".to_owned())?;
        }
        for (name, value) in &case.want_headers {
            let value = self.fill(value);
            expect(response.header(name) == Some(&value), || format!("wanted {name}: {value}"))?;
        }
        if let Some(methods) = case.allow {
            judge_allow(case.method, methods, response)?;
        }
        self.judge_body(&case.want, response)
    }

    fn judge_body(&self, want: &Want, response: &Response) -> Result<(), String> {
        match want {
            Want::Anything => Ok(()),
            Want::Empty => expect(response.body.is_empty(), || "wanted no body".to_owned()),
            Want::AnyError => {
                let json = response.json();
                let keys: Vec<_> = json.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                expect(keys == ["error"] && json["error"].is_string(), || "wanted {\"error\": …}".to_owned())
            }
            Want::Ids(ids) => {
                let json = response.json();
                let got: Option<Vec<_>> =
                    json.as_array().map(|rows| rows.iter().map(|row| row["id"].as_i64().unwrap_or(-1)).collect());
                expect(got.as_ref() == Some(ids), || format!("wanted ids {ids:?}, got {got:?}"))
            }
            Want::Json(template) => {
                let template = self.fill(template);
                let want: Value = serde_json::from_str(&template).map_err(|e| format!("bad table: {e}: {template}"))?;
                matches(&want, &response.json()).map_err(|why| format!("wanted {}\n  {why}", cut(&template)))
            }
        }
    }

    /// Replaces `{name}` by what was kept; other braces stay.
    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        if text.contains('{') {
            for (name, value) in &self.names {
                filled = filled.replace(&format!("{{{name}}}"), value);
            }
        }
        filled
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn judge_allow(asked: &str, wanted: &str, response: &Response) -> Result<(), String> {
    let allow = response.header("Allow").ok_or("wanted an Allow field")?;
    let methods: Vec<_> = allow.split(',').map(str::trim).collect();
    expect(!methods.contains(&asked), || format!("Allow names {asked}, which was refused"))?;
    let wanted = wanted.split(',').map(str::trim);
    match wanted.into_iter().find(|method| !methods.contains(method)) {
        Some(missing) => Err(format!("wanted {missing} in Allow")),
        None => Ok(()),
    }
}

/// Compares with the marks of this module; says where the first difference is.
pub fn matches(want: &Value, got: &Value) -> Result<(), String> {
    match (want, got) {
        (Value::String(mark), _) if mark == "<any>" => Ok(()),
        (Value::String(mark), Value::String(text)) if mark == "<time>" => {
            expect(is_timestamp(text), || format!("{text:?} is no timestamp of the contract's form"))
        }
        (Value::String(mark), Value::String(text)) if mark == "<code>" => {
            expect(is_code(text), || format!("{text:?} is no short code"))
        }
        (Value::Object(wanted), Value::Object(found)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            expect(names(wanted) == names(found), || format!("keys are {:?} in this order", names(found)))?;
            wanted.iter().try_for_each(|(key, value)| matches(value, &found[key]).map_err(|e| format!("{key}: {e}")))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            expect(wanted.len() == found.len(), || format!("{} elements", found.len()))?;
            wanted.iter().zip(found).try_for_each(|(want, got)| matches(want, got))
        }
        _ => expect(want == got, || format!("got {got} where {want} was wanted")),
    }
}

/// `YYYY-MM-DDTHH:MM:SS`
pub fn is_timestamp(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == *form })
}

/// Six of `[A-Za-z0-9]`
pub fn is_code(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn cut(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 2000;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
