//! Where one's own sound comes from: a microphone, a file, a tone, or nothing.
//!
//! A file is read, mixed down and converted to the client's format before the first frame, so that afterwards no
//! frame waits for a disk or allocates.

use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader};

use super::device::line::Figures;
use super::device::{Choice, DeviceError, Event, Microphone};
use super::format::SAMPLE_RATE;
use super::mixer::sample_to_i16;
use super::resample::{Converter, Failed};

/// Rates of files that are read, in Hz: from telephones to studios.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Longest file that is read, in seconds. A file is held in memory: 2 hours are 0.7 GB.
const MAX_SECONDS: u64 = 2 * 60 * 60;
/// Pitch of the tone in Hz: A4.
const TONE_HZ: f64 = 440.0;
/// Amplitude of the tone: 20 dB below full scale, about as loud as speech.
const TONE_AMPLITUDE: f64 = 0.1;

/// What to do with a file after its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Silence follows.
    Once,
    /// The file begins anew.
    Loop,
}

/// Where sound comes from.
pub enum Source {
    /// A device.
    Device(Box<Microphone>),
    /// A recording.
    Wav(Recording),
    /// A sine that never ends.
    Tone(Tone),
    /// Nothing, for ever.
    Silence,
}

/// A recording in memory, and how much of it has been played.
pub struct Recording {
    /// 48 kHz, mono.
    samples: Box<[i16]>,
    position: usize,
    repeat: Repeat,
}

/// A sine, and where it has got to.
#[derive(Default)]
pub struct Tone {
    /// In radians.
    phase: f64,
}

/// Why a source cannot be opened. Names the file, and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// There is no such file.
    #[error("there is no file {path}; give the path of a WAV file, or `device`, `tone` or `silence`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no WAV file, or one of an encoding that is not read.
    #[error(
        "{path} cannot be used ({reason}); convert it to a PCM WAV file, for example with \
         `ffmpeg -i INPUT -ac 1 -ar 48000 OUTPUT.wav`"
    )]
    NotWav {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file holds no sound.
    #[error("{path} holds no sound; was its recording cut off before the first second?")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Something else than a file, such as a pipe, whose end may never come.
    #[error("{path} is no file; write the sound into a WAV file first, and give its path")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is cut off.
    #[error("{path} ends before its header says it does; copy or record it again")]
    CutOff {
        /// The file.
        path: PathBuf,
    },
    /// The file is too long.
    #[error("{path} lasts {} minutes, and at most {} can be held in memory; cut it", seconds / 60, MAX_SECONDS / 60)]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it lasts.
        seconds: u64,
    },
}

impl Source {
    /// Opens what the command line names: `device` or `device:NAME`, `tone`, `silence`, or the path of a WAV file
    /// (`./tone` is a file). Takes its time: the whole file is read. A device records nothing before
    /// [`Source::listen`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(name: &str, repeat: Repeat) -> Result<Self, SourceError> {
        if let Some(choice) = Choice::parse(name) {
            return Ok(Self::Device(Box::new(Microphone::open(choice)?)));
        }
        match name {
            "tone" => Ok(Self::Tone(Tone::default())),
            "silence" => Ok(Self::Silence),
            path => Ok(Self::Wav(Recording::open(Path::new(path), repeat)?)),
        }
    }

    /// The next frame, all of `out`. Allocates nothing, and waits for nothing. Gives how many samples at its end are a hole,
    /// because a device was late.
    pub fn next_frame(&mut self, out: &mut [f32]) -> usize {
        match self {
            Self::Device(microphone) => return microphone.next_frame(out),
            Self::Wav(recording) => recording.next_frame(out),
            Self::Tone(tone) => tone.next_frame(out),
            Self::Silence => out.fill(0.0),
        }
        0
    }

    /// Lets so many samples pass unheard. Allocates nothing, and takes no longer for many than for few.
    pub fn skip(&mut self, samples: u64) {
        match self {
            Self::Device(microphone) => microphone.discard(),
            Self::Wav(recording) => recording.skip(samples),
            Self::Tone(tone) => tone.skip(samples),
            Self::Silence => {}
        }
    }

    /// Whether this is a microphone.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Device(_))
    }

    /// A device keeps no more than this against what this machine is late by: see [`Microphone::allow`].
    pub fn allow(&mut self, most_margin: std::time::Duration) {
        if let Self::Device(microphone) = self {
            microphone.allow(most_margin);
        }
    }

    /// Opens a microphone, or closes it: then the system shows that nobody listens. Other sources are indifferent.
    pub fn listen(&mut self, on: bool) {
        if let Self::Device(microphone) = self {
            microphone.listen(on);
        }
    }

    /// How the device fares, if it is one.
    pub fn figures(&self) -> Option<Figures> {
        match self {
            Self::Device(microphone) => Some(microphone.figures()),
            _ => None,
        }
    }

    /// What became of the device since this was asked last.
    pub fn poll_event(&self) -> Option<Event> {
        match self {
            Self::Device(microphone) => microphone.poll_event(),
            _ => None,
        }
    }

    /// Whether nothing but silence will come any more because a recording has ended.
    pub fn finished(&self) -> bool {
        matches!(self, Self::Wav(recording) if recording.is_over())
    }
}

