//! One run of one pipeline: the code is drawn where raw frames first appear, and read where they end.

use super::code;
use super::tally::Tally;
use super::witness::{FrameSize, Witness};
use crate::cli::video::{Stop, describe, describe_warning};
use crate::geometry::Size;
use crate::gst::bin::Masam;
use crate::gst::infer::Infer;
use crate::gst::meta::MaskMeta;
use crate::runtime::OpenOptions;
use anyhow::{Context, Result, anyhow, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Frames of the first while are not counted: caches, clocks and the model warm up.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest wait for the first frame at the sink.
const FIRST_FRAME: Duration = Duration::from_secs(20);

/// Monotonic nanoseconds since the first call.
fn now_nanos() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGUN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Shared by the probes of one run.
struct Watch {
    frame: Arc<FrameSize>,
    tally: Mutex<Tally>,
    /// When the first code came to the sink.
    first_nanos: OnceLock<u64>,
}

impl Watch {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the models open between runs.
#[derive(Default)]
pub(super) struct Models {
    frame: Arc<FrameSize>,
    held: Vec<gst::Element>,
}

impl Drop for Models {
    fn drop(&mut self) {
        for element in &self.held {
            // Nothing can be done about one that does not stop.
            let _ = element.set_state(gst::State::Null);
        }
    }
}

impl Models {
    /// Has `infer` look at the code of what it is shown, on a model that stays open from run to run.
    fn prepare(&mut self, infer: &Infer, number: usize) -> Result<()> {
        if infer.property::<String>("model-instance-id").is_empty() {
            infer.set_property("model-instance-id", format!("masam-latency-{number}"));
        }
        if infer.property::<String>("roi") == "auto" {
            // The code is read from the whole of what the model is shown.
            infer.set_property("roi", "none");
        }
        self.look_with(infer)?;
        if self.held.len() > number {
            return Ok(());
        }
        let holder = gst::ElementFactory::make("masaminfer").build()?;
        for name in [
            "model",
            "device",
            "precision",
            "threads",
            "model-instance-id",
            "watchdog",
            "mode",
        ] {
            holder.set_property_from_value(name, &infer.property_value(name));
        }
        // Of debug builds.
        if holder.has_property("inject-fault") {
            holder.set_property_from_value("inject-fault", &infer.property_value("inject-fault"));
        }
        let ours = holder.downcast_ref::<Infer>().context("masaminfer is not ours")?;
        self.look_with(ours)?;
        let bus = gst::Bus::new();
        holder.set_bus(Some(&bus));
        let ready = holder.set_state(gst::State::Ready);
        let cause = bus.pop_filtered(&[gst::MessageType::Error]);
        holder.set_bus(None);
        self.held.push(holder);
        match (ready, cause.as_ref().map(|m| m.view())) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(gst::MessageView::Error(error))) => Err(anyhow!(describe(error))),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn look_with(&self, infer: &Infer) -> Result<()> {
        let path: Option<String> = infer.property("model");
        let path = PathBuf::from(path.context("masaminfer has no model: model=FILE")?);
        let options = OpenOptions {
            device: infer.property::<String>("device").parse()?,
            precision: infer.property::<String>("precision").parse()?,
            threads: usize::try_from(infer.property::<u32>("threads"))
                .ok()
                .filter(|&threads| threads > 0),
        };
        let frame = Arc::clone(&self.frame);
        infer.set_segmenter(move || {
            let (model, frame) = (crate::runtime::open(&path, &options)?, Arc::clone(&frame));
            Ok(Box::new(Witness { model, frame }))
        });
        Ok(())
    }
}

/// Plays `description` for `seconds` after the warm-up and notes its frames. `names` are our elements, or what stands
/// for them.
///
/// # Errors
/// A description that cannot be built, an error on the bus, or no frame that can be measured.
pub(super) fn play(
    description: &str,
    names: &[String],
    models: &mut Models,
    seconds: Duration,
) -> Result<Tally> {
    let pipeline = gst::parse::launch(description)
        .with_context(|| description.to_owned())?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("{description}: it takes more than one element"))?;
    let stop = Stop(pipeline.clone());
    let mut infers = Vec::new();
    for name in names {
        let element = pipeline
            .by_name(name)
            .with_context(|| format!("no element {name}"))?;
        let infer = match element.downcast::<Infer>() {
            Ok(infer) => Some(infer),
            Err(other) => other.downcast_ref::<Masam>().map(|bin| bin.infer().clone()),
        };
        infers.extend(infer);
    }
    for (number, infer) in infers.iter().enumerate() {
        models.prepare(infer, number)?;
    }
    let watch = Arc::new(Watch {
        frame: Arc::clone(&models.frame),
        tally: Mutex::default(),
        first_nanos: OnceLock::new(),
    });
    let pad = |name: Option<&String>, pad: &str| {
        let element = name.and_then(|name| pipeline.by_name(name));
        element
            .and_then(|element| element.static_pad(pad))
            .with_context(|| format!("no pad {pad} of {name:?}"))
    };
    watch_source(&pad(names.first(), "sink")?, &watch);
    watch_sink(&pad(names.last(), "src")?, &watch);
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let started = Instant::now();
    // What is wrong is on the bus.
    let playing = pipeline.set_state(gst::State::Playing);
    let wanted = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Warning,
        gst::MessageType::Latency,
    ];
    loop {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(20), &wanted);
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => bail!("{}", describe(error)),
            Some(gst::MessageView::Warning(warning)) => eprintln!("masam: {}", describe_warning(warning)),
            Some(gst::MessageView::Latency(_)) => {
                let _ = pipeline.recalculate_latency(); // a hint; sinks go on with what they have
            }
            Some(gst::MessageView::Eos(_)) => break,
            _ => (),
        }
        if playing.is_err() && message.is_none() {
            bail!("{description}: it does not play");
        }
        match watch.first_nanos.get() {
            Some(first) if now_nanos().saturating_sub(*first) >= (WARM_UP + seconds).as_nanos() as u64 => {
                break;
            }
            None if started.elapsed() > FIRST_FRAME => {
                bail!("{description}: no frame with a readable code has come to its end")
            }
            _ => (),
        }
    }
    let mut tally = watch.tally().clone();
    tally.finish();
    if let Some(infer) = infers.first() {
        let stats = infer.property::<gst::Structure>("stats");
        let number = |name: &str| stats.get::<u64>(name).ok();
        tally.forward = number("forward-p50").zip(number("forward-p99"));
    }
    drop(stop);
    Ok(tally)
}

