//! The stream engine: from a sequence of frames to one mask per frame, without knowing where frames come from or
//! what runs the model.
//!
//! ```text
//! frames --> ring --> window --clips--> worker --planes--> fuse --> outcome of each frame
//! ```
//!
//! * [`window`]: which source frames make a clip, and which frames its outputs serve; pure index arithmetic.
//! * [`ring`]: the model-side frames a clip can still need, under stable indices; [`past`]: those of a live clip.
//! * [`fuse`]: outputs to masks: turned upright, averaged where several clips serve a frame.
//! * [`engine`]: the bookkeeping that joins them, [`exact`] or [`live`]; never waits, never reads a clock.
//! * [`carry`]: masks moved along with what they cover.
//! * [`worker`]: the one thread that owns the [`Segmenter`](crate::segmenter::Segmenter), which it opens anew after
//!   faults as [`restart`] says; [`supervisor`] replaces one that hangs.
//! * `alarm`, `turn`: how the thread that lets go of held frames gets on with the streaming thread.
//! * [`faulty`]: a model that fails on purpose, for tests.
//! * [`square`]: a frame of any size to the model's square; [`offline`]: recorded frames through all of this.
//! * [`stats`], [`time`]: what is measured, and in what.
//!
//! ```
//! use masam::segmenter::{ModelFrame, Prompt, StreamId};
//! use masam::stream::{Emit, Engine, EngineConfig, ExactConfig, FrameTime, Outcome, Window};
//! # use masam::{geometry::Orientation, labels::ClassSet, segmenter::*};
//! # fn segment(request: &Request) -> Reply { Reply { planes: vec![Plane::Labels(vec![3])] } }
//! # let spec = SegmenterSpec { model_id: "x".into(), clip_frames: 5, side_px: 1, classes: ClassSet::endovis_2018(),
//! #     resize: Resize::Area, orientation: Orientation::Upright, frame_interval_nanos: None,
//! #     temporal: Temporal::Centered, untrained: true, device: "none".into() };
//! let window = Window { clip_frames: 5, emit: Emit::Newest, hop_frames: 1, stride_frames: 1 };
//! let stream = StreamId(0);
//! let config = ExactConfig { stream, window, prompt: Prompt::default(), keep_probabilities: false };
//! let mut engine = Engine::new(0, EngineConfig::Exact(config), &spec)?;
//! let frame = ModelFrame { rgb: [0_u8; 3].into() };
//! let index = engine.push(Some(frame), FrameTime::default()).unwrap_or_default();
//! while let Some(job) = engine.next_job() {
//!     let result = Ok(segment(&job.request)); // or on a Worker
//!     let (epoch, clip) = (job.epoch, job.clip);
//!     engine.accept(masam::stream::Done { stream, epoch, clip, result, forward_nanos: 0 });
//! }
//! assert!(matches!(engine.take(index), Outcome::Mask(mask) if *mask.labels == [3]));
//! # Ok::<(), masam::Error>(())
//! ```

#[cfg(any(feature = "gst", all(test, masam_loom)))]
pub(crate) mod alarm;
mod batch;
mod blame;
pub mod carry;
mod desk;
pub mod engine;
pub mod exact;
pub mod faulty;
pub mod fuse;
mod keeper;
pub mod live;
pub mod offline;
pub mod past;
mod phases;
mod port;
pub mod restart;
pub mod ring;
pub mod square;
pub mod stats;
pub mod supervisor;
mod sync;
pub mod time;
#[cfg(any(feature = "gst", all(test, masam_loom)))]
pub(crate) mod turn;
pub mod window;
pub mod worker;

pub use engine::{Engine, EngineConfig, Mask, Outcome};
pub use exact::ExactConfig;
pub use live::LiveConfig;
pub use offline::{Next, Offline};
pub use past::Spacing;
pub use square::Squarer;
pub use supervisor::{Incident, Pace, Supervisor};
pub use time::{Clock, FrameTime};
pub use window::{Emit, Window};
pub use worker::{
    Done, Job, LeftThreads, Open, Port, Preview, Priority, Stopped, Wait, Worker, WorkerConfig,
};
