//! The whole of a client's sound: one source, one sink, and everybody who talks.
//!
//! [`MediaEngine::capture`] and [`MediaEngine::render`] are each called once per frame by the frame clock,
//! [`MediaEngine::receive`] once per frame that arrives. None of them allocates, locks or waits.

use std::time::Instant;

use super::codec::{CodecError, Decoder, Encoder};
use super::mixer::{Mixer, rms_level, to_i16};
use super::playout::{Activity, Config, Playout, PlayoutStats, Pull};
use super::sink::{Sink, SinkError};
use super::source::Source;
use super::format::{FRAME_SAMPLES, Frame, LEVEL_SILENT, PACKET_LEN, SILENCE};

/// Most talkers at a time: a meeting of the default size. Each takes about 30 KB; who is silent costs no decoding.
pub const MAX_TALKERS: usize = 1_024;

/// Frames below −50 dBov count as pauses, in which the playout may be corrected: speech is at −40 or above, the noise of
/// a quiet room at −55 or below.
const PAUSE_LEVEL: u8 = 50;

/// Samples over which a voice fades when its talker goes silent from one frame to the next, 5 ms: shorter clicks.
const FADE: usize = 240;

/// A frame ready to be sent.
#[derive(Debug)]
pub struct Captured<'a> {
    /// The Opus packet; encoded silence when muted.
    pub opus: &'a [u8; PACKET_LEN],
    /// How loud it is, in −dBov; 127 when muted.
    pub level: u8,
}

/// Source, codec, playout of every talker, mixer and sink.
pub struct MediaEngine {
    source: Source,
    sink: Sink,
    outgoing: Outgoing,
    /// Sorted by index.
    talkers: Vec<Talker>,
    mixer: Mixer,
    frame: Box<Frame>,
    mixed: Box<[i16; FRAME_SAMPLES]>,
}

struct Outgoing {
    encoder: Encoder,
    /// Whether the encoder still holds the sound from before a pause.
    stale: bool,
    packet: [u8; PACKET_LEN],
    silence: [u8; PACKET_LEN],
    failures: u64,
}

struct Talker {
    index: u16,
    playout: Playout,
    decoder: Decoder,
    level: u8,
    /// Whether the last frame had sound, so that the decoder can go on from it.
    sounding: bool,
    undecodable: u64,
}

impl MediaEngine {
    /// An engine without talkers.
    ///
    /// # Errors
    /// When libopus has no memory.
    pub fn new(source: Source, sink: Sink) -> Result<Self, CodecError> {
        Ok(Self {
            source,
            sink,
            outgoing: Outgoing::new()?,
            talkers: Vec::new(),
            mixer: Mixer::default(),
            frame: Box::new(SILENCE),
            mixed: Box::new([0; FRAME_SAMPLES]),
        })
    }

    /// Prepares to hear the talker with this index. Does nothing if it is there already.
    ///
    /// # Errors
    /// When libopus has no memory or there are already [`MAX_TALKERS`].
    pub fn add_talker(&mut self, index: u16) -> Result<(), CodecError> {
        let Err(place) = self.find(index) else { return Ok(()) };
        if self.talkers.len() >= MAX_TALKERS {
            return Err(CodecError::TooManyTalkers { limit: MAX_TALKERS });
        }
        self.talkers.insert(place, Talker::new(index)?);
        Ok(())
    }

    /// Stops hearing a talker and forgets its counters. Does nothing if it isn't there.
    pub fn remove_talker(&mut self, index: u16) {
        if let Ok(place) = self.find(index) {
            self.talkers.remove(place);
        }
    }

