//! Members: slots, what is sent between them, and how they lose them.

use std::time::{Duration, Instant};

use conclave_protocol::capability::{CLOCK_TOLERANCE, Capability, Refused, Revoked, SignedCapability};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::{PublicKey, Signature};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::datagram::{Datagram, Kind};
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, Refusal};

use super::limits::Limits;
use super::meeting::{Allowances, Knows, Meeting, Member};
use super::stats::Drop;
use super::turn::Turn;
use crate::core::ConnId;

impl Meeting {
    /// The meeting's authority key, once anybody has brought the descriptor.
    pub(super) fn authority(&self) -> Option<PublicKey> {
        self.descriptor.as_ref().map(|descriptor| descriptor.authority)
    }

    /// A client takes a slot, or renews its capability.
    pub(super) fn attach(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        exporter: &[u8; 32],
        signed: &SignedCapability,
        possession: &Signature,
    ) -> Result<(), Refusal> {
        let capability = self.verify(turn.wall, exporter, signed, possession)?;
        let was_led = self.is_led();
        match self.slots.get(&conn) {
            Some(&slot) if slot != capability.slot => return Err(Refusal::NotAllowed),
            Some(_) => self.renew(turn, conn, &capability)?,
            None => self.take_slot(turn, conn, &capability)?,
        }
        if !was_led && self.is_led() {
            self.on_led(turn);
        }
        Ok(())
    }

    fn verify(
        &self,
        wall: UnixMillis,
        exporter: &[u8; 32],
        signed: &SignedCapability,
        possession: &Signature,
    ) -> Result<Capability, Refusal> {
        let authority = self.authority().ok_or(Refusal::Capability)?;
        let capability = signed.verify(&authority, self.id, wall).map_err(|refused| match refused {
            Refused::Time if signed.claimed.not_after < wall => Refusal::Expired,
            _ => Refusal::Capability,
        })?;
        signed.verify_possession(exporter, possession).map_err(|_| Refusal::Capability)?;
        let is_revoked = self.revoked.as_ref().is_some_and(|revoked| revoked.slots.contains(&capability.slot));
        if is_revoked { Err(Refusal::Revoked) } else { Ok(capability) }
    }

    fn renew(&mut self, turn: &mut Turn<'_>, conn: ConnId, capability: &Capability) -> Result<(), Refusal> {
        let Some(held) = self.members.get(&capability.slot).filter(|held| held.serial <= capability.serial) else {
            return Err(Refusal::Capability);
        };
        let allowances = held.allowances;
        self.seat(turn, conn, capability, allowances);
        turn.send(conn, &FromRelay::Attached { slot: capability.slot });
        Ok(())
    }

    fn take_slot(&mut self, turn: &mut Turn<'_>, conn: ConnId, capability: &Capability) -> Result<(), Refusal> {
        let slot = capability.slot;
        let allowances = match self.members.get(&slot) {
            Some(held) if held.serial > capability.serial => return Err(Refusal::Replaced),
            Some(held) => Some(held.allowances),
            None if self.members.len() >= self.max_members(turn.limits) => return Err(Refusal::Full),
            None => None,
        };
        // First of all, because whoever is a guest may have to make room for the connection that is replaced.
        self.unseat_guest(turn, conn);
        if let Some(old) = self.vacate(slot) {
            turn.detach(old.conn, Refusal::Replaced);
            self.seat_guest(turn, old.conn, Knows::Descriptor);
        }
        self.seat(turn, conn, capability, allowances.unwrap_or_default());
        turn.stats.attached += 1;
        self.welcome_member(turn, conn, slot);
        // To the others a connection that replaces another is the same member, who has been here all the time.
        if allowances.is_none() {
            self.tell_presence(turn, slot, true);
        }
        Ok(())
    }

    fn seat(&mut self, turn: &Turn<'_>, conn: ConnId, capability: &Capability, allowances: Allowances) {
        let slot = capability.slot;
        self.vacate(slot);
        let expires = expiry(turn.now, turn.wall, capability);
        self.members.insert(slot, Member::new(conn, capability, expires, allowances));
        self.slots.insert(conn, slot);
        self.expiries.insert((expires, slot));
    }

