//! The host is gone, and somebody else leads.

use std::time::{Duration, Instant};

use conclave_tests::process::{JsonlClient, Mark};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, admit, end_all, hears_more, join, observe, talker};

/// The bound.
const LEADS_WITHIN: Duration = Duration::from_secs(10);
/// Of each talker at each listener, over the takeover: the bound for frames that are concealed, of those that did not
/// come.
const LOST: u64 = 1;
/// Of the same, those that came after their place. Each time the machine stands still for longer than frames are held
/// makes some; a change of leaders that leaves listeners without a key for as long makes more.
const LATE: u64 = 5;
/// Frames are held for longer than most machines stand still.
const TALK: [&str; 4] = ["--input", "tone", "--profile", "poor-network"];

/// Everybody but the host.
struct Others {
    clients: Vec<JsonlClient>,
    marks: Vec<Mark>,
}

impl Others {
    /// Cora, who is made a co-host, Bela and Dora, who all talk and are ready for a takeover.
    fn gather(meeting: &mut Meeting) -> Self {
        let clients: Vec<JsonlClient> = NAMES.iter().map(|name| meeting.guest(name, &TALK)).collect();
        meeting.host.send(&json!({ "do": "promote", "who": "Cora" })).unwrap();
        for client in &clients {
            let promoted = client.wait_event("act", |act| act["what"] == "promote", LIMIT).unwrap();
            assert_eq!((&promoted["by_name"], &promoted["who_name"]), (&json!("Hestia"), &json!("Cora")));
            let epoch = newest_epoch(client);
            // All have confirmed the epoch in which she is one.
            client.wait_event("security_code", |code| code["epoch"].as_u64() >= Some(epoch), LIMIT).unwrap();
        }
        hears_more(&clients[1], "Cora", 25, LIMIT);
        let marks = clients.iter().map(JsonlClient::mark).collect();
        Self { clients, marks }
    }

    fn cora(&mut self) -> &mut JsonlClient {
        &mut self.clients[0]
    }

    /// Waits until all follow Cora; gives when each did, at the latest.
    fn all_follow_cora(&self, since: Instant) -> Vec<Duration> {
        let follows = |(client, mark): (&JsonlClient, &Mark)| {
            let leads = |event: &Value| event["index"] == 1;
            let event = client.wait_event_after(*mark, "leader", leads, LIMIT).unwrap();
            crate::stage::at(client, &event).saturating_duration_since(since)
        };
        self.clients.iter().zip(&self.marks).map(follows).collect()
    }

    /// The host stands still until Cora leads; then it is a member of her meeting.
    fn host_is_away_and_follows(&mut self, host: &mut JsonlClient) {
        self.marks = self.clients.iter().map(JsonlClient::mark).collect();
        let (mark, paused) = (host.mark(), Instant::now());
        host.pause().unwrap();
        let followed = self.all_follow_cora(paused);
        host.resume().unwrap();
        let resumed = Instant::now();
        let yields = host.wait_event_after(mark, "leader", |event| event["index"] == 1, LIMIT).unwrap();
        let yielded = crate::stage::at(host, &yields).saturating_duration_since(resumed);
        eprintln!("Cora was followed {followed:?} after the pause, by the host {yielded:?} after it went on");
        hears_more(host, "Bela", 25, LIMIT);
        hears_more(&self.clients[2], "Hestia", 25, LIMIT);
    }

    fn nobody_was_alarmed_or_left(&self, host: &JsonlClient) {
        for client in self.clients.iter().chain([host]) {
            assert_eq!(client.events_named("alarm"), Vec::<Value>::new());
            assert_eq!(client.events_named("left"), Vec::<Value>::new());
        }
    }

    /// The host hands over to somebody, and everybody follows.
    fn all_follow(&self, host: &mut JsonlClient, who: &str) {
        let leader = u64::from(who == NAMES[0]);
        let marks: Vec<Mark> = self.clients.iter().map(JsonlClient::mark).collect();
        let (mark, told) = (host.mark(), Instant::now());
        host.send(&json!({ "do": "hand_over", "who": who })).unwrap();
        for (client, mark) in self.clients.iter().zip(marks).chain([(&*host, mark)]) {
            client.wait_event_after(mark, "leader", |event| event["index"] == leader, LIMIT).unwrap();
        }
        eprintln!("{who} leads for everybody {:?} after the word", told.elapsed());
    }

    /// What has become of the frames of each talker at each listener, host excluded.
    fn figures(&mut self) -> Vec<Frames> {
        let mut figures = Vec::new();
        for (client, own) in self.clients.iter_mut().zip(NAMES) {
            let mark = client.mark();
            client.act("stats").unwrap();
            let stats = client.wait_event_after(mark, "stats", |_| true, LIMIT).unwrap();
            for name in NAMES.iter().filter(|name| **name != own) {
                figures.push(Frames::of(&stats, name));
            }
        }
        figures
    }
}

const NAMES: [&str; 3] = ["Cora", "Bela", "Dora"];