/// With the first frame that comes to `pad`, goes up the stream as far as there are raw frames of its size, and has
/// the code drawn there from the next frame on.
fn watch_source(pad: &gst::Pad, watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        let Some(info) = info_of(pad) else {
            return gst::PadProbeReturn::Ok;
        };
        let mut source = pad.peer().unwrap_or_else(|| pad.clone());
        while let Some(before) = one_before(&source).filter(|before| same_picture(before, &info)) {
            source = before;
        }
        draw_at(&source, &watch);
        gst::PadProbeReturn::Remove
    });
}

/// The pad that feeds the element of `source`, where it has only one.
fn one_before(source: &gst::Pad) -> Option<gst::Pad> {
    let element = source.parent_element()?;
    match element.sink_pads().as_slice() {
        [sink] => sink.peer(),
        _ => None,
    }
}

fn draw_at(pad: &gst::Pad, watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, probe| {
        let came = now_nanos();
        if let (Some(info), Some(buffer)) = (info_of(pad), probe.buffer_mut()) {
            watch.frame.set(size_of(&info));
            // A frame without a code counts as unread at the other end.
            let _ = code::draw(buffer.make_mut(), &info, came);
        }
        gst::PadProbeReturn::Ok
    });
}

/// With the first frame that leaves `pad`, goes down the stream as far as frames stay raw, and notes there what comes.
fn watch_sink(pad: &gst::Pad, watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        let Some(info) = info_of(pad) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(mut end) = pad.peer() else {
            return gst::PadProbeReturn::Ok;
        };
        while let Some(after) = one_after(&end).filter(|after| same_picture(after, &info)) {
            end = after;
        }
        let watch = Arc::clone(&watch);
        end.add_probe(gst::PadProbeType::BUFFER, move |pad, probe| {
            if let (Some(info), Some(buffer)) = (info_of(pad), probe.buffer()) {
                note(&watch, &info, buffer);
            }
            gst::PadProbeReturn::Ok
        });
        gst::PadProbeReturn::Remove
    });
}

/// The sink pad behind the element of `sink`, where it has one way out.
fn one_after(sink: &gst::Pad) -> Option<gst::Pad> {
    let element = sink.parent_element()?;
    match element.src_pads().as_slice() {
        [source] => source.peer(),
        _ => None,
    }
}

fn note(watch: &Watch, info: &gst_video::VideoInfo, buffer: &gst::BufferRef) {
    let came = now_nanos();
    let shown = code::read(buffer, info);
    if shown.is_some() {
        watch.first_nanos.get_or_init(|| came);
    }
    let warm = watch
        .first_nanos
        .get()
        .is_some_and(|first| came.saturating_sub(*first) >= WARM_UP.as_nanos() as u64);
    if !warm {
        return;
    }
    let mask = MaskMeta::from_frame(buffer, size_of(info)).filter(|mask| mask.mask != Size::square(1));
    let mut tally = watch.tally();
    tally.frames += 1;
    if tally.caps.is_empty() {
        let fps = info.fps();
        tally.caps = format!(
            "{}x{} {}, {:.3} frames/s",
            info.width(),
            info.height(),
            info.format(),
            f64::from(fps.numer()) / f64::from(fps.denom().max(1))
        );
    }
    tally.arrivals.push(came);
    match shown {
        Some(drawn) => tally.delays.push(came.saturating_sub(drawn)),
        None => tally.unread += 1,
    }
    let Some(mask) = mask else { return };
    match (shown, code::marked(&mask.plane)) {
        (Some(shown), Some(made)) => {
            tally.masked += 1;
            let age = shown.saturating_sub(made);
            tally.ages.push(age);
            tally.claims.push(mask.age_nanos as i64 - age as i64);
        }
        _ if tally.ages.is_empty() => tally.masks_early += 1,
        _ => {
            tally.masked += 1;
            tally.masks_unread += 1;
        }
    }
}

/// What the frames of a pad are; `None` where they are not raw, or too small for the code.
fn info_of(pad: &gst::Pad) -> Option<gst_video::VideoInfo> {
    let caps = pad.current_caps()?;
    let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
    let fits = info.width() >= code::LEAST.width_px && info.height() >= code::LEAST.height_px;
    (fits && info.format_info().depth().iter().all(|&bits| bits == 8)).then_some(info)
}

fn size_of(info: &gst_video::VideoInfo) -> Size {
    Size {
        width_px: info.width(),
        height_px: info.height(),
    }
}

/// Whether a pad has raw frames of the size of `info`.
fn same_picture(pad: &gst::Pad, info: &gst_video::VideoInfo) -> bool {
    info_of(pad).is_some_and(|other| size_of(&other) == size_of(info))
}
