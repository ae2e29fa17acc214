//! What a client can be told to do, as one JSON object per line (`docs/automation.md` §3) or as words typed by a
//! person.

use std::time::Duration;

use conclave_protocol::evidence::category::Category;
use serde::Deserialize;

use crate::audio::mixer::Volume;

/// Longest line, in bytes: a command with the longest name fits many times.
pub const MAX_LINE: usize = 4_096;

/// Somebody, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "somebody is named by a number or a name")]
pub enum Who {
    /// A knock's id or a member's index.
    Number(u32),
    /// A display name.
    Name(String),
}

/// A span of time in a command, given as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds {
    millis: u32,
}

impl Seconds {
    /// More than anybody keeps: a day.
    const MAX: f64 = 86_400.0;
    /// None.
    const ZERO: Self = Self { millis: 0 };
    /// What a report takes unless told otherwise (DESIGN §8).
    const DEFAULT: Self = Self { millis: 20_000 };

    /// The span.
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.millis))
    }
}

impl TryFrom<f64> for Seconds {
    type Error = &'static str;
    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        if !(0.0..=Self::MAX).contains(&seconds) {
            return Err("seconds are a number from 0 on");
        }
        // Within the range of the type by the check above.
        Ok(Self { millis: (seconds * 1_000.0).round() as u32 })
    }
}

/// A volume in a command, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Percent(pub Volume);

impl TryFrom<u64> for Percent {
    type Error = String;
    fn try_from(percent: u64) -> Result<Self, Self::Error> {
        let volume = u16::try_from(percent).ok().and_then(Volume::new);
        volume.map(Self).ok_or_else(|| format!("a volume is a number from 0 to {} percent", Volume::MAX_PERCENT))
    }
}

/// Whom to report, for what, and which seconds: the `seconds` that ended `seconds_ago` before now.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportWhat {
    /// The member, also one who has left.
    pub who: Who,
    /// The word for the category.
    pub category: String,
    /// In the reporter's words.
    #[serde(default)]
    pub note: String,
    /// From the end of what is reported to now.
    #[serde(default = "no_time")]
    pub seconds_ago: Seconds,
    /// How much is reported.
    #[serde(default = "usual_time")]
    pub seconds: Seconds,
    /// The moderator learns who reports.
    #[serde(default)]
    pub with_my_name: bool,
    /// `report` only: where the sealed report goes if the relay never takes it.
    pub save: Option<String>,
    /// `report_preview` only: where the sound goes, as WAV.
    pub out: Option<String>,
}

fn no_time() -> Seconds {
    Seconds::ZERO
}

fn usual_time() -> Seconds {
    Seconds::DEFAULT
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Lets a guest in.
    Admit {
        /// The knock.
        who: Who,
    },
    /// Lets everybody in who waits.
    AdmitAll {},
    /// Turns a guest down.
    Deny {
        /// The knock.
        who: Who,
    },
    /// Puts a member out.
    Remove {
        /// The member.
        who: Who,
    },
    /// Compares the digits of a safety number that a member has read out.
    Compare {
        /// The member.
        who: Who,
        /// What was read out.
        digits: String,
    },
    /// Turns somebody down, or puts a member out, for good: in this meeting, and in later ones of this host's home. By
    /// who may not do that: never hears that member again.
    Block {
        /// Somebody who knocks, or a member, by name; or a member by number.
        who: Who,
    },
    /// Takes a block back.
    Unblock {
        /// A member, or somebody else by the name they had last.
        who: Who,
    },
    /// Nobody is let in any more, but those who lost the connection.
    Lock {},
    /// The opposite.
    Unlock {},
    /// Whether guests wait to be let in.
    WaitingRoom {
        /// They wait.
        on: bool,
    },
    /// Whether whoever comes begins muted.
    MuteNewcomers {
        /// Muted.
        on: bool,
    },
    /// Asks a member to mute.
    AskMute {
        /// The member.
        who: Who,
    },
    /// Makes a member a co-host.
    Promote {
        /// The member.
        who: Who,
    },
    /// Makes a co-host a member.
    Demote {
        /// The member.
        who: Who,
    },
    /// Lets a co-host lead, or the host take the lead back.
    HandOver {
        /// The member.
        who: Who,
    },
    /// Writes to everybody who is here.
    Chat {
        /// 1 to 2,000 bytes.
        text: String,
    },
    /// Raises one's hand, or lowers it.
    Hand {
        /// Raised.
        on: bool,
    },
    /// Presses the key of push-to-talk, or releases it.
    PushToTalk {
        /// Pressed.
        on: bool,
    },
    /// Sends nothing while muted, which shows outside who is muted.
    SaveData {
        /// Saved.
        on: bool,
    },
    /// Hands what a member said in some seconds to the moderators.
    Report(ReportWhat),
    /// Shows what a report would hand over, and to whom.
    ReportPreview(ReportWhat),
    /// Writes the proof of a leader's two histories to a file.
    Proof {
        /// The file, which must not exist.
        file: String,
    },
    /// How loud a member is played here.
    Volume {
        /// The member.
        who: Who,
        /// Of the amplitude with which it comes.
        percent: Percent,
    },
    /// Stops this client's sound.
    Mute {},
    /// Takes it up again.
    Unmute {},
    /// Asks for statistics now.
    Stats {},
    /// Leaves.
    Leave {},
    /// Ends the meeting for all.
    End {},
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// Too long.
    #[error("a command has at most {MAX_LINE} bytes")]
    TooLong,
    /// Not understood.
    #[error("not a command: {0}")]
    NotUnderstood(String),
}

