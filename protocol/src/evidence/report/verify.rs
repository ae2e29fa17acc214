//! What a report proves (`docs/protocol.md` §10.6): claim by claim, the same result for whoever looks.
//!
//! Pure: the only thing that is asked outside is whether a stamp is genuine.

use std::collections::BTreeMap;
use std::fmt;

use super::Report;
use super::opened::{self, SaidSegment};
use crate::epoch::merkle;
use crate::epoch::roster::Member;
use crate::epoch::statement::{ChainHash, Statement};
use crate::evidence::{EpochProof, Exhibit, MAX_SEGMENTS, encoding};
use crate::id::{MeetingId, MemberIndex};
use crate::identity::Role;
use crate::seal::{BadSeal, SealBody};
use crate::sframe::frames_per_segment;
use crate::stamp::{Minute, Origin, Stamp, StampKeyId};
use crate::succession::authority_of;
use crate::wire::relay::{StampCheck, StampVerdict};

/// What must hold, in the order in which it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Everything names the meeting of D, and keeps to D's rules.
    MeetingId,
    /// The host, or a co-host in the line that the host signed, signed the statement of every epoch.
    Authority,
    /// The accused was in the roster of every epoch.
    Roster,
    /// The accused's identity signed for the name and the keys of this meeting.
    Identity,
    /// Every segment is of the accused and of one of the epochs, in order and once.
    Segment,
    /// The seals open with the keys of their segments.
    Seal,
    /// The seals commit to these keys.
    Commitment,
    /// The seals' roots are over what they list, in these epochs.
    Root,
    /// The accused's sealing key signed the seals.
    SealSignature,
    /// Every frame is the one that its seal lists, and opens.
    Frame,
    /// No stamp is forged, and all are from the time of the meeting and in order.
    Stamp,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 11] = [
        Self::MeetingId,
        Self::Authority,
        Self::Roster,
        Self::Identity,
        Self::Segment,
        Self::Seal,
        Self::Commitment,
        Self::Root,
        Self::SealSignature,
        Self::Frame,
        Self::Stamp,
    ];

    /// The step's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeetingId => encoding::MEETING_ID,
            Self::Authority => encoding::AUTHORITY,
            Self::Roster => encoding::ROSTER,
            Self::Identity => encoding::IDENTITY,
            Self::Segment => encoding::SEGMENT,
            Self::Seal => encoding::SEAL,
            Self::Commitment => "commitment",
            Self::Root => "root",
            Self::SealSignature => "seal_signature",
            Self::Frame => encoding::FRAME,
            Self::Stamp => encoding::STAMP,
        }
    }

    /// What it says when it holds, for people.
    pub fn claim(self) -> &'static str {
        match self {
            Self::MeetingId => "everything in the report belongs to one meeting and keeps to its rules",
            Self::Authority => "the meeting's host, or a co-host that the host named, vouches for every epoch",
            Self::Roster => "the accused was a member in every epoch",
            Self::Identity => "the accused's identity key signed for the name and the keys used in this meeting",
            Self::Segment => "every segment is the accused's, once and in order",
            Self::Seal => "every seal opens with its segment's key",
            Self::Commitment => "every seal commits to its segment's key",
            Self::Root => "every seal's root is over the frames it lists, in its epoch",
            Self::SealSignature => "the accused's sealing key signed every seal",
            Self::Frame => "every frame is the one its seal lists, and opens",
            Self::Stamp => "a relay saw every seal in the minute that its stamp names",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It holds.
    Holds,
    /// Nobody here can tell: a stamp is missing, or its key is not known.
    Unknown,
    /// It does not hold.
    Fails,
    /// A step before it failed.
    NotReached,
}

/// The outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All steps hold.
    Valid,
    /// All hold, but not every segment has a stamp that can be checked. After the meeting's end, when sealing keys are
    /// public, such a report could have been made by anybody who was there.
    Unstamped,
    /// The step fails.
    Invalid(Step),
}

impl Verdict {
    /// One word: valid, unstamped or invalid.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unstamped => "unstamped",
            Self::Invalid(_) => "invalid",
        }
    }

    /// The step that fails.
    pub fn failed_step(self) -> Option<Step> {
        match self {
            Self::Invalid(step) => Some(step),
            _ => None,
        }
    }

    /// What became of a step.
    pub fn claim(self, step: Step) -> Claim {
        match self {
            Self::Invalid(failed) if step > failed => Claim::NotReached,
            Self::Invalid(failed) if step == failed => Claim::Fails,
            Self::Unstamped if step == Step::Stamp => Claim::Unknown,
            _ => Claim::Holds,
        }
    }
}

/// All that a report tells once it was looked at.
pub struct Findings {
    /// The outcome.
    pub verdict: Verdict,
    /// What the accused said; empty when invalid: what is not proved is not shown.
    pub said: Vec<SaidSegment>,
    /// The keys of the stamps, and what they are worth.
    pub stamp_keys: BTreeMap<StampKeyId, StampVerdict>,
    /// Minutes of the first and the last genuine stamp.
    pub minutes: Option<(Minute, Minute)>,
    /// Whether who is named as the reporter has signed the report; `None` when nobody is.
    pub is_reporter_proved: Option<bool>,
}

