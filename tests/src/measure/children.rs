//! Programs that were started are ended with who started them, when a signal ends that.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Until work has to have noticed that its programs are gone: recordings that are compared at that moment take seconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks for programs: work may have just started another one.
const LOOK: Duration = Duration::from_millis(100);

/// A signal came.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether programs that were started are being ended, and what fails fails for want of them.
pub fn are_ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

/// Works, and at a signal that is to end this program ends all programs that it has started, waits until the work has
/// come to its end for want of them, and gives an error.
///
/// # Errors
/// That of the work, or that a signal came.
pub fn guard<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let [interrupt, terminate, hangup] = &mut signals[..] else { bail!("three signals") };
        let mut work = tokio::task::spawn_blocking(work);
        tokio::select! {
            done = &mut work => return done.context("the work")?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        ENDING.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + NOTICED_WITHIN;
        while !work.is_finished() && Instant::now() < deadline {
            end_all()?;
            sleep(LOOK).await;
        }
        end_all()?;
        bail!("ended by a signal")
    });
    // Work that goes on is not waited for.
    runtime.shutdown_background();
    done
}

/// Ends the programs that this process has started and that run.
fn end_all() -> anyhow::Result<()> {
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread may have ended meanwhile, and so may a program.
        let Ok(children) = fs::read_to_string(thread?.path().join("children")) else { continue };
        for child in children.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)) {
            let _ = kill_process(child, Signal::TERM);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_gives_its_result_or_its_error() {
        assert_eq!(guard(|| Ok(7)).unwrap(), 7);
        assert_eq!(guard(|| -> anyhow::Result<()> { bail!("no") }).unwrap_err().to_string(), "no");
    }
}
