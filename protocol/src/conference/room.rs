//! What every member of a meeting has, whether it leads or follows: its seat, its sessions with those who lead or may
//! come to lead, and what all members say to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::early::Early;
use super::event::{AlarmKind, Event, LeftWhy};
use super::gossip::Gossip;
use super::joiner::JoinSecrets;
use super::ledger::Ledger;
use super::mesh::Meshes;
use super::outbox::Step;
use super::peer::{self, Issuer, Path, Peer};
use super::publication::{Publication, Shown};
use super::pulse::{Heard, Pulse, TO_ALL};
use super::rival::Rival;
use super::said::SaidLog;
use super::seat::{Accepted, Refused, Seat};
use crate::capability::{Revoked, Rights, SignedCapability};
use crate::epoch::broadcast::{self, Broadcast, Channel, Place, Published, Said, SealingSeed};
use crate::epoch::statement::{Act, Op};
use crate::epoch::witness::{WitnessKey, Witnessed};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::identity::{DisplayName, Identity};
use crate::link::Link;
use crate::noise::handshake::Passcode;
use crate::noise::session::{Session, SessionId};
use crate::sign::KeyPair;
use crate::stamp::Stamp;
use crate::succession::Rank;
use crate::wire::control::{EpochAck, EpochKey, MAX_MISSED, Message, Missed, Past};
use crate::wire::relay::{EVERYBODY, ToRelay};

/// How soon a leader shows the relay another capability when one was refused, and for how long it goes on so.
const SHOW_AGAIN: Duration = Duration::from_secs(2);
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Room {
    pub(super) meeting: MeetingId,
    pub(super) link: Link,
    pub(super) name: DisplayName,
    pub(super) passcode: Option<Passcode>,
    pub(super) seat: Seat,
    pub(super) secrets: JoinSecrets,
    /// AK for the host, its own for a co-host.
    pub(super) authority: Option<KeyPair>,
    pub(super) peers: BTreeMap<MemberIndex, Peer>,
    pub(super) sessions: BTreeMap<SessionId, MemberIndex>,
    pub(super) ledger: Ledger,
    /// The one shown last.
    pub(super) capability: Option<SignedCapability>,
    /// The leader's newest, kept by who gives itself its own.
    given: Option<SignedCapability>,
    own_serial: u32,
    own_renew_due: Option<Instant>,
    /// Since when the relay does not take what this leader shows.
    refused_since: Option<Instant>,
    pub(super) revoked: Option<Revoked>,
    pub(super) exporter: Option<[u8; 32]>,
    pub(super) attached: bool,
    /// Since when there is a connection.
    pub(super) connected: Option<Instant>,
    /// Slots that the relay says are here.
    pub(super) present: BTreeSet<MemberIndex>,
    pub(super) pulse: Pulse,
    pub(super) meshes: Meshes,
    pub(super) rival: Rival,
    pub(super) publication: Publication,
    pub(super) gossip: Gossip,
    /// The relay's newest stamp on a seal of this member's own.
    pub(super) own_stamp: Option<Stamp>,
    log: SaidLog,
    channel: Option<Channel>,
    previous_channel: Option<Channel>,
    early: Early,
    witness_key: Option<WitnessKey>,
}

/// What a room is made from.
pub(super) struct NewRoom {
    pub(super) link: Link,
    pub(super) name: DisplayName,
    pub(super) passcode: Option<Passcode>,
    pub(super) seat: Seat,
    pub(super) secrets: JoinSecrets,
    pub(super) authority: Option<KeyPair>,
}

/// What a newcomer has before it has a seat.
pub(super) struct Had {
    pub(super) capability: SignedCapability,
    pub(super) exporter: Option<[u8; 32]>,
    pub(super) connected: Option<Instant>,
    pub(super) attached: bool,
    pub(super) early: Early,
    /// The leader has said all that was said before.
    pub(super) is_caught_up: bool,
}

