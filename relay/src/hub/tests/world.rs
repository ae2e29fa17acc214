//! A hub, its clients and their clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::capability::{Capability, KnockGate, KnockToken, Revoked, Rights, SignedCapability};
use conclave_protocol::descriptor::{Descriptor, Policy, Region};
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::sign::KeyPair;
use conclave_protocol::succession::{Delegate, Line, Rank, rank};
use conclave_protocol::time::{UnixMillis, WallClock};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::datagram::{self, Kind};
use conclave_protocol::wire::relay::{FromRelay, KnockTokenBytes, MailboxId, Receipt, Refusal, ToRelay};

use super::super::meeting::Knows;
use super::super::{Config, Hub, Limits, Stage};
use crate::core::{CloseCode, ConnId, Core, Delivery, Output, Peer, PrefixToken, ReportTicket};

/// Wall-clock time at which every world begins.
pub(super) const START: UnixMillis = UnixMillis(1_800_000_000_000);
/// How long the capabilities of a [`Room`] are valid from when they are made.
pub(super) const VALIDITY: Duration = Duration::from_secs(120);

pub(super) const HOME: PrefixToken = PrefixToken(7);

/// A meeting, with the secrets that its host holds.
pub(super) struct Room {
    /// What its members bring in their Hello.
    pub(super) line: Option<Line>,
    pub(super) authority: KeyPair,
    pub(super) descriptor: Descriptor,
    pub(super) id: MeetingId,
    pub(super) token: KnockToken,
}

impl Room {
    pub(super) fn new(seed: u8) -> Self {
        Self::with_members(seed, 100)
    }

    pub(super) fn with_members(seed: u8, max_members: u16) -> Self {
        let authority = KeyPair::from_seed(&[seed; 32]);
        let descriptor = Descriptor {
            hs: [seed; 32],
            authority: authority.public(),
            not_before: START.minus(Duration::from_secs(60)),
            not_after: START.plus(Duration::from_secs(86_400)),
            policy: Policy::DEFAULT,
            frame_ms: 20,
            max_members,
            nonce: [seed; 16],
            moderator: [0; 32],
            regions: Vec::new(),
        };
        let id = descriptor.meeting_id();
        Self { line: None, authority, descriptor, id, token: KnockToken([seed; 32]) }
    }

    /// A meeting whose members know these co-hosts, the first in the line first.
    pub(super) fn with_cohosts(seed: u8, slots: &[u16]) -> Self {
        let mut room = Self::new(seed);
        room.line = Some(room.line(1, slots));
        room
    }

    pub(super) fn line(&self, seq: u32, slots: &[u16]) -> Line {
        let delegate =
            |slot: &u16| Delegate { slot: MemberIndex(*slot), hs: [0xDD; 32], authority: ak(*slot).public() };
        Line::sign(self.id, seq, slots.iter().map(delegate).collect(), &self.authority)
    }

    pub(super) fn hello(&self) -> ToRelay {
        self.hello_of(self.line.clone(), None)
    }

    pub(super) fn hello_with(&self, revoked: Revoked) -> ToRelay {
        self.hello_of(self.line.clone(), Some(revoked))
    }

    pub(super) fn hello_of(&self, line: Option<Line>, revoked: Option<Revoked>) -> ToRelay {
        ToRelay::Hello { meeting: self.id, descriptor: Some(self.descriptor.clone()), revoked, line }
    }

    pub(super) fn guest_hello(&self) -> ToRelay {
        ToRelay::Hello { meeting: self.id, descriptor: None, revoked: None, line: None }
    }

    /// What guests are told while that slot leads, by the line that members bring.
    pub(super) fn meeting_led_by(&self, leader: u16) -> FromRelay {
        FromRelay::Meeting {
            descriptor: self.descriptor.encode(),
            line: self.line.clone(),
            leader: MemberIndex(leader),
        }
    }

