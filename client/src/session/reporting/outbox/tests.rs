use super::*;

const SECOND: Duration = Duration::from_secs(1);
const RECEIPT: Receipt = Receipt([7; 10]);

fn id(n: u8) -> ReportId {
    ReportId([n; 16])
}

fn with(now: Instant, reports: &[u8]) -> Outbox {
    let mut outbox = Outbox::default();
    for n in reports {
        outbox.add(now, id(*n), [*n; 32], Bytes::from(vec![*n; 65_536]));
    }
    outbox
}

/// Everything that is sent until `until`, with its time; the caller's clock is only as good as `step`.
fn run(outbox: &mut Outbox, now: Instant, until: Duration, step: Duration) -> Vec<(Duration, Send)> {
    let mut sent = Vec::new();
    let mut at = now;
    while at <= now + until {
        while let Some(send) = outbox.next(at) {
            sent.push((at - now, send));
        }
        at += step;
    }
    sent
}

fn bytes_of(sent: &[(Duration, Send)]) -> usize {
    let length = |send: &Send| if let Send::Part { bytes, .. } = send { bytes.len() } else { 0 };
    sent.iter().map(|(_, send)| length(send)).sum()
}

#[test]
fn a_report_is_announced_and_sent_at_256_kbit_a_second_in_parts_that_make_it_whole() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    let sent = run(&mut outbox, now, 10 * SECOND, Duration::from_millis(1));
    assert_eq!(sent[0].1, Send::Announcement { id: id(1), length: 65_536, digest: [1; 32] });
    assert_eq!(sent.len(), 1 + 65_536 / PART);
    assert_eq!(bytes_of(&sent), 65_536);
    for window in sent.windows(2) {
        assert!(window[1].0 - window[0].0 >= PART_TIME, "{window:?}");
    }
    assert_eq!(sent.last().expect("sent").0, PART_TIME * 32);
    assert_eq!(outbox.on_answer(now, id(1), Ok(RECEIPT)), Some(News::Taken(RECEIPT)));
    assert!(outbox.is_empty() && outbox.due().is_none());
}

#[test]
fn a_caller_that_was_late_sends_no_burst() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    let sent = run(&mut outbox, now, 3 * SECOND, SECOND);
    assert_eq!(bytes_of(&sent), 3 * PART);
}

#[test]
fn the_second_report_waits_for_the_answer_to_the_first() {
    let now = Instant::now();
    let mut outbox = with(now, &[1, 2]);
    let sent = run(&mut outbox, now, 30 * SECOND, PART_TIME);
    assert_eq!(bytes_of(&sent), 65_536);
    let later = now + 31 * SECOND;
    assert!(outbox.on_answer(later, id(1), Ok(RECEIPT)).is_some());
    assert!(matches!(outbox.next(later), Some(Send::Announcement { id: of, .. }) if of == id(2)));
}

#[test]
fn a_refusal_stops_the_parts_and_is_tried_again_ever_later_or_never() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    run(&mut outbox, now, SECOND, PART_TIME);
    let mut at = now + SECOND;
    let too_many = Holdup::Refused(ReportRefusal::TooMany);
    let mut told = vec![News::HeldUp(too_many)];
    for wait in [5, 10, 20, 40, 60, 60] {
        assert_eq!(outbox.on_answer(at, id(1), Err(ReportRefusal::TooMany)), told.pop(), "it is told once");
        assert_eq!(outbox.next(at), None);
        assert_eq!(outbox.due(), Some(at + wait * SECOND));
        at += wait * SECOND;
        assert!(matches!(outbox.next(at), Some(Send::Announcement { .. })));
    }
    let refused = outbox.on_answer(at, id(1), Err(ReportRefusal::NoSink));
    assert_eq!(refused, Some(News::Refused(Holdup::Refused(ReportRefusal::NoSink))));
    assert_eq!(outbox.on_answer(at, id(1), Ok(RECEIPT)), None, "it is gone");
}

#[test]
fn a_report_that_never_arrives_whole_is_given_up_after_three_times() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    let (damaged, why) = (Err(ReportRefusal::Damaged), Holdup::Refused(ReportRefusal::Damaged));
    assert_eq!(outbox.on_answer(now, id(1), damaged), Some(News::HeldUp(why)));
    assert_eq!(outbox.on_answer(now, id(1), damaged), None);
    assert_eq!(outbox.on_answer(now, id(1), damaged), Some(News::Refused(why)));
}

#[test]
fn a_lost_connection_begins_it_anew_under_the_same_name_at_once() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    let before = run(&mut outbox, now, SECOND, PART_TIME);
    outbox.on_lost(now + SECOND);
    let after = run(&mut outbox, now + SECOND, 5 * SECOND, PART_TIME);
    assert_eq!(before[0].1, after[0].1);
    assert_eq!(bytes_of(&after), 65_536);
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again() {
    let now = Instant::now();
    let mut outbox = with(now, &[1]);
    let sent = run(&mut outbox, now, 40 * SECOND, PART_TIME);
    assert_eq!(bytes_of(&sent), 65_536);
    let again = run(&mut outbox, now + 41 * SECOND, 30 * SECOND, PART_TIME);
    assert_eq!(bytes_of(&again), 65_536);
    assert_eq!(outbox.sealed(id(1)).map(|sealed| sealed.len()), Some(65_536));
    let returned: Vec<_> = outbox.give_up(true).map(|it| (it.id, it.sealed.len(), it.why)).collect();
    assert_eq!(returned, [(id(1), 65_536, Holdup::NoAnswer)]);
    assert!(outbox.is_empty());
}

#[test]
fn ten_seconds_without_a_word_are_told_once_whatever_the_silence_is() {
    let now = Instant::now();
    let mut outbox = with(now, &[1, 2]);
    let sent = run(&mut outbox, now, 5 * SECOND, PART_TIME);
    let whole = now + sent.last().expect("sent").0;
    assert_eq!(outbox.tells_at(), Some(whole + 10 * SECOND), "what moves is not held up");
    assert!(outbox.held_up(whole + 9 * SECOND, true).is_empty());
    let told = outbox.held_up(whole + 10 * SECOND, true);
    assert_eq!(told, [(id(1), Holdup::NoAnswer), (id(2), Holdup::OnItsWay)]);
    assert!(outbox.held_up(whole + 60 * SECOND, true).is_empty() && outbox.tells_at().is_none());
    assert_eq!(outbox.on_answer(whole + 12 * SECOND, id(1), Err(ReportRefusal::Unavailable)), None, "it was told");
    assert_eq!(outbox.on_answer(whole + 12 * SECOND, id(2), Ok(RECEIPT)), Some(News::Taken(RECEIPT)));

    let mut outbox = with(now, &[3]);
    assert_eq!(outbox.held_up(now + 10 * SECOND, false), [(id(3), Holdup::NoConnection)]);
}

#[test]
fn the_last_word_on_a_report_is_the_last_known_reason() {
    let now = Instant::now();
    let mut outbox = with(now, &[1, 2, 3]);
    for (n, refusals) in
        [(1, vec![ReportRefusal::TooMany, ReportRefusal::Unavailable]), (2, vec![ReportRefusal::TooMany])]
    {
        for refusal in refusals {
            outbox.on_answer(now, id(n), Err(refusal));
        }
    }
    let whys: Vec<_> = outbox.give_up(false).map(|returned| returned.why).collect();
    let refused = Holdup::Refused;
    assert_eq!(whys, [refused(ReportRefusal::Unavailable), refused(ReportRefusal::TooMany), Holdup::NoConnection]);
    assert_eq!(whys[0].to_string(), "the relay's sink is full or has failed");
}
