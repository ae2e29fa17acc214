//! Random walks: whatever order people come, go, are let in, denied and put out in, and however bad their networks
//! are, the real roster is the model's, and everybody who stays ends in the same epoch.

use conclave_tests::world::{Conditions, Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

/// Most people in a walk.
const MOST: usize = 12;

fn pick(world: &mut World, from: &[Who]) -> Option<Who> {
    (!from.is_empty()).then(|| from[world.dice().below(from.len())])
}

fn waiting(world: &World) -> Vec<Who> {
    world.everybody().filter(|who| world.knock_of(*who).is_some()).collect()
}

/// Members other than the host who have not gone away.
fn members(world: &World) -> Vec<Who> {
    let roster = world.peer(HOST).roster();
    let is_member = |who: &Who| {
        let peer = world.peer(*who);
        *who != HOST && peer.conn.is_some() && world.can_send(*who) && roster.values().any(|n| *n == peer.name)
    };
    world.everybody().filter(is_member).collect()
}

fn act(world: &mut World) {
    let (waiting, members) = (waiting(world), members(world));
    match world.dice().below(12) {
        0..=3 if waiting.len() + members.len() < MOST - 1 => {
            let conditions = Conditions::drawn(world.dice());
            let talks = world.dice().chance(0.4);
            world.join(Guest { conditions, talks, ..Guest::default() });
        }
        4 | 5 => {
            if let Some(who) = pick(world, &waiting) {
                world.admit(who).expect("it waits");
            }
        }
        6 => {
            world.admit_all();
        }
        7 => {
            if let Some(who) = pick(world, &waiting) {
                world.deny(who);
            }
        }
        8 => {
            if let Some(who) = pick(world, &members) {
                world.leave(who);
            }
        }
        9 => {
            if let Some(who) = pick(world, &members) {
                world.remove(who);
            }
        }
        10 => {
            if let Some(who) = pick(world, &members) {
                let until = world.now() + millis(1_500);
                world.peer_mut(who).down.stall(until);
            }
        }
        _ => {
            if let Some(who) = pick(world, &[waiting, members].concat()).filter(|_| world.now() < secs(5)) {
                world.hang_up(who);
            }
        }
    }
}

#[test]
fn rosters_follow_the_acts_and_everybody_who_stays_ends_in_the_same_epoch() {
    let mut epochs = 0;
    let mut opened = 0;
    for_seeds(200, |seed| {
        let mut world = World::new(seed);
        let conditions = Conditions::drawn(world.dice());
        world.open_meeting(Meeting { conditions, ..Meeting::default() });
        for _ in 0..40 {
            act(&mut world);
            let pause = world.dice().up_to(millis(500));
            world.run(pause);
        }
        world.everybody().for_each(|who| world.peer_mut(who).talks = false);
        // Those who hung up without a word are lost after a minute.
        world.run(secs(75));
        world.assert_converged();
        world.everybody().for_each(|who| assert_eq!(world.peer(who).alarms(), 0));
        epochs += world.witness.epochs();
        opened += world.everybody().map(|who| world.peer(who).opened.len()).sum::<usize>();
    });
    if std::env::var_os("CONCLAVE_SEED").is_none() {
        assert!(epochs > 2_000 && opened > 100_000, "only {epochs} epochs and {opened} frames in all walks");
    }
}