impl Room {
    pub(super) fn new(now: Instant, new: NewRoom) -> Self {
        let NewRoom { link, name, passcode, seat, secrets, authority } = new;
        Self {
            meeting: link.meeting,
            link,
            name,
            passcode,
            seat,
            secrets,
            authority,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ledger: Ledger::default(),
            capability: None,
            given: None,
            own_serial: 0,
            own_renew_due: None,
            refused_since: None,
            revoked: None,
            exporter: None,
            attached: false,
            connected: None,
            present: BTreeSet::new(),
            pulse: Pulse::new(now),
            meshes: Meshes::default(),
            rival: Rival::default(),
            publication: Publication::default(),
            gossip: Gossip::default(),
            own_stamp: None,
            log: SaidLog::default(),
            channel: None,
            previous_channel: None,
            early: Early::default(),
            witness_key: None,
        }
    }

    pub(super) fn index(&self) -> MemberIndex {
        self.seat.index()
    }

    pub(super) fn leader(&self) -> MemberIndex {
        self.seat.leader()
    }

    pub(super) fn leads(&self) -> bool {
        self.leader() == self.index()
    }

    /// Whether this member is the host or in the line of succession, with its key.
    pub(super) fn may_lead(&self) -> bool {
        self.authority.is_some() && self.seat.rank(self.index()) != Rank::Member
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// Adds a session with another member, in the place of an older one.
    pub(super) fn add_peer(&mut self, now: Instant, index: MemberIndex, session: Session, path: Path) {
        self.sessions.retain(|_, member| *member != index);
        self.sessions.insert(session.id(), index);
        let mut peer = Peer::new(now, index, session, path);
        if path == Path::Slot {
            peer.look_again(now, self.present.contains(&index));
        }
        self.peers.insert(index, peer);
    }

    /// Takes over what a newcomer had before it had a seat.
    pub(super) fn enter(&mut self, step: &Step<'_>, had: Had) {
        let Had { capability, exporter, connected, attached, early, is_caught_up } = had;
        self.capability = Some(capability);
        self.given = Some(capability);
        self.exporter = exporter;
        self.connected = connected;
        self.attached = attached;
        self.early = early;
        if !is_caught_up {
            self.expect_missed(step.now);
        }
    }

    // ---- the connection ----

    pub(super) fn on_connected(&mut self, step: &mut Step<'_>, exporter: [u8; 32]) {
        self.exporter = Some(exporter);
        self.connected = Some(step.now);
        self.attached = false;
        self.own_renew_due = None;
        self.refused_since = None;
        self.present.clear();
        self.pulse.on_connected(step.now);
        self.seat.on_connected(step.now);
        self.peers.values_mut().for_each(|peer| peer.on_own_return(step.now));
        self.rival.on_connected();
    }

    pub(super) fn on_disconnected(&mut self) {
        self.connected = None;
        self.attached = false;
        self.own_renew_due = None;
    }

    /// Shows the relay what this member may do there: what its leader gave it, or what it gives itself.
    pub(super) fn attach(&mut self, step: &mut Step<'_>) {
        let rights = if self.leads() { Rights::LEADER } else { Rights::MEMBER };
        self.attach_with(step, rights);
    }

    /// The same, with these rights if it may give them to itself.
    pub(super) fn attach_with(&mut self, step: &mut Step<'_>, rights: Rights) {
        let Some(exporter) = self.exporter else { return };
        if self.may_lead() {
            self.issue_own(step, rights);
        } else {
            self.own_renew_due = None;
            self.capability = self.given.or(self.capability);
        }
        let Some(capability) = self.capability else { return };
        let possession = capability.prove(&self.secrets.routing, &exporter);
        step.out.control(&ToRelay::Attach { capability, possession });
    }

    fn issue_own(&mut self, step: &mut Step<'_>, rights: Rights) {
        let (meeting, signer) = (self.meeting, self.index());
        let Some(key) = &self.authority else { return };
        let issuer = Issuer { meeting, signer, key };
        let rk = self.secrets.routing.public();
        self.capability = Some(peer::issue(step.relay, &issuer, signer, rk, rights, &mut self.own_serial));
        self.own_renew_due = Some(step.now + peer::RENEW_EVERY);
    }

    /// A capability of the leader's.
    pub(super) fn on_renewed(&mut self, step: &mut Step<'_>, capability: SignedCapability) {
        self.given = Some(capability);
        if !self.may_lead() && self.is_connected() {
            self.attach(step);
        }
    }

    /// The relay takes this member's slot away, though it was not revoked: whether there is another capability to show.
    pub(super) fn shows_another(&mut self, step: &mut Step<'_>) -> bool {
        let other = self.given.filter(|given| Some(given.claimed) != self.capability.map(|shown| shown.claimed));
        let (Some(capability), Some(exporter)) = (other, self.exporter) else { return false };
        self.attached = false;
        self.own_renew_due = None;
        self.capability = Some(capability);
        let possession = capability.prove(&self.secrets.routing, &exporter);
        step.out.control(&ToRelay::Attach { capability, possession });
        true
    }

    /// A leader whose slot is lost tries again in a moment.
    pub(super) fn show_later(&mut self, now: Instant) {
        self.refused_since.get_or_insert(now);
        self.own_renew_due = Some(now + SHOW_AGAIN);
    }

    /// Whether the relay has refused this leader for too long.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        self.refused_since.is_some_and(|since| now.saturating_duration_since(since) >= REFUSED_FOR)
    }

