//! Composes the pipeline: source → encoder on one side, playouts → decoders → mixer → sink on the other.
//!
//! Sans-IO but for the source's and the sink's files: the caller has the clocks, the network and the keys. Per frame of
//! its own it calls [`MediaEngine::capture`], per step of what is heard [`MediaEngine::step`], and
//! [`MediaEngine::receive`] for each frame that arrived; the two clocks need not agree. These three allocate nothing, lock nothing and wait for nothing; everything they need was allocated
//! by [`MediaEngine::new`] and [`MediaEngine::add_talker`]. Only with [`MediaEngine::set_processing`] does capturing
//! allocate: the library that processes does.

mod guard;
mod holes;
mod mending;
mod pieces;
mod talker;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::codec::{CodecError, Encoder};
use super::device::Event;
use super::device::line::Figures;
use super::format::{FRAME_SAMPLES, Frame, LEVEL_SILENT, PACKET_LEN, SILENCE, STEP, STEP_SAMPLES, samples, steps};
use super::mixer::{self, Mixer, Volume};
use super::playout::{Arrival, Config, Push, Stats, VERIFIED_HOLD};
use super::process::overhear::Overhearing;
use super::process::{Process, Switches};
use super::record::{RecordError, Recording};
use super::sink::{Sink, SinkError};
use super::source::Source;
use holes::Holes;
use mending::Budget;
use pieces::{Reference, Said};
use talker::Talker;

/// Most talkers at a time, for each of whom about 160 kB are kept, with frames of 10 ms 180: a meeting has 1,000 members.
pub const MAX_TALKERS: usize = 1_024;

/// A frame of one's own sound, ready to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The packet, always of [`PACKET_LEN`] bytes; empty if there is a hole in the sound, or the encoder failed.
    pub opus: &'a [u8],
    /// Mean level in −dBov, 0 to 127; of what was before, if there is a hole (`docs/protocol.md` §8.4).
    pub level: u8,
}

/// Things that must not happen, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Frames of one's own that could not be encoded.
    pub encode: u64,
    /// Others' frames that are no Opus; they were concealed.
    pub decode: u64,
    /// Frames that the output or the recording lost to a slow disk.
    pub overruns: u64,
}

