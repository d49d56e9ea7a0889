//! What the user wishes: one default feeds the fields and the property specifications.

use crate::error::Result;
use crate::geometry::Roi;
use crate::runtime::{CLIP_FRAMES, OpenOptions};
use crate::segmenter::{SegmenterSpec, Temporal};
use crate::stream::Spacing;
use crate::stream::window::{MAX_STRIDE_FRAMES, Window, stride_frames};
use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The property `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "MasamInferMode")]
pub enum Mode {
    /// Follows the latency query, unless `emit` looks ahead.
    #[default]
    #[enum_value(
        name = "live for live sources unless emit looks ahead, else exact",
        nick = "auto"
    )]
    Auto,
    /// The video never waits.
    #[enum_value(name = "the video never waits; masks come when they come", nick = "live")]
    Live,
    /// Every frame leaves with its own mask.
    #[enum_value(name = "every frame leaves with its own mask", nick = "exact")]
    Exact,
}

/// The property `emit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "MasamInferEmit")]
pub enum Emit {
    /// As [`crate::stream::Emit::for_taps`].
    #[default]
    #[enum_value(name = "step where the model is causal, newest otherwise", nick = "auto")]
    Auto,
    /// As [`crate::stream::Emit::Newest`].
    #[enum_value(name = "the clip's newest output: no look-ahead", nick = "newest")]
    Newest,
    /// As [`crate::stream::Emit::Centre`].
    #[enum_value(name = "the clip's middle output: looks two strides ahead", nick = "center")]
    Center,
    /// As [`crate::stream::Emit::Ensemble`].
    #[enum_value(
        name = "mean over all clips with the frame: looks four strides ahead",
        nick = "ensemble"
    )]
    Ensemble,
    /// As [`crate::stream::Emit::Step`].
    #[enum_value(
        name = "a causal model one new frame at a time: no look-ahead, a fifth of the work",
        nick = "step"
    )]
    Step,
    /// Another spelling of [`Emit::Center`], as which it reads back.
    #[enum_value(name = "deprecated spelling of center", nick = "centre")]
    Centre,
}

impl Emit {
    /// The output that is shown of a model with `temporal` taps.
    pub fn of(self, temporal: Temporal) -> crate::stream::Emit {
        match self {
            Emit::Auto => crate::stream::Emit::for_taps(temporal),
            Emit::Newest => crate::stream::Emit::Newest,
            Emit::Center | Emit::Centre => crate::stream::Emit::Centre,
            Emit::Ensemble => crate::stream::Emit::Ensemble,
            Emit::Step => crate::stream::Emit::Step,
        }
    }

    /// Without deprecated spellings.
    fn canonical(self) -> Self {
        match self {
            Emit::Centre => Emit::Center,
            emit => emit,
        }
    }
}

/// The property `priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "MasamInferPriority")]
pub enum Priority {
    /// As [`crate::stream::Priority::Low`].
    #[default]
    #[enum_value(
        name = "as the process, with a slice that lets threads that wake up run at once: masks keep their share",
        nick = "low"
    )]
    Low,
    /// As [`crate::stream::Priority::Idle`].
    #[enum_value(
        name = "SCHED_IDLE and nice 19: whatever no other program wants, which may be no masks at all",
        nick = "idle"
    )]
    Idle,
    /// As [`crate::stream::Priority::Normal`].
    #[enum_value(name = "as the process: nothing is changed", nick = "normal")]
    Normal,
}

impl From<Priority> for crate::stream::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => crate::stream::Priority::Low,
            Priority::Idle => crate::stream::Priority::Idle,
            Priority::Normal => crate::stream::Priority::Normal,
        }
    }
}

/// Most threads that a model's pool can be asked to have.
const MAX_THREADS: u32 = 1024;

/// Property values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub model: Option<PathBuf>,
    pub device: String,
    pub precision: String,
    /// 0: one per core.
    pub threads: u32,
    pub priority: Priority,
    pub mode: Mode,
    pub emit: Emit,
    pub hop: u32,
    /// 0: from the model file.
    pub frame_stride: u32,
    pub model_instance_id: String,
    pub max_mask_age_nanos: u64,
    pub video_delay_nanos: u64,
    pub carry: bool,
    pub watchdog_nanos: u64,
    /// 0: never.
    pub stats_interval_nanos: u64,
    pub roi: String,
    pub prompt: String,
    /// A [`crate::stream::faulty::FaultPlan`], or nothing. Only debug builds have the property.
    pub inject_fault: String,
}

