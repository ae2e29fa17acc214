//! The relay or the way to it is lost, and the meeting goes on without anybody's doing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use conclave_tests::process::{JsonlClient, Mark, RelayProcess};
use conclave_tests::proxy::{Config, Direction, Impairment, Proxy};
use serde_json::Value;

use crate::stage::{LIMIT, Stage, admit, by_way_of, end, hears_more, join, link_of, observe, talker};

/// What everybody says and how.
const TALK: [&str; 2] = ["--input", "tone"];
/// What a path that is cut does to every datagram.
const CUT: Impairment = Impairment {
    loss: 1.0,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    duplicate: 0.0,
    reorder: 0.0,
    reorder_by: Duration::ZERO,
};
/// How often figures are asked for where a time is measured.
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn after_a_relay_is_killed_and_started_again_everybody_is_heard_within_two_seconds_without_knocking() {
    let stage = Stage::shared();
    let directory = stage.argument("relay");
    let mut relay = Some(relay_at("127.0.0.1:0", &directory));
    let address = relay.as_ref().unwrap().addr();
    let (mut host, mut guest) = meeting_of_two(&[relay.as_ref().unwrap()], &[]);
    let (host_mark, guest_mark) = (host.mark(), guest.mark());

    // Down for longer than it takes to notice, then for less.
    for down in [Duration::from_secs(3), Duration::ZERO] {
        relay.take().unwrap().kill();
        observe(down);
        relay = Some(relay_at(&address.to_string(), &directory));
        let up = Instant::now();
        let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - up);
        eprintln!("down for {down:?}: heard {heard:?} after the relay was up");
        // Measured, asking included: 0.1 to 0.5 s after 3 s, which is the pace of the attempts; and after none 1.4 to
        // 1.6 s, of which 1.25 s are the silence that it takes to be noticed.
        let bound = Duration::from_secs(2) + if down.is_zero() { SLACK } else { Duration::ZERO };
        assert!(heard.iter().all(|after| *after <= bound), "{heard:?}");
    }
    for (client, mark) in [(&host, host_mark), (&guest, guest_mark)] {
        outage_is_told(client, mark, 2);
        for name in ["knock", "admitted", "waiting", "joined", "left"] {
            assert!(events_after(client, mark, name).is_empty(), "{:?}", client.events());
        }
    }
    end(host, vec![guest]);
}

#[test]
fn when_one_of_two_relays_is_killed_everybody_meets_at_the_other() {
    let stage = Stage::shared();
    let mut first = relay_at("127.0.0.1:0", &stage.argument("first"));
    let second = relay_at("127.0.0.1:0", &stage.argument("second"));
    let (mut host, mut guest) = meeting_of_two(&[&first, &second], &[]);
    let (host_mark, guest_mark) = (host.mark(), guest.mark());
    first.kill();
    let killed = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - killed);
    eprintln!("heard at the other relay {heard:?} after the first was killed");
    // Measured: 1.8 to 2.0 s, of which 1.7 s are fixed: silence, and the first relay's head start. The requirement is 3.
    assert!(heard.iter().all(|after| *after <= Duration::from_secs(3) + SLACK), "{heard:?}");
    for (client, mark) in [(&host, host_mark), (&guest, guest_mark)] {
        outage_is_told(client, mark, 1);
    }
    end(host, vec![guest]);
}

#[test]
fn who_is_alone_at_another_relay_goes_to_where_the_others_are() {
    let stage = Stage::shared();
    let first = relay_at("127.0.0.1:0", &stage.argument("first"));
    let second = relay_at("127.0.0.1:0", &stage.argument("second"));
    let proxy = Proxy::start(first.addr(), Config::symmetric(Impairment::default(), 12)).unwrap();
    let mut host = host_of(&[&first, &second], &[]);
    let link = link_of(&host);
    let by_proxy = link.replace(&format!("://{},", first.addr()), &format!("://{},", proxy.addr()));
    assert_ne!(by_proxy, link);
    let mut guest = join("Bela", &by_proxy, &TALK);
    admit(&mut host, "Bela", &guest);
    both_are_heard(&host, &guest);
    let mark = guest.mark();
    // Only Bela's way to the first relay has a hiccup: long enough for another relay to be found.
    set(&proxy, CUT);
    guest.wait_event_after(mark, "reconnected", |_| true, LIMIT).unwrap();
    set(&proxy, Impairment::default());
    let mended = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - mended);
    eprintln!("heard {heard:?} after the path was mended");
    // Four seconds alone are not yet a reason; nobody has to fall silent for want of a leader.
    assert!(heard.iter().all(|after| *after <= Duration::from_secs(10)), "{heard:?}");
    let why = outage_is_told(&guest, mark, 2);
    assert!(why[1].contains("nobody else"), "{why:?}");
    assert!(events_after(&guest, mark, "admitted").is_empty() && events_after(&guest, mark, "stale").is_empty());
    end(host, vec![guest]);
}