/// What is wrong with a line. What no command is called may be anything, and is not repeated.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let known = text.strip_prefix("unknown variant `").and_then(|rest| rest.rsplit_once("`, expected one of "));
    known.map_or(text.clone(), |(_, known)| format!("no command is called so; there are {known}"))
}

/// Digits of a safety number (`docs/protocol.md` §3.6).
const SAFETY_DIGITS: usize = 60;

/// What can be typed, for `help` and for mistakes.
pub const WORDS: &str = "admit NAME, admit all, deny NAME, block NAME, unblock NAME, remove NAME, lock, unlock, ask NAME (to mute), \
    promote NAME (to co-host), demote NAME, handover NAME (the lead), waiting-room on|off, mute-newcomers on|off, \
    compare NAME DIGITS (of the safety number, as the other side reads them out), say TEXT, hand on|off, mute, unmute, talk on|off (with --push-to-talk), \
    volume NAME PERCENT (how loud you hear them, 0 to 400), \
    save-data on|off, preview NAME CATEGORY [SECONDS[+AGO]] [FILE.wav], \
    report NAME CATEGORY [SECONDS[+AGO]] [NOTE] (the last 20 seconds, or the SECONDS that ended AGO seconds ago; categories: \
    harassment, hate, threat, sexual, child_safety, impersonation, recording, spam, other), proof FILE, stats, leave, end (a number will do for a name)";