/// Looks at every claim of a report. `stamps` says whether a stamp is genuine.
pub fn verify(report: &Report, stamps: impl FnMut(&StampCheck) -> StampVerdict) -> Findings {
    let exhibit = &report.exhibit;
    let mut findings = Findings {
        verdict: Verdict::Valid,
        said: Vec::new(),
        stamp_keys: BTreeMap::new(),
        minutes: None,
        is_reporter_proved: report.reporter().map(|_| report.verify_reporter().is_ok()),
    };
    match examine(exhibit, stamps, &mut findings) {
        Err(step) => findings.verdict = Verdict::Invalid(step),
        Ok((said, Stamped::All)) => findings.said = said,
        Ok((said, Stamped::NotAll)) => {
            findings.said = said;
            findings.verdict = Verdict::Unstamped;
        }
    }
    findings
}

/// Whether every segment has a genuine stamp.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stamped {
    All,
    NotAll,
}

fn examine(
    exhibit: &Exhibit,
    stamps: impl FnMut(&StampCheck) -> StampVerdict,
    findings: &mut Findings,
) -> Result<(Vec<SaidSegment>, Stamped), Step> {
    let meeting = exhibit.descriptor.meeting_id();
    check(Step::MeetingId, exhibit.epochs.iter().all(|proof| is_of_meeting(exhibit, meeting, proof)))?;
    check(Step::Authority, exhibit.epochs.iter().all(|proof| is_authorised(exhibit, meeting, proof)))?;
    check(Step::Roster, exhibit.epochs.iter().all(|proof| is_in_roster(exhibit, proof)))?;
    check(Step::Identity, is_certified(exhibit, meeting))?;
    check(Step::Segment, are_segments_in_order(exhibit))?;
    let seals = open_seals(exhibit, meeting)?;
    let said = opened::open_frames(exhibit, meeting, &seals).ok_or(Step::Frame)?;
    // Without a single frame nothing was said.
    check(Step::Frame, said.iter().any(|segment| !segment.frames.is_empty()))?;
    let stamped = check_stamps(exhibit, meeting, &seals, stamps, findings)?;
    Ok((said, stamped))
}

fn check(step: Step, holds: bool) -> Result<(), Step> {
    if holds { Ok(()) } else { Err(step) }
}

fn is_of_meeting(exhibit: &Exhibit, meeting: MeetingId, proof: &EpochProof) -> bool {
    let (statement, descriptor) = (&proof.statement, &exhibit.descriptor);
    statement.meeting == meeting
        && statement.policy == descriptor.policy.bits()
        && statement.frame_ms == descriptor.frame_ms
}

fn is_authorised(exhibit: &Exhibit, meeting: MeetingId, proof: &EpochProof) -> bool {
    let (statement, host) = (&proof.statement, &exhibit.descriptor.authority);
    let line_holds = match &proof.line {
        // A line that is not needed would only give away who the co-hosts were.
        Some(_) if statement.leader == MemberIndex::HOST => false,
        Some(line) => line.digest() == statement.line && line.verify(host, meeting).is_ok(),
        None => statement.leader == MemberIndex::HOST,
    };
    let authority = authority_of(proof.line.as_ref(), host, statement.leader);
    let is_signed = |key| Statement::verify(&chain(proof), &key, &proof.signature).is_ok();
    line_holds && authority.is_some_and(is_signed)
}

/// T_e.
fn chain(proof: &EpochProof) -> ChainHash {
    proof.previous.step(&proof.statement)
}

fn is_in_roster(exhibit: &Exhibit, proof: &EpochProof) -> bool {
    let (position, count) = (usize::from(proof.position), usize::from(proof.count));
    let (leaf, root) = (exhibit.accused.leaf(), &proof.statement.roster_root);
    exhibit.accused.joined <= proof.statement.epoch && merkle::verify(root, &leaf, position, count, &proof.path)
}

fn is_certified(exhibit: &Exhibit, meeting: MeetingId) -> bool {
    let (member, descriptor) = (&exhibit.accused, &exhibit.descriptor);
    // Only who holds hs is the host, and the host's index is given to nobody else.
    let session = match member.cert.role {
        Role::Host if member.index == MemberIndex::HOST => &descriptor.hs,
        Role::Member if member.index != MemberIndex::HOST => &member.cert.keys.session,
        _ => return false,
    };
    // Whether it ran out during the meeting was for those to look at who let the accused in, by their clocks. The times of
    // statements are the leader's, who must not be able to make what is said in its meeting unprovable.
    let seen = descriptor.not_before;
    member.cert.verify(meeting, member.cert.role, session, &member.name, seen).is_ok()
}

