//! A meeting ends when its descriptor does, whether anybody says so or not (`docs/protocol.md` §3.1).
//!
//! A host and a guest in virtual time; between them a relay that forwards and checks nothing.
#![cfg(feature = "conference")]

use std::time::{Duration, Instant};

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{Conference, Event, Failure, HostConfig, JoinConfig, Start, Transmit, WaitingRoom};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::RelayAddress;
use conclave_protocol::time::{FrameDuration, UnixMillis};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::control::Denial;
use conclave_protocol::wire::relay::{FromRelay, MailboxId, ToRelay};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const WALL: UnixMillis = UnixMillis(1_767_225_600_000);
/// Ends 200 ms after the second rekey of a host alone, before an admission may follow that.
const DURATION: Duration = Duration::from_millis(240_200);
/// How far one clock is ahead of the other where they differ.
const AHEAD: Duration = Duration::from_secs(20);
const MILLISECOND: Duration = Duration::from_millis(1);

struct Room {
    start: Instant,
    now: Instant,
    host: Conference,
    guest: Conference,
    descriptor: Vec<u8>,
    is_cut: bool,
    host_heard: Vec<Event>,
    guest_heard: Vec<Event>,
}

impl Room {
    /// The guest's clock is off by `guest_clock`.
    fn new(waiting_room: WaitingRoom, guest_clock: impl Fn(UnixMillis) -> UnixMillis) -> Self {
        let now = Instant::now();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let config = HostConfig {
            relays: vec![RelayAddress::parse("relay.example").expect("an address")],
            identity: Identity::guest(&mut rng),
            name: DisplayName::parse("Ada").expect("a name"),
            passcode: None,
            waiting_room,
            max_members: 10,
            duration: DURATION,
            frame: FrameDuration::Ms20,
            regions: Vec::new(),
            moderators: Vec::new(),
        };
        let host = Conference::host(config, Start { now, wall: WALL }, Box::new(rng));
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (identity, name) = (Identity::guest(&mut rng), DisplayName::parse("Grace").expect("a name"));
        let config = JoinConfig { link: host.link().duplicate(), identity, name, passcode: None };
        let guest = Conference::join(config, Start { now, wall: guest_clock(WALL) }, Box::new(rng));
        let (host_heard, guest_heard, descriptor) = (Vec::new(), Vec::new(), Vec::new());
        let mut room = Self { start: now, now, host, guest, descriptor, is_cut: false, host_heard, guest_heard };
        room.host.connected(now, [1; 32]);
        room.carry();
        room.guest.connected(now, [2; 32]);
        room.carry();
        room
    }

    /// A meeting of both, some seconds after its beginning.
    fn with_both(guest_clock: impl Fn(UnixMillis) -> UnixMillis) -> Self {
        let mut room = Self::new(WaitingRoom::AdmitAll, guest_clock);
        room.run_until(Duration::from_secs(5));
        assert_eq!((room.host.members().count(), room.guest.members().count()), (2, 2));
        room
    }

    /// Carries messages until nobody has any left.
    fn carry(&mut self) {
        loop {
            self.host_heard.extend(std::iter::from_fn(|| self.host.poll_event()));
            self.guest_heard.extend(std::iter::from_fn(|| self.guest.poll_event()));
            if let Some(transmit) = self.host.poll_transmit() {
                self.relay_from_host(transmit);
            } else if let Some(transmit) = self.guest.poll_transmit() {
                self.relay_from_guest(transmit);
            } else {
                return;
            }
        }
    }

    fn relay_from_host(&mut self, transmit: Transmit) {
        let Transmit::Control(bytes) = transmit else { return };
        match ToRelay::decode(&bytes).expect("a message") {
            ToRelay::Hello { descriptor, .. } => {
                self.descriptor = descriptor.expect("a host brings its descriptor").encode();
                self.hand_to_host(&FromRelay::Welcome {
                    time: self.wall(),
                    region: String::new(),
                    takes_reports: false,
                    moderator: Vec::new(),
                });
            }
            ToRelay::Attach { .. } => self.hand_to_host(&FromRelay::Attached { slot: MemberIndex(0) }),
            ToRelay::MailTo { bytes, .. } => self.hand_to_guest(&FromRelay::Mail { bytes }),
            ToRelay::Send { bytes, .. } => self.hand_to_guest(&FromRelay::Deliver { from: MemberIndex(0), bytes }),
            _ => {}
        }
    }

