//! One connection: QUIC, its control stream, the frames that wait for it, and how far it has come.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use quinn_proto::{Connection, Transmit};

use super::along::Along;
use super::bundle::Bundle;
use super::frames::FrameId;
use crate::bucket::Rate;
use crate::core::{CloseCode, ConnId, Peer};
use crate::driver::control::{Control, Stopped, Written};
use crate::driver::source::Source;
use crate::gate::Prefix;
use crate::media::{self, Flags, Receipt, RelayPath, Secrets};

/// How long what is not a frame may wait for the next: a frame's duration. A packet for itself costs as much as one with
/// frames, and to say a little later that somebody spoke, or that a packet came, costs nothing.
pub(super) const WAIT: Duration = Duration::from_millis(20);

/// How long what may wait on the control stream does so at most where frames go in media packets: for others, so that one packet
/// carries several and is acknowledged by one.
const PATIENCE: Duration = Duration::from_millis(400);
/// So many connections that came after each other send it in the same round, and get their acknowledgements in one: each
/// round that is for this alone costs more than what is sent in it. More of them together would keep frames waiting.
const NEIGHBOURS: usize = 64;
/// By how much the rounds of one such group are behind those of the group before: not half of [`PATIENCE`] nor a third, and
/// after so many groups it has been everywhere.
const STAGGER: Duration = Duration::from_millis(140);
const GROUPS: usize = 20;

/// Bytes of control messages that a client gets in a millisecond where frames come: as much as has room beside those of three
/// talkers in a packet of QUIC's least MTU, so they cost no packet of their own there.
const RATE: usize = 30;
/// What goes at once, with frames in QUIC: the room of one moment.
const ALONG: Burst = Burst { least: 600, most: 600 };
/// Beside them: full packets, and two of them for what has waited.
const ALONE: Burst = Burst { least: 1_200, most: 2_600 };
/// What may go beyond that, of all clients: a newcomer's roster at once, but not the same long message to a thousand people,
/// for whose packets frames would wait a tenth of a second. One token is [`MORE`] bytes.
pub(super) const BEYOND: Rate = Rate { per_second: 1_000, burst: 250 };
pub(super) const MORE: usize = 1_000;

/// How long QUIC takes at most to validate where a client has moved to, or to go back: three probe timeouts (RFC 9000 §8.2.4), of
/// 0.9 s each where a round trip takes 0.3 s.
const VALIDATED: Duration = Duration::from_secs(3);

/// How many bytes go at once at least, unless there are no more, and at most.
#[derive(Clone, Copy)]
struct Burst {
    least: usize,
    most: usize,
}

/// How much of the control messages may go to a client: [`RATE`], in bursts.
#[derive(Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    saved: usize,
}

impl Pace {
    /// How many bytes may go now.
    fn room(&mut self, now: Instant, burst: Burst) -> usize {
        let elapsed = self.since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        let earned = usize::try_from(elapsed.as_millis()).unwrap_or(usize::MAX).saturating_mul(RATE);
        if earned > 0 {
            (self.since, self.saved) = (Some(now), self.saved.saturating_add(earned).min(burst.most));
        }
        if self.saved < burst.least { 0 } else { self.saved }
    }

    fn spend(&mut self, bytes: usize) {
        self.saved = self.saved.saturating_sub(bytes);
    }

    /// When there is room again.
    fn next(&self, now: Instant, burst: Burst) -> Instant {
        let missing = burst.least.saturating_sub(self.saved).div_ceil(RATE);
        now + Duration::from_millis(u64::try_from(missing).unwrap_or_default().max(1))
    }
}

/// See the module. What each frame touches stands first and together, and what only QUIC's packets do stands last: a relay that
/// wakes up for a meeting's frames finds little of this in the processor's cache.
#[repr(C, align(64))]
pub(super) struct Client {
    pub(super) stage: Stage,
    pub(super) queued: Queued,
    pub(super) bundle: Bundle,
    pub(super) along: Along,
    /// From its first media packet on.
    media: Option<RelayPath>,
    /// Where media packets go, and what they say about where they come from.
    path: (SocketAddr, Option<IpAddr>),
    source: Source,
    /// When it has moved.
    moved: Option<Instant>,
    /// When it is to ask next whether media packets get through.
    asks_at: Instant,
    pub(super) control: Option<Control>,
    pace: Pace,
    /// What may wait leaves at times that are multiples of [`PATIENCE`] from then.
    departures: Instant,
    /// Control messages wait until then.
    write_again: Option<Instant>,
    /// Not to be read before.
    pub(super) read_again: Option<Instant>,
    /// Datagrams that were read.
    pub(super) datagrams: u64,
    /// What names it in media packets.
    pub(super) media_id: Option<u64>,
    pub(super) quic: Connection,
}

