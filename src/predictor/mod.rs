//! The front door: frames in, class masks out.
//!
//! A [`Predictor`] does what `masaminfer mode=exact` does, with the same engine and to the same byte: each frame is cut to
//! its region of interest, stretched and turned as the model file says, shown to the model in its temporal window, and
//! its mask is brought back to the frame's own size. There are two ways in:
//!
//! | | |
//! |---|---|
//! | [`Predictor::predict`] | a whole sequence: an iterator of frames to an iterator of masks, one for each frame |
//! | [`Predictor::push`] | one frame at a time, and [`Predictor::finish`] at the end |
//!
//! ```
//! use masam::{FrameMask, Predictor, image::RgbImage};
//!
//! let mut predictor = Predictor::open("weights/demo.safetensors")?;
//! let frames = vec![RgbImage::new(320, 240); 3]; // or image::open(path)?.to_rgb8(), or RgbFrame over bytes
//! for mask in predictor.predict(&frames) {
//!     let FrameMask { frame, ids, classes, .. } = mask?;
//!     let id = ids.get_pixel(160, 120).0[0]; // [height, width] class ids at the frame's own size
//!     println!("frame {frame}: {} in the middle", classes.get(id).map_or("no mask", |class| &class.name));
//! }
//! # Ok::<(), masam::Error>(())
//! ```
//!
//! **Frame rate.** A model file may say how far apart the frames of a clip were in training (the demo model: 100 ms).
//! [`PredictorConfig::frame_interval`] says how far apart yours are, as the caps of a pipeline do; without it each frame
//! is a frame of the clip.

mod frame;
mod mask;

pub use frame::{AsRgbFrame, RgbFrame};
pub use mask::FrameMask;

use crate::error::{Error, Result};
use crate::geometry::{Rect, Roi, Size};
use crate::kernels::picture::blend::key::Enlarger;
use crate::kernels::picture::contour::MaskPlane;
use crate::kernels::picture::region::RegionFinder;
use crate::labels::ClassSet;
use crate::prompt::FramePrompt;
use crate::runtime::{DeviceChoice, OpenOptions, PrecisionChoice};
use crate::segmenter::SegmenterSpec;
use crate::stream::window::stride_frames;
use crate::stream::{Emit, Next, Offline, Open, Priority, Squarer, Window, Worker, WorkerConfig};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that wait at the model beyond the look-ahead, so that it never waits for the next one.
const FRAMES_AHEAD: u64 = 2;

/// How a [`Predictor`] runs its model. The default is that of `masaminfer mode=exact emit=auto`.
///
/// ```
/// use masam::PredictorConfig;
/// let config = PredictorConfig {
///     threads: Some(2),
///     frame_interval: Some(std::time::Duration::from_millis(40)), // 25 frames a second
///     roi: "320,28,1280,1024".parse()?,
///     ..PredictorConfig::default()
/// };
/// # Ok::<(), masam::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PredictorConfig {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// `auto`, `f32`, `bf16` or `f16`.
    pub precision: PrecisionChoice,
    /// CPU threads of the model's own pool, at least 1; `None` for one per core.
    pub threads: Option<usize>,
    /// Which output of the clips becomes a frame's mask; `None` for [`Emit::for_taps`].
    pub emit: Option<Emit>,
    /// Time between two frames that are pushed. With it, [`PredictorConfig::frame_stride`] follows from the interval in
    /// the model file.
    pub frame_interval: Option<Duration>,
    /// Frames from one frame of a clip to the next, 1 to [`MAX_STRIDE_FRAMES`](crate::stream::window::MAX_STRIDE_FRAMES);
    /// `None` for what `frame_interval` says, or 1 without one.
    pub frame_stride: Option<usize>,
    /// The part of the frame that the model sees.
    pub roi: Roi,
    /// What to segment, for models that were trained with prompts; empty for everything.
    pub prompt: FramePrompt,
}