    pub(super) fn on_attached(&mut self) -> bool {
        self.refused_since = None;
        !std::mem::replace(&mut self.attached, true)
    }

    /// Whether this member has its slot, and the relay says that nobody else of the roster has.
    pub(super) fn is_alone(&self) -> bool {
        let me = self.index();
        let mut others =
            self.seat.roster().members().map(|member| member.index).filter(|index| *index != me).peekable();
        self.attached && others.peek().is_some() && !others.any(|index| self.present.contains(&index))
    }

    /// The relay says that a slot is here, or not.
    pub(super) fn on_presence(&mut self, step: &mut Step<'_>, slot: MemberIndex, here: bool) {
        if here {
            self.present.insert(slot);
        } else {
            self.present.remove(&slot);
        }
        if let Some(peer) = self.peers.get_mut(&slot) {
            peer.on_presence(step, here);
        }
    }

    // ---- epochs ----

    /// Takes the seat to the epoch of `key`, tells what changed, and gives the acknowledgement; `None` after an alarm.
    pub(super) fn follow(&mut self, step: &mut Step<'_>, identity: &Identity, key: EpochKey) -> Option<EpochAck> {
        let leader = key.statement.leader;
        match self.seat.accept(step.now, step.wall, key, identity, step.rng) {
            Err(Refused { kind, detail }) => {
                step.out.event(Event::Alarm { kind, index: Some(leader), detail });
                None
            }
            Ok(accepted) => Some(self.on_accepted(step, accepted)),
        }
    }

    fn on_accepted(&mut self, step: &mut Step<'_>, accepted: Accepted) -> EpochAck {
        let epoch = self.seat.epoch();
        if let Some(shown) = self.seat.statements().next_back() {
            let (descriptor, line) = (self.seat.descriptor(), self.seat.line());
            step.kept.ring.on_epoch(self.index(), descriptor, shown, line, self.seat.roster());
        }
        let control = accepted.secret.control();
        self.previous_channel = self.channel.replace(Channel::new(epoch, self.index(), control));
        self.meshes.on_epoch(epoch, accepted.secret.mesh());
        if self.witness_key.is_none()
            && let Some(chain) = self.seat.chain_name()
        {
            self.witness_key = Some(WitnessKey::new(&self.link.secret.psk0(self.meeting), &chain));
        }
        let removal = accepted.ops.iter().any(|op| matches!(op.act, Act::Remove(_)));
        self.pulse.on_epoch(step.now, &self.seat, removal);
        self.pulse.follow_roster(step.now, &self.seat);
        if accepted.leader.before != Some(accepted.leader.after) {
            self.pulse.on_leader(step.now);
        }
        self.rival.on_epoch();
        self.note_departures(&accepted);
        self.meshes.look(step.now);
        self.tell(step, &accepted);
        if self.seat.rank(self.index()) == Rank::Member {
            self.authority = None;
        }
        if self.leader() != self.index() && accepted.leader.before == Some(self.index()) {
            // Steps down at the relay, too.
            self.attach(step);
        }
        let ends = accepted.ops.iter().any(|op| op.act == Act::End);
        if ends {
            self.publication.on_end();
        }
        for (from, packet) in self.early.take() {
            self.on_broadcast(step, from, &packet);
        }
        self.after_epoch(step, ends);
        if ends {
            // After the last seal.
            self.publish_at_end(step);
        }
        accepted.ack
    }

