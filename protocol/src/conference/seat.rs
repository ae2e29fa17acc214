//! A member's seat: the roster it has verified, the chain it follows, and the media keys of this epoch and the
//! last. Leader and members have one alike; the leader's own statements pass the same checks.

use rand_core::CryptoRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::event::{AlarmKind, Event};
use super::sealing::Sealing;
use super::talker::{PREVIOUS, SealOf, Talker, VerifiedSeal};
use crate::descriptor::Descriptor;
use crate::epoch::merkle;
use crate::epoch::roster::{Member, Roster, commitment_leaf};
use crate::epoch::schedule::{self, EpochSecret};
use crate::epoch::statement::{Act, ChainHash, Op, Rate, Settings, Statement, ops_hash};
use crate::epoch::witness::Witnessed;
use crate::evidence::ring::Ring;
use crate::id::{Epoch, IndexRange, MeetingId, MemberIndex, Term};
use crate::identity::{IdCert, Identity, Role};
use crate::seal::{Contradiction, SealHead};
use crate::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use crate::sframe::header::Kid;
use crate::sframe::receiver::{Ciphertext, Dropped, Opener, Play};
use crate::sframe::sender::{Exhausted, Sealer};
use crate::sframe::{KeyName, frames_per_segment};
use crate::sign::{KeyPair, PublicKey};
use crate::stamp::{SealPublic, Stamp};
use crate::succession::{Line, Rank, authority_of, rank};
use crate::time::UnixMillis;
use crate::wire::codec::Wire;
use crate::wire::control::{EpochAck, EpochKey};

/// How long frames of the last epoch are opened after a removal (DESIGN §5).
const KEEP_AFTER_REMOVAL: Duration = Duration::from_millis(500);
/// How long frames of the last epoch are opened after everybody was told to leave it (DESIGN §5).
const KEEP_OTHERWISE: Duration = Duration::from_secs(2);
/// How long a talker is heard that does not confirm the epoch to everybody (DESIGN §12).
const UNCONFIRMED: Duration = Duration::from_secs(10);
/// Statements of the own chain that are kept to compare with what others were told.
const REMEMBERED: usize = 16;
/// The soonest that anything can be due after a frame has opened: its segment may have just ended.
const SEAL_DUE: Duration = Duration::from_millis(1_500);
/// Frames that wait for seals, of all talkers together: 2 MiB. Each talker may always have [`WAITING_EACH`].
const WAITING: usize = 16_384;
/// Five seconds of frames of 20 ms, half of it of 10 ms: more than two holds of verified mode.
const WAITING_EACH: usize = 256;
/// Seals of an epoch whose key has not come, kept for a moment: so many of each talker, and so many in all.
const EARLY_SEALS_EACH: usize = 8;
const EARLY_SEALS: usize = 256;

/// Stands in the commitments' tree for a commitment that did not come in time.
pub(super) const NO_COMMITMENT: [u8; 32] = [0; 32];

/// A value that only its member knows until it is revealed, and the commitment the leader has.
pub(super) struct FreshValue {
    value: zeroize::Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
}

impl FreshValue {
    pub(super) fn draw(meeting: MeetingId, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut value = zeroize::Zeroizing::new([0; 32]);
        rng.fill_bytes(value.as_mut());
        let commitment = schedule::fresh_commitment(meeting, &value);
        Self { value, commitment }
    }

    pub(super) fn commitment(&self) -> [u8; 32] {
        self.commitment
    }
}

/// What a seat is made from, before the first epoch key.
pub(super) struct NewSeat {
    pub(super) meeting: MeetingId,
    pub(super) descriptor: Descriptor,
    pub(super) index: MemberIndex,
    pub(super) cert: IdCert,
    pub(super) fresh: FreshValue,
    /// The roster as the leader gave it, unverified until the statement's root matches.
    pub(super) roster: Roster,
}

/// Something about an epoch key is wrong; the seat is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) kind: AlarmKind,
    pub(super) detail: &'static str,
}

/// What an accepted epoch changed.
pub(super) struct Accepted {
    pub(super) ops: Vec<Op>,
    pub(super) secret: EpochSecret,
    pub(super) settings: Changed<Settings>,
    pub(super) leader: Changed<MemberIndex>,
    pub(super) departed: Vec<Member>,
    pub(super) admitted: Vec<Member>,
    pub(super) ack: EpochAck,
}

/// What something was and is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Changed<T> {
    pub(super) before: Option<T>,
    pub(super) after: T,
}

