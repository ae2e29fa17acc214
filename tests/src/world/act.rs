//! What people do in a world.

use std::time::Duration;

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{ActError, Conference, HostConfig, JoinConfig, Start, WaitingRoom};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::{Link, RelayAddress};
use conclave_protocol::moderator::{Moderator, SEALING_KEY_LEN};
use conclave_protocol::noise::handshake::Passcode;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::succession::Rank;
use conclave_protocol::time::{FrameDuration, UnixMillis};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::FromRelay;
use conclave_relay::core::ConnId;

use super::dice::{ClientRng, Drawn};
use super::model::{Entry, Model};
use super::net::{Conditions, Pipe};
use super::peer::{HOST, Manners, Peer, Voice, Who};
use super::relay::Payload;
use super::{Arrival, DAWN, FRAME, World};

/// A meeting to be opened.
#[derive(Clone, Copy)]
pub struct Meeting {
    /// What guests must know.
    pub passcode: Option<&'static str>,
    /// How people get in.
    pub entry: Entry,
    /// Most members.
    pub max_members: u16,
    /// The host's network.
    pub conditions: Conditions,
    /// Whether the host talks.
    pub talks: bool,
    /// How many moderators its policy names, [`moderator`] 0 and on.
    pub moderators: u8,
}

impl Default for Meeting {
    fn default() -> Self {
        let (conditions, entry) = (Conditions::CLEAN, Entry::ByAct);
        Self { passcode: None, entry, max_members: 100, conditions, talks: true, moderators: 0 }
    }
}

/// A moderator, to whom nothing is sealed here.
pub fn moderator(number: u8) -> Moderator {
    let name = DisplayName::parse(&format!("Moderator {number}")).expect("a plain name");
    let signing = KeyPair::from_seed(&[number; 32]).public();
    Moderator { name, signing, sealing: [number; SEALING_KEY_LEN] }
}

/// Somebody who wants to join.
#[derive(Clone, Copy)]
pub struct Guest {
    /// What it believes the passcode to be.
    pub passcode: Option<&'static str>,
    /// The seed of an identity that it keeps; else a fresh one.
    pub identity: Option<[u8; 32]>,
    /// Its network.
    pub conditions: Conditions,
    /// Whether it talks.
    pub talks: bool,
    /// What it does in the end.
    pub manners: Manners,
}

impl Default for Guest {
    fn default() -> Self {
        Self { passcode: None, identity: None, conditions: Conditions::CLEAN, talks: true, manners: Manners::HangsUp }
    }
}

impl World {
    /// Opens the meeting, by its host.
    pub fn open_meeting(&mut self, meeting: Meeting) {
        assert!(self.peers.is_empty(), "the host comes first");
        let (mut rng, drawn, name) = self.somebody(None);
        let identity = Identity::guest(&mut rng);
        let config = HostConfig {
            relays: vec![RelayAddress { host: "relay.test".into(), port: 4433, pin: None }],
            identity,
            name: DisplayName::parse(&name).expect("a plain name"),
            passcode: self.passcode(meeting.passcode),
            waiting_room: if meeting.entry == Entry::ByAct { WaitingRoom::Ask } else { WaitingRoom::AdmitAll },
            max_members: meeting.max_members,
            duration: Duration::from_secs(4 * 3600),
            frame: FrameDuration::Ms20,
            regions: Vec::new(),
            moderators: (0..meeting.moderators).map(moderator).collect(),
        };
        let conference = Conference::host(config, self.start(), Box::new(rng));
        let link = conference.link().reveal();
        let secret = link.split_once('#').expect("a link holds its secret").1;
        self.eavesdropper.plant(secret.as_bytes(), "the link's secret, as text");
        self.eavesdropper.plant(&from_base64url(secret), "the link's secret");
        self.model = Some(Model::new(meeting.entry, &name));
        self.arrive_with(conference, name, drawn, meeting.conditions, meeting.talks, Manners::HangsUp);
    }

    /// Somebody sets out to join by the meeting's link.
    pub fn join(&mut self, guest: Guest) -> Who {
        let link = self.peer(HOST).conference.link().duplicate();
        self.join_by(guest, link)
    }

    /// A leader puts somebody out, as far as the rules let it. It may be cut off itself, so the witness is not told when.
    pub fn put_out(&mut self, leader: Who, who: Who) {
        let Some(index) = self.peer(who).conference.index() else { return };
        let known = self.peer(leader).roster().get(&index.0) == Some(&self.peer(who).name);
        if known {
            let _ = self.acts(leader, |conference, now| conference.remove(now, index));
        }
    }

