//! What comes behind those who write and read now: it takes little at a time, rests between, and leaves the processor
//! to others.
//!
//! A server that sends thousands of entries at once, or stores hundreds, keeps a write waiting for as long; so does a
//! thread that opens them where the log's own work waits for it. Measured in BENCHMARKS.md ("Rotation of the epoch").

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Entries that are asked for ahead of need.
pub(super) const AHEAD: u64 = 256;
/// Entries that are written at once. Fewer are slower and hardly easier on others, more keep them waiting for longer.
pub(super) const BATCH: usize = 64;
/// The longest rest: where all take long because the machine is busy with something else, waiting helps nobody.
const LONGEST: Duration = Duration::from_millis(5);
/// Time without a write after which nobody writes.
const QUIET: Duration = Duration::from_secs(2);
/// Priority of a thread that comes behind others: it gets a tenth of what one of theirs does, never nothing.
const BEHIND: i32 = 10;

/// Those who write records to the log.
pub(super) struct Others {
    record: u64,
    wrote: Instant,
}

impl Others {
    /// Whoever wrote the record at this sequence may be writing.
    pub(super) fn at(record: u64) -> Self {
        Self { record, wrote: Instant::now() }
    }

    /// Whether they write, given the sequence of the last record now.
    pub(super) fn write(&mut self, record: u64) -> bool {
        if record != self.record {
            *self = Self::at(record);
        }
        self.wrote.elapsed() < QUIET
    }
}

/// Rests for as long as the work took that was begun then.
pub(super) async fn rest(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(LONGEST)).await;
}

/// From now on this thread, and each that it starts, comes behind others.
pub(super) fn step_back() {
    // Without it the work is done as well.
    rustix::process::setpriority_process(None, BEHIND).ok();
}

/// Does it on a thread of its own that comes behind others. Whoever stops waiting for it ends it.
pub(super) fn behind<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (mut tell, told) = oneshot::channel();
    let run = move || {
        step_back();
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
        runtime.block_on(async {
            tokio::select! {
                () = tell.closed() => {}
                done = work => drop(tell.send(done)),
            }
            // What it started in its last moment, such as the end of a consumer, is still sent.
            tokio::task::yield_now().await;
        });
    };
    // Without a thread nothing is ever told, and that says so.
    drop(std::thread::Builder::new().name("behind".into()).spawn(run));
    told
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_comes_behind_others_has_less_priority_and_nobody_else_does() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let behind = behind(async move { (own(), std::thread::spawn(own).join().unwrap()) });
        assert_eq!(behind.await.unwrap(), (BEHIND.max(before), BEHIND.max(before)));
        assert_eq!(own(), before);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_ends_it() {
        struct Ended(Arc<AtomicBool>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let is_ended = Arc::new(AtomicBool::new(false));
        let ended = Ended(Arc::clone(&is_ended));
        let waiting = behind(async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!is_ended.load(Ordering::Acquire));
        drop(waiting);
        for _ in 0..500 {
            if is_ended.load(Ordering::Acquire) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it goes on");
    }
}