impl PredictorConfig {
    fn window(&self, spec: &SegmenterSpec) -> Window {
        let frame_nanos = self
            .frame_interval
            .map(|interval| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
        Window {
            clip_frames: spec.clip_frames,
            emit: self.emit.unwrap_or_else(|| Emit::for_taps(spec.temporal)),
            hop_frames: 1,
            stride_frames: self
                .frame_stride
                .unwrap_or_else(|| stride_frames(spec.frame_interval_nanos, frame_nanos)),
        }
    }
}

/// A model file behind a worker thread of its own, which has the priority of the thread that starts it.
///
/// # Errors
/// As [`crate::runtime::open`].
pub(crate) fn open_worker(path: &Path, options: OpenOptions) -> Result<Worker> {
    let path = path.to_owned();
    spawn_worker(Arc::new(move || crate::runtime::open(&path, &options)))
}

fn spawn_worker(open: Open) -> Result<Worker> {
    let begun = Instant::now();
    let config = WorkerConfig {
        name: "masam-predictor".into(),
        clock: Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        priority: Priority::Normal,
    };
    Worker::spawn(config, open)
}

/// How frames of one size are looked at.
struct View {
    size: Size,
    region: Rect,
    finder: Option<RegionFinder>,
}

/// Segments sequences of frames, one after the other, with one model.
///
/// Frames of one sequence may change their size: the temporal window begins again there, as it does where the region of
/// interest or the prompt changes. It can be sent to another thread; the model runs on a thread of its own either way.
pub struct Predictor {
    offline: Offline,
    classes: Arc<ClassSet>,
    squarer: Squarer,
    enlarger: Enlarger,
    roi: Roi,
    prompt: FramePrompt,
    /// The prompt has not been brought to the region of the last frame.
    prompt_changed: bool,
    /// `None` before the first frame of a sequence.
    view: Option<View>,
    /// Index of the next frame in its sequence.
    next_frame: u64,
    /// Index, size and region of each frame that was pushed and has no outcome yet.
    waiting: VecDeque<(u64, Size, Rect)>,
    /// Outcomes of frames before the temporal window began again.
    ready: VecDeque<Result<FrameMask>>,
}

impl Predictor {
    /// Opens a model file with the default [`PredictorConfig`].
    ///
    /// # Errors
    /// A file that cannot be read or is no model file; the message names the file, and the tensor where there is one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &PredictorConfig::default())
    }

    /// Opens a model file.
    ///
    /// # Errors
    /// As [`Predictor::open`]; a device or precision that this machine or build lacks; an `emit` or `frame_stride` that
    /// does not fit the model.
    pub fn open_with(path: impl AsRef<Path>, config: &PredictorConfig) -> Result<Self> {
        let options = OpenOptions {
            device: config.device,
            precision: config.precision,
            threads: config.threads,
        };
        Self::over(open_worker(path.as_ref(), options)?, config)
    }

    /// Runs any [`Segmenter`](crate::segmenter::Segmenter) that `open` makes. `device`, `precision` and `threads` of
    /// `config` are its own matter.
    ///
    /// # Errors
    /// What `open` returns, or an `emit` or `frame_stride` that does not fit the model.
    pub fn with_segmenter(open: Open, config: &PredictorConfig) -> Result<Self> {
        Self::over(spawn_worker(open)?, config)
    }

