//! Looks at everything once a second: the relay's process, and what members' connections have counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::procfs::{Processors, Times, process_times, resident_bytes};
use crate::result::Second;
use crate::room::Stage;
use crate::sync::lock;

/// Everything that is counted up, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) relay: Option<Times>,
    pub(crate) rss: Option<u64>,
    pub(crate) packets: u64,
    pub(crate) frames: u64,
    pub(crate) members: u64,
    pub(crate) processors: Option<Processors>,
}

/// Takes samples.
pub(crate) struct Sampler {
    stage: Arc<Stage>,
    /// Packets and frames of connections that are gone.
    gone: (u64, u64),
    /// What relays took that are gone.
    spent: Times,
}

impl Sampler {
    pub(crate) fn new(stage: Arc<Stage>) -> Self {
        Self { stage, gone: (0, 0), spent: Times::default() }
    }

    /// The relay of that process is about to go.
    pub(crate) fn note_kill(&mut self, pid: Option<u32>) {
        self.spent = self.spent + pid.and_then(process_times).unwrap_or_default();
    }

    /// Everything now.
    pub(crate) fn take(&mut self, pid: Option<u32>) -> Sample {
        let (packets, frames) = self.received();
        Sample {
            relay: pid.and_then(process_times).map(|times| times + self.spent),
            rss: pid.and_then(resident_bytes),
            packets,
            frames,
            members: self.stage.tally.members.load(Ordering::Relaxed),
            processors: Processors::now(),
        }
    }

    fn received(&mut self) -> (u64, u64) {
        let (mut packets, mut frames) = (0, 0);
        let gone = &mut self.gone;
        lock(&self.stage.connections).retain(|connection| {
            let is_gone = connection.reason().is_some();
            let (udp, datagrams) = (connection.packets(), connection.frames());
            if is_gone {
                *gone = (gone.0 + udp, gone.1 + datagrams);
            } else {
                (packets, frames) = (packets + udp, frames + datagrams);
            }
            !is_gone
        });
        (packets + self.gone.0, frames + self.gone.1)
    }
}

/// What happened between two samples that are so many seconds apart.
pub(crate) fn between(second: u32, before: &Sample, after: &Sample, seconds: f64) -> Second {
    Second {
        second,
        relay_cpu: after.relay.zip(before.relay).map(|(after, before)| (after - before).on_cpu / seconds),
        rss_bytes: after.rss,
        packets_per_frame: packets_per_frame(before, after),
        members: after.members,
        ..Second::default()
    }
}

/// UDP packets per frame between two samples; `None` when no frame came.
pub(crate) fn packets_per_frame(before: &Sample, after: &Sample) -> Option<f64> {
    let frames = after.frames - before.frames;
    (frames > 0).then(|| (after.packets - before.packets) as f64 / frames as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_differences_of_samples() {
        let relay = |on_cpu| Some(Times { on_cpu, waiting: 9.0 });
        let before = Sample { relay: relay(1.0), rss: Some(5), packets: 10, frames: 100, ..Sample::default() };
        let after = Sample { relay: relay(1.5), rss: Some(7), packets: 60, frames: 300, members: 2, processors: None };
        let second = between(3, &before, &after, 2.0);
        assert_eq!((second.second, second.members, second.rss_bytes), (3, 2, Some(7)));
        assert_eq!((second.relay_cpu, second.packets_per_frame), (Some(0.25), Some(0.25)));
        assert_eq!(packets_per_frame(&after, &after), None);
    }
}
