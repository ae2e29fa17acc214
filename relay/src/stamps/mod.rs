//! The relay's stamp keys (`docs/protocol.md` §9.3): one for each day in UTC.
//!
//! [`StampKeys`] is what the hub stamps and checks with, a value without clock or file. [`keeper`] makes the keys,
//! keeps them, and destroys the old ones.

pub mod day;
pub mod keeper;
pub(crate) mod refresh;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use conclave_protocol::stamp::{Minute, Origin, SealPublic, Stamp, StampKey, StampKeyId};
use conclave_protocol::wire::relay::{StampCheck, StampVerdict};

/// The keys of this day and of the days before that are still kept. Copies share the keys, which are erased with the
/// last of them.
#[derive(Clone, Default)]
pub struct StampKeys {
    current: Option<Arc<StampKey>>,
    known: BTreeMap<StampKeyId, Arc<StampKey>>,
}

impl StampKeys {
    /// Stamps with `current`, and checks stamps of it and of `older`.
    #[must_use]
    pub fn new(current: Arc<StampKey>, older: impl IntoIterator<Item = Arc<StampKey>>) -> Self {
        let older = older.into_iter().map(|key| (key.id(), key));
        let known = older.chain([(current.id(), Arc::clone(&current))]).collect();
        Self { current: Some(current), known }
    }

    /// Stamps a seal. Without a key the stamp is all zeros but for the minute: no key has that name, so whoever checks
    /// it finds the seal not stamped, which is true.
    pub(crate) fn stamp(&self, origin: &Origin, minute: Minute, public: &SealPublic) -> Stamp {
        match &self.current {
            Some(key) => key.stamp(origin, minute, public),
            None => Stamp { key: StampKeyId([0; 8]), minute, mac: [0; 16] },
        }
    }

    /// Whether one of these keys made a stamp. One that names another key than it was made with is forged too.
    #[must_use]
    pub fn check(&self, check: &StampCheck) -> StampVerdict {
        let StampCheck { origin, public, stamp } = check;
        match self.known.get(&stamp.key) {
            Some(key) if key.made(stamp, origin, public) => StampVerdict::Genuine,
            Some(_) => StampVerdict::Forged,
            None if self.known.values().any(|key| key.made_all_but_name(stamp, origin, public)) => StampVerdict::Forged,
            None => StampVerdict::UnknownKey,
        }
    }

    /// Name of the key that stamps now, if there is one.
    #[must_use]
    pub fn current(&self) -> Option<StampKeyId> {
        self.current.as_ref().map(|key| key.id())
    }
}

/// Names only.
impl fmt::Debug for StampKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StampKeys").field("current", &self.current()).field("known", &self.known.keys()).finish()
    }
}