    fn note_departures(&mut self, accepted: &Accepted) {
        self.publication.on_departed(&accepted.departed);
        for member in &accepted.departed {
            let gone = accepted.ops.iter().find(|op| op.act.departing() == Some(member.index));
            let past = match gone.map(|op| op.act) {
                Some(Act::Remove(_)) => Past::Blocked,
                Some(Act::Lost(_)) => Past::Lost,
                _ => Past::Left,
            };
            self.ledger.note(member.cert.identity, past);
            self.peers.remove(&member.index);
            self.sessions.retain(|_, index| *index != member.index);
            self.meshes.forget(member.index);
        }
        for member in &accepted.admitted {
            self.ledger.came(&member.cert.identity);
        }
    }

    fn tell(&self, step: &mut Step<'_>, accepted: &Accepted) {
        let me = self.index();
        for op in &accepted.ops {
            self.tell_act(step, op, accepted);
        }
        for member in &accepted.departed {
            let why = accepted.ops.iter().find_map(|op| match op.act {
                Act::Remove(index) if index == member.index => Some(LeftWhy::Removed),
                Act::Lost(index) if index == member.index => Some(LeftWhy::Lost),
                _ => None,
            });
            let (index, name) = (member.index, member.name.clone());
            step.out.event(Event::Left { index, name, why: why.unwrap_or(LeftWhy::Left) });
        }
        for member in accepted.admitted.iter().filter(|m| m.index != me) {
            step.out.event(Event::Joined { index: member.index, name: member.name.clone() });
        }
        step.out.event(Event::Roster { epoch: self.seat.epoch() });
        let leader = accepted.leader;
        if leader.before.is_some_and(|before| before != leader.after)
            || (leader.before.is_none() && leader.after != MemberIndex::HOST)
        {
            step.out.event(Event::Leader { index: leader.after });
        }
        let settings = accepted.settings;
        let was_locked = settings.before.is_some_and(|before| before.locked);
        if settings.after.locked != was_locked {
            step.out.event(Event::Locked { on: settings.after.locked });
        }
        let did = |act: Act| accepted.ops.iter().find(|op| op.act == act);
        if let Some(op) = did(Act::AskMute(me)) {
            step.out.event(Event::AskedToMute { by: op.by });
        }
        if did(Act::OpenRate).is_some() {
            step.out.event(Event::OpenRate);
        }
        if let Some(op) = did(Act::End) {
            step.out.event(Event::Ended { by: op.by });
        }
    }

    fn tell_act(&self, step: &mut Step<'_>, op: &Op, accepted: &Accepted) {
        if matches!(op.act, Act::Rekey | Act::OpenRate) {
            return;
        }
        let who = op.act.member().and_then(|index| {
            let gone = || accepted.departed.iter().find(|m| m.index == index);
            let member = self.seat.roster().member(index).or_else(gone)?;
            Some((index, member.name.clone()))
        });
        step.out.event(Event::Act { by: op.by, act: op.act, who });
    }

    // ---- what all members say to each other ----

    /// Seals a message and gives it to the relay for everybody, or for one.
    pub(super) fn broadcast_to(&mut self, step: &mut Step<'_>, to: MemberIndex, message: &Broadcast) {
        if !self.attached {
            return;
        }
        if let Some(packet) = self.channel.as_mut().and_then(|channel| channel.seal(message)) {
            step.out.send(to, packet);
        }
    }