#[test]
fn first_connection_does_not_wait_for_a_relay_that_is_down() {
    let stage = Stage::shared();
    let mut first = relay_at("127.0.0.1:0", &stage.argument("first"));
    let second = relay_at("127.0.0.1:0", &stage.argument("second"));
    first.kill();
    let (host, guest) = meeting_of_two(&[&first, &second], &[]);
    let knocked = guest.wait_event("waiting", |waiting| waiting["for"] == "admission", LIMIT).unwrap();
    eprintln!("knocked after {} ms", knocked["t_ms"]);
    // Measured: 0.41 s, of which 0.4 s are the first relay's head start.
    assert!(knocked["t_ms"].as_u64().unwrap() <= 3_000, "{knocked}");
    end(host, vec![guest]);
}

#[test]
fn when_one_of_two_relays_shuts_down_nobody_waits_for_its_end() {
    let stage = Stage::shared();
    let mut first = relay_at("127.0.0.1:0", &stage.argument("first"));
    let second = relay_at("127.0.0.1:0", &stage.argument("second"));
    let (mut host, mut guest) = meeting_of_two(&[&first, &second], &[]);
    let guest_mark = guest.mark();
    assert_eq!(first.stop(LIMIT).unwrap().0, 0);
    let stopped = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")];
    eprintln!("heard {:?} after the first relay had shut down", heard.map(|at| at.saturating_duration_since(stopped)));
    // Measured: 0.1 to 0.25 s, which is what it takes to ask. Nobody waits for silence.
    assert!(heard.iter().all(|at| *at <= stopped + Duration::from_secs(1)), "{heard:?}");
    let why = outage_is_told(&guest, guest_mark, 1);
    assert!(why[0].contains("shutting down"), "{why:?}");
    end(host, vec![guest]);
}

#[test]
fn client_that_was_cut_off_for_twenty_seconds_is_back_within_two() {
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest, proxy) = meeting_by_proxy(&relay, Impairment::default(), &[]);
    let (host_mark, guest_mark) = (host.mark(), guest.mark());
    set(&proxy, CUT);
    observe(Duration::from_secs(20));
    set(&proxy, Impairment::default());
    let mended = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - mended);
    eprintln!("heard {heard:?} after the path was mended");
    // Measured: 0.1 to 0.3 s; the pace of the attempts allows 0.7 s.
    assert!(heard.iter().all(|after| *after <= Duration::from_secs(2)), "{heard:?}");
    outage_is_told(&guest, guest_mark, 1);
    assert!(events_after(&guest, guest_mark, "admitted").is_empty());
    assert!(events_after(&host, host_mark, "reconnecting").is_empty(), "only the guest was cut off");
    assert!(events_after(&host, host_mark, "left").is_empty());
    end(host, vec![guest]);
}

#[test]
fn short_silence_is_nothing_to_tell() {
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest, proxy) = meeting_by_proxy(&relay, Impairment::default(), &[]);
    let mark = guest.mark();
    set(&proxy, CUT);
    // Long enough for attempts to begin, which are then not needed.
    observe(Duration::from_millis(1_800));
    set(&proxy, Impairment::default());
    hears_again(&mut guest, "Hestia");
    hears_again(&mut host, "Bela");
    // If an attempt was quicker than the next acknowledgement, the switch was told, and its end too.
    let (told, over) =
        (events_after(&guest, mark, "reconnecting").len(), events_after(&guest, mark, "reconnected").len());
    eprintln!("told {told} times");
    assert!(told <= 1 && told == over);
    end(host, vec![guest]);
}

#[test]
fn change_of_address_in_mid_call_is_not_noticed() {
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest, proxy) = meeting_by_proxy(&relay, Impairment::default(), &[]);
    let mark = guest.mark();
    proxy.change_addresses().unwrap();
    let changed = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - changed);
    eprintln!("heard {heard:?} after the change of address");
    // QUIC follows; measured: 0.1 to 0.2 s, which is what it takes to ask. A reconnection takes 1.25 s at least.
    assert!(heard.iter().all(|after| *after <= Duration::from_secs(1)), "{heard:?}");
    hears_more(&host, "Bela", 100, LIMIT);
    hears_more(&guest, "Hestia", 100, LIMIT);
    assert!(events_after(&guest, mark, "reconnecting").is_empty());
    end(host, vec![guest]);
}