/// A seal as the relay gave it.
pub(super) struct Arrived {
    pub(super) from: MemberIndex,
    pub(super) stamp: Stamp,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Chain {
    hash: ChainHash,
    name: [u8; 16],
    term: Term,
    epoch: Epoch,
    leader: MemberIndex,
    rate: Rate,
    settings: Settings,
    commitments_root: [u8; 32],
    /// To whom the last statement hands over.
    heir: Option<MemberIndex>,
}

/// A member's place in a meeting.
pub(super) struct Seat {
    meeting: MeetingId,
    descriptor: Descriptor,
    index: MemberIndex,
    cert: IdCert,
    fresh: FreshValue,
    /// Revealed for the security code of this epoch (its own issue); committed one epoch earlier.
    revealed: Option<FreshValue>,
    /// Whether the statement of this epoch holds the commitment to it.
    committed: bool,
    roster: Roster,
    /// By the ranges in which leaders give them.
    highest: BTreeMap<IndexRange, MemberIndex>,
    line: Option<Line>,
    chain: Option<Chain>,
    /// Newest last.
    statements: VecDeque<Witnessed>,
    sealer: Option<Sealer>,
    next_sealer: Option<Sealer>,
    activated: bool,
    /// A removal was announced whose epoch key has not come: until then nothing may be said with the old one.
    held_until: Epoch,
    sealing: Sealing,
    talkers: BTreeMap<MemberIndex, Talker>,
    /// No talker has anything due before this.
    talkers_due: Option<Instant>,
    /// Frames that wait for seals; counted anew when time passes.
    waiting: usize,
    /// Talkers of whom frames wait whose seal has come.
    vouched: Vec<MemberIndex>,
    early_seals: Vec<Arrived>,
    /// The newest proof that a talker told two members two things.
    convicted: Option<(Member, Contradiction)>,
    /// Until when frames of each epoch before this one are opened, newest first; `None` while it is still in use.
    previous_until: [Option<Instant>; PREVIOUS],
}

impl Seat {
    pub(super) fn new(new: NewSeat) -> Self {
        let NewSeat { meeting, descriptor, index, cert, fresh, roster } = new;
        Self {
            meeting,
            descriptor,
            index,
            cert,
            fresh,
            revealed: None,
            committed: false,
            line: None,
            statements: VecDeque::new(),
            highest: BTreeMap::new(),
            roster,
            chain: None,
            sealer: None,
            next_sealer: None,
            activated: false,
            held_until: Epoch::ZERO,
            sealing: Sealing::new(),
            talkers: BTreeMap::new(),
            talkers_due: None,
            waiting: 0,
            vouched: Vec::new(),
            early_seals: Vec::new(),
            convicted: None,
            previous_until: [None; PREVIOUS],
        }
    }

    pub(super) fn index(&self) -> MemberIndex {
        self.index
    }

