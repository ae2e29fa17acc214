//! What clients remember of each other from meeting to meeting.

use conclave_tests::process::{JsonlClient, Mark};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, hears_more, join, knock_of, newest, next_stats, talker};

/// Another number than the one given, of the same form.
fn misread(digits: &str) -> String {
    let last = if digits.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &digits[..digits.len() - 1])
}

fn standing(roster: &Value, name: &str) -> Value {
    let members = roster["members"].as_array().unwrap();
    members.iter().find(|member| member["name"] == name).unwrap()["standing"].clone()
}

fn compare(client: &mut JsonlClient, who: &str, digits: &str) {
    client.send(&json!({ "do": "compare", "who": who, "digits": digits })).unwrap();
}

#[test]
fn compared_safety_numbers_are_remembered_and_a_wrong_one_is_an_alarm() {
    let stage = Stage::shared();
    let (ada, bob) = (stage.argument("ada"), stage.argument("bob"));
    let mut meeting = Meeting::open(&["--home", &ada]);
    let guest = meeting.guest("Bob", &["--home", &bob]);
    let roster = guest.wait_event("roster", |_| true, LIMIT).unwrap();
    assert_eq!((standing(&roster, "Hestia"), standing(&roster, "Bob")), (json!("new"), json!("self")));
    let digits = roster["members"][0]["safety_number"].as_str().unwrap().to_owned();

    let mark = meeting.host.mark();
    compare(&mut meeting.host, "Bob", &misread(&digits));
    let alarm = meeting.host.wait_event_after(mark, "alarm", |_| true, LIMIT).unwrap();
    assert_eq!((&alarm["kind"], &alarm["index"]), (&json!("safety_number"), &json!(1)));
    meeting.host.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
    compare(&mut meeting.host, "Bob", &digits);
    let roster = meeting.host.wait_event_after(mark, "roster", |_| true, LIMIT).unwrap();
    assert_eq!(standing(&roster, "Bob"), "verified");
    end(meeting.host, vec![guest]);

    let meeting = Meeting::open(&["--home", &ada]);
    let mut guest = join("Robert", &meeting.link, &["--home", &bob]);
    assert_eq!(knock_of(&meeting.host, "Robert")["standing"], "verified");
    let impostor = join("R0bert", &meeting.link, &[]);
    assert_eq!(knock_of(&meeting.host, "R0bert")["standing"], "guest", "nobody was met under that name");
    let mut other = join("b0b", &meeting.link, &[]);
    let knock = knock_of(&meeting.host, "b0b");
    assert_eq!((&knock["standing"], &knock["looks_like"]), (&json!("key_changed"), &Value::Null));
    let mut double = join("HESTIA", &meeting.link, &[]);
    assert_eq!(knock_of(&meeting.host, "HESTIA")["looks_like"], 0);
    for client in [&mut guest, &mut other, &mut double] {
        client.act("leave").unwrap();
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 0);
    }
    drop(impostor);
    end(meeting.host, vec![]);
}

#[test]
fn a_damaged_list_of_people_keeps_the_client_from_starting_and_is_left_alone() {
    let stage = Stage::shared();
    let home = stage.argument("home");
    let meeting = Meeting::open(&["--home", &home]);
    end(meeting.host, vec![]);
    let path = stage.path("home").join("people.json");
    std::fs::write(&path, "{").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut client = JsonlClient::start("host", ["host", "--name", "Hestia", "--home", &home]).unwrap();
    let error = client.wait_event("error", |_| true, LIMIT).unwrap();
    assert!(error["message"].as_str().unwrap().contains("move it away"), "{error}");
    assert_eq!(client.wait_exit(LIMIT).unwrap(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
}

/// Waits for a roster that says of a member whether it is blocked.
fn is_blocked(client: &JsonlClient, mark: Mark, name: &str, blocked: bool) {
    let shows = |roster: &Value| {
        let members = roster["members"].as_array().unwrap();
        members.iter().any(|member| member["name"] == name && member["blocked"] == blocked)
    };
    client.wait_event_after(mark, "roster", shows, LIMIT).unwrap();
}

/// How many of a talker's frames a client plays within a second, from one `stats` to the one after the next.
fn plays(client: &JsonlClient, name: &str) -> u64 {
    let played = |mark| talker(&next_stats(client, mark), name)["played"].as_u64().unwrap();
    let first = played(client.mark());
    let second = client.mark();
    played(second).saturating_sub(first)
}

#[test]
fn who_is_blocked_by_a_member_stays_and_is_never_heard_by_it_again() {
    let stage = Stage::shared();
    let (bob, carl) = (stage.argument("bob"), stage.argument("carl"));
    let tone = ["--input", "tone"];
    for meeting_number in 0..2 {
        let mut meeting = Meeting::open(&[]);
        let loud = [&["--home", bob.as_str()], &tone[..]].concat();
        let names = [["Bob", "Robert"][meeting_number], "Carl", "Dora"];
        let mut talking = meeting.guest(names[0], &loud);
        let mut listener = meeting.guest(names[1], &["--home", &carl]);
        let other = meeting.guest(names[2], &tone);
        for name in [names[0], names[2]] {
            hears_more(&listener, name, 50, LIMIT);
        }
        let mark = listener.mark();
        if meeting_number == 0 {
            assert!(plays(&listener, names[0]) > 0);
            listener.send(&json!({ "do": "block", "who": names[0] })).unwrap();
            is_blocked(&listener, mark, names[0], true);
        } else {
            // Under another name, and nobody was told anything.
            assert_eq!(newest(&listener, "roster").map(|roster| blocked_of(&roster, names[0])), Some(json!(true)));
        }
        assert_eq!(plays(&listener, names[0]), 0);
        assert!(plays(&listener, names[2]) > 0);
        hears_more(&meeting.host, names[0], 50, LIMIT);
        assert!(plays(&meeting.host, names[0]) > 0, "the others hear on");
        if meeting_number == 1 {
            let mark = listener.mark();
            listener.send(&json!({ "do": "unblock", "who": names[0] })).unwrap();
            is_blocked(&listener, mark, names[0], false);
            hears_more(&listener, names[0], 50, LIMIT);
            assert!(plays(&listener, names[0]) > 0);
        }
        let mark = talking.mark();
        talking.send(&json!({ "do": "block", "who": names[0] })).unwrap();
        talking.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
        end(meeting.host, vec![talking, listener, other]);
    }
}

fn blocked_of(roster: &Value, name: &str) -> Value {
    let members = roster["members"].as_array().unwrap();
    members.iter().find(|member| member["name"] == name).unwrap()["blocked"].clone()
}
