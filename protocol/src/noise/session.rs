//! A session: Noise transport messages over an ordered channel of our own that survives the relay
//! (`docs/protocol.md` §4.4).
//!
//! Every record has a sequence number, equal to its Noise nonce since the session began, and is kept as sealed
//! bytes until the peer acknowledges it, so that what is sent again is the same ciphertext. Acknowledgements
//! travel inside records. A record that holds nothing else does not ask for one itself, as in QUIC
//! (RFC 9000 §13.2), so two idle ends fall silent.
//!
//! ```text
//! packet: kind u8 ‖ session 8 ‖ sequence u32 ‖ Noise transport message
//! plaintext: acknowledged u32 (records received so far) ‖ [message]
//! ```

use snow::{HandshakeState, TransportState};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::handshake::HandshakeError;
use crate::label;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::wire::control::Message;
use crate::wire::relay::MAX_PAYLOAD;

/// Names a session in packets: `H("conclave/1 session" ‖ h)[..8]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub [u8; 8]);

/// First byte of a session packet; the handshake's messages have others (`docs/protocol.md` §6.1).
pub const PACKET_KIND: u8 = 4;

const PACKET_HEADER: usize = 1 + 8 + 4;
/// A record's plaintext without a message.
const ACKNOWLEDGEMENT: usize = 4;

/// Most records that wait for an acknowledgement: at one heartbeat per 2 s, minutes of a peer that is away.
const MAX_UNACKNOWLEDGED: usize = 256;
/// First wait before everything unacknowledged is sent again. The relay's streams are reliable, so this only
/// mends what a relay lost on its way out; RFC 9002 §6.2.2 starts at 1 s without an RTT sample.
const RESEND_FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const RESEND_MAX: Duration = Duration::from_secs(8);
/// How long a received record may wait for a message that takes its acknowledgement along.
const ACK_DELAY: Duration = Duration::from_millis(200);

/// What is wrong with a packet or the session. To the peer all look alike: nothing is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// No packet, or a message that is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Of another session.
    #[error("a packet of another session")]
    OtherSession,
    /// Already processed, or ahead of one that is missing.
    #[error("a record out of order")]
    OutOfOrder,
    /// Does not authenticate; the session goes on.
    #[error("a record does not authenticate")]
    Unauthentic,
    /// Acknowledges what was never sent.
    #[error("an acknowledgement of something that was never sent")]
    BadAcknowledgement,
    /// The peer has acknowledged nothing for too long.
    #[error("the peer does not answer")]
    Stalled,
}

struct Sealed {
    packet: Vec<u8>,
    asks_ack: bool,
}

/// One end of a session.
pub struct Session {
    noise: TransportState,
    id: SessionId,
    handshake_hash: [u8; 32],
    /// Sequence number of the first record in `unacknowledged`.
    first_unacknowledged: u32,
    unacknowledged: VecDeque<Sealed>,
    /// Records received in order.
    received: u32,
    /// How many of them the newest record of ours acknowledges.
    told: u32,
    ack_due: Option<Instant>,
    resend_due: Option<Instant>,
    resend_wait: Duration,
}

impl Session {
    pub(super) fn new(noise: HandshakeState) -> Result<Self, HandshakeError> {
        let handshake_hash: [u8; 32] = noise.get_handshake_hash().try_into().map_err(|_| HandshakeError::Rejected)?;
        let hash = label::hash(label::SESSION, &[&handshake_hash]);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        Ok(Self {
            noise: noise.into_transport_mode()?,
            id: SessionId(id),
            handshake_hash,
            first_unacknowledged: 0,
            unacknowledged: VecDeque::new(),
            received: 0,
            told: 0,
            ack_due: None,
            resend_due: None,
            resend_wait: RESEND_FIRST,
        })
    }

    /// Its name on the wire.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// h of the finished handshake (Noise §11.2), equal on both ends.
    pub fn handshake_hash(&self) -> &[u8; 32] {
        &self.handshake_hash
    }

    /// The session that a packet belongs to, if it is one at all.
    pub fn id_of(packet: &[u8]) -> Option<SessionId> {
        match packet {
            [PACKET_KIND, rest @ ..] => rest.first_chunk::<8>().map(|id| SessionId(*id)),
            _ => None,
        }
    }

    /// Seals a message; gives the packet to send now. It is kept until acknowledged.
    ///
    /// # Errors
    /// [`SessionError::Stalled`] when too much is unacknowledged.
    pub fn send(&mut self, now: Instant, message: &Message) -> Result<Vec<u8>, SessionError> {
        let packet = self.seal(Some(message))?;
        if self.resend_due.is_none() {
            self.resend_due = Some(now + self.resend_wait);
        }
        if message.rekeys() {
            self.noise.rekey_outgoing();
        }
        Ok(packet)
    }

