//! Records of clicks: any bytes are read without a panic, and what is read is written and read again as the same click.
//! An odd first byte has the checksum of the rest put right, so that the reader looks further than that.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snip::clicks::record::{ClickRef, Draft, Found, Prepared, RECORD_BYTES_MAX, decode, measure};
use snip::model::Click;

/// CRC-32C, bit by bit (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// The record that a writer makes of a click.
fn encode(click: &Click, sequence: u64) -> Vec<u8> {
    let prepared = Prepared::new(ClickRef {
        url_id: click.url_id,
        user_id: click.user_id,
        at: click.at,
        client: click.client,
        user_agent: click.user_agent.as_deref().map(str::as_bytes),
        referrer: click.referrer.as_deref().map(str::as_bytes),
    });
    let mut out = vec![0; prepared.bytes()];
    prepared.encode(sequence, &mut Draft::default(), &mut out);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if let (1, Some(length)) = (kind % 2, bytes.get(4..6)) {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        if (8..=bytes.len()).contains(&length) {
            let checksum = crc32c(&bytes[4..length]).max(1);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        }
    }
    let sequence = bytes.get(16..24).map_or(0, |field| u64::from_le_bytes(field.try_into().expect("8 bytes")));
    assert!(!matches!(decode(&bytes, sequence.wrapping_add(1)), Found::Record { .. }), "another click's number");
    let Found::Record { click, bytes: length } = decode(&bytes, sequence) else {
        assert_eq!(measure(&bytes, sequence), None);
        return;
    };
    assert_eq!(measure(&bytes, sequence), Some(length));
    assert!(length <= bytes.len());
    let again = encode(&click, sequence);
    assert!(again.len() <= RECORD_BYTES_MAX);
    assert_eq!(decode(&again, sequence), Found::Record { click, bytes: again.len() });
});
