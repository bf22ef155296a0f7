//! The chunked coding (RFC 9112, section 7.1), decoded in place. Pure.
//!
//! ```text
//! chunked-body = *( chunk-size [ chunk-ext ] CRLF chunk-data CRLF ) 1*"0" [ chunk-ext ] CRLF trailers CRLF
//! ```

use super::head::is_token_byte;
use super::response::Refusal;
use crate::limits::CHUNK_LINE_BYTES_MAX;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The first digit of a size.
    Size,
    /// Further digits, an extension, or the end of the line.
    MoreSize,
    /// Blanks behind a size, which only an extension may follow.
    SizeBlanks,
    /// The first byte of an extension's name; the rest of the line, which is skipped.
    ExtensionStart,
    Extension,
    /// The LF that ends a size line.
    SizeLineFeed,
    /// Data.
    Data,
    /// The CR, then the LF behind the data.
    DataReturn,
    DataLineFeed,
    /// The start of a trailer line or of the final empty line; within a name; within a value; the LF that ends one; the
    /// last LF of all.
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLineFeed,
    FinalLineFeed,
    /// Nothing: the body is complete.
    End,
}

/// A chunked body on its way in. The caller keeps the bytes: decoded ones in front, then those not looked at yet.
#[derive(Debug)]
pub struct Chunked {
    expect: Expect,
    /// Bytes of the present chunk still to come.
    left: u64,
    /// Bytes of the present size line, or of the trailer section.
    line_bytes: usize,
    /// Decoded bytes, at the front of the caller's slice.
    decoded: usize,
    /// Bytes of the caller's slice that were looked at, the decoded ones included.
    looked_at: usize,
    /// Decoded bytes at the most.
    limit: usize,
}

impl Chunked {
    /// A body of at most `limit` decoded bytes.
    pub fn new(limit: usize) -> Self {
        Self { expect: Expect::Size, left: 0, line_bytes: 0, decoded: 0, looked_at: 0, limit }
    }

    /// Decoded bytes so far.
    pub fn decoded(&self) -> usize {
        self.decoded
    }

    /// Bytes of the slice that belong to this body, once it is complete; the next request begins behind them.
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Tells that the caller dropped everything between the decoded bytes and what will come next.
    pub fn dropped_rest(&mut self) {
        self.looked_at = self.decoded;
    }

