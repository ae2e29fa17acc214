//! Reporting somebody (`docs/reporting.md`): the commands, the way to the relay, and the time after the end.
//!
//! Nobody in the meeting learns of it: what goes out goes to the relay, sealed, at a pace that holds up nothing else.

mod holdup;
mod outbox;
mod prepare;
mod staying;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conclave_protocol::conference::Conference;
use conclave_protocol::evidence::report::{Note, Report as Statement};
use conclave_protocol::evidence::ring::Window;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::moderator::Moderator;
use conclave_protocol::succession::Rank;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{ReportId, ToRelay};
use data_encoding::HEXLOWER;
use rand_core::Rng;
use tokio::sync::mpsc;

use super::{Running, system_rng};
use crate::command::{ReportWhat, Who};
use crate::report::{NamedKey, Report};
use outbox::{Outbox, Send};
use prepare::Letter;
pub(super) use prepare::Prepared;
pub(super) use staying::Staying;

/// Reports that may be prepared or on their way at one time: what a relay takes of one member in two minutes.
const MAX_AT_ONCE: usize = 12;

/// What a session needs to report.
#[derive(Default)]
pub struct ReportSettings {
    /// Where sealed reports are kept until they were handed on; nowhere if `None`.
    pub shelf: Option<PathBuf>,
    /// How long the session stays at the relay after the end, so that what was said can still be reported.
    pub stay_for: Duration,
}

/// Everything about reports that a session remembers.
pub(super) struct Reporting {
    settings: ReportSettings,
    outbox: Outbox,
    cases: BTreeMap<ReportId, Case>,
    preparing: usize,
    prepared: mpsc::UnboundedReceiver<Prepared>,
    hand_in: mpsc::UnboundedSender<Prepared>,
    /// Everybody who was a host or a co-host at any time: whom they appointed does not judge them.
    hosts: BTreeSet<MemberIndex>,
    /// Who moderates has not been told since it was known.
    moderators_due: bool,
}

/// A sealed report that was not taken yet.
struct Case {
    to: String,
    kept: Option<PathBuf>,
    save: Option<PathBuf>,
}

impl Reporting {
    pub(super) fn new(settings: ReportSettings) -> Self {
        let (hand_in, prepared) = mpsc::unbounded_channel();
        Self {
            settings,
            outbox: Outbox::default(),
            cases: BTreeMap::new(),
            preparing: 0,
            prepared,
            hand_in,
            hosts: BTreeSet::from([MemberIndex::HOST]),
            moderators_due: true,
        }
    }

    /// What was prepared on another thread. Cancel-safe.
    pub(super) async fn prepared(&mut self) -> Option<Prepared> {
        self.prepared.recv().await
    }

    /// Whether the session stays at the relay after the end.
    pub(super) fn stays(&self) -> bool {
        !self.settings.stay_for.is_zero()
    }

    /// Whether nothing is prepared or on its way.
    fn is_idle(&self) -> bool {
        self.preparing == 0 && self.outbox.is_empty()
    }

    fn prepare(&mut self, work: impl FnOnce() -> Prepared + std::marker::Send + 'static) {
        self.preparing += 1;
        let hand_in = self.hand_in.clone();
        // The answer is read for as long as anybody wants it.
        tokio::task::spawn_blocking(move || drop(hand_in.send(work())));
    }

    /// Somebody is a host or a co-host from now on.
    pub(super) fn note_host(&mut self, index: MemberIndex) {
        self.hosts.insert(index);
    }

    /// Who moderates is to be told.
    pub(super) fn note_moderators(&mut self) {
        self.moderators_due = true;
    }

    /// Remembers who is a host or a co-host.
    pub(super) fn note_hosts(&mut self, conference: &Conference) {
        let hosts = conference.members().map(|member| member.index);
        self.hosts.extend(hosts.filter(|index| conference.rank(*index) != Rank::Member));
    }
}

/// Whom a report goes to: the policy's moderators and the operator's, each key once. Whoever is or was a host or a
/// co-host is not judged by those whom the host has named.
fn addressees(policy: &[Moderator], operator: Option<&Moderator>, is_host: bool) -> Vec<Moderator> {
    let mut to: Vec<Moderator> = Vec::new();
    for moderator in policy.iter().filter(|_| !is_host).chain(operator) {
        if to.iter().all(|other| other.id() != moderator.id()) {
            to.push(moderator.clone());
        }
    }
    to
}

