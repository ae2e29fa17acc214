//! Those who are no members and are known all the same: who left, who lost the connection, and who may not come again.
//! Every member follows it by the acts; a co-host is told what was before.

use std::collections::BTreeMap;

use crate::sign::PublicKey;
use crate::wire::control::{LedgerEntry, MAX_LEDGER, Past};

/// Most identities that are remembered. Beyond it those who merely left are forgotten first, then those who were lost;
/// they knock again.
const MAX_ENTRIES: usize = 16_384;

/// The ledger.
#[derive(Default)]
pub(super) struct Ledger {
    entries: BTreeMap<PublicKey, Past>,
}

impl Ledger {
    pub(super) fn past(&self, identity: &PublicKey) -> Option<Past> {
        self.entries.get(identity).copied()
    }

    /// Writes down what became of an identity. A block stays.
    pub(super) fn note(&mut self, identity: PublicKey, past: Past) {
        if self.past(&identity) == Some(Past::Blocked) {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.make_room();
        }
        self.entries.insert(identity, past);
    }

    /// The identity is a member now.
    pub(super) fn came(&mut self, identity: &PublicKey) {
        self.entries.remove(identity);
    }

    /// Everything, in pieces that fit a message each.
    pub(super) fn pieces(&self) -> Vec<Vec<LedgerEntry>> {
        let entries: Vec<LedgerEntry> =
            self.entries.iter().map(|(identity, past)| LedgerEntry { identity: *identity, past: *past }).collect();
        entries.chunks(MAX_LEDGER).map(<[LedgerEntry]>::to_vec).collect()
    }

    fn make_room(&mut self) {
        for past in [Past::Left, Past::Lost] {
            let before = self.entries.len();
            self.entries.retain(|_, entry| *entry != past);
            if self.entries.len() < before {
                return;
            }
        }
        // Only blocks are left: the lowest key makes room, since memory must not grow.
        self.entries.pop_first();
    }
}
