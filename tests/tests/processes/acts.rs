//! Who may do what in a meeting, and what the others get to know of it.

use conclave_tests::process::JsonlClient;
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, end_all, hears_more, host_at, join, knock_of, link_of, newest};

/// Tells a client to do something to somebody.
fn tell(client: &mut JsonlClient, what: &str, who: impl Into<Value>) {
    client.send(&json!({ "do": what, "who": who.into() })).unwrap();
}

/// Tells a client something that it refuses, and gives its words.
fn refused(client: &mut JsonlClient, command: &Value) -> String {
    let mark = client.mark();
    client.send(command).unwrap();
    let error = client.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
    error["message"].as_str().unwrap().to_owned()
}

/// Waits until all show a code of one and the same epoch, that of their rosters; gives that epoch, words and digits.
fn code_of_all(clients: &[&JsonlClient]) -> (u64, Value, Value) {
    let members = clients.len();
    let complete = |roster: &Value| roster["members"].as_array().unwrap().len() == members;
    let least = clients.iter().map(|client| {
        client.wait_event("roster", complete, LIMIT).unwrap();
        newest(client, "roster").unwrap()["epoch"].as_u64().unwrap()
    });
    let least = least.max().unwrap();
    let codes = clients.iter().map(|client| {
        let code = client.wait_event("security_code", |code| code["epoch"].as_u64() >= Some(least), LIMIT).unwrap();
        (code["epoch"].as_u64().unwrap(), code["words"].clone(), code["digits"].clone())
    });
    let codes: Vec<_> = codes.collect();
    assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
    codes[0].clone()
}

/// What a client who knocks is told, and that it ends with status 3.
fn turned_down(mut client: JsonlClient) -> Value {
    let denied = client.wait_event("denied", |_| true, LIMIT).unwrap();
    assert_eq!(client.wait_exit(LIMIT).unwrap(), 3);
    assert!(client.events_named("admitted").is_empty());
    denied["reason"].clone()
}

/// Waits for an act at a client.
fn sees(client: &JsonlClient, what: &str, by: &str, who: Option<&str>) {
    let wanted = |act: &Value| act["what"] == what && act["by_name"] == by && act["who_name"] == json!(who);
    client.wait_event("act", wanted, LIMIT).unwrap();
}

#[test]
fn everybody_shows_the_same_security_code_for_the_same_epoch_and_another_after_a_change() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let bela = meeting.guest("Bela", &[]);
    let cleo = meeting.guest("Cleo", &[]);
    let three = code_of_all(&[&meeting.host, &bela, &cleo]);
    let dora = meeting.guest("Dora", &[]);
    let four = code_of_all(&[&meeting.host, &bela, &cleo, &dora]);
    assert!(three.0 < four.0 && three.1 != four.1 && three.2 != four.2, "{three:?} {four:?}");
    // Whoever saw a code of an epoch saw the same as everybody else who did.
    let mut seen = std::collections::BTreeMap::new();
    for client in [&meeting.host, &bela, &cleo, &dora] {
        for code in client.events_named("security_code") {
            let shown = (code["words"].clone(), code["digits"].clone());
            assert_eq!(*seen.entry(code["epoch"].as_u64()).or_insert_with(|| shown.clone()), shown);
        }
    }
    let different: std::collections::BTreeSet<String> = seen.values().map(|shown| shown.1.to_string()).collect();
    assert_eq!(different.len(), seen.len());
    end_all(meeting.host, vec![bela, cleo, dora]);
}

