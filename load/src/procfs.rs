//! What Linux says of a process: processor time and memory. And of the machine's processors.

use std::fs;
use std::iter::Sum;
use std::ops::{Add, Div, Sub};
use std::path::Path;

/// How long threads had a core and how long they were ready to run and had none, in seconds with nanosecond resolution; or both
/// as shares of some time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Times {
    /// On a core.
    pub on_cpu: f64,
    /// Waiting for one.
    pub waiting: f64,
}

impl Times {
    /// When they did not sleep.
    pub fn awake(self) -> f64 {
        self.on_cpu + self.waiting
    }
}

impl Add for Times {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { on_cpu: self.on_cpu + other.on_cpu, waiting: self.waiting + other.waiting }
    }
}

impl Sub for Times {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { on_cpu: self.on_cpu - other.on_cpu, waiting: self.waiting - other.waiting }
    }
}

impl Div<f64> for Times {
    type Output = Self;

    fn div(self, seconds: f64) -> Self {
        Self { on_cpu: self.on_cpu / seconds, waiting: self.waiting / seconds }
    }
}

impl Sum for Times {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Times of all threads of a process; `None` when it is gone. A thread that ended takes its share along.
pub fn process_times(pid: u32) -> Option<Times> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times: Times = tasks.filter_map(|task| times(&task.ok()?.path())).sum();
    (times.on_cpu > 0.0).then_some(times)
}

/// Resident bytes of a process; `None` when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    // The page tables' own sum; /proc/PID/status lags behind by some pages per core.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let exact = text.as_deref().and_then(|text| kilobytes(text, "Rss:"));
    let status = || kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:");
    Some(exact.or_else(status)? * 1024)
}

/// A thread of this process, by which its times can be read from another.
#[derive(Clone, Copy, Debug)]
pub struct ThreadId(u32);

impl ThreadId {
    /// The calling thread; `None` where there is no procfs.
    pub fn current() -> Option<Self> {
        let link = fs::read_link("/proc/thread-self").ok()?;
        link.file_name()?.to_str()?.parse().ok().map(Self)
    }

    /// Its times.
    pub fn times(self) -> Option<Times> {
        times(Path::new(&format!("/proc/self/task/{}", self.0)))
    }
}

/// What all processors of this machine have done since it started, in ticks of the kernel's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Processors {
    /// All of it.
    pub all: u64,
    /// Had nothing to do.
    pub idle: u64,
    /// Had something to do, and stood still meanwhile: a virtual machine's host gave them to others.
    pub stolen: u64,
}

impl Processors {
    /// Until now; `None` where there is no procfs.
    pub fn now() -> Option<Self> {
        Self::of_stat(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. What guests of this machine took is in the first.
    fn of_stat(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = fields.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        let &[_, _, _, idle, waiting, _, _, stolen] = ticks.as_slice() else { return None };
        Some(Self { all: ticks.iter().sum(), idle: idle + waiting, stolen })
    }

    /// Shares of the time since then: in which they had nothing to do, and in which they stood still.
    pub fn since(self, before: Self) -> Option<(f64, f64)> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)? as f64;
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / all;
        Some((share(self.idle, before.idle), share(self.stolen, before.stolen)))
    }
}

/// The kernel's version, for the record.
pub fn kernel() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned())
}

/// The processor's name, for the record.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

fn times(task: &Path) -> Option<Times> {
    of_schedstat(&fs::read_to_string(task.join("schedstat")).ok()?)
}

/// What its first two fields say, which are in nanoseconds.
fn of_schedstat(text: &str) -> Option<Times> {
    let mut nanos = text.split_whitespace().map_while(|field| field.parse::<u64>().ok());
    let mut seconds = || Some(nanos.next()? as f64 / 1e9);
    Some(Times { on_cpu: seconds()?, waiting: seconds()? })
}

fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_processor_time() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(process_times(pid).unwrap().on_cpu > 0.0);
        let me = ThreadId::current().unwrap();
        // Counted at the kernel's next tick only, until which asking takes time itself.
        while me.times().unwrap().on_cpu <= 0.0 {}
        assert_eq!(process_times(u32::MAX), None);
    }

    #[test]
    fn schedstat_tells_how_long_a_thread_ran_and_how_long_it_waited() {
        assert_eq!(of_schedstat("1500000000 250000000 17\n"), Some(Times { on_cpu: 1.5, waiting: 0.25 }));
        assert_eq!(of_schedstat("1500000000\n"), None);
        let times = [Times { on_cpu: 1.0, waiting: 2.0 }, Times { on_cpu: 3.0, waiting: 1.0 }];
        let sum: Times = times.into_iter().sum();
        assert_eq!(((sum - times[0]) / 2.0, sum.awake()), (Times { on_cpu: 1.5, waiting: 0.5 }, 7.0));
    }

    #[test]
    fn shares_of_the_processors_are_between_two_looks() {
        let before = Processors::of_stat("cpu  100 0 50 800 10 0 5 35 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Processors { all: 1_000, idle: 810, stolen: 35 });
        let after = Processors { all: 1_200, idle: 910, stolen: 45 };
        assert_eq!(after.since(before), Some((0.5, 0.05)));
        assert_eq!(before.since(before), None);
        assert_eq!(["", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8"].map(Processors::of_stat), [None; 3]);
        assert!(Processors::now().unwrap().all > 0);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(kilobytes("Name: x\nRss:      1234 kB\n", "Rss:"), Some(1234));
        assert_eq!(kilobytes("Name: x\n", "Rss:"), None);
    }
}
