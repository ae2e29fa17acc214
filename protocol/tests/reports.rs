//! Reports against those who would forge them, or read from them what nobody reported
//! (`docs/protocol.md` §10.4–10.6).
#![cfg(feature = "reports")]

mod exhibit;

use conclave_protocol::epoch::schedule;
use conclave_protocol::evidence::category::Category;
use conclave_protocol::evidence::report::opened::Timeline;
use conclave_protocol::evidence::report::verify::{Claim, Findings, Step, Verdict, verify};
use conclave_protocol::evidence::report::{self, MAX_FILE, Note, Report, STEP, Unreadable};
use conclave_protocol::evidence::{EpochProof, Exhibit, FrameBytes, SegmentProof};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, JoinKeys, Role};
use conclave_protocol::moderator::ModeratorKey;
use conclave_protocol::seal::SealBody;
use conclave_protocol::secret::Secret;
use conclave_protocol::sframe::{KeyName, SegmentNumber};
use conclave_protocol::sign::KeyPair;
use conclave_protocol::stamp::{Minute, Origin, StampKey};
use conclave_protocol::succession::{Delegate, Line};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{StampCheck, StampVerdict};
use exhibit::{BEGIN, Scene, epoch, noise, person};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// Bob speaks and is reported.
const BOB: usize = 2;
/// Mallory is a member who wants to frame him.
const MALLORY: usize = 3;

fn report_of(exhibit: Exhibit) -> Report {
    let note = Note::parse("He said it at once,\nand again.").expect("a note");
    Report::new(Category::Threat, note, UnixMillis(BEGIN.0 + 200_000), exhibit)
}

