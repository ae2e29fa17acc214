//! A member under a leader: from being let in to the end.

use std::time::Instant;

use super::event::{Event, Failure};
use super::joiner::{Entered, JoinSecrets};
use super::outbox::Step;
use super::seat::{FreshValue, NewSeat, Seat};
use crate::capability::SignedCapability;
use crate::descriptor::Descriptor;
use crate::epoch::roster::Roster;
use crate::id::{MeetingId, MemberIndex};
use crate::identity::{IdCert, Identity};
use crate::noise::session::Session;
use crate::time::UnixMillis;
use crate::wire::control::{EpochKey, Message};
use crate::wire::relay::ToRelay;

/// How the member reaches its leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Mailbox,
    Slot,
}

enum Place {
    /// Let in; the roster is coming, the key not here yet.
    Entering(Box<Entering>),
    /// In the meeting.
    Seated(Box<Seat>),
    /// The first key was refused.
    Refused,
}

struct Entering {
    descriptor: Descriptor,
    cert: IdCert,
    fresh: FreshValue,
    roster: Roster,
}

/// A member's part of a conference.
pub(super) struct Member {
    meeting: MeetingId,
    index: MemberIndex,
    session: Session,
    secrets: JoinSecrets,
    not_after: UnixMillis,
    place: Place,
    path: Path,
}

impl Member {
    pub(super) fn new(meeting: MeetingId, index: MemberIndex, entered: Entered) -> Self {
        let Entered { session, secrets, fresh, cert, descriptor } = entered;
        let not_after = descriptor.not_after;
        let entering = Entering { descriptor, cert, fresh, roster: Roster::default() };
        let place = Place::Entering(Box::new(entering));
        Self { meeting, index, session, secrets, not_after, place, path: Path::Mailbox }
    }

    /// When the meeting ends at the latest.
    pub(super) fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        match &self.place {
            Place::Seated(seat) => Some(seat),
            _ => None,
        }
    }

    pub(super) fn seat_mut(&mut self) -> Option<&mut Seat> {
        match &mut self.place {
            Place::Seated(seat) => Some(seat),
            _ => None,
        }
    }

    /// Shows a capability to the relay.
    pub(super) fn attach(&self, step: &mut Step<'_>, capability: SignedCapability, exporter: &[u8; 32]) {
        let possession = capability.prove(&self.secrets.routing, exporter);
        step.out.control(&ToRelay::Attach { capability, possession });
    }

    pub(super) fn on_attached(&mut self, step: &mut Step<'_>) {
        if self.path == Path::Mailbox {
            self.path = Path::Slot;
            for packet in self.session.resend(step.now) {
                self.transmit(step, packet);
            }
        }
    }

    /// A packet of the leader's.
    pub(super) fn on_packet(
        &mut self,
        step: &mut Step<'_>,
        packet: &[u8],
        identity: &Identity,
        exporter: Option<&[u8; 32]>,
    ) {
        let Ok(Some(message)) = self.session.receive(step.now, packet) else { return };
        match message {
            Message::Roster(members) => {
                if let Place::Entering(entering) = &mut self.place {
                    members.into_iter().for_each(|member| {
                        entering.roster.insert(member);
                    });
                }
            }
            Message::EpochKey(key) => self.on_epoch_key(step, *key, identity),
            Message::Activate(epoch) => {
                if let Some(seat) = self.seat_mut() {
                    seat.activate(step.now, epoch);
                }
            }
            Message::Renew(capability) => {
                if let Some(exporter) = exporter {
                    self.attach(step, capability, exporter);
                }
            }
            _ => {}
        }
    }

    fn on_epoch_key(&mut self, step: &mut Step<'_>, key: EpochKey, identity: &Identity) {
        let first = matches!(self.place, Place::Entering(_));
        let mut seat = match std::mem::replace(&mut self.place, Place::Refused) {
            Place::Seated(seat) => seat,
            Place::Entering(entering) => {
                let Entering { descriptor, cert, fresh, roster } = *entering;
                let (meeting, index) = (self.meeting, self.index);
                Box::new(Seat::new(NewSeat { meeting, descriptor, index, cert, fresh, roster }))
            }
            Place::Refused => return,
        };
        if first {
            // Before everything that is told of the meeting; taken back by the failure below when the key is bad.
            step.out.event(Event::Admitted { index: self.index });
        }
        let ack = super::follow(step, &mut seat, identity, key);
        if ack.is_none() && first {
            step.out.event(Event::Failed(Failure::Handshake));
            return;
        }
        self.place = Place::Seated(seat);
        if let Some(ack) = ack {
            self.send(step, &Message::EpochAck(ack));
        }
    }

    /// Says good-bye to the leader.
    pub(super) fn leave(&mut self, step: &mut Step<'_>) {
        self.send(step, &Message::Leave);
    }

    fn send(&mut self, step: &mut Step<'_>, message: &Message) {
        if let Ok(packet) = self.session.send(step.now, message) {
            self.transmit(step, packet);
        }
    }

    fn transmit(&self, step: &mut Step<'_>, packet: Vec<u8>) {
        match self.path {
            Path::Mailbox => step.out.control(&ToRelay::Mail { bytes: packet }),
            Path::Slot => step.out.send(MemberIndex::HOST, packet),
        }
    }

    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>) {
        let mut packets = Vec::new();
        // A leader who never acknowledges lets this member's capability run out, which is told then.
        let _ = self.session.handle_timeout(step.now, &mut packets);
        for packet in packets {
            self.transmit(step, packet);
        }
        if let Some(seat) = self.seat_mut() {
            seat.handle_timeout(step.now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.session.poll_timeout(), self.seat().and_then(Seat::poll_timeout)].into_iter().flatten().min()
    }
}
