use std::time::{Duration, Instant};

use super::packet::{HEADER, TAG};
use super::{
    ASK_AGAIN, ASK_ALONG, ASK_EVERY, ClientPath, EAGER, Item, MAX_PACKET, QUIET, RelayPath, Secrets, TRUSTED_FOR,
    begin, destination, is_media, items, push, push_message,
};

fn secrets(seed: u8) -> Secrets {
    let export = |out: &mut [u8]| {
        for (place, byte) in (0..=u8::MAX).cycle().zip(out) {
            *byte = place ^ seed;
        }
        Ok(())
    };
    Secrets::exported(export).unwrap()
}

/// Both ends of one connection, and a time at which they ask and answer.
struct Ends {
    client: ClientPath,
    relay: RelayPath,
    now: Instant,
}

impl Ends {
    fn new() -> Self {
        let now = Instant::now();
        let secrets = secrets(1);
        Self { client: ClientPath::new(now, &secrets).unwrap(), relay: RelayPath::new(&secrets).unwrap(), now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn question(&mut self) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        self.client.ask(self.now, &mut packet).then_some(packet)
    }

    /// The relay gets a packet; its answer, if that is wanted.
    fn at_relay(&mut self, packet: &mut [u8]) -> Option<Vec<u8>> {
        let flags = self.relay.open(self.now, packet).expect("authentic");
        let mut answer = Vec::new();
        (flags.asks && self.relay.answer(&mut answer)).then_some(answer)
    }

    fn at_client(&mut self, packet: &mut [u8]) -> Vec<Vec<u8>> {
        let datagram = |item: Item<'_>| match item {
            Item::Datagram(datagram) => datagram.to_vec(),
            other => panic!("{other:?}"),
        };
        self.client.open(self.now, packet).expect("authentic").map(datagram).collect()
    }

    /// The relay sends a control message along with a frame.
    fn message(&mut self, message: u8) -> Vec<u8> {
        let mut packet = Vec::new();
        begin(&mut packet);
        assert!(push_message(&mut packet, &[message; 600]) && push(&mut packet, b"frame"));
        assert!(self.relay.seal(self.now, false, &mut packet));
        self.relay.note(self.now, message.into());
        packet
    }

    /// The relay hears what the client has to say; the messages that are lost, as it finds then.
    fn lost(&mut self) -> Vec<u64> {
        let mut lost = Vec::new();
        if let Some(mut packet) = self.question() {
            self.relay.open(self.now, &mut packet).expect("authentic");
            for item in items(&packet) {
                let Item::Receipt(receipt) = item else { panic!("{item:?}") };
                self.relay.settle(self.now, &receipt, |message| lost.push(message));
            }
        }
        lost
    }

    /// A question, its answer, and the next question, which says that the answer has come.
    fn meet(&mut self) {
        for _ in 0..2 {
            let mut question = self.question().expect("is due");
            let mut answer = self.at_relay(&mut question).expect("was asked");
            assert!(self.at_client(&mut answer).is_empty());
            self.pass(Duration::from_secs(1));
        }
    }

    fn frame(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        assert!(self.client.seal(self.now, frame, &mut packet));
        packet
    }
}

fn bundle(now: Instant, relay: &mut RelayPath, those: &[&[u8]]) -> Vec<u8> {
    let mut packet = Vec::new();
    begin(&mut packet);
    for frame in those {
        assert!(push(&mut packet, frame));
    }
    assert!(relay.seal(now, false, &mut packet));
    packet
}

#[test]
fn frames_travel_beside_quic_once_both_directions_are_known_to_work() {
    let mut ends = Ends::new();
    assert!(!ends.client.carries(ends.now) && !ends.relay.carries(ends.now));
    let mut first = ends.question().unwrap();
    let mut answer = ends.at_relay(&mut first).unwrap();
    assert!(!ends.relay.carries(ends.now), "nobody has said yet that answers arrive");
    ends.at_client(&mut answer);
    assert!(ends.client.carries(ends.now));
    // The first frame says so.
    let mut frame = ends.frame(b"frame");
    assert_eq!(ends.at_relay(&mut frame), None);
    assert!(ends.relay.carries(ends.now));
    assert_eq!(items(&frame).collect::<Vec<_>>(), [Item::Datagram(b"frame")]);
    let mut packet = bundle(ends.now, &mut ends.relay, &[b"one", b"two"]);
    assert_eq!(ends.at_client(&mut packet), [b"one", b"two"]);
}

