//! `masam run`: masks over a video.
//!
//! ```text
//! input ! videoconvert ! masaminfer ! masamoverlay ! videoconvert ! encoder ! muxer ! filesink
//!                                   \ masammask ! PNG files
//! ```
//! An error behind the first frame ends the output properly: what came before it is a playable file, and the error
//! is reported with exit code 1. So does Ctrl-C, with exit code 0.

mod counts;
mod input;
mod output;

use super::video::{Stop, contact_sheet, describe, describe_warning};
use crate::prompt::FramePrompt;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use counts::{Frames, MaskCounts, is_refusal};
use gstreamer as gst;
use gstreamer::prelude::*;
use indicatif::{ProgressBar, ProgressStyle};
use input::{Input, has_stopped};
use output::{Masks, Output};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Lay masks over a video.
///
/// masam run input.mp4 -o overlay.mp4       a video with masks;
/// masam run frames/ -o masks/              a folder of pictures to a folder of class-id PNGs;
/// masam run rtsp://camera/stream           a live stream in a window.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Run {
    /// A video file, a folder of pictures, a device such as /dev/video0, an address such as rtsp://host/path, or a
    /// GStreamer description such as "videotestsrc num-buffers=100".
    input: String,
    /// A video (.mp4, .mov, .m4v, .mkv, .webm) or a folder for masks; without it, a window.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// The model file.
    #[arg(short, long, value_name = "FILE", default_value = "weights/demo.safetensors")]
    model: PathBuf,
    /// What a folder is filled with: classes (the default) or colour.
    #[arg(long, value_enum)]
    masks: Option<Masks>,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// auto, f32, bf16 or f16.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// exact: every frame with its own mask; live: the newest mask, the video never waits. By default live for
    /// cameras and rtsp, exact otherwise.
    #[arg(long)]
    mode: Option<String>,
    /// Which output of a clip is shown: newest, centre or ensemble.
    #[arg(long, default_value = "newest")]
    emit: String,
    /// Frames served by one clip, 1 to 5.
    #[arg(long, default_value_t = 1)]
    hop: u32,
    /// Source frames between two frames of a clip; 0 takes the model file's interval.
    #[arg(long, default_value_t = 0)]
    frame_stride: u32,
    /// Part of the picture that the model sees: x,y,w,h, auto or none.
    #[arg(long, default_value = "none")]
    roi: String,
    /// What to segment, for models trained with prompts: box=x0,y0,x1,y1 around it, point=x,y on it or outside=x,y
    /// beside it, in pixels of the frame. May be given several times.
    #[arg(long, value_name = "PROMPT")]
    prompt: Vec<String>,
    /// Frames per second of a folder of pictures, a whole number or a fraction such as 30000/1001.
    #[arg(long, default_value = "25/1")]
    fps: String,
    /// Also write some frames of the resulting video as one picture, PNG.
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
}

/// Longest wait for the muxer to finish a file after an error or Ctrl-C.
const FINISH: Duration = Duration::from_secs(20);
/// Longest wait for an error or an end to be announced after an input has stopped without a frame.
const SILENCE: Duration = Duration::from_secs(2);

