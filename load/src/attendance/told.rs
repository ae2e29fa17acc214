//! What a member's conference says, and what the member does: it talks, lets people in, puts them out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{Event, Transmit};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, MAX_OPUS, Microphone};
use tokio::sync::mpsc;

use super::{Attendance, Ended};
use crate::member::Role;
use crate::room::{WAVE, count};
use crate::session::Channel;
use crate::sync::{Dice, lock};
use crate::talker::Sealed;

/// Frames sealed ahead: half a second, less what passes until the next look, in which its thread may be busy with a whole
/// meeting's keys.
const AHEAD: usize = 25;
/// How long a host waits for the rest of a wave after the first of it knocked.
const TOGETHER: Duration = Duration::from_secs(1);
impl Attendance<'_> {
    // ---- what the conference says ----

    pub(super) fn drain(&mut self, channel: &Channel) {
        while let Some(transmit) = self.conference.poll_transmit() {
            match transmit {
                Transmit::Control(bytes) => channel.send_control(bytes.into()),
                Transmit::Datagram(bytes) => {
                    // Without a connection, what was to be told by it is told by what follows the next one.
                    let _sent = channel.connection.send_datagram(bytes.into());
                }
            }
        }
        while let Some(event) = self.conference.poll_event() {
            self.on_event(event, channel);
        }
    }

    fn on_event(&mut self, event: Event, channel: &Channel) {
        match event {
            Event::Knock { id, .. } => self.on_knock(id),
            Event::Admitted { index } => self.on_admitted(index, channel),
            Event::Phase { shift } => {
                count(&self.stage().tally.phases);
                if let Some(talker) = &self.talker {
                    talker.ask_shift(shift.micros());
                }
            }
            Event::Rejoining => self.redial = true,
            // Who was removed stays connected, to see what the relay still sends.
            Event::Removed => (self.leave_at, self.removed) = (None, true),
            Event::Denied(_) => self.fail("a guest was turned down".to_owned()),
            Event::Ended { .. } => self.fail("a meeting was ended".to_owned()),
            Event::Failed(failure) => self.fail(failure.to_string()),
            Event::Alarm { detail, .. } => self.stage().tally.trouble(format!("alarm: {detail}")),
            _ => {}
        }
    }

    pub(super) fn on_admitted(&mut self, index: MemberIndex, channel: &Channel) {
        let room = &self.me.room;
        if self.index.replace(index).is_some() {
            return;
        }
        self.end_turn();
        if self.me.role != Role::Flooder {
            count(&room.stage.tally.members);
        }
        match self.me.role {
            Role::Host => drop(room.is_open.send_replace(true)),
            Role::Guest => {
                let whole = self.began.elapsed();
                let relay = self.welcomed.unwrap_or(whole);
                room.stage.tally.note_join(room.stage.is_measuring(), whole, relay);
                lock(&room.present).insert(index.0, Arc::clone(&self.listener));
                self.plan_to_leave();
            }
            Role::Flooder => self.hand_over(channel),
        }
        if let Some(number) = self.me.talker().map(|(number, _)| number) {
            room.seat(index.0, number);
        }
    }

    fn end_turn(&mut self) {
        if let Some((in_room, _in_run)) = self.turn.take() {
            self.me.room.end_turn(in_room);
        }
    }

    /// Evenly between half of the mean and one and a half.
    fn plan_to_leave(&mut self) {
        let Some(mean) = self.stage().plan.faults.churn else { return };
        let unit = Dice::new().map_or(0.5, |mut dice| dice.unit());
        self.leave_at = Some(Instant::now() + Duration::from_secs_f64(mean * (0.5 + unit)));
    }

    pub(super) fn fail(&mut self, why: String) {
        if self.index.is_none() {
            count(&self.stage().tally.failed);
        }
        self.ended = Some(Ended::Failed(why));
    }

    pub(super) fn leave_room(&mut self) {
        let now = self.stage().clock.now();
        let mut listener = lock(&self.listener);
        listener.until = listener.until.min(now);
        drop(listener);
        self.end_turn();
        let Some(index) = self.index else { return };
        lock(&self.me.room.present).remove(&index.0);
        if self.me.role != Role::Flooder {
            self.stage().tally.members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    // ---- talking ----

    /// Seals frames ahead, up to [`AHEAD`].
    pub(super) fn fill(&mut self, channel: &Channel) {
        let now = Instant::now();
        let Some(talker) = self.talker.clone().filter(|_| self.conference.can_send(now)) else {
            return self.silence();
        };
        for _ in talker.waiting()..AHEAD {
            let Some(sealed) = self.seal(now) else { return };
            talker.queue(sealed);
        }
        if !talker.talks.load(Ordering::Relaxed) {
            *lock(&talker.connection) = Some(channel.connection.clone());
            talker.talks.store(true, Ordering::Release);
        }
    }

    pub(super) fn silence(&self) {
        if let Some(talker) = &self.talker {
            talker.hang_up();
        }
    }

    fn seal(&mut self, now: Instant) -> Option<Sealed> {
        self.seq = self.seq.wrapping_add(1);
        let opus = [0x5A; MAX_OPUS];
        let frame = Frame { seq: self.seq, stamp: 0, microphone: Microphone::On, level: 20, opus: &opus };
        let mut out = [0; DATAGRAM_LEN];
        self.conference.seal(now, &frame, &mut out).ok()?;
        Sealed::new(&out)
    }

    /// Gives its connection and a frame to whoever floods.
    fn hand_over(&mut self, channel: &Channel) {
        if let Some(sealed) = self.seal(Instant::now()) {
            *lock(&self.stage().flooder) = Some((channel.connection.clone(), sealed.datagram));
        }
    }

    // ---- the host ----

    fn on_knock(&mut self, knock: KnockId) {
        self.knocks.push(knock);
        let waits = self.me.room.comes_in_waves() && self.knocks.len() < WAVE;
        let at = Instant::now() + if waits { TOGETHER } else { Duration::ZERO };
        self.admit_at = Some(self.admit_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn admit_all(&mut self, now: Instant) {
        self.admit_at = None;
        for knock in std::mem::take(&mut self.knocks) {
            if let Err(error) = self.conference.admit(now, knock) {
                self.stage().tally.trouble(format!("a host could not let somebody in: {error}"));
            }
        }
    }

    pub(super) fn take_orders(&self) -> mpsc::UnboundedReceiver<u16> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if self.me.role == Role::Host {
            *lock(&self.me.room.orders) = Some(sender);
        }
        receiver
    }

    pub(super) fn remove(&mut self, index: u16) {
        let room = &self.me.room;
        let Some(listener) = lock(&room.present).get(&index).cloned() else { return };
        let at = room.stage.clock.now();
        match self.conference.remove(Instant::now(), MemberIndex(index)) {
            Ok(()) => *lock(&room.removed) = Some((at, listener)),
            Err(error) => room.stage.tally.trouble(format!("a host could not remove somebody: {error}")),
        }
    }
}
