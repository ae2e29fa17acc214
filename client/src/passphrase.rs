//! Secrets under a passphrase: sealed by XChaCha20-Poly1305 under an Argon2id key.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Environment variable with the passphrase.
pub const VARIABLE: &str = "CONCLAVE_PASSPHRASE";
/// Memory in KiB, passes and lanes of Argon2id: 0.2 s on a laptop (research/security.md §3.13).
const ARGON2: (u32, u32, u32) = (64 * 1024, 3, 1);

/// A sealed secret, as it stands in a file.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

impl Sealed {
    /// Whether it asks for no more than four times today's cost. What asks for more is no file of ours but one that is
    /// meant to exhaust memory.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.memory_kib <= 4 * ARGON2.0 && self.passes <= 4 * ARGON2.1 && self.lanes <= 4
    }

    /// Opens it; `None` when the passphrase is another, or the context. Gives the passphrase's key too, for what else
    /// it seals.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open(&self, passphrase: &str, context: &[u8]) -> Result<Option<(Zeroizing<Vec<u8>>, Wrapping)>> {
        if !self.is_plausible() {
            bail!("it asks for more memory or time than any program of this kind");
        }
        let decode = |text: &str| BASE64.decode(text.as_bytes());
        let wrapping = Wrapping::derive(passphrase, decode(&self.salt)?, (self.memory_kib, self.passes, self.lanes))?;
        let nonce: [u8; 24] = decode(&self.nonce)?.try_into().map_err(|_| anyhow!("a nonce of a wrong length"))?;
        let payload = Payload { msg: &decode(&self.sealed)?, aad: context };
        let opened = XChaCha20Poly1305::new(wrapping.key().into()).decrypt(&nonce.into(), payload);
        Ok(opened.ok().map(|secret| (Zeroizing::new(secret), wrapping)))
    }
}

/// Argon2id's output for one passphrase, and what it came from.
pub struct Wrapping {
    key: Zeroizing<[u8; 32]>,
    salt: Vec<u8>,
    cost: (u32, u32, u32),
}

impl Wrapping {
    /// The key of a passphrase, with a new salt.
    ///
    /// # Errors
    /// Of Argon2id, such as for lack of memory.
    pub fn new(passphrase: &str, rng: &mut impl rand_core::CryptoRng) -> Result<Self> {
        let mut salt = vec![0; 16];
        rng.fill_bytes(&mut salt);
        Self::derive(passphrase, salt, ARGON2)
    }

    fn derive(passphrase: &str, salt: Vec<u8>, cost: (u32, u32, u32)) -> Result<Self> {
        let (memory, passes, lanes) = cost;
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(|e| anyhow!("Argon2id: {e}"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut())
            .map_err(|e| anyhow!("Argon2id: {e}"))?;
        Ok(Self { key, salt, cost })
    }

    /// The key of the same passphrase, typed again.
    #[cfg(test)]
    pub(crate) fn again(&self, passphrase: &str) -> Result<Self> {
        Self::derive(passphrase, self.salt.clone(), self.cost)
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Seals a secret. Only who names the same context opens it, so that a file of one kind cannot be passed off as
    /// one of another.
    ///
    /// # Errors
    /// When the secret is too long for the cipher.
    pub fn seal(&self, secret: &[u8], context: &[u8], rng: &mut impl rand_core::CryptoRng) -> Result<Sealed> {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: secret, aad: context };
        let sealed = XChaCha20Poly1305::new((&*self.key).into()).encrypt(&nonce.into(), payload);
        let sealed = BASE64.encode(&sealed.ok().context("sealing failed")?);
        let (memory_kib, passes, lanes) = self.cost;
        let [salt, nonce] = [BASE64.encode(&self.salt), BASE64.encode(&nonce)];
        Ok(Sealed { memory_kib, passes, lanes, salt, nonce, sealed })
    }
}

/// The passphrase that the environment gives, unless it is empty.
#[must_use]
pub fn from_environment() -> Option<Zeroizing<String>> {
    std::env::var(VARIABLE).ok().map(Zeroizing::new).filter(|p| !p.is_empty())
}

/// Whether somebody sits there who can be asked.
#[must_use]
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks twice for a new passphrase; `None` when the answer is empty.
///
/// # Errors
/// In words, also when the two differ.
pub fn ask_new(what: &str) -> Result<Option<Zeroizing<String>>> {
    let passphrase = Zeroizing::new(rpassword::prompt_password(format!("Passphrase for {what} (empty for none): "))?);
    if passphrase.is_empty() {
        return Ok(None);
    }
    let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
    if *again != *passphrase {
        bail!("the two passphrases differ; nothing was written");
    }
    Ok(Some(passphrase))
}

/// Asks for the passphrase of what is in a file.
///
/// # Errors
/// In words, also when nobody can be asked.
pub fn ask(what: &str, path: &Path) -> Result<Zeroizing<String>> {
    if !can_ask() {
        bail!("{what} in {} has a passphrase: give it in {VARIABLE}", path.display());
    }
    Ok(Zeroizing::new(rpassword::prompt_password(format!("Passphrase of {what}: "))?))
}
