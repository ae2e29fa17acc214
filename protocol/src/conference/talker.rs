//! One talker at a listener: its media keys of this epoch and the last ones, and how far what is said in its name is
//! believed (`docs/protocol.md` §9.4 – §9.6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{AlarmKind, Event};
use crate::epoch::schedule::SegmentKey;
use crate::epoch::statement::ChainHash;
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::seal::{BadSeal, Contradiction, SealBody, SealHead};
use crate::sframe::frame::PLAINTEXT_LEN;
use crate::sframe::receiver::{Opener, Play, Vouched};
use crate::sframe::{KeyName, SegmentNumber};
use crate::sign::PublicKey;
use crate::stamp::SealPublic;
use crate::wire::codec::Wire;

/// Epochs before the current one whose frames may still be on their way. Two, because a removal never waits for
/// the change before it to be through.
pub(super) const PREVIOUS: usize = 2;
/// Epochs before those whose seals may still come: as many removals in the time that seals are waited for.
const PAST: usize = 6;
/// How long seals of an epoch are taken after its last frame was opened: until all of them are overdue.
const SEALS_FOR: Duration = Duration::from_millis(3_500);
/// How long a talker must be clean until its frames are played at once again (DESIGN §7).
const CLEAN: Duration = Duration::from_secs(30);
/// A talker of whom nothing has come for so long is silent: it, or this listener, has lost its connection, and the last
/// seals with it.
const SILENT: Duration = Duration::from_secs(1);
/// A pause after which a talker begins anew: five frames of the longest duration may be lost without one.
const PAUSE: Duration = Duration::from_millis(500);
/// How long misses count as those of one pause: from the first segment that is overdue to the last.
const ONE_PAUSE: Duration = Duration::from_secs(4);
/// Between two alarms of a kind about one talker.
const ALARM_EVERY: Duration = Duration::from_secs(30);
/// Seals of one talker that are looked at in a second: ten times what an honest one sends, and a check costs 60 µs.
const SEALS_PER_SECOND: u8 = 20;
/// Verified heads kept to compare with what others were told: those of 80 s.
const HEADS: usize = 16;
/// Heads shown by others that wait for a seal of one's own: of one who shows them, as many as it can show in that time and
/// one more; of all, those of sixteen, as many as show at a time. What one member shows pushes out nobody else's.
const SHOWN_EACH: usize = 3;
const SHOWN: usize = 16 * SHOWN_EACH;
/// How long they wait.
const SHOWN_FOR: Duration = Duration::from_secs(10);
/// Every so many segments a head is shown to the others (DESIGN §12).
pub(super) const SHOWN_EVERY: u16 = 10;

/// A seal that was verified.
pub(super) struct VerifiedSeal {
    /// The segment.
    pub(super) name: KeyName,
    /// SK_i, which evidence keeps.
    pub(super) key: SegmentKey,
    /// The head.
    pub(super) head: SealHead,
}

/// A head that another member has shown.
struct Shown {
    at: Instant,
    by: MemberIndex,
    head: SealHead,
}

/// What a seal is checked with.
pub(super) struct SealOf<'a> {
    pub(super) meeting: &'a MeetingId,
    /// T_e of the segment's epoch.
    pub(super) chain: ChainHash,
    pub(super) name: KeyName,
    /// The talker's.
    pub(super) vk: &'a PublicKey,
    pub(super) per_segment: u8,
    pub(super) bytes: &'a [u8],
}

/// See the module.
pub(super) struct Talker {
    pub(super) current: Opener,
    /// Newest first.
    pub(super) previous: [Option<Opener>; PREVIOUS],
    /// Epochs of which nothing is opened any more, and until when their seals are taken.
    past: VecDeque<(Opener, Instant)>,
    /// When it last confirmed this chain, or came.
    pub(super) confirmed: Instant,
    /// When it began to talk after the last pause, and its last frame.
    pub(super) talking_since: Instant,
    pub(super) last_frame: Instant,
    /// Until when only what seals list is played.
    verified_until: Option<Instant>,
    told_verified: bool,
    /// When seals were last missing for a pause.
    excused: Option<Instant>,
    bad_seal: bool,
    bad_seal_told: Option<Instant>,
    injected_told: Option<Instant>,
    heads: VecDeque<SealHead>,
    shown: VecDeque<Shown>,
    contradiction: Option<Box<Contradiction>>,
    told_contradiction: bool,
    looked_at: (Option<Instant>, u8),
}

