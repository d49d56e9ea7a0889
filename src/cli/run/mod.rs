//! `masam run`: masks over a video.
//!
//! ```text
//! input ! videoconvert ! masaminfer ! masamoverlay ! videoconvert ! encoder ! muxer ! file
//!                                   \ masammask ! PNG files
//! ```
//! What has been written of a video can be played at every moment ([`super::recording`]). A file that is there already
//! is replaced at the end of a recording that plays, not before. An error behind the first frame ends the output
//! properly and is reported with exit code 1. So do Ctrl-C, SIGTERM and SIGHUP, with exit code 0.

mod content;
mod counts;
mod duration;
mod input;
mod log;
mod look;
mod output;
mod play;
mod riddle;
mod silence;
mod streams;

use super::demo_model::{DEMO_MODEL, present};
use super::recording::{Origin, Outcome};
use super::video::{Encoding, Stop, contact_sheet};
use crate::geometry::Roi;
use crate::prompt::FramePrompt;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use counts::{Frames, MaskCounts};
use gstreamer as gst;
use gstreamer::prelude::*;
use input::Input;
use look::Look;
use output::{Masks, Output};
use play::{DiskFull, Played, Player};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use streams::Streams;

/// Lay masks over a video.
///
/// masam run input.mp4 -o overlay.mp4       a video with masks;
/// masam run frames/ -o masks/              a folder of pictures to a folder of class-id PNGs;
/// masam run rtsp://camera/stream           a live stream in a window;
/// masam run /dev/video0 -o x.mp4 --show    a recording and a window;
/// cat input.mkv | masam run - -o out.mp4   standard input.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_long_help = STATUSES)]
pub struct Run {
    /// A video file, - for standard input, a picture or a folder of pictures, a device such as /dev/video0, an address
    /// such as rtsp://host/path, or a GStreamer description such as "videotestsrc num-buffers=100".
    input: String,
    /// A video (.mp4, .mov, .m4v, .mkv, .webm) or a folder for masks; without it, a window. Where a file is there
    /// already, the recording is OUTPUT.part until its end.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Show the video in a window while it is recorded. Closing the window ends the recording.
    #[arg(long)]
    show: bool,
    /// End after this much video: seconds, or 90s, 1m30s, 2h.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,
    #[command(flatten)]
    encoding: Encoding,
    /// The model file; the demo model, where it was installed, serves for the default too.
    #[arg(short, long, value_name = "FILE", default_value = DEMO_MODEL)]
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
    /// Threads of the model on the CPU; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Scheduling of the model's threads: low (keeps a share beside other programs, and never holds the video up), idle
    /// (only what no other program wants) or normal (as the process).
    #[arg(long, default_value = "low")]
    priority: String,
    /// exact: every frame with its own mask; live: the newest mask, the video never waits. By default live for
    /// cameras and rtsp, exact otherwise.
    #[arg(long)]
    mode: Option<String>,
    /// Which output of a clip is shown: newest, center or ensemble; step, a causal model one new frame at a time; or
    /// auto, step where the model is causal and newest otherwise.
    #[arg(long, default_value = "auto")]
    emit: String,
    /// Frames served by one clip, 1 to 5.
    #[arg(long, default_value_t = 1)]
    hop: u32,
    /// Source frames between two frames of a clip; 0 takes the model file's interval.
    #[arg(long, default_value_t = 0)]
    frame_stride: u32,
    /// Part of the picture that the model sees: x,y,w,h, auto or none.
    #[arg(long, default_value = "auto")]
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
    #[command(flatten)]
    look: Look,
}

/// The end of the long help.
const STATUSES: &str = "\
Exit status:
   0  the input has come to its end, or the user has ended it (Ctrl-C, SIGTERM, SIGHUP, --duration)
   1  an error; what was recorded before it is kept, and the last line says where
   2  wrong options
   3  the input is incomplete: it ends before its declared end, or stops without one; what there was of it is written
  28  the disk is full; what was recorded before is kept

A second Ctrl-C (or signal) within two seconds means the same as the first; a later one ends within five seconds. The
recording can be played at every moment, also after a kill -9 or a power cut, except for its last second.";

/// Exit status of a recording for which there was no room: the number of ENOSPC.
const DISK_FULL: u8 = 28;

