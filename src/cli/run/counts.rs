//! What is counted while `masam run` plays.

use super::log::RunLog;
use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What `masaminfer` says of its masks.
pub(super) struct MaskCounts {
    /// Frames that left with one.
    pub(super) frames: u64,
    /// Frames that left.
    out: u64,
    live: bool,
    median_pass_nanos: Option<u64>,
    oldest_nanos: u64,
    /// How many frames of exact mode left without one, and which.
    missing: (u64, String),
}

impl MaskCounts {
    pub(super) fn of(pipeline: &gst::Pipeline) -> Self {
        let infer = pipeline.by_name("infer");
        let stats = infer.as_ref().map(|e| e.property::<gst::Structure>("stats"));
        let number = |name: &str| stats.as_ref().and_then(|s| s.get::<u64>(name).ok());
        let out = number("frames-out").unwrap_or(0);
        Self {
            out,
            frames: out.saturating_sub(number("frames-without-mask").unwrap_or(0)),
            live: stats.as_ref().is_some_and(|s| s.get("live") == Ok(true)),
            median_pass_nanos: number("forward-p50"),
            missing: (
                number("frames-missing-mask").unwrap_or(0),
                (stats.as_ref())
                    .and_then(|s| s.get("missing-mask-frames").ok())
                    .unwrap_or_default(),
            ),
            oldest_nanos: infer.map_or(0, |e| e.property("max-mask-age")),
        }
    }

    /// # Errors
    /// Frames of exact mode that left without a mask.
    pub(super) fn complete(&self) -> Result<()> {
        match &self.missing {
            (0, _) => Ok(()),
            (count, frames) => bail!(
                "no mask on {count} of {} frames: {frames} (counted from 0)",
                self.out
            ),
        }
    }

    /// Why no frame has a mask, as far as it is known.
    pub(super) fn why_none(&self) -> String {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        match self.median_pass_nanos {
            Some(pass) if self.live => format!(
                "no frame has a mask: the model takes {:.1} s for a clip, and masks older than {:.1} s are not shown; \
                 --mode exact waits for them",
                seconds(pass),
                seconds(self.oldest_nanos)
            ),
            _ => "no frame has a mask".into(),
        }
    }
}

/// Frames that went into and came out of our elements, and the last one's time.
pub(super) struct Frames {
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) position_nanos: AtomicU64,
    pub(super) log: RunLog,
    /// Running time at which the last frame read ends, in nanoseconds.
    pub(super) read_until_nanos: AtomicU64,
    /// As much has been read as was asked for.
    pub(super) enough: AtomicBool,
    /// The options do not fit the frames; those that still come are of no use.
    refused: AtomicBool,
}

/// Whether an element goes on without masks because options do not fit the frames: not what they were given for.
pub(super) fn is_refusal(message: &gst::MessageRef) -> bool {
    matches!(message.view(), gst::MessageView::Warning(w) if w.error().matches(gst::LibraryError::Settings))
}

/// When a buffer is due, in nanoseconds of running time.
pub(super) fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<u64> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
    segment
        .to_running_time(buffer.pts()?)
        .map(gst::ClockTime::nseconds)
}

impl Frames {
    /// Begins to count; frames behind the first `duration` are left out.
    ///
    /// # Errors
    /// A pipeline without our elements.
    pub(super) fn of(pipeline: &gst::Pipeline, duration: Option<Duration>) -> Result<Arc<Self>> {
        let frames = Arc::new(Self {
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            position_nanos: AtomicU64::new(0),
            log: RunLog::of(pipeline),
            read_until_nanos: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        });
        let noted = frames.clone();
        // In the thread that complains, so that it is known before the frame behind comes.
        pipeline
            .bus()
            .context("a pipeline has a bus")?
            .set_sync_handler(move |_, message| {
                noted.refused.fetch_or(is_refusal(message), Ordering::Relaxed);
                gst::BusSyncReply::Pass
            });
        let pad = |element: &str, pad: &str| {
            pipeline
                .by_name(element)
                .and_then(|e| e.static_pad(pad))
                .with_context(|| format!("no pad {pad} of {element}"))
        };
        let counted = frames.clone();
        let end = Mutex::new(None);
        pad("infer", "sink")?.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if counted.refused.load(Ordering::Relaxed) {
                return gst::PadProbeReturn::Handled;
            }
            if let Some(buffer) = info.buffer()
                && let Some(start) = running_time(pad, buffer)
            {
                let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
                let end = end.get_or_insert_with(|| {
                    duration.map(|d| start.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
                });
                if end.is_some_and(|end| start >= end) {
                    counted.enough.store(true, Ordering::Relaxed);
                    return gst::PadProbeReturn::Handled;
                }
                let length = buffer.duration().map_or(0, gst::ClockTime::nseconds);
                counted.read_until_nanos.store(start + length, Ordering::Relaxed);
            }
            counted.read.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        let counted = frames.clone();
        pad("overlay", "src")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            counted.written.fetch_add(1, Ordering::Relaxed);
            if let Some(time) = info.buffer().and_then(|b| b.pts()) {
                counted.position_nanos.store(time.nseconds(), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gst::infer::Infer;
    use crate::runtime::OpenOptions;
    use crate::stream::faulty::{FaultPlan, Faulty};

    /// What is counted of six frames of which `plan` says how they fail.
    fn counted(mode: &str, plan: &str) -> MaskCounts {
        gst::init().unwrap();
        crate::gst::register().unwrap();
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc num-buffers=6 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 \
             ! masaminfer name=infer mode={mode} emit=step ! fakesink"
        ));
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let (plan, passes) = (plan.parse::<FaultPlan>().unwrap(), Arc::<AtomicU64>::default());
        let infer = pipeline.by_name("infer").unwrap();
        infer.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
            let model = crate::runtime::open(file.as_ref(), &OpenOptions::default())?;
            Ok(Box::new(Faulty::new(model, plan, Arc::clone(&passes))))
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        let patience = gst::ClockTime::from_seconds(120);
        let end = pipeline.bus().unwrap().timed_pop_filtered(patience, &wanted);
        let counts = MaskCounts::of(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
        counts
    }

    #[test]
    fn frames_of_exact_mode_without_a_mask_are_an_error() {
        let counts = counted("exact", "error/6");
        assert_eq!(counts.frames, 5);
        let error = counts.complete().unwrap_err().to_string();
        assert_eq!(error, "no mask on 1 of 6 frames: 5 (counted from 0)");
        assert!(counted("exact", "slow:0.001").complete().is_ok());
        assert!(
            counted("live", "error").complete().is_ok(),
            "a live video goes on"
        );
    }
}
