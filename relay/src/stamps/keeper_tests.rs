use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::stamp::{Minute, Origin, SealPublic, Stamp};
use conclave_protocol::wire::relay::{StampCheck, StampVerdict};

use super::*;

const TODAY: Day = Day(20_783);

fn keeper(directory: &Path, relay: &str) -> Keeper {
    Keeper::new(Settings { store: Store::Directory(directory.into()), keep_days: 2, relay: relay.parse().unwrap() })
}

fn check(keys: &StampKeys) -> StampCheck {
    let origin = Origin { meeting: MeetingId([3; 20]), slot: MemberIndex(4), rk: PublicKey([6; 32]) };
    let public = SealPublic { kid: 0x8000_0400_0000_0000, count: 25, root: [5; 32] };
    StampCheck { origin, public, stamp: keys.stamp(&origin, Minute(6), &public) }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn relays_that_share_a_directory_share_the_key_of_the_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let relays: Vec<_> = std::thread::scope(|scope| {
        let start = |n: usize| {
            let path = &path;
            scope.spawn(move || keeper(path, &format!("relay-{n}")).keys(TODAY).unwrap())
        };
        let relays: Vec<_> = (0..8).map(start).collect();
        relays.into_iter().map(|relay| relay.join().unwrap()).collect()
    });
    assert_eq!(files(&path), ["2026-11-26.stampkey"]);
    for stamper in &relays {
        for checker in &relays {
            assert_eq!(checker.check(&check(stamper)), StampVerdict::Genuine);
        }
    }
}

#[test]
fn a_restarted_relay_has_its_keys_again_and_one_without_a_directory_has_not() {
    let directory = tempfile::tempdir().unwrap();
    let first = keeper(directory.path(), "one").keys(TODAY).unwrap();
    let again = keeper(directory.path(), "one").keys(TODAY).unwrap();
    assert_eq!(again.check(&check(&first)), StampVerdict::Genuine);

    let memory = || Keeper::new(Settings { store: Store::Memory, keep_days: 2, relay: RelayName::default() });
    let mut first = memory();
    let stamped = check(&first.keys(TODAY).unwrap());
    assert_eq!(first.keys(TODAY).unwrap().check(&stamped), StampVerdict::Genuine);
    assert_eq!(first.keys(Day(TODAY.0 + 2)).unwrap().check(&stamped), StampVerdict::Genuine);
    assert_eq!(first.keys(Day(TODAY.0 + 3)).unwrap().check(&stamped), StampVerdict::UnknownKey);
    assert_eq!(memory().keys(TODAY).unwrap().check(&stamped), StampVerdict::UnknownKey);
}

#[test]
fn every_day_has_a_key_of_its_own_and_old_ones_are_destroyed() {
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = keeper(directory.path(), "one");
    let first = keeper.keys(TODAY).unwrap();
    let stamped = check(&first);
    let tomorrow = keeper.keys(TODAY.next()).unwrap();
    assert_ne!(tomorrow.current(), first.current());
    assert_eq!(tomorrow.check(&stamped), StampVerdict::Genuine);
    keeper.keys(Day(TODAY.0 + 2)).unwrap();
    assert_eq!(files(directory.path()).len(), 3);
    let later = keeper.keys(Day(TODAY.0 + 3)).unwrap();
    assert_eq!(later.check(&stamped), StampVerdict::UnknownKey);
    assert_eq!(files(directory.path()), ["2026-11-27.stampkey", "2026-11-28.stampkey", "2026-11-29.stampkey"]);
}

#[test]
fn the_file_is_as_documented_and_belongs_to_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a").join("b");
    let keys = keeper(&path, "eu-1").keys(TODAY).unwrap();
    let file = path.join("2026-11-26.stampkey");
    let entry: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(entry["relay"].as_str(), Some("eu-1"));
    assert_eq!(entry["day"].as_str(), Some("2026-11-26"));
    let bytes = BASE32_NOPAD.decode(entry["key"].as_str().unwrap().as_bytes()).unwrap();
    let key = StampKey::new(bytes.try_into().unwrap());
    let StampCheck { origin, public, stamp } = check(&keys);
    assert!(key.made(&stamp, &origin, &public));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keeper(&path, "x").keys(TODAY), Err(KeeperError::Exposed { mode: 0o640, .. })));
    }
}

#[test]
fn a_damaged_key_of_today_is_an_error_and_one_of_yesterday_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    keeper(directory.path(), "one").keys(TODAY).unwrap();
    let today = directory.path().join("2026-11-26.stampkey");
    // The key of another day under this day's name.
    let text = fs::read_to_string(&today).unwrap().replace("2026-11-26", "2026-11-25");
    fs::write(&today, text).unwrap();
    assert!(matches!(keeper(directory.path(), "one").keys(TODAY), Err(KeeperError::Damaged { .. })));
    let keys = keeper(directory.path(), "one").keys(TODAY.next()).unwrap();
    assert_eq!(keys.known.len(), 1);
    assert!(today.exists());
}

#[test]
fn a_name_needs_no_quoting() {
    for name in ["relay", "eu-1.example", "A_b"] {
        assert_eq!(name.parse::<RelayName>().unwrap().as_str(), name);
    }
    for wrong in ["", "a b", "a\"b", "ü", &"x".repeat(64)] {
        assert_eq!(wrong.parse::<RelayName>(), Err(InvalidName));
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["notes.txt", "1999-01-01.txt", "yesterday.stampkey"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    keeper(directory.path(), "one").keys(TODAY).unwrap();
    assert_eq!(files(directory.path()).len(), 4);
}

#[test]
fn a_relay_without_a_key_stamps_nothing_that_counts() {
    let stamped = check(&StampKeys::default());
    assert_eq!((stamped.stamp.mac, stamped.stamp.minute), ([0; 16], Minute(6)));
    let directory = tempfile::tempdir().unwrap();
    let keys = keeper(directory.path(), "one").keys(TODAY).unwrap();
    assert_eq!(keys.check(&stamped), StampVerdict::UnknownKey);
    let forged = StampCheck { stamp: Stamp { key: keys.current().unwrap(), ..stamped.stamp }, ..stamped };
    assert_eq!(keys.check(&forged), StampVerdict::Forged);
}
