//! Who does not get in: wrong, edited and missing secrets, and guessing at the passcode.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use conclave_tests::process::JsonlClient;

use crate::stage::{LIMIT, Meeting, Stage, by_way_of, end, join};

/// The bound, from the start of the process to its end.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const PASSCODE: &str = "seven quiet otters";
const WRONG_PASSCODE: &str = "eight loud badgers";
/// Some other 16 bytes as a link's secret.
const WRONG_SECRET: &str = "AAECAwQFBgcICQoLDA0ODw";

#[test]
fn wrong_edited_and_missing_secrets_are_refused_at_once_with_the_right_status_and_no_secret_in_the_message() {
    let _stage = Stage::shared();
    let meeting = Meeting::open(&["--passcode", PASSCODE]);
    let (front, secret) = meeting.link.split_once('#').unwrap();
    let secrets = [secret, PASSCODE, WRONG_PASSCODE, WRONG_SECRET];
    let right: &[&str] = &["--passcode", PASSCODE];

    refused(&format!("{front}#{WRONG_SECRET}"), right, 2, "ask the host for a new link", &secrets);
    refused(&meeting.link, &["--passcode", WRONG_PASSCODE], 5, "passcode is wrong", &secrets);
    refused(&meeting.link, &[], 5, "--passcode", &secrets);
    let (_, path) = front.split_once("://").unwrap();
    let (_, id) = path.split_once('/').unwrap();
    let (id, pin) = id.split_once("?pin=").unwrap();
    for place in [0, id.len() / 2, id.len() - 1] {
        refused(&meeting.link.replace(id, &edited(id, place)), right, 2, "copy the whole link again", &secrets);
    }
    // The last character also holds bits that are no part of the pin; the first ones don't.
    refused(&meeting.link.replace(pin, &edited(pin, 0)), right, 2, "ask the host for the link again", &secrets);
    refused(&meeting.link.replace(pin, &pin[..pin.len() - 1]), right, 2, "copy the whole link again", &secrets);

    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = by_way_of(&meeting.link, meeting.relay.addr(), nobody);
    refused(&unreachable, right, 6, "check your network", &secrets);
    // None of these was a knock that the host should see.
    assert_eq!(meeting.host.events_named("knock"), Vec::<serde_json::Value>::new());
    end(meeting.host, vec![]);
}

#[test]
fn garbage_for_a_link_is_refused_at_once_and_not_repeated() {
    let _stage = Stage::shared();
    let secret = "c2VjcmV0IHRvIGtlZXAuLg";
    let garbage = [
        String::new(),
        "hello".to_owned(),
        format!("https://relay.example/meeting#{secret}"),
        format!("conclave://#{secret}"),
        format!("conclave://127.0.0.1:1/#{secret}"),
        format!("conclave://127.0.0.1:99999/AAAA#{secret}"),
        format!("conclave://127.0.0.1:1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA?secret={secret}#{secret}"),
        format!("conclave://127.0.0.1:1/\u{1f980}\u{202e}#{secret}"),
        format!("conclave://{}#{secret}", "a".repeat(10_000)),
    ];
    for link in &garbage {
        refused(link, &[], 2, "", &[secret]);
    }
}

#[test]
fn guessing_at_the_passcode_is_slowed_down_by_the_host_and_a_right_one_still_gets_in_after_the_penalty() {
    let _stage = Stage::shared();
    let meeting = Meeting::open(&["--passcode", PASSCODE, "--admit", "all"]);
    let guess = |number: usize| {
        let start = Instant::now();
        let mut guest = join("Guesser", &meeting.link, &["--passcode", &format!("guess {number}")]);
        let status = guest.wait_exit(LIMIT).unwrap();
        assert_eq!(status, 5, "{:?} {}", guest.events(), guest.stderr());
        start.elapsed()
    };
    let free: Vec<Duration> = (1..=10).map(guess).collect();
    let slowest = free.iter().max().unwrap();
    assert!(*slowest < REFUSED_WITHIN, "{free:?}");
    let throttled = guess(11);
    eprintln!("ten wrong passcodes took at most {slowest:?} each, the eleventh {throttled:?}");
    // The first interval is 5 s (docs/protocol.md §4.6); that it had begun before the eleventh came shortens it.
    assert!(throttled > Duration::from_secs(3), "the eleventh guess was answered after {throttled:?}");

    let start = Instant::now();
    let guest = join("Bela", &meeting.link, &["--passcode", PASSCODE]);
    guest.wait_event("admitted", |_| true, Duration::from_secs(30)).unwrap();
    eprintln!("then a right one waited {:?}", start.elapsed());
    assert_eq!(meeting.host.events_named("joined").len(), 1);
    end(meeting.host, vec![guest]);
}

/// Joins, and checks status, time and message.
fn refused(link: &str, args: &[&str], status: i32, advice: &str, secrets: &[&str]) {
    let start = Instant::now();
    let mut guest = join("Mallory", link, args);
    let actual = guest.wait_exit(LIMIT).unwrap();
    let took = start.elapsed();
    let said = said(&guest);
    assert_eq!(actual, status, "{link}: {said}");
    assert!(took <= REFUSED_WITHIN, "{link}: refused after {took:?}");
    for secret in secrets {
        assert!(!said.contains(secret), "the message repeats a secret: {said}");
    }
    let errors = guest.events_named("error");
    assert_eq!(errors.len(), 1, "{said}");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.contains(advice), "{link}: {message:?} does not say {advice:?}");
    assert!(message.len() > 20, "{message}");
    let allowed = ["waiting", "error"];
    assert!(guest.events().iter().all(|event| allowed.contains(&event["event"].as_str().unwrap())), "{said}");
}

/// Everything that it wrote.
fn said(guest: &JsonlClient) -> String {
    format!("{:?}\n{:?}\n{}", guest.events(), guest.faults(), guest.stderr())
}

/// The text with another base64url character in one place.
fn edited(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}
