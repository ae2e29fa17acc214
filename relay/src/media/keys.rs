//! Keys of media packets, and their protection.
//!
//! RFC 9001 §5.3 and §5.4 as they are, by `rustls`, with AEAD_AES_256_GCM; only the keys come from the TLS exporter.

use std::fmt;

use quinn_proto::crypto::ExportKeyingMaterialError;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384;
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey};
use zeroize::Zeroizing;

use super::packet::{DESTINATION, Flags, HEADER, MAX_PACKET, NUMBER, TAG};
use super::window::{Receipt, Window};

/// Label of the TLS exporter (RFC 8446 §7.5, empty context).
const LABEL: &[u8] = b"EXPORTER-conclave/1 media";

/// Bytes of a direction's destination, key of the AEAD, its IV, and key of header protection.
const PARTS: [usize; 4] = [8, 32, 12, 32];
const DIRECTION: usize = PARTS[0] + PARTS[1] + PARTS[2] + PARTS[3];

/// Packets under one key: AES-GCM's confidentiality limit for packets of up to 2^11 bytes (RFC 9001 §B.1.1), two months of a
/// talker. Beyond it frames travel in QUIC, which changes its keys.
const MOST: u32 = 1 << 28;

/// What the two ends of a connection derive from its TLS session for media packets.
pub struct Secrets {
    to_relay: Direction,
    to_client: Direction,
}

impl Secrets {
    /// Those of one of `quinn`'s connections; `None` before its handshake is complete.
    #[must_use]
    pub fn of(connection: &quinn::Connection) -> Option<Self> {
        Self::exported(|out| connection.export_keying_material(out, LABEL, b""))
    }

    /// The same for a connection that one's own loop drives.
    #[must_use]
    pub fn of_driven(connection: &quinn_proto::Connection) -> Option<Self> {
        Self::exported(|out| connection.crypto_session().export_keying_material(out, LABEL, b""))
    }

    /// The direction to the relay comes first.
    pub(super) fn exported(export: impl FnOnce(&mut [u8]) -> Result<(), ExportKeyingMaterialError>) -> Option<Self> {
        let mut both = Zeroizing::new([0; 2 * DIRECTION]);
        export(&mut both[..]).ok()?;
        let (to_relay, to_client) = both.split_at(DIRECTION);
        Some(Self { to_relay: Direction::read(to_relay)?, to_client: Direction::read(to_client)? })
    }

    /// What names this connection in packets to the relay.
    #[must_use]
    pub fn at_relay(&self) -> u64 {
        u64::from_be_bytes(self.to_relay.destination)
    }

    /// What names it in packets to the client.
    #[must_use]
    pub fn at_client(&self) -> u64 {
        u64::from_be_bytes(self.to_client.destination)
    }

    /// The client's ends: what it sends by, and what it opens.
    #[must_use]
    pub fn client(&self) -> Option<(Sealer, Opener)> {
        Some((Sealer::new(&self.to_relay)?, Opener::new(&self.to_client)?))
    }

    /// The relay's ends.
    #[must_use]
    pub fn relay(&self) -> Option<(Sealer, Opener)> {
        Some((Sealer::new(&self.to_client)?, Opener::new(&self.to_relay)?))
    }
}

/// The secrets of one direction.
struct Direction {
    destination: [u8; PARTS[0]],
    key: Zeroizing<[u8; PARTS[1]]>,
    iv: Zeroizing<[u8; PARTS[2]]>,
    header: Zeroizing<[u8; PARTS[3]]>,
}

impl Direction {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (destination, bytes) = bytes.split_first_chunk()?;
        let (key, bytes) = bytes.split_first_chunk()?;
        let (iv, bytes) = bytes.split_first_chunk()?;
        let header = bytes.first_chunk()?;
        let (key, iv, header) = (Zeroizing::new(*key), Zeroizing::new(*iv), Zeroizing::new(*header));
        Some(Self { destination: *destination, key, iv, header })
    }
}

