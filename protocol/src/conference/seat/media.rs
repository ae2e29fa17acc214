//! Frames and seals: this member's own, and the others'.

use super::super::event::Event;
use super::super::talker::{SealOf, Talker, VerifiedSeal};
use super::{Arrived, EARLY_SEALS, EARLY_SEALS_EACH, SEAL_DUE, Seat, UNCONFIRMED, WAITING, WAITING_EACH};
use crate::epoch::roster::Member;
use crate::epoch::statement::{ChainHash, Rate};
use crate::epoch::witness::Witnessed;
use crate::evidence::ring::Ring;
use crate::id::{Epoch, MemberIndex};
use crate::seal::{Contradiction, SealHead};
use crate::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use crate::sframe::header::Kid;
use crate::sframe::receiver::{Ciphertext, Dropped, Play};
use crate::sframe::sender::{Exhausted, Sealer};
use crate::sframe::{KeyName, frames_per_segment};
use crate::sign::KeyPair;
use crate::stamp::SealPublic;
use crate::wire::codec::Wire;
use std::collections::VecDeque;
use std::time::Instant;

impl Seat {
    /// Seals a frame. Between a removal and its epoch key, silence goes out instead of what was said.
    pub(in crate::conference) fn seal(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        out: &mut [u8; DATAGRAM_LEN],
    ) -> Result<(), Exhausted> {
        let at_boundary = self.sealer.as_ref().is_none_or(Sealer::at_segment_boundary);
        if self.activated
            && at_boundary
            && let Some(next) = self.next_sealer.take()
        {
            self.use_sealer(now, next);
        }
        let sealer = self.sealer.as_mut().ok_or(Exhausted)?;
        if self.held_until > sealer.epoch() {
            sealer.seal(&Frame { opus: &[], level: 127, ..*frame }, out)?;
        } else {
            sealer.seal(frame, out)?;
        }
        self.sealing.on_frame(now, sealer);
        Ok(())
    }

    /// What was sent so far gets its seal now.
    pub(in crate::conference) fn end_segment(&mut self, now: Instant) {
        if let Some(sealer) = &mut self.sealer {
            self.sealing.close(now, sealer);
        }
    }

    /// Makes the seals that are due.
    pub(in crate::conference) fn make_seals(&mut self, now: Instant, key: &KeyPair) {
        if self.sealing.is_over(now) {
            self.end_segment(now);
        }
        let per_segment = frames_per_segment(self.descriptor.frame_ms);
        let statements = &self.statements;
        self.sealing.make(&self.meeting, per_segment, key, |epoch| chain_at(statements, epoch));
    }

    /// The next seal to be sent.
    pub(in crate::conference) fn next_seal(&mut self) -> Option<Vec<u8>> {
        self.sealing.next()
    }

    // ---- the others' ----

