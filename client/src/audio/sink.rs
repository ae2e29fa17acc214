//! Where what is heard goes: a loudspeaker, a WAV file, or nowhere.
//!
//! The file is written by a thread of its own, fed through a ring that is allocated once: a slow disk costs frames of
//! the recording, which are counted and replaced by silence of the same length, but never holds up the meeting.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use hound::{SampleFormat, WavSpec, WavWriter};
use rtrb::{Consumer, Producer, RingBuffer};

use super::device::line::Figures;
use super::device::{Choice, DeviceError, Event, Loudspeaker};
use super::format::{FRAME_SAMPLES, SAMPLE_RATE, STEP_SAMPLES};

/// Frames that fit into the ring: 4 s, longer than a disk of a healthy machine pauses; 0.4 MB.
const RING_FRAMES: usize = 200;
/// How long the writer sleeps when there is nothing to write: well below what the ring holds.
const NAP: Duration = Duration::from_millis(50);
/// Samples between two updates of the header: what the recording loses when the process is killed.
const HEADER_EVERY: u32 = SAMPLE_RATE;
/// Most samples of a file: what the format's 32-bit lengths can say, less its header. 12 hours.
const MAX_SAMPLES: u32 = (u32::MAX - 1_024) / 2;

const SPEC: WavSpec =
    WavSpec { channels: 1, sample_rate: SAMPLE_RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Something else than a file, such as a pipe, which cannot be gone back in to say how long the sound is.
    #[error("{path} is no file; give the path of one, or `device` or `null`")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error("cannot create {path}: {error}; give a path where you may write, or `device` or `null`")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        error: hound::Error,
    },
    /// The file could not be written; what was written before can be read.
    #[error("cannot go on writing {path}: {error}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: hound::Error,
    },
    /// A WAV file cannot be longer; what was written before can be read.
    #[error("{path} is full: a WAV file holds no more than 12 hours")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The thread that writes could not be started or has died.
    #[error("the thread that writes {path} failed")]
    Thread {
        /// The file.
        path: PathBuf,
    },
}

/// Where what is heard goes.
pub enum Sink {
    /// A device.
    Device(Box<Loudspeaker>),
    /// A file.
    Wav(Recorder),
    /// Nowhere.
    Null,
}

impl Sink {
    /// Opens what the command line names: `device` or `device:NAME`, `null`, or the path of a file, which is
    /// overwritten (`./null` is a file).
    ///
    /// # Errors
    /// [`SinkError::Device`], [`SinkError::NoFile`], [`SinkError::Create`] and [`SinkError::Thread`].
    pub fn open(name: &str) -> Result<Self, SinkError> {
        if let Some(choice) = Choice::parse(name) {
            return Ok(Self::Device(Box::new(Loudspeaker::open(choice)?)));
        }
        match name {
            "null" => Ok(Self::Null),
            path => Ok(Self::Wav(Recorder::create(Path::new(path))?)),
        }
    }

    /// Takes a step. Allocates nothing, and never waits.
    pub fn write(&mut self, step: &[i16; STEP_SAMPLES]) {
        match self {
            Self::Device(loudspeaker) => loudspeaker.write(step),
            Self::Wav(recorder) => recorder.write(step),
            Self::Null => {}
        }
    }

    /// A device keeps no more than this against what this machine is late by: see [`Loudspeaker::allow`].
    pub fn allow(&mut self, most_margin: Duration) {
        if let Self::Device(loudspeaker) = self {
            loudspeaker.allow(most_margin);
        }
    }

    /// How the device fares, if it is one.
    pub fn figures(&self) -> Option<Figures> {
        match self {
            Self::Device(loudspeaker) => Some(loudspeaker.figures()),
            _ => None,
        }
    }

    /// What became of the device since this was asked last.
    pub fn poll_event(&self) -> Option<Event> {
        match self {
            Self::Device(loudspeaker) => loudspeaker.poll_event(),
            _ => None,
        }
    }

