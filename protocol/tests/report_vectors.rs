//! Reads the golden vectors of reports back. They are written by `tests/vectors/generate_reports.py`, which has its own
//! SFrame, seals, X-Wing, HPKE and encodings.
#![cfg(feature = "reports")]
// A test may panic.
#![allow(clippy::panic)]

use conclave_protocol::evidence::ban;
use conclave_protocol::evidence::category::Category;
use conclave_protocol::evidence::number::IdentityNumber;
use conclave_protocol::evidence::report::opened::Timeline;
use conclave_protocol::evidence::report::verify::{Verdict, verify};
use conclave_protocol::evidence::report::{self, Report};
use conclave_protocol::identity::DisplayName;
use conclave_protocol::moderator::{Moderator, ModeratorKey};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::stamp::{Minute, StampKey};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::StampVerdict;
use data_encoding::HEXLOWER;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use std::convert::Infallible;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/report.json")).expect("the vectors are JSON")
}

fn bytes(v: &Value) -> Vec<u8> {
    HEXLOWER.decode(v.as_str().expect("text").as_bytes()).expect("hexadecimal")
}

fn array<const N: usize>(v: &Value) -> [u8; N] {
    bytes(v).try_into().expect("as long as it must be")
}

fn moderator(v: &Value) -> ModeratorKey {
    let seeds = [bytes(&v["moderator"]["signing_seed"]), bytes(&v["moderator"]["sealing_seed"])].concat();
    let name = DisplayName::parse(v["moderator"]["name"].as_str().expect("text")).expect("a name");
    ModeratorKey::from_seeds(name, &seeds.try_into().expect("64 bytes"))
}

/// Gives the bytes of the vectors, once.
struct Drawn(Vec<u8>);

impl TryRng for Drawn {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("drawn in bytes only")
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("drawn in bytes only")
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0.drain(..out.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[test]
fn a_moderators_keys_and_text_are_those_of_the_vectors() {
    let v = vectors();
    let key = moderator(&v);
    assert_eq!(key.public().encode(), bytes(&v["moderator"]["bytes"]));
    assert_eq!(key.public().id().0, array(&v["moderator"]["id"]));
    let text = v["moderator"]["text"].as_str().expect("text");
    assert_eq!(key.public().to_text(), text);
    assert_eq!(Moderator::from_text(text).as_ref(), Ok(key.public()));
}

#[test]
fn the_report_of_the_vectors_opens_and_is_valid() {
    let v = vectors();
    let report = report::open(&bytes(&v["file"]), &moderator(&v)).expect("opens");
    assert_eq!(report.encode(), bytes(&v["report"]));
    assert_eq!(report.exhibit.encode(), bytes(&v["exhibit"]));
    assert_eq!(report.category, Category::Threat);
    let key = StampKey::new(array(&v["stamp_key"]));
    let findings = verify(&report, |check| {
        if key.made(&check.stamp, &check.origin, &check.public) { StampVerdict::Genuine } else { StampVerdict::Forged }
    });
    assert_eq!(findings.verdict, Verdict::Valid);
    assert_eq!(findings.is_reporter_proved, Some(true));
    let minute = Minute(v["minute"].as_u64().expect("a number") as u32);
    assert_eq!(findings.minutes, Some((minute, minute)));
    let missing: Vec<(usize, u8)> = findings
        .said
        .iter()
        .enumerate()
        .flat_map(|(place, segment)| {
            let absent = move |number: &u8| segment.frames.iter().all(|frame| frame.number != *number);
            (0..segment.sent).filter(absent).map(move |number| (place, number))
        })
        .collect();
    let wanted: Vec<(usize, u8)> = v["missing"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            (one["segment"].as_u64().expect("a number") as usize, one["frame"].as_u64().expect("a number") as u8)
        })
        .collect();
    assert_eq!(missing, wanted);
    // The vectors' clock begins anew in the second segment.
    assert_eq!(Timeline::of(&findings.said, 20).breaks, [25]);
}

#[test]
fn sealing_the_report_of_the_vectors_makes_their_file() {
    let v = vectors();
    let report = Report::decode(&bytes(&v["report"])).expect("a report");
    let mut drawn = Drawn(bytes(&v["randomness"]));
    assert_eq!(report.seal(moderator(&v).public(), &mut drawn), Ok(bytes(&v["file"])));
    assert!(drawn.0.is_empty());
}

#[test]
fn numbers_and_bans_are_those_of_the_vectors() {
    let v = vectors();
    for one in v["numbers"].as_array().expect("a list") {
        let identity = PublicKey(array(&one["identity"]));
        assert_eq!(IdentityNumber::of(&identity).as_str(), one["number"].as_str().expect("text"));
    }
    let key = moderator(&v);
    for one in v["bans"].as_array().expect("a list") {
        let until = one["until"].as_u64().filter(|until| *until != 0).map(UnixMillis);
        let issued = UnixMillis(one["issued"].as_u64().expect("a number"));
        let identity = PublicKey(array(&one["identity"]));
        let ban = ban::Terms { identity, issued, category: Category::Spam, until }.sign(&key);
        assert_eq!(ban.encode(), bytes(&one["bytes"]));
        let line = one["line"].as_str().expect("text");
        assert_eq!(ban.to_line().trim_end(), line);
        assert_eq!(ban::parse(line), Ok(vec![ban]));
        assert_eq!(ban.verify(key.public()), Ok(()));
    }
}