    pub(super) fn meeting(&self) -> MeetingId {
        self.meeting
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(super) fn cert(&self) -> IdCert {
        self.cert
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.chain.as_ref().map_or(Epoch::ZERO, |c| c.epoch)
    }

    pub(super) fn chain_hash(&self) -> Option<ChainHash> {
        self.chain.as_ref().map(|c| c.hash)
    }

    pub(super) fn rate(&self) -> Rate {
        self.chain.as_ref().map_or(Rate::Private, |c| c.rate)
    }

    pub(super) fn commitment(&self) -> [u8; 32] {
        self.fresh.commitment
    }

    pub(super) fn settings(&self) -> Settings {
        let waiting_room = self.descriptor.policy.has_waiting_room();
        let first = Settings { locked: false, newcomers_muted: false, waiting_room };
        self.chain.as_ref().map_or(first, |c| c.settings)
    }

    pub(super) fn term(&self) -> Term {
        self.chain.as_ref().map_or(Term(0), |c| c.term)
    }

    pub(super) fn leader(&self) -> MemberIndex {
        self.chain.as_ref().map_or(MemberIndex::HOST, |c| c.leader)
    }

    /// To whom the last statement hands over.
    pub(super) fn heir(&self) -> Option<MemberIndex> {
        self.chain.as_ref().and_then(|c| c.heir)
    }

    pub(super) fn chain_name(&self) -> Option<[u8; 16]> {
        self.chain.as_ref().map(|c| c.name)
    }

    pub(super) fn commitments_root(&self) -> [u8; 32] {
        self.chain.as_ref().map_or([0; 32], |c| c.commitments_root)
    }

    pub(super) fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// The highest index of a range that this member has seen.
    pub(super) fn highest_in(&self, range: IndexRange) -> Option<MemberIndex> {
        self.highest.get(&range).copied()
    }

    pub(super) fn rank(&self, index: MemberIndex) -> Rank {
        rank(self.line.as_ref(), index)
    }

    /// The key that the leader signs with.
    pub(super) fn leader_key(&self) -> Option<PublicKey> {
        self.authority_of(self.leader())
    }

    pub(super) fn authority_of(&self, index: MemberIndex) -> Option<PublicKey> {
        authority_of(self.line.as_ref(), &self.descriptor.authority, index)
    }

    /// The statements of this chain that are remembered, the newest last.
    pub(super) fn statements(&self) -> impl DoubleEndedIterator<Item = &Witnessed> {
        self.statements.iter()
    }

    /// The value that this member committed to before the current epoch began, if the statement holds the commitment.
    pub(super) fn revealed(&self) -> Option<&[u8; 32]> {
        self.revealed.as_ref().filter(|_| self.committed).map(|fresh| &*fresh.value)
    }

    /// Checks an epoch key against everything this seat knows and, if all is right, moves on to the epoch.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        key: EpochKey,
        identity: &Identity,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Accepted, Refused> {
        let line = self.check_line(&key)?;
        let chain = self.check_statement(&key, line.as_ref())?;
        let (roster, departed) = self.check_roster(&key, line.as_ref(), wall)?;
        let committed = self.check_commitment(&key, &roster)?;
        let secret = EpochSecret::new(self.meeting, chain.epoch, &chain.hash, &key.fresh);
        self.roster = roster;
        self.line = line;
        self.committed = committed;
        for member in self.roster.members() {
            let highest = self.highest.entry(IndexRange::of(member.index)).or_insert(member.index);
            *highest = member.index.max(*highest);
        }
        let removal = key.ops.iter().any(|op| matches!(op.act, Act::Remove(_)));
        self.install_openers(now, chain.epoch, &secret, removal);
        self.install_sealer(now, chain.epoch, &secret, removal);
        let fresh = FreshValue::draw(self.meeting, rng);
        let ack = EpochAck::sign(chain.epoch, &chain.hash, fresh.commitment, identity);
        self.revealed = Some(std::mem::replace(&mut self.fresh, fresh));
        if self.statements.len() >= REMEMBERED {
            self.statements.pop_front();
        }
        let EpochKey { previous, statement, signature, ops, admitted, .. } = key;
        self.statements.push_back(Witnessed { previous, statement, signature });
        let old = self.chain.replace(chain);
        Ok(Accepted {
            ops,
            secret,
            settings: Changed { before: old.map(|c| c.settings), after: chain.settings },
            leader: Changed { before: old.map(|c| c.leader), after: chain.leader },
            departed,
            admitted,
            ack,
        })
    }

    /// The line of succession after the epoch: the host's word, and never an older one.
    fn check_line(&self, key: &EpochKey) -> Result<Option<Line>, Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadStatement, detail };
        let digest = key.line.as_ref().map_or([0; 32], Line::digest);
        if digest != key.statement.line {
            return Err(bad("another line of succession than the statement's"));
        }
        let known = self.line.as_ref().map_or(0, |line| line.seq);
        match &key.line {
            Some(line) if Some(line) == self.line.as_ref() => {}
            Some(line) if line.seq <= known || line.verify(&self.descriptor.authority, self.meeting).is_err() => {
                return Err(bad("a line of succession that the host did not sign"));
            }
            None if self.line.is_some() => return Err(bad("a line of succession that is gone")),
            _ => {}
        }
        Ok(key.line.clone())
    }

