//! What a session knows of the other members: names, mute, and figures of what arrived.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conclave_protocol::conference::Conference;
use conclave_protocol::epoch::statement::Rate;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sframe::frame::{Frame, Microphone};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::succession::Rank;

use crate::audio::codec::CodecError;
use crate::audio::engine::MediaEngine;
use crate::audio::format::FrameDuration;
use crate::audio::mixer::Volume;
use crate::names;
use crate::pins::Pins;
use crate::report::{NetworkMs, RosterMember, Standing, TalkerStats, digits};
use crate::session::voice::Voice;

/// Most delays remembered between two statistics: two seconds of the shortest frames.
const DELAYS: usize = 256;

/// Silence after which a member counts as muted in the open rate, where muted members send nothing: far longer than
/// the network loses frames in a row.
const UNHEARD: Duration = Duration::from_secs(2);

/// One other member.
pub struct Talker {
    name: String,
    since: Instant,
    /// As last told, or as it has to be taken for.
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
    /// Only what its seals vouch for is played (`docs/protocol.md` §9.4).
    verified_mode: bool,
    /// The user never wants to hear it again.
    blocked: bool,
    voice: Voice,
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
    /// Of those whom the user wants to hear louder or quieter than they come. By identity, so that who comes back under
    /// another index is as loud as before.
    volumes: BTreeMap<PublicKey, Volume>,
}

impl Talkers {
    /// Follows the roster.
    pub fn follow(&mut self, conference: &Conference, pins: &Pins, engine: &mut MediaEngine) -> Result<(), CodecError> {
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
        let frame = conference.frame_duration().unwrap_or(FrameDuration::Ms20);
        for (index, name) in roster {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.present.entry(index) {
                entry.insert(Talker::new(name, conference.rate(), frame, Instant::now()));
                engine.add_talker(index.0)?;
            }
        }
        self.follow_blocks(conference, pins, engine)
    }

    /// From now on who has this identity is played so loud.
    pub fn set_volume(&mut self, identity: PublicKey, volume: Volume) {
        if volume == Volume::UNCHANGED {
            self.volumes.remove(&identity);
        } else {
            self.volumes.insert(identity, volume);
        }
    }

    /// Plays everybody as loud as the user wants.
    pub fn follow_volumes(&self, conference: &Conference, engine: &mut MediaEngine) {
        for member in conference.members() {
            engine.set_volume(member.index.0, self.volume(&member.cert.identity));
        }
    }

    fn volume(&self, identity: &PublicKey) -> Volume {
        self.volumes.get(identity).copied().unwrap_or(Volume::UNCHANGED)
    }

    /// Plays nobody who is blocked, and everybody else as loud as the user wants.
    pub fn follow_blocks(
        &mut self,
        conference: &Conference,
        pins: &Pins,
        engine: &mut MediaEngine,
    ) -> Result<(), CodecError> {
        for member in conference.members() {
            self.set_blocked(member.index, pins.is_blocked(&member.cert.identity), engine)?;
        }
        self.follow_volumes(conference, engine);
        Ok(())
    }

    /// Whoever is blocked has no place in the engine, and what still comes of it goes nowhere.
    fn set_blocked(&mut self, index: MemberIndex, on: bool, engine: &mut MediaEngine) -> Result<(), CodecError> {
        let Some(talker) = self.present.get_mut(&index).filter(|talker| talker.blocked != on) else { return Ok(()) };
        talker.blocked = on;
        if on {
            engine.remove_talker(index.0);
            return Ok(());
        }
        engine.add_talker(index.0)?;
        engine.set_verified(index.0, talker.verified_mode, Instant::now());
        Ok(())
    }

    /// The level of a frame that opened. Gives whether the talker speaks now, when that has changed. Allocates nothing.
    pub fn on_level(&mut self, index: MemberIndex, frame: &Frame<'_>, now: Instant) -> Option<bool> {
        let talker = self.present.get_mut(&index).filter(|talker| !talker.blocked)?;
        talker.voice.on_frame(frame.microphone, frame.level, now)
    }

