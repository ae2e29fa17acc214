//! What can be proved of what somebody said, by whoever heard it.

use conclave_protocol::epoch::merkle;
use conclave_protocol::epoch::statement::Statement;
use conclave_protocol::evidence::Exhibit;
use conclave_protocol::evidence::ring::{NoEvidence, Window};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::Role;
use conclave_protocol::seal::{SealBody, frame_hash};
use conclave_protocol::sframe::frames_per_segment;
use conclave_protocol::sframe::header::{Ctr, Header};
use conclave_protocol::succession::authority_of;
use conclave_tests::world::{DAWN, Guest, HOST, Manners, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

/// Checks everything that can be checked without the relay, and gives for each segment its epoch, its number and how
/// many frames it holds.
fn check(world: &World, exhibit: &Exhibit) -> Vec<(u32, u16, usize)> {
    let Exhibit { descriptor, accused, epochs, segments } = exhibit;
    let meeting = descriptor.meeting_id();
    assert_eq!(meeting, world.peer(HOST).conference.meeting());
    let role = if accused.index == MemberIndex::HOST { Role::Host } else { Role::Member };
    let session = if role == Role::Host { descriptor.hs } else { accused.cert.keys.session };
    assert_eq!(accused.cert.verify(meeting, role, &session, &accused.name, DAWN), Ok(()));
    let chains: Vec<_> = epochs
        .iter()
        .map(|proof| {
            let chain = proof.previous.step(&proof.statement);
            let leader = proof.statement.leader;
            let authority = authority_of(proof.line.as_ref(), &descriptor.authority, leader).expect("may lead");
            assert_eq!(proof.line.is_some(), leader != MemberIndex::HOST);
            assert_eq!(Statement::verify(&chain, &authority, &proof.signature), Ok(()));
            let (position, count) = (usize::from(proof.position), usize::from(proof.count));
            let root = &proof.statement.roster_root;
            assert!(merkle::verify(root, &accused.leaf(), position, count, &proof.path));
            (proof.statement.epoch, chain)
        })
        .collect();
    assert!(chains.is_sorted_by_key(|(epoch, _)| *epoch));
    assert!(chains.iter().all(|(epoch, _)| segments.iter().any(|segment| segment.name.epoch == *epoch)));
    let per_segment = frames_per_segment(descriptor.frame_ms);
    let found = segments.iter().map(|segment| {
        let (_, chain) = chains.iter().find(|(epoch, _)| *epoch == segment.name.epoch).expect("the epoch's proof");
        assert_eq!(segment.name.index, accused.index);
        assert!(segment.stamp.is_some(), "the relay stamps every seal");
        let body = SealBody::open(&segment.seal, &meeting, &segment.key, per_segment).expect("opens");
        assert!(body.verify(&meeting, chain, &segment.key, &accused.cert.keys.sealing).is_ok());
        assert_eq!(body.public.kid, segment.name.kid().0);
        for (number, frame) in &segment.frames {
            let mut header = [0; Header::MAX_LEN];
            let ctr = Ctr(0x80 + u64::from(*number));
            let len = Header { kid: segment.name.kid(), ctr }.encode(&mut header);
            assert_eq!(body.hashes[usize::from(*number)], frame_hash(&[&header[..len], frame].concat()));
        }
        (segment.name.epoch.number(), segment.name.segment.0, segment.frames.len())
    });
    found.collect()
}

fn evidence(world: &World, who: Who, index: u16, ago: u64, length: u64) -> Result<Exhibit, NoEvidence> {
    let window = Window { ago: secs(ago), length: secs(length) };
    world.peer(who).conference.evidence(world.instant(), MemberIndex(index), window)
}

fn index(world: &World, who: Who) -> u16 {
    world.peer(who).conference.index().expect("a member").0
}

#[test]
fn evidence_of_a_talk_is_of_exactly_the_chosen_seconds_and_every_seal_verifies() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let guests = [(); 3].map(|()| world.bring_in(Guest::default()));
        world.run(secs(40));
        for listener in [HOST, guests[0], guests[2]] {
            for talker in [HOST, guests[1]] {
                let talker = index(&world, talker);
                if talker == index(&world, listener) {
                    assert_eq!(evidence(&world, listener, talker, 0, 20).err(), Some(NoEvidence::NoSuchMember));
                    continue;
                }
                // Twenty half-seconds of 25 frames, one after the other.
                let exhibit = evidence(&world, listener, talker, 5, 10).expect("evidence");
                let found = check(&world, &exhibit);
                assert_eq!(found.len(), 20, "{found:?}");
                assert!(found.iter().all(|(.., frames)| *frames == 25), "{found:?}");
                assert!(found.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1), "{found:?}");
                // The last one or two have no seal yet.
                let last = check(&world, &evidence(&world, listener, talker, 0, 20).expect("evidence"));
                assert!((37..=40).contains(&last.len()), "{last:?}");
            }
        }
        assert!(guests.iter().chain([&HOST]).all(|who| world.peer(*who).alarms() == 0));
        let held: Vec<_> = world.peer(HOST).conference.reportable().map(|(index, _, held)| (index.0, held)).collect();
        assert_eq!(held.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(held.iter().all(|(_, held)| *held > secs(35)), "{held:?}");
    });
}