#[test]
fn who_gets_no_answers_goes_back_to_quic_and_finds_out_when_they_come_again() {
    let mut ends = Ends::new();
    ends.meet();
    let last = ends.now;
    while ends.client.carries(ends.now) {
        // On the way to the relay packets get lost from now on.
        ends.question();
        ends.pass(Duration::from_millis(20));
    }
    assert!(ends.now - last <= TRUSTED_FOR);
    assert!(!ends.relay.carries(ends.now + TRUSTED_FOR));
    ends.pass(Duration::from_secs(60));
    ends.meet();
    assert!(ends.client.carries(ends.now) && ends.relay.carries(ends.now));
}

#[test]
fn a_relay_whose_packets_are_lost_hears_of_it_and_goes_back_to_quic() {
    let mut ends = Ends::new();
    ends.meet();
    let last = ends.now;
    for _ in 0..300 {
        if let Some(mut question) = ends.question() {
            // The answer is lost.
            ends.at_relay(&mut question).unwrap();
        }
        ends.pass(Duration::from_millis(20));
        if !ends.relay.carries(ends.now) {
            break;
        }
    }
    assert!(!ends.relay.carries(ends.now));
    assert!(ends.now - last <= TRUSTED_FOR + Duration::from_secs(1));
}

#[test]
fn a_path_that_lets_only_quic_through_is_asked_rarely() {
    let mut ends = Ends::new();
    let mut asked = 0;
    for _ in 0..60 * 50 {
        asked += u32::from(ends.question().is_some());
        ends.pass(Duration::from_millis(20));
    }
    assert!((EAGER..EAGER + 13).contains(&asked), "{asked}");
}

#[test]
fn all_frames_ask_on_their_way_once_a_second() {
    let mut ends = Ends::new();
    ends.meet();
    let mut asked = 0;
    for _ in 0..250 {
        let mut packet = ends.frame(b"frame");
        if let Some(mut answer) = ends.at_relay(&mut packet) {
            asked += 1;
            ends.at_client(&mut answer);
        }
        let mut others = bundle(ends.now, &mut ends.relay, &[b"other"]);
        ends.at_client(&mut others);
        assert!(ends.question().is_none());
        ends.pass(Duration::from_millis(20));
    }
    assert_eq!(asked, 5);
}

#[test]
fn a_packet_counts_once_and_only_as_it_was_made_and_where_it_belongs() {
    let mut ends = Ends::new();
    let packet = ends.frame(b"a frame");
    assert!(is_media(&packet));
    assert_eq!(destination(&packet), Some(secrets(1).at_relay()));
    for place in 0..packet.len() {
        let mut changed = packet.clone();
        changed[place] ^= 1;
        // The destination is looked up before, and protected with the rest.
        assert_eq!(ends.relay.open(ends.now, &mut changed), None, "byte {place}");
        let mut cut = packet[..place].to_vec();
        assert_eq!(ends.relay.open(ends.now, &mut cut), None, "first {place} bytes");
    }
    let mut other = RelayPath::new(&secrets(2)).unwrap();
    assert_eq!(other.open(ends.now, &mut packet.clone()), None);
    assert!(ends.client.open(ends.now, &mut packet.clone()).is_none(), "it was sent back");
    assert!(ends.relay.open(ends.now, &mut packet.clone()).is_some());
    assert_eq!(ends.relay.open(ends.now, &mut packet.clone()), None, "a second time");
}

#[test]
fn packets_of_equal_frames_have_nothing_in_common_but_length_and_destination() {
    let mut ends = Ends::new();
    let (one, two) = (ends.frame(&[7; 161]), ends.frame(&[7; 161]));
    assert_eq!((one.len(), two.len()), (192, 192));
    assert_eq!(one[1..9], two[1..9]);
    let alike = one[HEADER..].iter().zip(&two[HEADER..]).filter(|(a, b)| a == b).count();
    assert!(alike < 20, "{alike} of 179 bytes");
}

