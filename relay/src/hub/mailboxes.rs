//! The way between guests and leaders: the gate, mailboxes and mail. A guest reaches nobody else, and learns nothing
//! but what a leader sends it.

use conclave_protocol::capability::{KnockGate, KnockToken};
use conclave_protocol::wire::relay::{FromRelay, MailboxId, Refusal};
use sha2::{Digest, Sha256};

use super::meeting::{Mailbox, Meeting};
use super::turn::Turn;
use crate::bucket::Bucket;
use crate::core::ConnId;

/// Domain of the hash that names mailboxes.
const LABEL: &[u8] = b"conclave/1 relay mailbox";

impl Meeting {
    /// A guest shows its token. As long as no leader is present, or none has set the gate, the token is held and
    /// nothing is answered: an unknown meeting and an absent host look alike.
    pub(super) fn open_mailbox(&mut self, turn: &mut Turn<'_>, conn: ConnId, token: KnockToken) -> Result<(), Refusal> {
        let guest = self.guests.get_mut(&conn).filter(|guest| guest.mailbox.is_none()).ok_or(Refusal::NotAllowed)?;
        guest.held = Some(token);
        self.try_held(turn, conn);
        Ok(())
    }

    /// Looks at all tokens that are held, the oldest connection's first.
    pub(super) fn open_held(&mut self, turn: &mut Turn<'_>) {
        let holders = self.guests.iter().filter(|(_, guest)| guest.held.is_some());
        let holders: Vec<_> = holders.map(|(conn, _)| *conn).collect();
        for conn in holders {
            self.try_held(turn, conn);
        }
    }

    fn try_held(&mut self, turn: &mut Turn<'_>, conn: ConnId) {
        let Some(gate) = self.gate.as_ref().filter(|_| self.is_led()) else { return };
        let Some(token) = self.guests.get_mut(&conn).and_then(|guest| guest.held.take()) else { return };
        if !gate.opens_for(&token) {
            self.refuse_token(turn, conn);
        } else if self.mailboxes.len() >= turn.limits.max_mailboxes {
            turn.refuse(conn, Refusal::Full);
        } else {
            let id = self.new_mailbox_id();
            self.mailboxes.insert(id, conn);
            if let Some(guest) = self.guests.get_mut(&conn) {
                guest.mailbox = Some(Mailbox { id, mail: Bucket::default() });
            }
            turn.send(conn, &FromRelay::MailboxOpen);
        }
    }

    /// An id that is free here. It is a hash, because a count over all meetings would tell a host how many guests the
    /// others have, and a count for each meeting would begin again when the meeting does.
    fn new_mailbox_id(&mut self) -> MailboxId {
        loop {
            self.mailboxes_opened += 1;
            let hash = Sha256::new().chain_update(LABEL).chain_update(self.seed);
            let hash: [u8; 32] = hash.chain_update(self.mailboxes_opened.to_be_bytes()).finalize().into();
            let [a, b, c, d, ..] = hash;
            let id = MailboxId(u32::from_be_bytes([a, b, c, d]));
            if !self.mailboxes.contains_key(&id) {
                return id;
            }
        }
    }

    /// A guest's mail, for all leaders.
    pub(super) fn mail(&mut self, turn: &mut Turn<'_>, conn: ConnId, bytes: Vec<u8>) -> Result<(), Refusal> {
        let mailbox = self.guests.get_mut(&conn).and_then(|guest| guest.mailbox.as_mut()).ok_or(Refusal::NotAllowed)?;
        let id = mailbox.id;
        // The guest's own allowance first, so that a guest beyond it takes nothing from the others.
        let allowed = mailbox.mail.take(turn.now, 1, turn.limits.guest_mail)
            && self.mail.take(turn.now, 1, turn.limits.meeting_mail);
        if !allowed {
            return Err(Refusal::TooFast);
        }
        if self.is_led() {
            turn.send_all(self.leader_conns(), &FromRelay::MailFrom { mailbox: id, bytes });
        } else {
            turn.stats.messages_undeliverable += 1;
        }
        Ok(())
    }

    /// A leader's mail to a guest.
    pub(super) fn mail_to(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        mailbox: MailboxId,
        bytes: Vec<u8>,
    ) -> Result<(), Refusal> {
        self.charge_leader(turn, conn, bytes.len())?;
        match self.mailboxes.get(&mailbox) {
            Some(&guest) => turn.send(guest, &FromRelay::Mail { bytes }),
            None => turn.stats.messages_undeliverable += 1,
        }
        Ok(())
    }

    /// A leader closes a mailbox; the other leaders hear of it. The guest may show its token again.
    pub(super) fn close_mailbox(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        mailbox: MailboxId,
    ) -> Result<(), Refusal> {
        self.charge_leader(turn, conn, 0)?;
        let Some(owner) = self.mailboxes.remove(&mailbox) else { return Ok(()) };
        if let Some(guest) = self.guests.get_mut(&owner) {
            guest.mailbox = None;
        }
        let others = self.leader_conns().filter(|leader| *leader != conn);
        turn.send_all(others, &FromRelay::MailboxGone { mailbox });
        Ok(())
    }

    /// A leader sets the gate. One whose signer signs no more gives way to any other, however high its seq.
    pub(super) fn set_gate(&mut self, turn: &mut Turn<'_>, conn: ConnId, gate: KnockGate) -> Result<(), Refusal> {
        self.charge_act(turn, conn)?;
        let authority = self.authority().ok_or(Refusal::NotAllowed)?;
        gate.verify(&authority, self.line.as_ref(), self.id).map_err(|_| Refusal::NotAllowed)?;
        if !self.may_sign(gate.signer) {
            return Err(Refusal::NotAllowed);
        }
        if self.gate.as_ref().is_none_or(|known| gate.seq >= known.seq || !self.may_sign(known.signer)) {
            self.gate = Some(gate);
            self.open_held(turn);
        }
        Ok(())
    }
}
