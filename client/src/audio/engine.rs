//! Composes the pipeline: source → encoder on one side, playouts → decoders → mixer → sink on the other.
//!
//! Sans-IO but for the source's and the sink's files: the caller has the frame clock, the network and the keys. Per
//! frame it calls [`MediaEngine::capture`] and [`MediaEngine::render`], and [`MediaEngine::receive`] for each frame
//! that arrived. These three allocate nothing, lock nothing and wait for nothing; everything they need was allocated
//! by [`MediaEngine::new`] and [`MediaEngine::add_talker`].

mod mending;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::codec::{CodecError, Decoder, Effort, Encoder};
use super::device::Event;
use super::format::{FRAME_SAMPLES, Frame, LEVEL_SILENT, PACKET_LEN, SILENCE};
use super::mixer::{self, Mixer};
use super::playout::{Arrival, Config, Playout, Pull, Push, Stats, VERIFIED_HOLD};
use super::sink::{Sink, SinkError};
use super::source::Source;
use mending::{Budget, Mended};

/// Most talkers at a time, for each of whom about 160 kB are kept: a meeting has 1,000 members.
pub const MAX_TALKERS: usize = 1_024;

/// A frame of one's own sound, ready to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The packet, always of [`PACKET_LEN`] bytes; empty only if the encoder failed.
    pub opus: &'a [u8],
    /// Mean level in −dBov, 0 to 127.
    pub level: u8,
}

/// Things that must not happen, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Frames of one's own that could not be encoded.
    pub encode: u64,
    /// Others' frames that are no Opus; they were concealed.
    pub decode: u64,
    /// Frames that the recording lost to a slow disk.
    pub overruns: u64,
}

/// One client's media.
pub struct MediaEngine {
    source: Source,
    encoder: Encoder,
    packet: [u8; PACKET_LEN],
    pcm: Frame,
    config: Config,
    /// In ascending order of their indexes.
    talkers: Vec<(u16, Talker)>,
    mixer: Mixer,
    sink: Sink,
    faults: Faults,
}

impl MediaEngine {
    /// An engine without talkers, with the playout's defaults.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn new(source: Source, sink: Sink) -> Result<Self, CodecError> {
        Self::with_config(source, sink, Config::default())
    }

    /// An engine without talkers. `config` is for every talker's playout.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn with_config(source: Source, sink: Sink, config: Config) -> Result<Self, CodecError> {
        Ok(Self {
            source,
            encoder: Encoder::new()?,
            packet: [0; PACKET_LEN],
            pcm: SILENCE,
            config,
            talkers: Vec::new(),
            mixer: Mixer::default(),
            sink,
            faults: Faults::default(),
        })
    }

    /// Makes room for another member's sound. A member who is there already is left as it is. Allocates.
    ///
    /// # Errors
    /// [`CodecError::TooManyTalkers`], or [`CodecError::Opus`] when libopus has no memory.
    pub fn add_talker(&mut self, index: u16) -> Result<(), CodecError> {
        let Err(place) = self.find(index) else { return Ok(()) };
        if self.talkers.len() >= MAX_TALKERS {
            return Err(CodecError::TooManyTalkers { limit: MAX_TALKERS });
        }
        self.talkers.insert(place, (index, Talker::new(self.config)?));
        Ok(())
    }

    /// Forgets a member, with what was still to be played.
    pub fn remove_talker(&mut self, index: u16) {
        if let Ok(place) = self.find(index) {
            self.talkers.remove(place);
        }
    }

    /// Opens the microphone, or closes it: then the system shows that nobody listens. Frames of silence come from it
    /// meanwhile. A file or a tone does not care.
    pub fn listen(&mut self, on: bool) {
        self.source.listen(on);
    }

    /// What became of the devices since this was asked last.
    pub fn poll_device(&mut self) -> Option<Event> {
        self.source.poll_event().or_else(|| self.sink.poll_event())
    }

    /// The next 20 ms of one's own sound. Called once per tick of the frame clock, sent or not.
    ///
    /// While muted, the source goes on in time and what it gives is thrown away, so that unmuting gives what is said
    /// then and not what was said before. The packet is encoded silence: it takes about as long as sound to make, and
    /// takes the last syllable out of the encoder's memory.
    pub fn capture(&mut self, muted: bool) -> Captured<'_> {
        self.source.next_frame(&mut self.pcm);
        if muted {
            self.pcm = SILENCE;
        }
        match self.encoder.encode(&self.pcm, &mut self.packet) {
            Ok(()) => Captured { opus: &self.packet, level: mixer::rms_level(&self.pcm) },
            Err(_) => {
                self.faults.encode += 1;
                Captured { opus: &[], level: LEVEL_SILENT }
            }
        }
    }

    /// Lets frames of one's own sound pass that nobody will get: the source goes on in time, and nothing is encoded,
    /// which is most of the work of a listener. Instead of [`MediaEngine::capture`], where nothing is sent. Takes no
    /// longer for many frames than for one.
    pub fn skip(&mut self, frames: u32) {
        self.source.skip(frames);
    }

    /// A frame of member `index` arrived at `now` and is authentic. `seq` is the tick of the talker's frame clock,
    /// `level` its level in −dBov. `None` when there is no such talker.
    pub fn receive(&mut self, index: u16, seq: u32, muted: bool, level: u8, opus: &[u8], now: Instant) -> Option<Push> {
        let talker = self.talker_mut(index)?;
        Some(talker.playout.push(&Arrival { seq, muted, level, payload: opus }, now))
    }

    /// Verified mode of member `index` begins or ends (`docs/protocol.md` §9.4): from now on its frames come with their
    /// seals, or at once again. Nobody else's delay changes.
    pub fn set_verified(&mut self, index: u16, on: bool, now: Instant) {
        match self.talker_mut(index) {
            Some(talker) if on => talker.playout.set_hold(VERIFIED_HOLD, now),
            Some(talker) => talker.playout.set_usual_hold(now),
            None => {}
        }
    }

    /// Plays 20 ms of everybody into the sink, and gives it. `now` is best the time at which the tick was due: a tick that comes
    /// late because the machine was busy then does not look like a change of the delay.
    pub fn render(&mut self, now: Instant) -> [i16; FRAME_SAMPLES] {
        self.mixer.begin();
        let mut budget = Budget::of_a_tick();
        for (_, talker) in &mut self.talkers {
            if talker.render(now, &mut self.pcm, &mut budget, &mut self.faults) {
                self.mixer.add(&self.pcm);
            }
        }
        let mut out = [0; FRAME_SAMPLES];
        mixer::to_i16(self.mixer.finish(), &mut out);
        self.sink.write(&out);
        out
    }

    /// Figures of a talker's playout.
    pub fn stats(&self, index: u16) -> Option<Stats> {
        self.talker(index).map(|talker| talker.playout.stats())
    }

    /// Mean level in −dBov of what was last heard of a talker, 127 for silence.
    pub fn level(&self, index: u16) -> Option<u8> {
        self.talker(index).map(|talker| talker.level)
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        Faults { overruns: self.sink.overruns(), ..self.faults }
    }

    /// Whether one's own recording has ended.
    pub fn source_finished(&self) -> bool {
        self.source.finished()
    }

    /// Closes the sink. Waits for the disk.
    ///
    /// # Errors
    /// The first that went wrong in writing.
    pub fn finish(self) -> Result<(), SinkError> {
        self.sink.finish()
    }

    fn find(&self, index: u16) -> Result<usize, usize> {
        self.talkers.binary_search_by_key(&index, |(index, _)| *index)
    }

    fn talker(&self, index: u16) -> Option<&Talker> {
        self.talkers.get(self.find(index).ok()?).map(|(_, talker)| talker)
    }

    fn talker_mut(&mut self, index: u16) -> Option<&mut Talker> {
        let place = self.find(index).ok()?;
        self.talkers.get_mut(place).map(|(_, talker)| talker)
    }
}

