//! Programs that people use reach the server unmodified: curl, Python's requests, Node's fetch, wrk.

mod support;

use std::process::Command;
use std::time::Duration;

use support::command::{Finished, clean, run};
use support::snip::Snip;
use support::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
const TARGET: &str = "https://example.com/to?a=b%20c#d";

/// Runs a client, which the set-up script has installed.
#[track_caller]
fn client(program: &str, args: &[&str]) -> Finished {
    let mut command = clean(Command::new(program));
    command.args(args);
    if Command::new(program).arg("--version").output().is_err() {
        panic!("{program} is not installed: run `make setup` (ops/ci/setup.sh)");
    }
    run(&mut command, LIMIT)
}

fn curl(args: &[&str]) -> String {
    client("curl", &[&["--silent", "--show-error", "--max-time", "30"], args].concat()).success().stdout
}

// ---- curl ------------------------------------------------------------------------------------------------------

#[test]
fn curl_keeps_its_connection() {
    let snip = Snip::start();
    let url = format!("http://{}/users", snip.authority());
    let format = "\n%{http_code} %{num_connects} %{http_version}\n";
    let out = curl(&["--write-out", format, &url, &url, &url]);
    assert_eq!(out, "[]\n200 1 1.1\n[]\n200 0 1.1\n[]\n200 0 1.1\n");
    let out = curl(&["--http1.0", "--write-out", format, &url, &url]);
    assert_eq!(out.matches("[]\n200 ").count(), 2, "{out}");
}

