//! What a session tells of people and remembers of them: knocks, the roster, compared safety numbers.

use std::time::Instant;

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::Person;
use conclave_protocol::epoch::roster::Member;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::SafetyNumber;
use conclave_protocol::time::UnixMillis;

use super::{Running, start_now};
use crate::names;
use crate::pins::Pins;
use crate::report::Report;
use crate::session::sink::ReportSink;

/// Digits of a safety number.
const DIGITS: usize = 60;

impl Running {
    /// To the host: somebody knocks.
    pub(super) fn report_knock(&self, id: KnockId, person: &Person) {
        let name = person.name.as_str();
        let members = self.conference.members().map(|m| (m.index.0, m.name.as_str()));
        self.reports.send(Report::Knock {
            id: id.0,
            name: name.to_owned(),
            safety_number: person.safety_number.as_str().to_owned(),
            standing: self.pins.standing(&person.identity, person.kind, name),
            looks_like: names::first_like(name, members),
        });
    }

    /// Tells who is in the meeting.
    pub(super) fn report_roster(&mut self) {
        self.report_silence();
        let mut members = self.talkers.roster(&self.conference, self.microphone, &self.pins);
        members.iter_mut().for_each(|member| member.recording = self.recorders.contains(member.index));
        self.reports.send(Report::Roster { epoch: self.conference.epoch().number(), members });
    }

    /// Remembers everybody who is in the meeting.
    pub(super) fn note_members(&mut self) {
        let (own, now) = (self.conference.index(), start_now().wall);
        for member in self.conference.members().filter(|m| Some(m.index) != own) {
            self.pins.saw(&member.cert.identity, member.cert.kind, member.name.as_str(), now);
        }
    }

    /// Tells who counts as muted for having fallen silent, and who speaks no more.
    fn report_silence(&mut self) {
        for index in self.talkers.fall_silent(self.conference.rate(), Instant::now()) {
            self.reports.send(Report::Muted { index: index.0, on: true });
        }
        for index in self.talkers.fall_quiet(Instant::now()) {
            self.reports.send(Report::Speaking { index: index.0, on: false });
        }
    }

    /// Once a second: tells what nobody else tells of, who has fallen silent, and once when what is remembered cannot
    /// be written. The meeting goes on.
    pub(super) fn report_trouble(&mut self) {
        if self.entered && self.lingering.is_none() && self.staying.is_none() {
            self.report_silence();
        }
        if let Some(trouble) = self.pins.take_trouble() {
            self.reports.send(Report::Error { message: not_remembered(&trouble) });
        }
    }

    /// Compares the digits that a member has read out with those this client shows, remembers the result and tells it.
    ///
    /// # Errors
    /// In words, for the answer to the command: when nothing could be compared, and when it is wrong.
    pub(super) fn compare(&mut self, index: MemberIndex, typed: &str) -> Result<(), String> {
        if self.conference.index() == Some(index) {
            return Err("that is you: compare with somebody else".to_owned());
        }
        let member = self.conference.members().find(|m| m.index == index).ok_or("nobody has that number any more")?;
        let name = member.name.as_str().to_owned();
        let number = self.conference.safety_number(member);
        match compare(&mut self.pins, member, &number, typed, start_now().wall)? {
            Comparison::Right => {
                self.report_roster();
                let message = format!("the safety number of {name} is right: verified");
                self.reports.send(Report::Notice { message });
                Ok(())
            }
            Comparison::Wrong { was_verified } => {
                let (kind, index, detail) = ("safety_number", Some(index.0), WRONG_NUMBER.to_owned());
                self.reports.send(Report::Alarm { kind, index, detail });
                if was_verified {
                    self.report_roster();
                }
                Err(format!("the safety number of {name} is another one: have it read out again, or say nothing more"))
            }
        }
    }
}

/// For people.
const WRONG_NUMBER: &str = "the safety number that was read out is another one: it was misread, or this is somebody \
                            else than you think, or somebody stands between you";

/// What comparing a safety number has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Right,
    Wrong {
        /// Until now.
        was_verified: bool,
    },
}

