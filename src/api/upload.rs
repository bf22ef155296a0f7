//! The bulk upload: a CSV file in a multipart form. Pure; runs on a thread that may take its time.

use bytes::Bytes;
use csv::StringRecord;
use futures_util::stream;

use super::reply::Error;
use crate::limits::UPLOAD_FILE_BYTES_MAX;
use crate::model::{NewUser, Timestamp, validate};

/// The text of the 413.
pub const TOO_LARGE: &str = "File too large (max 10MB)";

const NO_FILE: Error = Error::BadRequest("No file provided");

/// The boundary of a multipart form.
pub fn boundary(content_type: Option<&[u8]>) -> Result<String, Error> {
    let content_type = content_type.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("");
    multer::parse_boundary(content_type).map_err(|_| NO_FILE)
}

/// The valid rows of the file in a form. Duplicates are left to the store, which knows the table.
pub fn users(boundary: &str, body: Vec<u8>) -> Result<Vec<NewUser>, Error> {
    let file = file_part(boundary, body)?;
    if file.len() > UPLOAD_FILE_BYTES_MAX {
        return Err(Error::TooLarge(TOO_LARGE));
    }
    let text = std::str::from_utf8(&file).map_err(|_| Error::BadRequest("File must be UTF-8 encoded"))?;
    Ok(rows(text.strip_prefix('\u{feff}').unwrap_or(text)))
}

/// The part named `file`. A form that breaks off or is no form has none.
fn file_part(boundary: &str, body: Vec<u8>) -> Result<Bytes, Error> {
    let whole = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(body))]);
    let mut form = multer::Multipart::new(whole, boundary);
    // Everything is in memory, so the future never really waits.
    pollster::block_on(async {
        while let Some(field) = form.next_field().await.map_err(|_| NO_FILE)? {
            if field.name() != Some("file") {
                continue;
            }
            return match field.file_name() {
                None => Err(NO_FILE),
                Some("") => Err(Error::BadRequest("No file selected")),
                Some(_) => field.bytes().await.map_err(|_| NO_FILE),
            };
        }
        Err(NO_FILE)
    })
}

fn rows(text: &str) -> Vec<NewUser> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let Ok(headers) = reader.headers() else { return Vec::new() };
    let column = |name: &str| headers.iter().position(|header| header == name);
    let columns = (column("username"), column("email"), column("created_at"));
    // A row that is not even CSV is skipped like any other bad row.
    reader.records().filter_map(Result::ok).filter_map(|record| user(&record, columns)).collect()
}

/// A row, or `None` when it is to be skipped.
fn user(
    record: &StringRecord,
    (username, email, created_at): (Option<usize>, Option<usize>, Option<usize>),
) -> Option<NewUser> {
    let created_at = match created_at.and_then(|at| record.get(at)).map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(Timestamp::parse(text)?),
    };
    Some(NewUser {
        username: validate::new_username(record.get(username?)).ok()?,
        email: validate::new_email(record.get(email?)).ok()?,
        created_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(disposition: &str, content: &str) -> Vec<u8> {
        format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n--B--\r\n").into_bytes()
    }

    fn names(content: &str) -> Vec<String> {
        let users = users("B", form("name=\"file\"; filename=\"u.csv\"", content)).unwrap();
        users.into_iter().map(|user| user.username).collect()
    }

    #[test]
    fn good_rows_are_taken_and_bad_ones_skipped() {
        let check = |content: &str, expect: &[&str]| assert_eq!(names(content), expect, "{content:?}");
        check("username,email\nann,ann@example.com\nbob,bob@example.com\n", &["ann", "bob"]);
        check("username,email\r\nann,ann@example.com\r\n", &["ann"]);
        check("\u{feff}email,other,username\nann@example.com,x,ann", &["ann"]);
        check("username,email\n,a@example.com\nann,\nbob,nonsense\n\ncid,c@example.com", &["cid"]);
        check("username,email\n\"a,\"\"b\"\"\",a@example.com\n", &["a,\"b\""]);
        check("username,email,created_at\na,a@e.com,2025-01-02 03:04:05\nb,b@e.com,never\nc,c@e.com,\n", &["a", "c"]);
        check("username,email\nonlyone\nann,ann@example.com,extra\n", &["ann"]);
        check("name,mail\nann,ann@example.com\n", &[]);
        check("", &[]);
        check(&format!("username,email\n{},a@example.com\n", "x".repeat(256)), &[]);
    }

    #[test]
    fn forms_without_a_file_are_refused() {
        let check = |body: Vec<u8>, expect: Error| assert_eq!(users("B", body).unwrap_err(), expect);
        check(form("name=\"other\"; filename=\"u.csv\"", "x"), NO_FILE);
        check(form("name=\"file\"", "x"), NO_FILE);
        check(form("name=\"file\"; filename=\"\"", ""), Error::BadRequest("No file selected"));
        check(b"nonsense".to_vec(), NO_FILE);
        check(Vec::new(), NO_FILE);
        let mut cut = form("name=\"file\"; filename=\"u.csv\"", "username,email");
        cut.truncate(cut.len() - 10);
        check(cut, NO_FILE);
    }

    #[test]
    fn files_too_large_or_not_utf8_are_refused() {
        let mut body = form("name=\"file\"; filename=\"u.csv\"", "?");
        let at = body.iter().position(|&b| b == b'?').unwrap();
        body[at] = 0xff;
        assert_eq!(users("B", body).unwrap_err(), Error::BadRequest("File must be UTF-8 encoded"));
        let large = form("name=\"file\"; filename=\"u.csv\"", &"x".repeat(UPLOAD_FILE_BYTES_MAX + 1));
        assert_eq!(users("B", large).unwrap_err(), Error::TooLarge(TOO_LARGE));
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary(Some(b"multipart/form-data; boundary=\"a b\"")), Ok("a b".to_owned()));
        for content_type in [None, Some(&b"text/csv"[..]), Some(b"multipart/form-data"), Some(b"\xff")] {
            assert_eq!(boundary(content_type), Err(NO_FILE));
        }
    }
}
