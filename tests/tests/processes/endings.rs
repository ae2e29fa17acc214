//! How things end: on purpose, by a signal, and when the relay goes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::stage::{LIMIT, Meeting, Stage, hears_more};

#[test]
fn leaving_ending_and_running_out_of_time_end_with_status_zero_and_tell_the_others_why() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let mut leaver = meeting.guest("Leaver", &[]);
    let mut timed = meeting.guest("Timed", &["--seconds", "2"]);
    let mut stopped = meeting.guest("Stopped", &[]);
    let mut last = meeting.guest("Last", &[]);

    leaver.act("leave").unwrap();
    assert_eq!(leaver.wait_exit(LIMIT).unwrap(), 0);
    stopped.terminate().unwrap();
    assert_eq!(stopped.wait_exit(LIMIT).unwrap(), 0);
    assert_eq!(timed.wait_exit(LIMIT).unwrap(), 0);
    for (client, by) in [(&leaver, "leave"), (&stopped, "signal"), (&timed, "seconds")] {
        assert_eq!(client.events().last().unwrap()["event"], "ended");
        assert_eq!(client.events().last().unwrap()["by"], by);
    }
    for name in ["Leaver", "Stopped", "Timed"] {
        for witness in [&meeting.host, &last] {
            let left = witness.wait_event("left", |left| left["name"] == name, LIMIT).unwrap();
            assert_eq!(left["why"], "left", "{left}");
        }
    }
    // A host that leaves ends the meeting for all.
    meeting.host.act("leave").unwrap();
    assert_eq!(last.wait_event("ended", |_| true, LIMIT).unwrap()["by"], "host");
    assert_eq!((last.wait_exit(LIMIT).unwrap(), meeting.host.wait_exit(LIMIT).unwrap()), (0, 0));
}

#[test]
fn host_whose_seconds_have_passed_ends_the_meeting_for_all() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&["--seconds", "4"]);
    let mut guest = meeting.guest("Bela", &[]);
    assert_eq!(guest.wait_event("ended", |_| true, LIMIT).unwrap()["by"], "host");
    assert_eq!(meeting.host.wait_event("ended", |_| true, LIMIT).unwrap()["by"], "seconds");
    assert_eq!((guest.wait_exit(LIMIT).unwrap(), meeting.host.wait_exit(LIMIT).unwrap()), (0, 0));
}

#[test]
fn removed_member_ends_with_status_four_and_cannot_come_back_with_the_same_identity() {
    let stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let home = stage.argument("home");
    let mut removed = meeting.guest("Bela", &["--home", &home]);
    meeting.host.send(&json!({ "do": "remove", "who": 1 })).unwrap();
    removed.wait_event("removed", |_| true, LIMIT).unwrap();
    assert_eq!(removed.wait_exit(LIMIT).unwrap(), 4);
    let mut again = crate::stage::join("Bela", &meeting.link, &["--home", &home]);
    assert_eq!(again.wait_event("denied", |_| true, LIMIT).unwrap()["reason"], "blocked");
    assert_eq!(again.wait_exit(LIMIT).unwrap(), 3);
}

#[test]
fn relay_that_is_told_to_stop_ends_well_within_a_second_and_clients_that_do_not_reconnect_within_two() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&["--input", "tone", "--reconnect", "0"]);
    let mut guest = meeting.guest("Bela", &["--reconnect", "0"]);
    hears_more(&guest, "Hestia", 25, LIMIT);
    let start = Instant::now();
    let (status, took) = meeting.relay.stop(LIMIT).unwrap();
    assert_eq!(status, 0, "{}", meeting.relay.stderr());
    assert!(took <= Duration::from_secs(1), "the relay took {took:?}");
    for client in [&mut meeting.host, &mut guest] {
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 6);
        assert!(start.elapsed() <= Duration::from_secs(2), "a client took {:?}", start.elapsed());
        let message = client.wait_event("error", |_| true, LIMIT).unwrap();
        assert!(message["message"].as_str().unwrap().contains("relay"), "{message}");
    }
    assert_eq!(meeting.relay.stdout_lines(), 1);
}

#[test]
fn clients_that_do_not_reconnect_end_with_status_six_when_their_relay_is_killed() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&["--reconnect", "0"]);
    let mut guest = meeting.guest("Bela", &["--reconnect", "0"]);
    meeting.relay.kill();
    for client in [&mut meeting.host, &mut guest] {
        // Nobody tells them, so they learn it from silence: 15 s (docs/protocol.md §10).
        assert_eq!(client.wait_exit(Duration::from_secs(30)).unwrap(), 6, "{:?}", client.events().last());
        assert_eq!(client.events_named("error").len(), 1);
    }
}