/// Another member.
struct Talker {
    playout: Playout,
    decoder: Decoder,
    mended: Mended,
    /// Whether the last frame was heard.
    sounding: bool,
    level: u8,
}

impl Talker {
    fn new(config: Config) -> Result<Self, CodecError> {
        let (playout, decoder) = (Playout::new(config), Decoder::new()?);
        Ok(Self { playout, decoder, mended: Mended::new(), sounding: false, level: LEVEL_SILENT })
    }

    /// Makes the next frame of this talker; `false` when there is nothing to hear, and `out` is then worth nothing.
    fn render(&mut self, now: Instant, out: &mut Frame, budget: &mut Budget, faults: &mut Faults) -> bool {
        let heard = match self.playout.pull(now) {
            Pull::Play(packet) => {
                self.mended.clear();
                let decoded = self.decoder.decode(packet, out).is_ok();
                faults.decode += u64::from(!decoded);
                self.sounding = decoded || self.sounding;
                decoded || (self.sounding && self.decoder.conceal(budget.take(), out).is_ok())
            }
            Pull::Repair { packet, gap } => {
                self.sounding && self.mended.fill(&mut self.decoder, packet, gap, budget, out).is_ok()
            }
            Pull::Conceal => {
                self.mended.clear();
                self.sounding && self.decoder.conceal(budget.take(), out).is_ok()
            }
            Pull::Muted | Pull::Silence => self.fade_out(out),
        };
        self.level = if heard { mixer::rms_level(out) } else { LEVEL_SILENT };
        heard
    }

    /// The first silent frame after sound: the sound goes on for one frame and fades, for a cut would click. What comes
    /// later begins anew.
    fn fade_out(&mut self, out: &mut Frame) -> bool {
        if !std::mem::take(&mut self.sounding) {
            return false;
        }
        self.mended.clear();
        let concealed = self.decoder.conceal(Effort::Classic, out).is_ok();
        if !(self.decoder.reset().is_ok() && concealed) {
            return false;
        }
        for (i, sample) in out.iter_mut().enumerate() {
            *sample *= 1.0 - (i + 1) as f32 / FRAME_SAMPLES as f32;
        }
        true
    }
}