    /// Takes the slot from whoever holds it, and tells nobody.
    pub(super) fn vacate(&mut self, slot: MemberIndex) -> Option<Member> {
        let member = self.members.remove(&slot)?;
        self.slots.remove(&member.conn);
        self.expiries.remove(&(member.expires, slot));
        Some(member)
    }

    fn max_members(&self, limits: &Limits) -> usize {
        let promised = self.descriptor.as_ref().map_or(0, |descriptor| usize::from(descriptor.max_members));
        promised.min(limits.max_members)
    }

    /// What a new member is told: that it is one, who else is here, and who may not be.
    fn welcome_member(&self, turn: &mut Turn<'_>, conn: ConnId, slot: MemberIndex) {
        turn.send(conn, &FromRelay::Attached { slot });
        let others = self.members.keys().filter(|other| **other != slot);
        for &other in others.take(turn.limits.max_presences) {
            turn.send(conn, &FromRelay::Presence { slot: other, here: true });
        }
        if let Some(revoked) = &self.revoked {
            turn.send(conn, &FromRelay::Revoked { revoked: revoked.clone() });
        }
    }

    /// Tells all members but the one itself.
    pub(super) fn tell_presence(&self, turn: &mut Turn<'_>, slot: MemberIndex, here: bool) {
        let others = self.members.iter().filter(|(other, _)| **other != slot).map(|(_, member)| member.conn);
        turn.send_all(others, &FromRelay::Presence { slot, here });
    }

