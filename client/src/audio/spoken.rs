//! Speech for tests: the spoken clips of Debian's `alsa-utils`.

/// A clip, 48 kHz mono.
///
/// # Panics
/// When it is not there: a test that passes without its speech shows nothing.
pub fn clip(name: &str) -> Vec<i16> {
    let path = format!("/usr/share/sounds/alsa/{name}.wav");
    let reader = hound::WavReader::open(&path).unwrap_or_else(|error| {
        panic!("{path}: {error}. It is the speech of the tests; Debian's alsa-utils has it: run scripts/setup")
    });
    reader.into_samples().map(Result::unwrap).collect()
}

#[test]
#[should_panic(expected = "scripts/setup")]
fn a_missing_clip_fails_its_test_and_says_what_to_run() {
    clip("No_Such_Clip");
}