    /// Somebody sets out to join by a link of any kind.
    pub fn join_by(&mut self, guest: Guest, link: Link) -> Who {
        let (mut rng, drawn, name) = self.somebody(guest.identity.as_ref());
        let identity = guest.identity.map_or_else(|| Identity::guest(&mut rng), |seed| Identity::kept(&seed));
        let name_shown = DisplayName::parse(&name).expect("a plain name");
        let config = JoinConfig { link, identity, name: name_shown, passcode: self.passcode(guest.passcode) };
        let conference = Conference::join(config, self.start(), Box::new(rng));
        self.arrive_with(conference, name, drawn, guest.conditions, guest.talks, guest.manners)
    }

    fn start(&self) -> Start {
        Start { now: self.instant(), wall: DAWN.plus(self.now()) }
    }

    fn passcode(&mut self, passcode: Option<&'static str>) -> Option<Passcode> {
        let text = passcode?;
        self.eavesdropper.plant(text.as_bytes(), "a passcode");
        Passcode::parse(text)
    }

    fn somebody(&mut self, identity: Option<&[u8; 32]>) -> (ClientRng, Drawn, String) {
        let drawn = Drawn::default();
        let rng = ClientRng::new(self.seed, self.peers.len() as u64, drawn.clone());
        let name = format!("Somebody {:016x}", u64::from_be_bytes(self.dice().bytes()));
        self.eavesdropper.plant(name.as_bytes(), "a name");
        if let Some(seed) = identity {
            self.eavesdropper.plant(seed, "an identity key");
        }
        (rng, drawn, name)
    }

    fn arrive_with(
        &mut self,
        conference: Conference,
        name: String,
        drawn: Drawn,
        conditions: Conditions,
        talks: bool,
        manners: Manners,
    ) -> Who {
        let who = Who(self.peers.len());
        let voice = Voice(self.dice().bytes());
        self.eavesdropper.plant(&voice.0, "what somebody said");
        self.peers.push(Peer {
            name,
            conference,
            up: Pipe::new(conditions),
            down: Pipe::new(conditions),
            conn: None,
            talks,
            mutes: false,
            manners,
            dead: false,
            gone: false,
            events: Vec::new(),
            opened: std::collections::BTreeMap::new(),
            datagrams: 0,
            voice,
            drawn,
            tick: 0,
            timer: None,
            seen_epoch: (None, 0),
        });
        self.settle(who);
        self.connect(who);
        let phase = self.dice().up_to(FRAME);
        self.queue(self.now() + phase, Arrival::Tick(who));
        who
    }

    /// A client connects to the relay, for the first time or again.
    pub fn connect(&mut self, who: Who) {
        self.peers[who.0].gone = false;
        let conn = ConnId(self.owners.len() as u64 + 1);
        let exporter = self.dice().bytes();
        self.owners.insert(conn, who);
        self.exporters.insert(conn, exporter);
        let now = self.instant();
        let peer = self.peer_mut(who);
        peer.conn = Some(conn);
        peer.conference.connected(now, exporter);
        self.settle(who);
    }

    /// A client's connection ends; the relay hears of it after everything that was sent before.
    pub fn hang_up(&mut self, who: Who) {
        let (base, now) = (self.base, self.now());
        let peer = &mut self.peers[who.0];
        peer.gone = true;
        let Some(conn) = peer.conn.take() else { return };
        peer.conference.disconnected(base + now);
        let at = peer.up.control(now, &mut self.dice);
        let name = peer.name.clone();
        self.queue(at, Arrival::HungUp(conn));
        self.model().may_be_lost(&name);
    }

    // ---- the host ----

    /// The knock of somebody who waits.
    pub fn knock_of(&self, who: Who) -> Option<KnockId> {
        let name = &self.peer(who).name;
        self.peer(HOST).conference.knocks().into_iter().find(|(_, n)| n.as_str() == name).map(|(id, _)| id)
    }

    /// Lets time pass until somebody's knock is there.
    pub fn await_knock(&mut self, who: Who) {
        let knocks = self.run_until(Duration::from_secs(30), |world| world.knock_of(who).is_some());
        assert!(knocks, "{} does not come as far as the waiting room", self.peer(who).name);
    }

    /// The host lets somebody in who waits.
    ///
    /// # Errors
    /// [`ActError`].
    pub fn admit(&mut self, who: Who) -> Result<(), ActError> {
        let (now, name) = (self.instant(), self.peer(who).name.clone());
        let knock = self.knock_of(who).ok_or(ActError::NoSuchKnock)?;
        // Told first: the act may make the epoch at once.
        self.model().admit(&name);
        let done = self.peer_mut(HOST).conference.admit(now, knock);
        assert_eq!(done, Ok(()), "the host cannot let somebody in");
        self.settle(HOST);
        Ok(())
    }

