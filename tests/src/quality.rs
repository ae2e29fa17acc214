//! What speech sounds like after a network that loses frames: real encoders, frames, playouts and decoders in virtual
//! time, scored by PESQ.

use std::iter;
use std::time::Duration;

use anyhow::{Context as _, Result};
use conclave::audio::codec::{Decoder, Effort, Encoder, Redundancy};
use conclave::audio::engine::MediaEngine;
use conclave::audio::format::{FRAME_SAMPLES, Frame as Pcm, FrameDuration, PACKET_LEN, SAMPLE_RATE, SILENCE, samples};
use conclave::audio::mixer;
use conclave::audio::playout::{Config, Stats};
use conclave::audio::sink::Sink;
use conclave::audio::source::Source;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};

use crate::room::Room;
use crate::wav::{self, Sound};

/// Seconds of a piece that is scored for itself, as P.862 wants them: 8 to 12.
pub const PIECE: f64 = 8.0;
/// Longest delay of a path here: Opus, the longest hold, and a frame.
const MAX_DELAY: f64 = 0.3;
/// Root mean square of speech when it is scored: about −26 dB below full scale, P.830's level.
const LEVEL: f64 = 0.05;
/// What a frame takes on its way, and when the listener's next step is.
const ON_THE_WAY: Duration = Duration::from_millis(3);
const TICK: Duration = Duration::from_millis(5);

/// How frames are lost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Share of the frames that is lost, 0 to 1.
    pub share: f64,
    /// Mean length of a burst, in frames; 1 loses each frame for itself.
    pub burst: f64,
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self { share: 0.0, burst: 1.0 };

    /// Which of so many frames are lost. Bursts and what is between them are geometric (Gilbert's model).
    pub fn pattern(self, frames: usize, seed: u64) -> Vec<bool> {
        let mut chance = Chance(seed);
        let ends = self.burst.max(1.0).recip();
        // So that the share of lost frames is what it is to be.
        let begins = self.share * ends / (1.0 - self.share).max(f64::MIN_POSITIVE);
        let mut lost = false;
        (0..frames)
            .map(|_| {
                let drawn = chance.next();
                lost = if self.burst <= 1.0 {
                    drawn < self.share
                } else if lost {
                    drawn >= ends
                } else {
                    drawn < begins
                };
                lost
            })
            .collect()
    }
}

/// A small generator of numbers in 0..1 (SplitMix64), so that neighbouring seeds have nothing in common.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Speech as it goes into all codecs: whole frames of 20 ms at a common level.
///
/// # Errors
/// When it cannot be converted to 48 kHz.
pub fn prepared(speech: &Sound) -> Result<Sound> {
    let mut sound = speech.resampled(SAMPLE_RATE)?;
    let gain = LEVEL / wav::rms(&sound.samples).max(f64::MIN_POSITIVE);
    sound.samples.iter_mut().for_each(|sample| *sample *= gain as f32);
    sound.samples.truncate(frames(&sound, FrameDuration::Ms20) * FRAME_SAMPLES);
    Ok(sound)
}

/// Whole frames in a sound at 48 kHz.
pub fn frames(sound: &Sound, frame: FrameDuration) -> usize {
    sound.samples.len() / samples(frame)
}

/// Mean PESQ-WB of all pieces of what was heard.
///
/// # Errors
/// When a piece cannot be aligned, or there is none.
pub fn score(said: &Sound, heard: &Sound) -> Result<f64> {
    let pieces = (said.seconds() / PIECE).floor() as usize;
    let mut sum = 0.0;
    for piece in 0..pieces {
        let start = piece as f64 * PIECE;
        let heard = heard.between(start, start + PIECE + MAX_DELAY);
        sum += wav::pesq_wb(&said.between(start, start + PIECE), &heard, MAX_DELAY)?;
    }
    anyhow::ensure!(pieces > 0, "there are only {:.1} s of speech, and a piece has {PIECE}", said.seconds());
    Ok(sum / pieces as f64)
}

/// Speech as a talker of ours sends it, encoded once for all who listen.
pub struct Sent {
    frame: FrameDuration,
    frames: Vec<Encoded>,
}

struct Encoded {
    level: u8,
    opus: [u8; PACKET_LEN],
}

/// Encodes speech in frames of this duration, and some silence after it, with the redundancy of all clients or another.
///
/// # Errors
/// When the codec cannot be set up, or fails.
pub fn sent(said: &Sound, frame: FrameDuration, redundancy: Redundancy) -> Result<Sent> {
    let mut encoder = Encoder::with(frame, PACKET_LEN, redundancy)?;
    let pcm = said.samples.chunks_exact(samples(frame));
    let tail = iter::repeat_n(&SILENCE[..samples(frame)], frame.count_in(TAIL) as usize);
    let encoded = |pcm: &[f32]| {
        let mut opus = [0; PACKET_LEN];
        encoder.encode(pcm, &mut opus)?;
        Ok(Encoded { level: mixer::rms_level(pcm), opus })
    };
    let frames = pcm.chain(tail).map(encoded).collect::<Result<_>>()?;
    Ok(Sent { frame, frames })
}

/// Silence after the speech, so that the last of it is played.
const TAIL: Duration = Duration::from_millis(400);

