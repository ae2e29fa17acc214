//! What a client tells the world outside: the events of `docs/automation.md`, typed.

use conclave_protocol::identity::SafetyNumber;
use serde::Serialize;

use crate::audio::device::line::Figures;
use crate::audio::device::{Direction, What};

/// One event. `docs/automation.md` §2 says when each is sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs)] // The fields are specified in docs/automation.md, once.
pub enum Report {
    Link {
        link: String,
    },
    Waiting {
        r#for: WaitingFor,
    },
    Knock {
        id: u32,
        name: String,
        safety_number: String,
        standing: Standing,
        looks_like: Option<u16>,
    },
    Admitted {
        index: u16,
    },
    Denied {
        reason: &'static str,
    },
    Roster {
        epoch: u32,
        members: Vec<RosterMember>,
    },
    Joined {
        index: u16,
        name: String,
    },
    Left {
        index: u16,
        name: String,
        why: &'static str,
    },
    Removed,
    Muted {
        index: u16,
        on: bool,
    },
    Speaking {
        index: u16,
        on: bool,
    },
    MutedSpeaking,
    Alarm {
        kind: &'static str,
        index: Option<u16>,
        detail: String,
    },
    Stats {
        talkers: Vec<TalkerStats>,
        devices: Devices,
    },
    Reconnecting {
        why: String,
    },
    Reconnected {
        after_ms: u64,
    },
    Linger {
        datagrams: u64,
        opened: u64,
        last_opened_ms: Option<u64>,
    },
    SecurityCode {
        epoch: u32,
        words: String,
        digits: String,
    },
    Locked {
        on: bool,
    },
    Chat {
        from: u16,
        name: String,
        text: String,
    },
    Hand {
        index: u16,
        on: bool,
    },
    AskedToMute {
        by: u16,
    },
    Leader {
        index: u16,
    },
    Stale {
        for_ms: u64,
    },
    Act {
        by: u16,
        what: &'static str,
        who: Option<u16>,
        by_name: Option<String>,
        who_name: Option<String>,
    },
    Proof {
        file: String,
    },
    Moderators {
        policy: Vec<NamedKey>,
        operator: Option<NamedKey>,
        takes_reports: bool,
    },
    ReportPreview {
        who: u16,
        name: String,
        safety_number: String,
        category: &'static str,
        note: String,
        by: Option<String>,
        seconds: f64,
        segments: Vec<PreviewSegment>,
        gaps_ms: Vec<[u64; 2]>,
        moderators: Vec<String>,
        size: usize,
        wav: Option<String>,
    },
    Reported {
        receipt: String,
        to: String,
    },
    ReportFailed {
        reason: String,
        to: Option<String>,
        saved: Option<String>,
        retrying: bool,
    },
    Banned {
        name: String,
        safety_number: String,
        by: String,
        until: Option<u64>,
    },
    Device {
        direction: Direction,
        name: String,
        what: What,
    },
    PushToTalk {
        open: bool,
    },
    Recording {
        index: u16,
        on: bool,
    },
    Realtime {
        granted: bool,
        reason: Option<String>,
    },
    Ended {
        by: String,
    },
    Error {
        message: String,
    },
    /// For people only.
    Notice {
        message: String,
    },
    /// Nothing comes after this; not printed.
    Goodbye,
}

/// Whom a guest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// No host is there yet.
    Host,
    /// The host has the knock.
    Admission,
}

/// What this client knows of an identity (`docs/automation.md` §1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Met before, or in this run, and its safety number was compared.
    Verified,
    /// Met before; not compared.
    Known,
    /// Somebody else was met under this name, or one that looks like it.
    KeyChanged,
    /// A lasting identity that was never seen before.
    New,
    /// An identity for this meeting only.
    Guest,
    /// This client itself.
    #[serde(rename = "self")]
    Oneself,
}

/// A member in `roster`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct RosterMember {
    pub index: u16,
    pub name: String,
    pub role: &'static str,
    pub muted: bool,
    pub safety_number: Option<String>,
    pub standing: Standing,
    pub looks_like: Option<u16>,
    pub blocked: bool,
    pub recording: bool,
    pub volume: u16,
}

/// A moderator in `moderators`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct NamedKey {
    pub name: String,
    pub id: String,
}

/// Half a second in `report_preview`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PreviewSegment {
    pub from_ms: u64,
    pub to_ms: u64,
    pub frames: usize,
    pub stamped: bool,
}

/// A talker in `stats`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct TalkerStats {
    pub index: u16,
    pub name: String,
    pub received: u64,
    pub played: u64,
    pub late: u64,
    pub lost: u64,
    pub concealed: u64,
    pub repaired: u64,
    pub duplicates: u64,
    pub delay_ms: Option<f64>,
    pub hold_ms: f64,
    pub network_ms: Option<NetworkMs>,
    pub verified_mode: bool,
}

/// The devices in `stats`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Devices {
    pub input: Option<Figures>,
    pub output: Option<Figures>,
}

/// Sealing to opening, over the last second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct NetworkMs {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// The digits of a safety number as text.
pub fn digits(number: &SafetyNumber) -> String {
    number.as_str().to_owned()
}
