//! OCB2 over AES-128 (Rogaway, "Efficient Instantiations of Tweakable Blockciphers and Refinements to Modes OCB and
//! PMAC", 2004), without associated data.
//!
//! OCB2 is broken: forgeries for it are known (Inoue, Iwata, Minematsu, Poettering, CRYPTO 2019). It is here because
//! Mumble servers speak nothing else, and for this benchmark alone.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Bytes of a block, a key, a nonce and a tag.
pub const BLOCK_LEN: usize = 16;

/// A block, as the big-endian number that doubling takes it for.
type Block = u128;

/// The mode with a key.
pub struct Ocb2(Aes128);

impl Ocb2 {
    /// The mode with this key.
    pub fn new(key: &[u8; BLOCK_LEN]) -> Self {
        Self(Aes128::new(&Array(*key)))
    }

    /// Encrypts in place and returns the tag.
    pub fn encrypt(&self, nonce: &[u8; BLOCK_LEN], text: &mut [u8]) -> [u8; BLOCK_LEN] {
        let mut offset = self.block(Block::from_be_bytes(*nonce));
        let mut checksum = 0;
        let (whole, last) = parts(text);
        for chunk in whole {
            offset = double(offset);
            let plain = Block::from_be_bytes(*chunk);
            checksum ^= plain;
            *chunk = (offset ^ self.block(offset ^ plain)).to_be_bytes();
        }
        offset = double(offset);
        let pad = self.pad(offset, last);
        checksum ^= with_tail_of(pad, last);
        mask(last, pad);
        self.tag(offset, checksum)
    }

    /// Decrypts in place and returns the tag that the text should have had.
    pub fn decrypt(&self, nonce: &[u8; BLOCK_LEN], text: &mut [u8]) -> [u8; BLOCK_LEN] {
        let mut offset = self.block(Block::from_be_bytes(*nonce));
        let mut checksum = 0;
        let (whole, last) = parts(text);
        for chunk in whole {
            offset = double(offset);
            let plain = offset ^ self.unblock(offset ^ Block::from_be_bytes(*chunk));
            checksum ^= plain;
            *chunk = plain.to_be_bytes();
        }
        offset = double(offset);
        let pad = self.pad(offset, last);
        mask(last, pad);
        checksum ^= with_tail_of(pad, last);
        self.tag(offset, checksum)
    }

    /// What the last block is masked with; it depends on its length in bits.
    fn pad(&self, offset: Block, last: &[u8]) -> Block {
        self.block(offset ^ (last.len() as Block * 8))
    }

    /// The tag, under three times the last offset.
    fn tag(&self, offset: Block, checksum: Block) -> [u8; BLOCK_LEN] {
        self.block(double(offset) ^ offset ^ checksum).to_be_bytes()
    }

    fn block(&self, block: Block) -> Block {
        let mut bytes = Array(block.to_be_bytes());
        self.0.encrypt_block(&mut bytes);
        Block::from_be_bytes(bytes.0)
    }

    fn unblock(&self, block: Block) -> Block {
        let mut bytes = Array(block.to_be_bytes());
        self.0.decrypt_block(&mut bytes);
        Block::from_be_bytes(bytes.0)
    }
}

/// All blocks but the last, and the last, which is whole or not, and empty only if the text is.
fn parts(text: &mut [u8]) -> (&mut [[u8; BLOCK_LEN]], &mut [u8]) {
    let whole = text.len().saturating_sub(1) / BLOCK_LEN * BLOCK_LEN;
    let (whole, last) = text.split_at_mut(whole);
    (whole.as_chunks_mut().0, last)
}

/// Times two in the field of 2^128 elements, with the polynomial x^128 + x^7 + x^2 + x + 1.
fn double(block: Block) -> Block {
    (block << 1) ^ ((block >> 127) * 0x87)
}

/// The bytes of `last`, and behind them those of the pad.
fn with_tail_of(pad: Block, last: &[u8]) -> Block {
    let mut bytes = pad.to_be_bytes();
    bytes[..last.len()].copy_from_slice(last);
    Block::from_be_bytes(bytes)
}

fn mask(last: &mut [u8], pad: Block) {
    for (byte, pad) in last.iter_mut().zip(pad.to_be_bytes()) {
        *byte ^= pad;
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    /// Key and nonce of the vectors in draft-krovetz-ocb-00, which Mumble's own tests use too.
    const COUNTING: [u8; BLOCK_LEN] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn check(length: u8, ciphertext: &str, tag: &str) {
        let plain: Vec<u8> = (0..length).collect();
        let mut text = plain.clone();
        let made = Ocb2::new(&COUNTING).encrypt(&COUNTING, &mut text);
        assert_eq!(HEXUPPER.encode(&text), ciphertext);
        assert_eq!(HEXUPPER.encode(&made), tag);
        assert_eq!(Ocb2::new(&COUNTING).decrypt(&COUNTING, &mut text), made);
        assert_eq!(text, plain);
    }

    #[test]
    fn vector_of_an_empty_text() {
        check(0, "", "BF3108130773AD5EC70EC69E7875A7B0");
    }

    #[test]
    fn vector_of_forty_bytes() {
        check(
            40,
            "F75D6BC8B4DC8D66B836A2B08B32A6369F1CD3C5228D79FD6C267F5F6AA7B231C7DFB9D59951AE9C",
            "9DB0CDF880F73E3E10D4EB3217766688",
        );
    }

    #[test]
    fn every_length_comes_back_and_no_changed_text_keeps_its_tag() {
        let mode = Ocb2::new(&COUNTING);
        for length in 1..70 {
            let plain = vec![0x5a; length];
            let mut text = plain.clone();
            let tag = mode.encrypt(&COUNTING, &mut text);
            let mut changed = text.clone();
            changed[length / 2] ^= 1;
            assert_eq!(mode.decrypt(&COUNTING, &mut text), tag);
            assert_eq!(text, plain);
            assert_ne!(mode.decrypt(&COUNTING, &mut changed), tag);
        }
    }
}
