//! What a leader could only do that breaks the rules inside.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::epoch::broadcast::SealingSeed;
use crate::moderator::SEALING_KEY_LEN;
use crate::wire::codec::Wire;
use crate::wire::relay::{FromRelay, MailboxId};

const WALL: UnixMillis = UnixMillis(1_767_225_600_000);

fn moderator(number: u8) -> Moderator {
    let signing = KeyPair::from_seed(&[number; 32]).public();
    let name = DisplayName::parse("Moderator").expect("a name");
    Moderator { name, signing, sealing: [number; SEALING_KEY_LEN] }
}

/// A host, a guest, and a relay that forwards and checks nothing.
struct Two {
    now: Instant,
    host: Conference,
    guest: Conference,
    descriptor: Vec<u8>,
    heard: Vec<Event>,
}

impl Two {
    fn new(moderators: Vec<Moderator>) -> Self {
        let now = Instant::now();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let name = DisplayName::parse("Ada").expect("a name");
        let config = HostConfig {
            relays: vec![RelayAddress::parse("relay.example").expect("an address")],
            identity: Identity::guest(&mut rng),
            name: name.clone(),
            passcode: None,
            waiting_room: WaitingRoom::AdmitAll,
            max_members: 10,
            duration: Duration::from_secs(3_600),
            frame: FrameDuration::Ms20,
            regions: Vec::new(),
            moderators,
        };
        let start = Start { now, wall: WALL };
        let host = Conference::host(config, start, Box::new(rng));
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let identity = Identity::guest(&mut rng);
        let config = JoinConfig { link: host.link().duplicate(), identity, name, passcode: None };
        let guest = Conference::join(config, start, Box::new(rng));
        Self { now, host, guest, descriptor: Vec::new(), heard: Vec::new() }
    }

    fn meet(&mut self) {
        self.host.connected(self.now, [1; 32]);
        self.carry();
        self.guest.connected(self.now, [2; 32]);
        self.carry();
        for _ in 0..50 {
            self.now += Duration::from_millis(100);
            self.host.handle_timeout(self.now);
            self.guest.handle_timeout(self.now);
            self.carry();
        }
    }

    fn carry(&mut self) {
        loop {
            while self.host.poll_event().is_some() {}
            self.heard.extend(std::iter::from_fn(|| self.guest.poll_event()));
            if let Some(transmit) = self.host.poll_transmit() {
                self.forward(transmit, MemberIndex(0));
            } else if let Some(transmit) = self.guest.poll_transmit() {
                self.forward(transmit, MemberIndex(1));
            } else {
                return;
            }
        }
    }

    fn forward(&mut self, transmit: Transmit, slot: MemberIndex) {
        let Transmit::Control(bytes) = transmit else { return };
        let own = match ToRelay::decode(&bytes).expect("a message") {
            ToRelay::Hello { descriptor, .. } => {
                self.hand(
                    slot,
                    &FromRelay::Welcome {
                        time: WALL,
                        region: String::new(),
                        takes_reports: false,
                        moderator: Vec::new(),
                    },
                );
                match descriptor {
                    Some(descriptor) => {
                        self.descriptor = descriptor.encode();
                        return;
                    }
                    None => FromRelay::Meeting {
                        descriptor: self.descriptor.clone(),
                        line: None,
                        leader: MemberIndex::HOST,
                    },
                }
            }
            ToRelay::OpenMailbox { .. } => FromRelay::MailboxOpen,
            ToRelay::Attach { .. } => {
                let others = MemberIndex(1 - slot.0);
                self.hand(slot, &FromRelay::Attached { slot });
                return self.hand(others, &FromRelay::Presence { slot, here: true });
            }
            ToRelay::MailTo { bytes, .. } => return self.hand(MemberIndex(1), &FromRelay::Mail { bytes }),
            ToRelay::Mail { bytes } => {
                return self.hand(MemberIndex::HOST, &FromRelay::MailFrom { mailbox: MailboxId(1), bytes });
            }
            ToRelay::Send { bytes, .. } => {
                return self.hand(MemberIndex(1 - slot.0), &FromRelay::Deliver { from: slot, bytes });
            }
            _ => return,
        };
        self.hand(slot, &own);
    }

    fn hand(&mut self, slot: MemberIndex, message: &FromRelay) {
        let conference = if slot == MemberIndex::HOST { &mut self.host } else { &mut self.guest };
        conference.handle_control(self.now, &message.encode());
    }

    fn alarms(&self) -> usize {
        let is_alarm = |event: &&Event| matches!(event, Event::Alarm { kind: AlarmKind::BadStatement, .. });
        self.heard.iter().filter(is_alarm).count()
    }
}

#[test]
fn nobody_goes_into_a_meeting_whose_leader_withholds_the_moderators_or_names_others() {
    let named = || vec![moderator(1), moderator(2)];
    for (told, is_right) in [
        (named(), true),
        (Vec::new(), false),
        (vec![moderator(1)], false),
        (vec![moderator(2), moderator(1)], false),
        (vec![moderator(1), moderator(3)], false),
    ] {
        let mut two = Two::new(named());
        two.host.kept.moderators = told;
        two.meet();
        assert_eq!(two.guest.members().count(), if is_right { 2 } else { 0 });
        assert_eq!(two.alarms(), usize::from(!is_right));
        assert_eq!(two.heard.contains(&Event::Failed(Failure::Handshake)), !is_right);
        assert_eq!(two.guest.moderators(), if is_right { named() } else { Vec::new() });
    }
    let mut two = Two::new(Vec::new());
    two.host.kept.moderators = named();
    two.meet();
    assert_eq!((two.guest.members().count(), two.alarms()), (0, 1), "moderators that the policy does not name");
}

#[test]
fn sealing_key_of_somebody_who_is_here_is_an_alarm() {
    let mut two = Two::new(Vec::new());
    two.meet();
    for (index, seed, expected) in [(5, [5; 32], 0), (0, [5; 32], 0)] {
        two.publish(index, SealingSeed::new(seed));
        assert_eq!(two.stolen(), expected, "of nobody");
    }
    let own = two.seed_of_guest();
    two.publish(1, own);
    assert_eq!(two.stolen(), 1);
    assert_eq!(two.guest.published().count(), 0);
}

impl Two {
    /// The host publishes a key before its time.
    fn publish(&mut self, index: u16, seed: SealingSeed) {
        let (part, mut step, _) = self.host.step(self.now);
        let Part::Member(member) = part else { panic!("no member") };
        let shown = crate::epoch::broadcast::Published { index: MemberIndex(index), seed };
        member.room.broadcast(&mut step, &crate::epoch::broadcast::Broadcast::Published(shown));
        self.carry();
    }

    fn seed_of_guest(&self) -> SealingSeed {
        SealingSeed::of(&self.guest.member().expect("a member").room.secrets.sealing)
    }

    fn stolen(&self) -> usize {
        let is_alarm = |event: &&Event| matches!(event, Event::Alarm { kind: AlarmKind::Unauthentic, .. });
        self.heard.iter().filter(is_alarm).count()
    }
}