/// Longest delay of the video: frames of this time are kept.
const MAX_DELAY_NANOS: u64 = 10_000_000_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            device: "auto".into(),
            precision: "auto".into(),
            threads: 0,
            priority: Priority::default(),
            mode: Mode::default(),
            emit: Emit::default(),
            hop: 1,
            frame_stride: 0,
            model_instance_id: String::new(),
            max_mask_age_nanos: 500_000_000,
            video_delay_nanos: 0,
            carry: false,
            watchdog_nanos: 30_000_000_000,
            stats_interval_nanos: 0,
            roi: "auto".into(),
            prompt: String::new(),
            inject_fault: String::new(),
        }
    }
}

impl Settings {
    /// How to open the model.
    pub fn open_options(&self) -> Result<OpenOptions> {
        Ok(OpenOptions {
            device: self.device.parse()?,
            precision: self.precision.parse()?,
            threads: (self.threads > 0).then_some(self.threads as usize),
        })
    }

    /// The region of interest.
    pub fn roi(&self) -> Result<Roi> {
        self.roi.parse()
    }

    /// How clips are cut from a stream with `frame_nanos` between frames, where that is known.
    pub fn window(&self, spec: &SegmenterSpec, frame_nanos: Option<u64>) -> Result<Window> {
        let window = Window {
            clip_frames: spec.clip_frames,
            emit: self.emit.of(spec.temporal),
            hop_frames: self.hop as usize,
            stride_frames: self.stride(spec, frame_nanos),
        };
        window.validate()?;
        Ok(window)
    }

    /// Source frames between two frames of a clip: as given, or as many as come closest to the model's interval.
    /// One where either is unknown.
    fn stride(&self, spec: &SegmenterSpec, frame_nanos: Option<u64>) -> usize {
        if self.frame_stride > 0 {
            return self.frame_stride as usize;
        }
        stride_frames(spec.frame_interval_nanos, frame_nanos)
    }

    /// The same for live mode, where the model's interval is kept in time when the caps name no rate.
    pub fn spacing(&self, spec: &SegmenterSpec, frame_nanos: Option<u64>) -> Spacing {
        match (self.frame_stride, spec.frame_interval_nanos, frame_nanos) {
            (0, Some(interval), None) if interval > 0 => Spacing::Nanos(interval),
            _ => Spacing::Frames(self.stride(spec, frame_nanos)),
        }
    }
}