impl Run {
    pub(super) fn run(self) -> Result<ExitCode> {
        gst::init().context("GStreamer")?;
        crate::gst::register().context("masam's elements")?;
        // Everything that can be wrong is said before a file is opened for writing.
        let input = Input::parse(&self.input)?;
        let output = Output::parse(self.output.as_deref(), self.masks)?;
        let tail = output.elements(&self.encoding, self.show)?;
        if let Some(sheet) = &self.contact_sheet {
            if !matches!(output, Output::Video(_)) {
                bail!("--contact-sheet needs a video to write: -o FILE.mp4");
            }
            if !matches!(
                image::ImageFormat::from_path(sheet),
                Ok(image::ImageFormat::Png | image::ImageFormat::Jpeg)
            ) {
                bail!(
                    "--contact-sheet {}: a picture's name ends in .png, .jpg or .jpeg",
                    sheet.display()
                );
            }
        }
        let rate = fraction(&self.fps)?;
        self.roi.parse::<Roi>().context("--roi")?;
        let prompt: FramePrompt = self.prompt.join(" ").parse()?;
        let card = crate::checkpoint::ModelFile::read_card(&present(&self.model))?;
        log::model(&present(&self.model), &card);
        self.look
            .check(&card.classes, !matches!(output, Output::Folder(..)))?;
        if !card.provenance.trained {
            say!(
                "masam: {}: the weights are placeholders, its masks mean nothing",
                self.model.display()
            );
        }
        let pipeline = self.pipeline(&input, &tail, &prompt)?;
        input.connect(&pipeline, rate)?;
        output.check_against(&pipeline)?;
        let named = input.clone();
        let origin = if input.is_live() || has_live_source(&pipeline) {
            Origin::FirstSample
        } else {
            Origin::Zero
        };
        let frames = Frames::of(&pipeline, self.duration)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let streams = match input.is_split() {
            true => Some(Streams::connect(&pipeline, output.container())?),
            false => None,
        };
        if let (Some(container), Some(path)) = (output.container(), input.file())
            && content::has_timecode(path)
        {
            say!("masam: not kept in {container}: timecode");
        }
        let started = Instant::now();
        let can_end = !input.is_live();
        let player = Player::new(&pipeline, &frames, input.frames(), can_end)?;
        let place = output.connect(&pipeline, origin, move |index| named.frame_name(index))?;
        let Played {
            outcome,
            finished,
            silent,
        } = runtime.block_on(player.play());
        let cut = streams.as_ref().and_then(|streams| streams.cut());
        let masks = MaskCounts::of(&pipeline);
        stop(pipeline, if finished { STOP } else { STOP_UNFINISHED });
        let (read, written) = (
            frames.read.load(Ordering::Relaxed),
            frames.written.load(Ordering::Relaxed),
        );
        let ending = match &outcome {
            _ if written == 0 => Outcome::Nothing,
            Ok(()) if finished => Outcome::Complete,
            _ => Outcome::CutShort,
        };
        let recording = match place {
            Some(place) => place.settle(ending, |line| say!("masam: {line}"))?,
            None => None,
        };
        let kept = recording.is_some() || (written > 0 && !matches!(output, Output::Video(_)));
        let seconds = started.elapsed().as_secs_f64();
        let speed = written as f64 / seconds.max(1e-9);
        log::Ended {
            frames_in: read,
            frames_out: written,
            frames_with_mask: masks.frames,
            seconds,
            output: &(recording.as_ref())
                .map_or_else(|| output.describe(), |path| path.display().to_string()),
            kept,
            finished,
            error: outcome.as_ref().err().map(|error| format!("{error:#}")),
        }
        .log();
        say!(
            "{read} frames in, {written} out, {} with masks, {seconds:.1} s, {speed:.1} frames/s: {}",
            masks.frames,
            match &recording {
                Some(path) => path.display().to_string(),
                None if kept => output.describe(),
                None => "nothing was kept".into(),
            }
        );
        if masks.frames == 0 && written > 0 {
            say!("masam: {}", masks.why_none());
        }
        if let Err(error) = &outcome
            && error.is::<DiskFull>()
        {
            say!("masam: {error:#}");
            return Ok(ExitCode::from(DISK_FULL));
        }
        if !kept {
            output.discard();
            let outcome = match input.file().and_then(content::why_unreadable) {
                Some(why) => outcome.context(why),
                None => outcome,
            };
            outcome.with_context(|| format!("{} to {}", self.input, output.describe()))?;
            match written {
                0 => match cut {
                    Some(cut) => bail!("{}: no video frames: {cut}", self.input),
                    None => bail!("{}: no video frames", self.input),
                },
                _ => bail!("{}: nothing was written", output.describe()),
            }
        }
        let sheet = match (&self.contact_sheet, &recording) {
            (Some(picture), Some(video)) if ending == Outcome::Complete => {
                contact_sheet(video, picture, 4, 3, 480).map(|()| say!("{}", picture.display()))
            }
            _ => Ok(()),
        };
        let outcome = outcome.and(sheet).and(masks.complete());
        if let Some(cut) = &cut {
            say!("masam: {}: {cut}", self.input);
        }
        if !silent && cut.is_none() {
            return outcome.map(|()| ExitCode::SUCCESS);
        }
        if let Err(error) = outcome {
            say!("masam: {}: {error:#}", self.input);
        }
        Ok(ExitCode::from(INCOMPLETE))
    }