impl Run {
    pub(super) fn run(self) -> Result<ExitCode> {
        gst::init().context("GStreamer")?;
        crate::gst::register().context("masam's elements")?;
        // Everything that can be wrong is said before a file is opened for writing.
        let input = Input::parse(&self.input)?;
        let output = Output::parse(self.output.as_deref(), self.masks)?;
        let tail = output.elements()?;
        if let (Input::File(from), Output::Video(to)) = (&input, &output)
            && to.exists()
            && std::fs::canonicalize(from)? == std::fs::canonicalize(to)?
        {
            bail!("{}: input and output are the same file", from.display());
        }
        if self.contact_sheet.is_some() && !matches!(output, Output::Video(_)) {
            bail!("--contact-sheet needs a video to write: -o FILE.mp4");
        }
        let rate = fraction(&self.fps)?;
        let prompt: FramePrompt = self.prompt.join(" ").parse()?;
        let card = crate::checkpoint::ModelFile::read_card(&self.model)?;
        if !card.provenance.trained {
            eprintln!(
                "masam: {}: the weights are placeholders, its masks mean nothing",
                self.model.display()
            );
        }
        let pipeline = self.pipeline(&input, &tail, &prompt)?;
        input.connect(&pipeline, rate)?;
        let named = input.clone();
        output.connect(&pipeline, move |index| named.frame_name(index))?;
        let frames = Frames::of(&pipeline)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let started = Instant::now();
        let outcome = runtime.block_on(play(&pipeline, &frames, input.frames()));
        let masks = MaskCounts::of(&pipeline);
        drop(Stop(pipeline));
        let (read, written) = (
            frames.read.load(Ordering::Relaxed),
            frames.written.load(Ordering::Relaxed),
        );
        let seconds = started.elapsed().as_secs_f64();
        let speed = written as f64 / seconds.max(1e-9);
        eprintln!(
            "{read} frames in, {written} out, {} with masks, {seconds:.1} s, {speed:.1} frames/s: {}",
            masks.frames,
            output.describe()
        );
        if masks.frames == 0 && written > 0 {
            eprintln!("masam: {}", masks.why_none());
        }
        if written == 0 {
            if let Output::Video(path) = &output {
                // An empty file helps nobody; there may be none.
                let _ = std::fs::remove_file(path);
            }
            outcome.with_context(|| self.input.clone())?;
            bail!("{}: no video frames", self.input);
        }
        if let (Some(picture), Output::Video(video)) = (&self.contact_sheet, &output) {
            contact_sheet(video, picture, 4, 3, 480)?;
            eprintln!("{}", picture.display());
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }

    fn pipeline(&self, input: &Input, tail: &str, prompt: &FramePrompt) -> Result<gst::Pipeline> {
        let head = input.elements();
        let pipeline = gst::parse::launch(&format!("{head} ! videoconvert ! masaminfer name=infer ! {tail}"))
            .with_context(|| format!("the pipeline for {}", self.input))?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow!("no pipeline"))?;
        let infer = pipeline.by_name("infer").context("no element infer")?;
        infer.set_property("model", self.model.to_string_lossy().as_ref());
        let mode = self
            .mode
            .as_deref()
            .unwrap_or(if input.is_live() { "live" } else { "exact" });
        set(&infer, "mode", mode)?;
        set(&infer, "device", &self.device)?;
        set(&infer, "precision", &self.precision)?;
        set(&infer, "emit", &self.emit)?;
        set(&infer, "hop", &self.hop.to_string())?;
        set(&infer, "frame-stride", &self.frame_stride.to_string())?;
        set(&infer, "roi", &self.roi)?;
        infer.set_property("prompt", prompt.to_string());
        Ok(pipeline)
    }
}

/// Reads `25` or `30000/1001`.
fn fraction(text: &str) -> Result<gst::Fraction> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    match (numerator.trim().parse::<i32>(), denominator.trim().parse::<i32>()) {
        (Ok(n), Ok(d)) if n > 0 && d > 0 => Ok(gst::Fraction::new(n, d)),
        _ => bail!("--fps {text}: it has to be a rate such as 25 or 30000/1001"),
    }
}

/// Sets a property from the user's text, so that a wrong word is an error with the option's name and its values.
fn set(element: &gst::Element, property: &str, text: &str) -> Result<()> {
    let spec = element
        .find_property(property)
        .with_context(|| format!("no property {property}"))?;
    let value = gst::glib::Value::deserialize_with_pspec(text, &spec).ok();
    let value = value
        .filter(|value| in_range(&spec, value))
        .with_context(|| format!("--{property} {text}: it has to be {}", values(&spec)))?;
    element.set_property_from_value(property, &value);
    Ok(())
}

/// The values that a property takes, in words.
fn values(spec: &gst::glib::ParamSpec) -> String {
    if let Some(spec) = spec.downcast_ref::<gst::glib::ParamSpecEnum>() {
        let words: Vec<&str> = spec.enum_class().values().iter().map(|v| v.nick()).collect();
        return words.join(", ");
    }
    match spec.downcast_ref::<gst::glib::ParamSpecUInt>() {
        Some(bounds) => format!("{} to {}", bounds.minimum(), bounds.maximum()),
        None => spec.blurb().unwrap_or_default().to_string(),
    }
}

