//! A model that says of each mask which frame it was computed from: it reads the clock code out of the picture it was
//! given, and writes it into the mask.

use super::code;
use crate::geometry::Size;
use crate::segmenter::{Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, StreamId};
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
    fn mark(&self, request: &Request, reply: &mut Reply) {
        let spec = self.model.spec();
        for (&position, plane) in request.outputs.iter().zip(&mut reply.planes) {
            let Plane::Labels(labels) = plane else { continue };
            let time = request
                .frames
                .get(position)
                .and_then(|f| code::read_square(&f.rgb, spec.side_px, spec.orientation, self.frame.get()));
            // Zeros are no time.
            let word = time.map_or(0, code::word);
            code::mark(labels, spec.side_px, spec.orientation, word);
        }
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
            if let Ok(reply) = result {
                self.mark(request, reply);
            }
        }
        results
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}
