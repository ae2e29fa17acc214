//! What is printed and kept of a report: one JSON object (`docs/moderating.md`).

use std::collections::BTreeMap;
use std::path::Path;

use conclave_protocol::evidence::number::IdentityNumber;
use conclave_protocol::evidence::report::Report;
use conclave_protocol::evidence::report::opened::{SaidSegment, Timeline};
use conclave_protocol::evidence::report::verify::{Claim, Findings, Step, Verdict};
use conclave_protocol::identity::{IdentityKind, Role};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::stamp::StampKeyId;
use conclave_protocol::wire::relay::StampVerdict;
use data_encoding::HEXLOWER;
use serde::Serialize;

use crate::judge::{Examined, Judge, Unopened};
use crate::time;

/// The fields, in the order in which they are printed.
#[derive(Serialize)]
pub(crate) struct Record {
    pub(crate) file: String,
    pub(crate) verdict: &'static str,
    pub(crate) failed_step: Option<&'static str>,
    pub(crate) accused: Option<Person>,
    pub(crate) category: Option<&'static str>,
    /// Sound that is there.
    pub(crate) seconds: Option<f64>,
    pub(crate) wav: Option<String>,
    pub(crate) html: Option<String>,
    /// Why a file is unreadable, or breaks the format.
    pub(crate) error: Option<String>,
    pub(crate) note: Option<String>,
    /// By the reporter's clock.
    pub(crate) created: Option<String>,
    /// By the relay's clock: the minutes of the first and the last genuine stamp.
    pub(crate) stamped: Option<[String; 2]>,
    pub(crate) stamp_keys: Vec<StampKeyRecord>,
    pub(crate) meeting: Option<String>,
    pub(crate) reporter: Option<ReporterRecord>,
    pub(crate) segments: Vec<SegmentRecord>,
    pub(crate) frames: Option<Frames>,
    pub(crate) claims: BTreeMap<&'static str, &'static str>,
}

/// A person.
#[derive(Serialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) safety_number: String,
    pub(crate) identity: String,
    /// Whether the identity is meant to be met again, as its owner says.
    pub(crate) kind: &'static str,
    pub(crate) role: &'static str,
    pub(crate) index: u16,
}

/// Who says that it reports.
#[derive(Serialize)]
pub(crate) struct ReporterRecord {
    pub(crate) name: String,
    pub(crate) safety_number: String,
    pub(crate) identity: String,
    /// Whether it has signed this report.
    pub(crate) proved: bool,
}

/// A stamp key that was used.
#[derive(Serialize)]
pub(crate) struct StampKeyRecord {
    pub(crate) id: String,
    pub(crate) verdict: &'static str,
    pub(crate) relay: Option<String>,
    pub(crate) day: Option<String>,
}

/// A segment, in seconds from the beginning of the sound.
#[derive(Serialize)]
pub(crate) struct SegmentRecord {
    pub(crate) epoch: u32,
    pub(crate) segment: u16,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) frames: usize,
    pub(crate) sent: u8,
    /// The minute of its stamp, whatever the stamp is worth.
    pub(crate) minute: Option<String>,
}

/// Frames of the opened segments.
#[derive(Serialize)]
pub(crate) struct Frames {
    pub(crate) present: usize,
    pub(crate) missing: u32,
    /// Seconds without a frame, from and to.
    pub(crate) gaps: Vec<[f64; 2]>,
    /// Seconds at which the accused's own clock is not to be believed.
    pub(crate) clock_breaks: Vec<f64>,
}

impl Record {
    /// The record of a file; sound and page are written afterwards.
    pub(crate) fn of(examined: &Examined, judge: &Judge) -> Self {
        let mut record = Self::empty(&examined.file);
        match &examined.content {
            Err(unopened) => record.fill_unopened(unopened),
            Ok((report, findings)) => record.fill(report, findings, judge),
        }
        record
    }