impl Talker {
    pub(super) fn new(current: Opener, now: Instant) -> Self {
        Self {
            current,
            previous: [None, None],
            past: VecDeque::new(),
            confirmed: now,
            talking_since: now,
            last_frame: now,
            verified_until: None,
            told_verified: false,
            excused: None,
            bad_seal: false,
            bad_seal_told: None,
            injected_told: None,
            heads: VecDeque::new(),
            shown: VecDeque::new(),
            contradiction: None,
            told_contradiction: false,
            looked_at: (None, 0),
        }
    }

    // ---- epochs ----

    /// Another epoch has begun.
    pub(super) fn on_epoch(&mut self, now: Instant, current: Opener) {
        let last = std::mem::replace(&mut self.current, current);
        let [newest, oldest] = std::mem::take(&mut self.previous);
        self.previous = [Some(last), newest];
        oldest.into_iter().for_each(|opener| self.retire(now, opener));
    }

    /// Nothing of a previous epoch is opened any more.
    pub(super) fn close_previous(&mut self, now: Instant, place: usize) {
        if let Some(opener) = self.previous[place].take() {
            self.retire(now, opener);
        }
    }

    fn retire(&mut self, now: Instant, mut opener: Opener) {
        if opener.is_settled() {
            return;
        }
        opener.close();
        if self.past.len() >= PAST {
            self.past.pop_front();
        }
        self.past.push_back((opener, now + SEALS_FOR));
    }

    fn openers(&self) -> impl Iterator<Item = &Opener> {
        let past = self.past.iter().map(|(opener, _)| opener);
        past.chain(self.previous.iter().rev().flatten()).chain([&self.current])
    }

    /// Oldest first.
    fn openers_mut(&mut self) -> impl Iterator<Item = &mut Opener> {
        let past = self.past.iter_mut().map(|(opener, _)| opener);
        past.chain(self.previous.iter_mut().rev().flatten()).chain([&mut self.current])
    }

    fn opener_of(&mut self, epoch: Epoch) -> Option<&mut Opener> {
        self.openers_mut().find(|opener| opener.epoch() == epoch)
    }

    // ---- frames ----

    /// Whether it was caught telling two members two things.
    pub(super) fn is_silenced(&self) -> bool {
        self.contradiction.is_some()
    }

    /// When its frames are played.
    pub(super) fn play(&self) -> Play {
        if self.verified_until.is_some() { Play::Vouched } else { Play::AtOnce }
    }

    /// How many frames wait for a seal.
    pub(super) fn waiting(&self) -> usize {
        self.openers().map(Opener::waiting).sum()
    }

    /// Whether a frame waits whose seal has come.
    pub(super) fn has_vouched(&self) -> bool {
        self.openers().any(Opener::has_vouched)
    }