    fn pipeline(&self, input: &Input, tail: &str, prompt: &FramePrompt) -> Result<gst::Pipeline> {
        let head = input.elements();
        let pipeline = gst::parse::launch(&format!("{head} ! videoconvert ! masaminfer name=infer ! {tail}"))
            .with_context(|| format!("the pipeline for {}", self.input))?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow!("no pipeline"))?;
        let infer = pipeline.by_name("infer").context("no element infer")?;
        infer.set_property("model", present(&self.model).to_string_lossy().as_ref());
        let mode = self
            .mode
            .as_deref()
            .unwrap_or(if input.is_live() { "live" } else { "exact" });
        set(&infer, "mode", mode)?;
        set(&infer, "device", &self.device)?;
        set(&infer, "precision", &self.precision)?;
        set(&infer, "threads", &self.threads.to_string())?;
        set(&infer, "priority", &self.priority)?;
        set(&infer, "emit", &self.emit)?;
        set(&infer, "hop", &self.hop.to_string())?;
        set(&infer, "frame-stride", &self.frame_stride.to_string())?;
        set(&infer, "roi", &self.roi)?;
        infer.set_property("prompt", prompt.to_string());
        let overlay = pipeline.by_name("overlay").context("no element overlay")?;
        self.look.apply(&infer, &overlay)?;
        Ok(pipeline)
    }
}

/// Whether an element of the user's description says that its frames come at their own pace.
fn has_live_source(pipeline: &gst::Pipeline) -> bool {
    let live = |element: &gst::Element| {
        let property = element.find_property("is-live")?;
        (property.value_type() == bool::static_type()).then(|| element.property::<bool>("is-live"))
    };
    let mut elements = pipeline.iterate_recurse().into_iter().flatten();
    elements.any(|element| live(&element) == Some(true))
}

/// Takes the pipeline down, and goes on without it where an element cannot be stopped: one that reads from a pipe
/// into which nobody writes.
fn stop(pipeline: gst::Pipeline, patience: Duration) {
    let (stopped, end) = std::sync::mpsc::channel();
    let stopping = std::thread::Builder::new()
        .name("masam-stop".into())
        .spawn(move || {
            drop(Stop(pipeline));
            let _ = stopped.send(()); // nobody waits any more
        });
    if stopping.is_ok() && end.recv_timeout(patience).is_err() {
        tracing::warn!("an element does not stop");
    }
}

/// Exit status of a run whose input is incomplete.
const INCOMPLETE: u8 = 3;

/// Longest wait for a pipeline to stop that has come to its end.
const STOP: Duration = Duration::from_secs(10);
/// The same for one that has not: whoever has given it up is waiting.
const STOP_UNFINISHED: Duration = Duration::from_secs(1);

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
        let class = spec.enum_class();
        let current = class
            .values()
            .iter()
            .filter(|v| !v.name().starts_with("deprecated"));
        return current.map(|v| v.nick()).collect::<Vec<_>>().join(", ");
    }
    if let Some(bounds) = spec.downcast_ref::<gst::glib::ParamSpecUInt>() {
        return format!("{} to {}", bounds.minimum(), bounds.maximum());
    }
    match spec.downcast_ref::<gst::glib::ParamSpecFloat>() {
        Some(bounds) => format!("{} to {}", bounds.minimum(), bounds.maximum()),
        None => spec.blurb().unwrap_or_default().to_string(),
    }
}

/// Whether a number lies within its property's bounds; GLib itself would only warn.
fn in_range(spec: &gst::glib::ParamSpec, value: &gst::glib::Value) -> bool {
    if let (Some(bounds), Ok(number)) = (
        spec.downcast_ref::<gst::glib::ParamSpecUInt>(),
        value.get::<u32>(),
    ) {
        return (bounds.minimum()..=bounds.maximum()).contains(&number);
    }
    if let (Some(bounds), Ok(number)) = (
        spec.downcast_ref::<gst::glib::ParamSpecFloat>(),
        value.get::<f32>(),
    ) {
        return (bounds.minimum()..=bounds.maximum()).contains(&number);
    }
    true
}
