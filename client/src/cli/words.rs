//! Reports in words, for people at a terminal.
//!
//! What comes from outside (names, and what a relay gives as its reason) never reaches the terminal as it is: no
//! character that could run it, hide or turn text round passes. Names can look like any other text, so what this
//! program says of somebody stands in brackets behind the name, a name with brackets of its own in quotes, and a name
//! that can be taken for another's with its number.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use conclave_protocol::identity::is_unsafe_to_show;

use crate::audio::device::{Direction, What};
use crate::audio::mixer::Volume;
use crate::names;
use crate::report::{NamedKey, Report, RosterMember, Standing, WaitingFor};

/// Says what happens. Remembers who is there, to tell names in doubt.
#[derive(Default)]
pub(super) struct Words {
    present: BTreeMap<u16, String>,
}

impl Words {
    /// A report in words, without a line feed at its end; `None` for what people need not read.
    pub(super) fn say(&mut self, report: &Report) -> Option<String> {
        let text = self.words(report)?;
        if let Report::Roster { members, .. } = report {
            self.present = members.iter().map(|m| (m.index, m.name.clone())).collect();
        }
        Some(without_escapes(&text))
    }

    fn words(&self, report: &Report) -> Option<String> {
        Some(match report {
            Report::Link { link } => format!(
                "The meeting is open. Guests join with:\n\n  conclave join '{link}' --name NAME\n\nWhoever has this link can knock. Type help for what you can do."
            ),
            Report::Waiting { r#for: WaitingFor::Host } => "No host is there yet; waiting.".to_owned(),
            Report::Waiting { r#for: WaitingFor::Admission } => {
                "You are in the waiting room; the host will let you in.".to_owned()
            }
            Report::Knock { id, name, safety_number, standing, looks_like } => {
                self.knock(*id, name, safety_number, *standing, *looks_like)
            }
            Report::Admitted { .. } => "You are in the meeting.".to_owned(),
            Report::Denied { reason } => denied(reason).to_owned(),
            Report::Roster { members, .. } => {
                let members: Vec<String> = members.iter().map(member).collect();
                format!("Here: {}.", members.join(", "))
            }
            Report::Joined { index, name } => format!("{} joined.", self.who(*index, name)),
            Report::Left { index, name, why } => {
                let who = self.who(*index, name);
                match *why {
                    "removed" => format!("{who} was removed."),
                    "lost" => format!("{who} lost the connection."),
                    _ => format!("{who} left."),
                }
            }
            Report::Removed => "The host removed you from the meeting.".to_owned(),
            Report::Muted { .. }
            | Report::Speaking { .. }
            | Report::Stats { .. }
            | Report::PushToTalk { .. }
            | Report::Goodbye => return None,
            Report::MutedSpeaking => "You are muted: nobody hears you. To be heard, type unmute.".to_owned(),
            Report::Alarm { kind, index, detail } => match index.and_then(|i| Some((i, self.present.get(&i)?))) {
                Some((index, name)) => format!("ALARM ({kind}) about {}: {detail}", self.who(index, name)),
                None => format!("ALARM ({kind}): {detail}"),
            },
            Report::Linger { datagrams, opened, .. } => {
                format!("After the removal {datagrams} media datagrams arrived; {opened} of them could be opened.")
            }
            Report::Reconnecting { why } => format!(
                "Connection lost: {why}.\n  Looking for a relay of the meeting; until one is found you hear nobody, and nobody hears you."
            ),
            Report::Reconnected { after_ms } => {
                format!("Connected again, after {:.1} s.", Duration::from_millis(*after_ms).as_secs_f64())
            }
            Report::SecurityCode { words, digits, .. } => format!(
                "Security code: {words}  ({digits}). Everybody here sees the same one, unless somebody is in between."
            ),
            Report::Locked { on: true } => "The meeting is locked: nobody else is let in.".to_owned(),
            Report::Locked { on: false } => "The meeting is unlocked.".to_owned(),
            Report::Chat { from, name, text } => format!("{}: {text}", self.who(*from, name)),
            Report::Hand { index, on } => {
                let who = self.by(*index, None);
                if *on { format!("{who} raises a hand.") } else { format!("{who} lowers the hand.") }
            }
            Report::Recording { index, on } => {
                let who = self.by(*index, None);
                if *on { format!("{who} RECORDS this meeting.") } else { format!("{who} records no more.") }
            }
            Report::AskedToMute { by } => format!("{} asks you to mute: type mute", self.by(*by, None)),
            Report::Leader { index } => format!("{} leads the meeting now.", self.by(*index, None)),
            Report::Stale { for_ms: 0 } => "The host is heard again; you are sending again.".to_owned(),
            Report::Stale { for_ms } => {
                format!("No sign of the host for {} s: nothing is sent until there is one.", for_ms / 1_000)
            }
            Report::Act { by, what, who, by_name, who_name } => {
                let by = self.by(*by, by_name.as_deref());
                let who = who.map(|who| self.by(who, who_name.as_deref())).unwrap_or_default();
                act(what, &by, &who)?
            }
            Report::Moderators { policy, operator, takes_reports } => {
                moderators(policy, operator.as_ref(), *takes_reports)
            }
            Report::ReportPreview { name, who, seconds, category, moderators, wav, size, safety_number, .. } => {
                let to =
                    if moderators.is_empty() { "NOBODY, so it cannot be sent".to_owned() } else { listed(moderators) };
                let wav = wav.as_ref().map(|wav| format!("; hear them in {wav}")).unwrap_or_default();
                format!(
                    "A report about {} ({safety_number}) for {category} would hand {seconds:.1} s of what was said to {to}, \
                     sealed, {size} bytes{wav}. To send it, type report with the same words.",
                    self.who(*who, name)
                )
            }
            Report::Reported { receipt, to } => format!("The report went to {}. Its number is {receipt}.", shown(to)),
            Report::ReportFailed { reason, saved, retrying, .. } => {
                let yet = if *retrying { " yet" } else { "" };
                let place = saved.as_ref().map(|saved| format!(" It is in {saved}.")).unwrap_or_default();
                format!("The report was not taken{yet}: {reason}.{place}")
            }
            Report::Banned { name, by, .. } => {
                format!("{} knocked and was turned down: banned by {}.", shown(name), shown(by))
            }
            Report::Proof { file } => format!("The proof is in {file}."),
            Report::Device { direction, name, what } => device(*direction, name, *what),
            Report::Realtime { granted: true, .. } => return None,
            Report::Realtime { reason, .. } => not_realtime(reason.as_deref().unwrap_or("no reason given")),
            Report::Ended { by } if by == "host" => "The host ended the meeting.".to_owned(),
            Report::Ended { .. } => "You left the meeting.".to_owned(),
            Report::Error { message } => format!("Error: {message}"),
            Report::Notice { message } => format!("({message})"),
        })
    }

    /// A member by the name that is known of it.
    fn by(&self, index: u16, name: Option<&str>) -> String {
        match name.or(self.present.get(&index).map(String::as_str)) {
            Some(name) => self.who(index, name),
            None => format!("member {index}"),
        }
    }

    fn knock(&self, id: u32, name: &str, safety_number: &str, standing: Standing, looks_like: Option<u16>) -> String {
        let mut text = format!("{} knocks ({}; number {id}).\n", shown(name), standing_of_knock(standing));
        if let Some(index) = looks_like {
            let (other, likeness) = match self.present.get(&index) {
                Some(other) if other != name => (format!(" {}", shown(other)), "looks like the name of"),
                _ => (String::new(), "has the same name as"),
            };
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  CAREFUL: {likeness} member {index}{other}; names prove nothing");
        }
        let _ = write!(text, "  safety number {safety_number}\n  type: admit {id}   or: deny {id}");
        text
    }

    /// A member by name, with the number where the name is in doubt.
    fn who(&self, index: u16, name: &str) -> String {
        let others = self.present.iter().filter(|(other, _)| **other != index).map(|(i, name)| (*i, name.as_str()));
        numbered(index, name, names::first_like(name, others).is_some())
    }
}

/// Who opens reports.
fn moderators(policy: &[NamedKey], operator: Option<&NamedKey>, takes_reports: bool) -> String {
    let named = policy.iter().map(|key| shown(&key.name));
    let operators = operator.map(|key| format!("{} (of the relay's operator)", shown(&key.name)));
    let all: Vec<String> = named.chain(operators).collect();
    let who = if all.is_empty() { "nobody".to_owned() } else { all.join(", ") };
    if takes_reports {
        format!("Reports from this meeting can be opened by: {who}.")
    } else {
        format!("Reports from this meeting can be opened by: {who}. This relay takes none: they can be saved.")
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}

/// What somebody did, where it does not show otherwise.
fn act(what: &str, by: &str, who: &str) -> Option<String> {
    Some(match what {
        "admit" => format!("{by} let {who} in."),
        "remove" => format!("{by} put {who} out."),
        "deny" | "block" => format!("{by} turned somebody down."),
        "lock" => format!("{by} locked the meeting."),
        "unlock" => format!("{by} unlocked the meeting."),
        "mute_newcomers" => format!("{by}: whoever comes begins muted."),
        "unmute_newcomers" => format!("{by}: nobody has to begin muted any more."),
        "waiting_room_on" => format!("{by}: guests wait to be let in."),
        "waiting_room_off" => format!("{by}: guests are let in without waiting."),
        "ask_mute" => format!("{by} asked {who} to mute."),
        "promote" => format!("{by} made {who} a co-host."),
        "demote" => format!("{by} made {who} a plain member again."),
        "hand_over" => format!("{by} hands the lead over to {who}."),
        _ => return None,
    })
}

fn numbered(index: u16, name: &str, in_doubt: bool) -> String {
    if in_doubt { format!("{} (no. {index})", shown(name)) } else { shown(name) }
}

fn member(member: &RosterMember) -> String {
    let standing = match member.standing {
        Standing::Verified => "verified",
        Standing::Known => "known",
        Standing::KeyChanged => "KEY CHANGED",
        Standing::New => "new",
        Standing::Guest => "guest",
        Standing::Oneself => "you",
    };
    let host = (member.role != "member").then_some(member.role);
    let muted = member.muted.then_some("muted");
    let recording = member.recording.then_some("RECORDS");
    let blocked = member.blocked.then_some("BLOCKED: you do not hear them");
    let volume = (member.volume != Volume::UNCHANGED.percent()).then(|| format!("volume {} %", member.volume));
    let marks = [host, Some(standing), muted, recording, blocked, volume.as_deref()];
    let marks: Vec<&str> = marks.into_iter().flatten().collect();
    let name = numbered(member.index, &member.name, member.looks_like.is_some());
    format!("{name} ({})", marks.join(", "))
}

fn standing_of_knock(standing: Standing) -> &'static str {
    match standing {
        Standing::Verified => "verified: you have compared the safety number",
        Standing::Known => "known from an earlier meeting; not compared",
        Standing::KeyChanged => "KEY CHANGED: you know somebody of this name with another key",
        Standing::New => "new: never met before",
        Standing::Guest => "a guest of this meeting only",
        Standing::Oneself => "yourself",
    }
}

fn not_realtime(reason: &str) -> String {
    format!(
        "(Sound takes turns with the other programs on this machine ({reason}). More is kept against gaps, so you hear \
         and are heard some 20 ms later, and a busy machine may leave gaps: docs/devices.md says how to allow priority.)"
    )
}

/// What became of a device.
fn device(direction: Direction, name: &str, what: What) -> String {
    let (device, use_of_it) = match direction {
        Direction::Input => ("microphone", "You are heard through"),
        Direction::Output => ("loudspeaker", "You hear the others through"),
    };
    match what {
        What::Lost => format!("The {device} {} is gone, or does not work; looking for another.", shown(name)),
        What::Back => format!("The {device} {} is back and in use.", shown(name)),
        What::Replaced => format!("{use_of_it} the {device} {} now.", shown(name)),
    }
}

fn denied(reason: &str) -> &'static str {
    match reason {
        "blocked" => "The host does not let you in, and will not.",
        "expired" => "Nobody answered your knock.",
        "full" => "The meeting is full.",
        "locked" => "The meeting is locked: nobody is let in. Ask the host to unlock it.",
        _ => "The host does not let you in.",
    }
}

