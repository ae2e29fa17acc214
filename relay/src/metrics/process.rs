//! What the process costs, and which program it is. What the system doesn't tell is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::page::Page;

/// What the process has used.
#[derive(Debug)]
pub(super) struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
}

impl Usage {
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        Self { cpu_seconds: cpu_seconds(), resident_bytes: status.as_deref().and_then(resident_bytes) }
    }
}

impl Collector for Usage {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        if let Some(seconds) = self.cpu_seconds {
            page.counter("process_cpu_seconds", "Processor time of all threads, user and system.", seconds)?;
        }
        if let Some(bytes) = self.resident_bytes {
            page.gauge("process_resident_memory_bytes", "Memory that is resident.", bytes)?;
        }
        Ok(())
    }
}

/// The system's own sum, to the nanosecond; the ticks of `/proc/self/stat` are 10 ms.
#[cfg(unix)]
fn cpu_seconds() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let used = std::time::Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()?;
    Some(used.as_secs_f64())
}

#[cfg(not(unix))]
fn cpu_seconds() -> Option<f64> {
    None
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmHWM:\t   9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        for without in ["", "VmRSS:\t1234", "VmRSS:\tmany kB"] {
            assert_eq!(resident_bytes(without), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_time() {
        let usage = Usage::now();
        assert!(usage.cpu_seconds.is_some_and(|seconds| seconds > 0.0));
        // A test program is larger than 100 KiB and smaller than 100 GiB.
        assert!(usage.resident_bytes.is_some_and(|bytes| (100 << 10..100 << 30).contains(&bytes)));
    }
}