impl Command {
    /// Reads a line of JSON.
    ///
    /// # Errors
    /// [`BadCommand`].
    pub fn from_json(line: &str) -> Result<Self, BadCommand> {
        if line.len() > MAX_LINE {
            return Err(BadCommand::TooLong);
        }
        // Serde takes a tagged enum from an array as well. Nothing inside a command is an enum with a tag.
        if !line.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err(BadCommand::NotUnderstood("give one JSON object".to_owned()));
        }
        let command = serde_json::from_str(line).map_err(|error| BadCommand::NotUnderstood(in_words(&error)))?;
        match command {
            Self::Report(ReportWhat { out: Some(_), .. }) => {
                Err(BadCommand::NotUnderstood("report has no `out`".into()))
            }
            Self::ReportPreview(ReportWhat { save: Some(_), .. }) => {
                Err(BadCommand::NotUnderstood("report_preview has no `save`".into()))
            }
            command => Ok(command),
        }
    }

    /// Reads what a person typed.
    ///
    /// # Errors
    /// [`BadCommand`].
    pub fn from_words(line: &str) -> Result<Self, BadCommand> {
        if line.len() > MAX_LINE {
            return Err(BadCommand::TooLong);
        }
        let line = line.trim();
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let who = || who_is(rest);
        match (verb.to_lowercase().as_str(), rest.is_empty()) {
            ("admit", false) if rest.eq_ignore_ascii_case("all") => Ok(Self::AdmitAll {}),
            ("admit", false) => Ok(Self::Admit { who: who() }),
            ("deny", false) => Ok(Self::Deny { who: who() }),
            ("remove", false) => Ok(Self::Remove { who: who() }),
            ("compare", false) => {
                let (who, digits) = split_digits(rest).ok_or_else(|| {
                    BadCommand::NotUnderstood(
                        "type compare, the name, and the 60 digits of the safety number".to_owned(),
                    )
                })?;
                Ok(Self::Compare { who: who_is(who), digits: digits.to_owned() })
            }
            ("block", false) => Ok(Self::Block { who: who() }),
            ("unblock", false) => Ok(Self::Unblock { who: who() }),
            ("lock", true) => Ok(Self::Lock {}),
            ("unlock", true) => Ok(Self::Unlock {}),
            ("ask", false) => Ok(Self::AskMute { who: who() }),
            ("promote", false) => Ok(Self::Promote { who: who() }),
            ("demote", false) => Ok(Self::Demote { who: who() }),
            ("handover", false) => Ok(Self::HandOver { who: who() }),
            ("say", false) => Ok(Self::Chat { text: rest.to_owned() }),
            ("hand", false) if is_switch(rest) => Ok(Self::Hand { on: is_on(rest) }),
            ("waiting-room", false) if is_switch(rest) => Ok(Self::WaitingRoom { on: is_on(rest) }),
            ("mute-newcomers", false) if is_switch(rest) => Ok(Self::MuteNewcomers { on: is_on(rest) }),
            ("talk", false) if is_switch(rest) => Ok(Self::PushToTalk { on: is_on(rest) }),
            ("save-data", false) if is_switch(rest) => Ok(Self::SaveData { on: is_on(rest) }),
            ("report", false) => reported(rest).map(|(what, note)| Self::Report(ReportWhat { note, ..what })),
            ("preview", false) => reported(rest).map(|(what, file)| {
                let out = Some(file).filter(|file| !file.is_empty());
                Self::ReportPreview(ReportWhat { out, ..what })
            }),
            ("proof", false) => Ok(Self::Proof { file: rest.to_owned() }),
            ("volume", false) => volume(rest),
            ("mute", true) => Ok(Self::Mute {}),
            ("unmute", true) => Ok(Self::Unmute {}),
            ("stats", true) => Ok(Self::Stats {}),
            ("leave", true) => Ok(Self::Leave {}),
            ("end", true) => Ok(Self::End {}),
            _ => Err(BadCommand::NotUnderstood(format!("type one of: {WORDS}"))),
        }
    }
}

fn is_switch(text: &str) -> bool {
    ["on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn is_on(text: &str) -> bool {
    text.eq_ignore_ascii_case("on")
}

fn who_is(text: &str) -> Who {
    match text.parse() {
        Ok(number) => Who::Number(number),
        Err(_) => Who::Name(text.to_owned()),
    }
}

/// Who, and a percentage as the last word.
fn volume(text: &str) -> Result<Command, BadCommand> {
    let usage = "type volume, the name, and a number from 0 to 400; 100 is as they come";
    let found = text.rsplit_once(char::is_whitespace).and_then(|(who, percent)| {
        let percent: u64 = percent.strip_suffix('%').unwrap_or(percent).parse().ok()?;
        Some(Command::Volume { who: who_is(who.trim()), percent: Percent::try_from(percent).ok()? })
    });
    found.ok_or_else(|| BadCommand::NotUnderstood(usage.to_owned()))
}

/// Who is reported, for what, which seconds, and what is written behind.
fn reported(text: &str) -> Result<(ReportWhat, String), BadCommand> {
    let missing = || BadCommand::NotUnderstood("type the name and a category; help shows them".to_owned());
    let (who, category, rest) = split_category(text).ok_or_else(missing)?;
    let (first, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (window, rest) = match span(first) {
        Some(window) => (window, behind.trim_start()),
        None => ((Seconds::DEFAULT, Seconds::ZERO), rest),
    };
    let what = ReportWhat {
        who: who_is(who),
        category: category.to_owned(),
        note: String::new(),
        seconds_ago: window.1,
        seconds: window.0,
        with_my_name: false,
        save: None,
        out: None,
    };
    Ok((what, rest.to_owned()))
}

/// The first category behind at least one word of a name. A name that holds one is better given by its number.
fn split_category(text: &str) -> Option<(&str, &str, &str)> {
    let gaps = text.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at);
    gaps.filter_map(|at| {
        let (who, rest) = text.split_at(at);
        let rest = rest.trim_start();
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        word.parse::<Category>().is_ok().then(|| (who.trim(), word, rest.trim_start()))
    })
    .next()
}

/// `SECONDS` or `SECONDS+AGO`.
fn span(word: &str) -> Option<(Seconds, Seconds)> {
    let seconds = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse::<f64>().ok().filter(|_| is_number).and_then(|seconds| Seconds::try_from(seconds).ok())
    };
    match word.split_once('+') {
        Some((length, ago)) => Some((seconds(length)?, seconds(ago)?)),
        None => Some((seconds(word)?, Seconds::ZERO)),
    }
}

