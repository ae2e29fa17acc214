//! One's own sound through the whole chain and back: encoded, sealed, opened, held, decoded. Without a network.

use std::time::{Duration, Instant};

use conclave_protocol::epoch::schedule::SenderChainKey;
use conclave_protocol::id::{Epoch, MeetingId, MemberIndex};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::sframe::receiver::{Ciphertext, Opener, Play};
use conclave_protocol::sframe::sender::Sealer;
use conclave_protocol::wire::datagram::Datagram;
use rand_core::Rng;

use crate::audio::codec::CodecError;
use crate::audio::device::Event;
use crate::audio::device::line::Figures;
use crate::audio::engine::{FinishError, MediaEngine};
use crate::audio::format::FrameDuration;
use crate::audio::playout::Config;
use crate::audio::sink::Sink;
use crate::audio::source::Source;

/// The only talker.
const ONESELF: MemberIndex = MemberIndex(0);
/// What Opus waits for after a frame: 312 samples (its own look-ahead at 48 kHz with the setting for speech).
const LOOK_AHEAD: Duration = Duration::from_micros(6_500);

/// The chain, frame by frame.
pub struct Loopback {
    frame: FrameDuration,
    engine: MediaEngine,
    sealer: Sealer,
    opener: Opener,
    seq: u32,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Mean level of the last frame in −dBov, 127 for silence.
    pub level: u8,
    /// Its loudest sample, likewise.
    pub peak: u8,
    /// From microphone to loudspeaker, without what the sound system adds itself.
    pub delay: Option<Duration>,
    /// Gaps of both devices.
    pub gaps: u64,
}

/// Why one does not hear oneself.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// libopus has no memory.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The keys of one run are used up, after nine hours.
    #[error("the test has run for nine hours, longer than its keys last; start it again")]
    Exhausted,
    /// A frame did not open, which says that this program is broken.
    #[error("a frame that was sealed did not open ({0}); please report this")]
    NotOpened(String),
}

impl Loopback {
    /// Begins at `now`, with keys of its own.
    ///
    /// # Errors
    /// [`LoopbackError::Codec`].
    pub fn new(
        source: Source,
        sink: Sink,
        frame: FrameDuration,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Self, LoopbackError> {
        let mut engine = MediaEngine::with_config(source, sink, Config::of(frame))?;
        engine.add_talker(ONESELF.0)?;
        engine.listen(true);
        let (mut key, mut meeting) = ([0; 32], [0; MeetingId::LEN]);
        rng.fill_bytes(&mut key);
        rng.fill_bytes(&mut meeting);
        let (meeting, frame_ms) = (MeetingId(meeting), frame.millis());
        let chain = || SenderChainKey::new(key);
        let sealer = Sealer::new(meeting, ONESELF, Epoch::ZERO, chain(), frame_ms);
        let opener = Opener::new(meeting, ONESELF, Epoch::ZERO, chain(), frame_ms, now);
        Ok(Self { frame, engine, sealer, opener, seq: 0 })
    }

    /// One frame, of the tick that was due at `due`.
    ///
    /// # Errors
    /// [`LoopbackError::Exhausted`] and [`LoopbackError::NotOpened`].
    pub fn tick(&mut self, due: Instant) -> Result<State, LoopbackError> {
        self.seq = self.seq.wrapping_add(1);
        let captured = self.engine.capture(false);
        let frame =
            Frame { seq: self.seq, stamp: 0, microphone: Microphone::On, level: captured.level, opus: captured.opus };
        let mut datagram = [0; DATAGRAM_LEN];
        self.sealer.seal(&frame, &mut datagram).map_err(|_| LoopbackError::Exhausted)?;
        let (level, peak) = self.engine.own_levels();
        let mut plaintext = [0; PLAINTEXT_LEN];
        let not_opened = |why: &dyn std::fmt::Display| LoopbackError::NotOpened(why.to_string());
        let body = Datagram::parse(&datagram).map_or(&[][..], |datagram| datagram.body);
        let ciphertext = Ciphertext::parse(body).map_err(|why| not_opened(&why))?;
        let opened =
            self.opener.open(&ciphertext, Play::AtOnce, due, &mut plaintext).map_err(|why| not_opened(&why))?;
        if let Some(Frame { seq, level, opus, .. }) = opened {
            self.engine.receive(ONESELF.0, seq, false, level, opus, due);
        }
        self.engine.render(due);
        Ok(State { level, peak, delay: self.delay(), gaps: self.gaps() })
    }

    /// What became of the devices since this was asked last.
    pub fn poll_device(&mut self) -> Option<Event> {
        self.engine.poll_device()
    }

    /// Closes the output. Waits for the disk.
    ///
    /// # Errors
    /// The first that went wrong in writing.
    pub fn finish(self) -> Result<(), FinishError> {
        self.engine.finish()
    }

    fn delay(&self) -> Option<Duration> {
        let hold = self.engine.stats(ONESELF.0)?.hold_ms?;
        let held = self.figures().map(|figures| figures.held_ms).sum::<f64>();
        Some(self.frame.duration() + LOOK_AHEAD + Duration::from_secs_f64((f64::from(hold) + held).max(0.0) / 1_000.0))
    }

    fn gaps(&self) -> u64 {
        self.figures().map(|figures| figures.gaps).sum()
    }

    fn figures(&self) -> impl Iterator<Item = Figures> {
        let (input, output) = self.engine.device_figures();
        [input, output].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::source::Repeat;
    use crate::session::system_rng;

    #[test]
    fn what_one_says_comes_back_after_the_delay_that_is_shown() {
        FrameDuration::ALL.into_iter().for_each(comes_back);
    }

    fn comes_back(frame: FrameDuration) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heard.wav");
        let sink = Sink::open(path.to_str().unwrap()).unwrap();
        let now = Instant::now();
        let source = Source::open("tone", Repeat::Once).unwrap();
        let mut chain = Loopback::new(source, sink, frame, now, &mut system_rng()).unwrap();
        let mut last = None;
        // Beyond many segments, of 25 or 50 frames.
        for tick in 0..frame.count_in(Duration::from_secs(5)) {
            last = Some(chain.tick(now + frame.duration() * tick).unwrap());
        }
        let State { level, peak, delay, gaps } = last.unwrap();
        assert_eq!((level, peak, gaps), (23, 20, 0));
        chain.engine.finish().unwrap();
        let heard: Vec<i16> = hound::WavReader::open(&path).unwrap().samples().map(Result::unwrap).collect();
        let begins = heard.iter().position(|sample| sample.abs() > 1_000).unwrap() as f64 / 48.0;
        // A frame is captured at its tick here, and not during the time before.
        let shown = (delay.unwrap() - frame.duration()).as_secs_f64() * 1_000.0;
        assert!((begins - shown).abs() < 8.0, "begins after {begins} ms, shown {shown} ms");
        assert!(heard[24_000..].iter().any(|sample| *sample > 2_500), "it is the tone");
    }

    #[test]
    fn silence_is_shown_as_silence() {
        let now = Instant::now();
        let frame = FrameDuration::Ms20;
        let mut chain = Loopback::new(Source::Silence, Sink::Null, frame, now, &mut system_rng()).unwrap();
        let state = (0..10).map(|tick| chain.tick(now + frame.duration() * tick).unwrap()).last().unwrap();
        assert_eq!((state.level, state.peak), (127, 127));
    }
}
