//! What the element says of itself: the property `stats`, the message of the same numbers, and its warnings.

use super::imp::Infer;
use super::state::State;
use crate::segmenter::SegmentError;
use crate::stream::Incident;
use gst::subclass::prelude::*;
use gstreamer as gst;

/// Name of the element message with the numbers of `stats`.
const STATS_MESSAGE: &str = "masam-stats";

/// A model whose threads had less of the processor time that they wanted is starved. Two threads that share two
/// processors with two busy programs have half.
pub(super) const STARVED_SHARE: f64 = 0.6;

/// Name of the structure in the details of a warning about the model.
const FAULT_DETAILS: &str = "masam-fault";

impl Infer {
    /// The numbers, in a structure of that name.
    pub(super) fn numbers(&self, name: &str) -> gst::Structure {
        let worker = self
            .session()
            .as_ref()
            .map(|session| session.supervisor.stats())
            .unwrap_or_default();
        let share = (self.session().as_ref())
            .and_then(|session| session.supervisor.processor_share(self.now_nanos()));
        let (detached, off, spec) = match &*self.session() {
            Some(session) => (
                session.supervisor.detached(),
                session.supervisor.off().is_some(),
                Some((
                    session.spec().model_id.clone(),
                    session.spec().device.clone(),
                    session.emit().to_string(),
                )),
            ),
            None => (self.left.count(), false, None),
        };
        let (numbers, counts, epoch, live, fault) = match &*self.state() {
            Some(state) => {
                let stream = state.stream.as_ref();
                let fault = stream
                    .and_then(|stream| stream.engine.fault())
                    .map(|(error, _)| error.to_string());
                let live = stream.is_some_and(|stream| stream.live);
                (state.numbers.clone(), state.counts(), state.epoch(), live, fault)
            }
            None => Default::default(),
        };
        let mut stats = gst::Structure::builder(name)
            .field("frames-in", numbers.frames_in)
            .field("frames-out", numbers.frames_out)
            .field("frames-without-mask", numbers.frames_bare)
            .field("frames-unreadable", numbers.frames_unread)
            .field("frames-copied", numbers.frames_copied)
            .field("frames-not-looked-at", numbers.frames_hurried)
            .field("frames-missing-mask", numbers.missing.count())
            .field("clips-run", counts.clips_run)
            .field("clips-skipped", counts.clips_skipped)
            .field("clips-failed", counts.clips_failed)
            .field("answers-stale", counts.answers_stale)
            .field("epoch", epoch)
            .field("live", live)
            .field("inference-off", off)
            .field("passes", worker.passes)
            .field("restarts", worker.restarts)
            .field("detached", detached)
            .field("largest-batch", worker.largest_batch as u64)
            .build();
        if let Some((model, device, emit)) = spec {
            stats.set("model-id", model);
            stats.set("device", device);
            stats.set("emit", emit);
        }
        if let Some(fault) = fault {
            stats.set("fault", fault);
        }
        if numbers.missing.count() > 0 {
            stats.set("missing-mask-frames", numbers.missing.to_string());
        }
        if let Some(share) = share {
            stats.set("processor-share", share);
            stats.set("starved", share < STARVED_SHARE);
        }
        // Quantiles of nothing are left out.
        for (name, recent, per_cent) in [
            ("mask-age-p50", &numbers.age_nanos, 50),
            ("mask-age-p95", &numbers.age_nanos, 95),
            ("mask-age-p99", &numbers.age_nanos, 99),
            ("forward-p50", &worker.forward_nanos, 50),
            ("forward-p99", &worker.forward_nanos, 99),
        ] {
            if let Some(value) = recent.percentile(per_cent) {
                stats.set(name, value);
            }
        }
        stats
    }

    /// Posts the numbers when the interval since the last time has passed.
    pub(super) fn post_stats(&self) {
        let interval_nanos = self.settings().stats_interval_nanos;
        if interval_nanos == 0 {
            return;
        }
        let (now_nanos, mut due) = (self.now_nanos(), false);
        if let Some(state) = self.state().as_mut() {
            let since = state.stats_posted_nanos.get_or_insert(now_nanos);
            due = now_nanos.saturating_sub(*since) >= interval_nanos;
            if due {
                *since = now_nanos;
            }
        }
        if due {
            let message = gst::message::Element::builder(self.numbers(STATS_MESSAGE));
            self.post_message(message.src(&*self.obj()).build());
        }
    }