/// A file is not whole.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The output.
    #[error("the output is incomplete: {0}")]
    Output(#[from] SinkError),
    /// The recording.
    #[error("the recording is incomplete: {0}")]
    Recording(#[from] RecordError),
}

/// One client's media.
pub struct MediaEngine {
    source: Source,
    /// Whether the source gives sound: a device that is closed gives none.
    is_open: bool,
    process: Process,
    /// Listens while muted, if the user wants to be warned.
    overhearing: Option<Overhearing>,
    encoder: Encoder,
    packet: [u8; PACKET_LEN],
    holes: Holes,
    /// One's own frame, as it is encoded.
    pcm: Frame,
    config: Config,
    /// In ascending order of their indexes.
    talkers: Vec<(u16, Talker)>,
    budget: Budget,
    mixer: Mixer,
    reference: Reference,
    sink: Sink,
    recording: Option<Recording>,
    /// Why there is no recording or no output any more: the first reason.
    unwritten: Option<FinishError>,
    /// Everybody was told of it.
    records: bool,
    /// One's own last frame.
    own: Frame,
    /// What [`Self::render`] gave last.
    rendered: [i16; FRAME_SAMPLES],
    /// One's own sound that the recording has not got yet.
    said: Said,
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
            is_open: !source.is_device(),
            source,
            process: Process::default(),
            overhearing: None,
            encoder: Encoder::new(config.frame)?,
            packet: [0; PACKET_LEN],
            holes: Holes::new(config.frame),
            pcm: SILENCE,
            config,
            talkers: Vec::new(),
            budget: Budget::default(),
            mixer: Mixer::default(),
            reference: Reference::default(),
            sink,
            recording: None,
            unwritten: None,
            records: false,
            own: SILENCE,
            rendered: [0; FRAME_SAMPLES],
            said: Said::default(),
            faults: Faults::default(),
        })
    }

    /// From now on frames are as long and held as long as `config` says: a guest knows it when it enters the meeting. Talkers
    /// who are there are forgotten, if that is another one. Allocates.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn set_config(&mut self, config: Config) -> Result<(), CodecError> {
        if config == self.config {
            return Ok(());
        }
        self.encoder = Encoder::new(config.frame)?;
        self.holes = Holes::new(config.frame);
        self.config = config;
        self.talkers.clear();
        Ok(())
    }

    /// Takes a recording, which begins with [`MediaEngine::start_recording`].
    #[must_use]
    pub fn with_recording(self, recording: Recording) -> Self {
        Self { recording: Some(recording), ..self }
    }

    /// Whether there is a recording, begun or not.
    pub fn has_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Ends a recording that cannot be written any more, and tells why, once.
    pub fn end_failed_recording(&mut self) -> Option<String> {
        let failed = self.recording.take_if(|recording| recording.has_failed())?;
        failed.finish().err().map(|error| self.note_unwritten(error.into()))
    }

    /// Ends an output that cannot be written any more, and tells why, once. What is heard from then on goes nowhere.
    pub fn end_failed_output(&mut self) -> Option<String> {
        if !self.sink.has_failed() {
            return None;
        }
        let failed = std::mem::replace(&mut self.sink, Sink::Null);
        failed.finish().err().map(|error| self.note_unwritten(error.into()))
    }

    fn note_unwritten(&mut self, error: FinishError) -> String {
        let message = error.to_string();
        self.unwritten.get_or_insert(error);
        message
    }

    /// What is heard and said from now on is recorded.
    pub fn start_recording(&mut self) {
        self.records = true;
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
        self.talkers.insert(place, (index, Talker::new(index, self.config)?));
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
        self.is_open = on || !self.source.is_device();
    }

    /// What is done to one's own sound from now on; nothing at first. Allocates.
    pub fn set_processing(&mut self, switches: Switches) {
        self.process = Process::new(switches);
    }

    /// Whether what is played is taken out of what the microphone hears, as long as it is open.
    pub fn cancels_echo(&self) -> bool {
        self.process.cancels_echo()
    }

    /// From now on a microphone that is open while muted is listened to, to warn who speaks; see
    /// [`MediaEngine::take_warning`].
    pub fn warn_when_muted(&mut self) {
        self.overhearing = Some(Overhearing::default());
    }

    /// Whether somebody spoke while muted since this was asked last. At most twice a minute.
    pub fn take_warning(&mut self) -> bool {
        self.overhearing.as_mut().is_some_and(Overhearing::take_warning)
    }

    /// How the devices fare: microphone, loudspeaker.
    pub fn device_figures(&self) -> (Option<Figures>, Option<Figures>) {
        (self.source.figures(), self.sink.figures())
    }

    /// What became of the devices since this was asked last.
    pub fn poll_device(&mut self) -> Option<Event> {
        self.source.poll_event().or_else(|| self.sink.poll_event())
    }

    /// The next frame of one's own sound. Called once per tick of the frame clock, sent or not.
    ///
    /// While muted, the source goes on in time and what it gives is thrown away, so that unmuting gives what is said
    /// then and not what was said before. The packet is encoded silence: it takes about as long as sound to make, and
    /// takes the last syllable out of the encoder's memory.
    pub fn capture(&mut self, muted: bool) -> Captured<'_> {
        let hole = self.take_in(muted);
        if muted {
            self.pcm = SILENCE;
            self.holes.forget();
        }
        self.own = self.pcm;
        let pcm = &self.pcm[..samples(self.config.frame)];
        let level = mixer::rms_level(pcm);
        if self.records {
            self.said.push(pcm, level >= self.config.pause_level);
        }
        // What has a hole is encoded, too: for whoever conceals it, the next packet follows one that was lost.
        match (self.encoder.encode(pcm, &mut self.packet), self.holes.pass(hole, self.process.delay(), level)) {
            (Ok(()), None) => Captured { opus: &self.packet, level },
            (Ok(()), Some(level)) => Captured { opus: &[], level },
            (Err(_), _) => {
                self.faults.encode += 1;
                Captured { opus: &[], level: LEVEL_SILENT }
            }
        }
    }

    /// Lets frames of one's own sound pass that nobody will get: the source goes on in time, and nothing is encoded,
    /// which is most of the work of a listener. Instead of [`MediaEngine::capture`], where nothing is sent. Takes no
    /// longer for many frames than for one.
    pub fn skip(&mut self, frames: u32) {
        self.source.skip(u64::from(frames) * samples(self.config.frame) as u64);
        self.pause();
    }

    /// As [`MediaEngine::skip`], but the source does not go on: it has not begun.
    pub fn pause(&mut self) {
        self.process.pause();
        self.holes.forget();
        self.own = SILENCE;
    }

    /// Lets a frame of one's own sound pass that nobody will get, but listens to it if who speaks while muted is to be
    /// warned. Instead of [`MediaEngine::skip`] for one frame.
    pub fn overhear(&mut self) {
        if self.overhearing.is_some() && self.is_open {
            self.holes.forget();
            self.take_in(true);
        } else {
            self.skip(1);
        }
    }

    /// Gives how many samples at its end are a hole.
    fn take_in(&mut self, muted: bool) -> usize {
        self.own = SILENCE;
        let pcm = &mut self.pcm[..samples(self.config.frame)];
        let hole = self.source.next_frame(pcm);
        if !self.is_open {
            self.process.pause();
            return 0;
        }
        self.process.capture(pcm);
        match &mut self.overhearing {
            Some(overhearing) if muted => overhearing.hear(pcm),
            Some(overhearing) => overhearing.rest(),
            None => {}
        }
        if muted { 0 } else { hole }
    }

    /// A frame of member `index` arrived at `now` and is authentic. `seq` is the tick of the talker's frame clock,
    /// `level` its level in −dBov. `None` when there is no such talker.
    pub fn receive(&mut self, index: u16, seq: u32, muted: bool, level: u8, opus: &[u8], now: Instant) -> Option<Push> {
        let talker = self.talker_mut(index)?;
        talker.comfort.note(muted, level);
        talker.guard.note(level);
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

    /// How loud member `index` is played.
    pub fn set_volume(&mut self, index: u16, volume: Volume) {
        if let Some(talker) = self.talker_mut(index) {
            talker.fader.set(volume);
        }
    }

    /// Plays a step of everybody into the sink, and gives it. `now` is best the time at which the step was due: one that
    /// comes late because the machine was busy then does not look like a change of the delay.
    pub fn step(&mut self, now: Instant) -> [i16; STEP_SAMPLES] {
        self.mixer.begin();
        self.budget.on_step();
        for (_, talker) in &mut self.talkers {
            talker.step(now, &mut self.mixer, &mut self.budget, &mut self.faults);
        }
        let mut out = [0; STEP_SAMPLES];
        let heard = self.mixer.finish();
        if let Some(chunk) = self.reference.push(heard) {
            self.process.played(chunk);
        }
        mixer::to_i16(heard, &mut out);
        self.sink.write(&out);
        if let Some(recording) = self.recording.as_mut().filter(|_| self.records) {
            recording.write(heard, &self.said.pop());
        }
        out
    }

    /// How long talkers wait for their steps, in nanoseconds: who waits least, and who waits most; see
    /// [`Playout::spare`](super::playout::Playout::spare). `None` when nobody is heard.
    pub fn spare(&self) -> Option<(i64, i64)> {
        let spares = self.talkers.iter().filter_map(|(_, talker)| talker.playout.spare());
        spares.fold(None, |all, spare| {
            let (least, most) = all.unwrap_or((spare, spare));
            Some((least.min(spare), most.max(spare)))
        })
    }

    /// The steps of a frame at once, the first of which is due at `now`: for who has no finer clock than that of frames.
    pub fn render(&mut self, now: Instant) -> &[i16] {
        for n in 0..steps(self.config.frame) {
            let step = self.step(now + STEP * n as u32);
            self.rendered[n * STEP_SAMPLES..][..STEP_SAMPLES].copy_from_slice(&step);
        }
        &self.rendered[..samples(self.config.frame)]
    }

    /// Figures of a talker's playout.
    pub fn stats(&self, index: u16) -> Option<Stats> {
        self.talker(index).map(|talker| talker.playout.stats())
    }

    /// Mean level in −dBov of what was last heard of a talker, 127 for silence.
    pub fn level(&self, index: u16) -> Option<u8> {
        self.talker(index).map(|talker| talker.level)
    }

    /// Mean and peak level in −dBov of one's own last frame, 127 for silence.
    pub fn own_levels(&self) -> (u8, u8) {
        let own = &self.own[..samples(self.config.frame)];
        (mixer::rms_level(own), mixer::peak_level(own))
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        let recording = self.recording.as_ref().map_or(0, Recording::lost);
        let frame = samples(self.config.frame) as u64;
        Faults { overruns: self.sink.lost().div_ceil(frame) + recording.div_ceil(frame), ..self.faults }
    }

    /// Whether what is heard has to be played in time, and not only written.
    pub fn is_live(&self) -> bool {
        matches!(self.sink, Sink::Device(_))
    }

    /// What waits for the disk, in frames of 20 ms; see [`Sink::waiting`].
    pub fn waiting_for_disk(&self) -> usize {
        self.sink.waiting()
    }

    /// Whether one's own recording has ended.
    pub fn source_finished(&self) -> bool {
        self.source.finished()
    }

    /// Closes the sink and the recording. Waits for the disk.
    ///
    /// # Errors
    /// The first that went wrong in writing.
    pub fn finish(self) -> Result<(), FinishError> {
        let recorded = self.recording.map_or(Ok(()), Recording::finish);
        self.sink.finish()?;
        self.unwritten.map_or(Ok(()), Err)?;
        Ok(recorded?)
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