    fn relay_from_guest(&mut self, transmit: Transmit) {
        let Transmit::Control(bytes) = transmit else { return };
        match ToRelay::decode(&bytes).expect("a message") {
            ToRelay::Hello { .. } => {
                self.hand_to_guest(&FromRelay::Welcome {
                    time: self.wall(),
                    region: String::new(),
                    takes_reports: false,
                    moderator: Vec::new(),
                });
                let (descriptor, leader) = (self.descriptor.clone(), MemberIndex::HOST);
                self.hand_to_guest(&FromRelay::Meeting { descriptor, line: None, leader });
            }
            ToRelay::OpenMailbox { .. } => self.hand_to_guest(&FromRelay::MailboxOpen),
            ToRelay::Mail { bytes } => self.hand_to_host(&FromRelay::MailFrom { mailbox: MailboxId(1), bytes }),
            ToRelay::Attach { .. } => {
                self.hand_to_guest(&FromRelay::Attached { slot: MemberIndex(1) });
                self.hand_to_host(&FromRelay::Presence { slot: MemberIndex(1), here: true });
            }
            ToRelay::Send { bytes, .. } => self.hand_to_host(&FromRelay::Deliver { from: MemberIndex(1), bytes }),
            _ => {}
        }
    }

    fn hand_to_host(&mut self, message: &FromRelay) {
        if !self.is_cut {
            self.host.handle_control(self.now, &message.encode());
        }
    }

    fn hand_to_guest(&mut self, message: &FromRelay) {
        if !self.is_cut {
            self.guest.handle_control(self.now, &message.encode());
        }
    }

    fn wall(&self) -> UnixMillis {
        WALL.plus(self.now - self.start)
    }

    /// Runs every timer that is due until `time` after the beginning.
    fn run_until(&mut self, time: Duration) {
        let end = self.start + time;
        while let Some(due) = [self.host.poll_timeout(), self.guest.poll_timeout()].into_iter().flatten().min()
            && due <= end
        {
            self.now = self.now.max(due);
            for conference in [&mut self.host, &mut self.guest] {
                if conference.poll_timeout().is_some_and(|due| due <= self.now) {
                    conference.handle_timeout(self.now);
                }
            }
            self.carry();
        }
        self.now = end;
    }

    fn assert_quiet(&self) {
        let is_bad = |event: &Event| matches!(event, Event::Ended { .. } | Event::Failed(_) | Event::Alarm { .. });
        assert!(!self.host_heard.iter().chain(&self.guest_heard).any(is_bad), "{:?}", self.guest_heard);
    }

    fn knock(&self) -> KnockId {
        self.host.knocks().first().expect("a knock").0
    }
}

const ENDED: Event = Event::Ended { by: MemberIndex::HOST };

fn count(heard: &[Event], event: &Event) -> usize {
    heard.iter().filter(|heard| *heard == event).count()
}

#[test]
fn the_leader_ends_the_meeting_at_the_end_of_the_descriptor_for_everybody() {
    // The guest's clock is behind: what it hears is the leader's word.
    let mut room = Room::with_both(|wall| wall.minus(AHEAD));
    room.run_until(DURATION - MILLISECOND);
    room.assert_quiet();
    assert!(room.host.can_send(room.now) && room.guest.can_send(room.now));
    let before = room.guest.epoch();
    room.run_until(DURATION);
    assert_eq!((count(&room.host_heard, &ENDED), count(&room.guest_heard, &ENDED)), (1, 1));
    assert_eq!(Some(room.guest.epoch()), before.next());
    assert_eq!(room.guest.chain_hash(), room.host.chain_hash());
    assert!(!room.host.can_send(room.now) && !room.guest.can_send(room.now));
    assert_eq!((room.host.poll_timeout(), room.guest.poll_timeout()), (None, None));
}

