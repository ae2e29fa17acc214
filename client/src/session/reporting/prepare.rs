//! What takes too long for the loop that plays sound: checking, decoding and sealing a report. Each runs on a thread of
//! its own.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use conclave_protocol::evidence::number::IdentityNumber;
use conclave_protocol::evidence::report::Report as Statement;
use conclave_protocol::evidence::report::opened::{SaidSegment, Timeline};
use conclave_protocol::evidence::report::verify::{Verdict, verify};
use conclave_protocol::moderator::Moderator;
use conclave_protocol::wire::relay::StampVerdict;
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::audio::said::Sound;
use crate::private;
use crate::report::{PreviewSegment, Report};
use crate::session::system_rng;

/// Bytes of a report's digest that are its number (`docs/protocol.md` §6.2).
const RECEIPT_LEN: usize = 10;

/// A report sealed to one moderator.
pub(in crate::session) struct Letter {
    /// The moderator's name.
    pub(super) to: String,
    pub(super) digest: [u8; 32],
    pub(super) sealed: Bytes,
    /// Where a copy is kept until it was handed on.
    pub(super) kept: Option<PathBuf>,
}

/// What has come of it.
pub(in crate::session) enum Prepared {
    /// For `report`: what is to be sent, and where it goes if the relay never takes it.
    Letters { letters: Vec<Letter>, save: Option<PathBuf> },
    /// For `report`: there is nothing to send.
    Failed(String),
    /// For `report_preview`: the answer.
    Preview(Report),
}

/// Seals a report to each moderator, and keeps a copy of each in a directory if one is given.
///
/// # Errors
/// In words.
pub(super) fn seal(statement: &Statement, to: &[Moderator], shelf: Option<&Path>) -> Result<Vec<Letter>, String> {
    open(statement)?;
    let mut letters = Vec::new();
    for moderator in to {
        let sealed = statement.seal(moderator, &mut system_rng()).map_err(|error| error.to_string())?;
        let digest: [u8; 32] = Sha256::digest(&sealed).into();
        let kept = shelf.map(|shelf| keep(shelf, &digest, &sealed)).transpose()?;
        letters.push(Letter { to: moderator.name.as_str().to_owned(), digest, sealed: sealed.into(), kept });
    }
    Ok(letters)
}

/// What a report would hand over, and to whom; its sound goes to a file if one is given.
///
/// # Errors
/// In words.
pub(super) fn preview(statement: &Statement, to: &[Moderator], out: Option<&Path>) -> Result<Report, String> {
    let said = open(statement)?;
    let accused = &statement.exhibit.accused;
    let timeline = Timeline::of(&said, statement.exhibit.descriptor.frame_ms);
    let millis = |frames: u32| u64::from(frames) * u64::from(timeline.frame_ms);
    let segments = said.iter().zip(&timeline.segments).map(|(segment, (from, to))| PreviewSegment {
        from_ms: millis(*from),
        to_ms: millis(*to),
        frames: segment.frames.len(),
        stamped: segment.stamp.is_some(),
    });
    let wav = out.map(|out| write_sound(&timeline, out)).transpose()?;
    Ok(Report::ReportPreview {
        who: accused.index.0,
        name: accused.name.as_str().to_owned(),
        safety_number: IdentityNumber::of(&accused.cert.identity).as_str().to_owned(),
        category: statement.category.as_str(),
        note: statement.note.as_str().to_owned(),
        by: statement.reporter().map(|reporter| reporter.name.as_str().to_owned()),
        seconds: millis(u32::try_from(timeline.frames.len()).unwrap_or(u32::MAX)) as f64 / 1_000.0,
        segments: segments.collect(),
        gaps_ms: timeline.gaps.iter().map(|(from, to)| [millis(*from), millis(*to)]).collect(),
        moderators: to.iter().map(|moderator| moderator.name.as_str().to_owned()).collect(),
        size: statement.sealed_len().map_err(|error| error.to_string())?,
        wav,
    })
}

/// Checks what is to be handed over as a moderator would, without stamps' keys: what proves nothing is not sent.
fn open(statement: &Statement) -> Result<Vec<SaidSegment>, String> {
    let findings = verify(statement, |_| StampVerdict::UnknownKey);
    match findings.verdict {
        Verdict::Invalid(step) => Err(format!("what was kept of this member proves nothing ({})", step.as_str())),
        Verdict::Valid | Verdict::Unstamped => Ok(findings.said),
    }
}

fn write_sound(timeline: &Timeline<'_>, out: &Path) -> Result<String, String> {
    let wav = Sound::of(timeline).and_then(|sound| sound.wav());
    let written = wav.and_then(|wav| private::write_new(out, &wav));
    written.map_err(|error| format!("{}: {error:#}", out.display()))?;
    Ok(out.display().to_string())
}

fn keep(shelf: &Path, digest: &[u8; 32], sealed: &[u8]) -> Result<PathBuf, String> {
    let path = shelf.join(format!("{}.conclave-report", receipt(digest.first_chunk().unwrap_or(&[0; RECEIPT_LEN]))));
    private::make_directory(shelf).map_err(|error| format!("{error:#}"))?;
    private::write_new(&path, sealed).map_err(|error| format!("{}: {error:#}", path.display()))?;
    Ok(path)
}

/// A report's number as people write it.
pub(super) fn receipt(bytes: &[u8; RECEIPT_LEN]) -> String {
    BASE32_NOPAD.encode(bytes)
}