    fn check_statement(&self, key: &EpochKey, line: Option<&Line>) -> Result<Chain, Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadStatement, detail };
        let statement = &key.statement;
        if statement.meeting != self.meeting {
            return Err(bad("a statement of another meeting"));
        }
        if statement.policy != self.descriptor.policy.bits() || statement.frame_ms != self.descriptor.frame_ms {
            return Err(bad("a statement with another policy than the meeting's"));
        }
        let takes_over = key.ops.iter().any(|op| matches!(op.act, Act::TakeOver(_)));
        match &self.chain {
            Some(chain) => {
                if key.previous != chain.hash || statement.chain != chain.name {
                    return Err(bad("a statement that does not follow from the last one"));
                }
                if chain.epoch.next() != Some(statement.epoch) {
                    return Err(bad("a statement out of order"));
                }
                let same = statement.term == chain.term && statement.leader == chain.leader;
                let next = chain.term.0.checked_add(1) == Some(statement.term.0);
                if takes_over != next || (!takes_over && !same) {
                    return Err(bad("a leader who does not follow from the last one"));
                }
                let opens = key.ops.iter().any(|op| op.act == Act::OpenRate);
                if opens != (chain.rate == Rate::Private && statement.rate == Rate::Open)
                    || (chain.rate == Rate::Open && statement.rate == Rate::Private)
                {
                    return Err(bad("a change of rate that no act explains"));
                }
                if key.ops.iter().fold(chain.settings, |settings, op| op.act.apply(settings)) != statement.settings {
                    return Err(bad("settings that no act explains"));
                }
            }
            None if statement.epoch == Epoch::ZERO => return Err(bad("a statement without an epoch")),
            None => {}
        }
        let hash = key.previous.step(statement);
        let authority = authority_of(line, &self.descriptor.authority, statement.leader)
            .ok_or(bad("a statement of somebody who may not lead"))?;
        Statement::verify(&hash, &authority, &key.signature)
            .map_err(|_| bad("a statement that its leader did not sign"))?;
        if ops_hash(&key.ops) != statement.ops_hash {
            return Err(bad("other acts than the statement's"));
        }
        if !schedule::commits_to(&statement.key_commitment, self.meeting, statement.epoch, &key.fresh) {
            return Err(Refused { kind: AlarmKind::BadKey, detail: "another key than everybody else's" });
        }
        let heir = key.ops.iter().find_map(|op| match op.act {
            Act::HandOver(index) => Some(index),
            _ => None,
        });
        let Statement { chain: name, term, epoch, leader, rate, settings, commitments_root, .. } = *statement;
        Ok(Chain { hash, name, term, epoch, leader, rate, settings, commitments_root, heir })
    }

    /// Whether an act is one that its author may do, under that leader.
    fn check_right(&self, op: &Op, line: Option<&Line>, leader: MemberIndex) -> Result<(), Refused> {
        let bad = |detail| Err(Refused { kind: AlarmKind::BadStatement, detail });
        if self.chain.is_none() {
            // A newcomer does not know who was there; those who were have checked it.
            return Ok(());
        }
        // A co-host who is demoted or goes in this very epoch may have acted before.
        let ranked = rank(line, op.by).min(self.rank(op.by));
        let own = op.act == Act::Leave(op.by);
        if !own && op.by != leader && ranked == Rank::Member {
            return bad("an act of somebody who has no right to it");
        }
        match op.act {
            Act::Remove(index) if ranked >= rank(line, index).min(self.rank(index)) => {
                bad("somebody put out by one who ranks no higher")
            }
            Act::Promote(_) | Act::Demote(_) if op.by != MemberIndex::HOST => {
                bad("a co-host made by another than the host")
            }
            Act::TakeOver(index) if index != leader || op.by != leader => bad("a leader who did not take over itself"),
            _ => Ok(()),
        }
    }

    fn check_roster(
        &self,
        key: &EpochKey,
        line: Option<&Line>,
        wall: UnixMillis,
    ) -> Result<(Roster, Vec<Member>), Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadRoster, detail };
        let mut roster = self.roster.clone();
        let mut departed = Vec::new();
        let mut admitted = key.admitted.iter();
        for op in &key.ops {
            self.check_right(op, line, key.statement.leader)?;
            match (op.act, op.act.departing()) {
                (_, Some(index)) => match roster.remove(index) {
                    Some(member) => departed.push(member),
                    // A newcomer is not told who was there before.
                    None if self.chain.is_none() => {}
                    None => return Err(bad("somebody left who was not there")),
                },
                (Act::Admit(index), None) => {
                    let member = admitted.next().filter(|m| m.index == index).ok_or(bad("an unknown member"))?;
                    let highest = self.highest_in(IndexRange::of(index));
                    let used_before = self.chain.is_some() && highest.is_some_and(|highest| index <= highest);
                    if used_before || member.joined != key.statement.epoch {
                        return Err(bad("a member's number was used before"));
                    }
                    self.check_member(member, wall)?;
                    if !roster.insert(member.clone()) {
                        return Err(bad("a member's number is taken"));
                    }
                }
                _ => {}
            }
        }
        if admitted.next().is_some() {
            return Err(bad("a member whom no act let in"));
        }
        if self.chain.is_none() {
            self.roster.members().try_for_each(|member| self.check_member(member, wall))?;
        }
        if roster.root() != key.statement.roster_root {
            return Err(bad("another roster than the signed one"));
        }
        if roster.member(key.statement.leader).is_none() {
            return Err(bad("a leader who is not in the roster"));
        }
        match roster.member(self.index) {
            Some(me) if me.cert == self.cert => Ok((roster, departed)),
            _ => Err(bad("this member is not in the roster as itself")),
        }
    }

    fn check_member(&self, member: &Member, wall: UnixMillis) -> Result<(), Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadRoster, detail };
        let (role, session) = if member.index == MemberIndex::HOST {
            (Role::Host, &self.descriptor.hs)
        } else {
            (Role::Member, &member.cert.keys.session)
        };
        member
            .cert
            .verify(self.meeting, role, session, &member.name, wall)
            .map_err(|_| bad("a member whose identity does not vouch for it"))
    }

    /// The statement must hold what this member committed to, so that an old one cannot be played back to it. A
    /// leader who had to go on before this member's commitment came puts zeros there; that is accepted only from
    /// a chain that this member already follows. Gives whether the commitment is there.
    fn check_commitment(&self, key: &EpochKey, roster: &Roster) -> Result<bool, Refused> {
        let root = &key.statement.commitments_root;
        let opens = |commitment: &[u8; 32]| {
            let leaf = commitment_leaf(self.index, commitment);
            let position = roster.position(self.index);
            position.is_some_and(|p| merkle::verify(root, &leaf, p, roster.len(), &key.opening))
        };
        if opens(&self.fresh.commitment) {
            return Ok(true);
        }
        if self.chain.is_some() && opens(&NO_COMMITMENT) {
            return Ok(false);
        }
        let detail = "a statement that was not made for this member: it may be an old one";
        Err(Refused { kind: AlarmKind::BadStatement, detail })
    }

    fn install_openers(&mut self, now: Instant, epoch: Epoch, secret: &EpochSecret, removal: bool) {
        let mut old = std::mem::take(&mut self.talkers);
        for member in self.roster.members().filter(|m| m.index != self.index) {
            let chain = secret.sender_chain(member.index, &member.cert.keys.sealing);
            let frame_ms = self.descriptor.frame_ms;
            let current = Opener::new(self.meeting, member.index, epoch, chain, frame_ms, now);
            let talker = match old.remove(&member.index) {
                Some(mut talker) => {
                    talker.on_epoch(now, current);
                    talker
                }
                None => Talker::new(current, now),
            };
            self.talkers.insert(member.index, talker);
        }
        // Each epoch keeps its own deadline: that of a removal must not move because another epoch follows. Without a
        // removal the clock starts at Activate: until then honest members go on with the old key.
        let [newest, _] = self.previous_until;
        self.previous_until = [None, newest];
        if removal {
            self.close_previous(now + KEEP_AFTER_REMOVAL);
        }
    }

    /// Nothing of the epochs before this one is opened from `limit` on.
    fn close_previous(&mut self, limit: Instant) {
        for until in &mut self.previous_until {
            *until = Some(until.map_or(limit, |until| until.min(limit)));
        }
    }

    fn install_sealer(&mut self, now: Instant, epoch: Epoch, secret: &EpochSecret, removal: bool) {
        let chain = secret.sender_chain(self.index, &self.cert.keys.sealing);
        let sealer = Sealer::new(self.meeting, self.index, epoch, chain, self.descriptor.frame_ms);
        if removal || self.sealer.is_none() {
            self.use_sealer(now, sealer);
            self.next_sealer = None;
            self.activated = true;
        } else {
            // An epoch that everybody has goes into use even if this one comes before the segment's end: receivers
            // keep only the epochs just before the newest.
            if let Some(next) = self.next_sealer.take().filter(|_| self.activated) {
                self.use_sealer(now, next);
            }
            self.next_sealer = Some(sealer);
            self.activated = false;
        }
    }

    /// Seals with another epoch's key from now on; what was sent with the last one is closed.
    fn use_sealer(&mut self, now: Instant, sealer: Sealer) {
        self.end_segment(now);
        self.sealer = Some(sealer);
    }

    /// The leader says that everybody has the epoch's key.
    pub(super) fn activate(&mut self, now: Instant, epoch: Epoch) {
        if epoch != self.epoch() || self.activated {
            return;
        }
        self.activated = true;
        self.close_previous(now + KEEP_OTHERWISE);
    }

    /// A removal whose epoch key may not have come yet: drops the removed at once.
    pub(super) fn on_removal(&mut self, now: Instant, epoch: Epoch, removed: &[MemberIndex]) {
        for index in removed {
            self.talkers.remove(index);
        }
        self.held_until = self.held_until.max(epoch);
        if epoch == self.epoch() {
            self.close_previous(now + KEEP_AFTER_REMOVAL);
        }
    }

    /// A member has confirmed this chain to everybody: it is heard for a while longer.
    pub(super) fn on_confirmed(&mut self, now: Instant, index: MemberIndex) {
        if let Some(talker) = self.talkers.get_mut(&index) {
            talker.confirmed = now;
        }
    }

    /// The connection was away: nobody could confirm anything meanwhile.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.talkers.values_mut().for_each(|talker| talker.confirmed = now);
    }

    /// Whether a member's frames have arrived lately.
    pub(super) fn is_talking(&self, now: Instant, index: MemberIndex) -> bool {
        let talker = self.talkers.get(&index);
        talker.is_some_and(|t| {
            now.saturating_duration_since(t.last_frame) < UNCONFIRMED && t.last_frame > t.talking_since
        })
    }

    /// The last time at which anybody's frame arrived.
    pub(super) fn last_frame(&self) -> Option<Instant> {
        self.talkers.values().map(|talker| talker.last_frame).max()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for place in 0..PREVIOUS {
            if self.previous_until[place].is_some_and(|until| until <= now) {
                self.talkers.values_mut().for_each(|talker| talker.close_previous(now, place));
                self.previous_until[place] = None;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let own = self.sealing.poll_timeout();
        self.previous_until.iter().copied().chain([own, self.talkers_due]).flatten().min()
    }

    // ---- this member's own frames and seals ----

    /// Seals a frame. Between a removal and its epoch key, silence goes out instead of what was said.
    pub(super) fn seal(
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
    pub(super) fn end_segment(&mut self, now: Instant) {
        if let Some(sealer) = &mut self.sealer {
            self.sealing.close(now, sealer);
        }
    }

    /// Makes the seals that are due.
    pub(super) fn make_seals(&mut self, now: Instant, key: &KeyPair) {
        if self.sealing.is_over(now) {
            self.end_segment(now);
        }
        let per_segment = frames_per_segment(self.descriptor.frame_ms);
        let statements = &self.statements;
        self.sealing.make(&self.meeting, per_segment, key, |epoch| chain_at(statements, epoch));
    }

    /// The next seal to be sent.
    pub(super) fn next_seal(&mut self) -> Option<Vec<u8>> {
        self.sealing.next()
    }

    // ---- the others' ----

    /// Opens the SFrame ciphertext that the relay says is of `slot`; `None` for a frame that waits for its seal.
    pub(super) fn open<'p>(
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
    pub(super) fn next_vouched<'p>(
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
    pub(super) fn on_seal(&mut self, now: Instant, seal: &Arrived) -> Option<VerifiedSeal> {
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
    pub(super) fn take_early_seals(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut self.early_seals)
    }

    /// Another member shows the head of a seal that it was given.
    pub(super) fn on_head_shown(&mut self, now: Instant, by: MemberIndex, shown: SealHead) -> Option<MemberIndex> {
        let index = KeyName::of(Kid(shown.kid))?.index;
        let vk = self.roster.member(index)?.cert.keys.sealing;
        self.talkers.get_mut(&index)?.on_shown(now, &self.meeting, &vk, by, shown);
        Some(index)
    }

    /// Looks at all talkers whose time has come, and says what was found.
    pub(super) fn judge_talkers(&mut self, now: Instant, mut say: impl FnMut(Event)) {
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
    pub(super) fn tell_talker(&mut self, now: Instant, index: MemberIndex, mut say: impl FnMut(Event)) {
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
    pub(super) fn convicted(&self) -> Option<&(Member, Contradiction)> {
        self.convicted.as_ref()
    }
}

/// T_e of an epoch of the own chain.
fn chain_at(statements: &VecDeque<Witnessed>, epoch: Epoch) -> Option<ChainHash> {
    statements.iter().find(|shown| shown.statement.epoch == epoch).map(Witnessed::chain)
}
