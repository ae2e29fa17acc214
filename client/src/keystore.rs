//! The identity that is kept between meetings: one file, readable by its owner only.
//!
//! With a passphrase the file holds the Ed25519 seed sealed by XChaCha20-Poly1305 under an Argon2id key; without
//! one, the seed itself.

use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use conclave_protocol::identity::Identity;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Environment variable with the passphrase.
pub const PASSPHRASE_VARIABLE: &str = "CONCLAVE_PASSPHRASE";

const FILE: &str = "identity.json";
/// Largest file that is read: ten times what is ever written.
const MAX_FILE: u64 = 4_096;
/// Memory in KiB, passes and lanes of Argon2id: 0.2 s on a laptop (research/security.md §3.13).
const ARGON2: (u32, u32, u32) = (64 * 1024, 3, 1);
/// Bound to the ciphertext, so that a file of another kind cannot be passed off as this one.
const CONTEXT: &[u8] = b"conclave/1 keystore";

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    key: StoredKey,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "protection", rename_all = "snake_case")]
enum StoredKey {
    None { seed: String },
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: String, nonce: String, sealed: String },
}

/// The identity kept in `home`, made there if there is none yet.
///
/// # Errors
/// When the directory or file cannot be used, is readable by others, or the passphrase does not open it.
pub fn open_or_create(home: &Path, rng: &mut impl rand_core::CryptoRng) -> Result<Identity> {
    let path = home.join(FILE);
    if path.exists() {
        return open(&path);
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .with_context(|| format!("cannot make the directory {}", home.display()))?;
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    let key = match new_passphrase()? {
        Some(passphrase) => seal(&seed, &passphrase, rng)?,
        None => StoredKey::None { seed: BASE64.encode(seed.as_ref()) },
    };
    write(&path, &Stored { version: 1, key })?;
    Ok(Identity::kept(&seed))
}

fn open(path: &Path) -> Result<Identity> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open the identity in {shown}"))?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!(
            "the identity in {shown} can be read by others: run chmod 600 on it, or make a new one in another --home"
        );
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text).with_context(|| format!("cannot read the identity in {shown}"))?;
    let damaged = || format!("the identity in {shown} is damaged: restore it, or use another --home for a new one");
    let stored: Stored = serde_json::from_str(&text).with_context(damaged)?;
    if stored.version != 1 {
        bail!("the identity in {shown} was made by another version");
    }
    let seed = match stored.key {
        StoredKey::None { seed } => {
            let seed = Zeroizing::new(seed);
            Zeroizing::new(BASE64.decode(seed.as_bytes()).with_context(damaged)?)
        }
        StoredKey::Argon2id { memory_kib, passes, lanes, salt, nonce, sealed } => {
            // More than four times today's cost is no file of ours but one that is meant to exhaust memory.
            if memory_kib > 4 * ARGON2.0 || passes > 4 * ARGON2.1 || lanes > 4 {
                bail!(damaged());
            }
            let passphrase = existing_passphrase(path)?;
            let decode = |text: &str| BASE64.decode(text.as_bytes()).with_context(damaged);
            let key = derive(&passphrase, &decode(&salt)?, (memory_kib, passes, lanes))?;
            let nonce: [u8; 24] = decode(&nonce)?.try_into().ok().with_context(damaged)?;
            let sealed = decode(&sealed)?;
            let payload = Payload { msg: &sealed, aad: CONTEXT };
            let opened = XChaCha20Poly1305::new((&*key).into()).decrypt(&nonce.into(), payload);
            Zeroizing::new(
                opened.ok().with_context(|| format!("the passphrase does not open the identity in {shown}"))?,
            )
        }
    };
    let seed: [u8; 32] = seed.as_slice().try_into().ok().with_context(damaged)?;
    let seed = Zeroizing::new(seed);
    Ok(Identity::kept(&seed))
}

fn seal(seed: &[u8; 32], passphrase: &str, rng: &mut impl rand_core::CryptoRng) -> Result<StoredKey> {
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut nonce);
    let key = derive(passphrase, &salt, ARGON2)?;
    let cipher = XChaCha20Poly1305::new((&*key).into());
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg: seed, aad: CONTEXT }).ok().context("sealing failed")?;
    let (memory_kib, passes, lanes) = ARGON2;
    let [salt, nonce] = [BASE64.encode(&salt), BASE64.encode(&nonce)];
    Ok(StoredKey::Argon2id { memory_kib, passes, lanes, salt, nonce, sealed: BASE64.encode(&sealed) })
}

fn derive(passphrase: &str, salt: &[u8], (memory, passes, lanes): (u32, u32, u32)) -> Result<Zeroizing<[u8; 32]>> {
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(|e| anyhow::anyhow!("Argon2id: {e}"))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
        .map_err(|e| anyhow::anyhow!("Argon2id: {e}"))?;
    Ok(key)
}

fn write(path: &PathBuf, stored: &Stored) -> Result<()> {
    let text = Zeroizing::new(serde_json::to_string_pretty(stored)?);
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write the identity to {}", path.display()))
}

fn passphrase_from_environment() -> Option<Zeroizing<String>> {
    std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new).filter(|p| !p.is_empty())
}

fn new_passphrase() -> Result<Option<Zeroizing<String>>> {
    if let Some(passphrase) = passphrase_from_environment() {
        return Ok(Some(passphrase));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let prompt = "Passphrase for the new identity (empty for none): ";
    let passphrase = Zeroizing::new(rpassword::prompt_password(prompt)?);
    if passphrase.is_empty() {
        return Ok(None);
    }
    let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
    if *again != *passphrase {
        bail!("the two passphrases differ; nothing was written");
    }
    Ok(Some(passphrase))
}

fn existing_passphrase(path: &Path) -> Result<Zeroizing<String>> {
    if let Some(passphrase) = passphrase_from_environment() {
        return Ok(passphrase);
    }
    if !std::io::stdin().is_terminal() {
        bail!("the identity in {} has a passphrase: give it in {PASSPHRASE_VARIABLE}", path.display());
    }
    Ok(Zeroizing::new(rpassword::prompt_password("Passphrase of the identity: ")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::UnwrapErr;

    fn rng() -> UnwrapErr<getrandom::SysRng> {
        UnwrapErr(getrandom::SysRng)
    }

    #[test]
    fn a_kept_identity_is_the_same_next_time_and_private_to_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home");
        let first = open_or_create(&home, &mut rng()).expect("made").public();
        assert_eq!(open_or_create(&home, &mut rng()).expect("opened").public(), first);
        let path = home.join(FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(open_or_create(&home, &mut rng()).is_err());
    }

    #[test]
    fn a_sealed_seed_opens_with_its_passphrase_only() {
        let key = seal(&[7; 32], "correct horse", &mut rng()).expect("sealed");
        let StoredKey::Argon2id { salt, nonce, sealed, .. } = key else { unreachable!("sealed with a passphrase") };
        let open = |passphrase: &str| {
            let key = derive(passphrase, &BASE64.decode(salt.as_bytes()).expect("base64"), ARGON2).expect("derived");
            let nonce: [u8; 24] = BASE64.decode(nonce.as_bytes()).expect("base64").try_into().expect("24 bytes");
            let sealed = BASE64.decode(sealed.as_bytes()).expect("base64");
            XChaCha20Poly1305::new((&*key).into()).decrypt(&nonce.into(), Payload { msg: &sealed, aad: CONTEXT })
        };
        assert_eq!(open("correct horse").expect("opens"), vec![7; 32]);
        assert!(open("wrong horse").is_err());
    }
}
