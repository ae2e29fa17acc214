//! How loud others are heard, and who is shown as speaking.

use std::time::Duration;

use conclave_tests::wav;
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, hears_more, observe};

/// Root mean square of the tone that stands for speech.
const TONE: f64 = 0.1 / std::f64::consts::SQRT_2;

#[test]
fn a_talker_is_as_loud_as_the_listener_wants_and_shown_as_speaking_until_muted() {
    let stage = Stage::alone();
    let mut meeting = Meeting::open(&["--input", "tone"]);
    let heard = stage.path("heard.wav");
    let mut guest = meeting.guest("Bela", &["--output", heard.to_str().unwrap()]);
    hears_more(&guest, "Hestia", 25, LIMIT);
    for client in [&meeting.host, &guest] {
        client.wait_event("speaking", |event| event["index"] == 0 && event["on"] == true, LIMIT).unwrap();
    }
    for percent in [200, 0, 50] {
        let mark = guest.mark();
        guest.send(&json!({"do": "volume", "who": "Hestia", "percent": percent})).unwrap();
        let is_shown = |event: &Value| event["members"][0]["volume"] == percent && event["members"][1]["volume"] == 100;
        guest.wait_event_after(mark, "roster", is_shown, LIMIT).unwrap();
        hears_more(&guest, "Hestia", 50, LIMIT);
    }
    for refused in
        [json!({"do": "volume", "who": "Bela", "percent": 50}), json!({"do": "volume", "who": 0, "percent": 401})]
    {
        let mark = guest.mark();
        guest.send(&refused).unwrap();
        guest.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
    }

    let mark = guest.mark();
    meeting.host.act("mute").unwrap();
    guest.wait_event_after(mark, "speaking", |event| event["index"] == 0 && event["on"] == false, LIMIT).unwrap();
    observe(Duration::from_millis(100));
    end(meeting.host, vec![guest]);
    let levels = wav::rms_20ms(&wav::read(&heard).unwrap());
    for times in [1.0, 2.0, 0.5] {
        let frames = levels.iter().filter(|level| (*level / (TONE * times) - 1.0).abs() < 0.05).count();
        assert!(frames >= 20, "{frames} frames at {times} of the tone");
    }
}
