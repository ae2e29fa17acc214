//! What clients remember of each other from meeting to meeting.

use conclave_tests::process::JsonlClient;
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, join, knock_of};

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
