//! Members: slots, what is sent between them, and how they lose them.

use std::time::{Duration, Instant};

use conclave_protocol::capability::{CLOCK_TOLERANCE, Capability, Refused, Revoked, SignedCapability};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::Signature;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::datagram::{Datagram, Kind};
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, PhaseShift, Refusal};

use super::limits::Limits;
use super::meeting::{Allowances, Knows, Meeting, Member};
use super::stats::Drop;
use super::turn::Turn;
use crate::core::ConnId;

/// Frame duration in ms while the descriptor is not known, which no member is without.
const LONGEST_FRAME_MS: u8 = 20;

impl Meeting {
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
        match self.slots.get(&conn) {
            Some(&slot) if slot != capability.slot => Err(Refusal::NotAllowed),
            Some(_) => self.renew(turn, conn, &capability),
            None => self.take_slot(turn, conn, &capability),
        }
    }

    fn verify(
        &self,
        wall: UnixMillis,
        exporter: &[u8; 32],
        signed: &SignedCapability,
        possession: &Signature,
    ) -> Result<Capability, Refusal> {
        let authority = self.authority().ok_or(Refusal::Capability)?;
        let capability = signed.verify(&authority, self.line.as_ref(), self.id, wall);
        let capability = capability.map_err(|refused| match refused {
            Refused::Time if signed.claimed.not_after < wall => Refusal::Expired,
            _ => Refusal::Capability,
        })?;
        signed.verify_possession(exporter, possession).map_err(|_| Refusal::Capability)?;
        if self.is_revoked(capability.slot) {
            return Err(Refusal::Revoked);
        }
        if self.may_sign(capability.signer) { Ok(capability) } else { Err(Refusal::Capability) }
    }

    pub(super) fn is_revoked(&self, slot: MemberIndex) -> bool {
        self.revoked.as_ref().is_some_and(|revoked| revoked.slots.contains(&slot))
    }

    fn renew(&mut self, turn: &mut Turn<'_>, conn: ConnId, capability: &Capability) -> Result<(), Refusal> {
        if self.members.get(&capability.slot).is_none_or(|held| held.serial > capability.serial) {
            return Err(Refusal::Capability);
        }
        let held = self.vacate(capability.slot);
        self.seat(turn, conn, capability, held.as_ref());
        turn.send(conn, &FromRelay::Attached { slot: capability.slot });
        Ok(())
    }

    fn take_slot(&mut self, turn: &mut Turn<'_>, conn: ConnId, capability: &Capability) -> Result<(), Refusal> {
        let slot = capability.slot;
        match self.members.get(&slot) {
            Some(held) if held.serial > capability.serial => return Err(Refusal::Replaced),
            None if self.members.len() >= self.max_members(turn.limits) => return Err(Refusal::Full),
            _ => {}
        }
        // First of all, because whoever is a guest may have to make room for the connection that is replaced.
        self.unseat_guest(turn, conn);
        let old = self.vacate(slot);
        if let Some(old) = &old {
            turn.detach(old.conn, Refusal::Replaced);
            self.seat_guest(turn, old.conn, Knows::Descriptor);
        }
        self.seat(turn, conn, capability, old.as_ref());
        turn.stats.attached += 1;
        self.welcome_member(turn, conn, slot);
        // To the others a connection that replaces another is the same member, who has been here all the time.
        if old.is_none() {
            self.tell_presence(turn, slot, true);
        }
        Ok(())
    }

    /// Gives a slot that nobody holds any more. It goes on sending and leading where `before`, its last holder, ended.
    fn seat(&mut self, turn: &Turn<'_>, conn: ConnId, capability: &Capability, before: Option<&Member>) {
        let &Capability { slot, serial, signer, rk, .. } = capability;
        let expires = expiry(turn.now, turn.wall, capability);
        let allowances = before.map(|before| before.allowances).unwrap_or_default();
        let phase = before.map(|before| before.phase).unwrap_or_default();
        let may_lead = capability.rights.may_lead();
        let leads = may_lead.then(|| before.and_then(|before| before.leads).unwrap_or_else(|| self.begin()));
        self.members.insert(slot, Member { conn, leads, serial, rk, signer, expires, allowances, phase });
        self.slots.insert(conn, slot);
        self.expiries.insert((expires, slot));
        self.leaders.extend(leads.map(|beginning| (beginning, slot)));
    }

    /// Takes the slot from whoever holds it, and tells nobody.
    pub(super) fn vacate(&mut self, slot: MemberIndex) -> Option<Member> {
        let member = self.members.remove(&slot)?;
        self.slots.remove(&member.conn);
        self.expiries.remove(&(member.expires, slot));
        member.leads.map(|beginning| self.leaders.remove(&beginning));
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
    pub(super) fn detach(&mut self, turn: &mut Turn<'_>, slots: &[MemberIndex], reason: Refusal) {
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
        self.learn_revocation(turn, &revoked)?;
        // A leader that is behind is shown the revocation that it doesn't know, so that it can go on from there.
        let newest = self.revoked.as_ref().filter(|newest| newest.replaces(&revoked, self.line.as_ref()));
        if let Some(newest) = newest {
            turn.send(conn, &FromRelay::Revoked { revoked: newest.clone() });
        }
        Ok(())
    }

    /// Keeps a revocation that is newer than the one kept, and carries it out. Without a descriptor it can't be
    /// checked, and nobody holds a slot: then it is passed over.
    pub(super) fn learn_revocation(&mut self, turn: &mut Turn<'_>, revoked: &Revoked) -> Result<(), Refusal> {
        let Some(authority) = self.authority() else { return Ok(()) };
        let line = self.line.as_ref();
        revoked.verify(&authority, line, self.id).map_err(|_| Refusal::NotAllowed)?;
        if self.revoked.as_ref().is_some_and(|known| !revoked.replaces(known, line)) {
            return Ok(());
        }
        if !self.may_sign(revoked.signer) {
            return Err(Refusal::NotAllowed);
        }
        // Those who lose their slots hear why, and from then on nothing that is said among members.
        turn.send_all(self.slots.keys().copied(), &FromRelay::Revoked { revoked: revoked.clone() });
        self.detach(turn, &revoked.slots, Refusal::Revoked);
        self.revoked = Some(revoked.clone());
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
        let Allowances { messages, bytes: volume, leader_messages, leader_bytes, .. } = &mut member.allowances;
        let allowed = if member.leads.is_some() {
            leader_messages.take(turn.now, 1, limits.leader_messages)
                && leader_bytes.take(turn.now, bytes, limits.leader_bytes)
        } else {
            messages.take(turn.now, 1, limits.member_messages) && volume.take(turn.now, bytes, limits.member_bytes)
        };
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
        member.filter(|member| member.leads.is_some()).ok_or(Refusal::NotAllowed)
    }

    /// Whether a datagram may pass. Allocates nothing.
    pub(super) fn judge(&mut self, now: Instant, limits: &Limits, conn: ConnId, bytes: &[u8]) -> Result<(), Drop> {
        let slot = self.slots.get(&conn).ok_or(Drop::Unattached)?;
        let member = self.members.get_mut(slot).filter(|member| now < member.expires).ok_or(Drop::Unattached)?;
        let datagram = Datagram::parse(bytes).ok_or(Drop::Malformed)?;
        if datagram.slot != *slot {
            return Err(Drop::WrongSlot);
        }
        if datagram.kind == Kind::Removal && member.leads.is_none() {
            return Err(Drop::NotAllowed);
        }
        if member.allowances.datagrams.take(now, 1, limits.datagrams) { Ok(()) } else { Err(Drop::TooFast) }
    }

    /// A frame of a member has come. The first of a meeting gives the common phase.
    pub(super) fn note_phase(&mut self, now: Instant, conn: ConnId) {
        let frame = self.frame();
        let Some(slot) = self.slots.get(&conn) else { return };
        if let Some(member) = self.members.get_mut(slot) {
            member.phase.on_frame(now, *self.tick.get_or_insert(now), frame);
        }
    }

    /// Who is to shift its frame clock, and how.
    pub(super) fn shifts(&mut self, now: Instant) -> impl Iterator<Item = (ConnId, PhaseShift)> {
        let frame = self.frame();
        self.members.values_mut().filter_map(move |member| Some((member.conn, member.phase.ask(now, frame)?)))
    }

    fn frame(&self) -> Duration {
        let millis = self.descriptor.as_ref().map_or(LONGEST_FRAME_MS, |descriptor| descriptor.frame_ms);
        Duration::from_millis(millis.into())
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
