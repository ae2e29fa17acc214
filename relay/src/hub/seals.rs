//! Seals: stamped on their public part and passed on (`docs/protocol.md` §9.3). The relay opens none, and a core keeps none.

use conclave_protocol::stamp::{Minute, Origin, SealPublic};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal};

use super::meeting::Meeting;
use super::turn::Turn;
use crate::core::ConnId;

/// The tag of what only members can open: no seal is shorter than its public part and this.
const TAG_LEN: usize = 16;

/// The first byte of every KID (`docs/protocol.md` §8.2).
const KID_MARK: u8 = 0x80;

/// Most frames in a segment: half a second of 10 ms frames.
const MAX_FRAMES: u8 = 50;

impl Meeting {
    /// A member's seal: stamped, and sent to all other members. The sender hears the stamp with the public part.
    pub(super) fn seal(&mut self, turn: &mut Turn<'_>, conn: ConnId, bytes: Vec<u8>) -> Result<(), Refusal> {
        let &slot = self.slots.get(&conn).ok_or(Refusal::NotAllowed)?;
        let member = self.members.get_mut(&slot).ok_or(Refusal::NotAllowed)?;
        if !member.allowances.seals.take(turn.now, 1, turn.limits.seals) {
            turn.stats.seals_dropped_too_fast += 1;
            return Ok(());
        }
        let Some(public) = public_part(&bytes) else {
            turn.stats.seals_refused_malformed += 1;
            return Err(Refusal::Malformed);
        };
        if public.slot() != slot {
            turn.stats.seals_refused_wrong_slot += 1;
            return Err(Refusal::NotAllowed);
        }
        let origin = Origin { meeting: self.id, slot, rk: member.rk };
        let stamp = turn.stamps.stamp(&origin, Minute::from(turn.wall), &public);
        turn.stats.seals_stamped += 1;
        turn.stats.seals_forwarded += self.slots.len().saturating_sub(1) as u64;
        let others = self.slots.keys().copied().filter(|other| *other != conn);
        turn.send_all(others, &FromRelay::Sealed { from: slot, stamp, bytes });
        turn.send(conn, &FromRelay::Sealed { from: slot, stamp, bytes: public.encode() });
        Ok(())
    }
}

/// What the relay may know of a seal, if these bytes can be one.
fn public_part(bytes: &[u8]) -> Option<SealPublic> {
    let (public, body) = bytes.split_at_checked(SealPublic::WIRE_LEN)?;
    let public = SealPublic::decode(public).ok()?;
    let [mark, ..] = public.kid.to_be_bytes();
    let is_seal = body.len() >= TAG_LEN && mark == KID_MARK && (1..=MAX_FRAMES).contains(&public.count);
    is_seal.then_some(public)
}