#[test]
fn nobody_escapes_a_report_by_leaving_by_being_put_out_or_by_ending_the_meeting() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let [leaver, removed, stays] = [(); 3].map(|()| world.bring_in(Guest::default()));
        let (left, put_out) = (index(&world, leaver), index(&world, removed));
        world.run(secs(15));
        world.leave(leaver);
        world.remove(removed);
        world.run(secs(20));
        for gone in [left, put_out] {
            let found = check(&world, &evidence(&world, stays, gone, 20, 10).expect("evidence"));
            assert!((18..=20).contains(&found.len()), "{found:?}");
        }
        // The removed member has heard the others, and can report them as well.
        let found = check(&world, &evidence(&world, removed, 0, 0, 10).expect("evidence"));
        assert!((17..=20).contains(&found.len()), "{found:?}");
        world.end_meeting();
        world.run(secs(101));
        let found = check(&world, &evidence(&world, stays, 0, 0, 10).expect("evidence"));
        assert!((18..=20).contains(&found.len()), "of the host who ended it: {found:?}");
        assert!(evidence(&world, stays, put_out, 20, 10).is_ok());
        assert_eq!(evidence(&world, removed, 0, 0, 10).err(), Some(NoEvidence::Erased), "it was put out 121 s ago");
        world.run(secs(21));
        assert_eq!(evidence(&world, stays, 0, 0, 10).err(), Some(NoEvidence::Erased));
        assert_eq!(world.peer(stays).conference.reportable().count(), 0);
    });
}

#[test]
fn last_words_before_the_end_are_sealed_while_somebody_listens() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let manners = Manners::Spies;
        let [one, other] = [(); 2].map(|()| world.bring_in(Guest { manners, ..Guest::default() }));
        world.run(secs(10) + millis(seed * 90));
        world.end_meeting();
        world.run(secs(1));
        for (listener, talker) in [(one, 0), (one, index(&world, other)), (other, index(&world, one))] {
            let found = check(&world, &evidence(&world, listener, talker, 0, 2).expect("evidence"));
            // Two seconds but for what was on its way at the end.
            let frames: usize = found.iter().map(|(.., frames)| frames).sum();
            assert!((75..=125).contains(&frames), "{found:?}");
        }
    });
}

#[test]
fn evidence_is_whole_when_a_cohost_has_taken_over() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let [cohost, talker, listener] = [(); 3].map(|()| world.bring_in(Guest::default()));
        world.model().switch_off();
        world.promote(cohost);
        let of = index(&world, talker);
        world.run(secs(5));
        world.acts(HOST, |conference, now| conference.hand_over(now, MemberIndex(index_of(cohost)))).expect("it leads");
        world.run(secs(15));
        let exhibit = evidence(&world, listener, of, 1, 20).expect("evidence");
        let found = check(&world, &exhibit);
        assert!((39..=41).contains(&found.len()), "{found:?}");
        let leaders: Vec<_> = exhibit.epochs.iter().map(|proof| proof.statement.leader.0).collect();
        assert!(leaders.contains(&0) && leaders.contains(&index(&world, cohost)), "{leaders:?}");
    });
}

/// A member's index when all came one after the other.
fn index_of(who: Who) -> u16 {
    who.0 as u16
}
