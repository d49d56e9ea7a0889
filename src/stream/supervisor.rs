//! Keeps a worker going: gives up one whose forward pass hangs and starts another in its place.
//!
//! A pass counts as hung after `max(watchdog, 10 x its own median)` without a sign of life ([`crate::pulse`]): a slow
//! one, or one that other programs keep from the processor, can take any time as long as it goes on. Its thread cannot be ended, only left to
//! itself; with it goes the memory of a model, so after [`MOST_DETACHED`] of them inference stays off. The same holds
//! for passes that did not end in time when their stream was stopped, but those are slow, not hung: inference begins
//! when one of them has ended.

use super::stats::Recent;
use super::sync::{Mutex, MutexGuard};
use super::worker::{LeftThreads, Open, Port, Stopped, Worker, WorkerConfig, WorkerStats};
use crate::error::Result;
use crate::segmenter::{SegmenterSpec, StreamId};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Threads left to themselves before inference stays off.
pub const MOST_DETACHED: u32 = 2;

/// A pass is hung only when it takes so many times its median.
const TIMES_MEDIAN: u64 = 10;

/// Something that happened to the worker; whoever tends it reports it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// A pass was given up after that long; another worker has taken over.
    Replaced {
        /// How long it had been running.
        after_nanos: u64,
    },
    /// As before, but it was one too many or no thread could be started: inference stays off.
    Off {
        /// Why.
        cause: String,
    },
}

/// How fast the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Median of the forward passes; `None` before the first.
    pub median_nanos: Option<u64>,
    /// For how long the pass under way has been running; `None` where none is.
    pub busy_nanos: Option<u64>,
    /// Forward passes that have ended.
    pub passes: u64,
}