    pub(super) fn broadcast(&mut self, step: &mut Step<'_>, message: &Broadcast) {
        self.broadcast_to(step, EVERYBODY, message);
    }

    /// A packet of kind 6 or 7 of another member.
    pub(super) fn on_broadcast(&mut self, step: &mut Step<'_>, from: MemberIndex, packet: &[u8]) {
        if self.seat.roster().member(from).is_none() {
            return self.on_stranger(step, packet);
        }
        let Some(epoch) = Channel::epoch_of(packet) else { return self.on_witness(step, packet) };
        let current = self.seat.epoch();
        if epoch > current {
            self.early.keep(from, packet);
            return;
        }
        let channel = if epoch == current { &mut self.channel } else { &mut self.previous_channel };
        let Some((counter, message)) = channel.as_mut().and_then(|channel| channel.open(from, packet)) else { return };
        match message {
            Broadcast::Heartbeat(heartbeat) if from == self.leader() && !self.leads() => {
                if self.pulse.on_heartbeat(step.now, step.wall, &self.seat, &heartbeat) == Heard::Bad {
                    let detail = "the leader's sign of life is not of this meeting's history";
                    step.out.event(Event::Alarm { kind: AlarmKind::BadStatement, index: Some(from), detail });
                } else {
                    self.say_stale(step);
                    self.witness(step, heartbeat.n);
                }
            }
            Broadcast::Confirm(confirm) => {
                if !self.pulse.on_confirm(step.now, &mut self.seat, from, &confirm) {
                    self.alarm_of_ack(step, from);
                } else if self.leads() && self.seat.roster().len() > TO_ALL {
                    let is_talking = self.seat.is_talking(step.now, from);
                    self.pulse.pass_on(from, confirm, is_talking);
                }
                self.say_code(step);
            }
            Broadcast::Passed(passed) if from == self.leader() => {
                let bad = self.pulse.on_passed(step.now, &mut self.seat, passed);
                bad.into_iter().for_each(|index| self.alarm_of_ack(step, index));
                self.say_code(step);
            }
            Broadcast::Said(said) => {
                let place = Place { meeting: self.meeting, epoch, index: from, counter };
                self.on_said(step, place, said);
            }
            Broadcast::Published(shown) => self.on_published(step, from, shown),
            Broadcast::Heads(heads) => self.on_heads(step, from, heads),
            _ => {}
        }
    }

    fn alarm_of_ack(&self, step: &mut Step<'_>, index: MemberIndex) {
        let detail = "a member confirms another history than this one";
        step.out.event(Event::Alarm { kind: AlarmKind::BadAcknowledgement, index: Some(index), detail });
    }

    /// Tells of the security code when it has become whole.
    pub(super) fn say_code(&mut self, step: &mut Step<'_>) {
        if let Some(code) = self.pulse.new_code(&self.seat) {
            step.out.event(Event::SecurityCode { epoch: self.seat.epoch(), code });
        }
    }

    pub(super) fn say_stale(&mut self, step: &mut Step<'_>) {
        if let Some(silence) = self.pulse.stale_to_say(step.now) {
            step.out.event(Event::Stale { silence });
        }
    }

    // ---- sealing keys of those who are gone ----

    /// The secret half of this member's `vk`, for whoever publishes it.
    pub(super) fn last_key(&self) -> Message {
        Message::LastKey(Published { index: self.index(), seed: SealingSeed::of(&self.secrets.sealing) })
    }

    /// A member's own sealing key as it goes, or one that a leader before did not come to publish.
    pub(super) fn on_last_key(&mut self, step: &mut Step<'_>, from: MemberIndex, key: Published) {
        let Published { index, seed } = key;
        if index == from || self.seat.rank(from) != Rank::Member {
            // Another key than the member's is of no use to anybody.
            self.publication.keep(step.now, self.seat.roster(), index, seed);
        }
    }

    /// Publishes what is due, while this member leads.
    pub(super) fn publish_due(&mut self, step: &mut Step<'_>) {
        if self.attached {
            for shown in self.publication.due(step.now) {
                self.publish(step, shown);
            }
        }
    }