/// In which of the shell's queues a connection is already.
#[derive(Default)]
pub(super) struct Queued {
    /// A packet came.
    pub(super) dirty: bool,
    /// Its messages and packets are to be looked at.
    pub(super) unsettled: bool,
    /// Its control stream is to be read.
    pub(super) readable: bool,
    /// Its frames are to leave.
    pub(super) ready: bool,
    /// What it is sent beside frames waits for its next frames, and no longer than until then.
    pub(super) waits_until: Option<Instant>,
}

/// How far a connection has come.
pub(super) enum Stage {
    /// It shakes hands.
    Handshake {
        /// Until then.
        until: Instant,
    },
    /// It has shaken hands, and its first message is awaited.
    Hello {
        /// Until then.
        until: Instant,
        /// Who it is.
        peer: Peer,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
    },
    /// The core knows it.
    Open {
        /// As whom.
        conn: ConnId,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
    },
    /// The core knows it, and has nothing more to hear from it or to say to it.
    Closing {
        /// As whom.
        conn: ConnId,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
        /// What it will be told.
        code: CloseCode,
        /// The queued messages may take until then.
        until: Instant,
    },
    /// It is over; QUIC says good-bye.
    Over,
}

impl Client {
    /// The connection of that number, whose handshake may take until `until`; `start` is the same for all.
    pub(super) fn new(quic: Connection, at: usize, start: Instant, until: Instant) -> Self {
        let group = u32::try_from(at / NEIGHBOURS % GROUPS).unwrap_or_default();
        Self {
            departures: start + STAGGER * group,
            asks_at: start,
            path: (quic.remote_address(), None),
            quic,
            stage: Stage::Handshake { until },
            control: None,
            bundle: Bundle::new(),
            along: Along::default(),
            pace: Pace::default(),
            write_again: None,
            read_again: None,
            datagrams: 0,
            queued: Queued::default(),
            media_id: None,
            media: None,
            source: Source::default(),
            moved: None,
        }
    }

    /// Reads what a frame for it touches. A relay that has slept for 20 ms finds little of that in the processor's cache, and
    /// waits some 0.2 µs for each place; reads that don't depend on each other wait at the same time.
    pub(super) fn touch(&self) -> u64 {
        let is_open = u64::from(self.heard_as().is_some());
        is_open ^ u64::from(self.queued.ready) ^ self.bundle.waiting().len() as u64
    }

    /// The same for what sending touches.
    pub(super) fn touch_media(&self) -> u64 {
        let path = u64::from(self.path.0.port()) ^ u64::from(self.asks_at > self.departures);
        path ^ self.along.waiting().len() as u64 ^ self.media.as_ref().map_or(0, RelayPath::touch)
    }

    /// Whether the core knows it by this name.
    pub(super) fn is(&self, wanted: ConnId) -> bool {
        matches!(self.stage, Stage::Open { conn, .. } | Stage::Closing { conn, .. } if conn == wanted)
    }