#[test]
fn locked_meeting_lets_a_dropped_member_back_without_a_knock_and_nobody_else() {
    let stage = Stage::shared();
    let home = stage.argument("bela");
    let mut meeting = Meeting::open(&[]);
    let mut bela = meeting.guest("Bela", &["--home", &home]);
    let cleo = meeting.guest("Cleo", &[]);
    meeting.host.act("lock").unwrap();
    for client in [&meeting.host, &bela, &cleo] {
        client.wait_event("locked", |locked| locked["on"] == true, LIMIT).unwrap();
        sees(client, "lock", "Hestia", None);
    }
    assert_eq!(turned_down(join("Dora", &meeting.link, &[])), "locked");

    bela.kill();
    let mark = meeting.host.mark();
    let bela = join("Bela", &meeting.link, &["--home", &home]);
    bela.wait_event("admitted", |_| true, LIMIT).unwrap();
    // It is told at entry.
    bela.wait_event("locked", |locked| locked["on"] == true, LIMIT).unwrap();
    meeting.host.wait_event_after(mark, "joined", |joined| joined["name"] == "Bela", LIMIT).unwrap();
    let knocked = meeting.host.events_after(mark).into_iter().any(|event| event["event"] == "knock");
    assert!(!knocked && bela.events_named("waiting").iter().all(|waiting| waiting["for"] != "admission"));
    hears_more(&bela, "Cleo", 25, LIMIT);

    let mark = meeting.host.mark();
    meeting.host.act("unlock").unwrap();
    for client in [&bela, &cleo] {
        client.wait_event("locked", |locked| locked["on"] == false, LIMIT).unwrap();
    }
    meeting.host.wait_event_after(mark, "locked", |locked| locked["on"] == false, LIMIT).unwrap();
    let dora = meeting.guest("Dora", &[]);
    end(meeting.host, vec![bela, cleo, dora]);
}

#[test]
fn client_that_is_started_again_with_its_home_is_back_without_a_knock() {
    let stage = Stage::shared();
    let home = stage.argument("bela");
    let mut meeting = Meeting::open(&[]);
    let mut bela = meeting.guest("Bela", &["--home", &home]);
    let cleo = meeting.guest("Cleo", &[]);
    let (mark, cleo_mark) = (meeting.host.mark(), cleo.mark());
    bela.kill();
    let bela = join("Bela", &meeting.link, &["--home", &home]);
    let admitted = bela.wait_event("admitted", |_| true, LIMIT).unwrap();
    eprintln!("back {} ms after the start", admitted["t_ms"]);
    hears_more(&bela, "Cleo", 25, LIMIT);
    assert!(meeting.host.events_after(mark).iter().all(|event| event["event"] != "knock"));
    // The one that was killed is gone, and nobody is in the roster twice.
    let only = |roster: &Value| {
        let members = roster["members"].as_array().unwrap();
        members.len() == 3 && members.iter().filter(|member| member["name"] == "Bela").count() == 1
    };
    cleo.wait_event_after(cleo_mark, "roster", only, LIMIT).unwrap();
    assert!(only(&newest(&cleo, "roster").unwrap()));
    end_all(meeting.host, vec![bela, cleo]);
}

#[test]
fn who_was_blocked_or_removed_stays_out_with_the_same_key_in_this_meeting_and_after_a_block_in_the_next() {
    let stage = Stage::shared();
    let [ada, mallory, oscar] = ["ada", "mallory", "oscar"].map(|name| stage.argument(name));
    let mut meeting = Meeting::open(&["--home", &ada]);
    let bela = meeting.guest("Bela", &[]);
    let mut removed = meeting.guest("Oscar", &["--home", &oscar]);
    let knocking = join("Mallory", &meeting.link, &["--home", &mallory]);
    knock_of(&meeting.host, "Mallory");
    tell(&mut meeting.host, "block", "Mallory");
    assert_eq!(turned_down(knocking), "blocked");
    tell(&mut meeting.host, "remove", "Oscar");
    assert_eq!(removed.wait_exit(LIMIT).unwrap(), 4);
    sees(&bela, "remove", "Hestia", Some("Oscar"));
    for (name, home) in [("Malorie", &mallory), ("Oscar", &oscar)] {
        let mark = meeting.host.mark();
        assert_eq!(turned_down(join(name, &meeting.link, &["--home", home])), "blocked");
        assert!(meeting.host.events_after(mark).iter().all(|event| event["event"] != "knock"));
    }
    // Another key knocks as anybody does.
    let stranger = join("Mallory", &meeting.link, &[]);
    meeting
        .host
        .wait_event("knock", |knock| knock["standing"] == "guest" && knock["name"] == "Mallory", LIMIT)
        .unwrap();
    drop(stranger);
    end_all(meeting.host, vec![bela]);

    // The host's home remembers the block; a removal is for the meeting.
    let host = host_at(meeting.relay.addr(), meeting.relay.pin().unwrap(), &["--home", &ada]);
    let link = link_of(&host);
    assert_eq!(turned_down(join("Malorie", &link, &["--home", &mallory])), "blocked");
    let mut oscar = join("Oscar", &link, &["--home", &oscar]);
    knock_of(&host, "Oscar");
    oscar.act("leave").unwrap();
    assert_eq!(oscar.wait_exit(LIMIT).unwrap(), 0);
    end_all(host, vec![]);
}