#[test]
fn a_member_that_hears_nothing_of_its_leader_takes_the_meeting_as_ended_by_its_own_clock() {
    let mut room = Room::with_both(|wall| wall);
    // Later it would leave a meeting without a leader.
    room.run_until(DURATION - Duration::from_secs(20));
    room.is_cut = true;
    room.run_until(DURATION - MILLISECOND);
    assert_eq!(count(&room.guest_heard, &ENDED), 0);
    let before = room.guest.epoch();
    room.run_until(DURATION);
    assert_eq!((count(&room.guest_heard, &ENDED), room.guest.epoch()), (1, before));
    assert!(!room.guest.can_send(room.now));
    assert_eq!(room.guest.poll_timeout(), None);
}

#[test]
fn a_member_that_hears_nothing_of_its_leader_stops_sending_and_then_leaves() {
    let mut room = Room::with_both(|wall| wall);
    let beat = Duration::from_secs(2);
    let cut = Duration::from_secs(60);
    room.run_until(cut);
    room.is_cut = true;
    room.run_until(cut + Duration::from_secs(10) - beat - MILLISECOND);
    assert!(room.guest.can_send(room.now));
    room.run_until(cut + Duration::from_secs(10));
    assert!(!room.guest.can_send(room.now));
    assert!(room.guest_heard.iter().any(|event| matches!(event, Event::Stale { .. })));
    let no_leader = Event::Failed(Failure::NoLeader);
    room.run_until(cut + Duration::from_secs(30) - beat - MILLISECOND);
    assert_eq!(count(&room.guest_heard, &no_leader), 0);
    room.run_until(cut + Duration::from_secs(30));
    assert_eq!(count(&room.guest_heard, &no_leader), 1);
    assert_eq!(room.guest.poll_timeout(), None);
}

#[test]
fn a_member_whose_clock_is_ahead_is_told_once() {
    let mut room = Room::with_both(|wall| wall.plus(AHEAD));
    room.run_until(DURATION - AHEAD - MILLISECOND);
    room.assert_quiet();
    room.run_until(DURATION - AHEAD);
    assert_eq!((count(&room.host_heard, &ENDED), count(&room.guest_heard, &ENDED)), (0, 1));
    room.run_until(DURATION);
    assert_eq!((count(&room.host_heard, &ENDED), count(&room.guest_heard, &ENDED)), (1, 1));
}

#[test]
fn whoever_waits_when_the_meeting_ends_is_turned_down() {
    let mut room = Room::new(WaitingRoom::Ask, |wall| wall.minus(AHEAD));
    room.run_until(DURATION - MILLISECOND);
    room.assert_quiet();
    let id = room.knock();
    room.run_until(DURATION);
    assert_eq!(count(&room.host_heard, &Event::KnockGone { id }), 1);
    assert_eq!(count(&room.guest_heard, &Event::Denied(Denial::Expired)), 1);
}

#[test]
fn nobody_is_admitted_by_the_epoch_that_ends_the_meeting() {
    let mut room = Room::new(WaitingRoom::Ask, |wall| wall.minus(AHEAD));
    room.run_until(DURATION - Duration::from_millis(50));
    let id = room.knock();
    room.host.admit(room.now, id).expect("somebody knocks");
    room.carry();
    assert_eq!(room.host.members().count(), 1, "the admission waits for its turn after the rekey");
    room.run_until(DURATION);
    assert_eq!(count(&room.host_heard, &ENDED), 1);
    assert_eq!(room.host.members().count(), 1);
    assert_eq!(count(&room.guest_heard, &Event::Denied(Denial::Expired)), 1);
    assert!(!room.host_heard.iter().any(|event| matches!(event, Event::Alarm { .. } | Event::Failed(_))));
}

#[test]
fn a_guest_gives_up_when_the_meeting_is_over_by_its_own_clock() {
    let mut room = Room::new(WaitingRoom::Ask, |wall| wall);
    room.is_cut = true;
    room.run_until(DURATION - MILLISECOND);
    let not_now = Event::Failed(Failure::NotNow);
    assert_eq!(count(&room.guest_heard, &not_now), 0);
    room.run_until(DURATION);
    assert_eq!(count(&room.guest_heard, &not_now), 1);
    assert_eq!(room.guest.poll_timeout(), None);
}
