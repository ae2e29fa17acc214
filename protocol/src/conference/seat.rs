//! A member's seat: the roster it has verified, the chain it follows, and the media keys of this epoch and the
//! last. Leader and members have one alike; the leader's own statements pass the same checks.

mod acceptance;
mod early;
mod media;

use super::event::AlarmKind;
use super::sealing::Sealing;
use super::talker::{PREVIOUS, Talker};
use crate::descriptor::Descriptor;
use crate::epoch::roster::{Member, Roster};

use crate::epoch::schedule::{self, EpochSecret};
use crate::epoch::statement::{ChainHash, Op, Rate, Settings};
use crate::epoch::witness::Witnessed;
use crate::id::{Epoch, IndexRange, MeetingId, MemberIndex, Term};
use crate::identity::IdCert;
use crate::seal::Contradiction;
use crate::sframe::receiver::Opener;
use crate::sframe::sender::Sealer;
use crate::sign::PublicKey;
use crate::stamp::Stamp;
use crate::succession::{Line, Rank, authority_of, rank};
use crate::wire::control::EpochAck;
use early::EarlyFrames;
use rand_core::CryptoRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

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
    early_frames: EarlyFrames,
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
            early_frames: EarlyFrames::default(),
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
}