#[test]
fn blocked_member_is_put_out_and_stays_out() {
    let stage = Stage::shared();
    let home = stage.argument("mallory");
    let mut meeting = Meeting::open(&[]);
    let bela = meeting.guest("Bela", &[]);
    let mut mallory = meeting.guest("Mallory", &["--home", &home]);
    tell(&mut meeting.host, "block", "Mallory");
    assert_eq!(mallory.wait_exit(LIMIT).unwrap(), 4);
    let left = bela.wait_event("left", |left| left["name"] == "Mallory", LIMIT).unwrap();
    assert_eq!(left["why"], "removed");
    assert_eq!(turned_down(join("Mallory", &meeting.link, &["--home", &home])), "blocked");
    end_all(meeting.host, vec![bela]);
}

/// Waits until a newcomer is in this client's meeting. It need not be at the relay by then.
fn has_heard_of(client: &JsonlClient, newcomer: &str) {
    let is_in = |roster: &Value| {
        roster["members"].as_array().is_some_and(|members| members.iter().any(|member| member["name"] == newcomer))
    };
    client.wait_event("roster", is_in, LIMIT).unwrap();
}

#[test]
fn chat_comes_in_order_to_everybody_present_and_late_joiners_get_nothing_from_before() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let mut bela = meeting.guest("Bela", &[]);
    let cleo = meeting.guest("Cleo", &[]);
    // What she writes in the epoch before Cleo's is from before Cleo; what she writes before Cleo is at the relay, Cleo
    // gets from the host.
    has_heard_of(&bela, "Cleo");
    let lines = |from: usize| (from..from + 10).map(|number| format!("line {number} – “ünïcode”"));
    for text in lines(0) {
        bela.send(&json!({ "do": "chat", "text": text })).unwrap();
    }
    let last = |text: Option<String>| move |chat: &Value| chat["text"] == json!(text);
    for client in [&meeting.host, &cleo] {
        client.wait_event("chat", last(lines(0).next_back()), LIMIT).unwrap();
    }
    bela.send(&json!({ "do": "hand", "on": true })).unwrap();
    for client in [&meeting.host, &cleo] {
        client.wait_event("hand", |hand| hand["index"] == 1 && hand["on"] == true, LIMIT).unwrap();
    }
    let dora = meeting.guest("Dora", &[]);
    has_heard_of(&bela, "Dora");
    for text in lines(10) {
        bela.send(&json!({ "do": "chat", "text": text })).unwrap();
    }
    bela.send(&json!({ "do": "hand", "on": false })).unwrap();
    for client in [&meeting.host, &cleo, &dora] {
        client.wait_event("chat", last(lines(10).next_back()), LIMIT).unwrap();
        client.wait_event("hand", |hand| hand["on"] == false, LIMIT).unwrap();
    }
    let said = |client: &JsonlClient| -> Vec<String> {
        let chats = client.events_named("chat");
        assert!(chats.iter().all(|chat| chat["from"] == 1 && chat["name"] == "Bela"), "{chats:?}");
        chats.iter().map(|chat| chat["text"].as_str().unwrap().to_owned()).collect()
    };
    let all: Vec<String> = lines(0).chain(lines(10)).collect();
    assert_eq!((said(&meeting.host), said(&cleo)), (all.clone(), all));
    assert_eq!(said(&dora), lines(10).collect::<Vec<_>>());
    for bad in [String::new(), "x".repeat(2_001)] {
        let message = refused(&mut bela, &json!({ "do": "chat", "text": bad }));
        assert!(message.contains("1 to 2,000 bytes"), "{message}");
    }
    end_all(meeting.host, vec![bela, cleo, dora]);
}