impl Running {
    // ---- commands ----

    /// The command `report`. Whatever comes of it comes as `reported` or `report_failed`.
    pub(super) fn report(&mut self, what: &ReportWhat) {
        if let Err(reason) = self.begin_report(what) {
            self.fail_unsealed(reason);
        }
    }

    fn fail_unsealed(&self, reason: String) {
        self.reports.send(Report::ReportFailed { reason, to: None, saved: None, retrying: false });
    }

    fn begin_report(&mut self, what: &ReportWhat) -> Result<(), String> {
        if self.reporting.preparing + self.reporting.cases.len() >= MAX_AT_ONCE {
            return Err("too many reports are still on their way: wait until they are taken".to_owned());
        }
        let (statement, to) = self.statement(what)?;
        if to.is_empty() {
            return Err(NOBODY.to_owned());
        }
        let shelf = self.reporting.settings.shelf.clone();
        let save = what.save.as_ref().map(PathBuf::from);
        self.reporting.prepare(move || match prepare::seal(&statement, &to, shelf.as_deref()) {
            Ok(letters) => Prepared::Letters { letters, save },
            Err(reason) => Prepared::Failed(reason),
        });
        Ok(())
    }

    /// The command `report_preview`: nothing of it leaves this machine.
    pub(super) fn preview_report(&mut self, what: &ReportWhat) -> Result<(), String> {
        if self.reporting.preparing >= MAX_AT_ONCE {
            return Err("too many reports are being prepared: wait a moment".to_owned());
        }
        let (statement, to) = self.statement(what)?;
        let out = what.out.as_ref().map(PathBuf::from);
        self.reporting.prepare(move || {
            let preview = prepare::preview(&statement, &to, out.as_deref());
            Prepared::Preview(preview.unwrap_or_else(|message| Report::Error { message }))
        });
        Ok(())
    }

    /// What was said, and to whom it goes.
    fn statement(&self, what: &ReportWhat) -> Result<(Statement, Vec<Moderator>), String> {
        let category = what.category.parse().map_err(|error| format!("{error}"))?;
        let note = Note::parse(&what.note).map_err(|error| error.to_string())?;
        let index = self.find_reportable(&what.who)?;
        let window = Window { ago: what.seconds_ago.duration(), length: what.seconds.duration() };
        let (now, conference) = (Instant::now(), &self.conference);
        let statement = conference.report(now, index, window, (category, note), what.with_my_name);
        let statement = statement.map_err(|error| error.to_string())?;
        let is_host = self.reporting.hosts.contains(&index);
        Ok((statement, addressees(conference.moderators(), conference.operator_moderator(), is_host)))
    }

    /// Somebody who is here, or of whom something is still kept.
    fn find_reportable(&self, who: &Who) -> Result<MemberIndex, String> {
        let here = self.conference.members().map(|member| (member.index, member.name.as_str()));
        let known = self.conference.reportable().map(|(index, name, _)| (index, name.as_str()));
        let own = self.conference.index();
        let everybody: BTreeMap<MemberIndex, &str> = here.chain(known).filter(|(i, _)| Some(*i) != own).collect();
        let found = everybody.into_iter().filter(|(index, name)| match who {
            Who::Number(number) => u32::from(index.0) == *number,
            Who::Name(text) => *name == text.as_str(),
        });
        super::commands::only(found.map(|(index, _)| index), "can be reported")
    }

    // ---- on the way ----

    /// Something that was prepared elsewhere is ready.
    pub(super) fn on_prepared(&mut self, prepared: Prepared) {
        self.reporting.preparing = self.reporting.preparing.saturating_sub(1);
        match prepared {
            Prepared::Preview(report) => self.reports.send(report),
            Prepared::Failed(reason) => self.fail_unsealed(reason),
            Prepared::Letters { letters, save } => {
                for (place, letter) in letters.into_iter().enumerate() {
                    // Each is sealed to another key.
                    let save = save.as_deref().map(|save| numbered(save, place));
                    self.post(letter, save);
                }
            }
        }
    }