    /// The meeting is over: the last word of everybody is its own key; of the leader, also those that wait.
    fn publish_at_end(&mut self, step: &mut Step<'_>) {
        if self.leads() {
            self.publish_due(step);
        }
        let seed = SealingSeed::of(&self.secrets.sealing);
        self.publish(step, Published { index: self.index(), seed });
    }

    fn publish(&mut self, step: &mut Step<'_>, shown: Published) {
        self.broadcast(step, &Broadcast::Published(shown.clone()));
        self.on_published(step, self.index(), shown);
    }

    fn on_published(&mut self, step: &mut Step<'_>, from: MemberIndex, shown: Published) {
        let index = shown.index;
        if self.publication.on_published(self.seat.roster(), from, shown) == Shown::Stolen {
            let detail = "the sealing key of somebody who is still here was published";
            step.out.event(Event::Alarm { kind: AlarmKind::Unauthentic, index: Some(index), detail });
        }
    }

    /// After the end nothing counts but the others' last words.
    pub(super) fn on_last_word(&mut self, step: &mut Step<'_>, from: MemberIndex, packet: &[u8]) {
        if !self.publication.has_ended() {
            return;
        }
        let opened = self.channel.as_mut().and_then(|channel| channel.open(from, packet));
        if let Some((_, Broadcast::Published(shown))) = opened {
            self.on_published(step, from, shown);
        }
    }

    // ---- chat and hands ----

    /// Says something to all, and to oneself.
    pub(super) fn say(&mut self, step: &mut Step<'_>, make: impl FnOnce(&Place, &KeyPair) -> Said) -> bool {
        let Some(channel) = self.channel.as_ref().filter(|_| self.attached) else { return false };
        let (epoch, counter) = (channel.epoch(), channel.next_counter());
        let place = Place { meeting: self.meeting, epoch, index: self.index(), counter };
        let said = make(&place, &self.secrets.sealing);
        self.broadcast(step, &Broadcast::Said(said.clone()));
        self.tell_said(step, &place, &said);
        true
    }

    /// What a member says, as it comes.
    fn on_said(&mut self, step: &mut Step<'_>, place: Place, said: Said) {
        if self.is_said(&place, &said)
            && let Some((place, said)) = self.log.wait(place, said)
        {
            self.catch_up(step);
            self.tell_said(step, &place, &said);
        }
    }

    /// Whether its author said it here, and after this member joined.
    fn is_said(&self, place: &Place, said: &Said) -> bool {
        let Some(author) = self.seat.roster().member(place.index) else { return false };
        let joined = self.seat.roster().member(self.index()).map_or(Epoch::ZERO, |me| me.joined);
        let is_void = place.epoch < joined || self.publication.is_published(place.index);
        !is_void && said.verify(place, &author.cert.keys.sealing).is_ok()
    }

    fn tell_said(&mut self, step: &mut Step<'_>, place: &Place, said: &Said) {
        if self.log.note(step.now, place, said) {
            let from = place.index;
            step.out.event(match said {
                Said::Chat { text, .. } => Event::Chat { from, text: text.clone() },
                Said::Hand { on, .. } => Event::Hand { index: from, on: *on },
                Said::Recording { on, .. } => Event::Recording { index: from, on: *on },
            });
        }
    }

    /// What the leader kept while this member was away.
    pub(super) fn on_missed(&mut self, step: &mut Step<'_>, missed: Vec<Missed>) {
        let is_last = missed.len() < MAX_MISSED;
        for Missed { from, epoch, counter, said } in missed {
            let place = Place { meeting: self.meeting, epoch, index: from, counter };
            if self.is_said(&place, &said) {
                self.tell_said(step, &place, &said);
            }
        }
        if is_last {
            self.catch_up(step);
        }
    }

    /// Tells what has waited: nothing from before it is to come any more.
    fn catch_up(&mut self, step: &mut Step<'_>) {
        for (place, said) in self.log.caught_up() {
            self.tell_said(step, &place, &said);
        }
    }