    /// Opens the SFrame ciphertext that the relay says is of `slot`; `None` for a frame that waits for its epoch's key or its seal.
    pub(in crate::conference) fn open<'p>(
        &mut self,
        now: Instant,
        slot: MemberIndex,
        sframe: &[u8],
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
        ring: &mut Ring,
    ) -> Result<Option<Frame<'p>>, Dropped> {
        let ciphertext = Ciphertext::parse(sframe)?;
        if ciphertext.name.index != slot {
            return Err(Dropped::UnknownKey);
        }
        let epoch = self.epoch();
        if ciphertext.name.epoch > epoch {
            return if self.keep_early_frame(now, slot, &ciphertext) { Ok(None) } else { Err(Dropped::UnknownKey) };
        }
        let is_open = self.rate() == Rate::Open;
        let talker = self.talkers.get_mut(&slot).ok_or(Dropped::UnknownKey)?;
        if talker.is_silenced() {
            return Err(Dropped::Silenced);
        }
        let talking_since = talker.talking_since(now);
        // Who does not confirm what everybody confirms may have been told something else.
        // At the open rate those confirm who talk; the time runs from when they begin.
        let since = if is_open { talker.confirmed.max(talking_since) } else { talker.confirmed };
        if now.saturating_duration_since(since) > UNCONFIRMED {
            return Err(Dropped::Unconfirmed);
        }
        let play = talker.play();
        if play == Play::Vouched && self.waiting >= WAITING && talker.waiting() >= WAITING_EACH {
            return Err(Dropped::TooNew);
        }
        let opener = if ciphertext.name.epoch == epoch {
            &mut talker.current
        } else {
            let mut previous = talker.previous.iter_mut().zip(&self.previous_until);
            let opener = previous.find_map(|(opener, until)| {
                let opener = opener.as_mut().filter(|opener| opener.epoch() == ciphertext.name.epoch)?;
                until.is_none_or(|until| now < until).then_some(opener)
            });
            opener.ok_or(Dropped::UnknownKey)?
        };
        let opened = opener.open(&ciphertext, play, now, plaintext);
        if matches!(opened, Err(Dropped::Unlisted)) {
            self.talkers_due = Some(now);
        }
        let frame = opened?;
        talker.on_opened(now);
        let due = now + SEAL_DUE;
        self.talkers_due = Some(self.talkers_due.map_or(due, |known| known.min(due)));
        // A flag alone hides nothing that can be heard. What a frame that waits holds is not known yet.
        let is_muted = |frame: &Frame<'_>| frame.microphone == Microphone::Muted && frame.opus.is_empty();
        let muted = frame.as_ref().is_some_and(is_muted);
        ring.on_frame(now, slot, ciphertext.name, ciphertext.number(), &ciphertext.bytes(), muted);
        if frame.is_none() {
            self.waiting += 1;
        }
        Ok(frame)
    }

    /// The next frame that waited for its seal and is listed in it.
    pub(in crate::conference) fn next_vouched<'p>(
        &mut self,
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
    ) -> Option<(MemberIndex, Frame<'p>)> {
        while let Some(index) = self.vouched.first().copied() {
            let talker = self.talkers.get(&index).filter(|talker| talker.has_vouched() && !talker.is_silenced());
            if talker.is_some() {
                let vouched = self.talkers.get_mut(&index)?.next_vouched(plaintext)?;
                self.waiting = self.waiting.saturating_sub(1);
                return Some((index, vouched.frame));
            }
            self.vouched.remove(0);
        }
        None
    }

    /// A talker's seal: checks it, and gives it if it is verified and new.
    pub(in crate::conference) fn on_seal(&mut self, now: Instant, seal: &Arrived) -> Option<VerifiedSeal> {
        let public = SealPublic::decode(seal.bytes.get(..SealPublic::WIRE_LEN)?).ok()?;
        let name = KeyName::of(Kid(public.kid)).filter(|name| name.index == seal.from)?;
        if name.epoch > self.epoch() {
            self.keep_early(name.epoch, seal);
            return None;
        }
        let chain = chain_at(&self.statements, name.epoch)?;
        let vk = self.roster.member(seal.from)?.cert.keys.sealing;
        let per_segment = frames_per_segment(self.descriptor.frame_ms);
        let talker = self.talkers.get_mut(&seal.from)?;
        let of = SealOf { meeting: &self.meeting, chain, name, vk: &vk, per_segment, bytes: &seal.bytes };
        let verified = talker.on_seal(now, &of);
        if talker.has_vouched() && !self.vouched.contains(&seal.from) {
            self.vouched.push(seal.from);
        }
        verified
    }

    fn keep_early(&mut self, epoch: Epoch, seal: &Arrived) {
        let of_this = self.early_seals.iter().filter(|early| early.from == seal.from).count();
        // Only the epoch that is on its way can have seals, and the one after it.
        let is_near = epoch.number() <= self.epoch().number().saturating_add(2);
        if is_near && of_this < EARLY_SEALS_EACH && self.early_seals.len() < EARLY_SEALS {
            let Arrived { from, stamp, ref bytes } = *seal;
            self.early_seals.push(Arrived { from, stamp, bytes: bytes.clone() });
        }
    }

    /// Seals that came before their epoch's key.
    pub(in crate::conference) fn take_early_seals(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut self.early_seals)
    }

    /// Another member shows the head of a seal that it was given.
    pub(in crate::conference) fn on_head_shown(
        &mut self,
        now: Instant,
        by: MemberIndex,
        shown: SealHead,
    ) -> Option<MemberIndex> {
        let index = KeyName::of(Kid(shown.kid))?.index;
        let vk = self.roster.member(index)?.cert.keys.sealing;
        self.talkers.get_mut(&index)?.on_shown(now, &self.meeting, &vk, by, shown);
        Some(index)
    }

    /// Looks at all talkers whose time has come, and says what was found.
    pub(in crate::conference) fn judge_talkers(&mut self, now: Instant, mut say: impl FnMut(Event)) {
        if self.talkers_due.is_none_or(|due| due > now) {
            return;
        }
        let indexes: Vec<MemberIndex> = self.talkers.keys().copied().collect();
        for index in indexes {
            if let Some(talker) = self.talkers.get_mut(&index) {
                talker.judge(now);
            }
            self.tell_talker(now, index, &mut say);
        }
        self.talkers_due = self.talkers.values().filter_map(Talker::due).min();
        self.waiting = self.talkers.values().map(Talker::waiting).sum();
    }

    /// Says what was found about one talker. What is overdue by now is not asked: after a time in which this member
    /// itself stood still, what arrived meanwhile is taken in first.
    pub(in crate::conference) fn tell_talker(&mut self, now: Instant, index: MemberIndex, mut say: impl FnMut(Event)) {
        let Some(talker) = self.talkers.get_mut(&index) else { return };
        talker.tell(now, index, &mut say);
        let due = talker.due();
        if let Some(contradiction) = talker.contradiction()
            && self.convicted.as_ref().is_none_or(|(member, _)| member.index != index)
            && let Some(member) = self.roster.member(index)
        {
            self.convicted = Some((member.clone(), contradiction.clone()));
        }
        self.talkers_due = [self.talkers_due, due].into_iter().flatten().min();
    }

    /// The newest proof that a talker told two members two things, with its entry in the roster.
    pub(in crate::conference) fn convicted(&self) -> Option<&(Member, Contradiction)> {
        self.convicted.as_ref()
    }
}

/// T_e of an epoch of the own chain.
fn chain_at(statements: &VecDeque<Witnessed>, epoch: Epoch) -> Option<ChainHash> {
    statements.iter().find(|shown| shown.statement.epoch == epoch).map(Witnessed::chain)
}