    /// Opens a packet. `Ok(None)` when it held only an acknowledgement.
    ///
    /// # Errors
    /// [`SessionError`]; the session's state is unchanged then, except that a repeated record starts the timers that
    /// tell the peer, and that a record which authenticates and holds no message counts as received.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Message>, SessionError> {
        let mut r = Reader::new(packet);
        if r.u8()? != PACKET_KIND || SessionId(r.array()?) != self.id {
            return Err(SessionError::OtherSession);
        }
        let sequence = r.u32()?;
        if sequence != self.received {
            if sequence < self.received {
                // The peer has not heard of this record. Either nothing of ours says so yet, or the record that does
                // was lost, and then the peer can read nothing after it until it comes again.
                if self.received > self.told {
                    self.ack_due = Some(self.ack_due.map_or(now, |due| due.min(now)));
                }
                if !self.unacknowledged.is_empty() {
                    self.resend_due.get_or_insert(now + self.resend_wait);
                }
            }
            return Err(SessionError::OutOfOrder);
        }
        let sealed = r.rest();
        let mut plaintext = Zeroizing::new(vec![0; sealed.len()]);
        let len = self.noise.read_message(sealed, &mut plaintext).map_err(|_| SessionError::Unauthentic)?;
        let Some(plaintext) = plaintext.get(..len) else { return Err(SessionError::Unauthentic) };
        self.received = self.received.saturating_add(1);
        let mut r = Reader::new(plaintext);
        self.acknowledge(now, r.u32()?)?;
        let body = r.rest();
        if body.is_empty() {
            return Ok(None);
        }
        self.ack_due.get_or_insert(now + ACK_DELAY);
        let message = Message::decode(body)?;
        if message.rekeys() {
            self.noise.rekey_incoming();
        }
        Ok(Some(message))
    }

    /// What must be sent at `now`: everything unacknowledged when the wait is over, and an acknowledgement that
    /// found no message to travel with.
    ///
    /// # Errors
    /// [`SessionError::Stalled`].
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) -> Result<(), SessionError> {
        if self.ack_due.take_if(|due| *due <= now).is_some() {
            out.push(self.seal(None)?);
        }
        if self.resend_due.is_some_and(|due| due <= now) {
            out.extend(self.unacknowledged.iter().map(|s| s.packet.clone()));
            self.resend_wait = (self.resend_wait * 2).min(RESEND_MAX);
            // Mere acknowledgements go out again only when the peer repeats itself: two idle ends fall silent.
            self.resend_due = self.waits_for_ack().then(|| now + self.resend_wait);
        }
        Ok(())
    }

    /// Everything unacknowledged, for a path that has just come up.
    pub fn resend(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if !self.unacknowledged.is_empty() {
            self.resend_wait = RESEND_FIRST;
            self.resend_due = Some(now + self.resend_wait);
        }
        self.unacknowledged.iter().map(|s| s.packet.clone()).collect()
    }

    /// Whether anything of the peer's was ever received in it.
    pub fn is_proven(&self) -> bool {
        self.received > 0
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.ack_due, self.resend_due].into_iter().flatten().min()
    }

    fn seal(&mut self, message: Option<&Message>) -> Result<Vec<u8>, SessionError> {
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            return Err(SessionError::Stalled);
        }
        // Cannot overflow before Noise refuses: a session ends long before 2³² records.
        let sequence = self.first_unacknowledged.wrapping_add(self.unacknowledged.len() as u32);
        let plaintext = Self::plaintext(self.received, message);
        let mut packet = vec![0; PACKET_HEADER + plaintext.len() + 16];
        packet[0] = PACKET_KIND;
        packet[1..9].copy_from_slice(&self.id.0);
        packet[9..13].copy_from_slice(&sequence.to_be_bytes());
        let sealed = self.noise.write_message(&plaintext, &mut packet[PACKET_HEADER..]);
        let len = sealed.map_err(|_| SessionError::Stalled)?;
        packet.truncate(PACKET_HEADER + len);
        self.unacknowledged.push_back(Sealed { packet: packet.clone(), asks_ack: message.is_some() });
        self.ack_due = None;
        self.told = self.received;
        Ok(packet)
    }

    /// The record's plaintext, in the only place where it ever is.
    fn plaintext(received: u32, message: Option<&Message>) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::reserving(if message.is_some() { MAX_PAYLOAD } else { ACKNOWLEDGEMENT });
        w.u32(received);
        if let Some(message) = message {
            message.write(&mut w);
        }
        Zeroizing::new(w.into_bytes())
    }

    fn acknowledge(&mut self, now: Instant, received: u32) -> Result<(), SessionError> {
        let count = received.wrapping_sub(self.first_unacknowledged) as usize;
        if count > self.unacknowledged.len() {
            // An old acknowledgement inside a record that was sealed before ours arrived.
            let behind = self.first_unacknowledged.wrapping_sub(received) as usize;
            return if behind <= MAX_UNACKNOWLEDGED { Ok(()) } else { Err(SessionError::BadAcknowledgement) };
        }
        if count > 0 {
            self.unacknowledged.drain(..count);
            self.first_unacknowledged = received;
            self.resend_wait = RESEND_FIRST;
        }
        self.resend_due = if !self.waits_for_ack() {
            None
        } else if count > 0 {
            Some(now + self.resend_wait)
        } else {
            self.resend_due
        };
        Ok(())
    }

    fn waits_for_ack(&self) -> bool {
        self.unacknowledged.iter().any(|sealed| sealed.asks_ack)
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolver::Resolver;
    use super::*;
    use crate::id::Epoch;

    /// Two ends of a session, from the shortest handshake there is.
    fn pair() -> (Session, Session) {
        let params = || "Noise_NN_25519_ChaChaPoly_SHA256".parse().expect("a pattern of Noise's");
        let builder = |key| snow::Builder::with_resolver(params(), Box::new(Resolver::new(Zeroizing::new([key; 32]))));
        let mut a = builder(1).build_initiator().expect("nothing is missing");
        let mut b = builder(2).build_responder().expect("nothing is missing");
        let (mut message, mut payload) = ([0; 256], [0; 256]);
        let len = a.write_message(&[], &mut message).expect("room");
        b.read_message(&message[..len], &mut payload).expect("what was written");
        let len = b.write_message(&[], &mut message).expect("room");
        a.read_message(&message[..len], &mut payload).expect("what was written");
        (Session::new(a).expect("finished"), Session::new(b).expect("finished"))
    }

    /// What `session` sends until `end`, and when its last timer fired; fails if it never rests.
    fn run(session: &mut Session, end: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for _ in 0..1_000 {
            let Some(due) = session.poll_timeout().filter(|due| *due <= end) else { return out };
            // A session that stalls says so, and must come to rest all the same.
            let _ = session.handle_timeout(due, &mut out);
        }
        panic!("a timer that fires for ever");
    }

    #[test]
    fn a_lost_acknowledgement_is_repeated_and_the_records_after_it_can_be_read() {
        let now = Instant::now();
        let (mut a, mut b) = pair();
        let packet = a.send(now, &Message::Waiting).expect("room");
        assert!(b.receive(now, &packet).is_ok());
        let lost = run(&mut b, now + ACK_DELAY);
        assert_eq!(lost.len(), 1);
        // The first end asks again, which is all that tells the other of its loss.
        let again = run(&mut a, now + RESEND_FIRST);
        let later = now + RESEND_FIRST;
        assert_eq!(b.receive(later, &again[0]).err(), Some(SessionError::OutOfOrder));
        let repeated = run(&mut b, later + RESEND_FIRST);
        assert_eq!(repeated, lost, "what is sent again is the same ciphertext");
        assert!(matches!(a.receive(later, &repeated[0]), Ok(None)));
        let next = b.send(later, &Message::Activate(Epoch::ZERO)).expect("room");
        assert!(matches!(a.receive(later, &next), Ok(Some(Message::Activate(_)))));
    }

    #[test]
    fn two_ends_with_nothing_to_say_fall_silent() {
        let now = Instant::now();
        let (mut a, mut b) = pair();
        let packet = a.send(now, &Message::Waiting).expect("room");
        assert!(b.receive(now, &packet).is_ok());
        for packet in run(&mut b, now + ACK_DELAY) {
            assert!(a.receive(now, &packet).is_ok());
        }
        // A new path repeats the acknowledgement once; nobody owes an answer to it.
        assert_eq!(b.resend(now).len(), 1);
        assert!(run(&mut b, now + RESEND_FIRST * 600).len() <= 1);
        assert!(run(&mut a, now + RESEND_FIRST * 600).is_empty());
    }

    #[test]
    fn a_peer_that_never_acknowledges_stalls_the_session_and_keeps_nobody_busy() {
        let mut now = Instant::now();
        let (mut a, mut b) = pair();
        let mut stalled = false;
        for _ in 0..2 * MAX_UNACKNOWLEDGED {
            // A peer that has heard nothing says so in every record.
            a.received = 0;
            if a.unacknowledged.pop_front().is_some() {
                a.first_unacknowledged += 1;
            }
            let packet = a.send(now, &Message::Waiting).expect("room");
            assert!(b.receive(now, &packet).is_ok());
            now += ACK_DELAY;
            stalled |= b.handle_timeout(now, &mut Vec::new()).is_err();
            assert!(b.poll_timeout().is_none_or(|due| due > now), "a deadline stays in the past");
            assert!(b.unacknowledged.len() <= MAX_UNACKNOWLEDGED);
        }
        assert!(stalled);
    }
}
