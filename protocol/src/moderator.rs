//! Moderators: who can open reports, by name and key (`docs/protocol.md` §17.1).

#[cfg(feature = "reports")]
mod key;
mod text;

#[cfg(feature = "reports")]
pub use key::ModeratorKey;
pub use text::BadModeratorText;

use crate::identity::DisplayName;
use crate::label;
use crate::sign::PublicKey;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Length of an X-Wing public key (draft-connolly-cfrg-xwing-kem).
pub const SEALING_KEY_LEN: usize = 1_216;
/// Most moderators that a meeting names.
pub const MAX_MODERATORS: usize = 4;

/// A moderator's public half.
///
/// ```text
/// name 65 ‖ Ed25519 32 ‖ X-Wing 1,216
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Moderator {
    /// Shown to everybody in the meeting, and to whoever reports.
    pub name: DisplayName,
    /// Signs ban statements and requests to relays.
    pub signing: PublicKey,
    /// Reports are sealed to it.
    pub sealing: [u8; SEALING_KEY_LEN],
}

/// Names a moderator's key: the first 8 bytes of its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModeratorId(pub [u8; 8]);

impl Moderator {
    /// Length in bytes.
    pub const WIRE_LEN: usize = DisplayName::WIRE_LEN + 32 + SEALING_KEY_LEN;

    /// The name of the keys.
    pub fn id(&self) -> ModeratorId {
        let hash = label::hash(label::MODERATOR_ID, &[&self.signing.0, &self.sealing]);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        ModeratorId(id)
    }
}

impl std::fmt::Debug for Moderator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moderator").field("name", &self.name).field("id", &self.id()).finish()
    }
}

impl Wire for Moderator {
    fn write(&self, w: &mut Writer) {
        self.name.write(w);
        self.signing.write(w);
        w.array(&self.sealing);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { name: DisplayName::read(r)?, signing: PublicKey::read(r)?, sealing: r.array()? })
    }
}

impl Wire for ModeratorId {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.array()?))
    }
}

/// What the descriptor says of a meeting's moderators: `H("conclave/1 moderators" ‖ list)`, zeros for an empty list.
pub fn moderators_digest(moderators: &[Moderator]) -> [u8; 32] {
    if moderators.is_empty() {
        return [0; 32];
    }
    let mut w = Writer::default();
    w.list(moderators);
    label::hash(label::MODERATORS, &[&w.into_bytes()])
}