#[derive(Clone, Copy, Debug)]
struct Frames {
    received: u64,
    lost: u64,
    late: u64,
}

impl Frames {
    fn of(stats: &Value, name: &str) -> Self {
        let of = |field: &str| talker(stats, name)[field].as_u64().unwrap();
        Self { received: of("received"), lost: of("lost"), late: of("late") }
    }

    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            // One that was lost before may have come since.
            lost: self.lost.saturating_sub(before.lost),
            late: self.late - before.late,
        }
    }

    /// At most so many never came, and no more than a standstill makes late.
    fn lost_at_most(&self, lost: u64) -> bool {
        self.lost <= lost && self.late <= LATE
    }
}

fn newest_epoch(client: &JsonlClient) -> u64 {
    client.events_named("roster").last().unwrap()["epoch"].as_u64().unwrap()
}

#[test]
fn when_the_host_is_killed_a_co_host_leads_admits_and_removes_and_the_others_go_on_hearing_each_other() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let mut others = Others::gather(&mut meeting);
    let (before, start) = (others.figures(), Instant::now());
    meeting.host.kill();
    let killed = Instant::now();
    let followed = others.all_follow_cora(killed);
    // The talk goes on under the new leader.
    observe(Duration::from_secs(1));
    let (after, span) = (others.figures(), start.elapsed());
    let frames: Vec<Frames> = before.iter().zip(&after).map(|(before, after)| after.since(*before)).collect();
    eprintln!("Cora was followed {followed:?} after the kill; {frames:?} in {span:?}");
    assert!(followed.iter().all(|after| *after <= LEADS_WITHIN), "{followed:?}");
    assert!(frames.iter().all(|of| of.lost_at_most(LOST)), "{frames:?}");
    let expected = span.as_secs_f64() * 50.0;
    assert!(frames.iter().all(|of| of.received as f64 >= expected - 25.0), "{frames:?} of {expected:.0}");

    let link = meeting.link.clone();
    let newcomer = join("Emil", &link, &TALK);
    admit(others.cora(), "Emil", &newcomer);
    hears_more(&newcomer, "Bela", 25, LIMIT);
    for client in &others.clients {
        client.wait_event("joined", |joined| joined["name"] == "Emil", LIMIT).unwrap();
    }
    others.cora().send(&json!({ "do": "remove", "who": "Dora" })).unwrap();
    let mut dora = others.clients.pop().unwrap();
    assert_eq!(dora.wait_exit(LIMIT).unwrap(), 4);
    assert_eq!(dora.events_named("removed").len(), 1);
    others.clients.push(newcomer);
    for client in &others.clients {
        let removed = client.wait_event("left", |left| left["name"] == "Dora", LIMIT).unwrap();
        assert_eq!(removed["why"], "removed");
        let act = client.wait_event("act", |act| act["what"] == "remove", LIMIT).unwrap();
        assert_eq!((&act["by_name"], &act["who_name"]), (&json!("Cora"), &json!("Dora")));
        assert_eq!(client.events_named("alarm"), Vec::<Value>::new());
    }
    hears_more(&others.clients[1], "Emil", 25, LIMIT);
    let marks = others.clients.iter().map(JsonlClient::mark).collect::<Vec<_>>();
    for (client, (mark, name)) in others.clients.iter().zip(marks.into_iter().zip(["Bela", "Cora"])) {
        let at = NAMES.iter().position(|own| *own == name).unwrap();
        let stats = crate::stage::next_stats(client, mark);
        // Of Bela at Cora, and of Cora at Bela: the first figures of each.
        let frames = Frames::of(&stats, name).since(after[if at == 1 { 0 } else { 2 }]);
        eprintln!("from there until the end {name}: {frames:?}");
        assert!(frames.lost_at_most(LOST), "{name}: {frames:?}");
    }
    let cora = others.clients.remove(0);
    end_all(cora, others.clients);
}

#[test]
fn host_takes_the_lead_back_that_it_lost_while_it_was_away_or_handed_over() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&TALK);
    let mut others = Others::gather(&mut meeting);
    others.host_is_away_and_follows(&mut meeting.host);
    others.all_follow(&mut meeting.host, "Hestia");
    others.all_follow(&mut meeting.host, "Cora");
    others.all_follow(&mut meeting.host, "Hestia");
    hears_more(&others.clients[1], "Hestia", 25, LIMIT);
    others.nobody_was_alarmed_or_left(&meeting.host);
    end_all(meeting.host, others.clients);
}

#[test]
fn host_that_was_away_makes_no_epoch_of_its_own_that_was_due_meanwhile() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&TALK);
    let mut others = Others::gather(&mut meeting);
    // The epoch of a takeover can have no code, so that another is due 2 s later (docs/protocol.md §7.5).
    others.all_follow(&mut meeting.host, "Cora");
    others.all_follow(&mut meeting.host, "Hestia");
    others.host_is_away_and_follows(&mut meeting.host);
    others.nobody_was_alarmed_or_left(&meeting.host);
    end_all(others.clients.remove(0), others.clients.into_iter().chain([meeting.host]).collect());
}