    /// Capabilities have run out.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        let due = self.expiries.iter().take_while(|(at, _)| *at <= turn.now);
        let due: Vec<_> = due.map(|(_, slot)| *slot).collect();
        self.detach(turn, &due, Refusal::Expired);
    }

    /// Takes slots away. Their connections become guests; the members who are left hear who is gone.
    fn detach(&mut self, turn: &mut Turn<'_>, slots: &[MemberIndex], reason: Refusal) {
        let mut gone = Vec::new();
        for &slot in slots {
            if let Some(member) = self.vacate(slot) {
                gone.push(slot);
                turn.detach(member.conn, reason);
                self.seat_guest(turn, member.conn, Knows::Descriptor);
            }
        }
        for slot in gone {
            self.tell_presence(turn, slot, false);
        }
    }

    /// A leader revokes slots.
    pub(super) fn revoke(&mut self, turn: &mut Turn<'_>, conn: ConnId, revoked: Revoked) -> Result<(), Refusal> {
        self.charge_act(turn, conn)?;
        let seq = revoked.seq;
        self.learn_revocation(turn, revoked).map_err(|_| Refusal::NotAllowed)?;
        // A leader that is behind is shown the revocation that it doesn't know, so that it can go on from there.
        if let Some(newest) = self.revoked.clone().filter(|newest| newest.seq > seq) {
            turn.send(conn, &FromRelay::Revoked { revoked: newest });
        }
        Ok(())
    }

    /// Keeps a revocation that is newer than the one kept, and carries it out. Without a descriptor it can't be
    /// checked, and nobody holds a slot: then it is passed over.
    pub(super) fn learn_revocation(&mut self, turn: &mut Turn<'_>, revoked: Revoked) -> Result<(), Refusal> {
        let Some(authority) = self.authority() else { return Ok(()) };
        revoked.verify(&authority, self.id).map_err(|_| Refusal::Capability)?;
        if self.revoked.as_ref().is_some_and(|known| known.seq >= revoked.seq) {
            return Ok(());
        }
        // Those who lose their slots hear why, and from then on nothing that is said among members.
        turn.send_all(self.slots.keys().copied(), &FromRelay::Revoked { revoked: revoked.clone() });
        self.detach(turn, &revoked.slots, Refusal::Revoked);
        self.revoked = Some(revoked);
        Ok(())
    }

    /// A member's message to another one or to all.
    pub(super) fn send(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        to: MemberIndex,
        bytes: Vec<u8>,
    ) -> Result<(), Refusal> {
        let from = self.charge(turn, conn, bytes.len())?;
        let message = FromRelay::Deliver { from, bytes };
        if to == EVERYBODY {
            turn.send_all(self.slots.keys().copied().filter(|other| *other != conn), &message);
        } else if let Some(receiver) = self.members.get(&to).filter(|receiver| receiver.conn != conn) {
            turn.send(receiver.conn, &message);
        } else {
            turn.stats.messages_undeliverable += 1;
        }
        Ok(())
    }

    /// Takes a message of `bytes` bytes from a member's allowance; the slot it comes from.
    fn charge(&mut self, turn: &Turn<'_>, conn: ConnId, bytes: usize) -> Result<MemberIndex, Refusal> {
        let &slot = self.slots.get(&conn).ok_or(Refusal::NotAllowed)?;
        let member = self.members.get_mut(&slot).ok_or(Refusal::NotAllowed)?;
        let limits = turn.limits;
        let (messages, volume) = if member.rights.may_lead() {
            (limits.leader_messages, limits.leader_bytes)
        } else {
            (limits.member_messages, limits.member_bytes)
        };
        let Allowances { messages: message_bucket, bytes: byte_bucket, .. } = &mut member.allowances;
        let allowed = message_bucket.take(turn.now, 1, messages) && byte_bucket.take(turn.now, bytes, volume);
        if allowed { Ok(slot) } else { Err(Refusal::TooFast) }
    }

    /// The same for what only leaders may send.
    pub(super) fn charge_leader(&mut self, turn: &Turn<'_>, conn: ConnId, bytes: usize) -> Result<(), Refusal> {
        self.leader(conn)?;
        self.charge(turn, conn, bytes).map(|_| ())
    }

    /// Takes one act from a leader's allowance.
    pub(super) fn charge_act(&mut self, turn: &Turn<'_>, conn: ConnId) -> Result<(), Refusal> {
        let leader = self.leader(conn)?;
        let allowed = leader.allowances.acts.take(turn.now, 1, turn.limits.acts);
        if allowed { Ok(()) } else { Err(Refusal::TooFast) }
    }

    fn leader(&mut self, conn: ConnId) -> Result<&mut Member, Refusal> {
        let member = self.slots.get(&conn).and_then(|slot| self.members.get_mut(slot));
        member.filter(|member| member.rights.may_lead()).ok_or(Refusal::NotAllowed)
    }

    /// Whether a datagram may pass. Allocates nothing.
    pub(super) fn judge(&mut self, now: Instant, limits: &Limits, conn: ConnId, bytes: &[u8]) -> Result<(), Drop> {
        let slot = self.slots.get(&conn).ok_or(Drop::Unattached)?;
        let member = self.members.get_mut(slot).filter(|member| now < member.expires).ok_or(Drop::Unattached)?;
        let datagram = Datagram::parse(bytes).ok_or(Drop::Malformed)?;
        if datagram.slot != *slot {
            return Err(Drop::WrongSlot);
        }
        if datagram.kind == Kind::Removal && !member.rights.may_lead() {
            return Err(Drop::NotAllowed);
        }
        if member.allowances.datagrams.take(now, 1, limits.datagrams) { Ok(()) } else { Err(Drop::TooFast) }
    }

    /// Everybody who gets a datagram of `from`. A capability that has just run out counts no more, even when the
    /// timeout is late.
    pub(super) fn listeners(&self, now: Instant, from: ConnId) -> impl Iterator<Item = ConnId> {
        let members = self.members.values();
        members.filter(move |member| member.conn != from && now < member.expires).map(|member| member.conn)
    }
}

/// The first moment at which [`SignedCapability::verify`] refuses the capability, which it accepts now.
fn expiry(now: Instant, wall: UnixMillis, capability: &Capability) -> Instant {
    let last = capability.not_after.plus(CLOCK_TOLERANCE);
    now + Duration::from_millis(last.0.saturating_sub(wall.0)) + Duration::from_millis(1)
}