struct Keys {
    packet: Box<dyn PacketKey>,
    header: Box<dyn HeaderProtectionKey>,
}

impl Keys {
    fn new(direction: &Direction) -> Option<Self> {
        let algorithm = algorithm()?;
        Some(Self {
            packet: algorithm.packet_key(AeadKey::from(*direction.key), Iv::from(*direction.iv)),
            header: algorithm.header_protection_key(AeadKey::from(*direction.header)),
        })
    }
}

fn algorithm() -> Option<&'static dyn Algorithm> {
    TLS13_AES_256_GCM_SHA384.tls13()?.quic
}

/// Makes the packets of one direction.
pub struct Sealer {
    keys: Keys,
    destination: [u8; 8],
    next: u32,
}

impl Sealer {
    fn new(direction: &Direction) -> Option<Self> {
        Some(Self { keys: Keys::new(direction)?, destination: direction.destination, next: 0 })
    }

    /// Whether the key may protect another packet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.next < MOST
    }

    /// Reads what making a packet reads first, so that it is in the processor's cache then.
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.next) ^ self.keys.packet.confidentiality_limit() ^ self.keys.header.sample_len() as u64
    }

    /// The number of the last packet; `None` before the first.
    pub(super) fn last(&self) -> Option<u32> {
        self.next.checked_sub(1)
    }

    /// Completes a packet whose items are in `buffer` behind room for the header; `false`, and an empty buffer, if that
    /// cannot be done.
    #[must_use]
    pub(super) fn seal(&mut self, flags: Flags, buffer: &mut Vec<u8>) -> bool {
        let is_sealed = self.is_fresh() && buffer.len() + TAG <= MAX_PACKET && self.protect(flags, buffer).is_some();
        if !is_sealed {
            buffer.clear();
        }
        is_sealed
    }

    fn protect(&mut self, flags: Flags, buffer: &mut Vec<u8>) -> Option<()> {
        let number = self.next;
        self.next += 1;
        let (header, frames) = buffer.split_at_mut_checked(HEADER)?;
        header[0] = flags.first_byte();
        header[DESTINATION].copy_from_slice(&self.destination);
        header[NUMBER].copy_from_slice(&number.to_be_bytes());
        let tag = self.keys.packet.encrypt_in_place(u64::from(number), header, frames).ok()?;
        buffer.extend_from_slice(tag.as_ref());
        let (header, protected) = buffer.split_at_mut(HEADER);
        let sample = protected.get(..self.keys.header.sample_len())?;
        let (first, rest) = header.split_first_mut()?;
        self.keys.header.encrypt_in_place(sample, first, &mut rest[NUMBER.start - 1..]).ok()
    }
}

/// Opens the packets of one direction, each once.
pub struct Opener {
    keys: Keys,
    window: Window,
}

impl Opener {
    fn new(direction: &Direction) -> Option<Self> {
        Some(Self { keys: Keys::new(direction)?, window: Window::default() })
    }

    /// Which packets have come.
    pub(super) fn receipt(&self) -> Receipt {
        self.window.receipt()
    }

    /// Opens a packet in place, whose items are then readable; `None` for one that is not authentic or has come before. Tells
    /// with its flags whether packets before it are missing for the first time.
    #[must_use]
    pub(super) fn open(&mut self, packet: &mut [u8]) -> Option<(Flags, bool)> {
        let (header, protected) = packet.split_at_mut_checked(HEADER)?;
        let sample = protected.get(..self.keys.header.sample_len())?;
        let (first, rest) = header.split_first_mut()?;
        self.keys.header.decrypt_in_place(sample, first, &mut rest[NUMBER.start - 1..]).ok()?;
        let number = u32::from_be_bytes(*header[NUMBER].first_chunk()?);
        if !self.window.is_new(number) {
            return None;
        }
        self.keys.packet.decrypt_in_place(u64::from(number), header, protected).ok()?;
        let is_gap = self.window.record(number);
        Some((Flags::of(header[0]), is_gap))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}
