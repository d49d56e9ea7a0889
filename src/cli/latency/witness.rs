//! A model that says of each mask which frame it was computed from: it reads the clock code out of the picture it was
//! given, and writes it into the mask.

use super::code;
use crate::geometry::Size;
use crate::segmenter::{
    ModelFrame, Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, Step, StreamId,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Size of the frames that the code is drawn into, known with the first of them.
#[derive(Default)]
pub(super) struct FrameSize {
    width_px: AtomicU32,
    height_px: AtomicU32,
}

impl FrameSize {
    pub(super) fn set(&self, size: Size) {
        self.width_px.store(size.width_px, Ordering::Relaxed);
        self.height_px.store(size.height_px, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Size {
        Size {
            width_px: self.width_px.load(Ordering::Relaxed),
            height_px: self.height_px.load(Ordering::Relaxed),
        }
    }
}

/// The model and what it is looked at with.
pub(super) struct Witness {
    pub(super) model: Box<dyn Segmenter>,
    pub(super) frame: Arc<FrameSize>,
}

impl Witness {
    /// Writes into `plane` when the frame that it was computed from was drawn.
    fn mark(&self, frame: Option<&ModelFrame>, plane: &mut Plane) {
        let spec = self.model.spec();
        let Plane::Labels(labels) = plane else { return };
        let read =
            |f: &ModelFrame| code::read_square(&f.rgb, spec.side_px, spec.orientation, self.frame.get());
        // Zeros are no time.
        let word = frame.and_then(read).map_or(0, code::word);
        code::mark(labels, spec.side_px, spec.orientation, word);
    }
}

impl Segmenter for Witness {
    fn spec(&self) -> &SegmenterSpec {
        self.model.spec()
    }

    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<Result<Reply, SegmentError>> {
        let mut results = self.model.segment(requests, deadline);
        for (request, result) in requests.iter().zip(&mut results) {
            let Ok(reply) = result else { continue };
            for (&position, plane) in request.outputs.iter().zip(&mut reply.planes) {
                self.mark(request.frames.get(position), plane);
            }
        }
        results
    }

    fn step(&mut self, steps: &[Step], deadline: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        let mut results = self.model.step(steps, deadline);
        for (step, result) in steps.iter().zip(&mut results) {
            if let Ok(plane) = result {
                self.mark(Some(&step.frame), plane);
            }
        }
        results
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}