/// The way of what was sent to somebody's ear: two conferences, sealed frames of which some are lost, and the listener's
/// engine, whose playouts are as `config` says for frames of the duration in which they were sent.
///
/// # Errors
/// When the codec cannot be set up or a frame cannot be sealed or opened.
pub fn through_conclave(
    sent: &Sent,
    config: impl FnOnce(FrameDuration) -> Config,
    lost: &[bool],
) -> Result<(Sound, Stats)> {
    let mut room = Room::with_frames(2, sent.frame);
    let mut listener = MediaEngine::with_config(Source::Silence, Sink::Null, config(sent.frame))?;
    listener.add_talker(0)?;
    let mut heard = Vec::with_capacity(sent.frames.len() * samples(sent.frame));
    let start = room.now();
    for (n, encoded) in sent.frames.iter().enumerate() {
        let seq = n as u32;
        let frame = Frame { seq, stamp: 0, microphone: Microphone::On, level: encoded.level, opus: &encoded.opus };
        let (mut datagram, mut plaintext) = ([0; DATAGRAM_LEN], [0; PLAINTEXT_LEN]);
        let now = start + sent.frame.duration() * seq;
        room.pass(now.saturating_duration_since(room.now()));
        room.clients[0].seal(now, &frame, &mut datagram).context("no key to seal with")?;
        if !lost.get(n).copied().unwrap_or(false) {
            let opened = room.clients[1].open(now, &datagram, &mut plaintext);
            let (index, frame) = opened.ok().flatten().context("a frame did not open")?;
            listener.receive(index.0, frame.seq, false, frame.level, frame.opus, now + ON_THE_WAY);
        }
        heard.extend(listener.render(now + TICK).iter().map(|sample| f32::from(*sample) / 32_768.0));
    }
    let stats = listener.stats(0).context("the talker is gone")?;
    Ok((Sound { rate: SAMPLE_RATE, samples: heard }, stats))
}

/// What is heard of packets of plain Opus, lost ones concealed the classic way, all played at once.
///
/// # Errors
/// When the codec fails.
pub fn through_plain_opus(packets: &[Vec<u8>], lost: &[bool]) -> Result<Sound> {
    let mut decoder = Decoder::new(FrameDuration::Ms20)?;
    let (mut heard, mut out) = (Vec::with_capacity(packets.len() * FRAME_SAMPLES), SILENCE);
    for (packet, lost) in packets.iter().zip(lost) {
        if *lost {
            decoder.conceal(Effort::Classic, &mut out)?
        } else {
            decoder.decode(packet, &mut out)?
        }
        heard.extend_from_slice(&out);
    }
    Ok(Sound { rate: SAMPLE_RATE, samples: heard })
}

/// Packets of plain Opus, `len` bytes per 20 ms, without redundancy.
///
/// # Errors
/// When the codec fails.
pub fn plain_packets(said: &Sound, len: usize) -> Result<Vec<Vec<u8>>> {
    let mut encoder = Encoder::with(FrameDuration::Ms20, len, Redundancy::NONE)?;
    let (pcm, _) = said.samples.as_chunks::<FRAME_SAMPLES>();
    let encoded = |pcm: &Pcm| {
        let mut packet = vec![0; len];
        encoder.encode(pcm, &mut packet)?;
        Ok(packet)
    };
    pcm.iter().map(encoded).collect()
}

#[cfg(test)]
mod tests {
    use conclave::audio::profile::Profile;

    use super::*;
    use crate::speech;

    fn share(lost: &[bool]) -> f64 {
        lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64
    }

    #[test]
    fn patterns_lose_the_share_in_bursts_of_the_length_that_was_asked_for() {
        for (loss, runs) in [(Loss { share: 0.1, burst: 1.0 }, 0.09), (Loss { share: 0.2, burst: 3.0 }, 0.2 / 3.0)] {
            let lost = loss.pattern(200_000, 3);
            assert!((share(&lost) - loss.share).abs() < 0.01, "{loss:?}: {}", share(&lost));
            let begun = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64 / lost.len() as f64;
            assert!((begun - runs).abs() < 0.005, "{loss:?}: {begun}");
        }
        assert!(!Loss::NONE.pattern(1_000, 1).contains(&true));
        let loss = Loss { share: 0.1, burst: 1.0 };
        assert_ne!(loss.pattern(100, 1), loss.pattern(100, 2));
    }

    /// The bars are below those of the whole measurement (`benches`, bin `repair`), which takes five times the speech and
    /// more seeds.
    #[test]
    fn speech_stays_good_where_frames_are_lost() {
        FrameDuration::ALL.into_iter().for_each(speech_stays_good);
    }

    fn speech_stays_good(frame: FrameDuration) {
        let said = prepared(&speech::clip(0, 16.0).unwrap()).unwrap();
        let sent = sent(&said, frame, Redundancy::SENT).unwrap();
        let heard = |profile: Profile, share, burst| {
            let lost = Loss { share, burst }.pattern(frames(&said, frame), 7);
            let (heard, stats) = through_conclave(&sent, |frame| profile.config(frame), &lost).unwrap();
            assert!(share == 0.0 || stats.repaired > 0, "{stats:?}");
            score(&said, &heard).unwrap()
        };
        let whole = heard(Profile::Default, 0.0, 1.0);
        let random = heard(Profile::Default, 0.1, 1.0);
        let bursts = heard(Profile::PoorNetwork, 0.1, 3.0);
        let lost = Loss { share: 0.1, burst: 1.0 }.pattern(frames(&said, FrameDuration::Ms20), 7);
        let packets = plain_packets(&said, PACKET_LEN).unwrap();
        let plain = score(&said, &through_plain_opus(&packets, &lost).unwrap()).unwrap();
        println!(
            "PESQ-WB, {frame:?}: {whole:.2} whole, {random:.2} with 10 % lost ({plain:.2} plain), {bursts:.2} in bursts"
        );
        assert!(whole >= 4.0, "{whole}");
        assert!(random >= 3.7 && random > plain + 1.0, "{random}, plain {plain}");
        // Bursts of three short frames are shorter, and more of them.
        let least = if frame == FrameDuration::Ms10 { 3.2 } else { 3.5 };
        assert!(bursts >= least, "{bursts}");
    }
}
