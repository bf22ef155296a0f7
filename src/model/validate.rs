//! What is valid, and what a client is told when it is not. The messages are the contract's, word for word.

use crate::limits::NAME_CHARS_MAX;

/// What a client is told: the text of a 400.
pub type Message = &'static str;

/// The rules of one text field of a user.
struct NameRules {
    empty: Message,
    too_long: Message,
}

impl NameRules {
    fn check(&self, value: &str) -> Result<String, Message> {
        let value = value.trim();
        if value.is_empty() {
            return Err(self.empty);
        }
        // PostgreSQL's text has no NUL, and a name that a log or a terminal can't show is no name.
        if value.contains('\0') {
            return Err("Text must not contain NUL characters");
        }
        if value.chars().count() > NAME_CHARS_MAX {
            return Err(self.too_long);
        }
        Ok(value.to_owned())
    }
}

const USERNAME_TOO_LONG: Message = "username must be 255 characters or fewer";
const EMAIL_TOO_LONG: Message = "email must be 255 characters or fewer";

/// The user name of a new user; `None` stands for absent or not a string.
pub fn new_username(value: Option<&str>) -> Result<String, Message> {
    NameRules { empty: "username is required", too_long: USERNAME_TOO_LONG }.check(value.unwrap_or(""))
}

/// The address of a new user; `None` stands for absent or not a string.
pub fn new_email(value: Option<&str>) -> Result<String, Message> {
    let rules = NameRules { empty: "email is required", too_long: EMAIL_TOO_LONG };
    rules.check(value.unwrap_or("")).and_then(email_form)
}

/// The new user name of an existing user; `None` stands for not a string.
pub fn changed_username(value: Option<&str>) -> Result<String, Message> {
    NameRules { empty: "username cannot be empty", too_long: USERNAME_TOO_LONG }.check(value.unwrap_or(""))
}

/// The new address of an existing user; `None` stands for not a string.
pub fn changed_email(value: Option<&str>) -> Result<String, Message> {
    let rules = NameRules { empty: "email cannot be empty", too_long: EMAIL_TOO_LONG };
    rules.check(value.unwrap_or("")).and_then(email_form)
}

/// Exactly one `@`, something before it, a dot in the domain.
fn email_form(email: String) -> Result<String, Message> {
    let well_formed = match email.split_once('@') {
        Some((local, domain)) => !local.is_empty() && !domain.contains('@') && domain.contains('.'),
        None => false,
    };
    if well_formed { Ok(email) } else { Err("Invalid email format") }
}

/// The target of a short URL; `None` stands for absent or not a string. Kept byte for byte, save outer white space.
pub fn original_url(value: Option<&str>) -> Result<String, Message> {
    let url = value.unwrap_or("").trim();
    if url.is_empty() {
        return Err("url is required");
    }
    if !is_web_url(url) {
        return Err("A valid HTTP or HTTPS URL is required");
    }
    Ok(url.to_owned())
}

/// Scheme http or https, a host of more than one character without white space, no control characters anywhere: those
/// would let stored data split the `Location` header.
fn is_web_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    if url.chars().any(char::is_control) {
        return false;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    let host = host_of(authority);
    host.chars().count() > 1 && !host.contains(char::is_whitespace)
}

/// RFC 3986, section 3.2: `[userinfo "@"] host [":" port]`.
fn host_of(authority: &str) -> &str {
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host_and_port.starts_with('[') {
        return host_and_port.split_once(']').map_or("", |(host, _)| &host[1..]);
    }
    host_and_port.split(':').next().unwrap_or("")
}

/// The title of a short URL: trimmed; blank or not a string is none.
pub fn title(value: Option<&str>) -> Result<Option<String>, Message> {
    let title = value.unwrap_or("").trim();
    if title.is_empty() {
        return Ok(None);
    }
    if title.contains('\0') {
        return Err("Text must not contain NUL characters");
    }
    if title.chars().count() > NAME_CHARS_MAX {
        return Err("title must be 255 characters or fewer");
    }
    Ok(Some(title.to_owned()))
}

/// The type of an event that a client hands in; `None` stands for absent or not a string.
pub fn event_type(value: Option<&str>) -> Result<String, Message> {
    let event_type = value.unwrap_or("").trim();
    if event_type.is_empty() || event_type.contains('\0') {
        return Err("event_type is required");
    }
    if event_type.chars().count() > crate::limits::EVENT_TYPE_CHARS_MAX {
        return Err("event_type must be 255 characters or fewer");
    }
    Ok(event_type.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails() {
        for good in ["a@b.c", " first.last+tag@example.co.uk ", "ü@exämple.org"] {
            assert_eq!(new_email(Some(good)), Ok(good.trim().to_owned()));
        }
        for bad in ["plain", "@b.c", "a@b", "a@@b.c", "a@b.c@d.e"] {
            assert_eq!(new_email(Some(bad)), Err("Invalid email format"), "{bad}");
        }
        assert_eq!(new_email(None), Err("email is required"));
        assert_eq!(changed_email(Some("  ")), Err("email cannot be empty"));
        assert_eq!(new_email(Some(&format!("{}@b.c", "a".repeat(255)))), Err(EMAIL_TOO_LONG));
    }

    #[test]
    fn usernames() {
        assert_eq!(new_username(Some("  ann ")), Ok("ann".to_owned()));
        assert_eq!(new_username(Some(&"é".repeat(255))), Ok("é".repeat(255)));
        assert_eq!(new_username(Some(&"é".repeat(256))), Err(USERNAME_TOO_LONG));
        assert_eq!(new_username(Some(" \t")), Err("username is required"));
        assert_eq!(new_username(Some("a\0b")), Err("Text must not contain NUL characters"));
        assert_eq!(changed_username(None), Err("username cannot be empty"));
    }

    #[test]
    fn urls() {
        for good in [
            "http://ab",
            "https://example.com/a?b=c%20d&e=ü#f",
            "HTTPS://EXAMPLE.COM",
            "http://user:pw@host.example:8080/p",
            "http://[::1]:80/",
            "https://localhost",
        ] {
            assert_eq!(original_url(Some(good)), Ok(good.to_owned()));
        }
        for bad in [
            "example.com",
            "ftp://example.com",
            "http://",
            "http://a",
            "http:///path",
            "https://?q",
            "http://a:80/",
            "javascript:alert(1)",
            "http://ex.com/\r\nSet-Cookie: a=b",
            "http://ex.com/\u{7f}",
            "http://ex.com/\0",
            "http://exa mple.com",
            "http://user@/x",
            "http://[]/",
            "//example.com",
            "http:/example.com",
        ] {
            assert_eq!(original_url(Some(bad)), Err("A valid HTTP or HTTPS URL is required"), "{bad:?}");
        }
        assert_eq!(original_url(None), Err("url is required"));
        assert_eq!(original_url(Some(" \n ")), Err("url is required"));
    }

    #[test]
    fn titles() {
        assert_eq!(title(Some("  Launch ")), Ok(Some("Launch".to_owned())));
        assert_eq!(title(Some("   ")), Ok(None));
        assert_eq!(title(None), Ok(None));
        assert_eq!(title(Some(&"t".repeat(256))), Err("title must be 255 characters or fewer"));
    }
}