#[test]
fn client_that_was_stopped_goes_on_with_the_connection_that_it_has() {
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest) = meeting_of_two(&[&relay], &[]);
    let mark = guest.mark();
    // The second time for longer than the socket has room for what comes.
    for seconds in [5, 12] {
        goes_on_after_being_stopped(&mut host, &mut guest, Duration::from_secs(seconds));
    }
    assert!(events_after(&guest, mark, "reconnecting").is_empty());
    end(host, vec![guest]);
}

#[test]
fn client_that_was_stopped_for_longer_than_its_connection_lasts_comes_back() {
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest) = meeting_of_two(&[&relay], &[]);
    let mark = guest.mark();
    goes_on_after_being_stopped(&mut host, &mut guest, Duration::from_secs(20));
    outage_is_told(&guest, mark, 1);
    assert!(events_after(&guest, mark, "admitted").is_empty());
    end(host, vec![guest]);
}

/// Stops the guest for some time; afterwards it hears and is heard, and its frames are where they belong.
fn goes_on_after_being_stopped(host: &mut JsonlClient, guest: &mut JsonlClient, time: Duration) {
    guest.pause().unwrap();
    observe(time);
    guest.resume().unwrap();
    let resumed = Instant::now();
    let heard = [hears_again(host, "Bela"), hears_again(guest, "Hestia")].map(|at| at - resumed);
    eprintln!("stopped for {time:?}: heard {heard:?} after going on");
    // Measured: 0.1 s for the others; 0.4 s for the one that was stopped, which throws away the first 0.3 s.
    assert!(heard.iter().all(|after| *after <= Duration::from_secs(2)), "{heard:?}");
    // Neither end thinks that somebody forges the other.
    for client in [&*host, &*guest] {
        assert!(client.events_named("alarm").is_empty(), "{:?}", client.events_named("alarm"));
    }
    // Its frames come at the pace of the clock and are played, neither behind nor ahead of their places. A busy machine
    // may make a second of them late, and not one after the other.
    for (listener, name) in [(host, "Bela"), (guest, "Hestia")] {
        let start = Instant::now();
        while !is_heard_steadily(listener, name) {
            assert!(start.elapsed() < LIMIT, "{:?}", listener.events().last());
        }
    }
}

/// Whether a talker's frames come at their pace and are played, over two seconds.
fn is_heard_steadily(listener: &mut JsonlClient, name: &str) -> bool {
    let (before, start) = (figures(listener, name), Instant::now());
    observe(Duration::from_secs(2));
    let (after, expected) = (figures(listener, name), start.elapsed().as_secs_f64() * 50.0);
    let grown = |field: &str| (after[field].as_u64().unwrap() - before[field].as_u64().unwrap()) as f64;
    let (received, played) = (grown("received"), grown("played"));
    eprintln!("{received} frames received and {played} played of {expected:.0}");
    (received - expected).abs() <= 20.0 && played >= 0.8 * expected
}

#[test]
fn bad_path_is_enough_to_connect_and_to_connect_again() {
    const BAD: Impairment = Impairment { loss: 0.2, delay: Duration::from_millis(300), ..CUT };
    let stage = Stage::shared();
    let relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest, proxy) = meeting_by_proxy(&relay, BAD, &[]);
    let mark = guest.mark();
    set(&proxy, CUT);
    observe(Duration::from_secs(6));
    set(&proxy, BAD);
    let mended = Instant::now();
    let heard = [hears_again(&mut host, "Bela"), hears_again(&mut guest, "Hestia")].map(|at| at - mended);
    eprintln!("heard {heard:?} after the path was as bad as before");
    outage_is_told(&guest, mark, 1);
    set(&proxy, Impairment::default());
    end(host, vec![guest]);
}

#[test]
fn who_does_not_find_a_relay_in_time_ends_with_status_six_and_words() {
    let stage = Stage::shared();
    let mut relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest) = meeting_of_two(&[&relay], &["--reconnect", "4"]);
    relay.kill();
    let killed = Instant::now();
    for client in [&mut host, &mut guest] {
        // The connection counts as gone after QUIC's idle timeout of 15 s, when the 4 s are over.
        assert_eq!(client.wait_exit(Duration::from_secs(30)).unwrap(), 6);
        let error = client.wait_event("error", |_| true, LIMIT).unwrap();
        assert!(error["message"].as_str().unwrap().contains("no relay of the meeting was found again"), "{error}");
        assert_eq!(client.events_named("reconnecting").len(), 1);
    }
    eprintln!("ended {:?} after the relay was killed", killed.elapsed());
}