/// What somebody says who has these keys.
fn holding<'a>(keys: &'a [&'a StampKey]) -> impl FnMut(&StampCheck) -> StampVerdict + 'a {
    |check| match keys.iter().find(|key| key.id() == check.stamp.key) {
        None => StampVerdict::UnknownKey,
        Some(key) if key.made(&check.stamp, &check.origin, &check.public) => StampVerdict::Genuine,
        Some(_) => StampVerdict::Forged,
    }
}

fn findings(scene: &Scene, exhibit: Exhibit) -> Findings {
    verify(&report_of(exhibit), holding(&[&scene.stamping]))
}

fn verdict(scene: &Scene, exhibit: Exhibit) -> Verdict {
    findings(scene, exhibit).verdict
}

/// The verdict on what became of a true exhibit.
fn changed(change: impl FnOnce(&mut Exhibit)) -> Verdict {
    let scene = Scene::new(1);
    let mut exhibit = scene.exhibit(BOB);
    change(&mut exhibit);
    verdict(&scene, exhibit)
}

fn invalid(step: Step) -> Verdict {
    Verdict::Invalid(step)
}

fn moderator(seed: u8) -> ModeratorKey {
    ModeratorKey::from_seeds(DisplayName::parse("Mo").expect("a name"), &[seed; 64])
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

// ---- what is true ----

#[test]
fn a_true_report_is_valid_and_every_frame_comes_out_in_its_place() {
    let scene = Scene::new(1);
    let findings = findings(&scene, scene.exhibit(BOB));
    assert_eq!(findings.verdict, Verdict::Valid);
    assert!(Step::ALL.into_iter().all(|step| findings.verdict.claim(step) == Claim::Holds));
    let minute = Minute(Minute::from(BEGIN).0 + 2);
    assert_eq!(findings.minutes, Some((minute, minute)));
    let timeline = Timeline::of(&findings.said, 20);
    assert_eq!((timeline.length, timeline.frames.len()), (100, 100));
    assert_eq!(timeline.segments, [(0, 25), (25, 50), (50, 75), (75, 100)]);
    assert!(timeline.gaps.is_empty() && timeline.breaks.is_empty());
    for (place, frame) in &timeline.frames {
        // Two segments of 25 frames came before.
        assert_eq!(frame.seq, 1_050 + place);
        assert_eq!(*frame.opus, noise(frame.seq));
    }
}

#[test]
fn the_host_can_be_reported_and_so_can_be_what_a_co_host_vouched_for() {
    let mut scene = Scene::new(1);
    assert_eq!(verdict(&scene, scene.exhibit(0)), Verdict::Valid);
    scene.epochs.pop();
    scene.advance(4, Some(4));
    assert_eq!(verdict(&scene, scene.exhibit(BOB)), Verdict::Valid);
}

#[test]
fn without_stamps_or_without_their_key_a_report_is_unstamped() {
    let scene = Scene::new(1);
    let with = |keys: &[&StampKey], exhibit| verify(&report_of(exhibit), holding(keys)).verdict;
    assert_eq!(with(&[], scene.exhibit(BOB)), Verdict::Unstamped);
    assert_eq!(with(&[&StampKey::new([0; 32])], scene.exhibit(BOB)), Verdict::Unstamped);
    assert_eq!(changed(|exhibit| exhibit.segments[3].stamp = None), Verdict::Unstamped);
    assert_eq!(Verdict::Unstamped.claim(Step::Stamp), Claim::Unknown);
    assert_eq!(Verdict::Unstamped.claim(Step::Frame), Claim::Holds);
}

#[test]
fn what_is_missing_is_a_gap_and_no_more() {
    let scene = Scene::new(1);
    let mut exhibit = scene.exhibit(BOB);
    exhibit.segments[0].frames.drain(..3);
    exhibit.segments[1].frames.drain(5..8);
    exhibit.segments[3].frames.truncate(20);
    exhibit.segments.remove(2);
    let findings = findings(&scene, exhibit);
    assert_eq!(findings.verdict, Verdict::Valid);
    let timeline = Timeline::of(&findings.said, 20);
    assert_eq!(timeline.gaps, [(0, 3), (30, 33), (50, 75), (95, 100)]);
    assert_eq!(timeline.segments, [(0, 25), (25, 50), (75, 100)]);
    assert_eq!(timeline.length, 100);
}

#[test]
fn a_strange_frame_clock_lets_nobody_escape_and_makes_no_endless_sound() {
    let scene = Scene::new(1);
    let mut findings = findings(&scene, scene.exhibit(BOB));
    let ticks = [5, 5, 4, 4_000_000_000, 4_000_000_001, u32::MAX, 0, 14_999];
    findings.said.truncate(1);
    findings.said[0].frames.truncate(ticks.len());
    for (frame, seq) in findings.said[0].frames.iter_mut().zip(ticks) {
        frame.seq = seq;
    }
    let timeline = Timeline::of(&findings.said, 20);
    let places: Vec<u32> = timeline.frames.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(timeline.breaks, [1, 2, 3, 5, 7]);
}

#[test]
fn the_reporter_is_proved_when_it_signed_this_report_and_no_other() {
    let scene = Scene::new(1);
    let signed = |exhibit| {
        let ada = &scene.people[1];
        report_of(exhibit).signed(ada.member.name.clone(), &ada.identity)
    };
    let proved = |report: &Report| verify(report, holding(&[&scene.stamping])).is_reporter_proved;
    assert_eq!(proved(&report_of(scene.exhibit(BOB))), None);
    assert_eq!(proved(&signed(scene.exhibit(BOB))), Some(true));
    for change in [
        |report: &mut Report| report.category = Category::Spam,
        |report: &mut Report| report.note = Note::default(),
        |report: &mut Report| report.created = BEGIN,
        |report: &mut Report| drop(report.exhibit.segments.pop()),
    ] {
        let mut report = signed(scene.exhibit(BOB));
        change(&mut report);
        assert_eq!(proved(&report), Some(false));
    }
}

// ---- one byte ----

/// All bytes of a value, changed one by one, that still are such a value.
fn mutants<T: Wire>(value: &T) -> Vec<T> {
    let bytes = value.encode();
    let mutant = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        T::decode(&bytes).ok()
    };
    (0..bytes.len()).filter_map(mutant).collect()
}

#[test]
fn no_byte_of_a_frame_can_be_changed() {
    for at in 0..size_of::<FrameBytes>() {
        assert_eq!(changed(|exhibit| exhibit.segments[1].frames[7].1[at] ^= 1), invalid(Step::Frame), "byte {at}");
    }
}

#[test]
fn no_byte_of_a_seal_can_be_changed() {
    let length = Scene::new(1).exhibit(BOB).segments[1].seal.len();
    for at in 0..length {
        assert_eq!(changed(|exhibit| exhibit.segments[1].seal[at] ^= 1), invalid(Step::Seal), "byte {at}");
    }
    assert_eq!(changed(|exhibit| exhibit.segments[1].seal.truncate(584)), invalid(Step::Seal));
}

#[test]
fn no_byte_of_a_stamp_can_be_changed_but_to_another_keys_name() {
    let scene = Scene::new(1);
    let stamp = scene.exhibit(BOB).segments[1].stamp.expect("stamped");
    let mutants = mutants(&stamp);
    assert_eq!(mutants.len(), 28);
    for mutant in mutants {
        let wanted = if mutant.key == stamp.key { invalid(Step::Stamp) } else { Verdict::Unstamped };
        assert_eq!(changed(|exhibit| exhibit.segments[1].stamp = Some(mutant)), wanted);
    }
}

#[test]
fn no_byte_of_an_epochs_proof_can_be_changed() {
    let scene = Scene::new(1);
    let proof = scene.exhibit(BOB).epochs.remove(1);
    let verdicts = |change: fn(&mut EpochProof, usize), length: usize| -> Vec<Verdict> {
        let one = |at| changed(|exhibit| change(&mut exhibit.epochs[1], at));
        (0..length).map(one).collect()
    };
    let all = |verdicts: Vec<Verdict>, step| assert!(verdicts.iter().all(|v| *v == invalid(step)), "{verdicts:?}");
    all(verdicts(|proof, at| proof.signature.0[at] ^= 1, 64), Step::Authority);
    all(verdicts(|proof, at| proof.previous.0[at] ^= 1, 32), Step::Authority);
    all(verdicts(|proof, at| proof.path[at / 32][at % 32] ^= 1, 32 * proof.path.len()), Step::Roster);
    for statement in mutants(&proof.statement) {
        let rules = statement.meeting != scene.meeting()
            || statement.policy != scene.descriptor.policy.bits()
            || statement.frame_ms != 20;
        let step = if rules { Step::MeetingId } else { Step::Authority };
        assert_eq!(changed(|exhibit| exhibit.epochs[1].statement = statement), invalid(step));
    }
    for change in [
        |proof: &mut EpochProof| proof.position += 1,
        |proof: &mut EpochProof| proof.count -= 2,
        |proof: &mut EpochProof| proof.count = u16::MAX,
        |proof: &mut EpochProof| proof.path.truncate(1),
        |proof: &mut EpochProof| proof.path.clear(),
        |proof: &mut EpochProof| proof.path.extend([[0; 32]; 40]),
    ] {
        assert_eq!(changed(|exhibit| change(&mut exhibit.epochs[1])), invalid(Step::Roster));
    }
}

#[test]
fn no_byte_of_the_accuseds_certificate_index_or_name_can_be_changed() {
    let scene = Scene::new(1);
    let exhibit = scene.exhibit(BOB);
    let cert = &exhibit.accused.cert;
    let (mut roster, mut identity) = (0, 0);
    for mutant in mutants(&exhibit.accused) {
        // The roster's leaf holds all but when the certificate ends and who signed it.
        let in_leaf = mutant.leaf() != exhibit.accused.leaf();
        let (step, count) = if in_leaf { (Step::Roster, &mut roster) } else { (Step::Identity, &mut identity) };
        *count += 1;
        let verdict = changed(|exhibit| exhibit.accused = mutant);
        assert_eq!(verdict, invalid(step));
    }
    assert!(roster > 100 && identity == 64 + 8, "{roster} {identity}");
    assert_eq!(cert.not_after, scene.descriptor.not_after);
}

#[test]
fn no_byte_of_the_descriptor_can_be_changed() {
    let descriptor = Scene::new(1).descriptor;
    let mutants = mutants(&descriptor);
    assert!(mutants.len() > 100);
    for mutant in mutants {
        assert_eq!(changed(|exhibit| exhibit.descriptor = mutant), invalid(Step::MeetingId));
    }
}

// ---- frames moved ----

#[test]
fn frames_moved_between_numbers_segments_epochs_talkers_and_meetings_are_found() {
    let (scene, other) = (Scene::new(1), Scene::new(2));
    let talker = scene.exhibit(MALLORY);
    let meeting = other.exhibit(BOB);
    let within = |to: (usize, usize), from: (usize, usize)| {
        changed(|e| e.segments[to.0].frames[to.1].1 = e.segments[from.0].frames[from.1].1)
    };
    assert_eq!(within((1, 3), (1, 4)), invalid(Step::Frame));
    assert_eq!(within((0, 3), (1, 3)), invalid(Step::Frame));
    assert_eq!(within((0, 3), (2, 3)), invalid(Step::Frame));
    for foreign in [&talker, &meeting] {
        let verdict = changed(|e| e.segments[0].frames[3].1 = foreign.segments[0].frames[3].1);
        assert_eq!(verdict, invalid(Step::Frame));
    }
    assert_eq!(changed(|e| e.segments[0].frames.swap(3, 4)), invalid(Step::Frame));
    assert_eq!(
        changed(|e| {
            let twice = e.segments[0].frames[3];
            e.segments[0].frames.insert(3, twice);
        }),
        invalid(Step::Frame)
    );
    assert_eq!(changed(|e| e.segments[0].frames[24].0 = 25), invalid(Step::Frame));
}

#[test]
fn whole_segments_moved_repeated_or_taken_from_elsewhere_are_found() {
    let (scene, other) = (Scene::new(1), Scene::new(2));
    assert_eq!(changed(|e| e.segments.swap(0, 1)), invalid(Step::Segment));
    assert_eq!(changed(|e| e.segments.swap(1, 2)), invalid(Step::Segment));
    let again = scene.exhibit(BOB).segments.remove(1);
    assert_eq!(changed(|e| e.segments.insert(1, again)), invalid(Step::Segment));
    let talkers = scene.exhibit(MALLORY).segments.remove(1);
    assert_eq!(changed(|e| e.segments[1] = talkers), invalid(Step::Segment));
    let renamed = |name: KeyName, mut segment: SegmentProof| {
        segment.name = name;
        changed(|e| e.segments[1] = segment)
    };
    let own = scene.exhibit(BOB).segments[1].name;
    let talkers = scene.exhibit(MALLORY).segments.remove(1);
    assert_eq!(renamed(own, talkers), invalid(Step::Seal));
    let meetings = other.exhibit(BOB).segments.remove(1);
    assert_eq!(changed(|e| e.segments[1] = meetings), invalid(Step::Seal));
    let later = KeyName { segment: SegmentNumber(9), ..own };
    assert_eq!(renamed(later, scene.exhibit(BOB).segments.remove(1)), invalid(Step::Seal));
    // The epoch that the segment names must be proved, and nothing else.
    assert_eq!(changed(|e| drop(e.epochs.remove(0))), invalid(Step::Segment));
    assert_eq!(changed(|e| e.segments.truncate(2)), invalid(Step::Segment));
    assert_eq!(changed(|e| e.segments.clear()), invalid(Step::Segment));
    assert_eq!(changed(|e| e.epochs.swap(0, 1)), invalid(Step::Segment));
    let spliced = other.exhibit(BOB);
    assert_eq!(
        changed(|e| {
            e.epochs = spliced.epochs;
            e.segments = spliced.segments;
        }),
        invalid(Step::MeetingId)
    );
}

#[test]
fn a_segment_named_as_one_of_another_epoch_is_found() {
    let own = Scene::new(1).exhibit(BOB).segments[3].name;
    let mut moved = Scene::new(1).exhibit(BOB).segments.remove(0);
    moved.name = own;
    assert_eq!(changed(|e| e.segments[3] = moved), invalid(Step::Seal));
}

// ---- people ----

#[test]
fn nobody_can_be_put_in_the_place_of_the_accused() {
    let scene = Scene::new(1);
    let mallory = scene.people[MALLORY].member.clone();
    assert_eq!(changed(|e| e.accused = mallory.clone()), invalid(Step::Roster));
    // With the proofs of the one who is to be blamed.
    let proofs = scene.proofs(MALLORY);
    assert_eq!(
        changed(|e| {
            e.accused = mallory.clone();
            e.epochs = proofs;
        }),
        invalid(Step::Segment)
    );
    // And with the segments renamed to be theirs.
    let proofs = scene.proofs(MALLORY);
    let verdict = changed(|e| {
        e.epochs = proofs;
        e.segments.iter_mut().for_each(|segment| segment.name.index = mallory.index);
        e.accused = mallory;
    });
    assert_eq!(verdict, invalid(Step::Seal));
}

/// Mallory speaks in Bob's name with Bob's media keys, which every member has, and seals with a key of her own.
fn forged_seals(scene: &Scene) -> Exhibit {
    let mallory = KeyPair::from_seed(&[0x66; 32]);
    let forged = scene.said(BOB, Some(&mallory), &mut |seq| noise(seq + 1));
    scene.exhibit_of(BOB, forged)
}

#[test]
fn a_member_who_knows_all_media_keys_but_no_sealing_key_cannot_forge() {
    let scene = Scene::new(1);
    let mut exhibit = forged_seals(&scene);
    exhibit.segments.iter_mut().for_each(|segment| segment.stamp = None);
    assert_eq!(verdict(&scene, exhibit), invalid(Step::SealSignature));
}

#[test]
fn a_relay_operator_who_stamps_invented_seals_cannot_forge() {
    let scene = Scene::new(1);
    let exhibit = forged_seals(&scene);
    // The stamps are genuine: the operator made them.
    for segment in &exhibit.segments {
        let stamp = segment.stamp.expect("stamped");
        assert_eq!(scene.stamp(&segment.seal, exhibit.accused.index, stamp.minute.0), stamp);
    }
    assert_eq!(verdict(&scene, exhibit), invalid(Step::SealSignature));
}

#[test]
fn a_true_seal_cannot_be_given_other_frames_by_one_who_knows_the_media_key() {
    let scene = Scene::new(1);
    let mut exhibit = scene.exhibit(BOB);
    let forged = scene.said(BOB, None, &mut |seq| noise(seq + 1));
    let forged = scene.exhibit_of(BOB, forged);
    // Same key and number, other words: it opens, and no seal lists it.
    exhibit.segments[1].frames[7] = forged.segments[1].frames[7];
    assert_eq!(verdict(&scene, exhibit), invalid(Step::Frame));
}

#[test]
fn a_leader_cannot_give_the_accuseds_identity_another_sealing_key() {
    let mallory = KeyPair::from_seed(&[0x66; 32]);
    let scene = Scene::with(1, |people| {
        // In the roster that the leader signs, Bob's certificate vouches for Mallory's key.
        people[BOB].member.cert.keys.sealing = mallory.public();
    });
    let forged = scene.said(BOB, Some(&mallory), &mut noise);
    assert_eq!(verdict(&scene, scene.exhibit_of(BOB, forged)), invalid(Step::Identity));
}

#[test]
fn a_leader_cannot_name_another_member_like_the_accused() {
    let scene = Scene::with(1, |people| people[MALLORY].member.name = DisplayName::parse("Bob").expect("a name"));
    assert_eq!(verdict(&scene, scene.exhibit(MALLORY)), invalid(Step::Identity));
}

#[test]
fn a_certificate_of_another_meeting_or_for_another_role_is_refused() {
    let other = Scene::new(2).descriptor;
    let elsewhere = Scene::with(1, |people| people[BOB] = person(&other, 1, BOB as u16, "Bob"));
    assert_eq!(verdict(&elsewhere, elsewhere.exhibit(BOB)), invalid(Step::Identity));
    let descriptor = Scene::new(1).descriptor;
    let as_host = Scene::with(1, |people| {
        let mut host = person(&descriptor, 1, 0, "Bob");
        host.member.index = MemberIndex(BOB as u16);
        people[BOB] = host;
    });
    assert_eq!(verdict(&as_host, as_host.exhibit(BOB)), invalid(Step::Identity));
}

#[test]
fn a_certificate_that_ran_out_before_the_meeting_is_refused() {
    let descriptor = Scene::new(1).descriptor;
    let scene = Scene::with(1, |people| {
        let mut bob = person(&descriptor, 1, BOB as u16, "Bob");
        let (meeting, keys) = (descriptor.meeting_id(), bob.member.cert.keys);
        let before = UnixMillis(descriptor.not_before.0 - 1);
        bob.member.cert = bob.identity.certify(meeting, Role::Member, keys, &bob.member.name, before);
        people[BOB] = bob;
    });
    assert_eq!(verdict(&scene, scene.exhibit(BOB)), invalid(Step::Identity));
}

#[test]
fn only_the_host_or_a_co_host_of_the_hosts_line_vouches_for_an_epoch() {
    let mallory = KeyPair::from_seed(&[0x66; 32]);
    let resigned = |exhibit: &mut Exhibit| {
        let proof = &mut exhibit.epochs[1];
        proof.signature = proof.statement.sign(&proof.previous.step(&proof.statement), &mallory);
    };
    assert_eq!(changed(resigned), invalid(Step::Authority));
    let mut scene = Scene::new(1);
    scene.epochs.pop();
    scene.advance(4, Some(4));
    let delegate = |authority: &KeyPair| Delegate { slot: MemberIndex(4), hs: [1; 32], authority: authority.public() };
    let forged = Line::sign(scene.meeting(), 1, vec![delegate(&mallory)], &mallory);
    let newer = Line::sign(scene.meeting(), 2, vec![delegate(&KeyPair::from_seed(&[0xC0; 32]))], &scene.authority);
    for line in [None, Some(forged), Some(newer)] {
        let mut exhibit = scene.exhibit(BOB);
        exhibit.epochs[1].line = line;
        assert_eq!(verdict(&scene, exhibit), invalid(Step::Authority));
    }
    let line = scene.epochs[1].line.clone();
    assert_eq!(changed(|e| e.epochs[1].line = line), invalid(Step::Authority));
}

#[test]
fn a_leader_cannot_make_what_is_said_unprovable_by_the_time_of_its_statements() {
    let mut scene = Scene::new(1);
    scene.epochs.pop();
    scene.advance_at(4, None, UnixMillis(u64::MAX));
    assert_eq!(verdict(&scene, scene.exhibit(BOB)), Verdict::Valid);
}

#[test]
fn a_report_without_a_frame_proves_nothing() {
    assert_eq!(changed(|e| e.segments.iter_mut().for_each(|s| s.frames.clear())), invalid(Step::Frame));
    assert_eq!(changed(|e| e.segments[1].frames.clear()), Verdict::Valid);
}

// ---- stamps ----

#[test]
fn stamps_from_before_or_after_the_meeting_or_out_of_order_are_refused() {
    let scene = Scene::new(1);
    let begin = Minute::from(BEGIN).0;
    let at = |minutes: [u32; 4]| {
        let mut exhibit = scene.exhibit(BOB);
        for (segment, minute) in exhibit.segments.iter_mut().zip(minutes) {
            segment.stamp = Some(scene.stamp(&segment.seal, segment.name.index, minute));
        }
        verdict(&scene, exhibit)
    };
    assert_eq!(at([begin, begin, begin + 1, begin + 2]), Verdict::Valid);
    assert_eq!(at([begin + 1, begin, begin + 1, begin]), Verdict::Valid);
    assert_eq!(at([begin + 2, begin + 2, begin, begin]), invalid(Step::Stamp));
    assert_eq!(at([begin - 3; 4]), invalid(Step::Stamp));
    assert_eq!(at([begin + 62; 4]), invalid(Step::Stamp));
    assert_eq!(at([u32::MAX; 4]), invalid(Step::Stamp));
    assert_eq!(at([0; 4]), invalid(Step::Stamp));
}

#[test]
fn a_stamp_of_another_seal_talker_or_meeting_is_forged() {
    let scene = Scene::new(1);
    let neighbour = scene.exhibit(BOB).segments[2].stamp;
    let talkers = scene.exhibit(MALLORY).segments[1].stamp;
    let other = Scene::new(2);
    let exhibit = scene.exhibit(BOB);
    let public = Wire::decode(&exhibit.segments[1].seal[..41]).expect("public");
    let origin = scene.origin(exhibit.accused.index);
    let meetings = Origin { meeting: other.meeting(), ..origin };
    // A leader who gives the slot away under another routing key, and has the published sealing key.
    let leaders = Origin { rk: scene.origin(MemberIndex::HOST).rk, ..origin };
    let by = |origin| Some(scene.stamping.stamp(&origin, Minute::from(BEGIN), &public));
    for stamp in [neighbour, talkers, by(meetings), by(leaders)] {
        assert_eq!(changed(|e| e.segments[1].stamp = stamp), invalid(Step::Stamp));
    }
}

// ---- what a report gives away ----

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_report_holds_no_other_key_no_other_member_and_no_other_frame() {
    let scene = Scene::new(1);
    let bytes = report_of(scene.exhibit(BOB)).encode();
    let chosen: Vec<KeyName> = scene.exhibit(BOB).segments.iter().map(|segment| segment.name).collect();
    let index = MemberIndex(BOB as u16);
    for made in &scene.epochs {
        let secret = made.secret();
        assert!(!holds(&bytes, &made.fresh));
        assert!(!holds(&bytes, secret.control().as_bytes()) && !holds(&bytes, secret.mesh().as_bytes()));
        let mut chain = secret.sender_chain(index, &scene.people[BOB].member.cert.keys.sealing);
        for segment in 0..exhibit::SEGMENTS + 2 {
            assert!(!holds(&bytes, chain.as_bytes()));
            let name = KeyName { index, epoch: made.statement.epoch, segment: SegmentNumber(segment) };
            let key = schedule::segment_key(&chain);
            assert_eq!(holds(&bytes, key.as_bytes()), chosen.contains(&name));
            chain = schedule::next_chain(&chain);
        }
    }
    for (place, person) in scene.people.iter().enumerate().filter(|(place, _)| *place != BOB) {
        assert!(!holds(&bytes, &person.identity.public().0), "{place}");
        assert!(!holds(&bytes, person.member.name.as_str().as_bytes()));
        let JoinKeys { session, sealing, routing } = person.member.cert.keys;
        // The host's session key is in the descriptor, which everybody who has the link is given.
        assert!(place == 0 || !holds(&bytes, &session));
        assert!(!holds(&bytes, &sealing.0) && !holds(&bytes, &routing.0));
    }
    assert!(!holds(&bytes, scene.people[BOB].sealing.seed().as_ref()));
    for segment in scene.said(BOB, None, &mut noise) {
        for (_, frame) in &segment.frames {
            assert_eq!(holds(&bytes, &frame[..16]), chosen.contains(&segment.name));
        }
    }
}

#[test]
fn nothing_in_a_report_opens_a_segment_that_was_not_chosen() {
    let scene = Scene::new(1);
    let bytes = report_of(scene.exhibit(BOB)).encode();
    let chosen: Vec<KeyName> = scene.exhibit(BOB).segments.iter().map(|segment| segment.name).collect();
    let neighbours: Vec<SegmentProof> =
        scene.said(BOB, None, &mut noise).into_iter().filter(|segment| !chosen.contains(&segment.name)).collect();
    assert_eq!(neighbours.len(), 4);
    // Whatever stands in the report, taken for a key, or for the chain key of the segments before.
    for window in bytes.windows(32).step_by(1).filter(|window| is_no_run(window)) {
        let key: [u8; 32] = window.try_into().expect("32");
        for neighbour in &neighbours {
            assert!(SealBody::open(&neighbour.seal, &scene.meeting(), &Secret::new(key), 25).is_err());
        }
    }
    // The keys that it holds were chains' own ends: none is the chain key of another.
    for segment in &scene.exhibit(BOB).segments {
        let chain = Secret::new(*segment.key.as_bytes());
        let key = schedule::segment_key(&chain);
        for neighbour in &neighbours {
            assert!(SealBody::open(&neighbour.seal, &scene.meeting(), &key, 25).is_err());
        }
    }
}

/// Ciphertext is tried at every place, zeros once.
fn is_no_run(window: &[u8]) -> bool {
    window.iter().any(|byte| *byte != window[0])
}

// ---- the file ----

#[test]
fn a_sealed_report_opens_for_its_moderator_only_and_is_a_multiple_of_its_step() {
    let scene = Scene::new(1);
    let (key, other) = (moderator(1), moderator(2));
    let report = report_of(scene.exhibit(BOB)).signed(scene.people[1].member.name.clone(), &scene.people[1].identity);
    let file = report.seal(key.public(), &mut rng()).expect("sealed");
    assert_eq!(file.len(), STEP);
    let opened = report::open(&file, &key).expect("opens");
    assert_eq!(opened.encode(), report.encode());
    assert_eq!(report::open(&file, &other).err(), Some(Unreadable::OtherModerator));
    assert_eq!(report::addressed_to(&file), Ok(key.public().id()));
    // Nothing of it can be seen from outside.
    for hidden in [&scene.meeting().0[..], b"Bob", &scene.people[BOB].identity.public().0, &scene.descriptor.nonce] {
        assert!(!holds(&file, hidden));
    }
    // Another report of nearly the same length is equally long.
    let shorter = Report::new(Category::Spam, Note::default(), BEGIN, scene.exhibit(BOB));
    assert_eq!(shorter.seal(key.public(), &mut rng()).expect("sealed").len(), STEP);
}

#[test]
fn the_longest_report_fits_and_a_longer_one_is_refused() {
    let scene = Scene::new(1);
    let key = moderator(1);
    let mut exhibit = scene.exhibit(BOB);
    let longest = || {
        let (name, key) = (Scene::new(1).exhibit(BOB).segments[0].name, Secret::new([1; 32]));
        SegmentProof {
            name,
            key,
            seal: vec![1; 985],
            stamp: None,
            frames: (0..50).map(|n| (n, [2; size_of::<FrameBytes>()])).collect(),
        }
    };
    exhibit.segments = (0..80).map(|_| longest()).collect();
    let file = report_of(exhibit).seal(key.public(), &mut rng()).expect("sealed");
    assert!(file.len().is_multiple_of(STEP) && file.len() < MAX_FILE, "{}", file.len());
    let mut exhibit = scene.exhibit(BOB);
    exhibit.segments = (0..400).map(|_| longest()).collect();
    assert!(report_of(exhibit).seal(key.public(), &mut rng()).is_err());
}

#[test]
fn notes_are_bounded_and_run_no_terminal() {
    assert!(Note::parse(&"é".repeat(1_000)).is_ok());
    assert!(Note::parse(&"é".repeat(1_001)).is_err());
    for bad in ["\u{1b}[31m", "\0", "a\rb", "\u{9b}", "\u{7f}"] {
        assert!(Note::parse(bad).is_err(), "{bad:?}");
    }
}

fn sealed_file() -> (Vec<u8>, ModeratorKey) {
    let key = moderator(1);
    let file = report_of(Scene::new(1).exhibit(BOB)).seal(key.public(), &mut rng()).expect("sealed");
    (file, key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_unreadable(at in 0usize..STEP, bit in 0u8..8, cut in 0usize..STEP) {
        let (mut file, key) = sealed_file();
        prop_assert!(report::open(&file[..cut], &key).is_err());
        file[at] ^= 1 << bit;
        prop_assert!(report::open(&file, &key).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_or_the_verifier_panic(at in 0usize..14_000, bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
        let scene = Scene::new(1);
        let mut encoded = report_of(scene.exhibit(BOB)).encode();
        let at = at % encoded.len();
        let end = (at + bytes.len()).min(encoded.len());
        encoded[at..end].copy_from_slice(&bytes[..end - at]);
        if let Ok(report) = Report::decode(&encoded) {
            prop_assert_eq!(report.encode(), encoded);
            let findings = verify(&report, holding(&[&scene.stamping]));
            Timeline::of(&findings.said, report.exhibit.descriptor.frame_ms);
        }
    }

    #[test]
    fn what_was_cut_is_no_report(cut in 0usize..14_000) {
        let encoded = report_of(Scene::new(1).exhibit(BOB)).encode();
        prop_assert!(Report::decode(&encoded[..cut % encoded.len()]).is_err());
    }
}

/// What a moderator finds in a report whose bytes were changed before it was sealed.
fn step_after(change: impl FnOnce(&mut Vec<u8>)) -> Step {
    let scene = Scene::new(1);
    let mut encoded = report_of(scene.exhibit(BOB)).encode();
    change(&mut encoded);
    let step = match report::parse(&encoded) {
        Ok(report) => verify(&report, holding(&[&scene.stamping])).verdict.failed_step(),
        Err(Unreadable::BrokenExhibit(step, _)) => Some(step),
        Err(_) => None,
    };
    step.expect("it fails at a step")
}

#[test]
fn what_breaks_the_format_of_an_exhibit_fails_at_the_step_that_looks_at_it() {
    let exhibit = Scene::new(1).exhibit(BOB);
    let report = report_of(Scene::new(1).exhibit(BOB)).encode();
    let find = |part: &[u8]| report.windows(part.len()).position(|window| window == part).expect("it is there");
    // Kind and role follow the identity in the IdCert.
    let kind = find(&exhibit.accused.cert.encode()) + 32;
    for at in [kind, kind + 1] {
        assert_eq!(step_after(|bytes| bytes[at] = 9), Step::Identity);
    }
    // The KID's highest bit must be set, and the number of a frame must be below 50.
    let segment = find(&exhibit.segments[1].encode());
    assert_eq!(step_after(|bytes| bytes[segment] ^= 0x80), Step::Segment);
    let frame = find(&exhibit.segments[1].frames[0].1);
    assert_eq!(step_after(|bytes| bytes[frame - 1] = 200), Step::Frame);
    let stamp = find(&exhibit.segments[1].stamp.expect("stamped").encode());
    assert_eq!(step_after(|bytes| bytes[stamp - 1] = 7), Step::Stamp);
    // A path longer than any roster's.
    let path = find(&exhibit.epochs[0].path[0]);
    assert_eq!(step_after(|bytes| bytes[path - 2] = 0xff), Step::Roster);
    let statement = find(&exhibit.epochs[0].statement.encode());
    assert_eq!(step_after(|bytes| bytes[statement] ^= 0xff), Step::Authority);
    let descriptor = find(&exhibit.descriptor.encode());
    assert_eq!(step_after(|bytes| bytes[descriptor] ^= 0xff), Step::MeetingId);
}

#[test]
fn epochs_of_the_scene_are_those_named() {
    let scene = Scene::new(1);
    assert_eq!(scene.epochs.iter().map(|made| made.statement.epoch).collect::<Vec<_>>(), [epoch(3), epoch(4)]);
}
