//! The chunked coding: decoded as the reference does, whole and in pieces of the size that the first byte says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::Outcome;
use snip::fuzzing::Chunked;

const BODY_MAX: usize = 1000;

/// The decoded body and the bytes that it took; `Err(true)` when it was refused, `Err(false)` when it breaks off.
fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize), bool> {
    let mut chunked = Chunked::new(BODY_MAX);
    let mut bytes = Vec::new();
    let mut dropped = 0;
    for piece in input.chunks(piece) {
        bytes.extend_from_slice(piece);
        if chunked.decode(&mut bytes).map_err(|_| true)? {
            // What of this piece lies behind the end belongs to the next request.
            let took = chunked.looked_at() + dropped;
            bytes.truncate(chunked.decoded());
            return Ok((bytes, took));
        }
        dropped += chunked.looked_at() - chunked.decoded();
        bytes.truncate(chunked.decoded());
        chunked.dropped_rest();
    }
    Err(false)
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, input)) = data.split_first() else { return };
    let whole = decode(input, input.len().max(1));
    assert_eq!(decode(input, usize::from(piece).max(1)), whole, "in pieces of {piece}");
    match (whole, reference::chunked(input, BODY_MAX)) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected),
        (Err(true), Err(Outcome::Refused)) => {}
        (Err(_), Err(Outcome::Unfinished)) => {}
        (_, Err(Outcome::Open)) => {}
        (got, expected) => panic!("{got:?}, expected {expected:?}"),
    }
});
