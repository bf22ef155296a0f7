//! Short codes: six characters of `[A-Za-z0-9]` from a cryptographic source.

use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::limits::SHORT_CODE_CHARS;

/// Words of six letters that are paths of the API: as codes they could never be followed.
const RESERVED: [&str; 3] = ["health", "events", "readyz"];

/// The part of a short link that names it.
pub type ShortCode = String;

/// A fresh random code, from the operating system's generator by way of ChaCha (62⁶ ≈ 5.7 · 10¹⁰ codes).
pub fn generate() -> ShortCode {
    loop {
        let code: ShortCode = rand::rng().sample_iter(Alphanumeric).take(SHORT_CODE_CHARS).map(char::from).collect();
        if !RESERVED.contains(&code.as_str()) {
            return code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_six_alphanumerics_and_differ() {
        let codes: std::collections::HashSet<_> = (0..1000).map(|_| generate()).collect();
        assert_eq!(codes.len(), 1000);
        assert!(codes.iter().all(|c| c.len() == 6 && c.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
