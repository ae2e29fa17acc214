//! Sessions between those who may come to lead and everybody else, made ready before they are needed
//! (`docs/protocol.md` §4.7). Of two members the one of the higher rank begins.
//!
//! ```text
//! message 1: kind u8 8 ‖ epoch u32 ‖ Noise message 48        message 2: kind u8 9 ‖ Noise message 48
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::outbox::Step;
use super::peer::Path;
use super::room::Room;
use crate::epoch::schedule::Mesh;
use crate::id::{Epoch, MemberIndex};
use crate::noise::mesh::{Pair, Reaching};
use crate::secret::Secret;
use crate::succession::Rank;

/// First byte of message 1.
pub(super) const MESSAGE_1: u8 = 8;
/// First byte of message 2.
pub(super) const MESSAGE_2: u8 = 9;

/// When a handshake that was not answered begins anew.
const AGAIN: Duration = Duration::from_secs(2);
/// Epochs whose mesh_e is kept: that of now, and the one before, which a slow member may still be in.
const EPOCHS: usize = 2;
/// Handshakes begun at a time: a new co-host of a large meeting must not hold up anything else.
const AT_ONCE: usize = 8;
/// Pause between two such rounds: with eight at a time, a thousand members take six seconds.
const ROUND: Duration = Duration::from_millis(50);

/// A handshake in flight.
struct Attempt {
    state: Option<Reaching>,
    again: Instant,
    /// How many there were before it with this member.
    earlier: usize,
}

/// Handshakes in flight and answered.
#[derive(Default)]
pub(super) struct Meshes {
    secrets: VecDeque<(Epoch, Secret<Mesh>)>,
    reaching: BTreeMap<MemberIndex, Attempt>,
    answered: BTreeMap<MemberIndex, (Vec<u8>, Vec<u8>)>,
    /// When [`Room::reach_out`] has something to do.
    due: Option<Instant>,
}

impl Meshes {
    pub(super) fn on_epoch(&mut self, epoch: Epoch, mesh: Secret<Mesh>) {
        self.secrets.push_back((epoch, mesh));
        while self.secrets.len() > EPOCHS {
            self.secrets.pop_front();
        }
    }

    /// Somebody may have to be reached who had not before.
    pub(super) fn look(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn forget(&mut self, index: MemberIndex) {
        self.reaching.remove(&index);
        self.answered.remove(&index);
    }
}

impl Room {
    /// Those with whom this member has to begin a session.
    pub(super) fn unreached(&self) -> impl Iterator<Item = MemberIndex> + '_ {
        let own = self.seat.rank(self.index());
        let others = self.seat.roster().members().map(|member| member.index).filter(|i| *i != self.index());
        others.filter(move |i| {
            own != Rank::Member && own < self.seat.rank(*i) && self.may_lead() && !self.peers.contains_key(i)
        })
    }

    /// Begins the handshakes that are due.
    pub(super) fn reach_out(&mut self, step: &mut Step<'_>) {
        if self.meshes.due.is_none_or(|due| due > step.now) {
            return;
        }
        let is_due = |index: &MemberIndex| self.meshes.reaching.get(index).is_none_or(|a| a.again <= step.now);
        let due: Vec<MemberIndex> = self.unreached().filter(is_due).take(AT_ONCE).collect();
        for index in &due {
            self.reach(step, *index);
        }
        let again = |index| self.meshes.reaching.get(&index).map_or(step.now, |attempt| attempt.again);
        let next = self.unreached().map(again).min();
        self.meshes.due = next.map(|next| next.max(step.now + ROUND));
    }

    fn reach(&mut self, step: &mut Step<'_>, index: MemberIndex) {
        let earlier = self.meshes.reaching.get(&index).map_or(0, |attempt| attempt.earlier + 1);
        // Who does not answer may be an epoch behind.
        let newest = self.meshes.secrets.iter().rev();
        let Some((epoch, mesh)) = newest.cycle().nth(earlier % EPOCHS) else { return };
        let Some(member) = self.seat.roster().member(index) else { return };
        let pair = Pair {
            meeting: self.meeting,
            initiator: self.index(),
            responder: index,
            mesh,
            own: &self.secrets.session,
            other: &member.cert.keys.session,
        };
        let again = step.now + AGAIN;
        let state = match pair.reach(step.rng) {
            Ok((reaching, message)) => {
                let packet = [&[MESSAGE_1][..], &epoch.number().to_be_bytes(), &message].concat();
                step.out.send(index, packet);
                Some(reaching)
            }
            // A member with a key that is none: nobody can lead it but who let it in.
            Err(_) => None,
        };
        self.meshes.reaching.insert(index, Attempt { state, again, earlier });
    }

    /// Message 1 of a member of higher rank.
    pub(super) fn on_reached(&mut self, step: &mut Step<'_>, from: MemberIndex, packet: &[u8]) {
        if self.seat.rank(from) >= self.seat.rank(self.index()) {
            return;
        }
        if let Some((first, second)) = self.meshes.answered.get(&from)
            && first == packet
        {
            return step.out.send(from, second.clone());
        }
        if self.peers.get_mut(&from).is_some_and(|peer| peer.session().is_proven()) {
            return;
        }
        let Some((epoch, message)) = packet.get(1..).and_then(|rest| rest.split_first_chunk::<4>()) else { return };
        let epoch = Epoch::new(u32::from_be_bytes(*epoch));
        let Some((_, mesh)) = self.meshes.secrets.iter().find(|(e, _)| Some(*e) == epoch) else { return };
        let Some(member) = self.seat.roster().member(from) else { return };
        let pair = Pair {
            meeting: self.meeting,
            initiator: from,
            responder: self.index(),
            mesh,
            own: &self.secrets.session,
            other: &member.cert.keys.session,
        };
        let Ok((session, message)) = pair.answer(message, step.rng) else { return };
        let reply = [&[MESSAGE_2][..], &message].concat();
        self.meshes.answered.insert(from, (packet.to_vec(), reply.clone()));
        step.out.send(from, reply);
        self.add_peer(step.now, from, session, Path::Slot);
    }

    /// Message 2 of a member of lower rank.
    pub(super) fn on_reply(&mut self, step: &mut Step<'_>, from: MemberIndex, packet: &[u8]) -> bool {
        let Some(attempt) = self.meshes.reaching.get_mut(&from) else { return false };
        let (Some(reaching), Some(message)) = (attempt.state.take(), packet.get(1..)) else { return false };
        let Ok(session) = reaching.finish(message) else { return false };
        self.meshes.reaching.remove(&from);
        self.add_peer(step.now, from, session, Path::Slot);
        true
    }
}