    /// The host lets everybody in; how many.
    pub fn admit_all(&mut self) -> usize {
        let now = self.instant();
        for (_, name) in self.peer(HOST).conference.knocks() {
            self.model().admit(name.as_str());
        }
        let count = self.peer_mut(HOST).conference.admit_all(now).expect("there is room for all");
        self.settle(HOST);
        count
    }

    /// The host turns somebody down.
    pub fn deny(&mut self, who: Who) {
        let now = self.instant();
        let knock = self.knock_of(who).expect("somebody who waits");
        self.peer_mut(HOST).conference.deny(now, knock).expect("the host may deny");
        self.settle(HOST);
    }

    /// The host puts a member out.
    pub fn remove(&mut self, who: Who) {
        let now = self.instant();
        let index = self.peer(who).conference.index().expect("a member").0;
        self.model().remove(index);
        let at = self.now();
        self.witness.removed(at, index);
        self.peer_mut(HOST).conference.remove(now, MemberIndex(index)).expect("the host may remove");
        self.settle(HOST);
    }

    /// The host ends the meeting.
    pub fn end_meeting(&mut self) {
        let now = self.instant();
        self.peer_mut(HOST).conference.end(now).expect("the host may end it");
        self.settle(HOST);
    }

    /// The host makes somebody a co-host, and everybody knows it.
    pub fn promote(&mut self, who: Who) {
        let index = self.peer(who).conference.index().expect("a member");
        self.acts(HOST, |conference, now| conference.promote(now, index)).expect("the host may promote");
        let known = |world: &Self| world.peer(HOST).conference.rank(index) != Rank::Member;
        assert!(self.run_until(Duration::from_secs(5), known), "nobody was promoted");
        // Sessions with everybody, made ready.
        self.run(Duration::from_secs(3));
    }

    // ---- everybody ----

    /// Somebody does something.
    ///
    /// # Errors
    /// [`ActError`].
    pub fn acts<T>(
        &mut self,
        who: Who,
        act: impl FnOnce(&mut Conference, std::time::Instant) -> Result<T, ActError>,
    ) -> Result<T, ActError> {
        let now = self.instant();
        let done = act(&mut self.peer_mut(who).conference, now);
        self.settle(who);
        done
    }

    /// Somebody joins, knocks, is let in, and is in the meeting.
    pub fn bring_in(&mut self, guest: Guest) -> Who {
        let who = self.join(guest);
        self.await_knock(who);
        self.admit(who).expect("it knocks");
        self.await_member(who);
        who
    }

    /// Lets time pass until somebody is in the meeting.
    pub fn await_member(&mut self, who: Who) {
        let in_meeting = self.run_until(Duration::from_secs(30), |world| world.can_send(who));
        assert!(in_meeting, "{} does not get in", self.peer(who).name);
    }

    /// A member says good-bye, and stays connected.
    pub fn say_goodbye(&mut self, who: Who) {
        let (now, name) = (self.instant(), self.peer(who).name.clone());
        self.model().leave(&name);
        self.peer_mut(who).conference.leave(now);
        self.settle(who);
    }

    /// A member says good-bye and hangs up.
    pub fn leave(&mut self, who: Who) {
        self.say_goodbye(who);
        self.hang_up(who);
    }

    // ---- a hostile relay's own words ----

    /// The relay says something to a client that no hub would.
    pub fn relay_says(&mut self, who: Who, message: &FromRelay) {
        self.relay_sends(who, &message.encode());
    }

    /// The relay sends a client any bytes as a control message; they arrive at once.
    pub fn relay_sends(&mut self, who: Who, message: &[u8]) {
        let now = self.instant();
        self.peer_mut(who).conference.handle_control(now, message);
        self.settle(who);
    }

    /// The relay lies about the time to somebody.
    pub fn relay_lies_about_time(&mut self, who: Who, time: UnixMillis) {
        self.relay_says(
            who,
            &FromRelay::Welcome { time, region: String::new(), takes_reports: false, moderator: Vec::new() },
        );
    }

    /// Somebody sends the relay any bytes on its own connection.
    pub fn sends_garbage(&mut self, who: Who, message: &[u8]) {
        if let Some(conn) = self.peer(who).conn {
            self.on_control(conn, message);
        }
    }

    /// Somebody sends the relay any datagram on its own connection.
    pub fn sends_datagram(&mut self, who: Who, datagram: &[u8]) {
        if let Some(conn) = self.peer(who).conn {
            self.arrive(Arrival::DatagramAtRelay(conn, Payload::from(datagram)));
        }
    }
}

/// The bytes of unpadded base64url (RFC 4648 §5), which a link is known to hold.
fn from_base64url(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        _ => 63,
    };
    let bits: Vec<u8> = text.bytes().flat_map(|c| (0..6).rev().map(move |bit| value(c) >> bit & 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}