/// Who, and the digits behind. A name may end in digits, and a number may stand for it; so digits are counted from the
/// end, until a safety number is whole.
fn split_digits(text: &str) -> Option<(&str, &str)> {
    let is_digits = |word: &str| word.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let (mut at, mut count) = (text.len(), 0);
    while count < SAFETY_DIGITS {
        let word = text.get(..at)?.trim_end().rsplit(char::is_whitespace).next().filter(|word| is_digits(word))?;
        count += word.bytes().filter(u8::is_ascii_digit).count();
        at = text.get(..at)?.trim_end().len() - word.len();
    }
    let (who, digits) = text.split_at_checked(at)?;
    (count == SAFETY_DIGITS && !who.trim().is_empty()).then(|| (who.trim(), digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_commands_are_read_and_superfluous_fields_refused() {
        assert_eq!(Command::from_json(r#"{"do":"admit","who":3}"#), Ok(Command::Admit { who: Who::Number(3) }));
        assert_eq!(
            Command::from_json(r#"{"do":"remove","who":"Bob"}"#),
            Ok(Command::Remove { who: Who::Name("Bob".into()) })
        );
        assert_eq!(Command::from_json(r#"{"do":"admit_all"}"#), Ok(Command::AdmitAll {}));
        for bad in
            [r#"{"do":"admit"}"#, r#"{"do":"mute","x":1}"#, r#"{"do":"fly"}"#, "[]", "{", r#"{"do":"admit","who":-1}"#]
        {
            assert!(Command::from_json(bad).is_err(), "{bad}");
        }
        assert_eq!(Command::from_json(&" ".repeat(MAX_LINE + 1)), Err(BadCommand::TooLong));
        for (bad, says, repeats) in [
            (r#"{"do":"s3cret`, expected one of x"}"#, "`mute`", "s3cret"),
            (r#"{"do":"admit","who":[]}"#, "a number or a name", "untagged"),
        ] {
            let error = Command::from_json(bad).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains(repeats), "{error}");
        }
    }

    #[test]
    fn a_volume_is_a_percentage_of_somebody() {
        let volume = |who: Who, percent: u16| Command::Volume { who, percent: Percent(Volume::new(percent).unwrap()) };
        let json = Command::from_json(r#"{"do":"volume","who":"Ann 5","percent":250}"#);
        assert_eq!(json, Ok(volume(Who::Name("Ann 5".into()), 250)));
        assert_eq!(Command::from_words("volume Ann 5 250%"), json);
        assert_eq!(Command::from_words("Volume 3 0"), Ok(volume(Who::Number(3), 0)));
        for bad in ["volume", "volume Ann", "volume Ann -3", "volume Ann 401", "volume Ann 5 dB"] {
            assert!(Command::from_words(bad).is_err(), "{bad}");
        }
        for bad in ["401", "-1", "1.5", "70000", "null", "\"5\""] {
            let line = format!(r#"{{"do":"volume","who":3,"percent":{bad}}}"#);
            assert!(Command::from_json(&line).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_report_takes_the_last_twenty_seconds_unless_told_otherwise() {
        let what = |length: u32, ago: u32| ReportWhat {
            who: Who::Name("Ann Lee".into()),
            category: "hate".into(),
            note: String::new(),
            seconds_ago: Seconds { millis: ago },
            seconds: Seconds { millis: length },
            with_my_name: false,
            save: None,
            out: None,
        };
        let json = Command::from_json(r#"{"do":"report","who":"Ann Lee","category":"hate"}"#);
        assert_eq!(json, Ok(Command::Report(what(20_000, 0))));
        let json =
            r#"{"do":"report_preview","who":"Ann Lee","category":"hate","seconds":2.5,"seconds_ago":7,"out":"a"}"#;
        let preview = ReportWhat { out: Some("a".into()), ..what(2_500, 7_000) };
        assert_eq!(Command::from_json(json), Ok(Command::ReportPreview(preview)));
        for bad in [
            r#"{"do":"report","who":"A"}"#,
            r#"{"do":"report","who":"A","category":"hate","out":"x"}"#,
            r#"{"do":"report_preview","who":"A","category":"hate","save":"x"}"#,
            r#"{"do":"report","who":"A","category":"hate","seconds":-1}"#,
            r#"{"do":"report","who":"A","category":"hate","seconds":1e300}"#,
            r#"{"do":"report","who":"A","category":"hate","x":1}"#,
        ] {
            assert!(Command::from_json(bad).is_err(), "{bad}");
        }
        let report = |line: &str| Command::from_words(line);
        assert_eq!(report("report Ann Lee hate"), Ok(Command::Report(what(20_000, 0))));
        let noted = |note: &str, what| Ok(Command::Report(ReportWhat { note: note.into(), ..what }));
        assert_eq!(report("report Ann Lee hate 12 of them"), noted("of them", what(12_000, 0)));
        assert_eq!(report("report Ann Lee hate 12+30"), noted("", what(12_000, 30_000)));
        assert_eq!(report("report Ann Lee hate he shouts"), noted("he shouts", what(20_000, 0)));
        let preview = ReportWhat { out: Some("a b.wav".into()), ..what(5_000, 0) };
        assert_eq!(report("preview Ann Lee hate 5 a b.wav"), Ok(Command::ReportPreview(preview)));
        assert!(report("report hate").is_err() && report("report Ann Lee").is_err());
    }

    #[test]
    fn only_a_json_object_is_a_command() {
        for bad in [
            r#"["unmute"]"#,
            r#" ["admit",3]"#,
            r#"["chat",{"text":"x"}]"#,
            r#""unmute""#,
            "null",
            "7",
            r#"[{"do":"unmute"}]"#,
            r#"{"do":["unmute"]}"#,
            r#"{"do":"admit","who":[3]}"#,
            r#"{"do":"admit","who":{"Number":3}}"#,
            r#"{"do":"mute"}{"do":"unmute"}"#,
            r#"{"do":"mute","do":"unmute"}"#,
            r#"{"do":"admit","who":1,"who":2}"#,
        ] {
            assert!(Command::from_json(bad).is_err(), "{bad}");
        }
        assert_eq!(Command::from_json(" \t{\"do\":\"mute\"}\r"), Ok(Command::Mute {}));
    }

    #[test]
    fn words_are_read_as_a_person_types_them() {
        assert_eq!(Command::from_words(" Admit all "), Ok(Command::AdmitAll {}));
        assert_eq!(Command::from_words("deny Ann Lee"), Ok(Command::Deny { who: Who::Name("Ann Lee".into()) }));
        assert_eq!(Command::from_words("remove 2"), Ok(Command::Remove { who: Who::Number(2) }));
        assert_eq!(Command::from_words("talk on"), Ok(Command::PushToTalk { on: true }));
        assert_eq!(Command::from_json(r#"{"do":"push_to_talk","on":false}"#), Ok(Command::PushToTalk { on: false }));
        assert!(Command::from_words("mute 3").is_err());
        assert!(Command::from_words("").is_err());
    }

    #[test]
    fn a_safety_number_is_told_from_a_name_that_ends_in_digits() {
        let groups = ["01234"; 12].join(" ");
        let compare = |who, digits: &str| Ok(Command::Compare { who, digits: digits.to_owned() });
        let name = |text: &str| Who::Name(text.to_owned());
        for digits in [&groups, &groups.replace(' ', ""), &groups.replace(' ', "-"), &groups.replace(' ', "  ")] {
            assert_eq!(Command::from_words(&format!("compare Ann Lee {digits} ")), compare(name("Ann Lee"), digits));
            assert_eq!(Command::from_words(&format!("compare 7 {digits}")), compare(Who::Number(7), digits));
            assert_eq!(Command::from_words(&format!("compare Agent 007 {digits}")), compare(name("Agent 007"), digits));
        }
        for bad in [
            "Bob",
            "Bob 01234",
            &groups,
            &format!("Bob {groups}5"),
            &format!("Bob x{groups}"),
            &format!("Bob {}", &groups[1..]),
        ] {
            assert!(Command::from_words(&format!("compare {bad}")).is_err(), "{bad}");
        }
        let json = format!(r#"{{"do":"compare","who":"Bob","digits":"{groups}"}}"#);
        assert_eq!(Command::from_json(&json), compare(name("Bob"), &groups));
        assert!(Command::from_json(r#"{"do":"compare","who":"Bob"}"#).is_err());
    }
}
