//! The two secrets of a meeting: the link's and the passcode.

use conclave_protocol::conference::{Event, Failure};
use conclave_protocol::link::Link;
use conclave_protocol::wire::relay::{KnockTokenBytes, ToRelay};
use conclave_tests::world::{Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{failure, secs};

const RIGHT: &str = "seven green bottles";
const WRONG: &str = "seven brown bottles";

fn with_passcode(world: &mut World) {
    world.open_meeting(Meeting { passcode: Some(RIGHT), talks: false, ..Meeting::default() });
}

/// The meeting's link with another secret.
fn wrong_link(world: &World) -> Link {
    let right = world.peer(HOST).conference.link();
    let text = right.reveal();
    let (rest, secret) = text.split_once('#').expect("a link holds its secret");
    // Another first character of the secret: another 6 bits.
    let first = if secret.starts_with('A') { 'B' } else { 'A' };
    Link::parse(&format!("{rest}#{first}{}", &secret[1..])).expect("a link")
}

#[test]
fn the_right_passcode_opens_the_door_and_a_wrong_or_missing_one_does_not() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        with_passcode(&mut world);
        let wrong = world.join(Guest { passcode: Some(WRONG), ..Guest::default() });
        let missing = world.join(Guest::default());
        world.run(secs(5));
        assert_eq!(failure(&world, wrong), Some(Failure::WrongPasscode));
        assert_eq!(failure(&world, missing), Some(Failure::PasscodeNeeded));
        assert!(world.peer(HOST).conference.knocks().is_empty());
        let right = world.bring_in(Guest { passcode: Some(RIGHT), ..Guest::default() });
        world.run(secs(3));
        world.assert_converged();
        assert_eq!(failure(&world, right), None);
    });
}

#[test]
fn after_ten_wrong_passcodes_guesses_are_slow_and_honest_guests_still_get_in() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        with_passcode(&mut world);
        let wrong = Guest { passcode: Some(WRONG), ..Guest::default() };
        for _ in 0..10 {
            let guess = world.join(wrong);
            world.run(secs(1));
            assert_eq!(failure(&world, guess), Some(Failure::WrongPasscode));
        }
        let began = world.now();
        let guesses: Vec<Who> = (0..20).map(|_| world.join(wrong)).collect();
        let honest = world.join(Guest { passcode: Some(RIGHT), ..Guest::default() });
        world.run(secs(2));
        assert!(world.peer(honest).was_told(|event| matches!(event, Event::Throttled)));
        world.run(secs(60));
        let tried = guesses.iter().filter(|guess| failure(&world, **guess).is_some()).count();
        // 5 + 10 + 20 + 40 s between them.
        assert!(tried <= 4, "{tried} guesses in a minute");
        // Drawn at random, it may be the last of 21 at 60 s each.
        let gets_in = world.run_until(secs(30 * 60), |world| world.knock_of(honest).is_some());
        assert!(gets_in, "an honest guest never got in among guessers");
        assert!(world.now() > began);
        world.admit(honest).unwrap();
        world.await_member(honest);
    });
}

#[test]
fn after_the_penalty_an_honest_guest_is_taken_at_once() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        with_passcode(&mut world);
        for _ in 0..11 {
            world.join(Guest { passcode: Some(WRONG), ..Guest::default() });
        }
        world.run(secs(30));
        let before = world.now();
        let honest = world.join(Guest { passcode: Some(RIGHT), ..Guest::default() });
        world.await_knock(honest);
        assert!(world.now() - before < secs(11), "an honest guest waits for longer than the penalty");
    });
}

#[test]
fn a_wrong_link_is_refused_by_the_gate_and_the_host_never_hears_of_it() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let link = wrong_link(&world);
        let guest = world.join_by(Guest::default(), link);
        world.run(secs(5));
        assert_eq!(failure(&world, guest), Some(Failure::WrongLink));
        assert_eq!(world.relay.stats().messages_mail, 0);
        assert_eq!(world.relay.stats().refused_wrong_link, 1);
    });
}

#[test]
fn a_wrong_link_is_refused_by_the_host_when_the_relay_opens_the_gate_to_it() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let right = world.peer(HOST).conference.link();
        // Which an operator has from any honest guest.
        let token = right.secret.knock_token(right.meeting);
        world.relay.villainy.rewrites_in = Some(Box::new(move |_, message| match message {
            ToRelay::OpenMailbox { .. } => ToRelay::OpenMailbox { token: KnockTokenBytes(token.0) },
            other => other,
        }));
        let link = wrong_link(&world);
        let guest = world.join_by(Guest::default(), link);
        world.run(secs(5));
        assert_eq!(failure(&world, guest), Some(Failure::WrongLink));
        assert!(world.relay.stats().messages_mail > 0, "the gate was not opened");
        assert!(world.peer(HOST).conference.knocks().is_empty());
    });
}