    /// The next of them.
    pub(super) fn next_vouched<'p>(&mut self, plaintext: &'p mut [u8; PLAINTEXT_LEN]) -> Option<Vouched<'p>> {
        if self.is_silenced() {
            return None;
        }
        self.openers_mut().find(|opener| opener.has_vouched())?.next_vouched(plaintext)
    }

    /// Since when it talks, if a frame of it comes now.
    pub(super) fn talking_since(&self, now: Instant) -> Instant {
        let begins = now.saturating_duration_since(self.last_frame) > PAUSE;
        if begins { now } else { self.talking_since }
    }

    /// A frame has opened.
    pub(super) fn on_opened(&mut self, now: Instant) {
        self.talking_since = self.talking_since(now);
        self.last_frame = now;
    }

    // ---- seals ----

    /// Checks a seal. Gives it if it verifies and is new.
    pub(super) fn on_seal(&mut self, now: Instant, seal: &SealOf<'_>) -> Option<VerifiedSeal> {
        let name = seal.name;
        let public = public_part(seal.bytes)?;
        let opener = self.opener_of(name.epoch)?;
        let known = opener.vouched(name.segment).map(|(head, _)| *head);
        if known.is_some_and(|head| head.root == public.root) || !self.may_look(now) {
            return None;
        }
        let opener = self.opener_of(name.epoch)?;
        let key = opener.segment_key(name.segment, now)?;
        let body = SealBody::open(seal.bytes, seal.meeting, &key, seal.per_segment).ok()?;
        let head = match body.verify(seal.meeting, &seal.chain, &key, seal.vk) {
            Ok(head) => head,
            Err(BadSeal::Unreadable) => return None,
            Err(BadSeal::Commitment | BadSeal::Root | BadSeal::Signature) => {
                self.bad_seal = true;
                return None;
            }
        };
        if let Some(known) = known {
            self.convict(Contradiction::Heads(known, head));
            return None;
        }
        if let Some(broken) = broken_chain(opener, seal, head, &body) {
            self.convict(broken);
            return None;
        }
        opener.vouch(name, head, body, now);
        self.compare_shown(now, head, seal);
        if name.segment.0.is_multiple_of(SHOWN_EVERY) {
            if self.heads.len() >= HEADS {
                self.heads.pop_front();
            }
            self.heads.push_back(head);
        }
        Some(VerifiedSeal { name, key, head })
    }

    /// Whether one more seal may be looked at in this second.
    fn may_look(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.looked_at;
        if since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (*since, *count) = (Some(now), 0);
        }
        *count = count.saturating_add(1);
        *count <= SEALS_PER_SECOND
    }

    /// Member `by` shows what it was told; a signature is checked only when it says something new.
    pub(super) fn on_shown(
        &mut self,
        now: Instant,
        meeting: &MeetingId,
        vk: &PublicKey,
        by: MemberIndex,
        head: SealHead,
    ) {
        match self.heads.iter().find(|own| own.kid == head.kid) {
            Some(own) if own.root == head.root => {}
            Some(own) => {
                let contradiction = Contradiction::Heads(*own, head);
                if contradiction.is_proof(meeting, vk) {
                    self.convict(contradiction);
                }
            }
            None => self.keep_shown(Shown { at: now, by, head }),
        }
    }

    fn keep_shown(&mut self, new: Shown) {
        let is_due = |shown: &Shown| new.at.saturating_duration_since(shown.at) < SHOWN_FOR;
        self.shown.retain(|shown| is_due(shown) && !(shown.by == new.by && shown.head == new.head));
        // The new one counts: who has most makes room for it, and may be its own shower.
        let is_of = |by: MemberIndex| self.shown.iter().filter(|shown| shown.by == by).count();
        let count = |by: MemberIndex| is_of(by) + usize::from(by == new.by);
        let goes = if count(new.by) > SHOWN_EACH {
            Some(new.by)
        } else if self.shown.len() >= SHOWN {
            self.shown.iter().map(|shown| shown.by).chain([new.by]).max_by_key(|by| count(*by))
        } else {
            None
        };
        if let Some(by) = goes {
            let Some(place) = self.shown.iter().position(|shown| shown.by == by) else { return };
            self.shown.remove(place);
        }
        self.shown.push_back(new);
    }

    /// What others showed before this member had a seal of its own.
    fn compare_shown(&mut self, now: Instant, own: SealHead, seal: &SealOf<'_>) {
        if self.shown.is_empty() {
            return;
        }
        let mut same: Vec<SealHead> = Vec::new();
        self.shown.retain(|shown| {
            if shown.head.kid == own.kid {
                same.push(shown.head);
            }
            shown.head.kid != own.kid && now.saturating_duration_since(shown.at) < SHOWN_FOR
        });
        for shown in same.into_iter().filter(|shown| shown.root != own.root) {
            let contradiction = Contradiction::Heads(own, shown);
            if contradiction.is_proof(seal.meeting, seal.vk) {
                self.convict(contradiction);
            }
        }
    }

    fn convict(&mut self, contradiction: Contradiction) {
        self.contradiction.get_or_insert_with(|| Box::new(contradiction));
    }

    /// The proof that it told two members two things.
    pub(super) fn contradiction(&self) -> Option<&Contradiction> {
        self.contradiction.as_deref()
    }

    /// Whether the seals of segments whose newest frame came at `newest` are missing because a connection was lost:
    /// nothing came after them for a while. Once in a while only, so that whoever forges frames gains one burst by
    /// pausing, and no more.
    fn is_excused(&mut self, now: Instant, newest: Instant) -> bool {
        let is_silent = now.saturating_duration_since(self.last_frame) >= SILENT;
        if !is_silent && newest >= self.talking_since {
            return false;
        }
        match self.excused.map(|excused| now.saturating_duration_since(excused)) {
            Some(since) if since < ONE_PAUSE => true,
            Some(since) if since < CLEAN => false,
            _ => {
                self.excused = Some(now);
                true
            }
        }
    }

    // ---- time, and what it brings ----

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.is_silenced() {
            return None;
        }
        self.openers().filter_map(Opener::seal_due).chain(self.verified_until).min()
    }

    /// Time has passed.
    pub(super) fn judge(&mut self, now: Instant) {
        self.openers_mut().for_each(|opener| opener.judge(now));
    }

    /// What is to be said about it now.
    pub(super) fn tell(&mut self, now: Instant, index: MemberIndex, mut say: impl FnMut(Event)) {
        let (mut injected, mut missed) = (false, None);
        for opener in self.openers_mut() {
            let found = opener.take_findings();
            injected |= found.injected;
            missed = missed.max(found.missed);
        }
        let missed = missed.is_some_and(|newest| !self.is_excused(now, newest));
        self.past.retain(|(opener, until)| now < *until && !opener.is_settled());
        let bad_seal = std::mem::take(&mut self.bad_seal);
        if injected && is_time(&mut self.injected_told, now) {
            let detail = "somebody else speaks in this member's name: only what it vouches for is played";
            say(Event::Alarm { kind: AlarmKind::Injected, index: Some(index), detail });
        }
        if bad_seal && is_time(&mut self.bad_seal_told, now) {
            let detail = "this member's seals do not verify: only what it vouches for is played";
            say(Event::Alarm { kind: AlarmKind::BadSeal, index: Some(index), detail });
        }
        if self.is_silenced() && !std::mem::replace(&mut self.told_contradiction, true) {
            let detail = "this member has told two members two different things: it is not heard any more";
            say(Event::Alarm { kind: AlarmKind::Equivocation, index: Some(index), detail });
        }
        if injected || missed || bad_seal {
            self.verified_until = Some(now + CLEAN);
        } else if self.verified_until.is_some_and(|until| until <= now) {
            self.verified_until = None;
        }
        let on = self.verified_until.is_some();
        if std::mem::replace(&mut self.told_verified, on) != on {
            say(Event::Verified { index, on });
        }
    }
}