impl Tone {
    fn next_frame(&mut self, out: &mut [f32]) {
        let step = std::f64::consts::TAU * TONE_HZ / f64::from(SAMPLE_RATE);
        for sample in out {
            *sample = (TONE_AMPLITUDE * self.phase.sin()) as f32;
            self.phase = (self.phase + step) % std::f64::consts::TAU;
        }
    }

    fn skip(&mut self, samples: u64) {
        // Whole seconds are whole periods, because the pitch is a whole number.
        let samples = samples % u64::from(SAMPLE_RATE);
        let periods = samples as f64 * TONE_HZ / f64::from(SAMPLE_RATE);
        self.phase = (self.phase + periods.fract() * std::f64::consts::TAU) % std::f64::consts::TAU;
    }
}

impl Recording {
    /// A recording of 48 kHz samples.
    pub fn new(samples: Vec<i16>, repeat: Repeat) -> Self {
        Self { samples: samples.into_boxed_slice(), position: 0, repeat }
    }

    /// How long the recording lasts.
    pub fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.samples.len() as f64 / f64::from(SAMPLE_RATE))
    }

    /// The samples, 48 kHz mono.
    pub fn into_samples(self) -> Vec<i16> {
        self.samples.into_vec()
    }

    fn is_over(&self) -> bool {
        self.repeat == Repeat::Once && self.position >= self.samples.len()
    }

    fn next_frame(&mut self, out: &mut [f32]) {
        for sample in out {
            if self.repeat == Repeat::Loop && self.position >= self.samples.len() {
                self.position = 0;
            }
            let value = self.samples.get(self.position).copied();
            self.position += usize::from(value.is_some());
            *sample = f32::from(value.unwrap_or(0)) / 32_768.0;
        }
    }

    fn skip(&mut self, samples: u64) {
        // A recording is held in memory, so its length fits, and with it what is left after the remainder.
        let length = self.samples.len() as u64;
        let position = (self.position as u64).saturating_add(samples);
        let position = match self.repeat {
            Repeat::Loop => position.checked_rem(length).unwrap_or(0),
            Repeat::Once => position.min(length),
        };
        self.position = usize::try_from(position).unwrap_or(self.samples.len());
    }

    /// Reads a WAV file of any common rate, width and number of channels.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: &Path, repeat: Repeat) -> Result<Self, SourceError> {
        let mut reader = open(path)?;
        check(path, &reader)?;
        let spec = reader.spec();
        let length = u64::from(reader.len());
        let mut converter =
            Converter::new(spec.sample_rate, SAMPLE_RATE).map_err(|failed| not_converted(path, &failed))?;
        let mut samples = Vec::new();
        let mut sink = |sample: f32| samples.push(sample_to_i16(sample));
        let mut push = |sample: f32| converter.push(sample, &mut sink).map_err(|failed| not_converted(path, &failed));
        let channels = usize::from(spec.channels);
        match spec.sample_format {
            SampleFormat::Float => mix_down(path, channels, reader.samples::<f32>(), clean, &mut push)?,
            SampleFormat::Int => {
                let full = 2f32.powi(i32::from(spec.bits_per_sample) - 1);
                mix_down(path, channels, reader.samples::<i32>(), |sample| sample as f32 / full, &mut push)?;
            }
        }
        converter.finish(&mut sink).map_err(|failed| not_converted(path, &failed))?;
        if is_padded(path, reader, length * u64::from(spec.bits_per_sample.div_ceil(8)))? {
            return Err(not_wav(path, format!("{} bits stand in wider fields", spec.bits_per_sample)));
        }
        Ok(Self::new(samples, repeat))
    }
}