    pub(super) fn capability(&self, wall: UnixMillis, slot: u16, rights: Rights, serial: u32) -> Capability {
        Capability {
            meeting: self.id,
            slot: MemberIndex(slot),
            rk: rk(slot).public(),
            rights,
            not_before: wall,
            not_after: wall.plus(VALIDITY),
            serial,
            signer: MemberIndex::HOST,
        }
    }

    /// Signs as its signer does.
    pub(super) fn sign(&self, capability: Capability) -> SignedCapability {
        match capability.signer.0 {
            0 => capability.sign(&self.authority),
            cohost => capability.sign(&ak(cohost)),
        }
    }

    pub(super) fn gate(&self, seq: u32) -> ToRelay {
        ToRelay::Gate { gate: KnockGate::sign(self.id, seq, MemberIndex::HOST, &self.token, &self.authority) }
    }

    pub(super) fn knock(&self) -> ToRelay {
        ToRelay::OpenMailbox { token: KnockTokenBytes(self.token.0) }
    }

    pub(super) fn revoked(&self, seq: u32, slots: &[u16]) -> Revoked {
        Revoked::sign(self.id, seq, MemberIndex::HOST, indices(slots), &self.authority)
    }

    pub(super) fn revoked_by(&self, cohost: u16, seq: u32, slots: &[u16]) -> Revoked {
        Revoked::sign(self.id, seq, MemberIndex(cohost), indices(slots), &ak(cohost))
    }

    pub(super) fn gate_by(&self, cohost: u16, seq: u32, token: &KnockToken) -> ToRelay {
        ToRelay::Gate { gate: KnockGate::sign(self.id, seq, MemberIndex(cohost), token, &ak(cohost)) }
    }
}

fn indices(slots: &[u16]) -> Vec<MemberIndex> {
    slots.iter().map(|slot| MemberIndex(*slot)).collect()
}

/// The routing key of a slot's member.
pub(super) fn rk(slot: u16) -> KeyPair {
    key_of(slot, 0x5A)
}

/// The authority key of a co-host.
pub(super) fn ak(slot: u16) -> KeyPair {
    key_of(slot, 0xA5)
}

fn key_of(slot: u16, fill: u8) -> KeyPair {
    let mut seed = [fill; 32];
    seed[..2].copy_from_slice(&slot.to_be_bytes());
    KeyPair::from_seed(&seed)
}

pub(super) fn exporter(conn: ConnId) -> [u8; 32] {
    let mut exporter = [0xE0; 32];
    exporter[..8].copy_from_slice(&conn.0.to_be_bytes());
    exporter
}

/// A signed capability as the client at `conn` shows it.
pub(super) fn attach(conn: ConnId, signed: SignedCapability) -> ToRelay {
    let possession = signed.prove(&rk(signed.claimed.slot.0), &exporter(conn));
    ToRelay::Attach { capability: signed, possession }
}

pub(super) fn frame(slot: u16) -> Vec<u8> {
    let mut bytes = datagram::header(Kind::Media, MemberIndex(slot)).to_vec();
    bytes.extend_from_slice(&[0xAB; 120]);
    bytes
}

pub(super) fn removal_notice(slot: u16) -> Vec<u8> {
    let mut bytes = datagram::header(Kind::Removal, MemberIndex(slot)).to_vec();
    bytes.extend_from_slice(&[0xCD; 80]);
    bytes
}

pub(super) fn refused(reason: Refusal) -> Vec<FromRelay> {
    vec![FromRelay::Refused { reason }]
}

pub(super) fn attached(slot: u16) -> FromRelay {
    FromRelay::Attached { slot: MemberIndex(slot) }
}

pub(super) fn detached(reason: Refusal) -> FromRelay {
    FromRelay::Detached { reason }
}

pub(super) fn presence(slot: u16, here: bool) -> FromRelay {
    FromRelay::Presence { slot: MemberIndex(slot), here }
}

pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) now: Instant,
    pub(super) closed: BTreeMap<ConnId, CloseCode>,
    raw: BTreeMap<ConnId, Vec<Bytes>>,
    /// What each connection was told as a guest, last.
    told: BTreeMap<ConnId, Told>,
    /// The leaders of each meeting, in the order in which they began.
    began: BTreeMap<MeetingId, Vec<MemberIndex>>,
    next: u64,
    /// What the hub has handed to the sink, and the sink hasn't answered yet.
    pub(super) reports: Vec<(ReportTicket, Receipt, Bytes)>,
}

/// What a connection knows of who leads.
enum Told {
    Nothing,
    Meeting(FromRelay),
    /// It held a slot, where it is told by other means.
    Member,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with_config(Config { limits, ..Config::default() })
    }

    pub(super) fn with_config(config: Config) -> Self {
        let now = Instant::now();
        let region = Some(Region::parse("eu-west").unwrap());
        let hub = Hub::new(WallClock::new(now, START), Config { region, ..config });
        Self {
            hub,
            now,
            closed: BTreeMap::new(),
            raw: BTreeMap::new(),
            told: BTreeMap::new(),
            began: BTreeMap::new(),
            next: 0,
            reports: Vec::new(),
        }
    }

    pub(super) fn wall(&self) -> UnixMillis {
        self.hub.clock.at(self.now)
    }

    pub(super) fn connect(&mut self) -> ConnId {
        self.connect_from(HOME)
    }

    pub(super) fn connect_from(&mut self, prefix: PrefixToken) -> ConnId {
        let conn = ConnId(self.next);
        self.next += 1;
        self.raw.insert(conn, Vec::new());
        self.told.insert(conn, Told::Nothing);
        let peer = Peer { exporter: exporter(conn), prefix };
        self.call(|hub, now, out| hub.connected(now, conn, &peer, out));
        conn
    }

    pub(super) fn say(&mut self, conn: ConnId, message: &ToRelay) {
        self.say_bytes(conn, &message.encode());
    }

    pub(super) fn say_bytes(&mut self, conn: ConnId, message: &[u8]) {
        self.call(|hub, now, out| hub.control(now, conn, message, out));
    }

    /// Says something and returns all that the speaker has heard since it was last asked.
    pub(super) fn ask(&mut self, conn: ConnId, message: &ToRelay) -> Vec<FromRelay> {
        self.say(conn, message);
        self.heard(conn)
    }

    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.raw.remove(&conn);
        self.call(|hub, now, out| hub.disconnected(now, conn, out));
    }

    pub(super) fn datagram(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<ConnId> {
        let mut to = Vec::new();
        self.hub.datagram(self.now, conn, bytes, &mut to);
        assert!(!to.contains(&conn));
        assert_eq!(to.iter().collect::<BTreeSet<_>>().len(), to.len());
        to
    }

    /// Lets time pass, with a timer that is never late.
    pub(super) fn pass(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.hub.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.call(|hub, now, out| hub.timeout(now, out));
        }
        self.now = end;
    }

    pub(super) fn heard(&mut self, conn: ConnId) -> Vec<FromRelay> {
        self.heard_bytes(conn).iter().map(|bytes| FromRelay::decode(bytes).unwrap()).collect()
    }

    pub(super) fn heard_bytes(&mut self, conn: ConnId) -> Vec<Bytes> {
        self.raw.get_mut(&conn).map(std::mem::take).unwrap_or_default()
    }

    /// Forgets what everybody has heard so far.
    pub(super) fn hush(&mut self) {
        self.raw.values_mut().for_each(Vec::clear);
    }

    /// The sink answers the oldest report that it has; its bytes.
    pub(super) fn deliver(&mut self, delivery: Delivery) -> Bytes {
        let (ticket, _, bytes) = self.reports.remove(0);
        self.call(|hub, now, out| hub.report_delivered(now, ticket, delivery, out));
        bytes
    }

    pub(super) fn shutdown(&mut self) {
        self.call(|hub, now, out| hub.shutdown(now, out));
    }

    // What clients commonly do.

    pub(super) fn signed(&self, room: &Room, slot: u16, rights: Rights, serial: u32) -> SignedCapability {
        let signer = if rights.may_lead() { slot } else { 0 };
        self.signed_by(signer, room, slot, rights, serial)
    }

    pub(super) fn signed_by(
        &self,
        signer: u16,
        room: &Room,
        slot: u16,
        rights: Rights,
        serial: u32,
    ) -> SignedCapability {
        room.sign(Capability { signer: MemberIndex(signer), ..room.capability(self.wall(), slot, rights, serial) })
    }

    /// A client that says Hello with the descriptor and the line.
    pub(super) fn bearer(&mut self, room: &Room) -> ConnId {
        let conn = self.connect();
        self.say(conn, &room.hello());
        conn
    }

    pub(super) fn member(&mut self, room: &Room, slot: u16, rights: Rights) -> ConnId {
        let conn = self.bearer(room);
        self.say(conn, &attach(conn, self.signed(room, slot, rights, 1)));
        conn
    }

    /// The host in slot 0, who has set the gate.
    pub(super) fn host(&mut self, room: &Room) -> ConnId {
        let conn = self.member(room, 0, Rights::LEADER);
        self.say(conn, &room.gate(1));
        conn
    }

    pub(super) fn guest(&mut self, room: &Room) -> ConnId {
        let conn = self.connect();
        self.say(conn, &room.guest_hello());
        conn
    }

    /// A guest with a mailbox, and its name, which the host has heard.
    pub(super) fn knocker(&mut self, room: &Room, host: ConnId) -> (ConnId, MailboxId) {
        let guest = self.guest(room);
        self.say(guest, &room.knock());
        self.heard(host);
        self.say(guest, &ToRelay::Mail { bytes: b"first".to_vec() });
        let [FromRelay::MailFrom { mailbox, .. }] = self.heard(host)[..] else { panic!("no mail") };
        (guest, mailbox)
    }

    fn call(&mut self, call: impl FnOnce(&mut Hub, Instant, &mut Vec<Output>)) {
        let mut out = Vec::new();
        call(&mut self.hub, self.now, &mut out);
        for output in out {
            match output {
                Output::Control { to, bytes } => {
                    assert!(bytes.len() <= crate::framing::MAX_MESSAGE);
                    assert!(!self.closed.contains_key(&to), "a closed connection is sent something");
                    match FromRelay::decode(&bytes).unwrap() {
                        meeting @ FromRelay::Meeting { .. } => self.told.insert(to, Told::Meeting(meeting)),
                        FromRelay::Attached { .. } => self.told.insert(to, Told::Member),
                        _ => None,
                    };
                    self.raw.get_mut(&to).expect("only connections that exist are sent anything").push(bytes);
                }
                Output::Close { conn, code } => {
                    assert!(code.0 >= CloseCode::FIRST_OF_CORE);
                    assert!(self.closed.insert(conn, code).is_none(), "closed twice");
                }
                Output::Report { ticket, receipt, bytes } => {
                    assert!(self.hub.reports.has_sink(), "a report without a sink");
                    self.reports.push((ticket, receipt, bytes));
                }
                Output::Datagram { .. } => panic!("the hub sends no datagram of its own"),
            }
        }
        assert_consistent(&self.hub);
        self.assert_led_by_who_began_last();
        self.assert_guests_know_who_leads();
    }

    fn assert_led_by_who_began_last(&mut self) {
        self.began.retain(|id, _| self.hub.meetings.contains_key(id));
        for (id, meeting) in &self.hub.meetings {
            let began = self.began.entry(*id).or_default();
            let leads = |slot: &MemberIndex| meeting.members.get(slot).is_some_and(|member| member.leads.is_some());
            began.retain(leads);
            let new: Vec<_> = meeting.members.keys().filter(|slot| leads(slot) && !began.contains(slot)).collect();
            assert!(new.len() <= 1);
            began.extend(new);
            assert!(meeting.leaders.values().eq(&*began));
        }
    }

    fn assert_guests_know_who_leads(&self) {
        for meeting in self.hub.meetings.values() {
            let Some(leader) = self.began[&meeting.id].last() else { continue };
            for conn in meeting.guests.keys() {
                match &self.told[conn] {
                    Told::Nothing => panic!("a guest of a meeting that is led has heard nothing"),
                    Told::Meeting(FromRelay::Meeting { line, leader: told, .. }) => {
                        assert!(told == leader && *line == meeting.line);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The hub's invariants and its bounds.
pub(super) fn assert_consistent(hub: &Hub) {
    let limits = &hub.limits;
    hub.reports.assert_consistent(limits);
    let mut seated = 0;
    for (id, meeting) in &hub.meetings {
        assert!(!meeting.is_empty());
        seated += meeting.slots.len() + meeting.guests.len();
        for conn in meeting.slots.keys().chain(meeting.guests.keys()) {
            assert!(matches!(hub.clients.get(conn).map(|client| client.stage), Some(Stage::In(of)) if of == *id));
        }
        assert!(meeting.slots.keys().all(|conn| !meeting.guests.contains_key(conn)));
        let slots: BTreeMap<_, _> = meeting.members.iter().map(|(slot, member)| (member.conn, *slot)).collect();
        assert_eq!(slots, meeting.slots);
        let expiries: BTreeSet<_> = meeting.members.iter().map(|(slot, member)| (member.expires, *slot)).collect();
        assert_eq!(expiries, meeting.expiries);
        let leaders = meeting.members.iter().filter_map(|(slot, member)| Some((member.leads?, *slot)));
        assert_eq!(leaders.collect::<BTreeMap<_, _>>(), meeting.leaders);
        for slot in meeting.leaders.values() {
            // Whoever leads has signed for itself, and the line has its key.
            let rank = rank(meeting.line.as_ref(), *slot);
            assert!(meeting.members[slot].signer == *slot && rank != Rank::Member && meeting.may_sign(*slot));
        }
        assert!(meeting.leaders.is_empty() || meeting.lead() == meeting.told);
        assert!(meeting.line.is_none() || meeting.descriptor.is_some());
        let mailboxes = meeting.guests.iter().filter_map(|(conn, guest)| Some((guest.mailbox.as_ref()?.id, *conn)));
        assert_eq!(mailboxes.collect::<BTreeMap<_, _>>(), meeting.mailboxes);
        assert!(meeting.members.is_empty() || meeting.descriptor.is_some());
        assert!(meeting.members.len() <= limits.max_members);
        assert!(meeting.mailboxes.len() <= limits.max_mailboxes);
        // A mailbox that a leader closes leaves its owner waiting.
        let waiting = |knows| meeting.guests.values().filter(move |guest| guest.knows == knows).count();
        assert!(waiting(Knows::Id) <= limits.max_waiting + limits.max_mailboxes);
        assert!(waiting(Knows::Descriptor) <= limits.max_unattached + limits.max_mailboxes);
    }
    assert_eq!(seated, hub.clients.values().filter(|client| matches!(client.stage, Stage::In(_))).count());
    assert!(seated <= limits.max_connections);
    assert_eq!(hub.described, hub.meetings.values().filter(|meeting| meeting.descriptor.is_some()).count());
    assert!(hub.described <= limits.max_meetings);
    let deadlines = hub.meetings.iter().filter_map(|(id, meeting)| Some((meeting.next_expiry()?, *id)));
    assert_eq!(deadlines.collect::<BTreeSet<_>>(), hub.deadlines);
}