#[test]
fn promotion_and_demotion_are_shown_to_everybody_and_a_plain_member_may_do_nothing() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let mut bela = meeting.guest("Bela", &[]);
    let mut cleo = meeting.guest("Cleo", &[]);
    has_heard_of(&bela, "Cleo");
    for (what, who) in [("remove", Some("Cleo")), ("promote", Some("Bela")), ("lock", None)] {
        let command = who.map_or_else(|| json!({ "do": what }), |who| json!({ "do": what, "who": who }));
        let message = refused(&mut bela, &command);
        assert!(message.contains("only the host can do this"), "{what}: {message}");
    }

    tell(&mut meeting.host, "promote", "Bela");
    for client in [&meeting.host, &bela, &cleo] {
        sees(client, "promote", "Hestia", Some("Bela"));
    }
    let role = |client: &JsonlClient, wanted: &str| {
        let has = |roster: &Value| roster["members"][1]["role"] == wanted;
        client.wait_event("roster", has, LIMIT).unwrap();
    };
    tell(&mut bela, "ask_mute", "Cleo");
    cleo.wait_event("asked_to_mute", |asked| asked["by"] == 1, LIMIT).unwrap();
    sees(&meeting.host, "ask_mute", "Bela", Some("Cleo"));
    bela.act("lock").unwrap();
    for client in [&meeting.host, &bela, &cleo] {
        client.wait_event("locked", |locked| locked["on"] == true, LIMIT).unwrap();
        sees(client, "lock", "Bela", None);
    }
    bela.act("unlock").unwrap();
    meeting.host.wait_event("locked", |locked| locked["on"] == false, LIMIT).unwrap();
    let message = refused(&mut bela, &json!({ "do": "remove", "who": "Hestia" }));
    eprintln!("a co-host who removes the host: {message}");

    tell(&mut meeting.host, "demote", "Bela");
    for client in [&meeting.host, &bela, &cleo] {
        sees(client, "demote", "Hestia", Some("Bela"));
        role(client, "member");
    }
    let message = refused(&mut bela, &json!({ "do": "lock" }));
    assert!(message.contains("only the host can do this"), "{message}");
    // Nothing of what was refused has happened.
    for client in [&meeting.host, &cleo, &bela] {
        assert_eq!(client.events_named("left"), Vec::<Value>::new());
        assert_eq!(client.events_named("alarm"), Vec::<Value>::new());
        assert_eq!(client.events_named("locked").len(), 2, "{:?}", client.events_named("locked"));
    }
    cleo.act("unmute").unwrap();
    cleo.wait_event("muted", |muted| muted["on"] == false, LIMIT).unwrap();
    end_all(meeting.host, vec![bela, cleo]);
}

#[test]
fn of_two_people_of_one_name_neither_is_meant_by_it_and_the_number_decides() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let first = meeting.guest("Bela", &[]);
    let mut second = join("Bela", &meeting.link, &[]);
    let mut third = join("Bela", &meeting.link, &[]);
    meeting.host.wait_event("knock", |knock| knock["id"] == 3, LIMIT).unwrap();
    let message = refused(&mut meeting.host, &json!({ "do": "admit", "who": "Bela" }));
    assert!(message.contains("use the number"), "{message}");
    meeting.host.act("admit_all").unwrap();
    for client in [&second, &third] {
        client.wait_event("roster", |_| true, LIMIT).unwrap();
    }
    for what in ["remove", "promote", "ask_mute"] {
        let message = refused(&mut meeting.host, &json!({ "do": what, "who": "Bela" }));
        assert!(message.contains("use the number"), "{what}: {message}");
    }
    let index = second.wait_event("admitted", |_| true, LIMIT).unwrap()["index"].clone();
    tell(&mut meeting.host, "remove", index.clone());
    assert_eq!(second.wait_exit(LIMIT).unwrap(), 4);
    let left = first.wait_event("left", |_| true, LIMIT).unwrap();
    assert_eq!(left["index"], index);
    third.act("mute").unwrap();
    end_all(meeting.host, vec![first, third]);
}

#[test]
fn who_is_to_be_blocked_by_a_name_that_several_have_is_asked_for_by_number() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let first = meeting.guest("Bela", &[]);
    let third = join("Bela", &meeting.link, &[]);
    meeting.host.wait_event("knock", |knock| knock["id"] == 2, LIMIT).unwrap();
    // One is in, one knocks: either may be meant.
    let message = refused(&mut meeting.host, &json!({ "do": "block", "who": "Bela" }));
    assert!(message.contains("use the number"), "{message}");
    let second = join("Bela", &meeting.link, &[]);
    meeting.host.wait_event("knock", |knock| knock["id"] == 3, LIMIT).unwrap();
    tell(&mut meeting.host, "admit", 2);
    third.wait_event("roster", |_| true, LIMIT).unwrap();
    // Two are in, one knocks: it is not the one who knocks that is meant.
    let message = refused(&mut meeting.host, &json!({ "do": "block", "who": "Bela" }));
    assert!(message.contains("use the number"), "{message}");
    assert!(second.events_named("denied").is_empty());
    end_all(meeting.host, vec![first, third]);
}
