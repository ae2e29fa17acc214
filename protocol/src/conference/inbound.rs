//! What a relay says, and what comes by way of it.

use super::entering::{Entering, Entrance};
use super::event::{AlarmKind, Event, Failure};
use super::joiner::{Joiner, Progress};
use super::member::Member;
use super::outbox::Step;
use super::seat::Arrived;
use super::{Announced, Conference, Part};
use crate::capability::Revoked;
use crate::epoch::broadcast::Channel;
use crate::id::MemberIndex;
use crate::identity::{DisplayName, Identity};
use crate::link::Link;
use crate::moderator::Moderator;
use crate::noise::handshake::Passcode;
use crate::time::{UnixMillis, WallClock};
use crate::wire::codec::Wire;
use crate::wire::control::{Denial, Message};
use crate::wire::relay::{FromRelay, Refusal};
use std::time::Instant;

impl Conference {
    /// A control message from the relay.
    pub fn handle_control(&mut self, now: Instant, message: &[u8]) {
        if self.over {
            return self.on_late(now, message);
        }
        self.looked = now;
        match FromRelay::decode(message) {
            Ok(message) => self.on_relay(now, message),
            Err(_) => self.fail(Failure::Relay),
        }
        self.note_end();
    }

    /// After the end only the others' last seals and last words count.
    fn on_late(&mut self, now: Instant, message: &[u8]) {
        let (part, mut step, _) = self.step(now);
        let message = FromRelay::decode(message);
        if let Some(answered) = message.as_ref().ok().and_then(answered) {
            return step.out.event(answered);
        }
        let Part::Member(member) = part else { return };
        match message {
            Ok(FromRelay::Deliver { from, bytes }) => member.room.on_last_word(&mut step, from, &bytes),
            Ok(FromRelay::Sealed { from, stamp, bytes }) => {
                member.room.on_sealed(&mut step, &Arrived { from, stamp, bytes });
            }
            _ => {}
        }
    }

    fn on_relay(&mut self, now: Instant, message: FromRelay) {
        match message {
            FromRelay::Welcome { time, takes_reports, moderator, .. } => {
                self.note_reports(takes_reports, &moderator);
                self.on_welcome(now, time);
            }
            FromRelay::Meeting { descriptor, line, leader } => {
                self.on_meeting(now, Announced { descriptor, line, leader })
            }
            FromRelay::MailboxOpen => self.guest(now, |j, step, _| j.on_mailbox_open(step)),
            FromRelay::Mail { bytes } => self.on_mail(now, &bytes),
            FromRelay::MailFrom { mailbox, bytes } => {
                self.with_member(now, |member, step, identity| member.on_mail(step, identity, mailbox, &bytes));
            }
            FromRelay::MailboxGone { mailbox } => self.with_member(now, |member, step, _| {
                if let Some(lead) = &mut member.lead {
                    lead.on_mailbox_gone(step, &mut member.room, mailbox);
                }
            }),
            FromRelay::Attached { .. } => self.on_attached(now),
            FromRelay::Deliver { from, bytes } => self.on_deliver(now, from, &bytes),
            FromRelay::Presence { slot, here } => {
                self.with_member(now, |member, step, _| member.room.on_presence(step, slot, here));
            }
            FromRelay::Revoked { revoked } => self.on_revoked(revoked),
            FromRelay::Refused { reason } => self.on_refused(now, reason),
            FromRelay::Detached { reason } => self.on_detached(now, reason),
            FromRelay::Closing => self.out.event(Event::RelayClosing),
            FromRelay::Phase { shift } => self.out.event(Event::Phase { shift }),
            FromRelay::Sealed { from, stamp, bytes } => {
                let seal = Arrived { from, stamp, bytes };
                self.with_member(now, |member, step, _| member.room.on_sealed(step, &seal));
            }
            // Reports are the caller's business.
            FromRelay::ReportTaken { .. } | FromRelay::ReportRefused { .. } | FromRelay::StampsChecked { .. } => {
                self.out.events.extend(answered(&message));
            }
        }
    }

    /// What the relay says of reports; a moderator that is none counts as none.
    fn note_reports(&mut self, takes_reports: bool, moderator: &[u8]) {
        let operator = Moderator::decode(moderator).ok();
        if (self.takes_reports, &self.operator) != (takes_reports, &operator) {
            (self.takes_reports, self.operator) = (takes_reports, operator);
            self.out.event(Event::Moderators);
        }
    }