    /// Decodes what is new in `bytes` and says whether the body is complete.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<bool, Refusal> {
        while self.looked_at < bytes.len() && self.expect != Expect::End {
            if self.expect == Expect::Data {
                self.data(bytes);
            } else {
                self.byte(bytes[self.looked_at])?;
                self.looked_at += 1;
            }
        }
        Ok(self.expect == Expect::End)
    }

    /// Moves as much data to the front as there is of this chunk.
    fn data(&mut self, bytes: &mut [u8]) {
        let there = bytes.len() - self.looked_at;
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
        bytes.copy_within(self.looked_at..self.looked_at + count, self.decoded);
        self.decoded += count;
        self.looked_at += count;
        self.left -= count as u64;
        if self.left == 0 {
            self.expect = Expect::DataReturn;
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(Refusal::BAD_REQUEST);
        }
        self.expect = match (self.expect, byte) {
            (Expect::Size, b) if b.is_ascii_hexdigit() => self.digit(b)?,
            (Expect::MoreSize, b) if b.is_ascii_hexdigit() => self.digit(b)?,
            (Expect::MoreSize | Expect::SizeBlanks, b';') => Expect::ExtensionStart,
            (Expect::MoreSize | Expect::SizeBlanks, b' ' | b'\t') => Expect::SizeBlanks,
            (Expect::ExtensionStart, b' ' | b'\t') => Expect::ExtensionStart,
            (Expect::ExtensionStart, b) if is_token_byte(b) => Expect::Extension,
            (Expect::MoreSize | Expect::Extension, b'\r') => Expect::SizeLineFeed,
            (Expect::Extension, b) if is_text(b) => Expect::Extension,
            (Expect::SizeLineFeed, b'\n') => self.size_line_over()?,
            (Expect::DataReturn, b'\r') => Expect::DataLineFeed,
            (Expect::DataLineFeed, b'\n') => self.line_over(Expect::Size),
            (Expect::TrailerStart, b'\r') => Expect::FinalLineFeed,
            (Expect::TrailerStart | Expect::TrailerName, b) if is_token_byte(b) => Expect::TrailerName,
            (Expect::TrailerName, b':') => Expect::Trailer,
            (Expect::Trailer, b) if is_text(b) => Expect::Trailer,
            (Expect::Trailer, b'\r') => Expect::TrailerLineFeed,
            (Expect::TrailerLineFeed, b'\n') => Expect::TrailerStart,
            (Expect::FinalLineFeed, b'\n') => Expect::End,
            _ => return Err(Refusal::BAD_REQUEST),
        };
        Ok(())
    }

    fn digit(&mut self, digit: u8) -> Result<Expect, Refusal> {
        let value = u64::from((digit as char).to_digit(16).unwrap_or(0));
        self.left = self.left.checked_mul(16).and_then(|left| left.checked_add(value)).ok_or(Refusal::BAD_REQUEST)?;
        Ok(Expect::MoreSize)
    }

    fn size_line_over(&mut self) -> Result<Expect, Refusal> {
        if self.left > (self.limit - self.decoded) as u64 {
            return Err(Refusal::BODY_TOO_LARGE);
        }
        let next = if self.left == 0 { Expect::TrailerStart } else { Expect::Data };
        Ok(self.line_over(next))
    }

    fn line_over(&mut self, next: Expect) -> Expect {
        self.line_bytes = 0;
        next
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes whole, and in two parts cut at every byte.
    fn check(input: &str, expect: Result<(&str, usize), Refusal>) {
        for cut in 0..=input.len() {
            let mut chunked = Chunked::new(20);
            let mut bytes = input.as_bytes().to_vec();
            let outcome = chunked.decode(&mut bytes[..cut]).and_then(|done| {
                // The caller may drop what was looked at between the two parts.
                if !done {
                    bytes.drain(chunked.decoded()..chunked.looked_at());
                    chunked.dropped_rest();
                }
                chunked.decode(&mut bytes)
            });
            let got = outcome.map(|done| {
                assert!(done, "{input:?} is not complete");
                (std::str::from_utf8(&bytes[..chunked.decoded()]).unwrap(), bytes.len() - chunked.looked_at())
            });
            assert_eq!(got, expect, "{input:?} cut at {cut}");
        }
    }

    #[test]
    fn decodes() {
        check("0\r\n\r\n", Ok(("", 0)));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", 0)));
        check("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET", Ok(("hello world", 3)));
        check("5 ;a=b\r\nhello\r\n0\t; c\r\n\r\n", Ok(("hello", 0)));
        check("00A;ext=\"v\"\r\n0123456789\r\n000;x\r\nTrailer: x\r\nOther: y\r\n\r\n", Ok(("0123456789", 0)));
    }

    #[test]
    fn refuses() {
        for input in [
            "\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\nhello",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\rhello",
            "5;a\nb\r\nhello",
            "10000000000000000\r\n",
            "5;\r\nhello\r\n",
            "5 ; \r\nhello\r\n",
            "5;a;\0\r\nhello\r\n",
            "0\r\nTrailer: x\n\r\n",
            "0\r\nTrailer\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nTrailer : x\r\n\r\n",
            "0\r\nTrailer: x\r\n folded\r\n\r\n",
            "0\r\n\n",
        ] {
            check(input, Err(Refusal::BAD_REQUEST));
        }
        check(&format!("5;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX)), Err(Refusal::BAD_REQUEST));
        check(&format!("0\r\n{}", "x: y\r\n".repeat(CHUNK_LINE_BYTES_MAX / 6 + 1)), Err(Refusal::BAD_REQUEST));
    }

    #[test]
    fn keeps_to_its_limit() {
        check("14\r\n01234567890123456789\r\n0\r\n\r\n", Ok(("01234567890123456789", 0)));
        check("15\r\n", Err(Refusal::BODY_TOO_LARGE));
        check("A\r\n0123456789\r\nB\r\n", Err(Refusal::BODY_TOO_LARGE));
    }
}