    fn post(&mut self, letter: Letter, save: Option<PathBuf>) {
        let mut id = ReportId([0; 16]);
        system_rng().fill_bytes(&mut id.0);
        let Letter { to, digest, sealed, kept } = letter;
        self.reporting.outbox.add(Instant::now(), id, digest, sealed);
        self.reporting.cases.insert(id, Case { to, kept, save });
    }

    /// When reports have something to send; `None` while there is no relay that answers.
    pub(super) fn reports_due(&self) -> Option<Instant> {
        let due = self.reporting.outbox.due().filter(|_| self.link.is_answered())?;
        // What waits already goes first: reports can wait.
        Some(if self.link.is_clear() { due } else { due.max(Instant::now() + outbox::PART_TIME) })
    }

    /// Sends what is due.
    pub(super) fn send_reports(&mut self) {
        while self.link.is_answered() && self.link.is_clear() {
            let Some(send) = self.reporting.outbox.next(Instant::now()) else { return };
            let message = match send {
                Send::Announcement { id, length, digest } => {
                    let length = u32::try_from(length).unwrap_or(u32::MAX);
                    ToRelay::Report { id, length, digest, past: self.conference.past() }
                }
                Send::Part { id, bytes } => ToRelay::ReportPart { id, bytes: bytes.to_vec() },
            };
            self.link.send_control(message.encode().into());
        }
    }

    /// The connection is another one, or gone.
    pub(super) fn on_reports_cut_off(&mut self) {
        self.reporting.outbox.on_lost(Instant::now());
    }

    // ---- who moderates ----

    /// Tells who opens reports from this meeting: once at entry, when the relay has said its part, and when that changes.
    pub(super) fn report_moderators(&mut self) {
        if !self.reporting.moderators_due || !self.entered || !self.link.is_answered() {
            return;
        }
        self.reporting.moderators_due = false;
        let named = |moderator: &Moderator| NamedKey {
            name: moderator.name.as_str().to_owned(),
            id: HEXLOWER.encode(&moderator.id().0),
        };
        self.reports.send(Report::Moderators {
            policy: self.conference.moderators().iter().map(named).collect(),
            operator: self.conference.operator_moderator().map(named),
            takes_reports: self.conference.relay_takes_reports(),
        });
    }
}

/// For people.
const NOBODY: &str = "nobody can open it: the relay names no moderator, and neither does the meeting for this member; \
                      nothing is saved";

/// A name for each of several files.
fn numbered(path: &Path, place: usize) -> PathBuf {
    if place == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", place + 1));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_protocol::identity::DisplayName;
    use conclave_protocol::moderator::SEALING_KEY_LEN;
    use conclave_protocol::sign::PublicKey;

    fn moderator(name: &str, seed: u8) -> Moderator {
        let name = DisplayName::parse(name).expect("a name");
        Moderator { name, signing: PublicKey([seed; 32]), sealing: [seed; SEALING_KEY_LEN] }
    }

    #[test]
    fn a_report_goes_to_every_key_once_and_one_of_a_host_to_the_operators_only() {
        let (ours, theirs) = (moderator("Ours", 1), moderator("Theirs", 2));
        let names = |to: Vec<Moderator>| to.iter().map(|m| m.name.as_str().to_owned()).collect::<Vec<_>>();
        let policy = [ours.clone(), moderator("Ours again", 1)];
        assert_eq!(names(addressees(&policy, Some(&theirs), false)), ["Ours", "Theirs"]);
        assert_eq!(names(addressees(&policy, Some(&ours), false)), ["Ours"]);
        assert_eq!(names(addressees(&policy, Some(&theirs), true)), ["Theirs"]);
        assert!(addressees(&policy, None, true).is_empty());
    }

    #[test]
    fn several_files_have_several_names() {
        let path = Path::new("a/b.report");
        assert_eq!(
            [0, 1, 2].map(|place| numbered(path, place)),
            ["a/b.report", "a/b.report.2", "a/b.report.3"].map(PathBuf::from)
        );
    }
}
