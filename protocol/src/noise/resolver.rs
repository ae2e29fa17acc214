//! Noise's primitives for `snow`, from the same generation of crates as everything else, so that the program holds
//! each cryptographic crate once (`docs/protocol.md` §4).

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use sha2::{Digest, Sha256};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Resolves to X25519, ChaCha20-Poly1305 and SHA-256, and to nothing else. The only randomness a handshake
/// draws is its 32-byte ephemeral key, which the caller hands over.
pub(super) struct Resolver {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Resolver {
    pub(super) fn new(ephemeral: Zeroizing<[u8; 32]>) -> Self {
        Self { ephemeral }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::default())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(HashSha256::default())),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(ChaChaPoly { key: Zeroizing::new([0; 32]) })),
            _ => None,
        }
    }
}

/// Gives its 32 bytes once. A second draw is an error, never a repeat.
struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != bytes.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(bytes.as_ref());
        Ok(())
    }
}

struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Default for X25519 {
    fn default() -> Self {
        Self { secret: Zeroizing::new([0; 32]), public: [0; 32] }
    }
}

impl X25519 {
    fn install(&mut self, secret: &[u8; 32]) {
        self.secret.copy_from_slice(secret);
        self.public = PublicKey::from(&StaticSecret::from(*secret)).to_bytes();
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }
    fn pub_len(&self) -> usize {
        32
    }
    fn priv_len(&self) -> usize {
        32
    }
    fn set(&mut self, privkey: &[u8]) {
        if let Ok(secret) = <&[u8; 32]>::try_from(privkey) {
            self.install(secret);
        }
    }
    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(secret.as_mut())?;
        self.install(&secret);
        Ok(())
    }
    fn pubkey(&self) -> &[u8] {
        &self.public
    }
    fn privkey(&self) -> &[u8] {
        self.secret.as_ref()
    }
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let their: [u8; 32] = pubkey.get(..32).and_then(|k| k.try_into().ok()).ok_or(Error::Dh)?;
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(their));
        // A low-order point would make the shared secret known to everybody.
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct HashSha256 {
    state: Sha256,
}

impl Hash for HashSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }
    fn block_len(&self) -> usize {
        64
    }
    fn hash_len(&self) -> usize {
        32
    }
    fn reset(&mut self) {
        self.state = Sha256::new();
    }
    fn input(&mut self, data: &[u8]) {
        self.state.update(data);
    }
    fn result(&mut self, out: &mut [u8]) {
        let digest = self.state.finalize_reset();
        out[..32].copy_from_slice(&digest);
    }
}

struct ChaChaPoly {
    key: Zeroizing<[u8; 32]>,
}

const TAG: usize = 16;

impl ChaChaPoly {
    /// Noise §12.3: 32 zero bits, then the counter, little-endian.
    fn nonce(counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key.copy_from_slice(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let len = plaintext.len();
        let (body, rest) = out.split_at_mut(len);
        body.copy_from_slice(plaintext);
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let sealed = cipher.encrypt_inout_detached(&Self::nonce(nonce).into(), authtext, InOutBuf::from(&mut *body));
        // Sealing fails only above 256 GiB; Noise messages end at 64 KiB. A zero tag would open nowhere.
        debug_assert!(sealed.is_ok());
        rest[..TAG].copy_from_slice(&sealed.map(Into::<[u8; TAG]>::into).unwrap_or([0; TAG]));
        len + TAG
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (body, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(body);
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let nonce = Self::nonce(nonce).into();
        let opened = cipher.decrypt_inout_detached(&nonce, authtext, InOutBuf::from(&mut *out), tag.into());
        if opened.is_err() {
            out.fill(0);
            return Err(Error::Decrypt);
        }
        Ok(body.len())
    }
}