/// Compares what was read out with a member's number, and remembers the result.
fn compare(
    pins: &mut Pins,
    member: &Member,
    number: &SafetyNumber,
    typed: &str,
    now: UnixMillis,
) -> Result<Comparison, String> {
    let identity = &member.cert.identity;
    if digits(typed)? == digits_of(number) {
        pins.verify(identity, member.cert.kind, member.name.as_str(), now);
        return Ok(Comparison::Right);
    }
    let was_verified = pins.is_verified(identity);
    pins.unverify(identity);
    Ok(Comparison::Wrong { was_verified })
}

/// Writes what is left to remember at the end of a session.
pub(super) fn close(pins: Pins, reports: &ReportSink) {
    if let Err(error) = pins.close() {
        reports.send(Report::Error { message: not_remembered(&format!("{error:#}")) });
    }
}

fn not_remembered(why: &str) -> String {
    format!("what happened is not remembered: {why}")
}

fn digits_of(number: &SafetyNumber) -> String {
    number.as_str().replace(' ', "")
}

/// The digits of a safety number as somebody typed them: in groups or not.
fn digits(typed: &str) -> Result<String, String> {
    let digits: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(digits);
    }
    Err(format!("a safety number has {DIGITS} digits: nothing was compared"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Standing;
    use crate::session::system_rng;
    use conclave_protocol::id::{Epoch, MeetingId};
    use conclave_protocol::identity::{DisplayName, Identity, JoinKeys, Role};
    use conclave_protocol::sign::PublicKey;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn member(identity: &Identity) -> Member {
        let key = PublicKey([0; 32]);
        let keys = JoinKeys { session: [0; 32], sealing: key, routing: key };
        let name = DisplayName::parse("Bob").expect("a name");
        let cert = identity.certify(MeetingId([0; 20]), Role::Member, keys, &name, NOW);
        Member { index: MemberIndex(1), cert, joined: Epoch::ZERO, name }
    }

    #[test]
    fn a_number_that_is_right_verifies_and_one_that_is_wrong_takes_it_back() {
        let own = Identity::guest(&mut system_rng());
        for bob in [Identity::guest(&mut system_rng()), Identity::kept(&[7; 32])] {
            let (member, number) = (member(&bob), SafetyNumber::of(&own.public(), &bob.public()));
            let mut pins = Pins::none();
            let standing = |pins: &Pins| pins.standing(&bob.public(), bob.kind(), "Bob");
            let before = standing(&pins);
            // What Bob reads out is computed at his end.
            let read_out = SafetyNumber::of(&bob.public(), &own.public());
            let right = compare(&mut pins, &member, &number, read_out.as_str(), NOW);
            assert_eq!(right, Ok(Comparison::Right));
            assert_eq!(standing(&pins), Standing::Verified);
            assert!(compare(&mut pins, &member, &number, "12345", NOW).is_err());
            assert_eq!(standing(&pins), Standing::Verified, "nothing was compared");
            let others = SafetyNumber::of(&bob.public(), &PublicKey([1; 32]));
            for was_verified in [true, false] {
                let wrong = compare(&mut pins, &member, &number, others.as_str(), NOW);
                assert_eq!(wrong, Ok(Comparison::Wrong { was_verified }));
            }
            let known = if before == Standing::New { Standing::Known } else { before };
            assert_eq!(standing(&pins), known);
        }
    }

    #[test]
    fn digits_are_read_in_groups_or_not_and_only_all_of_them() {
        let number = SafetyNumber::of(&PublicKey([1; 32]), &PublicKey([2; 32]));
        let (groups, whole) = (number.as_str(), digits_of(&number));
        for typed in [groups, &whole, &groups.replace(' ', "-"), &format!(" {groups} ")] {
            assert_eq!(digits(typed).as_deref(), Ok(whole.as_str()));
        }
        for typed in ["", &whole[1..], &format!("{whole}0"), &format!("{}x", &whole[1..])] {
            assert!(digits(typed).is_err(), "{typed}");
        }
    }
}