    fn empty(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            verdict: "unreadable",
            failed_step: None,
            accused: None,
            category: None,
            seconds: None,
            wav: None,
            html: None,
            error: None,
            note: None,
            created: None,
            stamped: None,
            stamp_keys: Vec::new(),
            meeting: None,
            reporter: None,
            segments: Vec::new(),
            frames: None,
            claims: BTreeMap::new(),
        }
    }

    fn fill_unopened(&mut self, unopened: &Unopened) {
        self.error = Some(unopened.why.clone());
        if let Some(step) = unopened.step {
            let verdict = Verdict::Invalid(step);
            (self.verdict, self.failed_step) = (verdict.as_str(), Some(step.as_str()));
        }
    }

    fn fill(&mut self, report: &Report, findings: &Findings, judge: &Judge) {
        let member = &report.exhibit.accused;
        self.verdict = findings.verdict.as_str();
        self.failed_step = findings.verdict.failed_step().map(Step::as_str);
        self.accused = Some(Person {
            name: member.name.as_str().to_owned(),
            safety_number: number(&member.cert.identity),
            identity: hex(&member.cert.identity),
            kind: match member.cert.kind {
                IdentityKind::Guest => "guest",
                IdentityKind::Kept => "kept",
            },
            role: match member.cert.role {
                Role::Host => "host",
                Role::Member => "member",
            },
            index: member.index.0,
        });
        self.category = Some(report.category.as_str());
        self.note = Some(report.note.as_str().to_owned());
        self.created = Some(time::minute(report.created));
        self.stamped = findings.minutes.map(|(first, last)| [first, last].map(|m| time::minute(time::begin(m))));
        self.meeting = Some(HEXLOWER.encode(&report.exhibit.descriptor.meeting_id().0));
        self.reporter = report.reporter().zip(findings.is_reporter_proved).map(|(reporter, proved)| ReporterRecord {
            name: reporter.name.as_str().to_owned(),
            safety_number: number(&reporter.identity),
            identity: hex(&reporter.identity),
            proved,
        });
        self.claims = Step::ALL.into_iter().map(|step| (step.as_str(), word(findings.verdict.claim(step)))).collect();
        self.fill_stamp_keys(findings, judge);
        self.fill_sound(report, findings);
    }

    fn fill_stamp_keys(&mut self, findings: &Findings, judge: &Judge) {
        let one = |(id, verdict): (&StampKeyId, &StampVerdict)| {
            let source = judge.source(id);
            let verdict = match verdict {
                StampVerdict::Genuine => "genuine",
                StampVerdict::Forged => "forged",
                StampVerdict::UnknownKey => "unknown_key",
            };
            let (relay, day) = source.map_or((None, None), |source| (Some(source.relay), source.day));
            StampKeyRecord { id: HEXLOWER.encode(&id.0), verdict, relay, day }
        };
        self.stamp_keys = findings.stamp_keys.iter().map(one).collect();
    }

    fn fill_sound(&mut self, report: &Report, findings: &Findings) {
        if matches!(findings.verdict, Verdict::Invalid(_)) {
            return;
        }
        let timeline = Timeline::of(&findings.said, report.exhibit.descriptor.frame_ms);
        let seconds = |frames: u32| seconds(&timeline, frames);
        self.seconds = Some(seconds(u32::try_from(timeline.frames.len()).unwrap_or(u32::MAX)));
        let segment = |(said, (from, to)): (&SaidSegment, &(u32, u32))| SegmentRecord {
            epoch: said.name.epoch.number(),
            segment: said.name.segment.0,
            from: seconds(*from),
            to: seconds(*to),
            frames: said.frames.len(),
            sent: said.sent,
            minute: said.stamp.map(|stamp| time::minute(time::begin(stamp.minute))),
        };
        self.segments = findings.said.iter().zip(&timeline.segments).map(segment).collect();
        self.frames = Some(Frames {
            present: timeline.frames.len(),
            missing: timeline.gaps.iter().map(|(from, to)| to - from).sum(),
            gaps: timeline.gaps.iter().map(|(from, to)| [seconds(*from), seconds(*to)]).collect(),
            clock_breaks: timeline.breaks.iter().map(|place| seconds(*place)).collect(),
        });
    }
}

fn seconds(timeline: &Timeline<'_>, frames: u32) -> f64 {
    f64::from(frames) * f64::from(timeline.frame_ms) / 1_000.0
}

fn number(identity: &PublicKey) -> String {
    IdentityNumber::of(identity).as_str().to_owned()
}

fn hex(identity: &PublicKey) -> String {
    HEXLOWER.encode(&identity.0)
}

/// One word for what became of a step.
pub(crate) fn word(claim: Claim) -> &'static str {
    match claim {
        Claim::Holds => "holds",
        Claim::Unknown => "unknown",
        Claim::Fails => "fails",
        Claim::NotReached => "not_reached",
    }
}
