//! Who leads: the line of succession, the leaders present, and what guests are told of both (`docs/protocol.md` §5.5,
//! §6.2).

use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::PublicKey;
use conclave_protocol::succession::{Line, Rank, authority_of, rank};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal};

use super::meeting::{Knows, Meeting};
use super::turn::Turn;
use crate::core::ConnId;

/// Counts, within one meeting, how often a slot has begun to lead: the highest began last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Beginning(u64);

/// What guests are told beside the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lead {
    leader: MemberIndex,
    line: Option<u32>,
}

impl Meeting {
    /// The meeting's authority key, once anybody has brought the descriptor.
    pub(super) fn authority(&self) -> Option<PublicKey> {
        self.descriptor.as_ref().map(|descriptor| descriptor.authority)
    }

    /// A client brings the line of succession. Who knows no more than the meeting's id has none to bring.
    pub(super) fn bring_line(&mut self, turn: &mut Turn<'_>, conn: ConnId, line: Line) -> Result<(), Refusal> {
        if self.guests.get(&conn).is_some_and(|guest| guest.knows == Knows::Id) {
            turn.stats.lines_refused += 1;
            return Err(Refusal::NotAllowed);
        }
        self.learn_line(turn, line)
    }

    /// Keeps a line that is newer than the one kept, and takes the slots of those whose key it no longer holds. Without
    /// a descriptor it can't be checked, and nobody holds a slot: then it is passed over.
    pub(super) fn learn_line(&mut self, turn: &mut Turn<'_>, line: Line) -> Result<(), Refusal> {
        let Some(authority) = self.authority() else { return Ok(()) };
        // What nearly every Hello brings need not be checked again.
        if self.line.as_ref() == Some(&line) {
            return Ok(());
        }
        if line.verify(&authority, self.id).is_err() {
            turn.stats.lines_refused += 1;
            return Err(Refusal::NotAllowed);
        }
        if self.line.as_ref().is_some_and(|known| known.seq >= line.seq) {
            return Ok(());
        }
        let known = self.line.replace(line);
        turn.stats.lines_learned += 1;
        let has_changed =
            |slot| authority_of(known.as_ref(), &authority, slot) != authority_of(self.line.as_ref(), &authority, slot);
        // Only who signs for itself can lead, so no leader is left whom the line doesn't name.
        let own = self.members.iter().filter(|(slot, member)| member.signer == **slot);
        let lost: Vec<_> = own.map(|(slot, _)| *slot).filter(|slot| has_changed(*slot)).collect();
        self.detach(turn, &lost, Refusal::Capability);
        Ok(())
    }

    /// Whether what `slot` signs counts: the host's does, and a co-host's unless it was removed. Who was removed signs
    /// nothing, even while the line still names it.
    pub(super) fn may_sign(&self, slot: MemberIndex) -> bool {
        match rank(self.line.as_ref(), slot) {
            Rank::Host => true,
            Rank::Delegate(_) => !self.is_revoked(slot),
            Rank::Member => false,
        }
    }

    /// A slot begins to lead.
    pub(super) fn begin(&mut self) -> Beginning {
        self.beginnings += 1;
        Beginning(self.beginnings)
    }

    /// Whether a leader is present.
    pub(super) fn is_led(&self) -> bool {
        !self.leaders.is_empty()
    }

    /// The connections of the leaders.
    pub(super) fn leader_conns(&self) -> impl Iterator<Item = ConnId> {
        self.leaders.values().filter_map(|slot| self.members.get(slot)).map(|member| member.conn)
    }

    /// What there is to tell guests; nothing without a leader.
    pub(super) fn lead(&self) -> Option<Lead> {
        let (_, &leader) = self.leaders.last_key_value()?;
        Some(Lead { leader, line: self.line.as_ref().map(|line| line.seq) })
    }

    /// Tells guests that a leader is present, which one, and by which line.
    pub(super) fn announce(&self, turn: &mut Turn<'_>, to: impl IntoIterator<Item = ConnId>) {
        let (Some(descriptor), Some(lead)) = (&self.descriptor, self.lead()) else { return };
        let (descriptor, line) = (descriptor.encode(), self.line.clone());
        turn.send_all(to, &FromRelay::Meeting { descriptor, line, leader: lead.leader });
    }

    /// Ends every call that may have changed who leads: tells guests what they don't know yet. Those with a mailbox need
    /// not hear of a leader who only came back; everybody has to hear of another one, because it is another handshake.
    pub(super) fn tell_lead(&mut self, turn: &mut Turn<'_>, was_led: bool) {
        let Some(lead) = self.lead() else { return };
        let is_news = self.told.replace(lead) != Some(lead);
        if is_news || !was_led {
            let to = self.guests.iter().filter(|(_, guest)| is_news || guest.mailbox.is_none());
            self.announce(turn, to.map(|(conn, _)| *conn));
        }
        if !was_led {
            self.open_held(turn);
        }
    }
}