/// Whether a number lies within its property's bounds; GLib itself would only warn.
fn in_range(spec: &gst::glib::ParamSpec, value: &gst::glib::Value) -> bool {
    match (
        spec.downcast_ref::<gst::glib::ParamSpecUInt>(),
        value.get::<u32>(),
    ) {
        (Some(bounds), Ok(number)) => (bounds.minimum()..=bounds.maximum()).contains(&number),
        _ => true,
    }
}

/// Plays to the end, to an error or to Ctrl-C; in each case the file is finished.
async fn play(pipeline: &gst::Pipeline, frames: &Frames, all: Option<u64>) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:32} {percent:>3} % {msg}, {eta} left",
    )?);
    if let Err(error) = pipeline.set_state(gst::State::Playing) {
        let first = bus.pop_filtered(&[gst::MessageType::Error]);
        return match first.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(e)) => Err(anyhow!(describe(e))),
            _ => Err(error.into()),
        };
    }
    let started = Instant::now();
    let mut outcome = Ok(());
    // None while playing; afterwards until when the muxer may take to finish.
    let mut finishing: Option<Instant> = None;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let reader = ["decoder", "source"]
        .iter()
        .find_map(|name| pipeline.by_name(name)?.downcast::<gst::Bin>().ok());
    // Since when nothing is read any more, as long as nothing has been read at all.
    let mut stopped: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                say(&bar, "finishing the file; Ctrl-C again to give up");
                if finishing.replace(Instant::now() + FINISH).is_some() {
                    return outcome;
                }
                // Behind the decoder where frames have come: one that is cut off in the middle gives the frames it
                // has with holes between them, and players then leave out the last.
                if frames.read.load(Ordering::Relaxed) > 0 {
                    finish(pipeline)?;
                } else {
                    pipeline.send_event(gst::event::Eos::new());
                }
            }
            _ = tick.tick() => {}
        }
        while let Some(message) = bus.pop() {
            let trouble = match message.view() {
                gst::MessageView::Eos(_) => {
                    bar.finish_and_clear();
                    return outcome;
                }
                gst::MessageView::Error(error) => anyhow!(describe(error)),
                gst::MessageView::Warning(warning) if is_refusal(&message) => anyhow!("{}", warning.error()),
                gst::MessageView::Warning(warning) => {
                    say(&bar, &format!("masam: {}", describe_warning(warning)));
                    continue;
                }
                _ => continue,
            };
            if outcome.is_ok() {
                outcome = Err(trouble);
            }
            if frames.written.load(Ordering::Relaxed) == 0 {
                return outcome;
            }
            if finishing.is_none() {
                finishing = Some(Instant::now() + FINISH);
                finish(pipeline)?;
            }
        }
        let silent = frames.read.load(Ordering::Relaxed) == 0 && reader.as_ref().is_some_and(has_stopped);
        stopped = silent.then(|| stopped.unwrap_or_else(Instant::now));
        if stopped.is_some_and(|since| since.elapsed() >= SILENCE) {
            return outcome.and(Err(anyhow!("GStreamer finds no video in it")));
        }
        if finishing.is_some_and(|until| Instant::now() >= until) {
            return outcome.and(Err(anyhow!(
                "the file could not be finished in {} s",
                FINISH.as_secs()
            )));
        }
        // By time where the source knows its length, by frames where they are counted, else without an end.
        match (all, pipeline.query_duration::<gst::ClockTime>()) {
            (Some(all), _) => {
                bar.set_length(all);
                bar.set_position(frames.written.load(Ordering::Relaxed));
            }
            (None, duration) => {
                bar.set_length(duration.map_or(0, gst::ClockTime::nseconds));
                bar.set_position(frames.position_nanos.load(Ordering::Relaxed));
            }
        }
        let rate = frames.written.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{rate:.1} frames/s"));
    }
}

/// Prints a line above the bar, also where there is no terminal to draw a bar on.
fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        eprintln!("{line}");
    } else {
        bar.println(line);
    }
}

/// Ends the stream behind the source: the encoder and the muxer get an EOS as if the source had sent it.
fn finish(pipeline: &gst::Pipeline) -> Result<()> {
    let pad = pipeline
        .by_name("infer")
        .and_then(|e| e.static_pad("sink"))
        .context("no sink pad of infer")?;
    // Without waiting: the pad may be busy with its last frame.
    std::thread::Builder::new()
        .name("masam-finish".into())
        .spawn(move || pad.send_event(gst::event::Eos::new()))?;
    Ok(())
}
