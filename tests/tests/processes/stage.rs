//! What the tests here have in common: a relay, a host and guests as processes of their own.
//!
//! Tests that measure audio have the stage to themselves, because their figures mean nothing while another test takes
//! the processor. Those that mostly wait for seconds to pass share it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use conclave_tests::process::{JsonlClient, Mark, RelayProcess};
use conclave_tests::wav::{self, Sound};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For everything that has no bound of its own: far beyond what it takes, even on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Guards no data, so a test that panicked while it held it leaves nothing broken.
static STAGE: RwLock<()> = RwLock::new(());

/// Held for as long as the processes of a test run.
enum Turn {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Shared { _guard: RwLockReadGuard<'static, ()> },
}

/// The turn of one test, and a folder for its files.
pub struct Stage {
    folder: TempDir,
    _turn: Turn,
}

impl Stage {
    /// Waits until no other test is on stage. For whoever measures audio, the processor or memory.
    pub fn alone() -> Self {
        Self::with(Turn::Alone { _guard: STAGE.write().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Waits until no test needs the stage for itself. For whoever has no bound below a second.
    pub fn shared() -> Self {
        Self::with(Turn::Shared { _guard: STAGE.read().unwrap_or_else(PoisonError::into_inner) })
    }

    fn with(turn: Turn) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), _turn: turn }
    }

    /// A file of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a sound and gives its path as an argument.
    pub fn sound(&self, name: &str, sound: &Sound) -> String {
        let path = self.path(name);
        wav::write(&path, sound).unwrap();
        text(&path)
    }

