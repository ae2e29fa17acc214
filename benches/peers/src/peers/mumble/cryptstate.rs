//! How Mumble uses OCB2: a counter as nonce for each way, of which a packet carries the lowest byte, and a short tag.
//!
//! ```text
//! counter's lowest byte ‖ first three bytes of the tag ‖ ciphertext
//! ```

use anyhow::{Context, Result};

use super::messages::CryptSetup;
use super::ocb2::{BLOCK_LEN, Ocb2};

/// Bytes of the tag that packets carry.
const TAG_LEN: usize = 3;
const HEADER_LEN: usize = 1 + TAG_LEN;

/// What the server gives a member: a key, and the counter of each way.
pub struct Keys {
    key: [u8; BLOCK_LEN],
    client: [u8; BLOCK_LEN],
    server: [u8; BLOCK_LEN],
}

impl TryFrom<CryptSetup> for Keys {
    type Error = anyhow::Error;

    fn try_from(setup: CryptSetup) -> Result<Self> {
        let block = |bytes: Option<Vec<u8>>| bytes.unwrap_or_default().try_into().ok().context("a key of no length");
        Ok(Self { key: block(setup.key)?, client: block(setup.client_nonce)?, server: block(setup.server_nonce)? })
    }
}

impl Keys {
    /// What seals a client's packets, and what opens a server's.
    pub fn states(&self) -> (Sealer, Opener) {
        let sealer = Sealer { mode: Ocb2::new(&self.key), counter: u128::from_le_bytes(self.client) };
        (sealer, Opener { mode: Ocb2::new(&self.key), counter: u128::from_le_bytes(self.server) })
    }
}

/// Seals packets of one way. Counters are little-endian.
pub struct Sealer {
    mode: Ocb2,
    counter: u128,
}

impl Sealer {
    /// The next packet.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        let nonce = self.counter.to_le_bytes();
        let mut packet = vec![0; HEADER_LEN];
        packet.extend(plain);
        let tag = self.mode.encrypt(&nonce, &mut packet[HEADER_LEN..]);
        packet[0] = nonce[0];
        packet[1..HEADER_LEN].copy_from_slice(&tag[..TAG_LEN]);
        packet
    }
}

/// Opens packets of one way, in whatever order they come within 128. It refuses no repetition, which a real client must.
pub struct Opener {
    mode: Ocb2,
    /// The highest so far.
    counter: u128,
}

impl Opener {
    /// The text of a packet, opened in place; `None` if it is not of this key.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let (header, text) = packet.split_at_mut_checked(HEADER_LEN)?;
        let ahead = header[0].wrapping_sub(self.counter.to_le_bytes()[0]).cast_signed();
        let counter = self.counter.wrapping_add_signed(ahead.into());
        let tag = self.mode.decrypt(&counter.to_le_bytes(), text);
        if tag[..TAG_LEN] != header[1..] {
            return None;
        }
        if ahead > 0 {
            self.counter = counter;
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sealer and an opener of the same way, from this counter.
    fn way(counter: [u8; BLOCK_LEN]) -> (Sealer, Opener) {
        Keys { key: [7; BLOCK_LEN], client: counter, server: counter }.states()
    }

    #[test]
    fn packets_open_across_loss_disorder_and_the_lowest_bytes_end() {
        let mut last = [0xff; BLOCK_LEN];
        last[0] = 200;
        let (mut sealer, mut opener) = way(last);
        let mut packets: Vec<Vec<u8>> = (0..300_u16).map(|number| sealer.seal(&number.to_be_bytes())).collect();
        packets.swap(54, 57);
        for packet in packets.iter_mut().step_by(3) {
            assert!(opener.open(packet).is_some());
        }
    }

    #[test]
    fn a_packet_opens_to_what_was_sealed_and_a_changed_one_not_at_all() {
        let (mut sealer, mut opener) = way([3; BLOCK_LEN]);
        let mut packet = sealer.seal(b"voice");
        let mut changed = packet.clone();
        changed[6] ^= 1;
        assert_eq!(opener.open(&mut changed), None);
        assert_eq!(opener.open(&mut packet), Some(&b"voice"[..]));
        assert_eq!(opener.open(&mut [0; 3]), None);
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        let setup = CryptSetup { key: Some(vec![1; 15]), client_nonce: Some(vec![2; 16]), server_nonce: None };
        assert!(Keys::try_from(setup).is_err());
    }
}
