//! Seals, stamps and contradictions against the golden vectors (`docs/protocol.md` §9), which share no code with this
//! crate.

use conclave_protocol::epoch::broadcast::Broadcast;
use conclave_protocol::epoch::statement::ChainHash;
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::seal::{self, Contradiction, SealBody, SealHead, Sealed};
use conclave_protocol::secret::Secret;
use conclave_protocol::sframe::KeyName;
use conclave_protocol::sframe::header::Kid;
use conclave_protocol::sign::{KeyPair, PublicKey};
use conclave_protocol::stamp::{Minute, Origin, SealPublic, Stamp, StampKey};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::datagram;
use data_encoding::HEXLOWER;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/seal.json")).expect("the vectors are JSON")
}

fn list(v: &Value) -> &[Value] {
    v.as_array().expect("a list")
}

fn small<T: TryFrom<u64>>(v: &Value) -> T {
    v.as_u64().and_then(|number| T::try_from(number).ok()).expect("a number in range")
}

fn bytes(v: &Value) -> Vec<u8> {
    HEXLOWER.decode(v.as_str().expect("a text").as_bytes()).expect("hexadecimal digits")
}

fn array<const N: usize>(v: &Value) -> [u8; N] {
    bytes(v).try_into().expect("the right length")
}

fn round_trip<T: Wire>(v: &Value) -> T {
    let value = T::decode(&bytes(v)).expect("the vector is well-formed");
    assert_eq!(value.encode(), bytes(v));
    value
}

#[test]
fn seals_are_those_of_the_vectors() {
    let v = vectors();
    let meeting = MeetingId(array(&v["meeting_id"]));
    let mut count = 0;
    for sender in list(&v["senders"]) {
        let sealing = KeyPair::from_seed(&array(&sender["vk_seed"]));
        for case in list(&sender["seals"]) {
            let (key, chain) = (Secret::new(array(&case["SK"])), ChainHash(array(&case["T"])));
            let per_segment = small(&case["per_segment"]);
            let name = KeyName::of(Kid(u64::from_be_bytes(array(&case["kid"])))).expect("a name");
            assert_eq!(name.index, MemberIndex(small(&sender["index"])));
            let frames = list(&case["frames"]).iter().map(bytes);
            let hashes: Vec<_> = frames.map(|frame| seal::frame_hash(&frame[datagram::HEADER_LEN..])).collect();
            assert_eq!(hashes, list(&case["hashes"]).iter().map(array).collect::<Vec<_>>());
            assert_eq!(seal::commit(&key), array(&case["commit"]));
            let prev = array(&case["prev"]);
            let (bytes_made, head) =
                Sealed { meeting: &meeting, chain: &chain, name, key: &key, hashes: &hashes, prev, per_segment }
                    .sign(&sealing);
            assert_eq!(bytes_made, bytes(&case["seal"]));
            assert_eq!(head, round_trip::<SealHead>(&case["head"]));
            assert_eq!(head.root, array(&case["root"]));
            let body = SealBody::open(&bytes_made, &meeting, &key, per_segment).expect("opens");
            assert_eq!(body.public, round_trip::<SealPublic>(&case["public"]));
            assert_eq!(body.verify(&meeting, &chain, &key, &sealing.public()), Ok(head));
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn stamps_are_those_of_the_vectors() {
    let v = vectors();
    let meeting = MeetingId(array(&v["meeting_id"]));
    let key = StampKey::new(array(&v["stamp_key"]));
    assert_eq!(list(&v["stamps"]).len(), 4);
    for case in list(&v["stamps"]) {
        let (slot, minute) = (MemberIndex(small(&case["slot"])), Minute(small(&case["minute"])));
        let public: SealPublic = round_trip(&case["public"]);
        let stamp: Stamp = round_trip(&case["stamp"]);
        let origin = Origin { meeting, slot, rk: PublicKey(array(&case["rk"])) };
        assert_eq!(key.stamp(&origin, minute, &public), stamp);
        assert!(key.made(&stamp, &origin, &public));
    }
}

#[test]
fn heads_and_contradictions_are_those_of_the_vectors() {
    let v = vectors();
    let meeting = MeetingId(array(&v["meeting_id"]));
    let vk = KeyPair::from_seed(&array(&v["senders"][0]["vk_seed"])).public();
    let Broadcast::Heads(heads) = round_trip(&v["heads_message"]) else { panic!("no heads") };
    assert_eq!(heads.len(), 3);
    for head in &heads {
        assert_eq!(head.verify(&meeting, &vk), Ok(()));
    }
    let contradictions = list(&v["contradictions"]);
    assert_eq!(contradictions.len(), 2);
    for case in contradictions {
        assert!(round_trip::<Contradiction>(case).is_proof(&meeting, &vk));
        let other = KeyPair::from_seed(&[1; 32]).public();
        assert!(!round_trip::<Contradiction>(case).is_proof(&meeting, &other));
        // No byte of it can be changed.
        let bytes = bytes(case);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let is_proof = Contradiction::decode(&changed).is_ok_and(|one| one.is_proof(&meeting, &vk));
            assert!(!is_proof, "byte {at}");
        }
    }
}