/// A name as it stands in a sentence: in quotes when it holds what this program itself puts round names.
fn shown(name: &str) -> String {
    if name.chars().any(|c| "()[]{},;:\"".contains(c)) {
        return format!("\"{}\"", name.replace('"', "'"));
    }
    name.to_owned()
}

/// Text without characters that a terminal would obey, or that hide or turn what is shown. Line feeds stay.
pub(super) fn without_escapes(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_unsafe_to_show(c) { '?' } else { c }).collect()
}

/// JSON of the same meaning, in which such characters are written as escape sequences of JSON. They occur within strings
/// only; those that JSON itself forbids there are escaped already.
pub(super) fn json_without_escapes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if !is_unsafe_to_show(c) {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a text cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(members: &[(u16, &str, Standing, Option<u16>)]) -> Report {
        let member = |&(index, name, standing, looks_like): &(u16, &str, Standing, Option<u16>)| RosterMember {
            index,
            name: name.to_owned(),
            role: if index == 0 { "host" } else { "member" },
            muted: index == 2,
            safety_number: None,
            standing,
            looks_like,
            blocked: false,
            recording: index == 3,
            volume: if index == 3 { 150 } else { 100 },
        };
        Report::Roster { epoch: 1, members: members.iter().map(member).collect() }
    }

    fn knock(name: &str, standing: Standing, looks_like: Option<u16>) -> Report {
        Report::Knock { id: 7, name: name.to_owned(), safety_number: "0".to_owned(), standing, looks_like }
    }

    #[test]
    fn every_standing_has_its_own_words_and_names_in_doubt_their_number() {
        let mut words = Words::default();
        let said = words.say(&roster(&[
            (0, "Ada", Standing::Oneself, None),
            (1, "Bob", Standing::Verified, Some(2)),
            (2, "B0b", Standing::KeyChanged, Some(1)),
            (3, "Carl", Standing::Known, None),
            (4, "Dora", Standing::New, None),
            (5, "Emil", Standing::Guest, None),
        ]));
        assert_eq!(
            said.as_deref(),
            Some(
                "Here: Ada (host, you), Bob (no. 1) (verified), B0b (no. 2) (KEY CHANGED, muted), \
                 Carl (known, RECORDS, volume 150 %), \
                 Dora (new), Emil (guest)."
            )
        );
        let joined = |index, name: &str| Report::Joined { index, name: name.to_owned() };
        assert_eq!(words.say(&joined(6, "ADA")).as_deref(), Some("ADA (no. 6) joined."));
        assert_eq!(words.say(&joined(6, "Fay")).as_deref(), Some("Fay joined."));
        let left = Report::Left { index: 1, name: "Bob".to_owned(), why: "left" };
        assert_eq!(words.say(&left).as_deref(), Some("Bob (no. 1) left."));
        let alarm = Report::Alarm { kind: "bad_key", index: Some(2), detail: "so".to_owned() };
        assert_eq!(words.say(&alarm).as_deref(), Some("ALARM (bad_key) about B0b (no. 2): so"));
    }

    #[test]
    fn a_knock_says_who_has_that_name_already() {
        let mut words = Words::default();
        words.say(&roster(&[(0, "Ada", Standing::Oneself, None), (2, "Bob", Standing::Known, None)]));
        let same = words.say(&knock("Bob", Standing::KeyChanged, Some(2))).expect("words");
        assert!(same.contains("has the same name as member 2;") && same.contains("KEY CHANGED"), "{same}");
        let alike = words.say(&knock("B0b", Standing::New, Some(2))).expect("words");
        assert!(alike.contains("looks like the name of member 2 Bob;") && alike.contains("never met"), "{alike}");
        let plain = words.say(&knock("Carl", Standing::Guest, None)).expect("words");
        assert!(!plain.contains("CAREFUL") && plain.starts_with("Carl knocks (a guest"), "{plain}");
    }

    #[test]
    fn who_opens_reports_is_told_by_name_and_office() {
        let key = |name: &str| NamedKey { name: name.to_owned(), id: String::new() };
        let told = |policy: &[NamedKey], operator, takes_reports| {
            let report = Report::Moderators { policy: policy.to_vec(), operator, takes_reports };
            Words::default().say(&report).expect("words")
        };
        let both = told(&[key("Ann, Bob")], Some(key("Op")), true);
        assert_eq!(both, "Reports from this meeting can be opened by: \"Ann, Bob\", Op (of the relay's operator).");
        let nobody = told(&[], None, false);
        assert!(nobody.contains("opened by: nobody.") && nobody.contains("takes none"), "{nobody}");
    }

    #[test]
    fn what_becomes_of_a_report_is_told() {
        let say = |report: Report| Words::default().say(&report).expect("words");
        let taken = say(Report::Reported { receipt: "ABCD".to_owned(), to: "Op".to_owned() });
        assert_eq!(taken, "The report went to Op. Its number is ABCD.");
        let failed = |saved: Option<&str>, retrying| Report::ReportFailed {
            reason: "no sink".to_owned(),
            to: None,
            saved: saved.map(str::to_owned),
            retrying,
        };
        assert_eq!(say(failed(Some("f"), false)), "The report was not taken: no sink. It is in f.");
        assert_eq!(say(failed(None, false)), "The report was not taken: no sink.");
        assert_eq!(say(failed(None, true)), "The report was not taken yet: no sink.");
    }

    #[test]
    fn a_name_cannot_say_what_only_the_program_says() {
        let mut words = Words::default();
        let said = words.say(&roster(&[(1, "Eve (host, verified), Bob", Standing::New, None)])).expect("words");
        assert_eq!(said, "Here: \"Eve (host, verified), Bob\" (new).");
        assert_eq!(shown("say \"Bob\""), "\"say 'Bob'\"");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_passed_through() {
        let evil = "a\u{1b}[2J\u{9b}31m\u{7f}\r\u{202e}b\u{200b}\u{e0041}";
        let mut words = Words::default();
        let said = words.say(&Report::Error { message: evil.to_owned() }).expect("words");
        assert!(!said.chars().any(is_unsafe_to_show), "{said:?}");
        assert!(said.starts_with("Error: a?[2J"));
        let json = serde_json::to_string(&Report::Error { message: evil.to_owned() }).expect("JSON");
        let safe = json_without_escapes(&json);
        assert!(!safe.chars().any(is_unsafe_to_show), "{safe:?}");
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(parsed(&safe), parsed(&json));
    }
}