/// Owner of the current worker.
pub struct Supervisor {
    config: WorkerConfig,
    open: Open,
    spec: SegmenterSpec,
    watchdog_nanos: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` when inference is off.
    worker: Option<Worker>,
    /// Threads left to themselves that still run, those of other supervisors of the same owner included.
    left: LeftThreads,
    /// Why there is no worker.
    off: Option<String>,
    /// A worker is to be started once few enough threads are left.
    waits: bool,
    /// Of workers that were given up.
    restarts_before: u64,
    passes_before: u64,
    forward_nanos: Recent,
    /// Signs of life of the worker, and when it was first seen that there were so many.
    beats: (u64, u64),
}

impl Supervisor {
    /// Opens the model on a worker of its own. `left` counts the threads that its owner has left to themselves; too many
    /// keep inference off until they have ended.
    ///
    /// # Errors
    /// As [`Worker::spawn`].
    pub fn start(config: WorkerConfig, open: Open, watchdog_nanos: u64, left: LeftThreads) -> Result<Self> {
        let worker = Worker::spawn(config.clone(), Arc::clone(&open))?;
        let spec = worker.spec().clone();
        let count = left.count();
        let waits = count >= MOST_DETACHED;
        let off = waits.then(|| {
            format!(
                "{count} forward passes that were given up still run and hold their memory; \
                 it begins when one of them has ended"
            )
        });
        let inner = Inner {
            worker: (!waits).then_some(worker),
            left,
            off,
            waits,
            restarts_before: 0,
            passes_before: 0,
            forward_nanos: Recent::default(),
            beats: (0, 0),
        };
        Ok(Self {
            config,
            open,
            spec,
            watchdog_nanos,
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the model wants and gives.
    pub fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    /// A port of the current worker for `stream`; `None` when inference is off.
    pub fn port(&self, stream: StreamId) -> Option<Port> {
        self.inner().worker.as_ref().map(|worker| worker.port(stream))
    }

    /// Why inference stays off; `None` while it does not.
    pub fn off(&self) -> Option<String> {
        self.inner().off.clone()
    }

    /// Threads that were left to themselves and still run.
    pub fn detached(&self) -> u32 {
        self.inner().left.count()
    }

    /// What has been measured, over all workers.
    pub fn stats(&self) -> WorkerStats {
        let inner = self.inner();
        let mut stats = inner.worker.as_ref().map(Worker::stats).unwrap_or_default();
        if stats.forward_nanos.percentile(50).is_none() {
            stats.forward_nanos = inner.forward_nanos.clone();
        }
        stats.restarts += inner.restarts_before;
        stats.passes += inner.passes_before;
        stats
    }

    /// How fast the model is, at `now_nanos` of the worker's clock.
    pub fn pace(&self, now_nanos: u64) -> Pace {
        let inner = self.inner();
        let Some(worker) = &inner.worker else {
            return Pace::default();
        };
        Pace {
            median_nanos: worker
                .median_nanos()
                .or_else(|| inner.forward_nanos.percentile(50)),
            busy_nanos: worker.busy_nanos(now_nanos),
            passes: inner.passes_before + worker.passes(),
        }
    }

    /// The part of the processor time that the model's threads wanted lately and had, 0 to 1, at `now_nanos` of the
    /// worker's clock; `None` where they wanted none, or the system does not tell.
    pub fn processor_share(&self, now_nanos: u64) -> Option<f64> {
        self.inner().worker.as_ref()?.processor_share(now_nanos)
    }

    /// This process has been stopped until `now_nanos`, so that no sign of life could come before.
    pub fn excuse(&self, now_nanos: u64) {
        self.inner().beats.1 = now_nanos;
    }

    /// Looks whether the pass under way hangs at `now_nanos` (of the worker's clock), and replaces its worker if so.
    pub fn tend(&self, now_nanos: u64) -> Option<Incident> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if inner.waits && inner.left.count() < MOST_DETACHED {
            inner.waits = false;
            match self.successor() {
                Ok(worker) => {
                    (inner.worker, inner.off) = (Some(worker), None);
                    inner.restarts_before += 1;
                }
                Err(error) => inner.off = Some(error.to_string()),
            }
        }
        let worker = inner.worker.as_ref()?;
        let busy_nanos = worker.busy_nanos(now_nanos)?;
        let median = worker
            .median_nanos()
            .or_else(|| inner.forward_nanos.percentile(50));
        let beats = worker.beats();
        if beats != inner.beats.0 {
            inner.beats = (beats, now_nanos);
        }
        let after_nanos = busy_nanos.min(now_nanos.saturating_sub(inner.beats.1));
        if after_nanos < self.watchdog_nanos {
            return None;
        }
        if after_nanos < median.unwrap_or(0).saturating_mul(TIMES_MEDIAN) {
            return None;
        }
        let stats = worker.stats();
        inner.beats = (0, 0);
        inner.restarts_before += stats.restarts;
        inner.passes_before += stats.passes;
        if stats.forward_nanos.percentile(50).is_some() {
            inner.forward_nanos = stats.forward_nanos;
        }
        if let Some(hung) = inner.worker.take()
            && hung.stop(Duration::ZERO) == Stopped::Detached
        {
            hung.count_in(&inner.left);
        }
        let count = inner.left.count();
        let cause = if count >= MOST_DETACHED {
            format!("{count} forward passes have been given up")
        } else {
            match self.successor() {
                Ok(worker) => {
                    inner.worker = Some(worker);
                    inner.restarts_before += 1;
                    return Some(Incident::Replaced { after_nanos });
                }
                Err(error) => error.to_string(),
            }
        };
        inner.off = Some(cause.clone());
        Some(Incident::Off { cause })
    }

    /// A worker for the same model.
    fn successor(&self) -> Result<Worker> {
        Worker::replace(self.config.clone(), Arc::clone(&self.open), self.spec.clone())
    }

    /// Ends the worker; see [`Worker::stop`].
    pub fn stop(&self, within: Duration) -> Stopped {
        let mut inner = self.inner();
        inner.waits = false;
        let Some(worker) = inner.worker.take() else {
            return Stopped::Joined;
        };
        let stopped = worker.stop(within);
        if stopped == Stopped::Detached {
            worker.count_in(&inner.left);
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::super::worker::tests::{LONG, gated_open, job};
    use super::super::worker::{Priority, Wait};
    use super::*;
    use crate::segmenter::{Reply, Request, SegmentError, Segmenter};
    use std::sync::atomic::{AtomicU64, Ordering};

    const SECOND: u64 = 1_000_000_000;

    fn config() -> WorkerConfig {
        // The clock stands still: only the times given to `tend` count.
        WorkerConfig {
            name: "supervised".into(),
            clock: Arc::new(|| 0),
            priority: Priority::Normal,
        }
    }

    #[test]
    fn a_hung_pass_is_replaced_once_and_then_inference_is_off() {
        let (open, begun, leave) = gated_open();
        let supervisor = Supervisor::start(config(), open, 30 * SECOND, LeftThreads::default()).unwrap();
        for round in 0..2 {
            let port = supervisor.port(StreamId(1)).unwrap();
            assert_eq!(supervisor.tend(100 * SECOND), None, "nothing is under way");
            port.submit(job(&port, 0, 1));
            begun.recv().unwrap();
            assert_eq!(supervisor.tend(30 * SECOND - 1), None);
            let incident = supervisor.tend(30 * SECOND).unwrap();
            assert_eq!(port.wait(LONG), Wait::Gone);
            match round {
                0 => assert_eq!(
                    incident,
                    Incident::Replaced {
                        after_nanos: 30 * SECOND
                    }
                ),
                _ => {
                    assert!(matches!(incident, Incident::Off { cause } if cause.contains("2 forward passes")))
                }
            }
        }
        assert!(supervisor.port(StreamId(1)).is_none() && supervisor.tend(900 * SECOND).is_none());
        assert_eq!((supervisor.detached(), supervisor.stats().restarts), (2, 1));
        leave.send(()).unwrap(); // both threads end
        leave.send(()).unwrap();
        assert_eq!(supervisor.stop(LONG), Stopped::Joined);
    }

    #[test]
    fn a_slow_model_is_slow_and_not_dead() {
        let (open, begun, leave) = gated_open();
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let config = WorkerConfig {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            ..config()
        };
        let supervisor = Supervisor::start(config, open, 30 * SECOND, LeftThreads::default()).unwrap();
        let port = supervisor.port(StreamId(1)).unwrap();
        assert_eq!(supervisor.pace(0), Pace::default());
        // Ten seconds a pass.
        port.submit(job(&port, 0, 1));
        begun.recv().unwrap();
        now.store(10 * SECOND, Ordering::SeqCst);
        leave.send(()).unwrap();
        assert!(matches!(port.wait(LONG), Wait::Done(_)));
        port.submit(job(&port, 0, 2));
        begun.recv().unwrap();
        let pace = Pace {
            median_nanos: Some(10 * SECOND),
            busy_nanos: Some(31 * SECOND),
            passes: 1,
        };
        assert_eq!(supervisor.pace(41 * SECOND), pace);
        assert_eq!(
            supervisor.tend(41 * SECOND),
            None,
            "above the watchdog, below ten medians"
        );
        assert_eq!(supervisor.tend(110 * SECOND - 1), None);
        let after_nanos = 100 * SECOND;
        assert_eq!(
            supervisor.tend(110 * SECOND),
            Some(Incident::Replaced { after_nanos })
        );
        // The one that took over knows how long passes take.
        assert_eq!(supervisor.pace(110 * SECOND).median_nanos, Some(10 * SECOND));
        leave.send(()).unwrap();
    }

    /// Beats in a pass as often as it is told to.
    struct Beating {
        spec: SegmenterSpec,
        told: Told,
    }

    type Told = Arc<std::sync::Mutex<std::sync::mpsc::Receiver<bool>>>;

    impl Segmenter for Beating {
        fn spec(&self) -> &SegmenterSpec {
            &self.spec
        }

        fn segment(
            &mut self,
            requests: &[Request],
            _: Option<std::time::Instant>,
        ) -> Vec<std::result::Result<Reply, SegmentError>> {
            while self.told.lock().unwrap().recv() == Ok(true) {
                crate::pulse::beat();
            }
            requests
                .iter()
                .map(|_| Ok(Reply { planes: Vec::new() }))
                .collect()
        }
    }

    #[test]
    fn a_pass_may_take_any_time_as_long_as_it_goes_on() {
        let (tell, told) = std::sync::mpsc::channel();
        let told = Arc::new(std::sync::Mutex::new(told));
        let open: Open = {
            let (open, ..) = gated_open();
            Arc::new(move || {
                let (spec, told) = (open()?.spec().clone(), Arc::clone(&told));
                Ok(Box::new(Beating { spec, told }) as Box<dyn Segmenter>)
            })
        };
        let supervisor = Supervisor::start(config(), open, 30 * SECOND, LeftThreads::default()).unwrap();
        let port = supervisor.port(StreamId(1)).unwrap();
        // A first pass of no time at all, and then one that is slow.
        port.submit(job(&port, 0, 0));
        tell.send(false).unwrap();
        assert!(matches!(port.wait(LONG), Wait::Done(_)));
        assert_eq!(supervisor.pace(0).median_nanos, Some(0));
        port.submit(job(&port, 0, 1));
        let beats = |supervisor: &Supervisor| supervisor.inner().worker.as_ref().unwrap().beats();
        for round in 1..=5 {
            let before = beats(&supervisor);
            tell.send(true).unwrap();
            while beats(&supervisor) == before {
                std::thread::yield_now();
            }
            assert_eq!(supervisor.tend(round * 29 * SECOND), None, "it goes on");
        }
        // The process is stopped for an hour.
        let woken = 3600 * SECOND;
        supervisor.excuse(woken);
        assert_eq!(supervisor.tend(woken + 30 * SECOND - 1), None);
        let incident = supervisor.tend(woken + 30 * SECOND);
        let after_nanos = 30 * SECOND;
        assert_eq!(incident, Some(Incident::Replaced { after_nanos }));
        tell.send(false).unwrap();
    }

    #[test]
    fn passes_that_outlast_their_stop_count_until_they_end() {
        let left = LeftThreads::default();
        let mut leaves = Vec::new();
        for count in 1..=MOST_DETACHED {
            let (open, begun, leave) = gated_open();
            let supervisor = Supervisor::start(config(), open, 30 * SECOND, left.clone()).unwrap();
            let port = supervisor.port(StreamId(1)).unwrap();
            port.submit(job(&port, 0, 1));
            begun.recv().unwrap();
            assert_eq!(supervisor.stop(Duration::from_millis(1)), Stopped::Detached);
            assert_eq!(supervisor.detached(), count);
            assert!(supervisor.tend(0).is_none() && supervisor.port(StreamId(1)).is_none());
            leaves.push(leave);
        }
        let (open, begun, leave) = gated_open();
        let supervisor = Supervisor::start(config(), open, 30 * SECOND, left.clone()).unwrap();
        assert!(supervisor.tend(0).is_none() && supervisor.port(StreamId(1)).is_none());
        assert!(supervisor.off().unwrap().contains("2 forward passes"));
        // One ends: inference begins.
        leaves.pop().unwrap().send(()).unwrap();
        while left.count() == MOST_DETACHED {
            std::thread::yield_now();
        }
        assert_eq!(supervisor.tend(0), None);
        assert_eq!(supervisor.off(), None);
        let port = supervisor.port(StreamId(1)).unwrap();
        port.submit(job(&port, 0, 1));
        begun.recv().unwrap();
        leave.send(()).unwrap();
        assert!(matches!(port.wait(LONG), Wait::Done(_)));
        leaves.pop().unwrap().send(()).unwrap();
    }
}
