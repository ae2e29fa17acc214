//! Push-to-talk: a key that lets one's sound through while it is held, and a little longer. Pure.
//!
//! The key decides what the encoder gets, sound or silence. Packets, their size and their rhythm know nothing of it, and
//! neither do the others: who holds no key down is not muted, but silent.

use std::time::{Duration, Instant};

use conclave_protocol::sframe::frame::Microphone;

/// The key of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TalkKey {
    /// How long sound goes through after the key was released; `None` for a client that talks without a key.
    hold: Option<Duration>,
    state: State,
    /// What was told last.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    /// Released, and open until then.
    Held(Instant),
}

impl TalkKey {
    /// A client that talks without a key.
    pub const NONE: Self = Self { hold: None, state: State::Up, told: false };

    /// A key that is up. Sound goes through for `hold` after each release: people let go before the last syllable ends.
    pub fn new(hold: Duration) -> Self {
        Self { hold: Some(hold), ..Self::NONE }
    }

    /// The key was pressed, or released. `false` when this client has none.
    pub fn press(&mut self, now: Instant, down: bool) -> bool {
        let Some(hold) = self.hold else { return false };
        self.state = match (down, self.state) {
            (true, _) => State::Down,
            (false, State::Down) => State::Held(now + hold),
            (false, state) => state,
        };
        true
    }

    /// Whether sound goes through now.
    pub fn is_open(&self, now: Instant) -> bool {
        self.hold.is_none()
            || match self.state {
                State::Up => false,
                State::Down => true,
                State::Held(until) => now < until,
            }
    }

    /// Whether the key lets sound through now, each time this has changed. While muted nothing goes through.
    pub fn poll_change(&mut self, now: Instant, microphone: Microphone) -> Option<bool> {
        let open = self.hold.is_some() && microphone == Microphone::On && self.is_open(now);
        (std::mem::replace(&mut self.told, open) != open).then_some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::Microphone::{Muted, On};
    use super::*;

    const HOLD: Duration = Duration::from_millis(200);

    #[test]
    fn sound_goes_through_while_the_key_is_down_and_for_the_hold_time_after() {
        let now = Instant::now();
        let mut key = TalkKey::new(HOLD);
        assert!(!key.is_open(now) && key.poll_change(now, On).is_none());
        assert!(key.press(now, true) && key.is_open(now + Duration::from_secs(3_600)));
        assert_eq!((key.poll_change(now, On), key.poll_change(now, On)), (Some(true), None));
        assert!(key.press(now, false));
        // Released once more is not released later.
        key.press(now + HOLD / 2, false);
        let (before, after) = (now + HOLD - Duration::from_millis(1), now + HOLD);
        assert!(key.is_open(before) && !key.is_open(after));
        assert_eq!((key.poll_change(before, On), key.poll_change(after, On)), (None, Some(false)));
    }

    #[test]
    fn a_key_that_is_pressed_again_within_the_hold_time_leaves_no_gap() {
        let now = Instant::now();
        let mut key = TalkKey::new(HOLD);
        key.press(now, true);
        key.press(now, false);
        key.press(now + HOLD / 2, true);
        assert!(key.is_open(now + 2 * HOLD));
    }

    #[test]
    fn without_a_key_sound_always_goes_through_and_pressing_is_refused() {
        let now = Instant::now();
        let mut key = TalkKey::NONE;
        assert!(key.is_open(now) && !key.press(now, true) && key.poll_change(now, On).is_none());
    }

    #[test]
    fn a_key_that_is_down_while_muted_is_told_when_sound_goes_through() {
        let now = Instant::now();
        let mut key = TalkKey::new(HOLD);
        key.press(now, true);
        assert_eq!(key.poll_change(now, Muted), None);
        assert_eq!((key.poll_change(now, On), key.poll_change(now, Muted)), (Some(true), Some(false)));
    }
}
