//! What a session knows of the other members: names, mute, and figures of what arrived.

use std::collections::BTreeMap;
use std::time::Instant;

use conclave_protocol::conference::Conference;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::Role;
use conclave_protocol::sframe::frame::{Frame, Microphone};

use crate::audio::engine::MediaEngine;
use crate::report::{NetworkMs, RosterMember, Standing, TalkerStats, digits};

/// Most delays remembered between two statistics: two seconds of frames.
const DELAYS: usize = 128;

/// One other member.
pub struct Talker {
    name: String,
    microphone: Option<Microphone>,
    opened: u64,
    duplicates: u64,
    unauthentic: u64,
    first_opened: Option<Instant>,
    last_opened: Option<Instant>,
    /// Sealing to opening, in units of 10 µs, of the frames since the last statistics.
    delays: [i32; DELAYS],
    delay_count: usize,
    last_network: Option<NetworkMs>,
}

/// What became of one talker's frames, for a summary at the end.
#[derive(Clone, Debug)]
pub struct TalkerSummary {
    /// As in `stats`.
    pub stats: TalkerStats,
    /// When the first frame opened.
    pub first_opened: Option<Instant>,
    /// When the last frame opened.
    pub last_opened: Option<Instant>,
}

/// All other members, past ones included in the summary.
#[derive(Default)]
pub struct Talkers {
    present: BTreeMap<MemberIndex, Talker>,
    gone: Vec<TalkerSummary>,
}

impl Talkers {
    /// Follows the roster.
    pub fn follow(
        &mut self,
        conference: &Conference,
        engine: &mut MediaEngine,
    ) -> Result<(), crate::audio::codec::CodecError> {
        let own = conference.index();
        let roster: BTreeMap<MemberIndex, &str> =
            conference.members().filter(|m| Some(m.index) != own).map(|m| (m.index, m.name.as_str())).collect();
        let gone: Vec<MemberIndex> = self.present.keys().filter(|index| !roster.contains_key(index)).copied().collect();
        for index in gone {
            if let Some(summary) = self.summary(index, engine) {
                self.gone.push(summary);
            }
            self.present.remove(&index);
            engine.remove_talker(index.0);
        }
        for (index, name) in roster {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.present.entry(index) {
                entry.insert(Talker::new(name));
                engine.add_talker(index.0)?;
            }
        }
        Ok(())
    }

    /// A frame opened. Gives the microphone's new state when it changed. Allocates nothing.
    pub fn on_opened(&mut self, index: MemberIndex, frame: &Frame<'_>, now: Instant, stamp: u32) -> Option<Microphone> {
        let talker = self.present.get_mut(&index)?;
        talker.opened += 1;
        talker.first_opened.get_or_insert(now);
        talker.last_opened = Some(now);
        if let Some(slot) = talker.delays.get_mut(talker.delay_count) {
            *slot = stamp.wrapping_sub(frame.stamp).cast_signed();
            talker.delay_count += 1;
        }
        let changed = talker.microphone.replace(frame.microphone) != Some(frame.microphone);
        changed.then_some(frame.microphone)
    }

    /// A frame of this talker came twice.
    pub fn on_duplicate(&mut self, index: MemberIndex) {
        if let Some(talker) = self.present.get_mut(&index) {
            talker.duplicates += 1;
        }
    }

    /// A frame that claims to be of this talker does not authenticate. Gives how many did not so far.
    pub fn on_unauthentic(&mut self, index: MemberIndex) -> Option<u64> {
        let talker = self.present.get_mut(&index)?;
        talker.unauthentic += 1;
        Some(talker.unauthentic)
    }

    /// The roster for a report. `own` is the state of this client's microphone.
    pub fn roster(&self, conference: &Conference, own: Microphone) -> Vec<RosterMember> {
        let me = conference.index();
        let entry = |member: &conclave_protocol::epoch::roster::Member| {
            let oneself = Some(member.index) == me;
            let heard = self.present.get(&member.index).and_then(|talker| talker.microphone);
            let microphone = if oneself { Some(own) } else { heard };
            RosterMember {
                index: member.index.0,
                name: member.name.as_str().to_owned(),
                role: match member.cert.role {
                    Role::Host => "host",
                    Role::Member => "member",
                },
                muted: microphone == Some(Microphone::Muted),
                safety_number: (!oneself).then(|| digits(&conference.safety_number(member))),
                standing: if oneself { Standing::Oneself } else { Standing::of(member.cert.kind) },
            }
        };
        conference.members().map(entry).collect()
    }

    /// Figures of everybody present; delays are of the frames since the last time this was asked.
    pub fn stats(&mut self, engine: &MediaEngine) -> Vec<TalkerStats> {
        self.present
            .iter_mut()
            .map(|(index, talker)| {
                talker.last_network = talker.take_delays();
                talker.stats(*index, engine)
            })
            .collect()
    }

    /// Everything about everybody who was ever there.
    pub fn into_summaries(self, engine: &MediaEngine) -> Vec<TalkerSummary> {
        let present: Vec<MemberIndex> = self.present.keys().copied().collect();
        let rest = present.into_iter().filter_map(|index| self.summary(index, engine));
        self.gone.iter().cloned().chain(rest).collect()
    }

    fn summary(&self, index: MemberIndex, engine: &MediaEngine) -> Option<TalkerSummary> {
        let talker = self.present.get(&index)?;
        let (first_opened, last_opened) = (talker.first_opened, talker.last_opened);
        Some(TalkerSummary { stats: talker.stats(index, engine), first_opened, last_opened })
    }
}

impl Talker {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            microphone: None,
            opened: 0,
            duplicates: 0,
            unauthentic: 0,
            first_opened: None,
            last_opened: None,
            delays: [0; DELAYS],
            delay_count: 0,
            last_network: None,
        }
    }

    fn take_delays(&mut self) -> Option<NetworkMs> {
        let delays = self.delays.get_mut(..std::mem::take(&mut self.delay_count))?;
        delays.sort_unstable();
        let at = |share: f64| {
            // Nearest rank.
            let rank = (share * delays.len() as f64).ceil().max(1.0) as usize;
            delays.get(rank - 1).map(|units| f64::from(*units) / 100.0)
        };
        Some(NetworkMs { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }

    fn stats(&self, index: MemberIndex, engine: &MediaEngine) -> TalkerStats {
        let playout = engine.stats(index.0).unwrap_or_default();
        let hold = playout.hold_ms.map(f64::from);
        let delay_ms = self.last_network.zip(hold).map(|(network, hold)| round(network.p50 + hold));
        TalkerStats {
            index: index.0,
            name: self.name.clone(),
            received: self.opened,
            played: playout.played,
            late: playout.late,
            lost: playout.lost,
            concealed: playout.concealed,
            duplicates: self.duplicates,
            delay_ms,
            network_ms: self.last_network,
        }
    }
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}
