//! The model in the worker's hands: opened, run with panics contained, and opened anew after faults.

use super::blame::Blame;
use super::restart::BackOff;
use super::time::Clock;
use super::worker::Open;
use crate::error::{Error, Result};
use crate::pulse::Pulse;
use crate::segmenter::{
    Reply, Request, SegmentError, Segmenter, SegmenterSpec, StreamId, panic_message, segment_isolated,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Keeps the model in working order.
#[derive(Default)]
pub(super) struct Keeper {
    pub segmenter: Option<Box<dyn Segmenter>>,
    /// What the model said of itself when it was first opened.
    pub spec: Option<SegmenterSpec>,
    back_off: BackOff,
    blame: Blame,
    /// Openings of the model after its first.
    pub restarts: u64,
    /// It has been open.
    pub was_open: bool,
    /// Shows that opening the model and its passes go on.
    pub pulse: Pulse,
    /// Why the model is not open.
    trouble: String,
}

impl Keeper {
    /// Without a model; `pulse` shows that one that takes long goes on.
    pub fn new(pulse: Pulse) -> Self {
        Self {
            pulse,
            ..Self::default()
        }
    }

    /// Opens the model, panics contained.
    pub fn open(&mut self, open: &Open) -> Result<Box<dyn Segmenter>> {
        self.pulse.clone().on_thread(|| self.open_contained(open))
    }

    fn open_contained(&self, open: &Open) -> Result<Box<dyn Segmenter>> {
        let unavailable = |why| Error::Unavailable {
            what: "the model".into(),
            why,
        };
        let segmenter = catch_unwind(AssertUnwindSafe(|| open())).unwrap_or_else(|payload| {
            Err(unavailable(format!(
                "opening it panicked: {}",
                panic_message(payload.as_ref())
            )))
        })?;
        match &self.spec {
            Some(spec) if spec != segmenter.spec() => {
                Err(unavailable("its file was exchanged meanwhile".into()))
            }
            _ => Ok(segmenter),
        }
    }

    /// Runs a batch on the model, opening it first where it is not open and may be.
    pub fn run(
        &mut self,
        requests: &[Request],
        open: &Open,
        clock: &Clock,
    ) -> Vec<std::result::Result<Reply, SegmentError>> {
        if self.segmenter.is_none() && self.back_off.may_open(clock()) {
            match self.open(open) {
                Ok(segmenter) => {
                    self.segmenter = Some(segmenter);
                    // The first of a worker that takes another's place is counted by who made it.
                    self.restarts += u64::from(std::mem::replace(&mut self.was_open, true));
                }
                Err(error) => {
                    self.trouble = error.to_string();
                    self.back_off.pause(clock());
                }
            }
        }
        let Some(segmenter) = &mut self.segmenter else {
            let error = SegmentError::Forward(format!("the model is not open: {}", self.trouble));
            return requests.iter().map(|_| Err(error.clone())).collect();
        };
        let pulse = self.pulse.clone();
        pulse.count_thread();
        let results = pulse.on_thread(|| segment_isolated(segmenter.as_mut(), requests, None));
        self.blame.begin();
        for (request, _) in requests.iter().zip(&results).filter(|(_, r)| r.is_ok()) {
            self.blame.succeeded(request.stream);
            self.back_off.succeeded();
        }
        let mut against_model = Vec::new();
        for (request, result) in requests.iter().zip(&results) {
            let Err(error) = result else { continue };
            if self.blame.failed(request.stream) {
                against_model.push(error);
            } else if matches!(error, SegmentError::Panicked(_)) {
                // Its state may be half changed; the model serves the others.
                self.reset(request.stream);
            }
        }
        if let Some(error) = against_model.first()
            && self.back_off.failed(&against_model, clock())
        {
            self.trouble = format!("it is opened anew after: {error}");
            self.discard();
        }
        results
    }

    pub fn reset(&mut self, stream: StreamId) {
        let Some(segmenter) = &mut self.segmenter else {
            return;
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| segmenter.reset(stream))) {
            // Its state cannot be trusted any more.
            self.trouble = format!("resetting it panicked: {}", panic_message(payload.as_ref()));
            self.discard();
        }
    }

    /// Frees the model, even one whose own clean-up panics.
    pub fn discard(&mut self) {
        let segmenter = self.segmenter.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(segmenter))) {
            tracing::warn!("freeing the model panicked: {}", panic_message(payload.as_ref()));
        }
    }
}
