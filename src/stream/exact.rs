//! The engine in exact mode: every frame gets the output of its own index, or the reason why it has none.
//!
//! A frame's outcome is final once every clip that serves it has answered. A clip that failed leaves the frames
//! it serves without a mask: a mean over fewer clips would not be what its name says. With `emit=step` later frames go
//! on from a state that has not seen the frame that failed.

use super::engine::{Counts, Mask, Outcome};
use super::fuse::Fuser;
use super::ring::FrameRing;
use super::time::FrameTime;
use super::window::{Clip, Emit, Planner, Window};
use super::worker::{Done, Job};
use crate::error::Result;
use crate::segmenter::{
    ModelFrame, Prompt, Reply, Request, SegmentError, SegmenterSpec, StreamId, Temporal, Want,
};
use std::collections::{BTreeMap, VecDeque};

/// Most states of one stream with `emit=step`. A state has 1.6 MB with the demo model, at 512 px 75 MB with vit_b and
/// 200 MB with vit_h.
pub const MAX_PHASES: usize = 64;

/// What an exact engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactConfig {
    /// Whose frames these are; requests carry it.
    pub stream: StreamId,
    /// How clips are cut.
    pub window: Window,
    /// Spatial prompts for every clip, in pixels of the model's square.
    pub prompt: Prompt,
    /// Keep the mean softmax in every [`Mask`] of `emit=ensemble`: `classes * side * side * 4` bytes each.
    pub keep_probabilities: bool,
}

/// A frame whose outcome has not been taken.
#[derive(Debug, Default)]
struct Waiting {
    time: FrameTime,
    clips_cut: usize,
    clips_answered: usize,
    /// Labels of the one clip that serves it, where nothing is averaged.
    labels: Option<Vec<u8>>,
    failure: Option<SegmentError>,
}

/// The exact-mode engine of one stream.
pub struct ExactEngine {
    config: ExactConfig,
    side_px: u32,
    epoch: u64,
    planner: Planner,
    ring: FrameRing,
    fuser: Fuser,
    waiting: BTreeMap<u64, Waiting>,
    jobs: VecDeque<Job>,
    /// Clips that were cut and have not been answered, by number.
    open: BTreeMap<u64, Clip>,
    next_clip: u64,
    counts: Counts,
}

impl ExactEngine {
    /// An engine whose first epoch is `epoch`, for the model that `spec` describes.
    ///
    /// # Errors
    /// A window that does not validate or does not fit the model.
    pub fn new(epoch: u64, config: ExactConfig, spec: &SegmenterSpec) -> Result<Self> {
        config.window.validate()?;
        if config.window.emit == Emit::Step && spec.temporal != Temporal::Causal {
            let bound = "the model's temporal taps are centered: it looks at later frames";
            return Err(crate::Error::config("emit", config.window.emit, bound));
        }
        let stride = config.window.stride_frames;
        if config.window.emit == Emit::Step && stride > MAX_PHASES {
            let bound =
                format!("with emit=step it has to be 1 to {MAX_PHASES}: each of its frames has a state");
            return Err(crate::Error::config("frame-stride", stride, bound));
        }
        if config.window.clip_frames != spec.clip_frames {
            let bound = format!("the model takes clips of {} frames", spec.clip_frames);
            return Err(crate::Error::config(
                "clip_frames",
                config.window.clip_frames,
                bound,
            ));
        }
        Ok(Self {
            side_px: spec.side_px,
            epoch,
            planner: Planner::new(config.window),
            ring: FrameRing::new(config.window.span_frames()),
            fuser: Fuser::new(spec.side_px, spec.classes.len(), spec.orientation),
            waiting: BTreeMap::new(),
            jobs: VecDeque::new(),
            open: BTreeMap::new(),
            next_clip: 0,
            counts: Counts::default(),
            config,
        })
    }

    /// Whose frames it takes.
    pub fn stream(&self) -> StreamId {
        self.config.stream
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What has been counted since the engine was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How clips are cut.
    pub fn window(&self) -> Window {
        self.config.window
    }

    /// Frames pushed in this epoch.
    pub fn received(&self) -> u64 {
        self.planner.received()
    }

    /// Takes the next frame; its index within the epoch. Cuts the clips that it completes.
    pub fn push(&mut self, frame: ModelFrame, time: FrameTime) -> u64 {
        let index = self.planner.receive();
        self.ring.push(frame);
        self.counts.frames += 1;
        self.waiting.insert(
            index,
            Waiting {
                time,
                ..Waiting::default()
            },
        );
        self.cut_clips();
        index
    }

    /// The epoch's last frame has been pushed: cuts the clips that wait for later frames, repeating the last one.
    pub fn finish(&mut self) {
        self.planner.end();
        self.cut_clips();
    }

    /// As [`Engine::set_prompt`](super::Engine::set_prompt).
    pub fn set_prompt(&mut self, prompt: Prompt) {
        self.config.prompt = prompt;
    }

    /// Ends the epoch without finishing it: forgets frames, clips and outcomes. Answers of older epochs that still
    /// come are dropped and counted.
    pub fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.planner = Planner::new(self.config.window);
        self.ring.clear();
        self.fuser.clear();
        self.waiting.clear();
        self.jobs.clear();
        self.open.clear();
    }

