//! What Linux says of a process: processor time and memory.

use std::fs;
use std::path::Path;

/// Processor time of all threads of a process, in seconds, with nanosecond resolution; `None` when it is gone. A thread
/// that ended takes its share along.
pub fn process_cpu_seconds(pid: u32) -> Option<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanos: u64 = tasks.filter_map(|task| on_cpu_nanos(&task.ok()?.path())).sum();
    (nanos > 0).then_some(nanos as f64 / 1e9)
}

/// Resident bytes of a process; `None` when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    // The page tables' own sum; /proc/PID/status lags behind by some pages per core.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let exact = text.as_deref().and_then(|text| kilobytes(text, "Rss:"));
    let status = || kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:");
    Some(exact.or_else(status)? * 1024)
}

/// A thread of this process, by which its processor time can be read from another.
#[derive(Clone, Copy, Debug)]
pub struct ThreadId(u32);

impl ThreadId {
    /// The calling thread; `None` where there is no procfs.
    pub fn current() -> Option<Self> {
        let link = fs::read_link("/proc/thread-self").ok()?;
        link.file_name()?.to_str()?.parse().ok().map(Self)
    }

    /// Its processor time in seconds.
    pub fn cpu_seconds(self) -> Option<f64> {
        let path = format!("/proc/self/task/{}", self.0);
        on_cpu_nanos(Path::new(&path)).map(|nanos| nanos as f64 / 1e9)
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

/// First field of schedstat: time on a processor.
fn on_cpu_nanos(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
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
        assert!(process_cpu_seconds(pid).unwrap() > 0.0);
        let me = ThreadId::current().unwrap();
        // Counted at the kernel's next tick only, until which asking takes time itself.
        while me.cpu_seconds().unwrap() <= 0.0 {}
        assert_eq!(process_cpu_seconds(u32::MAX), None);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(kilobytes("Name: x\nRss:      1234 kB\n", "Rss:"), Some(1234));
        assert_eq!(kilobytes("Name: x\n", "Rss:"), None);
    }
}