    /// Who spoke and of whom nothing has come since.
    pub fn fall_quiet(&mut self, now: Instant) -> impl Iterator<Item = MemberIndex> {
        let quiet = move |(index, talker): (&MemberIndex, &mut Talker)| talker.voice.on_silence(now).then_some(*index);
        self.present.iter_mut().filter_map(quiet)
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

    /// Who counts as muted from now on, because nothing has come of them for too long in the open rate.
    pub fn fall_silent(&mut self, rate: Rate, now: Instant) -> Vec<MemberIndex> {
        let is_silent = |talker: &Talker| {
            let last = talker.last_opened.unwrap_or(talker.since);
            talker.microphone != Some(Microphone::Muted) && now.saturating_duration_since(last) > UNHEARD
        };
        let silent = self.present.iter_mut().filter(|(_, talker)| rate == Rate::Open && is_silent(talker));
        silent
            .map(|(index, talker)| {
                talker.microphone = Some(Microphone::Muted);
                *index
            })
            .collect()
    }

    /// Verified mode of a talker begins or ends, and with it the time for which its frames are held.
    pub fn on_verified_mode(&mut self, index: MemberIndex, on: bool, engine: &mut MediaEngine, now: Instant) {
        if let Some(talker) = self.present.get_mut(&index) {
            talker.verified_mode = on;
            engine.set_verified(index.0, on, now);
        }
    }

    /// This client comes back to the meeting and knows nothing yet that speaks against anybody.
    pub fn end_verified_mode(&mut self, engine: &mut MediaEngine, now: Instant) {
        for (index, talker) in self.present.iter_mut().filter(|(_, talker)| talker.verified_mode) {
            talker.verified_mode = false;
            engine.set_verified(index.0, false, now);
        }
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
    pub fn roster(&self, conference: &Conference, own: Microphone, pins: &Pins) -> Vec<RosterMember> {
        let me = conference.index();
        let alike = names::look_alikes(conference.members().map(|m| (m.index.0, m.name.as_str())));
        let entry = |member: &conclave_protocol::epoch::roster::Member| {
            let oneself = Some(member.index) == me;
            let heard = self.present.get(&member.index).and_then(|talker| talker.microphone);
            let microphone = if oneself { Some(own) } else { heard };
            RosterMember {
                index: member.index.0,
                name: member.name.as_str().to_owned(),
                role: match conference.rank(member.index) {
                    Rank::Host => "host",
                    Rank::Delegate(_) => "co-host",
                    Rank::Member => "member",
                },
                muted: microphone == Some(Microphone::Muted),
                safety_number: (!oneself).then(|| digits(&conference.safety_number(member))),
                standing: if oneself {
                    Standing::Oneself
                } else {
                    pins.standing(&member.cert.identity, member.cert.kind, member.name.as_str())
                },
                looks_like: alike.get(&member.index.0).copied(),
                blocked: pins.is_blocked(&member.cert.identity),
                recording: false,
                volume: self.volume(&member.cert.identity).percent(),
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
    fn new(name: &str, rate: Rate, frame: FrameDuration, since: Instant) -> Self {
        Self {
            name: name.to_owned(),
            since,
            // In the open rate who is not muted will be heard at once.
            microphone: (rate == Rate::Open).then_some(Microphone::Muted),
            opened: 0,
            duplicates: 0,
            unauthentic: 0,
            first_opened: None,
            last_opened: None,
            delays: [0; DELAYS],
            delay_count: 0,
            last_network: None,
            verified_mode: false,
            blocked: false,
            voice: Voice::new(frame),
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
            repaired: playout.repaired,
            duplicates: self.duplicates,
            delay_ms,
            hold_ms: round(f64::from(playout.aimed_ms)),
            network_ms: self.last_network,
            verified_mode: self.verified_mode,
        }
    }
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::sink::Sink;
    use crate::audio::source::Source;

    const BOB: MemberIndex = MemberIndex(1);

    fn with_bob(rate: Rate, now: Instant) -> Talkers {
        Talkers {
            present: BTreeMap::from([(BOB, Talker::new("Bob", rate, FrameDuration::Ms20, now))]),
            ..Talkers::default()
        }
    }

    fn hear(talkers: &mut Talkers, microphone: Microphone, now: Instant) -> Option<Microphone> {
        let frame = Frame { seq: 1, stamp: 0, microphone, level: 127, opus: &[] };
        talkers.on_opened(BOB, &frame, now, 0)
    }

    fn is_muted(talkers: &Talkers) -> bool {
        talkers.present[&BOB].microphone == Some(Microphone::Muted)
    }

    #[test]
    fn in_the_open_rate_who_is_unheard_for_two_seconds_is_muted_until_heard_again() {
        let now = Instant::now();
        let mut talkers = with_bob(Rate::Private, now);
        assert_eq!(hear(&mut talkers, Microphone::On, now), Some(Microphone::On));
        let later = now + UNHEARD + Duration::from_millis(1);
        assert_eq!(talkers.fall_silent(Rate::Private, later), []);
        assert_eq!(talkers.fall_silent(Rate::Open, now + UNHEARD), []);
        assert!(!is_muted(&talkers));
        assert_eq!(talkers.fall_silent(Rate::Open, later), [BOB]);
        assert!(is_muted(&talkers));
        assert_eq!(talkers.fall_silent(Rate::Open, later), [], "told once");
        assert_eq!(hear(&mut talkers, Microphone::On, later), Some(Microphone::On));
        assert_eq!(talkers.fall_silent(Rate::Open, later + UNHEARD), []);
    }

    #[test]
    fn who_is_blocked_is_not_played_until_unblocked_and_is_then_held_as_it_must_be() {
        let now = Instant::now();
        let mut engine = MediaEngine::new(Source::Silence, Sink::Null).expect("an engine");
        engine.add_talker(BOB.0).expect("a talker");
        let mut talkers = with_bob(Rate::Private, now);
        talkers.set_blocked(BOB, true, &mut engine).expect("blocked");
        assert_eq!(engine.receive(BOB.0, 1, false, 20, &[], now), None);
        talkers.on_verified_mode(BOB, true, &mut engine, now);
        for _ in 0..2 {
            talkers.set_blocked(BOB, false, &mut engine).expect("unblocked");
            engine.receive(BOB.0, 1, false, 20, &[], now);
        }
        engine.render(now + Duration::from_millis(1_100));
        assert_eq!(engine.stats(BOB.0).map(|stats| (stats.received, stats.played)), Some((1, 0)));
        engine.render(now + Duration::from_millis(1_210));
        assert_eq!(engine.stats(BOB.0).map(|stats| stats.played), Some(1));
    }

    #[test]
    fn verified_mode_is_told_until_it_ends_or_the_client_comes_back() {
        let now = Instant::now();
        let mut engine = MediaEngine::new(Source::Silence, Sink::Null).expect("an engine");
        engine.add_talker(BOB.0).expect("a talker");
        let mut talkers = with_bob(Rate::Private, now);
        let is_told = |talkers: &mut Talkers, engine: &MediaEngine| talkers.stats(engine)[0].verified_mode;
        assert!(!is_told(&mut talkers, &engine));
        talkers.on_verified_mode(MemberIndex(2), true, &mut engine, now);
        assert!(!is_told(&mut talkers, &engine), "somebody else's");
        for ends in [true, false] {
            talkers.on_verified_mode(BOB, true, &mut engine, now);
            assert!(is_told(&mut talkers, &engine));
            if ends {
                talkers.on_verified_mode(BOB, false, &mut engine, now);
            } else {
                talkers.end_verified_mode(&mut engine, now);
            }
            assert!(!is_told(&mut talkers, &engine));
        }
    }

    #[test]
    fn who_was_never_heard_is_muted_in_the_open_rate() {
        let now = Instant::now();
        let mut talkers = with_bob(Rate::Open, now);
        assert!(is_muted(&talkers));
        assert_eq!(hear(&mut talkers, Microphone::Muted, now), None, "nothing new");
        assert_eq!(hear(&mut talkers, Microphone::On, now), Some(Microphone::On));
        // Came in the private rate, which then opened.
        let mut talkers = with_bob(Rate::Private, now);
        assert!(!is_muted(&talkers));
        assert_eq!(talkers.fall_silent(Rate::Open, now + UNHEARD + Duration::from_millis(1)), [BOB]);
    }
}