/// A float as it should be: within full scale, and a number.
fn clean(sample: f32) -> f32 {
    if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) }
}

/// What a program writes into the header of a file whose length it does not know yet, such as one that comes out of a
/// pipe, is no length, and often no whole number of samples.
const NO_LENGTH: &str = "its header does not say how long it is, as when it came out of a pipe";
/// The longest header of an ordinary file: what is behind it is sound.
const LONGEST_HEADER: u64 = 4_096;

fn open(path: &Path) -> Result<WavReader<BufReader<File>>, SourceError> {
    // Asked before it is opened: opening a pipe waits for its other end.
    let metadata = path.metadata().map_err(|error| unreadable(path, error))?;
    if metadata.is_dir() {
        return Err(unreadable(path, std::io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(SourceError::NoFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    WavReader::new(BufReader::new(file)).map_err(|error| match error {
        hound::Error::IoError(error) if error.kind() == std::io::ErrorKind::Other => {
            not_wav(path, "it is too short, or has parts of odd length before its sound")
        }
        hound::Error::IoError(error) => unreadable(path, error),
        hound::Error::FormatError(reason) if reason.contains("data chunk length") => not_wav(path, NO_LENGTH),
        other => not_wav(path, other),
    })
}

/// Whether the samples that were read took more room than their bits do. Then they are somewhere within that room, and
/// hound, which takes them from its low end, may have read noise.
fn is_padded(path: &Path, reader: WavReader<BufReader<File>>, bytes: u64) -> Result<bool, SourceError> {
    let position = |mut reader: BufReader<File>| reader.stream_position().map_err(|error| unreadable(path, error));
    let (begin, end) = (position(open(path)?.into_inner())?, position(reader.into_inner())?);
    Ok(end.saturating_sub(begin) > bytes)
}

/// Refuses by the header what would take for ever or fill the memory.
fn check(path: &Path, reader: &WavReader<BufReader<File>>) -> Result<(), SourceError> {
    let spec = reader.spec();
    if !RATES.contains(&spec.sample_rate) {
        let (least, most) = (RATES.start(), RATES.end());
        return Err(not_wav(path, format!("{} samples per second, not {least} to {most}", spec.sample_rate)));
    }
    let there = path.metadata().map_err(|error| unreadable(path, error))?.len();
    if reader.duration() == 0 {
        let is_streamed = there > LONGEST_HEADER;
        return Err(if is_streamed { not_wav(path, NO_LENGTH) } else { SourceError::Empty { path: path.to_owned() } });
    }
    let seconds = u64::from(reader.duration()) / u64::from(spec.sample_rate);
    if seconds > MAX_SECONDS {
        // A sample takes a byte at least.
        let is_streamed = u64::from(reader.len()) > there;
        return Err(if is_streamed {
            not_wav(path, NO_LENGTH)
        } else {
            SourceError::TooLong { path: path.to_owned(), seconds }
        });
    }
    Ok(())
}

/// Reads all samples, and pushes the mean of each moment's channels.
fn mix_down<S>(
    path: &Path,
    channels: usize,
    samples: impl Iterator<Item = hound::Result<S>>,
    scale: impl Fn(S) -> f32,
    push: &mut impl FnMut(f32) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let (mut sum, mut summed) = (0.0, 0);
    for sample in samples {
        sum += scale(sample.map_err(|error| match error {
            hound::Error::IoError(_) => SourceError::CutOff { path: path.to_owned() },
            other => not_wav(path, other),
        })?);
        summed += 1;
        if summed == channels {
            push(sum / channels as f32)?;
            (sum, summed) = (0.0, 0);
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: std::io::Error) -> SourceError {
    let path = path.to_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound => SourceError::Missing { path },
        _ => SourceError::Unreadable { path, error },
    }
}

fn not_wav(path: &Path, reason: impl ToString) -> SourceError {
    SourceError::NotWav { path: path.to_owned(), reason: reason.to_string() }
}

fn not_converted(path: &Path, failed: &Failed) -> SourceError {
    not_wav(path, format!("it cannot be converted to {SAMPLE_RATE} Hz: {failed}"))
}

#[cfg(test)]
mod tests {
    use hound::{WavSpec, WavWriter};
    use proptest::prelude::*;

    use super::*;
    use crate::audio::format::{FRAME_SAMPLES, SILENCE};

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate, bits_per_sample, sample_format }
    }

    fn write<S: hound::Sample>(dir: &Path, spec: WavSpec, samples: impl IntoIterator<Item = S>) -> String {
        let path = dir.join("in.wav");
        let mut writer = WavWriter::create(&path, spec).unwrap();
        samples.into_iter().for_each(|sample| writer.write_sample(sample).unwrap());
        writer.finalize().unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn samples_of(name: &str) -> Vec<i16> {
        match Source::open(name, Repeat::Once).unwrap() {
            Source::Wav(recording) => recording.into_samples(),
            _ => panic!("not a recording"),
        }
    }

    #[test]
    fn a_skipped_source_is_where_a_played_one_is() {
        let samples: Vec<i16> = (0..4_321).map(|i| (i * 7) as i16).collect();
        let wav = |repeat| Source::Wav(Recording::new(samples.clone(), repeat));
        let sources: [&dyn Fn() -> Source; 4] =
            [&|| wav(Repeat::Once), &|| wav(Repeat::Loop), &|| Source::Tone(Tone::default()), &|| Source::Silence];
        for make in sources {
            for frames in [0, 1, 4, 5, 123] {
                let (mut played, mut skipped) = (make(), make());
                let (mut a, mut b) = (SILENCE, SILENCE);
                for _ in 0..frames {
                    played.next_frame(&mut a);
                }
                skipped.skip(frames * FRAME_SAMPLES as u64);
                assert_eq!(played.finished(), skipped.finished(), "after {frames} frames");
                played.next_frame(&mut a);
                skipped.next_frame(&mut b);
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "after {frames} frames");
            }
        }
    }

    #[test]
    fn a_file_of_the_clients_format_is_played_sample_by_sample_and_then_silence() {
        let dir = tempfile::tempdir().unwrap();
        let samples: Vec<i16> = (0..1_500).map(|i| (i * 37 % 60_000 - 30_000) as i16).collect();
        let name = write(dir.path(), spec(1, 48_000, 16, SampleFormat::Int), samples.iter().copied());
        let mut source = Source::open(&name, Repeat::Once).unwrap();
        let mut played = Vec::new();
        for finished in [false, true, true] {
            let mut frame = [9.0; FRAME_SAMPLES];
            source.next_frame(&mut frame);
            played.extend(frame.map(|s| (s * 32_768.0) as i16));
            assert_eq!(source.finished(), finished);
        }
        assert_eq!(played[..1_500], samples);
        assert!(played[1_500..].iter().all(|s| *s == 0));
    }

    #[test]
    fn a_looped_file_goes_on_without_a_gap_and_never_finishes() {
        // Of a length that makes frames end in the middle and, every second time, at its end.
        let mut source = Source::Wav(Recording::new((1..=640).collect(), Repeat::Loop));
        let mut expected = (1..=640i16).cycle();
        for _ in 0..5 {
            let mut frame = SILENCE;
            source.next_frame(&mut frame);
            assert!(frame.iter().all(|s| (*s * 32_768.0) as i16 == expected.next().unwrap()));
            assert!(!source.finished());
        }
    }

    #[test]
    fn every_width_reads_as_the_same_sound() {
        let dir = tempfile::tempdir().unwrap();
        let wave = |i: i32| f64::from(i % 200 - 100) / 128.0;
        for bits in [8u16, 16, 24, 32] {
            let full = 2f64.powi(i32::from(bits) - 1);
            let ints = (0..480).map(|i| (wave(i) * full) as i32);
            let read = samples_of(&write(dir.path(), spec(1, 48_000, bits, SampleFormat::Int), ints));
            assert_eq!(read, (0..480).map(|i| (wave(i) * 32_768.0) as i16).collect::<Vec<_>>(), "{bits} bits");
        }
        let floats = (0..480).map(|i| wave(i) as f32);
        let read = samples_of(&write(dir.path(), spec(1, 48_000, 32, SampleFormat::Float), floats));
        assert_eq!(read, (0..480).map(|i| (wave(i) * 32_768.0) as i16).collect::<Vec<_>>());
    }

    #[test]
    fn channels_are_mixed_down_to_their_mean() {
        let dir = tempfile::tempdir().unwrap();
        let three = (0..300).flat_map(|i| [i as i16 * 30, 0, 60]);
        let read = samples_of(&write(dir.path(), spec(3, 48_000, 16, SampleFormat::Int), three));
        assert_eq!(read, (0..300).map(|i| i * 10 + 20).collect::<Vec<i16>>());
    }

    #[test]
    fn other_rates_are_converted_in_time_and_length() {
        let dir = tempfile::tempdir().unwrap();
        for rate in [8_000, 44_100, 192_000] {
            let count = rate / 2;
            let bell = |i: u32, rate: u32| {
                let t = f64::from(i) / f64::from(rate) - 0.2;
                (20_000.0 * (-(t / 0.003).powi(2)).exp()) as i16
            };
            let samples = (0..count).flat_map(|i| [bell(i, rate); 2]);
            let read = samples_of(&write(dir.path(), spec(2, rate, 16, SampleFormat::Int), samples));
            assert_eq!(read.len(), 24_000);
            let peak = read.iter().enumerate().max_by_key(|(_, s)| **s).unwrap().0;
            assert!(peak.abs_diff(9_600) <= 3, "{rate}: peak at {peak}");
        }
    }

    #[test]
    fn floats_that_are_no_sound_are_tamed() {
        let dir = tempfile::tempdir().unwrap();
        let floats = [f32::NAN, f32::INFINITY, -9.0, 0.5];
        let read = samples_of(&write(dir.path(), spec(1, 48_000, 32, SampleFormat::Float), floats));
        assert_eq!(read, [0, 32_767, -32_768, 16_384]);
    }

    #[test]
    fn the_tone_is_a_clean_sine_at_20_db_below_full_scale() {
        let mut source = Source::open("tone", Repeat::Once).unwrap();
        let mut all = Vec::new();
        for _ in 0..50 {
            let mut frame = SILENCE;
            source.next_frame(&mut frame);
            all.extend(frame);
        }
        for (i, sample) in all.iter().enumerate() {
            let wanted = 0.1 * (std::f64::consts::TAU * 440.0 * i as f64 / 48_000.0).sin();
            assert!((f64::from(*sample) - wanted).abs() < 1e-6, "sample {i}");
        }
        assert!(!source.finished());
    }

    #[test]
    fn silence_is_silent() {
        let mut frame = [1.0; FRAME_SAMPLES];
        Source::open("silence", Repeat::Loop).unwrap().next_frame(&mut frame);
        assert_eq!(frame, SILENCE);
    }

    fn refusal(name: &str) -> SourceError {
        Source::open(name, Repeat::Once).err().expect("must be refused")
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_and_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nothing.wav");
        let error = refusal(missing.to_str().unwrap());
        assert!(matches!(error, SourceError::Missing { .. }));
        assert!(error.to_string().contains("nothing.wav") && error.to_string().contains("`tone`"), "{error}");
        assert!(matches!(refusal(dir.path().to_str().unwrap()), SourceError::Unreadable { .. }));

        let text = dir.path().join("text.wav");
        for content in ["", "RIFF", "This is no recording, but long enough to be looked at as if it were one."] {
            std::fs::write(&text, content).unwrap();
            let error = refusal(text.to_str().unwrap());
            assert!(matches!(error, SourceError::NotWav { .. }), "{error}");
            assert!(error.to_string().contains("text.wav") && error.to_string().contains("ffmpeg"), "{error}");
        }
        let empty = write::<i16>(dir.path(), spec(1, 48_000, 16, SampleFormat::Int), []);
        assert!(matches!(refusal(&empty), SourceError::Empty { .. }));
        let slow = write(dir.path(), spec(1, 4_000, 16, SampleFormat::Int), [0i16; 10]);
        assert!(refusal(&slow).to_string().contains("4000 samples per second"));
    }

    #[test]
    fn a_file_that_is_cut_off_or_claims_hours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let name = write(dir.path(), spec(1, 8_000, 8, SampleFormat::Int), [1i8; 1_000]);
        let mut bytes = std::fs::read(&name).unwrap();
        std::fs::write(&name, &bytes[..600]).unwrap();
        assert!(matches!(refusal(&name), SourceError::CutOff { .. }));
        // The last field of the header: the length of the data, here of 8-bit samples.
        let claim = 8_000 * (MAX_SECONDS as u32 + 1);
        bytes[40..44].copy_from_slice(&claim.to_le_bytes());
        std::fs::write(&name, &bytes).unwrap();
        // Its end is a hole, which takes no room.
        std::fs::OpenOptions::new().write(true).open(&name).unwrap().set_len(u64::from(claim) + 44).unwrap();
        assert!(matches!(refusal(&name), SourceError::TooLong { seconds: 7_201, .. }));
    }

    #[test]
    fn a_file_whose_header_does_not_know_its_length_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        for bits in [16_u16, 8] {
            let name = write(dir.path(), spec(1, 8_000, bits, SampleFormat::Int), (0..8_000).map(|n| (n % 100) as i8));
            let mut bytes = std::fs::read(&name).unwrap();
            for claim in [u32::MAX, 0, 0x7fff_f000] {
                bytes[40..44].copy_from_slice(&claim.to_le_bytes());
                std::fs::write(&name, &bytes).unwrap();
                let error = refusal(&name).to_string();
                assert!(error.contains("how long it is") && error.contains("ffmpeg"), "{bits} {claim}: {error}");
            }
        }
    }

    #[test]
    fn samples_in_wider_fields_are_refused_and_not_played_as_noise() {
        let dir = tempfile::tempdir().unwrap();
        // hound writes the longer form of the header for them.
        let name = write(dir.path(), spec(1, 48_000, 32, SampleFormat::Int), (0..480).map(|n| n << 8));
        let mut bytes = std::fs::read(&name).unwrap();
        let (fields, valid) = (34..36, 38..40);
        assert_eq!((&bytes[fields], &bytes[valid.clone()]), (&[32, 0][..], &[32, 0][..]), "the header is another one");
        bytes[valid].copy_from_slice(&24_u16.to_le_bytes());
        std::fs::write(&name, &bytes).unwrap();
        let error = refusal(&name).to_string();
        assert!(error.contains("24 bits stand in wider fields") && error.contains("ffmpeg"), "{error}");
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sound.wav");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(refusal(socket.to_str().unwrap()), SourceError::NoFile { .. }));
        assert!(matches!(refusal("/dev/zero"), SourceError::NoFile { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_headers_give_a_source_or_an_error(
            changes in prop::collection::vec((0usize..68, any::<u8>()), 1..6),
            bits in prop::sample::select(vec![16u16, 24]),
        ) {
            let dir = tempfile::tempdir().unwrap();
            // 24 bits make hound write the longer form of the header.
            let name = write(dir.path(), spec(2, 16_000, bits, SampleFormat::Int), [5i16; 400]);
            let mut bytes = std::fs::read(&name).unwrap();
            for (place, value) in changes {
                bytes[place] = value;
            }
            std::fs::write(&name, &bytes).unwrap();
            if let Ok(mut source) = Source::open(&name, Repeat::Once) {
                source.next_frame(&mut SILENCE.clone());
            }
        }
    }
}
