//! A recording of a meeting for oneself: what one hears and what one says, as Ogg Opus (RFC 7845).
//!
//! The frame clock pushes frames into a ring that is allocated once; a thread of its own encodes and writes them. A slow
//! disk costs frames, which are counted and replaced by silence of the same length, and never holds up the meeting.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use ogg::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, Channels};
use rtrb::{Consumer, Producer, RingBuffer};

use super::format::{FRAME_SAMPLES, SAMPLE_RATE, SILENCE, STEP_SAMPLES, Step};

/// Frames that fit into the ring: 4 s, longer than a disk of a healthy machine pauses.
const RING_FRAMES: usize = 200;
/// How long the writer sleeps when there is nothing to write: well below what the ring holds.
const NAP: Duration = Duration::from_millis(50);
/// Bits per second: several people at once, one after the other, sound as they did. 22 MB an hour.
const BITRATE: i32 = 48_000;
/// Frames in a page: a second, which is what the recording loses when the process is killed.
const PAGE_FRAMES: u64 = 50;
/// Longest packet, in bytes: what libopus advises for a buffer.
const LONGEST_PACKET: usize = 4_000;
/// Number of the one stream in the file.
const STREAM: u32 = 1;
/// Only its owner may read it.
const MODE: u32 = 0o600;

/// Why a meeting is not recorded, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be made. An older one is not written over.
    #[error("cannot create {path}: {error}; give a path where there is no file yet and where you may write one")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file could not be written; what was written before can be heard.
    #[error("cannot go on writing {path}: {error}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody deleted the file while it was written.
    #[error("{path} was deleted while it was written; nothing is recorded any more")]
    Deleted {
        /// The file.
        path: PathBuf,
    },
    /// libopus refused.
    #[error("cannot encode the recording: {0}")]
    Opus(#[from] opus::Error),
    /// The thread that writes could not be started or has died.
    #[error("the thread that writes {path} failed")]
    Thread {
        /// The file.
        path: PathBuf,
    },
}

/// Records. Dropping it closes the file, too, without a word about errors. One in which nothing was recorded goes away
/// again: whoever was not let in can try again with the same path.
pub struct Recording {
    path: PathBuf,
    /// `None` once closed.
    ring: Option<Producer<f32>>,
    writer: Option<JoinHandle<Result<(), RecordError>>>,
    has_begun: bool,
    /// Lost steps for which no silence has been written yet.
    owed: u64,
    /// Samples that were lost.
    lost: u64,
}

impl Recording {
    /// Makes the file, which must not exist.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn create(path: &Path) -> Result<Self, RecordError> {
        let failed = |error| RecordError::Create { path: path.to_owned(), error };
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path).map_err(failed)?;
        Self::of(path, file)
    }

    fn of(path: &Path, file: File) -> Result<Self, RecordError> {
        let (ring, consumer) = RingBuffer::new(RING_FRAMES * FRAME_SAMPLES);
        // From here on the file goes away with it if nothing comes to be recorded.
        let mut recording =
            Self { path: path.to_owned(), ring: Some(ring), writer: None, has_begun: false, owed: 0, lost: 0 };
        let writing = Writing::new(path, file, consumer)?;
        let writer = std::thread::Builder::new().name("recording".to_owned()).spawn(move || writing.run());
        recording.writer = Some(writer.map_err(|_| RecordError::Thread { path: path.to_owned() })?);
        Ok(recording)
    }

    /// Takes a step: what was heard and what was said. Allocates nothing, and never waits.
    pub fn write(&mut self, heard: &Step, said: &Step) {
        let Some(ring) = &mut self.ring else { return };
        self.has_begun = true;
        // Ends at the latest when the ring is full.
        while self.owed > 0 && ring.push_entire_slice(&[0.0; STEP_SAMPLES]).is_ok() {
            self.owed -= 1;
        }
        let both: Step = std::array::from_fn(|n| (heard[n] + said[n]).clamp(-1.0, 1.0));
        if self.owed > 0 || ring.push_entire_slice(&both).is_err() {
            self.owed += 1;
            self.lost += STEP_SAMPLES as u64;
        }
    }

    /// Samples that were lost because the disk was too slow. Silence stands in their place.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether nothing is written any more because something went wrong, which [`Recording::finish`] tells.
    pub fn has_failed(&self) -> bool {
        self.ring.is_some() && self.writer.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Writes what is left and closes the file. Waits for the disk.
    ///
    /// # Errors
    /// The first that went wrong since it was made.
    pub fn finish(mut self) -> Result<(), RecordError> {
        self.close()
    }

    fn close(&mut self) -> Result<(), RecordError> {
        // The writer ends when it finds the ring empty and abandoned.
        if self.ring.take().is_none() {
            return Ok(());
        }
        let written = self.writer.take().map_or(Ok(()), |writer| {
            writer.thread().unpark();
            writer.join().unwrap_or_else(|_| Err(RecordError::Thread { path: self.path.clone() }))
        });
        if !self.has_begun {
            // It was made here, and holds nothing.
            let _ = std::fs::remove_file(&self.path);
        }
        written
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.close();
    }
}