    /// As whom the core hears it.
    pub(super) fn heard_as(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Open { conn, .. } => Some(conn),
            _ => None,
        }
    }

    /// It may have another address. If QUIC asks there, it waits for the answer for three probe timeouts, 0.1 s on a short
    /// path, and else goes on with the old one (RFC 9000 §8.2.4): so the question must not wait for frames.
    pub(super) fn answer_at_once(&mut self, now: Instant) {
        self.queued.waits_until = Some(now);
    }

    /// Whether what it is to be sent waits: frames that it can go with come in a moment, or have been waited for in vain.
    pub(super) fn waits_for_frames(&mut self, now: Instant) -> bool {
        let is_waiting = match self.queued.waits_until {
            Some(until) => until > now,
            None => self.heard_as().is_some() && self.bundle.is_busy(now),
        };
        if is_waiting {
            self.queued.waits_until.get_or_insert(now + WAIT);
        }
        is_waiting
    }

    /// A control message has been queued that may wait for others: until when it does; `None` if it goes as any other.
    pub(super) fn may_wait(&mut self, now: Instant) -> Option<Instant> {
        let may_wait = self.takes_media(now) && self.bundle.is_busy(now);
        may_wait.then(|| *self.queued.waits_until.get_or_insert(next_after(self.departures, now, PATIENCE)))
    }

    /// There is something to be sent that does not wait as long as that.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.queued.waits_until = self.queued.waits_until.map(|until| until.min(now + WAIT));
    }

    /// Whether control messages that may wait go along with frames.
    pub(super) fn takes_along(&self, now: Instant) -> bool {
        let media = self.media.as_ref().filter(|_| self.has_settled(now));
        media.is_some_and(|media| media.carries_messages(now)) && self.bundle.is_busy(now)
    }

    /// Whether messages have waited for frames in vain.
    pub(super) fn has_left_behind(&self, now: Instant) -> bool {
        self.along.until().is_some_and(|until| until <= now)
    }

    /// Hands QUIC what waits on the control stream. Where frames come, that is no more than can go along with them, and what
    /// `beyond` gives for it; unless so much waits that the client would be taken for one that does not read.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn write_control(&mut self, now: Instant, mut beyond: impl FnMut() -> bool) -> Result<Written, Stopped> {
        let is_busy = self.heard_as().is_some() && self.bundle.is_busy(now);
        let burst = if self.takes_media(now) { ALONE } else { ALONG };
        let Some(control) = &mut self.control else { return Ok(Written::default()) };
        self.write_again = None;
        if !is_busy || control.is_long() {
            return control.write(&mut self.quic, usize::MAX);
        }
        let room = self.pace.room(now, burst);
        let mut written = if room > 0 { control.write(&mut self.quic, room)? } else { Written::default() };
        self.pace.spend(written.taken);
        // What QUIC takes no more of is written when it does.
        let mut is_taken = written.taken > 0 || room == 0;
        while is_taken && control.is_waiting() {
            if !beyond() {
                self.write_again = Some(self.pace.next(now, burst));
                break;
            }
            let more = control.write(&mut self.quic, MORE)?;
            is_taken = more.taken > 0;
            written += more;
        }
        Ok(written)
    }

    /// When it is to be looked at, whatever happens before.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Handshake { until } | Stage::Hello { until, .. } | Stage::Closing { until, .. } => Some(until),
            Stage::Open { .. } | Stage::Over => None,
        };
        [
            self.quic.poll_timeout(),
            stage,
            self.read_again,
            self.write_again,
            self.queued.waits_until,
            self.along.until(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Opens a media packet in place; whose it is, and what it says beside its items. `None` for one that is not authentic,
    /// has come before, or of which the core is not to hear. Messages that will not come beside QUIC go to `lost`.
    pub(super) fn open_media(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        lost: impl FnMut(FrameId),
    ) -> Option<(ConnId, Flags)> {
        let conn = self.heard_as()?;
        if self.media.is_none() {
            self.media = Secrets::of_driven(&self.quic).and_then(|secrets| RelayPath::new(&secrets));
            self.path.0 = self.quic.remote_address();
            self.locate(now);
        }
        let media = self.media.as_mut()?;
        let flags = media.open(now, packet)?;
        let is_unheard = media.is_unheard(now);
        if is_unheard {
            self.source.insist();
        }
        if flags.asks && !flags.hears {
            media.give_up(now, by_id(lost));
        }
        if is_unheard {
            self.locate(now);
        }
        Some((conn, flags))
    }

    /// It tells which media packets have come: the messages of those that have not go to `lost`.
    pub(super) fn settle_media(&mut self, now: Instant, receipt: &Receipt, lost: impl FnMut(FrameId)) {
        if let Some(media) = &mut self.media {
            media.settle(now, receipt, by_id(lost));
        }
    }

    /// The media packet that was completed last brings that message.
    pub(super) fn note_message(&mut self, now: Instant, message: FrameId) {
        if let Some(media) = &mut self.media {
            media.note(now, message.to_u64());
        }
    }

    /// The answer to one that asks, unless the next frames take it along.
    pub(super) fn answer_media(&mut self, now: Instant) -> Option<(Transmit, Vec<u8>)> {
        if self.takes_media(now) && self.bundle.is_busy(now) {
            // Should none come after all, it is asked again.
            self.media.as_mut()?.answer_along(now);
            return None;
        }
        let mut buffer = Vec::new();
        let is_made = self.media.as_mut()?.answer(&mut buffer);
        is_made.then(|| (self.direct(&buffer), buffer))
    }

    /// Whether its frames go in media packets.
    pub(super) fn takes_media(&self, now: Instant) -> bool {
        self.media.as_ref().is_some_and(|media| media.carries(now)) && self.has_settled(now)
    }

    /// Completes a media packet.
    pub(super) fn complete_media(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let asks = self.asks_at <= now;
        if asks {
            self.asks_at = next_after(self.departures, now, media::ASK_EVERY);
        }
        let is_made = self.media.as_mut()?.seal(now, asks, buffer);
        is_made.then(|| self.direct(buffer))
    }

    /// Sees where QUIC has found the client, if media packets go there. Where it has moved to, QUIC validates only then: for so
    /// long they don't go there, and frames go in QUIC, which sends an address that is not proved no more than it has got from it
    /// (RFC 9000 §9.3).
    pub(super) fn locate(&mut self, now: Instant) {
        if self.media.is_none() {
            return;
        }
        let remote = self.quic.remote_address();
        if remote != self.path.0 {
            self.moved = Some(now);
        }
        self.path = (remote, self.source.of(remote, self.quic.local_ip()));
    }

    /// Whether it has been where it is for long enough for QUIC to know, or to have gone back.
    fn has_settled(&self, now: Instant) -> bool {
        self.moved.is_none_or(|moved| now.saturating_duration_since(moved) >= VALIDATED)
    }

    fn direct(&self, packet: &[u8]) -> Transmit {
        let (remote, local) = self.path;
        media::transmit(remote, local, packet)
    }

    /// Datagrams that came and were never read.
    pub(super) fn unread(&self) -> u64 {
        self.quic.stats().frame_rx.datagram.saturating_sub(self.datagrams)
    }
}

fn by_id(mut lost: impl FnMut(FrameId)) -> impl FnMut(u64) {
    move |message| lost(FrameId::of_u64(message))
}

/// The first multiple of `every` after `now`, counted from `start`.
fn next_after(start: Instant, now: Instant, every: Duration) -> Instant {
    let since = now.saturating_duration_since(start).as_micros();
    let past = u64::try_from(since % every.as_micros()).unwrap_or_default();
    now + (every - Duration::from_micros(past))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_wait_leaves_with_that_of_others_and_no_later_than_it_may() {
        let start = Instant::now();
        let waits = [0, 1, 399, 400, 401, 1_000].map(|at| {
            let now = start + Duration::from_millis(at);
            (next_after(start, now, PATIENCE) - now).as_millis()
        });
        assert_eq!(waits, [400, 399, 1, 400, 399, 200]);
        let offsets: std::collections::BTreeSet<u128> =
            (0..GROUPS).map(|group| (STAGGER * u32::try_from(group).unwrap()).as_millis() % 400).collect();
        assert_eq!(offsets.len(), GROUPS);
    }

    #[test]
    fn along_with_the_frames_of_each_moment_goes_as_much_as_has_room_there() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.room(start, ALONG), 600);
        pace.spend(450);
        assert_eq!(pace.room(start + WAIT / 2, ALONG), 0);
        assert_eq!(pace.next(start + WAIT / 2, ALONG), start + WAIT * 3 / 4);
        assert_eq!(pace.room(start + WAIT, ALONG), 600);
        pace.spend(600);
        let moments = (1..=500).filter(|moment| {
            let room = pace.room(start + WAIT + Duration::from_millis(2) * *moment, ALONG);
            pace.spend(room);
            room > 0
        });
        assert_eq!(moments.count(), 50, "in a second");
    }

    #[test]
    fn beside_frames_go_full_packets_and_two_after_a_while() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.room(start, ALONE), 2_600);
        pace.spend(2_600);
        assert_eq!(pace.room(start + WAIT, ALONE), 0);
        assert_eq!(pace.next(start + WAIT, ALONE), start + WAIT * 2);
        assert_eq!(pace.room(start + WAIT * 2, ALONE), 1_200);
        assert_eq!(pace.room(start + WAIT * 20, ALONE), 2_600);
    }
}
