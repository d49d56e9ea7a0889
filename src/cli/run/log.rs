//! What a run logs: model, device, input, rates, faults, output and how it ended. Each event has a name as its message and
//! everything else in fields.

use crate::checkpoint::{ModelCard, source};
use crate::cli::video::{describe, describe_warning};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From one event with rates to the next.
const RATES_EVERY: Duration = Duration::from_secs(10);

/// Logs the model: the file, its hash as `sha256sum` prints it, and what it is.
pub(super) fn model(path: &Path, card: &ModelCard) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return; // the hash takes a second per gigabyte
    }
    let sha256 = source::sha256(path).unwrap_or_default();
    tracing::info!(
        path = %path.display(),
        sha256,
        name = card.model.name,
        side_px = card.model.image_side_px,
        classes = card.classes.len(),
        trained = card.provenance.trained,
        "model"
    );
}

/// What is logged while a pipeline plays.
#[derive(Default)]
pub(super) struct RunLog {
    /// When rates were logged last, and the frames that had left by then.
    last: Mutex<Option<(Instant, u64)>>,
}

impl RunLog {
    /// Has the pipeline report what is logged of it.
    pub(super) fn of(pipeline: &gst::Pipeline) -> Self {
        if let Some(infer) = pipeline
            .by_name("infer")
            .filter(|_| tracing::enabled!(tracing::Level::INFO))
        {
            let nanos = u64::try_from(RATES_EVERY.as_nanos()).unwrap_or(u64::MAX);
            infer.set_property("stats-interval", nanos);
            if let Some(pad) = infer.static_pad("sink") {
                pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
                    if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
                        input(caps.caps());
                    }
                    gst::PadProbeReturn::Ok
                });
            }
        }
        Self::default()
    }

    /// Logs a message of the pipeline's bus.
    pub(super) fn message(&self, message: &gst::MessageRef) {
        let from = message
            .src()
            .map(|source| source.name().to_string())
            .unwrap_or_default();
        match message.view() {
            gst::MessageView::StateChanged(change) if change.current() == gst::State::Ready => {
                if let Some(infer) = message.src().filter(|source| source.name() == "infer") {
                    device(infer);
                }
            }
            gst::MessageView::Element(element) => {
                if let Some(stats) = element.structure().filter(|stats| stats.name() == "masam-stats") {
                    self.rates(stats);
                }
            }
            gst::MessageView::Warning(warning) => match warning.details() {
                Some(fault) if fault.name() == "masam-fault" => tracing::warn!(
                    element = from,
                    kind = fault.get::<&str>("kind").ok(),
                    cause = fault.get::<&str>("cause").ok(),
                    count = number(fault, "count"),
                    restarts = number(fault, "restarts"),
                    detached = number(fault, "detached"),
                    epoch = number(fault, "epoch"),
                    text = %warning.error(),
                    "fault"
                ),
                _ => tracing::warn!(element = from, text = describe_warning(warning), "warning"),
            },
            gst::MessageView::Error(error) => {
                tracing::error!(element = from, text = describe(error), "error");
            }
            gst::MessageView::Eos(_) => tracing::info!("end of stream"),
            _ => {}
        }
    }

    /// Frames and masks so far, and frames per second since the last time.
    fn rates(&self, stats: &gst::StructureRef) {
        let out = number(stats, "frames-out");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = last.replace((now, out.unwrap_or(0)));
        let rate = before.map(|(then, frames)| {
            out.unwrap_or(0).saturating_sub(frames) as f64 / now.duration_since(then).as_secs_f64().max(1e-9)
        });
        let millis = |name: &str| number(stats, name).map(|nanos| nanos as f64 / 1e6);
        tracing::info!(
            frames_in = number(stats, "frames-in"),
            frames_out = out,
            frames_without_mask = number(stats, "frames-without-mask"),
            frames_per_second = rate,
            clips_run = number(stats, "clips-run"),
            clips_skipped = number(stats, "clips-skipped"),
            clips_failed = number(stats, "clips-failed"),
            mask_age_p50_ms = millis("mask-age-p50"),
            mask_age_p95_ms = millis("mask-age-p95"),
            forward_p50_ms = millis("forward-p50"),
            forward_p99_ms = millis("forward-p99"),
            restarts = number(stats, "restarts"),
            fault = stats.get::<&str>("fault").ok(),
            "rates"
        );
    }
}

/// Logs what the model runs on, and how.
fn device(infer: &gst::Object) {
    let stats = infer.property::<gst::Structure>("stats");
    let word = |name: &str| infer.property_value(name).serialize().ok();
    let threads = match infer.property::<u32>("threads") {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some as usize,
    };
    tracing::info!(
        device = stats.get::<&str>("device").ok(),
        precision = infer.property::<String>("precision"),
        threads,
        mode = word("mode").as_deref(),
        emit = word("emit").as_deref(),
        roi = infer.property::<String>("roi"),
        "device"
    );
}

/// Logs what kind of video comes.
fn input(caps: &gst::CapsRef) {
    let Some(video) = caps.structure(0) else { return };
    let rate = video.get::<gst::Fraction>("framerate").ok();
    tracing::info!(
        format = video.get::<&str>("format").ok(),
        width = video.get::<i32>("width").ok(),
        height = video.get::<i32>("height").ok(),
        frame_rate = rate.map(|rate| format!("{}/{}", rate.numer(), rate.denom())).as_deref(),
        colorimetry = video.get::<&str>("colorimetry").ok(),
        interlace_mode = video.get::<&str>("interlace-mode").ok(),
        caps = %caps,
        "input"
    );
}

/// A whole number of a structure, whatever its width.
fn number(structure: &gst::StructureRef, name: &str) -> Option<u64> {
    let wide = structure.get::<u64>(name).ok();
    wide.or_else(|| structure.get::<u32>(name).ok().map(u64::from))
}

/// How a run ended.
pub(super) struct Ended<'a> {
    /// Frames that came in, that left, and that left with a mask.
    pub(super) frames_in: u64,
    pub(super) frames_out: u64,
    pub(super) frames_with_mask: u64,
    pub(super) seconds: f64,
    /// Where the frames went.
    pub(super) output: &'a str,
    /// What was written is there.
    pub(super) kept: bool,
    /// The end of the stream has reached every sink.
    pub(super) finished: bool,
    /// What went wrong.
    pub(super) error: Option<String>,
}

impl Ended<'_> {
    /// Logs it, with the size of what was written.
    pub(super) fn log(&self) {
        tracing::info!(
            frames_in = self.frames_in,
            frames_out = self.frames_out,
            frames_with_mask = self.frames_with_mask,
            frames_per_second = self.frames_out as f64 / self.seconds.max(1e-9),
            seconds = self.seconds,
            output = self.output,
            bytes = std::fs::metadata(self.output)
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|file| file.len()),
            kept = self.kept,
            finished = self.finished,
            error = self.error.as_deref(),
            "written"
        );
    }
}