    fn over(worker: Worker, config: &PredictorConfig) -> Result<Self> {
        let window = config.window(worker.spec());
        let offline = Offline::new(worker, window)?;
        Ok(Self {
            classes: Arc::new(offline.spec().classes.clone()),
            squarer: Squarer::of(offline.spec()),
            offline,
            enlarger: Enlarger::default(),
            roi: config.roi,
            prompt: config.prompt.clone(),
            prompt_changed: true,
            view: None,
            next_frame: 0,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    /// Size of the model's input, its preparation of frames, its name and what it runs on.
    pub fn spec(&self) -> &SegmenterSpec {
        self.offline.spec()
    }

    /// Names and colors of the classes, in the order of their ids.
    pub fn classes(&self) -> &Arc<ClassSet> {
        &self.classes
    }

    /// How clips are cut from the sequence.
    pub fn window(&self) -> Window {
        self.offline.window()
    }

    /// How many frames later [`Predictor::push`] returns a frame's mask: 0 with `emit` newest and step.
    pub fn delay_frames(&self) -> usize {
        self.window().look_ahead_frames()
    }

    /// Segments a whole sequence: the masks come in the order of the frames, one for each. Frames are taken from the
    /// iterator while the model works on earlier ones, a few ahead, so a long video needs little memory.
    ///
    /// What was pushed before is forgotten. An item is an error where the model failed on that frame, or where a frame
    /// cannot be shown to it (see [`Predictor::push`]), which ends the iteration.
    pub fn predict<I>(&mut self, frames: I) -> Masks<'_, I::IntoIter>
    where
        I: IntoIterator<Item: AsRgbFrame>,
    {
        self.reset();
        Masks {
            predictor: self,
            frames: Some(frames.into_iter()),
        }
    }

    /// Shows the next frame of a sequence, and waits for the mask of the frame [`Predictor::delay_frames`] before it, which
    /// it returns; `None` where there is no such frame.
    ///
    /// # Errors
    /// A frame whose bytes do not fit its size, a size outside 1 to
    /// [`MAX_FRAME_SIDE_PX`](crate::geometry::MAX_FRAME_SIDE_PX), a given region or a prompt that lies outside the frame:
    /// the frame is not part of the sequence then. [`Error::NoMask`] where the model failed; the sequence goes on.
    pub fn push(&mut self, frame: impl AsRgbFrame) -> Result<Option<FrameMask>> {
        self.show(frame.as_rgb_frame())?;
        // Masks from before the window began again may be there earlier.
        match self.ready.len() + self.waiting.len() > self.delay_frames() {
            true => self.next_mask().transpose(),
            false => Ok(None),
        }
    }

    /// Ends the sequence: the masks that [`Predictor::push`] has not returned yet. The next frame begins another
    /// sequence.
    pub fn finish(&mut self) -> Masks<'_, std::iter::Empty<RgbFrame<'static>>> {
        Masks {
            predictor: self,
            frames: Some(std::iter::empty()),
        }
    }

    /// Forgets the sequence and its masks; the next frame begins another one.
    pub fn reset(&mut self) {
        self.offline.begin();
        self.view = None;
        self.next_frame = 0;
        self.waiting.clear();
        self.ready.clear();
    }

    /// Has later frames segmented with another prompt; the temporal window begins again.
    pub fn set_prompt(&mut self, prompt: FramePrompt) {
        self.prompt_changed = prompt != self.prompt || self.prompt_changed;
        self.prompt = prompt;
    }

    /// Brings a frame to the engine.
    fn show(&mut self, frame: RgbFrame<'_>) -> Result<()> {
        let picture = frame.picture()?;
        let size = picture.size();
        let (mut view, is_new) = match self.view.take_if(|view| view.size == size) {
            Some(view) => (view, false),
            None => {
                let (region, is_sought) = (self.roi.region_in(size)?, self.roi == Roi::Auto);
                let finder = is_sought.then(RegionFinder::default);
                (View { size, region, finder }, true)
            }
        };
        let mut region = view.region;
        if let Some(finder) = view.finder.as_mut().filter(|finder| !finder.is_settled())
            && let Some(found) = finder.observe(&picture, size.rect(), None)
        {
            region = found;
        }
        if is_new || region != view.region || self.prompt_changed {
            view.region = region;
            let prompt = self.prompt.in_square(size, &self.squarer.model_square(region));
            // Kept even where the prompt lies outside: another one may follow.
            self.prompt_changed = prompt.is_err();
            self.end_epoch();
            self.view = Some(view);
            self.offline.set_prompt(prompt?);
        } else {
            self.view = Some(view);
        }
        let square = self.squarer.square(&picture, region)?;
        self.waiting.push_back((self.next_frame, size, region));
        self.next_frame += 1;
        self.offline.push(square);
        Ok(())
    }

    /// Begins the temporal window again: the frames before get their masks as if the sequence ended with them.
    fn end_epoch(&mut self) {
        self.offline.finish();
        while let Some(outcome) = self.outcome() {
            self.ready.push_back(outcome);
        }
        self.offline.begin();
    }

    /// The outcome of the next frame in the order they came; `None` where later frames have to come first.
    fn next_mask(&mut self) -> Option<Result<FrameMask>> {
        self.ready.pop_front().or_else(|| self.outcome())
    }

    /// The same of the frames since the temporal window began; waits for the model.
    fn outcome(&mut self) -> Option<Result<FrameMask>> {
        loop {
            let labels = match self.offline.next(Duration::from_secs(1)) {
                Next::Mask(mask) => Ok(mask.labels),
                Next::Failed { error, .. } => Err(error),
                Next::NeedsFrames => return None,
                Next::TimedOut => continue,
            };
            let (frame, size, region) = self.waiting.pop_front()?;
            return Some(match labels {
                Ok(labels) => Ok(self.enlarged(frame, size, region, &labels)),
                Err(cause) => Err(Error::NoMask { frame, cause }),
            });
        }
    }

    /// A mask at the model's side, brought to the region of its frame.
    fn enlarged(&mut self, frame: u64, size: Size, region: Rect, labels: &[u8]) -> FrameMask {
        let plane = MaskPlane {
            ids: labels,
            mask: Size::square(self.spec().side_px),
            region,
            frame: size,
        };
        let mut ids = image::GrayImage::new(size.width_px, size.height_px);
        self.enlarger.write_ids(&mut ids, &plane);
        FrameMask {
            frame,
            ids,
            region,
            classes: Arc::clone(&self.classes),
        }
    }
}

/// The masks of a sequence in the order of its frames; see [`Predictor::predict`] and [`Predictor::finish`]. Dropping it
/// ends the sequence.
#[must_use = "masks are computed as they are asked for"]
pub struct Masks<'a, I> {
    predictor: &'a mut Predictor,
    /// `None` after the last frame.
    frames: Option<I>,
}

impl<I: Iterator<Item: AsRgbFrame>> Iterator for Masks<'_, I> {
    type Item = Result<FrameMask>;

    fn next(&mut self) -> Option<Self::Item> {
        let predictor = &mut *self.predictor;
        let most_waiting = predictor.delay_frames() as u64 + FRAMES_AHEAD;
        while let Some(frames) = &mut self.frames
            && predictor.ready.is_empty()
            && predictor.offline.waiting() <= most_waiting
        {
            let Some(frame) = frames.next() else {
                predictor.offline.finish();
                self.frames = None;
                break;
            };
            if let Err(error) = predictor.show(frame.as_rgb_frame()) {
                predictor.reset();
                self.frames = None;
                return Some(Err(error));
            }
        }
        predictor.next_mask()
    }
}

impl<I> Drop for Masks<'_, I> {
    fn drop(&mut self) {
        self.predictor.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Orientation;
    use crate::segmenter::{Plane, Reply, Request, Resize, SegmentError, Segmenter, Temporal};
    use image::{Rgb, RgbImage};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Every pixel has its red byte as class; a clip whose newest frame is 13 fails.
    struct Red(SegmenterSpec);

    impl Segmenter for Red {
        fn spec(&self) -> &SegmenterSpec {
            &self.0
        }

        fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
            let run = |request: &Request| {
                let red = |&output: &usize| request.frames[output].rgb.chunks(3).map(|p| p[0]).collect();
                let planes: Vec<Vec<u8>> = request.outputs.iter().map(red).collect();
                match planes.iter().flatten().any(|&id| id == 13) {
                    true => Err(SegmentError::Forward("thirteen".into())),
                    false => Ok(Reply {
                        planes: planes.into_iter().map(Plane::Labels).collect(),
                    }),
                }
            };
            requests.iter().map(run).collect()
        }
    }