#[test]
fn no_packet_is_longer_than_every_path_carries() {
    let mut ends = Ends::new();
    let mut packet = Vec::new();
    begin(&mut packet);
    let count = std::iter::repeat_with(|| push(&mut packet, &[1; 161])).take_while(|has_room| *has_room).count();
    assert_eq!(count, 7);
    assert!(ends.relay.seal(ends.now, false, &mut packet) && packet.len() <= MAX_PACKET);
    assert_eq!(ends.at_client(&mut packet).len(), 7);
    let longest = MAX_PACKET - HEADER - 2 - TAG;
    assert_eq!(ends.frame(&vec![1; longest]).len(), MAX_PACKET);
    assert!(!ends.client.seal(ends.now, &vec![1; longest + 1], &mut Vec::new()));
}

#[test]
fn what_is_no_packet_is_looked_at_and_passed_over() {
    let mut ends = Ends::new();
    for length in 0..HEADER + TAG {
        assert_eq!(destination(&vec![3; length]), None);
        assert_eq!(ends.relay.open(ends.now, &mut vec![3; length]), None);
        assert_eq!(items(&vec![0; length]).count(), 0);
    }
    for quic in [0x40, 0x80, 0xC0, 0xFF, 0x20] {
        assert!(!is_media(&[quic; 40]));
    }
    // Lengths that lead out of the packet, and an empty frame.
    for length in [0u16, 9, u16::MAX] {
        let mut opened = vec![0; HEADER];
        opened.extend_from_slice(&length.to_be_bytes());
        opened.extend_from_slice(&[1; 8 + TAG]);
        assert_eq!(items(&opened).count(), 0);
    }
}

#[test]
fn who_is_asked_while_frames_leave_answers_by_the_next_of_them() {
    let mut ends = Ends::new();
    ends.meet();
    ends.pass(TRUSTED_FOR);
    assert!(!ends.client.carries(ends.now));
    let mut question = ends.question().unwrap();
    assert!(ends.relay.open(ends.now, &mut question).unwrap().asks);
    ends.relay.answer_along(ends.now);
    let mut packets = [b"one", b"two"].map(|frame| bundle(ends.now, &mut ends.relay, &[&frame[..]]));
    assert_eq!(ends.at_client(&mut packets[1]), [b"two"]);
    assert!(!ends.client.carries(ends.now), "only the first is an answer");
    assert_eq!(ends.at_client(&mut packets[0]), [b"one"]);
    assert!(ends.client.carries(ends.now));
    // An answer that leaves much later would say of the path what is over.
    ends.relay.answer_along(ends.now);
    ends.pass(TRUSTED_FOR);
    let mut late = bundle(ends.now, &mut ends.relay, &[b"three"]);
    ends.at_client(&mut late);
    assert!(!ends.client.carries(ends.now));
}

#[test]
fn who_asks_and_hears_no_answer_is_noticed_after_two_seconds_and_until_it_hears_one() {
    let mut ends = Ends::new();
    ends.meet();
    assert!(!ends.relay.is_unheard(ends.now + Duration::from_secs(60)));
    // What it hears no more it says with its next question.
    ends.pass(TRUSTED_FOR);
    let mut unheard = Vec::new();
    for _ in 0..4 {
        let mut question = ends.question().expect("is due");
        ends.at_relay(&mut question).expect("was asked");
        unheard.push(ends.relay.is_unheard(ends.now));
        ends.pass(Duration::from_secs(1));
    }
    assert_eq!(unheard, [false, false, false, true]);
    ends.meet();
    assert!(!ends.relay.is_unheard(ends.now));
}