    /// The next clip to run. Clips leave in the order in which frames need them.
    pub fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// Takes an answer.
    pub fn accept(&mut self, done: Done) {
        if done.epoch != self.epoch {
            self.counts.answers_stale += 1;
            return;
        }
        let Some(clip) = self.open.remove(&done.clip) else {
            return;
        };
        let answer = done.result.and_then(|reply| self.hear(&clip, reply));
        match &answer {
            Ok(()) => self.counts.clips_run += 1,
            Err(_) => self.counts.clips_failed += 1,
        }
        for &(_, frame) in &clip.serves {
            if let Some(waiting) = self.waiting.get_mut(&frame) {
                waiting.clips_answered += 1;
                if let Err(error) = &answer {
                    waiting.failure.get_or_insert_with(|| error.clone());
                    self.fuser.discard(frame);
                }
            }
        }
    }

    /// No answer will come for the clips that are open: the frames that rest on them fail with `error`.
    pub fn abandon(&mut self, error: &SegmentError) {
        self.jobs.clear();
        for clip in self.open.keys().copied().collect::<Vec<_>>() {
            let (stream, epoch) = (self.config.stream, self.epoch);
            self.accept(Done {
                stream,
                epoch,
                clip,
                result: Err(error.clone()),
                forward_nanos: 0,
            });
        }
    }

    /// The outcome of a frame. [`Outcome::Mask`] and [`Outcome::Failed`] are given once; afterwards the frame is
    /// [`Outcome::Unknown`].
    pub fn take(&mut self, index: u64) -> Outcome {
        let needed = self.config.window.clips_serving(index, self.planner.total());
        let Some(waiting) = self.waiting.get(&index) else {
            return Outcome::Unknown;
        };
        if waiting.clips_cut < needed {
            return Outcome::NeedsFrames;
        }
        if waiting.clips_answered < needed {
            return Outcome::Running;
        }
        let Some(waiting) = self.waiting.remove(&index) else {
            return Outcome::Unknown;
        };
        if let Some(error) = waiting.failure {
            self.fuser.discard(index);
            return Outcome::Failed(error);
        }
        let (labels, probabilities) = match waiting.labels {
            Some(labels) => (labels, None),
            None => match self.fuser.take(index, self.config.keep_probabilities) {
                Some(fused) => (fused.labels, fused.probabilities),
                None => return Outcome::Failed(SegmentError::Forward("no clip answered".into())),
            },
        };
        Outcome::Mask(Mask {
            labels: labels.into(),
            side_px: self.side_px,
            frame: index,
            time: waiting.time,
            epoch: self.epoch,
            carried: false,
            probabilities,
        })
    }

    /// Puts a clip's planes where the frames that it serves find them.
    fn hear(&mut self, clip: &Clip, reply: Reply) -> std::result::Result<(), SegmentError> {
        if reply.planes.len() != clip.serves.len() {
            let (got, wanted) = (reply.planes.len(), clip.serves.len());
            return Err(SegmentError::Forward(format!(
                "{got} planes where {wanted} were wanted"
            )));
        }
        for (plane, &(_, frame)) in reply.planes.into_iter().zip(&clip.serves) {
            let Some(waiting) = self.waiting.get_mut(&frame) else {
                continue;
            };
            if self.config.window.emit == Emit::Ensemble {
                if waiting.failure.is_none() {
                    self.fuser.add(frame, &plane).map_err(SegmentError::Forward)?;
                }
            } else {
                waiting.labels = Some(self.fuser.labels(plane).map_err(SegmentError::Forward)?.labels);
            }
        }
        Ok(())
    }