#[test]
fn who_leaves_without_a_relay_ends_at_once_with_status_zero() {
    let stage = Stage::shared();
    let mut relay = relay_at("127.0.0.1:0", &stage.argument("relay"));
    let (mut host, mut guest) = meeting_of_two(&[&relay], &[]);
    relay.stop(LIMIT).unwrap();
    guest.wait_event("reconnecting", |_| true, LIMIT).unwrap();
    // Commands are obeyed meanwhile.
    guest.act("mute").unwrap();
    guest.wait_event("muted", |muted| muted["index"] == 1 && muted["on"] == true, LIMIT).unwrap();
    for client in [&mut guest, &mut host] {
        let told = Instant::now();
        client.act("leave").unwrap();
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 0);
        // Measured: 10 ms.
        assert!(told.elapsed() <= Duration::from_secs(1), "{:?}", told.elapsed());
    }
}

/// What a busy machine may add to what is mostly fixed time.
const SLACK: Duration = Duration::from_secs(3);

/// A relay that keeps its key, so that another one can be started in its place.
fn relay_at(listen: &str, directory: &str) -> RelayProcess {
    RelayProcess::start(&["--listen", listen, "--self-signed", directory]).unwrap()
}

/// Hestia and Bela in a meeting over these relays, both talking and heard.
fn meeting_of_two(relays: &[&RelayProcess], args: &[&str]) -> (JsonlClient, JsonlClient) {
    let mut host = host_of(relays, args);
    let guest = join("Bela", &link_of(&host), &[&TALK, args].concat());
    admit(&mut host, "Bela", &guest);
    both_are_heard(&host, &guest);
    (host, guest)
}

/// The same with a bad or changing path between the guest and the relay.
fn meeting_by_proxy(relay: &RelayProcess, path: Impairment, args: &[&str]) -> (JsonlClient, JsonlClient, Proxy) {
    let proxy = Proxy::start(relay.addr(), Config::symmetric(path, 11)).unwrap();
    let mut host = host_of(&[relay], args);
    let link = by_way_of(&link_of(&host), relay.addr(), proxy.addr());
    let guest = join("Bela", &link, &[&TALK, args].concat());
    admit(&mut host, "Bela", &guest);
    both_are_heard(&host, &guest);
    (host, guest, proxy)
}

fn host_of(relays: &[&RelayProcess], args: &[&str]) -> JsonlClient {
    let addresses: Vec<String> = relays.iter().map(|relay| SocketAddr::to_string(&relay.addr())).collect();
    let named = relays.iter().zip(&addresses).flat_map(|(relay, at)| ["--relay", at, "--pin", relay.pin().unwrap()]);
    let own = ["host", "--name", "Hestia"].into_iter().chain(named);
    JsonlClient::start("host", own.chain(TALK).chain(args.iter().copied())).unwrap()
}

fn both_are_heard(host: &JsonlClient, guest: &JsonlClient) {
    hears_more(host, "Bela", 25, LIMIT);
    hears_more(guest, "Hestia", 25, LIMIT);
}

fn set(proxy: &Proxy, impairment: Impairment) {
    proxy.set(Direction::Up, impairment);
    proxy.set(Direction::Down, impairment);
}

/// The figures of a talker, now.
fn figures(listener: &mut JsonlClient, name: &str) -> Value {
    let mark = listener.mark();
    listener.act("stats").unwrap();
    let stats = listener.wait_event_after(mark, "stats", |_| true, LIMIT).unwrap();
    talker(&stats, name).clone()
}

/// When a listener that heard nothing hears a talker again, at the latest. What was under way when the path was lost
/// does not count: five frames are more than that.
fn hears_again(listener: &mut JsonlClient, name: &str) -> Instant {
    let received = |listener: &mut JsonlClient| figures(listener, name)["received"].as_u64().unwrap();
    let before = received(listener);
    let start = Instant::now();
    while received(listener) < before + 5 {
        assert!(start.elapsed() < LIMIT, "{name} is not heard again: {:?}", listener.events().last());
        observe(LOOK);
    }
    Instant::now()
}

fn events_after(client: &JsonlClient, mark: Mark, name: &str) -> Vec<Value> {
    client.events_after(mark).into_iter().filter(|event| event["event"] == name).collect()
}

/// Checks that so many outages were told, and the end of each; gives why they were.
fn outage_is_told(client: &JsonlClient, mark: Mark, outages: usize) -> Vec<String> {
    let start = Instant::now();
    while events_after(client, mark, "reconnected").len() < outages {
        assert!(start.elapsed() < LIMIT, "{:?}", client.events().last());
        observe(LOOK);
    }
    let told = events_after(client, mark, "reconnecting");
    eprintln!("{told:?} {:?}", events_after(client, mark, "reconnected"));
    assert_eq!(told.len(), outages, "{told:?}");
    told.iter().map(|event| event["why"].as_str().unwrap().to_owned()).collect()
}