    /// Samples that were lost because the disk was too slow. Silence stands in their place.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Wav(recorder) => recorder.lost,
            Self::Device(_) | Self::Null => 0,
        }
    }

    /// Whether nothing is written any more because something went wrong, which [`Sink::finish`] tells.
    pub fn has_failed(&self) -> bool {
        matches!(self, Self::Wav(recorder) if recorder.has_failed())
    }

    /// What waits for the disk, in frames of 20 ms.
    pub fn waiting(&self) -> usize {
        match self {
            Self::Wav(Recorder { ring: Some(ring), .. }) => RING_FRAMES - ring.slots() / FRAME_SAMPLES,
            _ => 0,
        }
    }

    /// Writes what is left and closes the file. Waits for the disk.
    ///
    /// # Errors
    /// The first that went wrong since the sink was opened.
    pub fn finish(self) -> Result<(), SinkError> {
        match self {
            Self::Wav(mut recorder) => recorder.close(),
            Self::Device(_) | Self::Null => Ok(()),
        }
    }
}

/// Feeds a file. Dropping it closes the file too, without a word about errors.
pub struct Recorder {
    path: PathBuf,
    /// `None` once closed.
    ring: Option<Producer<i16>>,
    writer: Option<JoinHandle<Result<(), SinkError>>>,
    /// Samples that were lost.
    lost: u64,
    /// Lost steps for which no silence has been written yet.
    owed: u64,
}

impl Recorder {
    fn create(path: &Path) -> Result<Self, SinkError> {
        let failed = |error| SinkError::Create { path: path.to_owned(), error };
        // Asked before it is opened: opening a pipe waits for its other end.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            return Err(SinkError::NoFile { path: path.to_owned() });
        }
        let mut file = WavWriter::create(path, SPEC).map_err(failed)?;
        // Whatever becomes of this process, it is a WAV file, if an empty one.
        file.flush().map_err(failed)?;
        Self::start(path, file)
    }

    fn start(path: &Path, file: WavWriter<BufWriter<File>>) -> Result<Self, SinkError> {
        let (ring, consumer) = RingBuffer::new(RING_FRAMES * FRAME_SAMPLES);
        let writing = Writing { path: path.to_owned(), file, ring: consumer, since_header: 0, written: 0 };
        let writer = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || writing.run())
            .map_err(|_| SinkError::Thread { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), ring: Some(ring), writer: Some(writer), lost: 0, owed: 0 })
    }

    fn write(&mut self, step: &[i16; STEP_SAMPLES]) {
        let Some(ring) = &mut self.ring else { return };
        // Ends at the latest when the ring is full.
        while self.owed > 0 && ring.push_entire_slice(&[0; STEP_SAMPLES]).is_ok() {
            self.owed -= 1;
        }
        if self.owed > 0 || ring.push_entire_slice(step).is_err() {
            self.lost += STEP_SAMPLES as u64;
            self.owed += 1;
        }
    }

    fn has_failed(&self) -> bool {
        self.ring.is_some() && self.writer.as_ref().is_some_and(JoinHandle::is_finished)
    }

    fn close(&mut self) -> Result<(), SinkError> {
        // The writer ends when it finds the ring empty and abandoned.
        self.ring = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.thread().unpark();
        writer.join().unwrap_or_else(|_| Err(SinkError::Thread { path: self.path.clone() }))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.close();
    }
}

/// The other end of the ring.
struct Writing {
    path: PathBuf,
    file: WavWriter<BufWriter<File>>,
    ring: Consumer<i16>,
    since_header: u32,
    written: u32,
}

impl Writing {
    fn run(mut self) -> Result<(), SinkError> {
        loop {
            // Asked before emptying the ring: what is pushed in between is found in the next turn.
            let last = self.ring.is_abandoned();
            self.empty()?;
            if last {
                let path = self.path;
                return self.file.finalize().map_err(|error| SinkError::Write { path, error });
            }
            std::thread::park_timeout(NAP);
        }
    }