    /// The path of a file of this test as an argument.
    pub fn argument(&self, name: &str) -> String {
        text(&self.path(name))
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A relay, a host, and the link for everybody else.
pub struct Meeting {
    pub relay: RelayProcess,
    pub host: JsonlClient,
    pub link: String,
}

impl Meeting {
    /// A meeting over a relay process of its own. The host is called `Hestia`.
    pub fn open(host_args: &[&str]) -> Self {
        let relay = RelayProcess::start(&[]).unwrap();
        let host = host_at(relay.addr(), relay.pin().unwrap(), host_args);
        let link = link_of(&host);
        Self { relay, host, link }
    }

    /// The link with another address for the relay, such as a proxy's.
    pub fn link_by_way_of(&self, addr: SocketAddr) -> String {
        by_way_of(&self.link, self.relay.addr(), addr)
    }

    /// A guest who knocks, is let in and holds the key.
    pub fn guest(&mut self, name: &str, args: &[&str]) -> JsonlClient {
        let guest = join(name, &self.link.clone(), args);
        self.admit(name, &guest);
        guest
    }

    /// Lets a guest in who knocks.
    pub fn admit(&mut self, name: &str, guest: &JsonlClient) {
        admit(&mut self.host, name, guest);
    }
}

/// A host at a relay. Its name is `Hestia`, and its frames are of 20 ms in every profile, unless `args` say otherwise.
pub fn host_at(relay: SocketAddr, pin: &str, args: &[&str]) -> JsonlClient {
    let relay = relay.to_string();
    let own = ["host", "--relay", &relay, "--pin", pin, "--name", "Hestia"];
    let usual: &[&str] = if args.contains(&"--frame-ms") { &[] } else { &["--frame-ms", "20"] };
    JsonlClient::start("host", own.iter().chain(usual).chain(args)).unwrap()
}

/// A guest who knocks.
pub fn join(name: &str, link: &str, args: &[&str]) -> JsonlClient {
    JsonlClient::start(name, ["join", link, "--name", name].iter().chain(args)).unwrap()
}

/// Waits for the knock of a guest, lets it in and waits until it holds the key.
pub fn admit(host: &mut JsonlClient, name: &str, guest: &JsonlClient) {
    let who = knock_of(host, name)["id"].clone();
    host.send(&json!({ "do": "admit", "who": who })).unwrap();
    guest.wait_event("admitted", |_| true, LIMIT).unwrap();
    guest.wait_event("roster", |_| true, LIMIT).unwrap();
}

/// The knock of a guest.
pub fn knock_of(host: &JsonlClient, name: &str) -> Value {
    host.wait_event("knock", |knock| knock["name"] == name, LIMIT).unwrap()
}

/// The link that a host printed.
pub fn link_of(host: &JsonlClient) -> String {
    let link = host.wait_event("link", |_| true, LIMIT).unwrap();
    // Whoever has the link may come before the host is at the relay, but a test that measures need not wait for it.
    host.wait_event("roster", |_| true, LIMIT).unwrap();
    link["link"].as_str().unwrap().to_owned()
}

/// A link with another address for the relay.
pub fn by_way_of(link: &str, relay: SocketAddr, addr: SocketAddr) -> String {
    let changed = link.replace(&format!("://{relay}/"), &format!("://{addr}/"));
    assert_ne!(changed, link, "the link names no relay at {relay}");
    changed
}

/// The figures of one talker in a `stats` event; `null` when it is not there.
pub fn talker<'a>(stats: &'a Value, name: &str) -> &'a Value {
    let talkers = stats["talkers"].as_array().map(Vec::as_slice).unwrap_or_default();
    talkers.iter().find(|talker| talker["name"] == name).unwrap_or(&Value::Null)
}

/// Waits until a listener has received so many more frames of a talker than it has now.
pub fn hears_more(listener: &JsonlClient, name: &str, frames: u64, limit: Duration) {
    let mark = listener.mark();
    let first = next_stats(listener, mark);
    let before = talker(&first, name)["received"].as_u64().unwrap_or(0);
    let enough = |stats: &Value| talker(stats, name)["received"].as_u64().is_some_and(|now| now >= before + frames);
    listener.wait_event_after(mark, "stats", enough, limit).unwrap();
}

/// The next figures after a mark.
pub fn next_stats(client: &JsonlClient, mark: Mark) -> Value {
    client.wait_event_after(mark, "stats", |_| true, LIMIT).unwrap()
}

/// Lets real time pass: for what is observed over a time, and never to wait for something to happen.
pub fn observe(time: Duration) {
    std::thread::sleep(time);
}

/// When an event happened at the latest, by the clock of this process.
pub fn at(client: &JsonlClient, event: &Value) -> Instant {
    client.zero().unwrap() + Duration::from_millis(event["t_ms"].as_u64().unwrap())
}

/// The value below which a share of the values lies, by nearest rank.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

/// Ends everybody well: the host ends the meeting, and all leave with status 0.
pub fn end(mut host: JsonlClient, guests: Vec<JsonlClient>) {
    for guest in &guests {
        // Who hears the host has taken its place at the relay, and can be told of the end.
        let hears = |stats: &Value| talker(stats, "Hestia")["received"].as_u64().is_some_and(|received| received > 0);
        guest.wait_event("stats", hears, LIMIT).unwrap();
    }
    host.act("end").unwrap();
    for mut guest in guests {
        let ended = guest.wait_event("ended", |_| true, LIMIT).unwrap();
        assert_eq!(ended["by"], "host");
        assert_eq!(guest.wait_exit(LIMIT).unwrap(), 0);
        assert_eq!(guest.faults(), Vec::<String>::new());
    }
    assert_eq!(host.wait_exit(LIMIT).unwrap(), 0, "{}", host.stderr());
    assert_eq!(host.faults(), Vec::<String>::new());
}

/// Whoever leads ends the meeting, and all leave with status 0.
pub fn end_all(mut leader: JsonlClient, others: Vec<JsonlClient>) {
    leader.act("end").unwrap();
    for mut client in others {
        assert_eq!(client.wait_event("ended", |_| true, LIMIT).unwrap()["by"], "host");
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 0);
        assert_eq!(client.faults(), Vec::<String>::new());
    }
    assert_eq!(leader.wait_exit(LIMIT).unwrap(), 0, "{}", leader.stderr());
    assert_eq!(leader.faults(), Vec::<String>::new());
}

/// The newest event of a name, if there is one.
pub fn newest(client: &JsonlClient, name: &str) -> Option<Value> {
    client.events_named(name).pop()
}