    fn cut_clips(&mut self) {
        while let Some(clip) = self.planner.next_clip() {
            let number = self.next_clip;
            self.next_clip += 1;
            for (_, frame) in &clip.serves {
                if let Some(waiting) = self.waiting.get_mut(frame) {
                    waiting.clips_cut += 1;
                }
            }
            let frames: Option<Vec<ModelFrame>> = clip.frames.iter().map(|&f| self.ring.get(f)).collect();
            let Some(frames) = frames else {
                // The ring spans a clip, so this is unreachable; were it not, the frames would go on unmasked.
                self.open.insert(number, clip);
                let result = Err(SegmentError::Request(
                    "a frame of the clip has left the ring".into(),
                ));
                self.accept(Done {
                    stream: self.config.stream,
                    epoch: self.epoch,
                    clip: number,
                    result,
                    forward_nanos: 0,
                });
                continue;
            };
            let want = if self.config.window.emit == Emit::Ensemble {
                Want::Probabilities
            } else {
                Want::Labels
            };
            let step = match (self.config.window.emit, clip.frames.last()) {
                (Emit::Step, Some(newest)) => Some((newest % self.config.window.stride_frames as u64) as u16),
                _ => None,
            };
            let request = Request {
                step,
                stream: self.config.stream,
                frames,
                outputs: clip.serves.iter().map(|&(position, _)| position).collect(),
                want,
                prompt: self.config.prompt.clone(),
            };
            self.jobs.push_back(Job {
                epoch: self.epoch,
                clip: number,
                request,
            });
            self.open.insert(number, clip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Orientation;
    use crate::labels::ClassSet;
    use crate::segmenter::{Plane, Resize};
    use std::sync::Arc;

    const CLASSES: usize = 3;

    fn spec() -> SegmenterSpec {
        SegmenterSpec {
            model_id: "fake".into(),
            clip_frames: 5,
            side_px: 2,
            classes: ClassSet::numbered(CLASSES).unwrap(),
            resize: Resize::Area,
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
            temporal: Temporal::Centered,
            untrained: true,
            device: "none".into(),
        }
    }

    fn config(emit: Emit) -> ExactConfig {
        ExactConfig {
            stream: StreamId(1),
            window: Window {
                clip_frames: 5,
                emit,
                hop_frames: 1,
                stride_frames: 1,
            },
            prompt: Prompt::default(),
            keep_probabilities: true,
        }
    }

    fn frame(byte: u8) -> ModelFrame {
        ModelFrame {
            rgb: Arc::from([byte; 12]),
        }
    }

    fn time(index: u8) -> FrameTime {
        FrameTime {
            running_nanos: Some(u64::from(index) * 40),
            arrival_nanos: 0,
        }
    }

    /// A softmax that depends on the whole clip, on the position, the pixel and the class.
    fn softmax(bytes: &[u8], position: usize) -> Vec<f32> {
        let context: f64 = bytes
            .iter()
            .enumerate()
            .map(|(k, &b)| f64::from(b) * (k as f64 + 1.0))
            .sum();
        let mut values = vec![0.0; CLASSES * 4];
        for pixel in 0..4 {
            let logit = |class: usize| (context * 0.37 + (position * 7 + pixel * 3 + class * 5) as f64).sin();
            let total: f64 = (0..CLASSES).map(|c| logit(c).exp()).sum();
            for class in 0..CLASSES {
                values[class * 4 + pixel] = (logit(class).exp() / total) as f32;
            }
        }
        values
    }

    fn answer(job: &Job) -> Done {
        let bytes: Vec<u8> = job.request.frames.iter().map(|f| f.rgb[0]).collect();
        let plane = |&position: &usize| match job.request.want {
            Want::Probabilities => Plane::Probabilities(softmax(&bytes, position)),
            Want::Labels => Plane::Labels(vec![bytes[position] % CLASSES as u8; 4]),
        };
        let planes = job.request.outputs.iter().map(plane).collect();
        Done {
            stream: job.request.stream,
            epoch: job.epoch,
            clip: job.clip,
            result: Ok(Reply { planes }),
            forward_nanos: 5,
        }
    }

    fn answer_all(engine: &mut ExactEngine) {
        while let Some(job) = engine.next_job() {
            engine.accept(answer(&job));
        }
    }

    #[test]
    fn ensemble_equals_a_naive_rendering_of_the_reference_protocol() {
        let total = 12_usize;
        // Naive: pad, cut every run of five, add up every softmax of every run, forget the copies.
        let source: Vec<u8> = (0..total as u8).map(|i| i * 17 + 3).collect();
        let mut padded = vec![source[0]; 2];
        padded.extend(&source);
        padded.extend([source[total - 1]; 2]);
        let mut sums = vec![vec![0.0_f64; CLASSES * 4]; total + 4];
        let mut counts = vec![0.0_f64; total + 4];
        for start in 0..total {
            for position in 0..5 {
                for (sum, p) in sums[start + position]
                    .iter_mut()
                    .zip(softmax(&padded[start..start + 5], position))
                {
                    *sum += f64::from(p);
                }
                counts[start + position] += 1.0;
            }
        }

        let mut engine = ExactEngine::new(0, config(Emit::Ensemble), &spec()).unwrap();
        for (i, &byte) in source.iter().enumerate() {
            let index = engine.push(frame(byte), time(i as u8));
            assert_eq!(index, i as u64);
            answer_all(&mut engine);
            if i < 4 {
                assert_eq!(engine.take(0), Outcome::NeedsFrames);
            }
        }
        engine.finish();
        answer_all(&mut engine);
        for i in 0..total {
            let Outcome::Mask(mask) = engine.take(i as u64) else {
                panic!("frame {i} has no mask")
            };
            assert_eq!((mask.frame, mask.time, mask.epoch), (i as u64, time(i as u8), 0));
            let mean: Vec<f64> = sums[i + 2].iter().map(|s| s / counts[i + 2]).collect();
            for (got, want) in mask.probabilities.unwrap().iter().zip(&mean) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "frame {i}: {got} {want}");
            }
            for pixel in 0..4 {
                let chosen = mean[usize::from(mask.labels[pixel]) * 4 + pixel];
                assert!((0..CLASSES).all(|c| mean[c * 4 + pixel] <= chosen + 1e-6));
            }
        }
        assert_eq!(counts[2..7], [3.0, 4.0, 5.0, 5.0, 5.0]);
        assert_eq!(
            engine.counts(),
            Counts {
                frames: 12,
                clips_run: 12,
                ..Counts::default()
            }
        );
        assert!(engine.waiting.is_empty() && engine.open.is_empty());
    }

    #[test]
    fn newest_gives_every_frame_its_own_output_at_once() {
        let mut engine = ExactEngine::new(0, config(Emit::Newest), &spec()).unwrap();
        for i in 0..9 {
            engine.push(frame(i), time(i));
            assert_eq!(engine.take(u64::from(i)), Outcome::Running);
            answer_all(&mut engine);
            let Outcome::Mask(mask) = engine.take(u64::from(i)) else {
                panic!("frame {i} has no mask")
            };
            assert_eq!(*mask.labels, [i % 3; 4]);
            assert_eq!(engine.take(u64::from(i)), Outcome::Unknown);
        }
    }

    #[test]
    fn a_failed_clip_costs_exactly_the_masks_that_rest_on_it() {
        let mut engine = ExactEngine::new(0, config(Emit::Ensemble), &spec()).unwrap();
        for i in 0..12 {
            engine.push(frame(i), time(i));
        }
        engine.finish();
        while let Some(job) = engine.next_job() {
            let mut done = answer(&job);
            if job.clip == 5 {
                done.result = Err(SegmentError::Forward("five".into()));
            }
            engine.accept(done);
        }
        for i in 0..12 {
            let failed = matches!(engine.take(i), Outcome::Failed(SegmentError::Forward(m)) if m == "five");
            assert_eq!(failed, (3..=7).contains(&i), "frame {i}");
        }
        assert_eq!((engine.counts().clips_run, engine.counts().clips_failed), (11, 1));
        assert!(engine.waiting.is_empty());
    }

    #[test]
    fn planes_of_the_wrong_size_are_failures() {
        let mut engine = ExactEngine::new(0, config(Emit::Newest), &spec()).unwrap();
        for planes in [
            vec![],
            vec![Plane::Labels(vec![0; 3])],
            vec![Plane::Labels(vec![9; 4])],
        ] {
            let index = engine.push(frame(0), time(0));
            let job = engine.next_job().unwrap();
            engine.accept(Done {
                result: Ok(Reply { planes }),
                ..answer(&job)
            });
            assert!(matches!(
                engine.take(index),
                Outcome::Failed(SegmentError::Forward(_))
            ));
        }
    }

    #[test]
    fn answers_of_an_older_epoch_are_dropped_and_counted() {
        let mut engine = ExactEngine::new(0, config(Emit::Newest), &spec()).unwrap();
        engine.push(frame(1), time(1));
        let old = engine.next_job().unwrap();
        engine.begin_epoch();
        let index = engine.push(frame(2), time(2));
        engine.accept(answer(&old));
        assert_eq!(
            (index, engine.take(index), engine.counts().answers_stale),
            (0, Outcome::Running, 1)
        );
        let job = engine.next_job().unwrap();
        assert!(
            job.request.frames.iter().all(|f| f.rgb[0] == 2),
            "no frame of the older epoch is in a clip"
        );
        engine.accept(answer(&job));
        assert!(matches!(engine.take(index), Outcome::Mask(Mask { epoch: 1, .. })));
    }
}