    fn empty(&mut self) -> Result<(), SinkError> {
        while let Ok(sample) = self.ring.pop() {
            if self.written >= MAX_SAMPLES {
                return Err(SinkError::Full { path: self.path.clone() });
            }
            self.file.write_sample(sample).map_err(|error| self.failed(error))?;
            self.written += 1;
            self.since_header += 1;
            if self.since_header >= HEADER_EVERY {
                self.since_header = 0;
                self.file.flush().map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: hound::Error) -> SinkError {
        SinkError::Write { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> [i16; FRAME_SAMPLES] {
        std::array::from_fn(|i| ((n * 7 + i) % 30_000) as i16)
    }

    fn write(sink: &mut Sink, frame: &[i16; FRAME_SAMPLES]) {
        frame.as_chunks().0.iter().for_each(|step| sink.write(step));
    }

    fn read(path: &Path) -> Vec<i16> {
        let mut reader = hound::WavReader::open(path).unwrap();
        assert_eq!(reader.spec(), SPEC);
        reader.samples().map(Result::unwrap).collect()
    }

    fn in_dir(dir: &tempfile::TempDir) -> (PathBuf, Sink) {
        let path = dir.path().join("out.wav");
        let sink = Sink::open(path.to_str().unwrap()).unwrap();
        (path, sink)
    }

    #[test]
    fn all_frames_are_in_the_file_in_order_after_finishing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut sink) = in_dir(&dir);
        for n in 0..RING_FRAMES {
            write(&mut sink, &frame(n));
        }
        assert_eq!(sink.lost(), 0);
        sink.finish().unwrap();
        assert_eq!(read(&path), (0..RING_FRAMES).flat_map(frame).collect::<Vec<_>>());
    }

    #[test]
    fn a_sink_that_is_dropped_leaves_a_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut sink) = in_dir(&dir);
        write(&mut sink, &frame(3));
        drop(sink);
        assert_eq!(read(&path), frame(3));
    }

    #[test]
    fn the_file_can_be_read_while_it_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut sink) = in_dir(&dir);
        for n in 0..60 {
            write(&mut sink, &frame(n));
        }
        // The writer updates the header after each second of sound. Until it got there, there is less to read.
        let complete = || hound::WavReader::open(&path).is_ok_and(|reader| reader.len() >= SAMPLE_RATE);
        while !complete() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(read(&path)[..48_000], (0..50).flat_map(frame).collect::<Vec<_>>());
        sink.finish().unwrap();
    }

    #[test]
    fn frames_lost_to_a_slow_disk_are_counted_and_keep_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.wav");
        let (ring, mut slow) = RingBuffer::new(4 * FRAME_SAMPLES);
        let mut recorder = Recorder { path, ring: Some(ring), writer: None, lost: 0, owed: 0 };
        let mut heard = Vec::new();
        for n in 1..=7 {
            frame(n).as_chunks().0.iter().for_each(|step| recorder.write(step));
            if n >= 6 {
                heard.extend(std::iter::from_fn(|| slow.pop().ok()));
            }
        }
        assert_eq!(Sink::Wav(recorder).lost(), 2 * FRAME_SAMPLES as u64);
        let silence = [0; FRAME_SAMPLES];
        let wanted = [frame(1), frame(2), frame(3), frame(4), silence, silence, frame(7)];
        assert_eq!(heard, wanted.concat());
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nowhere").join("out.wav");
        let error = Sink::open(path.to_str().unwrap()).err().unwrap();
        assert!(matches!(error, SinkError::Create { .. }));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_a_full_disk_reported_as_soon_as_it_is_full() {
        let full = Path::new("/dev/full");
        assert!(full.exists(), "this system has no /dev/full");
        assert!(matches!(Sink::open("/dev/full"), Err(SinkError::NoFile { .. })));
        let file = File::options().write(true).open(full).unwrap();
        let file = WavWriter::new(BufWriter::new(file), SPEC).unwrap();
        let mut sink = Sink::Wav(Recorder::start(full, file).unwrap());
        assert!(!sink.has_failed());
        for n in 0..100 {
            write(&mut sink, &frame(n));
        }
        while !sink.has_failed() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(matches!(sink.finish(), Err(SinkError::Write { .. })));
    }

    #[test]
    fn a_file_is_a_wav_file_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sink) = in_dir(&dir);
        assert!(read(&path).is_empty());
        sink.finish().unwrap();
    }

    #[test]
    fn null_takes_everything() {
        let mut sink = Sink::open("null").unwrap();
        write(&mut sink, &frame(1));
        assert_eq!(sink.lost(), 0);
        sink.finish().unwrap();
    }
}
