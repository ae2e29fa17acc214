//! Identities and pins without a network.

use std::fs;

use super::*;

#[test]
fn pin_survives_its_text_form_and_nothing_else_parses() {
    let pin = Pin::from_bytes([0xab; Pin::LENGTH]);
    let text = pin.to_string();
    assert_eq!(text.len(), 43);
    assert_eq!(text.parse(), Ok(pin));
    for wrong in ["", &text[1..], &format!("{text}="), &format!("{text}A"), &text.replacen('q', "+", 1)] {
        assert_eq!(wrong.parse::<Pin>(), Err(InvalidPin), "{wrong}");
    }
}

#[test]
fn pin_is_the_hash_of_the_public_key_info_as_rcgen_writes_it() {
    use rcgen::PublicKeyData;
    use sha2::{Digest, Sha256};
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let expected: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
        assert_eq!(Pin::of_certificate(certificate.der()).unwrap(), Pin::from_bytes(expected));
    }
}

#[test]
fn self_signed_directory_keeps_the_pin_and_memory_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Identity::SelfSigned(SelfSigned::Kept(directory.path().join("new")));
    let first = kept.load().unwrap().pin;
    assert!(first.is_some());
    assert_eq!(kept.load().unwrap().pin, first);
    let memory = Identity::SelfSigned(SelfSigned::Memory);
    assert_ne!(memory.load().unwrap().pin, memory.load().unwrap().pin);
}

#[cfg(unix)]
#[test]
fn kept_key_is_private_and_an_exposed_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let kept = Identity::SelfSigned(SelfSigned::Kept(directory.path().into()));
    kept.load().unwrap();
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [key] = files.as_slice() else { panic!("one file expected, found {files:?}") };
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(kept.load(), Err(TlsError::KeyExposed { mode: 0o640, .. })));
}

#[test]
fn files_give_no_pin_and_faulty_ones_say_which_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(path("cert"), pair.cert.pem()).unwrap();
    fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(path("other"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    fs::write(path("garbage"), "not PEM").unwrap();
    let load = |cert: &str, key: &str| Identity::Files { cert: path(cert), key: path(key) }.load();
    assert_eq!(load("cert", "key").unwrap().pin, None);
    assert!(matches!(load("absent", "key"), Err(TlsError::File { path: p, .. }) if p == path("absent")));
    assert!(matches!(load("garbage", "key"), Err(TlsError::Pem { path: p, .. }) if p == path("garbage")));
    assert!(matches!(load("cert", "garbage"), Err(TlsError::Pem { path: p, .. }) if p == path("garbage")));
    assert!(matches!(load("cert", "other"), Err(TlsError::Certificate(_))));
}