    /// Looks after the worker, and reports when one was given up.
    pub(super) fn tend(&self) {
        let Some(supervisor) = self
            .state()
            .as_ref()
            .map(|state| state.session.supervisor.clone())
        else {
            return;
        };
        let Some(incident) = supervisor.tend(self.now_nanos()) else {
            return;
        };
        let stats = supervisor.stats();
        let details = gst::Structure::builder(FAULT_DETAILS)
            .field("restarts", stats.restarts)
            .field("detached", supervisor.detached())
            .field("model-id", supervisor.spec().model_id.as_str());
        let (text, details) = match incident {
            Incident::Replaced { after_nanos } => {
                let seconds = after_nanos as f64 / 1e9;
                let text = format!(
                    "a forward pass hangs since {seconds:.1} s and was given up; the model is opened anew"
                );
                (text, details.field("kind", "hung").field("after", after_nanos))
            }
            Incident::Off { cause } => (
                format!("inference stays off: {cause}"),
                details.field("kind", "off"),
            ),
        };
        gst::element_imp_warning!(self, gst::StreamError::Failed, ("{text}"), details: details.build());
    }

    /// Warns of what the model gave in the place of a mask. See [`is_told`].
    pub(super) fn warn_of_fault(&self, text: &str, error: &SegmentError, count: u64) {
        let epoch = self.state().as_ref().map_or(0, State::epoch);
        let details = gst::Structure::builder(FAULT_DETAILS)
            .field("kind", kind_of(error))
            .field("cause", error.to_string())
            .field("count", count)
            .field("epoch", epoch)
            .build();
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            ("{text}: {error} ({count} so far)"),
            details: details
        );
    }

    /// Warns, at the end of a stream in exact mode, of the frames that left without their masks.
    pub(super) fn warn_of_missing_masks(&self) {
        let (missing, out) = match self.state().as_mut() {
            Some(state) if state.numbers.missing.count() > state.numbers.missing_told => {
                state.numbers.missing_told = state.numbers.missing.count();
                (state.numbers.missing.clone(), state.numbers.frames_out)
            }
            _ => return,
        };
        let details = gst::Structure::builder(FAULT_DETAILS)
            .field("kind", "missing-masks")
            .field("count", missing.count())
            .field("frames", missing.to_string())
            .build();
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            ("no mask on {} of {out} frames: {missing} (counted from 0)", missing.count()),
            details: details
        );
    }

    /// The same for a frame that could not be read.
    pub(super) fn warn_of_frame(&self, error: &crate::Error, count: u64) {
        let details = gst::Structure::builder(FAULT_DETAILS)
            .field("kind", "unreadable")
            .field("cause", error.to_string())
            .field("count", count)
            .build();
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            ("a frame could not be read: {error} ({count} so far)"),
            details: details
        );
    }
}

/// Whether one of the faults counted since there were `before` is one to be told, now that there are `count`: the 1st,
/// 2nd, 4th, 8th, … are. A fault in every frame must not flood the bus.
pub(super) fn is_told(before: u64, count: u64) -> bool {
    count > before && (before == 0 || count.ilog2() > before.ilog2())
}

/// What a program tells faults apart by.
fn kind_of(error: &SegmentError) -> &'static str {
    match error {
        SegmentError::Request(_) => "request",
        SegmentError::Forward(_) => "error",
        SegmentError::NotFinite { .. } => "not-finite",
        SegmentError::Panicked(_) => "panic",
        SegmentError::Late => "late",
        SegmentError::Unsupported(_) => "unsupported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_at_powers_of_two() {
        let told: Vec<u64> = (1..40).filter(|&count| is_told(count - 1, count)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32]);
        assert!(is_told(3, 9) && is_told(0, 7), "none is passed over");
        assert!(!is_told(4, 7) && !is_told(8, 8));
    }
}
