//! What a store knows of a journal of clicks: its name and how far it is stored.

use std::fmt;
use std::sync::Arc;

/// The name of a journal: random, given when its folder is first used, and kept as long as the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId(pub [u8; 16]);

impl fmt::Display for JournalId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A batch of clicks as a step of its journal. Positions only grow; each is that of the first click not yet stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalStep {
    /// Which journal.
    pub journal: JournalId,
    /// Whose journal that is, for people.
    pub instance: Arc<str>,
    /// Where the store is believed to be; [`JournalStep::UNKNOWN`] if it has never heard of the journal.
    pub from: u64,
    /// Where it is when the batch is stored.
    pub to: u64,
}

impl JournalStep {
    /// The position of a journal that the store has never heard of. No click is there.
    pub const UNKNOWN: u64 = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hexadecimal() {
        let mut name = [0; 16];
        (name[0], name[15]) = (0xab, 0x01);
        assert_eq!(JournalId(name).to_string(), "ab000000000000000000000000000001");
    }
}
