//! Another delay for a talker whose frames come later from now on, or sooner again: verified mode begins or ends
//! (`docs/protocol.md` §9.4), or the path has become another.

use std::time::{Duration, Instant};

use super::correct::Delay;
use super::{Phase, Piece, Playout, nanos};

/// The hold of a talker in verified mode. Its frames come with their segment's seal, all at once: the first of a full
/// segment 0.5 s after it was made, the first of one that its sender did not fill 1 s after. The rest is for the seal,
/// which goes by a stream and waits there for what was lost before it: 0.7 s of a full segment, room for two
/// retransmissions on a path of 200 ms. A longer hold makes a conversation harder; with a shorter one, one lost packet of
/// the stream would make a gap.
pub const VERIFIED_HOLD: Duration = Duration::from_millis(1_200);
/// How long the way back to a shorter hold may wait for pauses. People pause for a second in all within ten; who goes
/// on without a pause is cut then, and loses the difference of the holds and one frame: 59 frames after verified mode.
pub const RETURN_WITHIN: Duration = Duration::from_secs(10);

impl Playout {
    /// From `now` on a frame that was not queued on its way is held for `hold`. Allocates nothing.
    ///
    /// A longer hold begins with silence, in which what is there waits: nothing is lost. With a shorter one pauses are
    /// left out until the delay is right, and after [`RETURN_WITHIN`] so is speech. No frame is ever played twice.
    pub fn set_hold(&mut self, hold: Duration, now: Instant) {
        let at = self.since_epoch(now);
        let before = std::mem::replace(&mut self.hold, nanos(hold));
        if self.hold == before {
            return;
        }
        self.returning = None;
        if self.hold < before {
            self.returning = Some(at.saturating_add(nanos(RETURN_WITHIN)));
        } else if self.phase == Phase::Running && self.excess(at).is_some_and(|excess| excess < 0) {
            self.phase = Phase::Holding;
            // What has been played is not waited for again.
            self.floor = self.next;
        }
    }

    /// From `now` on what [`Self::set_hold`] gave is over: the usual hold is back.
    pub fn set_usual_hold(&mut self, now: Instant) {
        self.set_hold(Duration::from_nanos(self.usual.unsigned_abs()), now);
    }

    /// A frame came: where the talker's clock is, and what hold would be the best.
    pub(super) fn note_arrival(&mut self, index: i64, at: i64, gap: i64) {
        let offset = at.saturating_sub(self.made(index));
        self.anchor.note(at, offset);
        let queued = offset.saturating_sub(self.anchor.earliest().unwrap_or(offset));
        let Some(hold) = self.shadows.as_mut().and_then(|shadows| shadows.note(queued, gap)) else { return };
        let is_usual = self.hold == self.usual;
        self.usual = hold;
        if is_usual {
            self.hold = hold;
            self.steering = true;
        }
    }

    /// After the usual hold has changed: in a pause steps are inserted or left out until the delay is right.
    pub(super) fn steer(&mut self, at: i64) -> Option<Piece<'static>> {
        if !self.steering {
            return None;
        }
        (self.delay, self.delay_since) = (Delay::Right, at);
        let excess = self.excess(at)?;
        if (0..self.step).contains(&excess) {
            self.steering = false;
            return None;
        }
        if excess < 0 {
            return self.is_pause().then(|| self.insert(excess));
        }
        if self.is_queued(self.next) && self.next < self.newest && self.is_pause() {
            self.shorten(excess);
        }
        None
    }

    /// In verified mode a relay may hold back all seals by a second and more. What comes later than the hold has room for
    /// is waited for anew: one gap, instead of one in each segment. Not elsewhere, where who is late all the time is idle
    /// soon and begins anew.
    pub(super) fn lengthen(&mut self, at: i64) {
        let is_long = self.hold > self.usual;
        // Half the hold is what it has room for, beside the half second that frames wait for their segment's end.
        if is_long && self.is_settled(at) && self.excess(at).is_some_and(|excess| excess < -self.hold / 2) {
            self.stats.reanchors += 1;
            self.phase = Phase::Holding;
            self.floor = self.next;
        }
    }

    /// On the way back to a shorter delay: leaves out every pause that is there, and at the end of the time everything
    /// that is too old.
    pub(super) fn go_back(&mut self, at: i64) {
        let is_long = |playout: &Self| playout.excess(at).is_some_and(|excess| excess >= playout.frame);
        while is_long(self) && self.is_queued(self.next) && self.next < self.newest && self.is_pause() {
            self.drop_next();
        }
        let is_over = self.returning.is_some_and(|until| until <= at);
        if is_long(self) && !is_over {
            return;
        }
        self.give_up(at);
        self.returning = None;
        (self.delay, self.delay_since) = (Delay::Right, at);
    }
}