/// Whether an alarm may be told now; it counts as told.
fn is_time(told: &mut Option<Instant>, now: Instant) -> bool {
    let is_time = told.is_none_or(|told| now.saturating_duration_since(told) >= ALARM_EVERY);
    if is_time {
        *told = Some(now);
    }
    is_time
}

/// Whether a verified seal and its neighbours of the same epoch do not follow each other.
fn broken_chain(opener: &Opener, seal: &SealOf<'_>, head: SealHead, body: &SealBody) -> Option<Contradiction> {
    let (segment, chain) = (seal.name.segment.0, seal.chain);
    let at = |segment: Option<u16>| segment.and_then(|segment| opener.vouched(SegmentNumber(segment)));
    if let Some((before, _)) = at(segment.checked_sub(1)).filter(|(before, _)| before.root != body.prev) {
        return Some(Contradiction::Break { before: *before, chain, after: Box::new(body.clone()) });
    }
    let (_, after) = at(segment.checked_add(1)).filter(|(_, after)| after.prev != head.root)?;
    Some(Contradiction::Break { before: head, chain, after: Box::new(after.clone()) })
}

/// The public part of a seal.
fn public_part(seal: &[u8]) -> Option<SealPublic> {
    SealPublic::decode(seal.get(..SealPublic::WIRE_LEN)?).ok()
}

#[cfg(test)]
mod tests;