/// The other end of the ring.
struct Writing {
    path: PathBuf,
    pages: PacketWriter<'static, BufWriter<File>>,
    ring: Consumer<f32>,
    encoder: opus::Encoder,
    /// Samples at the beginning that a player leaves out.
    skipped: u16,
    frames: u64,
    /// A packet that waits until it is known whether it is the last.
    waiting: Option<Vec<u8>>,
    /// The file system counts a file's names, which not every one in user space does.
    counts_names: bool,
}

impl Writing {
    fn new(path: &Path, file: File, ring: Consumer<f32>) -> Result<Self, RecordError> {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
        let skipped = u16::try_from(encoder.get_lookahead()?).unwrap_or(0);
        let counts_names = file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        let pages = PacketWriter::new(BufWriter::new(file));
        let path = path.to_owned();
        let mut writing = Self { path, pages, ring, encoder, skipped, frames: 0, waiting: None, counts_names };
        writing.write_head().map_err(|error| writing.failed(error))?;
        Ok(writing)
    }

    fn run(mut self) -> Result<(), RecordError> {
        loop {
            // Asked before emptying the ring: what is pushed in between is found in the next turn.
            let last = self.ring.is_abandoned();
            self.empty()?;
            if last {
                self.encode_rest()?;
                if self.frames == 0 {
                    // A stream ends with a packet (RFC 7845 §4), so nothing is a moment of silence.
                    self.encode(&SILENCE)?;
                }
                let end = PacketWriteEndInfo::EndStream;
                let written = self.write(end).and_then(|()| self.pages.inner_mut().flush());
                return written.map_err(|error| self.failed(error)).and_then(|()| self.is_there());
            }
            std::thread::park_timeout(NAP);
        }
    }

    /// The two packets that say what follows (RFC 7845 §5), each on a page of its own.
    fn write_head(&mut self) -> io::Result<()> {
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend_from_slice(&self.skipped.to_le_bytes());
        head.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
        // No gain; one stream of one channel.
        head.extend_from_slice(&[0, 0, 0]);
        let vendor = b"conclave";
        let mut tags = b"OpusTags".to_vec();
        tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
        tags.extend_from_slice(vendor);
        tags.extend_from_slice(&0_u32.to_le_bytes());
        self.pages.write_packet(head, STREAM, PacketWriteEndInfo::EndPage, 0)?;
        self.pages.write_packet(tags, STREAM, PacketWriteEndInfo::EndPage, 0)?;
        // Whatever becomes of this process, it is a recording, if an empty one.
        self.pages.inner_mut().flush()
    }

    fn empty(&mut self) -> Result<(), RecordError> {
        let mut frame = SILENCE;
        while self.ring.slots() >= FRAME_SAMPLES && self.ring.pop_entire_slice(&mut frame).is_ok() {
            self.encode(&frame)?;
        }
        Ok(())
    }

    /// The last part of a frame, at the end.
    fn encode_rest(&mut self) -> Result<(), RecordError> {
        let mut frame = SILENCE;
        let (rest, _) = self.ring.pop_partial_slice(&mut frame);
        if rest.is_empty() { Ok(()) } else { self.encode(&frame) }
    }

