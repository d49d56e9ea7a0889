//! Recorded frames through the engine in exact mode: frames in, masks out in the order of the frames.
//!
//! What is computed is what `masaminfer mode=exact` computes, by the same engine on the same worker; only the caller is
//! no pipeline. [`Offline::next`] waits only as long as it is told to, so that a caller can stop.
//!
//! ```no_run
//! # use masam::stream::{Next, Offline, Window, Worker};
//! # fn run(worker: Worker, window: Window, frames: Vec<masam::segmenter::ModelFrame>) -> masam::Result<()> {
//! let mut offline = Offline::new(worker, window)?;
//! for frame in frames {
//!     offline.push(frame); // takes memory for each frame that waits: see Offline::waiting
//! }
//! offline.finish();
//! while offline.waiting() > 0 {
//!     if let Next::Mask(mask) = offline.next(std::time::Duration::from_secs(1)) {
//!         println!("frame {}", mask.frame);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use super::engine::{Mask, Outcome};
use super::exact::{ExactConfig, ExactEngine};
use super::time::FrameTime;
use super::window::Window;
use super::worker::{Port, Stopped, Wait, Worker, unique_stream};
use crate::error::Result;
use crate::segmenter::{ModelFrame, Prompt, SegmentError, SegmenterSpec};
use std::time::Duration;

/// What [`Offline::next`] came back with.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The next frame's mask.
    Mask(Mask),
    /// The next frame has none, and why.
    Failed {
        /// Its index within the sequence.
        frame: u64,
        /// The cause.
        error: SegmentError,
    },
    /// More frames, or the end of the sequence, have to come first.
    NeedsFrames,
    /// The next frame's mask is still being computed.
    TimedOut,
}

/// One sequence after the other through one model.
pub struct Offline {
    worker: Worker,
    port: Port,
    engine: ExactEngine,
    /// The frame whose outcome comes next.
    next: u64,
}

impl Offline {
    /// Clips cut as `window` says, run by `worker`.
    ///
    /// # Errors
    /// A window that does not validate or does not fit the model.
    pub fn new(worker: Worker, window: Window) -> Result<Self> {
        let stream = unique_stream();
        let config = ExactConfig {
            stream,
            window,
            prompt: Prompt::default(),
            keep_probabilities: false,
        };
        let engine = ExactEngine::new(0, config, worker.spec())?;
        let port = worker.port(stream);
        Ok(Self {
            worker,
            port,
            engine,
            next: 0,
        })
    }

    /// What the model wants and gives.
    pub fn spec(&self) -> &SegmenterSpec {
        self.worker.spec()
    }

    /// How clips are cut.
    pub fn window(&self) -> Window {
        self.engine.window()
    }

    /// Begins a sequence; frames of an earlier one are forgotten.
    pub fn begin(&mut self) {
        self.engine.begin_epoch();
        self.port.reset();
        self.next = 0;
    }

    /// The prompt of frames that are pushed from now on, in pixels of the model's square. Frames of one sequence should
    /// share one: begin a sequence with it.
    pub fn set_prompt(&mut self, prompt: Prompt) {
        self.engine.set_prompt(prompt);
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: ModelFrame) {
        self.engine.push(frame, FrameTime::default());
        self.submit();
    }

    /// The sequence's last frame has been pushed.
    pub fn finish(&mut self) {
        self.engine.finish();
        self.submit();
    }

    /// Frames that were pushed and have not come out of [`Offline::next`].
    pub fn waiting(&self) -> u64 {
        self.engine.received().saturating_sub(self.next)
    }

    /// The outcome of the next frame, waiting at most about `within` for it.
    pub fn next(&mut self, within: Duration) -> Next {
        loop {
            while let Some(done) = self.port.try_take() {
                self.engine.accept(done);
            }
            match self.engine.take(self.next) {
                Outcome::Mask(mask) => {
                    self.next += 1;
                    return Next::Mask(mask);
                }
                Outcome::Failed(error) => {
                    let frame = self.next;
                    self.next += 1;
                    return Next::Failed { frame, error };
                }
                Outcome::Running => (),
                Outcome::NeedsFrames | Outcome::None | Outcome::Unknown => return Next::NeedsFrames,
            }
            match self.port.wait(within) {
                Wait::Done(done) => self.engine.accept(done),
                Wait::TimedOut | Wait::Interrupted => return Next::TimedOut,
                Wait::Gone | Wait::Idle => self
                    .engine
                    .abandon(&SegmentError::Forward("the model lost the clip".into())),
            }
        }
    }

    /// Ends the worker; see [`Worker::stop`].
    pub fn stop(self, within: Duration) -> Stopped {
        self.worker.stop(within)
    }

    fn submit(&mut self) {
        while let Some(job) = self.engine.next_job() {
            self.port.submit(job);
        }
    }
}
