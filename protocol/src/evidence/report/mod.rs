//! A report: what somebody hands to a moderator (`docs/protocol.md` §10.4–10.6).
//!
//! [`Report::seal`] makes the file, [`open`] reads it with the moderator's key, and [`verify::verify`] says what it
//! proves.

pub mod opened;
mod sealing;
pub mod verify;

pub use sealing::{CannotSeal, MAGIC, MAX_FILE, STEP, Unreadable, addressed_to, open, parse};

use crate::evidence::Exhibit;
use crate::evidence::category::Category;
use crate::identity::{DisplayName, Identity};
use crate::label;
use crate::sign::{BadSignature, PublicKey, Signature};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// What is wrong, in the reporter's words: at most [`Note::MAX_LEN`] bytes of UTF-8, no control characters but the
/// end of a line.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Note(String);

/// The note cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadNote {
    /// Over [`Note::MAX_LEN`] bytes.
    #[error("a note may have at most {} bytes of UTF-8", Note::MAX_LEN)]
    TooLong,
    /// Would run a terminal.
    #[error("a note may not hold control characters")]
    Control,
}

impl Note {
    /// Two paragraphs.
    pub const MAX_LEN: usize = 2_000;

    /// Takes a note as it was typed.
    ///
    /// # Errors
    /// [`BadNote`].
    pub fn parse(text: &str) -> Result<Self, BadNote> {
        if text.len() > Self::MAX_LEN {
            return Err(BadNote::TooLong);
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(BadNote::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The note.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who reports, for those who want the moderator to know.
///
/// ```text
/// name 65 ‖ IK 32 ‖ signature 64
/// signed by IK: "conclave/1 by reporter" ‖ MeetingId 20 ‖ H("conclave/1 digest of report" ‖ report up to here) ‖ H(name)
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Reporter {
    /// The name shown in the meeting.
    pub name: DisplayName,
    /// IK.
    pub identity: PublicKey,
    signature: Signature,
}

/// A report in the clear: for the reporter who looks at it before it goes, and for the moderator.
///
/// ```text
/// category u8 ‖ created u64 ‖ note: u16 × u8 ‖ exhibit ‖ reporter: u8 (0 or 1) × 161
/// ```
pub struct Report {
    /// What it is about.
    pub category: Category,
    /// The reporter's clock.
    pub created: UnixMillis,
    /// In words.
    pub note: Note,
    /// What was said, and by whom.
    pub exhibit: Exhibit,
    reporter: Option<Reporter>,
}

impl Report {
    /// A report by nobody in particular.
    pub fn new(category: Category, note: Note, created: UnixMillis, exhibit: Exhibit) -> Self {
        Self { category, created, note, exhibit, reporter: None }
    }

    /// The same report with the reporter's name to it.
    #[must_use]
    pub fn signed(mut self, name: DisplayName, identity: &Identity) -> Self {
        let meeting = self.exhibit.descriptor.meeting_id();
        let parts: [&[u8]; 3] = [&meeting.0, &self.digest(), &name.digest()];
        let signature = identity.sign(label::REPORTER, &parts);
        self.reporter = Some(Reporter { name, identity: identity.public(), signature });
        self
    }

    /// Who says that it reports, not yet believed.
    pub fn reporter(&self) -> Option<&Reporter> {
        self.reporter.as_ref()
    }

    /// Checks that the reporter named has signed just this report.
    ///
    /// # Errors
    /// [`BadSignature`]; there is none for a report without a name.
    pub fn verify_reporter(&self) -> Result<(), BadSignature> {
        let Some(Reporter { name, identity, signature }) = &self.reporter else { return Ok(()) };
        let meeting = self.exhibit.descriptor.meeting_id();
        identity.verify(label::REPORTER, &[&meeting.0, &self.digest(), &name.digest()], signature)
    }

    /// An upper bound of the encoding's length, in bytes.
    fn max_len(&self) -> usize {
        1 + 8 + 2 + Note::MAX_LEN + self.exhibit.max_len() + 1 + Reporter::WIRE_LEN
    }

    /// Of all but the reporter.
    fn digest(&self) -> [u8; 32] {
        let mut w = Writer::reserving(self.max_len());
        self.write_body(&mut w);
        label::hash(label::REPORT_DIGEST, &[&zeroize::Zeroizing::new(w.into_bytes())])
    }

    fn write_body(&self, w: &mut Writer) {
        self.category.write(w);
        self.created.write(w);
        w.bytes(self.note.0.as_bytes());
        self.exhibit.write(w);
    }
}

impl Wire for Report {
    fn write(&self, w: &mut Writer) {
        self.write_body(w);
        w.u8(u8::from(self.reporter.is_some()));
        if let Some(reporter) = &self.reporter {
            reporter.write(w);
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let category = Category::read(r)?;
        let created = UnixMillis::read(r)?;
        let note = std::str::from_utf8(r.bytes(Note::MAX_LEN)?).map_err(|_| Malformed("note"))?;
        let note = Note::parse(note).map_err(|_| Malformed("note"))?;
        let exhibit = Exhibit::read(r)?;
        r.begin("");
        let reporter = match r.u8()? {
            0 => None,
            1 => Some(Reporter::read(r)?),
            _ => return Err(Malformed("reporter")),
        };
        Ok(Self { category, created, note, exhibit, reporter })
    }
}

impl Reporter {
    /// Length in bytes.
    const WIRE_LEN: usize = DisplayName::WIRE_LEN + 32 + 64;
}

impl Wire for Reporter {
    fn write(&self, w: &mut Writer) {
        self.name.write(w);
        self.identity.write(w);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { name: DisplayName::read(r)?, identity: PublicKey::read(r)?, signature: Signature::read(r)? })
    }
}
