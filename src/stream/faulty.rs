//! A model that fails on purpose: what tests, and in debug builds the property `inject-fault`, put in the place of a
//! sound one.
//!
//! ```text
//! error | panic | nan | hang | slow:SECONDS     in every pass, or with /N in every N-th:  panic/10  slow:0.5/3
//! random:SEED                                   error, panic, nan and slow:0.05, each in one pass of eight
//! ```

use crate::error::{Error, Result};
use crate::segmenter::{
    Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, StateSnapshot, Step, StreamId,
};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What goes wrong in a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Every row fails.
    Error,
    /// The pass panics.
    Panic,
    /// Every row gives values that are not finite.
    NotFinite,
    /// The pass never ends.
    Hang,
    /// The pass takes so much longer.
    Slow(Duration),
}

/// Which passes fail, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultPlan {
    /// This fault in every n-th pass, n at least 1.
    Every(Fault, u64),
    /// A fault or none in each pass, drawn with this seed.
    Random(u64),
}

/// How long a slow pass of [`FaultPlan::Random`] takes more.
const RANDOM_SLOW: Duration = Duration::from_millis(50);

/// Longest time that a slow pass can be made to take.
const MAX_SLOW_SECONDS: f64 = 3600.0;

impl FaultPlan {
    /// The fault of pass `pass`, counted from 0.
    fn fault(self, pass: u64) -> Option<Fault> {
        match self {
            FaultPlan::Every(fault, every) => (pass + 1).is_multiple_of(every.max(1)).then_some(fault),
            FaultPlan::Random(seed) => match scrambled(seed ^ pass.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % 8 {
                0 => Some(Fault::Error),
                1 => Some(Fault::Panic),
                2 => Some(Fault::NotFinite),
                3 => Some(Fault::Slow(RANDOM_SLOW)),
                _ => None,
            },
        }
    }
}

/// Bits of a number, mixed (the finaliser of MurmurHash3).
fn scrambled(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

impl FromStr for FaultPlan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bound = "it has to be error, panic, nan, hang or slow:SECONDS, each with /N for every N-th pass, or random:SEED";
        let wrong = || Error::config("inject-fault", text, bound);
        if let Some(seed) = text.strip_prefix("random:") {
            return seed.parse().map(FaultPlan::Random).map_err(|_| wrong());
        }
        let (fault, every) = match text.split_once('/') {
            Some((fault, every)) => (fault, every.parse().map_err(|_| wrong())?),
            None => (text, 1),
        };
        let fault = match fault {
            "error" => Fault::Error,
            "panic" => Fault::Panic,
            "nan" => Fault::NotFinite,
            "hang" => Fault::Hang,
            _ => {
                let seconds = fault.strip_prefix("slow:").and_then(|s| s.parse::<f64>().ok());
                let seconds = seconds.filter(|s| (0.0..=MAX_SLOW_SECONDS).contains(s));
                Fault::Slow(Duration::from_secs_f64(seconds.ok_or_else(wrong)?))
            }
        };
        if every == 0 {
            return Err(wrong());
        }
        Ok(FaultPlan::Every(fault, every))
    }
}

/// A sound model that is made to fail.
pub struct Faulty {
    model: Box<dyn Segmenter>,
    plan: FaultPlan,
    /// Passes begun, also by models that this one takes the place of.
    passes: Arc<AtomicU64>,
}

impl Faulty {
    /// `model`, failing as `plan` says; `passes` goes on counting when the model is opened anew.
    pub fn new(model: Box<dyn Segmenter>, plan: FaultPlan, passes: Arc<AtomicU64>) -> Self {
        Self { model, plan, passes }
    }
}

impl Faulty {
    /// Begins a pass: panics, hangs or takes its time as planned, or says what it fails with.
    fn fault(&self) -> Option<SegmentError> {
        match self.plan.fault(self.passes.fetch_add(1, Ordering::Relaxed))? {
            Fault::Error => Some(SegmentError::Forward("made to fail".into())),
            Fault::NotFinite => Some(SegmentError::NotFinite { count: 1 }),
            Fault::Panic => std::panic::panic_any("made to panic"),
            Fault::Hang => loop {
                std::thread::park();
            },
            Fault::Slow(more) => {
                std::thread::sleep(more);
                None
            }
        }
    }
}

impl Segmenter for Faulty {
    fn spec(&self) -> &SegmenterSpec {
        self.model.spec()
    }

    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<std::result::Result<Reply, SegmentError>> {
        match self.fault() {
            Some(error) => requests.iter().map(|_| Err(error.clone())).collect(),
            None => self.model.segment(requests, deadline),
        }
    }

    fn step(
        &mut self,
        steps: &[Step],
        deadline: Option<Instant>,
    ) -> Vec<std::result::Result<Plane, SegmentError>> {
        match self.fault() {
            Some(error) => steps.iter().map(|_| Err(error.clone())).collect(),
            None => self.model.step(steps, deadline),
        }
    }

    fn snapshot(&self, stream: StreamId) -> Option<StateSnapshot> {
        self.model.snapshot(stream)
    }

    fn restore(
        &mut self,
        stream: StreamId,
        snapshot: &StateSnapshot,
    ) -> std::result::Result<(), SegmentError> {
        self.model.restore(stream, snapshot)
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_strictly() {
        let plan = |text: &str| text.parse::<FaultPlan>();
        assert_eq!(plan("panic/3").unwrap(), FaultPlan::Every(Fault::Panic, 3));
        let slow = Fault::Slow(Duration::from_millis(500));
        assert_eq!(plan("slow:0.5").unwrap(), FaultPlan::Every(slow, 1));
        assert_eq!(plan("random:7").unwrap(), FaultPlan::Random(7));
        for bad in [
            "",
            "boom",
            "error/0",
            "error/x",
            "slow:",
            "slow:-1",
            "slow:nan",
            "slow:1e99",
            "random:",
            "hang:1",
        ] {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_third_pass_is_the_third() {
        let plan = FaultPlan::Every(Fault::Error, 3);
        let faults: Vec<bool> = (0..6).map(|pass| plan.fault(pass).is_some()).collect();
        assert_eq!(faults, [false, false, true, false, false, true]);
        let mut kinds = std::collections::BTreeSet::new();
        for pass in 0..200 {
            kinds.insert(format!("{:?}", FaultPlan::Random(5).fault(pass)));
        }
        assert_eq!(kinds.len(), 5, "{kinds:?}");
    }
}
