//! Seals in a room: this member's go out, the others' come in, and heads of them go round (`docs/protocol.md` §9).

use super::outbox::Step;
use super::room::Room;
use super::seat::Arrived;
use super::talker::{SHOWN_EVERY, VerifiedSeal};
use crate::epoch::broadcast::Broadcast;
use crate::id::MemberIndex;
use crate::seal::SealHead;
use crate::wire::codec::{Wire, Writer};
use crate::wire::relay::ToRelay;

impl Room {
    /// What is due of seals.
    pub(super) fn run_seals(&mut self, step: &mut Step<'_>) {
        self.seat.make_seals(step.now, &self.secrets.sealing);
        self.send_seals(step);
        let out = &mut *step.out;
        self.seat.judge_talkers(step.now, |event| out.event(event));
        if !self.attached {
            return;
        }
        if let Some(heads) = self.gossip.take(step.now, &self.seat) {
            self.broadcast(step, &Broadcast::Heads(heads));
        }
    }

    /// What was sent so far gets its seal at once: nothing more may follow.
    pub(super) fn seal_now(&mut self, step: &mut Step<'_>) {
        self.seat.end_segment(step.now);
        self.seat.make_seals(step.now, &self.secrets.sealing);
        self.send_seals(step);
    }

    fn send_seals(&mut self, step: &mut Step<'_>) {
        while self.attached
            && let Some(bytes) = self.seat.next_seal()
        {
            step.out.control(&ToRelay::Seal { bytes });
        }
    }

    /// A new epoch: seals that were waiting for it are looked at, and before the end the last one goes out.
    pub(super) fn after_epoch(&mut self, step: &mut Step<'_>, ends: bool) {
        for seal in self.seat.take_early_seals() {
            self.on_sealed(step, &seal);
        }
        if ends {
            self.seal_now(step);
        }
    }

    /// A seal with the relay's stamp. This member's own comes back as its public part.
    pub(super) fn on_sealed(&mut self, step: &mut Step<'_>, seal: &Arrived) {
        if seal.from == self.index() {
            self.own_stamp = Some(seal.stamp);
            return;
        }
        if self.publication.is_published(seal.from) {
            // Anybody can have made it by now.
            return;
        }
        if let Some(verified) = self.seat.on_seal(step.now, seal) {
            self.on_verified(step, seal, &verified);
        }
        let out = &mut *step.out;
        self.seat.tell_talker(step.now, seal.from, |event| out.event(event));
    }

    /// A seal was verified: from now on what it lists can be proved.
    fn on_verified(&mut self, step: &mut Step<'_>, seal: &Arrived, verified: &VerifiedSeal) {
        let VerifiedSeal { name, key, .. } = verified;
        step.kept.ring.on_seal(step.now, seal.from, *name, key, &seal.bytes, Some(seal.stamp));
        if verified.name.segment.0.is_multiple_of(SHOWN_EVERY) {
            self.gossip.note(step.now, verified.head);
        }
    }

    /// Another member shows what it was told.
    pub(super) fn on_heads(&mut self, step: &mut Step<'_>, from: MemberIndex, heads: Vec<SealHead>) {
        if !self.gossip.may_show(step.now, from) {
            return;
        }
        for head in heads {
            if let Some(index) = self.seat.on_head_shown(step.now, from, head) {
                let out = &mut *step.out;
                self.seat.tell_talker(step.now, index, |event| out.event(event));
            }
        }
    }

    /// The proof that a talker told two members two things.
    pub(super) fn talkers_proof(&self) -> Option<Vec<u8>> {
        let (member, contradiction) = self.seat.convicted()?;
        let mut w = Writer::default();
        w.u16(0);
        w.bytes(&self.seat.descriptor().encode());
        member.write(&mut w);
        contradiction.write(&mut w);
        Some(w.into_bytes())
    }
}