/// The specifications of all properties.
pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        let mut specs = vec![
            glib::ParamSpecString::builder("model")
                .nick("Model")
                .blurb(
                    "Path of the model file (.safetensors as written by masam convert). While the element is started \
                     another one is loaded beside the model in use and takes its place when it is ready",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb("What the model runs on: auto, cpu or cuda:N")
                .default_value(Some(default.device.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("precision")
                .nick("Precision")
                .blurb("Number format of the forward pass: auto, f32, bf16 or f16")
                .default_value(Some(default.precision.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("threads")
                .nick("Threads")
                .blurb("Threads of the model's own pool on the CPU, 0 for one per core")
                .maximum(MAX_THREADS)
                .default_value(default.threads)
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("priority", default.priority)
                .nick("Priority")
                .blurb("Scheduling of the model's threads on the CPU, against other programs and the video's own threads")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("mode", default.mode)
                .nick("Mode")
                .blurb("Whether the video may wait for the model")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("emit", default.emit)
                .nick("Emit")
                .blurb(
                    "Which output of the clips that contain a frame becomes its mask; step: a causal model one new \
                     frame at a time; auto: step where the model is causal, newest otherwise",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("hop")
                .nick("Hop")
                .blurb("Frames served by one clip in exact mode; above 1 only with emit=newest and frame-stride=1")
                .minimum(1)
                .maximum(CLIP_FRAMES as u32)
                .default_value(default.hop)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("frame-stride")
                .nick("Frame stride")
                .blurb("Source frames between two frames of a clip (0: from the model file and the frame rate)")
                .maximum(MAX_STRIDE_FRAMES as u32)
                .default_value(default.frame_stride)
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("model-instance-id")
                .nick("Model instance")
                .blurb("Elements with the same id and model share one model, and their clips run together")
                .default_value(Some(default.model_instance_id.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt64::builder("max-mask-age")
                .nick("Largest mask age")
                .blurb("Live mode: masks of frames older than this, in ns, are not attached")
                .default_value(default.max_mask_age_nanos)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt64::builder("video-delay")
                .nick("Video delay")
                .blurb(
                    "Live mode: hold each frame for this time, in ns, so that a fast model's masks have age zero; it \
                     leaves then, on a thread of its own as behind a queue, whether or not later frames come",
                )
                .maximum(MAX_DELAY_NANOS)
                .default_value(default.video_delay_nanos)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("carry")
                .nick("Carry")
                .blurb(
                    "Live mode: move a mask along with what it covers, by motion estimation, to the frame it is shown \
                     on; it is marked as carried and its age stays that of the frame it was computed from",
                )
                .default_value(default.carry)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt64::builder("watchdog")
                .nick("Watchdog")
                .blurb(
                    "Time in ns without a sign of life, and at least ten median passes, after which a forward pass \
                     counts as hung",
                )
                .minimum(1_000_000)
                .default_value(default.watchdog_nanos)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("roi")
                .nick("Region of interest")
                .blurb(
                    "Part of the frame the model sees: x,y,width,height in pixels, auto (the lit part, found from \
                     the first frames) or none (all of it)",
                )
                .default_value(Some(default.roi.as_str()))
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("prompt")
                .nick("Prompt")
                .blurb(
                    "What to segment, for models trained with prompts: box=x0,y0,x1,y1, point=x,y on the object and \
                     outside=x,y beside it, in pixels of the frame, with blanks between them",
                )
                .default_value(Some(default.prompt.as_str()))
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt64::builder("stats-interval")
                .nick("Statistics interval")
                .blurb("Post the statistics as an element message masam-stats whenever this time, in ns, has passed (0: never)")
                .default_value(default.stats_interval_nanos)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Frames, clips, mask ages, pass times (ns) and faults since the element was started")
                .read_only()
                .build(),
        ];
        if cfg!(debug_assertions) {
            specs.push(
                glib::ParamSpecString::builder("inject-fault")
                    .nick("Inject fault")
                    .blurb(
                        "Debug builds: have forward passes go wrong: error, panic, nan, hang or slow:SECONDS, with /N \
                         every N-th, or random:SEED",
                    )
                    .default_value(Some(default.inject_fault.as_str()))
                    .mutable_ready()
                    .build(),
            );
        }
        specs
    });
    &PROPERTIES
}

impl Settings {
    /// Stores a property. GObject has checked name, type and bounds; an unset string is the default.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        let text = |value: &glib::Value, default: &str| -> String {
            value
                .get::<Option<String>>()
                .ok()
                .flatten()
                .unwrap_or_else(|| default.into())
        };
        let default = Settings::default();
        match name {
            "model" => self.model = value.get::<Option<String>>().ok().flatten().map(PathBuf::from),
            "device" => self.device = text(value, &default.device),
            "precision" => self.precision = text(value, &default.precision),
            "threads" => self.threads = value.get().unwrap_or(default.threads),
            "priority" => self.priority = value.get().unwrap_or_default(),
            "mode" => self.mode = value.get().unwrap_or_default(),
            "emit" => self.emit = value.get::<Emit>().unwrap_or_default().canonical(),
            "hop" => self.hop = value.get().unwrap_or(default.hop),
            "frame-stride" => self.frame_stride = value.get().unwrap_or(default.frame_stride),
            "model-instance-id" => self.model_instance_id = text(value, &default.model_instance_id),
            "max-mask-age" => self.max_mask_age_nanos = value.get().unwrap_or(default.max_mask_age_nanos),
            "video-delay" => self.video_delay_nanos = value.get().unwrap_or(default.video_delay_nanos),
            "carry" => self.carry = value.get().unwrap_or(default.carry),
            "watchdog" => self.watchdog_nanos = value.get().unwrap_or(default.watchdog_nanos),
            "stats-interval" => {
                self.stats_interval_nanos = value.get().unwrap_or(default.stats_interval_nanos)
            }
            "roi" => self.roi = text(value, &default.roi),
            "inject-fault" => self.inject_fault = text(value, &default.inject_fault),
            "prompt" => self.prompt = text(value, &default.prompt),
            _ => {}
        }
    }

    /// The value of a property other than `stats`.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "model" => self
                .model
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .to_value(),
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "threads" => self.threads.to_value(),
            "priority" => self.priority.to_value(),
            "mode" => self.mode.to_value(),
            "emit" => self.emit.to_value(),
            "hop" => self.hop.to_value(),
            "frame-stride" => self.frame_stride.to_value(),
            "model-instance-id" => self.model_instance_id.to_value(),
            "max-mask-age" => self.max_mask_age_nanos.to_value(),
            "video-delay" => self.video_delay_nanos.to_value(),
            "carry" => self.carry.to_value(),
            "watchdog" => self.watchdog_nanos.to_value(),
            "stats-interval" => self.stats_interval_nanos.to_value(),
            "roi" => self.roi.to_value(),
            "inject-fault" => self.inject_fault.to_value(),
            "prompt" => self.prompt.to_value(),
            _ => return None,
        })
    }
}