    fn on_welcome(&mut self, now: Instant, time: UnixMillis) {
        self.relay_clock = WallClock::new(now, time);
        let (part, mut step, _) = self.step(now);
        match part {
            Part::Guest(joiner) => joiner.on_welcome(&step),
            Part::Entering(entering) => entering.on_welcome(&mut step),
            Part::Member(member) => member.room.attach(&mut step),
            Part::Between => {}
        }
    }

    fn on_meeting(&mut self, now: Instant, announced: Announced) {
        let Announced { descriptor, line, leader } = &announced;
        self.guest(now, |joiner, step, _| joiner.on_meeting(step, descriptor, line.as_ref(), *leader));
    }

    fn on_attached(&mut self, now: Instant) {
        let (part, mut step, _) = self.step(now);
        match part {
            Part::Entering(entering) => entering.on_attached(&mut step),
            Part::Member(member) => member.on_attached(&mut step),
            Part::Guest(_) | Part::Between => {}
        }
    }

    fn on_mail(&mut self, now: Instant, bytes: &[u8]) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, step, identity| joiner.on_mail(step, bytes, identity)),
            // The leader goes on using the mailbox until it has heard that this member took its slot.
            Part::Entering(_) => self.on_first_packet(now, bytes),
            Part::Member(_) => {
                self.with_member(now, |member, step, identity| member.on_own_mail(step, identity, bytes))
            }
            Part::Between => {}
        }
    }

    fn on_deliver(&mut self, now: Instant, from: MemberIndex, bytes: &[u8]) {
        match &mut self.part {
            Part::Entering(entering) if Channel::epoch_of(bytes).is_some() => entering.on_broadcast(from, bytes),
            Part::Entering(_) => self.on_first_packet(now, bytes),
            _ => self.with_member(now, |member, step, identity| member.on_deliver(step, identity, from, bytes)),
        }
    }

    fn on_first_packet(&mut self, now: Instant, packet: &[u8]) {
        let Part::Entering(entering) = std::mem::replace(&mut self.part, Part::Between) else { return };
        let link = entering.link.duplicate();
        let (_, mut step, identity) = self.step(now);
        match entering.on_packet(&mut step, identity, packet) {
            (Some(entering), _) => self.part = Part::Entering(entering),
            (None, Entrance::Seated(member)) => self.part = Part::Member(member),
            (None, Entrance::Waits) => self.fail_in(link, now, Failure::Handshake),
            (None, Entrance::Refused(failure)) => self.fail_in(link, now, failure),
        }
    }

    /// The conference is over, as that of a guest.
    fn fail_in(&mut self, link: Link, now: Instant, failure: Failure) {
        let Ok(name) = DisplayName::parse("-") else { return };
        let (_, step, _) = self.step(now);
        let joiner = Joiner::new(link, name, None, false, step.rng);
        self.part = Part::Guest(Box::new(joiner));
        self.fail(failure);
    }

    /// Runs a step of the guest and acts on what it says.
    fn guest(&mut self, now: Instant, act: impl FnOnce(&mut Joiner, &mut Step<'_>, &Identity) -> Progress) {
        let (part, mut step, identity) = self.step(now);
        let Part::Guest(joiner) = part else { return };
        match act(joiner, &mut step, identity) {
            Progress::Nothing => {}
            Progress::Failed(failure) => self.fail(failure),
            Progress::Message(message) => self.on_host_message(now, *message),
        }
    }

    fn on_host_message(&mut self, now: Instant, message: Message) {
        match message {
            Message::Waiting => self.out.event(Event::WaitingRoom),
            Message::Denied(denial) => {
                let returned = matches!(&self.part, Part::Guest(joiner) if joiner.returns);
                // Who was a member and may not come again was put out meanwhile.
                let removed = returned && denial == Denial::Blocked;
                self.out.event(if removed { Event::Removed } else { Event::Denied(denial) });
                self.finish();
            }
            Message::Admitted { index, capability } => {
                let exporter = self.exporter;
                let (part, mut step, _) = self.step(now);
                let Part::Guest(joiner) = part else { return };
                let Some(entered) = joiner.enter(step.rng) else { return };
                let entering = Entering::new(&mut step, entered, index, capability, exporter);
                self.part = Part::Entering(Box::new(entering));
            }
            _ => {}
        }
    }

    /// Runs a step of a member.
    fn with_member(&mut self, now: Instant, act: impl FnOnce(&mut Member, &mut Step<'_>, &Identity)) {
        let (part, mut step, identity) = self.step(now);
        if let Part::Member(member) = part {
            act(member, &mut step, identity);
        }
        self.note_end();
    }

    fn on_revoked(&mut self, revoked: Revoked) {
        let Part::Member(member) = &mut self.part else { return };
        let room = &mut member.room;
        let line = room.seat.line();
        if revoked.verify(&room.seat.descriptor().authority, line, room.meeting).is_err() {
            // One of a line that has not come yet is passed over; the relay shows it again.
            if room.seat.authority_of(revoked.signer).is_none() {
                return;
            }
            let detail = "the relay shows a revocation that no host signed";
            return self.out.event(Event::Alarm { kind: AlarmKind::ForgedNotice, index: None, detail });
        }
        if revoked.slots.contains(&room.index()) {
            // Removed, or lost without knowing it: who shakes hands again is told. A removed member has heard it from
            // the leader already, unless the relay kept it back.
        } else if room.revoked.as_ref().is_none_or(|old| revoked.replaces(old, line)) {
            self.revoked = Some(revoked.clone());
            room.revoked = Some(revoked);
        }
    }

    fn on_refused(&mut self, now: Instant, reason: Refusal) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, _, _| joiner.on_refused(reason)),
            _ if matches!(reason, Refusal::TooFast | Refusal::NotAllowed) => {}
            // A renewal that is refused takes nothing away: the slot lasts as long as it would have.
            Part::Member(member) if member.room.attached && reason != Refusal::Malformed => {}
            Part::Member(_) if reason != Refusal::Malformed => self.on_slot_lost(now, reason),
            _ => self.fail(Failure::Detached),
        }
    }

    fn on_detached(&mut self, now: Instant, reason: Refusal) {
        match reason {
            Refusal::Replaced => self.fail(Failure::Replaced),
            // Its own notice says so, and who was lost is not removed.
            reason => self.on_slot_lost(now, reason),
        }
    }

    /// The relay does not take what this member shows: it shows what else it has, or shakes hands again.
    fn on_slot_lost(&mut self, now: Instant, reason: Refusal) {
        let (part, mut step, _) = self.step(now);
        let Part::Member(member) = part else { return self.fail(Failure::Detached) };
        member.room.attached = false;
        let shows = matches!(reason, Refusal::Capability | Refusal::Expired) && member.room.shows_another(&mut step);
        // Nobody could let a leader in again: it goes on showing what it gives itself.
        if !shows && member.room.leads() && member.room.may_lead() {
            member.room.show_later(now);
        } else if !shows {
            self.rejoin(now);
        }
    }

    /// Becomes a guest again that was a member: with new keys for the join, and the same identity.
    pub(super) fn rejoin(&mut self, now: Instant) {
        let (part, mut step, _) = self.step(now);
        let Part::Member(member) = part else { return };
        if let Some(lead) = member.lead.take() {
            lead.close_door(&mut step);
        }
        let room = &member.room;
        let passcode = room.passcode.as_ref().map(Passcode::duplicate);
        let mut joiner = Joiner::new(room.link.duplicate(), room.name.clone(), passcode, true, step.rng);
        joiner.on_connected();
        step.out.event(Event::Rejoining);
        if let Part::Member(member) = std::mem::replace(&mut self.part, Part::Guest(Box::new(joiner))) {
            let room = member.room;
            self.kept.past = room.capability.map(|capability| (capability, room.secrets.routing));
        }
    }
}

/// What the relay answers a report with.
fn answered(message: &FromRelay) -> Option<Event> {
    match *message {
        FromRelay::ReportTaken { id, receipt } => Some(Event::ReportAnswered { id, answer: Ok(receipt) }),
        FromRelay::ReportRefused { id, reason } => Some(Event::ReportAnswered { id, answer: Err(reason) }),
        _ => None,
    }
}
