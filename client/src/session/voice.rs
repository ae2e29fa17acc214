//! Whether somebody speaks, from the levels of its frames, for the ring round a speaker's picture. Pure. The levels are
//! within the ciphertext, so nobody but the members can tell.

use std::time::{Duration, Instant};

use conclave_protocol::sframe::frame::Microphone;

use crate::audio::format::FrameDuration;

/// Level in −dBov from which on a frame begins speech: quiet speech, after any gain, and well above a suppressed noise.
const BEGINS: u8 = 45;
/// Level in −dBov up to which a frame goes on with it.
const GOES_ON: u8 = 52;
/// How long loud frames in a row must last to begin it: a knock on the table is shorter.
const ENOUGH: Duration = Duration::from_millis(60);
/// Silence that ends it: longer than the stops within a word and between words.
const HANG: Duration = Duration::from_millis(400);

/// One talker.
pub(super) struct Voice {
    /// Loud frames that are enough.
    enough: u32,
    /// Loud frames in a row.
    loud: u32,
    /// While it speaks: its last frame of speech.
    last: Option<Instant>,
}

impl Voice {
    /// Of frames of this duration; silent.
    pub fn new(frame: FrameDuration) -> Self {
        Self { enough: frame.count_in(ENOUGH), loud: 0, last: None }
    }

    /// A frame of this level. Gives whether the talker speaks now, when that has changed: at most twice in [`HANG`].
    pub fn on_frame(&mut self, microphone: Microphone, level: u8, now: Instant) -> Option<bool> {
        if microphone == Microphone::Muted {
            self.loud = 0;
            return self.last.take().map(|_| false);
        }
        self.loud = if level <= BEGINS { self.loud.saturating_add(1) } else { 0 };
        match &mut self.last {
            None if self.loud >= self.enough => {
                self.last = Some(now);
                Some(true)
            }
            Some(last) if level <= GOES_ON => {
                *last = now;
                None
            }
            _ => self.on_silence(now).then_some(false),
        }
    }

    /// Nothing came, or nothing loud. Gives whether the talker has just stopped speaking.
    pub fn on_silence(&mut self, now: Instant) -> bool {
        let is_over = self.last.is_some_and(|last| now.saturating_duration_since(last) > HANG);
        if is_over {
            (self.loud, self.last) = (0, None);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: FrameDuration = FrameDuration::Ms20;

    /// What is told, by the number of the frame, when frames of these levels come.
    fn told(levels: &[u8]) -> Vec<(usize, bool)> {
        told_of(FRAME, levels)
    }

    fn told_of(frame: FrameDuration, levels: &[u8]) -> Vec<(usize, bool)> {
        let (mut voice, start) = (Voice::new(frame), Instant::now());
        let hear = |(n, level): (usize, &u8)| {
            let on = voice.on_frame(Microphone::On, *level, start + frame.duration() * n as u32)?;
            Some((n, on))
        };
        levels.iter().enumerate().filter_map(hear).collect()
    }

    #[test]
    fn speech_begins_with_three_loud_frames_and_ends_after_a_pause() {
        let mut levels = vec![20; 10];
        levels.extend([127; 10]);
        levels.extend([50; 5]);
        levels.extend([60; 40]);
        assert_eq!(told(&levels), [(2, true), (45, false)]);
        assert_eq!(told(&[20, 20, 60].repeat(20)), [], "knocks");
        assert_eq!(told(&[50; 100]), [], "a room");
    }

    #[test]
    fn short_frames_begin_and_end_speech_after_the_same_times() {
        let mut levels = vec![20; 20];
        levels.extend([127; 80]);
        assert_eq!(told_of(FrameDuration::Ms10, &levels), [(5, true), (60, false)]);
        assert_eq!(told_of(FrameDuration::Ms10, &[20, 20, 20, 20, 60, 60].repeat(20)), [], "knocks");
    }

    #[test]
    fn however_levels_change_there_are_at_most_a_few_changes_a_second() {
        for period in 1..200 {
            let levels: Vec<u8> = (0..500).map(|n| if n / period % 2 == 0 { 10 } else { 127 }).collect();
            assert!(told(&levels).len() <= 10 * 5, "period {period}");
        }
    }

    #[test]
    fn mute_ends_speech_at_once_and_so_does_silence_of_the_network() {
        let now = Instant::now();
        let speaking = || {
            let mut voice = Voice::new(FRAME);
            (0..voice.enough).for_each(|_| _ = voice.on_frame(Microphone::On, 10, now));
            voice
        };
        let mut voice = speaking();
        assert_eq!(voice.on_frame(Microphone::Muted, 127, now), Some(false));
        assert_eq!(voice.on_frame(Microphone::Muted, 127, now), None);
        let mut voice = speaking();
        assert!(!voice.on_silence(now + HANG));
        assert!(voice.on_silence(now + HANG + FRAME.duration()));
        assert!(!voice.on_silence(now + HANG * 2), "told once");
    }
}
