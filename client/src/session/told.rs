//! What a conference says beyond coming and going: who did what, who leads, codes, chat.

use std::time::Instant;

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{AlarmKind, Event, Person};
use conclave_protocol::epoch::statement::Act;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sframe::frame::Microphone;

use super::Running;
use crate::report::Report;

impl Running {
    /// An event of a meeting that is under way.
    pub(super) fn on_told(&mut self, event: Event) {
        match event {
            Event::Act { by, act, who } => {
                let (who, who_name) = who.map_or((None, None), |(i, name)| (Some(i.0), Some(name.as_str().to_owned())));
                let by_name = self.name_of(by);
                if let Act::Promote(index) | Act::TakeOver(index) = act {
                    self.reporting.note_host(index);
                }
                self.reports.send(Report::Act { by: by.0, what: act_name(act), who, by_name, who_name });
            }
            Event::Leader { index } => {
                self.reporting.note_host(index);
                self.reports.send(Report::Leader { index: index.0 });
            }
            Event::Moderators => {
                self.bans.apply(&mut self.conference);
                self.reporting.note_moderators();
            }
            Event::Banned(person) => self.report_banned(&person),
            Event::ReportAnswered { id, answer } => self.on_report_answered(id, answer),
            Event::SecurityCode { epoch, code } => {
                let (words, digits) = (code.words(), code.digits().to_owned());
                self.reports.send(Report::SecurityCode { epoch: epoch.number(), words, digits });
            }
            Event::Locked { on } => self.reports.send(Report::Locked { on }),
            Event::Chat { from, text } => {
                let name = self.name_of(from).unwrap_or_default();
                self.reports.send(Report::Chat { from: from.0, name, text });
            }
            Event::Hand { index, on } => self.reports.send(Report::Hand { index: index.0, on }),
            Event::Recording { index, on } => self.on_recording(index, on),
            Event::AskedToMute { by } => self.reports.send(Report::AskedToMute { by: by.0 }),
            Event::Stale { silence } => {
                let for_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                self.reports.send(Report::Stale { for_ms });
            }
            Event::Verified { index, on } => {
                self.talkers.on_verified_mode(index, on, &mut self.engine, Instant::now());
            }
            Event::Refused(error) => self.reports.send(Report::Error { message: error.to_string() }),
            _ => {}
        }
    }

    /// The name of a member who is here.
    fn name_of(&self, index: MemberIndex) -> Option<String> {
        self.conference.members().find(|m| m.index == index).map(|m| m.name.as_str().to_owned())
    }

    /// Begins muted where everybody does who comes.
    pub(super) fn follow_mute_policy(&mut self) {
        let is_newcomer = self.conference.index() != Some(MemberIndex::HOST);
        if is_newcomer && self.conference.settings().is_some_and(|settings| settings.newcomers_muted) {
            let message = "everybody begins muted in this meeting: unmute when you want to speak".to_owned();
            if self.switch(Microphone::Muted) {
                self.reports.send(Report::Notice { message });
            }
        }
    }

    /// Somebody knocks. Who was blocked in an earlier meeting is turned down at once.
    pub(super) fn on_knock(&mut self, knock: KnockId, person: Person) {
        if self.pins.is_blocked(&person.identity) && self.conference.block_knock(Instant::now(), knock).is_ok() {
            let message = format!("{} knocked and was turned down: blocked earlier", person.name.as_str());
            return self.reports.send(Report::Notice { message });
        }
        // While a co-host leads, it is the one who asks.
        if self.bans.is_banned(&person.identity) && self.conference.block_knock(Instant::now(), knock).is_ok() {
            return self.report_banned(&person);
        }
        self.report_knock(knock, &person);
        self.knocking.insert(knock, person);
    }

    /// Writes the proof that a leader told two histories, or a talker two different things.
    pub(super) fn write_proof(&mut self, file: &str) -> Result<(), String> {
        let proof = self
            .conference
            .proof()
            .ok_or("there is nothing to prove: no leader told two histories, and no talker two things")?;
        crate::private::write_new(std::path::Path::new(file), &proof).map_err(|error| format!("{file}: {error:#}"))?;
        self.reports.send(Report::Proof { file: file.to_owned() });
        Ok(())
    }
}

/// The name of an act in `act.what`.
fn act_name(act: Act) -> &'static str {
    match act {
        Act::Admit(_) => "admit",
        Act::Remove(_) => "remove",
        Act::Leave(_) => "leave",
        Act::Lost(_) => "lost",
        Act::Rekey => "rekey",
        Act::OpenRate => "open_rate",
        Act::End => "end",
        Act::Lock => "lock",
        Act::Unlock => "unlock",
        Act::MuteNewcomers => "mute_newcomers",
        Act::UnmuteNewcomers => "unmute_newcomers",
        Act::WaitingRoomOn => "waiting_room_on",
        Act::WaitingRoomOff => "waiting_room_off",
        Act::AskMute(_) => "ask_mute",
        Act::Promote(_) => "promote",
        Act::Demote(_) => "demote",
        Act::HandOver(_) => "hand_over",
        Act::TakeOver(_) => "take_over",
        Act::Deny => "deny",
        Act::Block => "block",
    }
}

/// What an alarm says to people: what happened, and what to do where the protocol's own words leave that open.
pub(super) fn alarm_words(kind: AlarmKind, detail: &str) -> String {
    let advice = match kind {
        AlarmKind::Injected => {
            "sound came in this member's name that it has not signed: another member plays it with the help of a relay, \
             or this member's program is broken. From now on only what this member has signed is heard, about a second \
             later. Ask this member whether it said what was heard in the last two seconds; what is heard from now on \
             is its own"
        }
        AlarmKind::BadSeal => {
            "what came as this member's signature over its sound is wrong: this member's program is broken, or another \
             member forges it together with the relay. Only what this member has signed is heard. Whoever is not heard \
             any more should leave and join again; if it stays so, report this member, or talk over another relay"
        }
        _ => return detail.to_owned(),
    };
    advice.to_owned()
}

/// The name of an alarm in `alarm.kind`.
pub(super) fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::BadStatement => "bad_statement",
        AlarmKind::BadRoster => "bad_roster",
        AlarmKind::BadKey => "bad_key",
        AlarmKind::BadAcknowledgement => "bad_acknowledgement",
        AlarmKind::ForgedNotice => "forged_notice",
        AlarmKind::Unauthentic => "unauthentic",
        AlarmKind::Equivocation => "equivocation",
        AlarmKind::Withheld => "withheld",
        AlarmKind::Forbidden => "forbidden",
        AlarmKind::Injected | AlarmKind::BadSeal => "unauthentic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_spoken_for_by_another_is_unauthentic_in_words_that_say_what_to_do() {
        for kind in [AlarmKind::Injected, AlarmKind::BadSeal] {
            assert_eq!(alarm_name(kind), "unauthentic");
            let words = alarm_words(kind, "short").to_lowercase();
            assert!(words.contains("only what this member has signed"), "{words}");
            assert!(words.contains("ask this member") || words.contains("leave and join again"), "{words}");
        }
        assert_eq!(alarm_words(AlarmKind::Withheld, "as it is"), "as it is");
    }
}