    /// Takes the next frame from the source and encodes it. While muted the source runs on, so that nobody hears old
    /// speech later, but nothing of it is encoded. If the encoder fails, the frame is silence, and counted.
    pub fn capture(&mut self, muted: bool) -> Captured<'_> {
        self.source.next_frame(&mut self.frame);
        if muted {
            return self.outgoing.pause();
        }
        self.outgoing.encode(&self.frame)
    }

    /// Takes in a frame of a talker that arrived at `now`: its frame clock, whether it was muted, its level in −dBov and
    /// its packet. Frames of unknown talkers are dropped.
    pub fn receive(&mut self, index: u16, seq: u32, muted: bool, level: u8, opus: &[u8], now: Instant) {
        let Ok(place) = self.find(index) else { return };
        let talker = &mut self.talkers[place];
        talker.level = if muted { LEVEL_SILENT } else { level.min(LEVEL_SILENT) };
        let activity = match level {
            _ if muted => Activity::Muted,
            PAUSE_LEVEL.. => Activity::Silent,
            _ => Activity::Speech,
        };
        talker.playout.push(seq, activity, opus, now);
    }

    /// Plays one frame of every talker at `now`: decodes or conceals them, mixes them, and hands the mix to the sink.
    pub fn render(&mut self, now: Instant) {
        self.mixer.begin();
        for talker in &mut self.talkers {
            if talker.sound(now, &mut self.frame) {
                self.mixer.add(&self.frame);
            }
        }
        to_i16(self.mixer.finish(), &mut self.mixed);
        self.sink.write(&self.mixed);
    }

    /// The mix of the last [`Self::render`].
    #[must_use]
    pub fn rendered(&self) -> &[i16; FRAME_SAMPLES] {
        &self.mixed
    }

    /// The counters of a talker's playout.
    #[must_use]
    pub fn stats(&self, index: u16) -> Option<PlayoutStats> {
        self.talker(index).map(|talker| talker.playout.stats())
    }

    /// How loud a talker's newest frame was, in −dBov: 0 is full scale, 127 is silent, muted or gone.
    #[must_use]
    pub fn level(&self, index: u16) -> Option<u8> {
        self.talker(index).map(|talker| talker.level)
    }

    /// Packets of a talker that arrived in time but could not be decoded.
    #[must_use]
    pub fn undecodable(&self, index: u16) -> Option<u64> {
        self.talker(index).map(|talker| talker.undecodable)
    }

    /// Frames that were sent as silence because the encoder failed.
    #[must_use]
    pub fn encode_failures(&self) -> u64 {
        self.outgoing.failures
    }

    /// Frames that the sink lost because the disk was too slow.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.sink.overruns()
    }

    /// Whether the source has ended.
    #[must_use]
    pub fn source_finished(&self) -> bool {
        self.source.finished()
    }

    /// Closes the sink. Waits for the disk.
    ///
    /// # Errors
    /// When the recording could not be written.
    pub fn finish(self) -> Result<(), SinkError> {
        self.sink.finish()
    }

    fn find(&self, index: u16) -> Result<usize, usize> {
        self.talkers.binary_search_by_key(&index, |talker| talker.index)
    }

    fn talker(&self, index: u16) -> Option<&Talker> {
        self.find(index).ok().map(|place| &self.talkers[place])
    }
}

impl Outgoing {
    fn new() -> Result<Self, CodecError> {
        let mut encoder = Encoder::new()?;
        let mut silence = [0; PACKET_LEN];
        encoder.encode(&SILENCE, &mut silence)?;
        Ok(Self { encoder, stale: true, packet: [0; PACKET_LEN], silence, failures: 0 })
    }

    fn pause(&mut self) -> Captured<'_> {
        self.stale = true;
        Captured { opus: &self.silence, level: LEVEL_SILENT }
    }

    fn encode(&mut self, frame: &Frame) -> Captured<'_> {
        if self.stale && self.encoder.reset().is_ok() {
            self.stale = false;
        }
        if self.encoder.encode(frame, &mut self.packet).is_err() {
            self.failures += 1;
            return self.pause();
        }
        Captured { opus: &self.packet, level: rms_level(frame) }
    }
}

impl Talker {
    fn new(index: u16) -> Result<Self, CodecError> {
        Ok(Self {
            index,
            playout: Playout::new(Config::default()),
            decoder: Decoder::new()?,
            level: LEVEL_SILENT,
            sounding: false,
            undecodable: 0,
        })
    }

    /// Writes what this talker sounds like at `now`; returns whether there is any sound.
    fn sound(&mut self, now: Instant, out: &mut Frame) -> bool {
        let sounded = self.sounding;
        let made = match self.playout.pull(now) {
            Pull::Play(packet) => {
                self.sounding = true;
                play(&mut self.decoder, sounded, packet, out, &mut self.undecodable)
            }
            Pull::Conceal => sounded && self.decoder.conceal(out).is_ok(),
            Pull::Silence => {
                self.sounding = false;
                sounded && fade(&mut self.decoder, out)
            }
        };
        if self.playout.is_idle() {
            self.level = LEVEL_SILENT;
        }
        made
    }
}

/// Decodes a packet, or conceals it if that fails. After a pause the decoder starts afresh, as the encoder does.
fn play(decoder: &mut Decoder, sounded: bool, packet: &[u8], out: &mut Frame, undecodable: &mut u64) -> bool {
    if !sounded && decoder.reset().is_err() {
        return false;
    }
    if decoder.decode(packet, out).is_ok() {
        return true;
    }
    *undecodable += 1;
    decoder.conceal(out).is_ok()
}

/// Lets the sound of the last frame go on and fade away.
fn fade(decoder: &mut Decoder, out: &mut Frame) -> bool {
    if decoder.conceal(out).is_err() {
        return false;
    }
    for (n, sample) in out.iter_mut().enumerate() {
        *sample *= (1.0 - n as f32 / FADE as f32).max(0.0);
    }
    true
}
