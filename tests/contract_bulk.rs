//! The contract's section "Users", `POST /users/bulk`.

mod support;

use serde_json::json;
use support::case::{Case, Session, get, post, request};
use support::snip::Snip;

const BOUNDARY: &str = "----snip-test-boundary";
const MIB: usize = 1024 * 1024;

/// A part of a form: its Content-Disposition parameters, and its content.
fn part(parameters: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n").into_bytes();
    if parameters.contains("filename") {
        bytes.extend_from_slice(b"Content-Type: text/csv\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[track_caller]
fn form(parts: impl IntoIterator<Item = Vec<u8>>) -> Case {
    let mut body: Vec<u8> = parts.into_iter().flatten().collect();
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    request("POST", "/users/bulk")
        .header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(body)
}

/// An upload of this CSV.
#[track_caller]
fn upload(csv: impl AsRef<[u8]>) -> Case {
    form([part(r#"name="file"; filename="users.csv""#, csv.as_ref())])
}

fn imported(n: usize) -> String {
    json!({ "imported": n, "count": n }).to_string()
}

/// Starts from one user, ann.
fn check(cases: impl IntoIterator<Item = Case>) {
    let mut snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check(&post("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).answers(201));
    session.check_all(cases);
    snip.assert_alive();
}

fn user(id: i64, username: &str, email: &str, created_at: &str) -> String {
    json!({ "id": id, "username": username, "email": email, "created_at": created_at }).to_string()
}

#[test]
fn imports() {
    check([
        upload("username,email\nbob,bob@example.com\ncid,cid@example.com\n").gives(201, imported(2)),
        get("/users/2").gives(200, user(2, "bob", "bob@example.com", "<time>")),
        get("/users/3").gives(200, user(3, "cid", "cid@example.com", "<time>")),
        // No line end after the last row; columns in another order; others between, ignored.
        upload("age,email,x,username\n7,dan@example.com,,dan").gives(201, imported(1)),
        get("/users/4").gives(200, user(4, "dan", "dan@example.com", "<time>")),
        // Names and addresses are trimmed as those of POST /users.
        upload("username,email\n  eve  ,\t eve@example.com \n").gives(201, imported(1)),
        get("/users/5").gives(200, user(5, "eve", "eve@example.com", "<time>")),
        upload("username,email\n").gives(201, imported(0)),
        get("/users").lists(1..=5),
    ]);
}

#[test]
fn reads_csv_as_it_is_written() {
    check([
        upload("username,email\r\nbob,bob@example.com\r\ncid,cid@example.com\r\n").gives(201, imported(2)),
        upload("\u{feff}username,email\ndan,dan@example.com\n").gives(201, imported(1)),
        upload("\"username\",\"email\"\n\"eve, the \"\"first\"\"\",\"eve@example.com\"\n").gives(201, imported(1)),
        upload("username,email\n\"fay\nfeather\",fay@example.com\n").gives(201, imported(1)),
        upload("username,email\nünïcödé 漢字,u@example.com\n").gives(201, imported(1)),
        get("/users/3").gives(200, user(3, "cid", "cid@example.com", "<time>")),
        get("/users/4").gives(200, user(4, "dan", "dan@example.com", "<time>")),
        get("/users/5").gives(200, user(5, "eve, the \"first\"", "eve@example.com", "<time>")),
        get("/users/6").gives(200, user(6, "fay\nfeather", "fay@example.com", "<time>")),
        get("/users/7").gives(200, user(7, "ünïcödé 漢字", "u@example.com", "<time>")),
    ]);
}

#[test]
fn keeps_created_at() {
    let csv = "username,email,created_at\n\
               bob,bob@example.com,2020-01-02 03:04:05\n\
               cid,cid@example.com,2021-12-31T23:59:59\n\
               dan,dan@example.com,\n";
    check([
        upload(csv).gives(201, imported(3)),
        get("/users/2").gives(200, user(2, "bob", "bob@example.com", "2020-01-02T03:04:05")),
        get("/users/3").gives(200, user(3, "cid", "cid@example.com", "2021-12-31T23:59:59")),
        get("/users/4").gives(200, user(4, "dan", "dan@example.com", "<time>")),
    ]);
}

#[test]
fn skips_bad_rows_and_imports_the_rest() {
    let too_long = "x".repeat(256);
    let bad_rows = [
        "",
        ",",
        ",blank-name@example.com",
        "   ,blank-name@example.com",
        "blank-email,",
        "short-row",
        "no-at,example.com",
        "no-dot,x@example",
        "two-ats,x@@example.com",
        "nothing-before,@example.com",
        &format!("{too_long},long-name@example.com"),
        &format!("long-email,{too_long}@example.com"),
        "ann,other@example.com",
        "other,ann@example.com",
        "good,second@example.com",
        "second,good@example.com",
    ];
    check(bad_rows.iter().enumerate().map(|(n, row)| {
        let (good, last) = (format!("good{n}"), format!("last{n}"));
        let row = row.replace("good", &good);
        upload(format!("username,email\n{good},{good}@example.com\n{row}\n{last},{last}@example.com\n"))
            .gives(201, imported(2))
    }));
    let csv = format!("username,email\ngood,good@example.com\n{}\nlast,last@example.com\n", bad_rows.join("\n"));
    check([
        upload(&csv).gives(201, imported(2)),
        // The same again: now the table has them all.
        upload(&csv).gives(201, imported(0)),
        upload("username,email\ngood,new@example.com\nnew,new@example.com\n").gives(201, imported(1)),
    ]);
}

#[test]
fn a_duplicate_of_a_skipped_row_is_none() {
    check([
        upload("username,email\nbob,not an address\nbob,bob@example.com\n").gives(201, imported(1)),
        upload("username,email\nann,cid@example.com\ncid,cid@example.com\n").gives(201, imported(1)),
    ]);
}

#[test]
fn names_of_255_characters_are_not_too_long() {
    let csv = format!("username,email\n{},{}@b.example\n", "é".repeat(255), "ü".repeat(245));
    check([upload(csv).gives(201, imported(1))]);
}

#[test]
fn finds_the_part() {
    let csv = b"username,email\nbob,bob@example.com\n";
    let file = || part(r#"name="file"; filename="u.csv""#, csv);
    check([
        // Other parts before and after, another one with a file name among them.
        form([
            part(r#"name="note""#, b"hello"),
            part(r#"name="other"; filename="o.csv""#, b"username,email\nzoe,zoe@example.com\n"),
            file(),
            part(r#"name="more""#, b"bye"),
        ])
        .gives(201, imported(1)),
        get("/users/2").gives(200, user(2, "bob", "bob@example.com", "<time>")),
        get("/users").lists([1, 2]),
    ]);
    check([form([part(r#"name="file"; filename="a \"quoted\" name.csv""#, csv)]).gives(201, imported(1))]);
    check([request("POST", "/users/bulk")
        .header("Content-Type", r#"Multipart/Form-Data; charset=utf-8; boundary="a:b""#)
        .body("--a:b\r\ncontent-disposition: form-data; name=file; filename=u.csv\r\n\r\nusername,email\r\n--a:b--\r\n")
        .gives(201, imported(0))]);
}

#[test]
fn refuses_what_is_no_file() {
    let csv = b"username,email\nbob,bob@example.com\n";
    check([
        form([part(r#"name="other"; filename="u.csv""#, csv)]).fails(400, "No file provided"),
        form([]).fails(400, "No file provided"),
        request("POST", "/users/bulk").fails(400, "No file provided"),
        post("/users/bulk", "{}").fails(400, "No file provided"),
        request("POST", "/users/bulk").header("Content-Type", "text/csv").body(*csv).fails(400, "No file provided"),
        form([part(r#"name="file"; filename="""#, b"")]).fails(400, "No file selected"),
        form([part(r#"name="file"; filename="""#, csv)]).fails(400, "No file selected"),
        // A field without file name: the contract leaves open which of the two it is.
        form([part(r#"name="file""#, csv)]).fails_somehow(400),
        get("/users").lists([1]),
    ]);
}

#[test]
fn refuses_broken_forms() {
    let multipart = |body: &str| {
        request("POST", "/users/bulk")
            .header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(body)
            .fails_somehow(400)
    };
    check([
        multipart(""),
        multipart("no boundary in here"),
        multipart(&format!("--{BOUNDARY}\r\n")),
        multipart(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"u\"\r\n\r\nuser"
        )),
        request("POST", "/users/bulk").header("Content-Type", "multipart/form-data").body("x").fails_somehow(400),
        get("/users").lists([1]),
    ]);
}

#[test]
fn refuses_what_is_not_utf_8() {
    check([
        upload(b"username,email\nb\xffb,bob@example.com\n").fails_somehow(400),
        upload(b"\xff\xfeu\0s\0e\0r\0").fails_somehow(400),
        upload(b"username,email\nbob,bob@example.com\ncid,cid@example.com\n\xc3").fails_somehow(400),
        get("/users").lists([1]),
    ]);
}

/// A file of `rows` good rows, made `bytes` long by a column that is ignored.
fn padded(rows: usize, bytes: usize) -> String {
    let mut csv = String::from("username,email,ballast\n");
    let ballast = "b".repeat(bytes / rows - 60);
    for n in 0..rows {
        csv.push_str(&format!("padded{n},padded{n}@example.com,{ballast}\n"));
    }
    assert!(csv.len() <= bytes);
    let missing = bytes - csv.len();
    csv + &" \n".repeat(missing / 2) + &"\n".repeat(missing % 2)
}

#[test]
fn files_up_to_ten_megabytes() {
    check([
        upload(padded(100, 10_000_000)).gives(201, imported(100)),
        upload(padded(100, 10 * MIB + 1)).fails(413, "File too large (max 10MB)"),
        upload(padded(100, 12 * MIB)).fails(413, "File too large (max 10MB)"),
        upload(vec![b'x'; 32 * MIB]).fails(413, "File too large (max 10MB)"),
        get("/users?per_page=100&page=2").lists([101]),
    ]);
}

#[test]
fn many_rows() {
    let mut csv = String::from("username,email\n");
    for n in 0..5_000 {
        csv.push_str(&format!("many{n},many{n}@example.com\n"));
    }
    check([
        upload(&csv).gives(201, imported(5_000)),
        get("/users?after_id=4999").lists([5_000, 5_001]),
        upload(&csv).gives(201, imported(0)),
    ]);
}