#[test]
fn who_hears_packets_all_the_time_asks_when_the_next_comes() {
    let mut ends = Ends::new();
    ends.meet();
    let due = ends.now;
    ends.now = due - Duration::from_millis(10);
    let mut packet = bundle(ends.now, &mut ends.relay, &[b"frame"]);
    ends.at_client(&mut packet);
    assert_eq!(ends.client.ask_at(), due + ASK_ALONG);
    assert!(ends.question().is_none());
    ends.pass(Duration::from_millis(20));
    let mut packet = bundle(ends.now, &mut ends.relay, &[b"frame"]);
    ends.at_client(&mut packet);
    assert!(ends.question().is_some(), "this is the occasion");
    // Who hears nothing any more asks sooner.
    let due = ends.client.ask_at();
    ends.pass(ASK_EVERY * 2);
    assert_eq!(ends.client.ask_at(), due);
    assert_eq!(due, ends.now - ASK_EVERY * 2 + QUIET);
}

#[test]
fn who_hears_nothing_asks_for_a_sign_of_life_twice_a_second_and_more_often_without_an_answer() {
    let mut ends = Ends::new();
    ends.meet();
    let (mut asked, begun): (Vec<u128>, Instant) = (Vec::new(), ends.now);
    for _ in 0..500 {
        let at = (ends.now - begun).as_millis();
        if let Some(mut question) = ends.question() {
            asked.push(at);
            let mut answer = ends.at_relay(&mut question).unwrap();
            // From then on nothing comes through.
            if at < 2_000 {
                ends.at_client(&mut answer);
            }
        }
        ends.pass(Duration::from_millis(20));
    }
    assert_eq!(asked[..5], [0, 500, 1_000, 1_500, 2_000]);
    let silence = 2_000..=2_000 + 1_250 - 500;
    assert_eq!(asked.iter().filter(|at| silence.contains(*at)).count(), 4, "{asked:?}");
    assert!(asked.len() < 30, "{asked:?}");
}

#[test]
fn a_relay_whose_frames_are_lost_hears_of_it_as_soon_whenever_it_was_asked_last() {
    for before in (0..1_000).step_by(100) {
        let mut ends = Ends::new();
        ends.meet();
        // Frames come all the time, and the last answer is so old when they stop.
        let stops = ends.now + Duration::from_millis(2_000 + before);
        let mut asked_quic = Vec::new();
        while ends.relay.carries(ends.now) {
            if ends.now < stops {
                let mut packet = bundle(ends.now, &mut ends.relay, &[b"frame"]);
                ends.at_client(&mut packet);
            }
            if let Some(mut question) = ends.question() {
                let mut answer = ends.at_relay(&mut question).unwrap();
                if ends.now < stops {
                    ends.at_client(&mut answer);
                }
            }
            if ends.client.asks_quic() {
                asked_quic.push((ends.now - stops).as_millis());
            }
            ends.pass(Duration::from_millis(20));
        }
        let silence = ends.now - stops;
        assert!(silence <= TRUSTED_FOR + Duration::from_millis(500), "{before}: {silence:?}");
        // 500 ms after the last frame, or 200 ms after a question that was due anyway.
        assert!(asked_quic.len() == 1 && asked_quic[0] < 700, "{before}: {asked_quic:?}");
    }
}

#[test]
fn who_is_asked_for_its_question_asks_at_once_and_a_talker_by_its_next_frame() {
    let mut ends = Ends::new();
    ends.meet();
    let answered = |ends: &mut Ends, mut question: Vec<u8>| {
        let mut answer = ends.at_relay(&mut question).expect("was asked");
        ends.at_client(&mut answer);
    };
    let question = ends.question().expect("is due");
    answered(&mut ends, question);
    let asking = |ends: &mut Ends| {
        let mut packet = Vec::new();
        begin(&mut packet);
        assert!(push(&mut packet, b"frame") && ends.relay.seal(ends.now, true, &mut packet));
        ends.at_client(&mut packet);
    };
    ends.pass(Duration::from_millis(300));
    assert!(ends.question().is_none());
    asking(&mut ends);
    let question = ends.question().expect("was asked for");
    answered(&mut ends, question);
    assert!(ends.question().is_none(), "once");
    ends.pass(Duration::from_millis(300));
    let mut frame = ends.frame(b"mine");
    assert!(!ends.relay.open(ends.now, &mut frame).unwrap().asks);
    asking(&mut ends);
    assert!(ends.question().is_none());
    ends.pass(Duration::from_millis(20));
    let frame = ends.frame(b"mine");
    answered(&mut ends, frame);
    // A talker that falls silent just then asks by itself, and nobody asks as often as it is asked.
    asking(&mut ends);
    ends.pass(ASK_ALONG);
    assert!(ends.question().is_none());
    ends.pass(ASK_AGAIN);
    let frame = ends.frame(b"mine");
    assert!(!ends.relay.open(ends.now, &mut frame.clone()).unwrap().asks);
    asking(&mut ends);
    let mut heard = bundle(ends.now + ASK_ALONG, &mut ends.relay, &[b"frame"]);
    ends.pass(ASK_ALONG);
    ends.at_client(&mut heard);
    assert!(ends.question().is_some());
}