#[test]
fn curl_sends_and_follows() {
    let snip = Snip::start();
    let base = format!("http://{}", snip.authority());
    let json = "Content-Type: application/json";
    let body = format!(r#"{{"url": "{TARGET}"}}"#);
    let made = curl(&["--header", json, "--data", &body, &format!("{base}/urls")]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let link = format!("{base}/{}", made["short_code"].as_str().expect("a code"));
    assert_eq!(
        curl(&["--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}", &link]),
        format!("302 {TARGET}")
    );
    let head = curl(&["--head", &link]);
    assert!(head.starts_with("HTTP/1.1 302 ") && head.contains(&format!("Location: {TARGET}\r\n")), "{head}");
    let changed =
        curl(&["--request", "PUT", "--header", json, "--data", r#"{"title": "T"}"#, &format!("{base}/urls/1")]);
    assert!(changed.contains(r#""title":"T""#) || changed.contains(r#""title": "T""#), "{changed}");
    let format = "%{http_code}";
    assert_eq!(curl(&["--request", "DELETE", "--write-out", format, &format!("{base}/urls/1")]), "204");
    assert_eq!(curl(&["--output", "/dev/null", "--write-out", format, &link]), "404");
}

#[test]
fn curl_sends_chunks() {
    let snip = Snip::start();
    let url = format!("http://{}/urls", snip.authority());
    let fields = ["--header", "Content-Type: application/json", "--header", "Transfer-Encoding: chunked"];
    let body = format!(r#"{{"url": "{TARGET}", "title": "{}"}}"#, "t".repeat(255));
    let out = curl(&[&fields, ["--data", &body, "--write-out", "\n%{http_code}"].as_slice(), &[&url, &url]].concat());
    assert_eq!(out.matches("\n201").count(), 2, "{out}");
}

#[test]
fn curl_uploads_a_form() {
    let snip = Snip::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.csv");
    let upload = |csv: String| {
        std::fs::write(&file, csv).expect("write");
        let form = format!("file=@{}", file.display());
        curl(&["--form", &form, "--write-out", " %{http_code}", &format!("http://{}/users/bulk", snip.authority())])
    };
    let out = upload("username,email\nann,ann@example.com\n".to_owned());
    assert!(out.ends_with(" 201") && out.contains("\"imported\""), "{out}");
    // From 1 MB on curl waits for `100 Continue`.
    let out = upload(format!("username,email,ballast\nbob,bob@example.com,{}\n", "x".repeat(3_000_000)));
    assert!(out.ends_with(" 201"), "{out}");
    let out = upload(format!("username,email,ballast\ncid,cid@example.com,{}\n", "x".repeat(11_000_000)));
    assert!(out.ends_with(" 413") && out.contains("File too large (max 10MB)"), "{out}");
}

#[test]
fn curl_speaks_to_a_unix_socket() {
    let snip = support::snip::Launch::new().unix().start();
    let path = snip.address().to_string();
    let path = path.strip_prefix("unix:").expect("a path");
    assert_eq!(curl(&["--unix-socket", path, "http://snip/users"]), "[]");
}

// ---- Python ----------------------------------------------------------------------------------------------------

const PYTHON: &str = r#"
import sys, requests
base, target = sys.argv[1:]
s = requests.Session()
s.trust_env = False

def is_(got, wanted):
    assert got == wanted, f'{got!r} is not {wanted!r}'

user = s.post(base + '/users', json={'username': 'ann', 'email': 'ann@example.com'})
is_((user.status_code, user.json()['id']), (201, 1))
made = s.post(base + '/urls', json={'url': target, 'user_id': 1, 'title': 'Ümläut 漢字'})
is_(made.status_code, 201)
is_(made.json()['title'], 'Ümläut 漢字')
is_(list(made.json()), ['id', 'user_id', 'short_code', 'original_url', 'title', 'is_active', 'created_at', 'updated_at'])
link = base + '/' + made.json()['short_code']

click = s.get(link, allow_redirects=False)
is_((click.status_code, click.headers['Location']), (302, target))
head = s.head(link)
is_((head.status_code, head.headers['Location'], head.content), (302, target, b''))
is_(s.head(base + '/urls/1').headers['Content-Length'], str(len(s.get(base + '/urls/1').content)))

# A generator has no length, so requests sends it in chunks.
parts = lambda: iter([b'{"url": ', b'"' + target.encode() + b'"', b'}'])
chunked = s.post(base + '/urls', data=parts(), headers={'Content-Type': 'application/json'})
is_(chunked.request.headers['Transfer-Encoding'], 'chunked')
is_((chunked.status_code, chunked.json()['original_url']), (201, target))

form = s.post(base + '/users/bulk', files={'file': ('u.csv', 'username,email\nbob,bob@example.com\n')})
is_((form.status_code, form.json()), (201, {'imported': 1, 'count': 1}))
is_(s.post(base + '/users/bulk').json(), {'error': 'No file provided'})
is_(s.put(base + '/urls/1', json={'title': None}).json()['title'], None)
is_(s.get(base + '/urls', params={'user_id': 1, 'is_active': True}).json()[0]['id'], 1)
is_(s.get(base + '/urls/1/stats').json()['redirect_count'], 1)
is_(s.delete(base + '/urls/1').status_code, 204)
is_(s.get(link, allow_redirects=False).json(), {'error': 'URL not found'})
is_(s.options(base + '/users').status_code in (200, 204), True)

# All of it over one connection.
pools = s.get_adapter(base).poolmanager.pools
is_([pools[key].num_connections for key in pools.keys()], [1])
print('good')
"#;

#[test]
fn python_requests() {
    let snip = Snip::start();
    let base = format!("http://{}", snip.authority());
    // Debian's own Python sees Debian's packages; the one on the PATH may be another.
    let has_requests = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import requests"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_requests);
    let python = python.expect("Python's requests is not installed: run `make setup` (ops/ci/setup.sh)");
    let finished = client(python, &["-c", PYTHON, &base, TARGET]).success();
    assert_eq!(finished.stdout, "good\n", "{finished:#?}");
}

// ---- Node ------------------------------------------------------------------------------------------------------

const NODE: &str = r#"
const assert = require('node:assert/strict');
const [base, target] = process.argv.slice(1);
const json = { 'Content-Type': 'application/json' };
const ask = (path, options = {}) => fetch(base + path, { redirect: 'manual', ...options });

(async () => {
  const made = await ask('/urls', { method: 'POST', headers: json, body: JSON.stringify({ url: target }) });
  assert.equal(made.status, 201);
  const { short_code: code } = await made.json();

  const click = await ask('/' + code);
  assert.equal(click.status, 302);
  assert.equal(click.headers.get('location'), target);
  const head = await ask('/' + code, { method: 'HEAD' });
  assert.deepEqual([head.status, head.headers.get('location'), await head.text()], [302, target, '']);

  // A stream has no length, so fetch sends it in chunks.
  const parts = ['{"url": ', JSON.stringify(target), ', "title": "Ümläut 漢字"}'].map((part) => new TextEncoder().encode(part));
  const body = new ReadableStream({ pull: (c) => (parts.length ? c.enqueue(parts.shift()) : c.close()) });
  const chunked = await ask('/urls', { method: 'POST', headers: json, body, duplex: 'half' });
  assert.equal(chunked.status, 201);
  assert.equal((await chunked.json()).title, 'Ümläut 漢字');

  const form = new FormData();
  form.set('file', new Blob(['username,email\nann,ann@example.com\n']), 'users.csv');
  const bulk = await ask('/users/bulk', { method: 'POST', body: form });
  assert.deepEqual([bulk.status, await bulk.json()], [201, { imported: 1, count: 1 }]);

  const many = await Promise.all(Array.from({ length: 100 }, () => ask('/urls/1')));
  for (const answer of many) assert.equal((await answer.json()).original_url, target);
  assert.equal((await ask('/urls/1', { method: 'DELETE' })).status, 204);
  assert.equal((await ask('/' + code)).status, 404);
  console.log('good');
})();
"#;

#[test]
fn node_fetch() {
    let snip = Snip::start();
    let finished = client("node", &["-e", NODE, &format!("http://{}", snip.authority()), TARGET]).success();
    assert_eq!(finished.stdout, "good\n", "{finished:#?}");
}

// ---- wrk -------------------------------------------------------------------------------------------------------

/// The first number after a text.
fn number_after(text: &str, mark: &str) -> Option<i64> {
    let rest = text.split(mark).nth(1)?.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn wrk_sees_no_error_and_every_click_is_counted() {
    const CONNECTIONS: i64 = 16;
    let snip = Snip::start();
    let (id, code) = snip.client().shorten(TARGET);
    let url = format!("http://{}/{code}", snip.authority());
    let script = tempfile::NamedTempFile::new().expect("a file");
    let lua = "done = function(summary) io.write('REQUESTS ', summary.requests, '\\n') end";
    std::fs::write(script.path(), lua).expect("write");
    let path = script.path().to_str().expect("a plain path");
    let connections = CONNECTIONS.to_string();
    // wrk counts an answer that takes longer than its timeout, 2 s by default, as an error.
    let out =
        client("wrk", &["-t1", "-c", &connections, "-d3s", "--timeout", "60s", "-s", path, &url]).success().stdout;
    assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{out}");
    let requests = number_after(&out, "REQUESTS").unwrap_or_else(|| panic!("no count in {out}"));
    assert!(requests > 100, "{out}");
    // A server far behind with storing clicks may say so (503); what it may not do is give a count without them.
    let mut stats = None;
    eventually("the statistics", LIMIT, || {
        let response = snip.client().get(&format!("/urls/{id}/stats"));
        assert!([200, 503].contains(&response.status), "{response:?}");
        stats = (response.status == 200).then(|| response.json());
        stats.is_some()
    });
    let counted = stats.expect("statistics")["redirect_count"].as_i64().expect("a count");
    // wrk does not count what is on its way when its time is up.
    assert!((requests..=requests + CONNECTIONS).contains(&counted), "wrk saw {requests}, stats say {counted}");
}