fn are_segments_in_order(exhibit: &Exhibit) -> bool {
    let (epochs, segments) = (&exhibit.epochs, &exhibit.segments);
    let (Some(first), true) = (epochs.first(), (1..=MAX_SEGMENTS).contains(&segments.len())) else { return false };
    let follow = |pair: &[EpochProof]| pair[0].statement.epoch < pair[1].statement.epoch;
    let is_one_chain = epochs.iter().all(|proof| proof.statement.chain == first.statement.chain);
    let order = |at: usize| (segments[at].name.epoch, segments[at].name.segment);
    let mut named: Vec<_> = segments.iter().map(|segment| segment.name.epoch).collect();
    named.dedup();
    // Every segment's epoch is proved, and no other epoch is shown.
    let are_proved = named.iter().eq(epochs.iter().map(|proof| &proof.statement.epoch));
    is_one_chain
        && epochs.windows(2).all(follow)
        && (1..segments.len()).all(|at| order(at - 1) < order(at))
        && segments.iter().all(|segment| segment.name.index == exhibit.accused.index)
        && are_proved
}

/// Opens and verifies all seals; when several fail, the first step of any counts.
fn open_seals(exhibit: &Exhibit, meeting: MeetingId) -> Result<Vec<SealBody>, Step> {
    let per_segment = frames_per_segment(exhibit.descriptor.frame_ms);
    let vk = &exhibit.accused.cert.keys.sealing;
    let mut bodies = Vec::with_capacity(exhibit.segments.len());
    let mut failed: Option<Step> = None;
    for segment in &exhibit.segments {
        let result = SealBody::open(&segment.seal, &meeting, &segment.key, per_segment).and_then(|body| {
            let proof = exhibit.epochs.iter().find(|proof| proof.statement.epoch == segment.name.epoch);
            let is_named = body.public.kid == segment.name.kid().0;
            let proof = proof.filter(|_| is_named).ok_or(BadSeal::Unreadable)?;
            body.verify(&meeting, &chain(proof), &segment.key, vk)?;
            Ok(body)
        });
        match result {
            Ok(body) => bodies.push(body),
            Err(bad) => {
                let step = step_of(bad);
                failed = Some(failed.map_or(step, |earlier| earlier.min(step)));
            }
        }
    }
    failed.map_or(Ok(bodies), Err)
}

fn step_of(bad: BadSeal) -> Step {
    match bad {
        BadSeal::Unreadable => Step::Seal,
        BadSeal::Commitment => Step::Commitment,
        BadSeal::Root => Step::Root,
        BadSeal::Signature => Step::SealSignature,
    }
}

/// How far the clocks of relays of a cluster, and of the host who set D's times, may differ. Relays allow half of it
/// for capabilities (DESIGN §12); stamps name minutes only.
const CLOCKS_MS: u64 = 60_000;
const MINUTE_MS: u64 = 60_000;

fn check_stamps(
    exhibit: &Exhibit,
    meeting: MeetingId,
    seals: &[SealBody],
    mut ask: impl FnMut(&StampCheck) -> StampVerdict,
    findings: &mut Findings,
) -> Result<Stamped, Step> {
    let mut stamped = Stamped::All;
    let Member { index, cert, .. } = &exhibit.accused;
    let origin = Origin { meeting, slot: *index, rk: cert.keys.routing };
    for (segment, seal) in exhibit.segments.iter().zip(seals) {
        let Some(stamp) = segment.stamp else {
            stamped = Stamped::NotAll;
            continue;
        };
        let question = StampCheck { origin, public: seal.public, stamp };
        let answer = ask(&question);
        findings.stamp_keys.entry(stamp.key).and_modify(|known| *known = worse(*known, answer)).or_insert(answer);
        match answer {
            StampVerdict::Genuine => note_minute(exhibit, &stamp, findings)?,
            StampVerdict::UnknownKey => stamped = Stamped::NotAll,
            StampVerdict::Forged => return Err(Step::Stamp),
        }
    }
    Ok(stamped)
}

fn worse(a: StampVerdict, b: StampVerdict) -> StampVerdict {
    if a == StampVerdict::Forged { a } else { b }
}

fn note_minute(exhibit: &Exhibit, stamp: &Stamp, findings: &mut Findings) -> Result<(), Step> {
    let begin = u64::from(stamp.minute.0) * MINUTE_MS;
    let descriptor = &exhibit.descriptor;
    let is_within = begin + MINUTE_MS + CLOCKS_MS >= descriptor.not_before.0
        && begin <= descriptor.not_after.0.saturating_add(CLOCKS_MS);
    let (first, last) = findings.minutes.unwrap_or((stamp.minute, stamp.minute));
    let is_in_order = stamp.minute.0.saturating_add((CLOCKS_MS / MINUTE_MS) as u32) >= last.0;
    check(Step::Stamp, is_within && is_in_order)?;
    findings.minutes = Some((first.min(stamp.minute), last.max(stamp.minute)));
    Ok(())
}