    fn encode(&mut self, frame: &[f32]) -> Result<(), RecordError> {
        let mut packet = vec![0; LONGEST_PACKET];
        let length = self.encoder.encode_float(frame, &mut packet)?;
        packet.truncate(length);
        let ends_page = self.frames > 0 && self.frames.is_multiple_of(PAGE_FRAMES);
        let end = if ends_page { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
        self.write(end).map_err(|error| self.failed(error))?;
        if ends_page {
            self.pages.inner_mut().flush().map_err(|error| self.failed(error))?;
            self.is_there()?;
        }
        self.frames += 1;
        self.waiting = Some(packet);
        Ok(())
    }

    /// Writes the packet that waits.
    fn write(&mut self, end: PacketWriteEndInfo) -> io::Result<()> {
        let position = self.frames * FRAME_SAMPLES as u64;
        match self.waiting.take() {
            Some(packet) => self.pages.write_packet(packet, STREAM, end, position),
            None => Ok(()),
        }
    }

    /// A file that was deleted takes what is written to it, and is gone when it is closed.
    fn is_there(&self) -> Result<(), RecordError> {
        let names = self.pages.inner().get_ref().metadata().map_err(|error| self.failed(error))?.nlink();
        if self.counts_names && names == 0 { Err(RecordError::Deleted { path: self.path.clone() }) } else { Ok(()) }
    }

    fn failed(&self, error: io::Error) -> RecordError {
        RecordError::Write { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::Frame;

    fn write(recording: &mut Recording, heard: &Frame, said: &Frame) {
        let steps = heard.as_chunks().0.iter().zip(said.as_chunks().0);
        steps.for_each(|(heard, said)| recording.write(heard, said));
    }

    fn heard(n: usize) -> Frame {
        std::array::from_fn(|i| {
            let t = (n * FRAME_SAMPLES + i) as f64 / f64::from(SAMPLE_RATE);
            (0.3 * (std::f64::consts::TAU * 440.0 * t).sin()) as f32
        })
    }

    /// What a player would play, with the position that the last page has.
    fn played(path: &Path) -> (Vec<f32>, u64) {
        let mut reader = ogg::PacketReader::new(File::open(path).unwrap());
        let head = reader.read_packet_expected().unwrap().data;
        assert_eq!((&head[..10], head.len()), (&b"OpusHead\x01\x01"[..], 19));
        let skipped = usize::from(u16::from_le_bytes([head[10], head[11]]));
        assert!(reader.read_packet_expected().unwrap().data.starts_with(b"OpusTags\x08\0\0\0conclave\0\0\0\0"));
        let mut decoder = opus::Decoder::new(SAMPLE_RATE, Channels::Mono).unwrap();
        let (mut sound, mut position, mut is_ended) = (Vec::new(), 0, false);
        while let Some(packet) = reader.read_packet().unwrap() {
            let mut frame = [0.0; FRAME_SAMPLES];
            assert_eq!(decoder.decode_float(&packet.data, &mut frame, false).unwrap(), FRAME_SAMPLES);
            sound.extend(frame);
            position = packet.absgp_page();
            is_ended = packet.last_in_stream();
        }
        assert!(is_ended, "the stream has no end");
        (sound.split_off(skipped), position)
    }

    #[test]
    fn what_was_heard_and_said_is_in_the_file_in_time_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meeting.opus");
        let mut recording = Recording::create(&path).unwrap();
        for n in 0..120 {
            // Half of it is said.
            let half = heard(n).map(|sample| sample / 2.0);
            write(&mut recording, &half, &half);
        }
        assert_eq!(recording.lost(), 0);
        recording.finish().unwrap();
        let (sound, position) = played(&path);
        assert_eq!(position, 120 * FRAME_SAMPLES as u64);
        let wanted: Vec<f32> = (0..119).flat_map(heard).collect();
        let power = |samples: &[f32]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let part = 4_800..100_000;
        let error: Vec<f32> = part.clone().map(|n| sound[n] - wanted[n]).collect();
        assert!(power(&error) < power(&wanted[part]) / 100.0, "the sound is another one, or not in time");
    }

    #[test]
    fn a_recording_is_its_owners_and_never_written_over_another_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meeting.opus");
        write(&mut Recording::create(&path).unwrap(), &heard(0), &SILENCE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        let error = Recording::create(&path).err().unwrap().to_string();
        assert!(error.contains("meeting.opus") && error.contains("no file yet"), "{error}");
        played(&path);
    }

    #[test]
    fn a_recording_is_one_from_the_beginning_whatever_becomes_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.opus");
        let _recording = Recording::create(&path).unwrap();
        let mut reader = ogg::PacketReader::new(File::open(&path).unwrap());
        for name in ["OpusHead", "OpusTags"] {
            assert!(reader.read_packet_expected().unwrap().data.starts_with(name.as_bytes()));
        }
    }

    #[test]
    fn a_recording_that_could_not_be_begun_is_reported_and_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.opus");
        let file = File::create(&path).unwrap();
        drop(file);
        // Opened for reading only: as on a full disk nothing can be written.
        let unwritable = File::open(&path).unwrap();
        assert!(matches!(Recording::of(&path, unwritable), Err(RecordError::Write { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_recording_whose_file_is_deleted_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.opus");
        let mut recording = Recording::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (0..2 * PAGE_FRAMES as usize).for_each(|n| write(&mut recording, &heard(n), &heard(n)));
        assert!(matches!(recording.finish(), Err(RecordError::Deleted { .. })));
    }

    #[test]
    fn a_recording_that_never_began_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.opus");
        Recording::create(&path).unwrap().finish().unwrap();
        assert!(!path.exists());
        drop(Recording::create(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn frames_lost_to_a_slow_disk_are_counted_and_keep_their_place() {
        let (ring, mut slow) = RingBuffer::new(2 * FRAME_SAMPLES);
        let path = PathBuf::new();
        let mut recording = Recording { path, ring: Some(ring), writer: None, has_begun: false, owed: 0, lost: 0 };
        (1..=3).for_each(|n| write(&mut recording, &[n as f32 / 10.0; FRAME_SAMPLES], &SILENCE));
        let mut found: Vec<f32> = std::iter::from_fn(|| slow.pop().ok()).collect();
        write(&mut recording, &[0.4; FRAME_SAMPLES], &SILENCE);
        found.extend(std::iter::from_fn(|| slow.pop().ok()));
        assert_eq!(found.iter().step_by(FRAME_SAMPLES).copied().collect::<Vec<_>>(), [0.1, 0.2, 0.0, 0.4]);
        assert_eq!(recording.lost(), FRAME_SAMPLES as u64);
    }
}
