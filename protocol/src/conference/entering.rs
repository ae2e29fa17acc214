//! A member who has been let in and waits for its first key.

use std::time::Instant;

use super::early::Early;
use super::event::{AlarmKind, Event, Failure};
use super::joiner::{Entered, JoinSecrets};
use super::member::Member;
use super::outbox::Step;
use super::peer::{Path, Peer};
use super::room::{Had, NewRoom, Room};
use super::seat::{FreshValue, NewSeat, Seat};
use crate::capability::SignedCapability;
use crate::descriptor::Descriptor;
use crate::epoch::roster::Roster;
use crate::id::MemberIndex;
use crate::identity::{DisplayName, IdCert, Identity};
use crate::link::Link;
use crate::moderator::moderators_digest;
use crate::noise::handshake::Passcode;
use crate::wire::control::{EpochKey, MAX_MISSED, Message};
use crate::wire::relay::ToRelay;

/// See the module.
pub(super) struct Entering {
    pub(super) link: Link,
    pub(super) name: DisplayName,
    passcode: Option<Passcode>,
    index: MemberIndex,
    leader: MemberIndex,
    peer: Peer,
    secrets: JoinSecrets,
    descriptor: Descriptor,
    cert: IdCert,
    fresh: FreshValue,
    roster: Roster,
    capability: SignedCapability,
    exporter: Option<[u8; 32]>,
    connected: Option<Instant>,
    attached: bool,
    /// What was said to all before the key came, by those who had it already.
    early: Early,
    /// The leader has answered Back.
    is_caught_up: bool,
}

/// What became of it.
pub(super) enum Entrance {
    /// Not yet.
    Waits,
    /// In the meeting.
    Seated(Box<Member>),
    /// The first key is not what its leader signed.
    Refused(Failure),
}

impl Entering {
    /// Shows the relay its capability, and waits for the key.
    pub(super) fn new(
        step: &mut Step<'_>,
        entered: Entered,
        index: MemberIndex,
        capability: SignedCapability,
        exporter: Option<[u8; 32]>,
    ) -> Self {
        let Entered { link, name, passcode, leader, session, secrets, fresh, cert, descriptor } = entered;
        let peer = Peer::new(step.now, leader, session, Path::OwnMailbox);
        let entering = Self {
            link,
            name,
            passcode,
            index,
            leader,
            peer,
            secrets,
            descriptor,
            cert,
            fresh,
            roster: Roster::default(),
            capability,
            exporter,
            connected: exporter.map(|_| step.now),
            attached: false,
            early: Early::default(),
            is_caught_up: false,
        };
        entering.attach(step);
        entering
    }

    fn attach(&self, step: &mut Step<'_>) {
        if let Some(exporter) = &self.exporter {
            let possession = self.capability.prove(&self.secrets.routing, exporter);
            step.out.control(&ToRelay::Attach { capability: self.capability, possession });
        }
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(super) fn on_connected(&mut self, now: Instant, exporter: [u8; 32]) {
        self.exporter = Some(exporter);
        self.connected = Some(now);
        self.attached = false;
    }

    pub(super) fn on_disconnected(&mut self) {
        self.connected = None;
        self.attached = false;
    }

    pub(super) fn on_welcome(&self, step: &mut Step<'_>) {
        self.attach(step);
    }

    pub(super) fn on_attached(&mut self, step: &mut Step<'_>) {
        self.attached = true;
        self.peer.path = Path::Slot;
        self.peer.send(step, &Message::Back);
        self.peer.resend(step);
    }

    /// What is said to all by who has the key already.
    pub(super) fn on_broadcast(&mut self, from: MemberIndex, packet: &[u8]) {
        self.early.keep(from, packet);
    }

    /// A session packet of the leader's.
    pub(super) fn on_packet(
        mut self: Box<Self>,
        step: &mut Step<'_>,
        identity: &Identity,
        packet: &[u8],
    ) -> (Option<Box<Self>>, Entrance) {
        let Ok(Some(message)) = self.peer.session().receive(step.now, packet) else {
            return (Some(self), Entrance::Waits);
        };
        match message {
            Message::Roster(members) => {
                members.into_iter().for_each(|member| {
                    self.roster.insert(member);
                });
            }
            Message::Moderators(moderators) => {
                if moderators_digest(&moderators) != self.descriptor.moderator {
                    return (None, Self::refuse_moderators(step, self.leader));
                }
                step.kept.moderators = moderators;
                step.out.event(Event::Moderators);
            }
            Message::Renew(capability) => {
                self.capability = capability;
                self.attach(step);
            }
            Message::Missed(missed) => self.is_caught_up = missed.len() < MAX_MISSED,
            Message::EpochKey(key) => return (None, self.sit_down(step, identity, *key)),
            _ => {}
        }
        (Some(self), Entrance::Waits)
    }

    /// Nobody goes into a meeting whose leader does not say who can open reports as the signed policy says it.
    fn refuse_moderators(step: &mut Step<'_>, leader: MemberIndex) -> Entrance {
        let detail = "the leader names other moderators than the meeting's policy, or none";
        step.out.event(Event::Alarm { kind: AlarmKind::BadStatement, index: Some(leader), detail });
        Entrance::Refused(Failure::Handshake)
    }

    fn sit_down(self, step: &mut Step<'_>, identity: &Identity, key: EpochKey) -> Entrance {
        if moderators_digest(&step.kept.moderators) != self.descriptor.moderator {
            return Self::refuse_moderators(step, self.leader);
        }
        let Self { link, name, passcode, index, leader, peer, secrets, descriptor, cert, fresh, roster, .. } = self;
        let Self { capability, exporter, connected, attached, early, is_caught_up, .. } = self;
        let meeting = link.meeting;
        let seat = Seat::new(NewSeat { meeting, descriptor, index, cert, fresh, roster });
        let mut room = Room::new(step.now, NewRoom { link, name, passcode, seat, secrets, authority: None });
        room.enter(step, Had { capability, exporter, connected, attached, early, is_caught_up });
        room.sessions.insert(peer.session_id(), leader);
        room.peers.insert(leader, peer);
        // Before everything that is told of the meeting; taken back by the failure below when the key is bad.
        step.out.event(Event::Admitted { index });
        let Some(ack) = room.follow(step, identity, key) else { return Entrance::Refused(Failure::Handshake) };
        if let Some(peer) = room.peers.get_mut(&leader) {
            peer.send(step, &Message::EpochAck(ack));
        }
        Entrance::Seated(Box::new(Member::new(step.now, room, None)))
    }

    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>) {
        if self.connected.is_some() {
            // A leader who never acknowledges lets the capability run out, which is told then.
            let _ = self.peer.handle_timeout(step);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.connected.and_then(|_| self.peer.poll_session())
    }
}