    /// The leader is asked what this member missed.
    pub(super) fn expect_missed(&mut self, now: Instant) {
        if !self.leads() {
            self.log.catch_up(now);
        }
    }

    /// What a member that was away may have missed.
    pub(super) fn missed_by(&self, index: MemberIndex) -> Vec<Vec<Missed>> {
        let joined = self.seat.roster().member(index).map(|member| member.joined);
        joined.map(|joined| self.log.since(joined)).unwrap_or_default()
    }

    // ---- witnesses ----

    /// Shows the others what this member was told, from time to time.
    pub(super) fn witness(&mut self, step: &mut Step<'_>, tick: u32) {
        if !self.rival.shows(&self.seat, tick) {
            return;
        }
        let Some(newest) = self.seat.statements().next_back() else { return };
        let packet = self.witness_key.as_ref().and_then(|key| key.seal(newest, step.rng));
        if let Some(packet) = packet.filter(|_| self.attached) {
            step.out.send(EVERYBODY, packet);
        }
    }

    /// Somebody who is no member here: only what it shows of another history counts.
    fn on_stranger(&mut self, step: &mut Step<'_>, packet: &[u8]) {
        if packet.first() != Some(&broadcast::PACKET_KIND) {
            self.on_witness(step, packet);
        }
    }

    fn on_witness(&mut self, step: &mut Step<'_>, packet: &[u8]) {
        let Some(shown) = self.witness_key.as_ref().and_then(|key| key.open(packet)) else { return };
        self.on_shown(step, shown);
    }

    fn on_shown(&mut self, step: &mut Step<'_>, shown: Witnessed) {
        // The leader of a line that this member does not know yet is believed when the line has come.
        let Some(authority) = self.seat.authority_of(shown.statement.leader) else { return };
        if self.rival.is_known(&self.seat, &shown) || shown.verify(&authority).is_err() {
            return;
        }
        if let Some(alarm) = self.rival.on_shown(step.now, &self.seat, shown) {
            step.out.event(alarm);
        }
    }

    // ---- time ----

    /// What is due for every member; the leader's and the follower's own come on top.
    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>, identity: &Identity) {
        self.seat.handle_timeout(step.now);
        self.run_seals(step);
        for (place, said) in self.log.overdue(step.now) {
            self.tell_said(step, &place, &said);
        }
        if !self.is_connected() {
            return;
        }
        if self.own_renew_due.is_some_and(|due| due <= step.now) {
            self.own_renew_due = None;
            self.attach(step);
        }
        if !self.attached {
            return;
        }
        if let Some(confirm) = self.pulse.confirm(step.now, &self.seat, identity) {
            let to_all = self.leads() || self.seat.roster().len() <= TO_ALL;
            let to = if to_all { EVERYBODY } else { self.leader() };
            if self.leads() && self.seat.roster().len() > TO_ALL {
                self.pulse.pass_on(self.index(), confirm, true);
            }
            self.broadcast_to(step, to, &Broadcast::Confirm(confirm));
            self.say_code(step);
        }
        let bad = self.pulse.check_some(step.now, &mut self.seat);
        bad.into_iter().for_each(|index| self.alarm_of_ack(step, index));
        self.say_code(step);
        if let Some(alarm) = self.rival.overdue(step.now) {
            step.out.event(alarm);
        }
        self.reach_out(step);
    }

    pub(super) fn poll_timeout(&self, looked: Instant) -> Option<Instant> {
        let seat = [self.seat.poll_timeout(), self.log.poll_timeout()].into_iter().flatten().min();
        if !self.is_connected() {
            return seat;
        }
        let waits = [
            self.own_renew_due,
            self.rival.poll_timeout(looked),
            self.meshes.next().filter(|_| self.attached),
            self.gossip.poll_timeout().filter(|_| self.attached),
        ];
        let attached = if self.attached { self.pulse.poll_timeout(true, self.leads()) } else { None };
        waits.into_iter().flatten().chain(attached).chain(seat).min()
    }
}