    fn red(emit: Emit) -> Predictor {
        let open = || {
            Ok(Box::new(Red(SegmenterSpec {
                model_id: "red".into(),
                clip_frames: 5,
                side_px: 2,
                classes: ClassSet::numbered(100)?,
                resize: Resize::Area,
                orientation: Orientation::Upright,
                frame_interval_nanos: None,
                temporal: Temporal::Centered,
                untrained: true,
                device: "none".into(),
            })) as Box<dyn Segmenter>)
        };
        let config = PredictorConfig {
            emit: Some(emit),
            roi: Roi::None,
            ..PredictorConfig::default()
        };
        Predictor::with_segmenter(Arc::new(open), &config).unwrap()
    }

    fn plain(byte: u8) -> RgbImage {
        RgbImage::from_pixel(3, 2, Rgb([byte, 0, 0]))
    }

    #[test]
    fn a_frame_that_the_model_fails_on_is_the_only_one_without_a_mask() {
        for emit in [Emit::Newest, Emit::Centre] {
            let mut predictor = red(emit);
            let got: Vec<_> = predictor.predict([11, 12, 13, 14, 15].map(plain)).collect();
            for (index, mask) in got.into_iter().enumerate() {
                match mask {
                    Ok(mask) => assert_eq!(*mask.ids, [11 + index as u8; 6], "{emit}"),
                    Err(Error::NoMask { frame: 2, cause }) => {
                        assert_eq!((index, cause), (2, SegmentError::Forward("thirteen".into())));
                    }
                    Err(error) => panic!("{emit} {index}: {error}"),
                }
            }
        }
    }

    #[test]
    fn few_frames_are_taken_before_they_are_needed() {
        let taken = AtomicUsize::new(0);
        let mut predictor = red(Emit::Newest);
        let frames = std::iter::repeat_with(|| {
            taken.fetch_add(1, Ordering::SeqCst);
            plain(7)
        });
        for (index, mask) in predictor.predict(frames).take(20).enumerate() {
            assert_eq!(mask.unwrap().frame, index as u64);
            let ahead = taken.load(Ordering::SeqCst) - index;
            assert!(ahead <= FRAMES_AHEAD as usize + 2, "{ahead} frames ahead");
        }
        // A sequence that was left half way leaves nothing behind.
        let mask = predictor.push(plain(9)).unwrap().unwrap();
        assert_eq!((mask.frame, &*mask.ids), (0, &[9; 6][..]));
    }

    #[test]
    fn areas_and_colors_are_those_of_the_classes() {
        let mut predictor = red(Emit::Newest);
        let mask = predictor.push(plain(3)).unwrap().unwrap();
        assert_eq!((mask.areas_px()[3], mask.areas_px().iter().sum()), (6, 6));
        let color = mask.classes.get(3).unwrap().color;
        assert!(mask.colors().pixels().all(|pixel| pixel.0 == color));
    }

    #[test]
    fn it_can_be_sent_to_another_thread() {
        fn is_send<T: Send>(_: &T) {}
        is_send(&red(Emit::Newest));
    }
}