#[test]
fn a_message_that_is_lost_beside_quic_is_missed_within_a_tenth_of_a_second_and_sent_again_once() {
    let mut ends = Ends::new();
    ends.meet();
    let mut come = ends.message(1);
    let items: Vec<_> = ends.client.open(ends.now, &mut come).unwrap().map(|item| format!("{item:?}")).collect();
    assert_eq!(items, [format!("{:?}", Item::Message(&[1; 600])), format!("{:?}", Item::Datagram(b"frame"))]);
    let _lost = ends.message(2);
    let mut late = ends.message(3);
    for _ in 0..3 {
        ends.pass(Duration::from_millis(20));
        let mut frame = bundle(ends.now, &mut ends.relay, &[b"frame"]);
        ends.at_client(&mut frame);
        assert_eq!(ends.lost(), [0; 0], "it may only have been overtaken");
    }
    // What is only late has come when that is asked.
    assert!(ends.client.open(ends.now, &mut late).is_some());
    ends.pass(Duration::from_millis(20));
    assert_eq!(ends.lost(), [2]);
    ends.pass(Duration::from_secs(1));
    assert_eq!(ends.lost(), [0; 0]);
    assert!(!ends.relay.unproved().any(|message| message <= 3));
}

#[test]
fn a_client_that_gives_no_receipts_gets_no_messages_so() {
    let mut ends = Ends::new();
    ends.meet();
    assert!(ends.relay.carries(ends.now) && !ends.relay.carries_messages(ends.now));
    assert_eq!(ends.lost(), [0; 0]);
    assert!(ends.relay.carries_messages(ends.now));
}

#[test]
fn a_receipt_that_is_lost_is_followed_by_another() {
    let mut ends = Ends::new();
    ends.meet();
    let _lost = ends.message(9);
    let mut frame = bundle(ends.now, &mut ends.relay, &[b"frame"]);
    ends.at_client(&mut frame);
    ends.pass(Duration::from_millis(60));
    assert!(ends.question().is_some(), "which is lost");
    ends.pass(Duration::from_millis(299));
    assert_eq!(ends.lost(), [0; 0]);
    ends.pass(Duration::from_millis(1));
    assert_eq!(ends.lost(), [9]);
}

#[test]
fn receipts_do_not_leave_more_often_however_much_is_lost() {
    let mut ends = Ends::new();
    ends.meet();
    let mut told = 0;
    for round in 0..500 {
        let mut packet = ends.message(5);
        if round % 2 == 0 {
            ends.client.open(ends.now, &mut packet).unwrap().for_each(drop);
        }
        told += u32::from(ends.question().is_some());
        ends.pass(Duration::from_millis(20));
    }
    assert!((90..=105).contains(&told), "{told} in 10 s");
    assert!(ends.relay.unproved().count() <= 151, "those of three seconds");
}

#[test]
fn who_hears_no_packets_any_more_gets_what_it_may_not_have_by_quic() {
    let mut ends = Ends::new();
    ends.meet();
    ends.message(7);
    ends.message(8);
    let mut lost = Vec::new();
    ends.relay.give_up(ends.now, |message| lost.push(message));
    assert_eq!(lost, [7, 8]);
    assert_eq!(ends.relay.unproved().count(), 0);
    // What is older is of no use.
    ends.message(7);
    ends.pass(Duration::from_millis(3_001));
    ends.message(8);
    assert_eq!(ends.relay.unproved().collect::<Vec<_>>(), [8]);
}
