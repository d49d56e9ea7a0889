//! What leaves with a frame: its mask, or why it has none.

use super::report::STARVED_SHARE;
use super::state::{State, Stream};
use crate::geometry::Size;
use crate::gst::meta::MaskMeta;
use crate::labels::NO_MASK;
use crate::segmenter::{SegmentError, SegmenterSpec};
use crate::stream::{FrameTime, Mask};
use gst::glib;
use gstreamer as gst;
use std::sync::Arc;

/// The first pass also plans memory and packs weights. Of so many passes the median is not that one's time.
const WARM_PASSES: u64 = 3;

/// The meta of the frame before: what does not change from frame to frame is not made anew.
pub(super) struct Tag {
    meta: MaskMeta,
    /// The labels in `meta.plane`.
    labels: Option<Arc<[u8]>>,
    /// A plane that says in every pixel that there is no mask.
    nothing: glib::Bytes,
    /// The fault in `meta.status`.
    fault: Option<SegmentError>,
}

/// A meta of the model that shows nothing.
pub(super) fn blank(spec: &SegmenterSpec) -> MaskMeta {
    MaskMeta {
        epoch: 0,
        running_time_nanos: None,
        age_nanos: 0,
        frame: Size::square(1),
        region: Size::square(1).rect(),
        mask: Size::square(1),
        classes: spec.classes.clone(),
        plane: glib::Bytes::from_static(&[NO_MASK]),
        model_id: spec.model_id.clone(),
        carried: false,
        untrained: spec.untrained,
        confidence: None,
        status: None,
    }
}

/// A meta for frames that masks cannot be made for.
pub(super) fn trouble(spec: &SegmenterSpec, frame: Size, error: &crate::Error) -> MaskMeta {
    MaskMeta {
        frame,
        region: frame.rect(),
        status: Some(format!("no masks: {error}")),
        ..blank(spec)
    }
}

impl Tag {
    pub fn new(spec: &SegmenterSpec) -> Self {
        let meta = blank(spec);
        let nothing = meta.plane.clone();
        Self {
            meta,
            labels: None,
            nothing,
            fault: None,
        }
    }
}

impl Stream {
    /// Attaches `mask` to a frame shown at `shown`, and why there are no newer ones, where there is a reason. The
    /// mask's age.
    pub fn attach_mask(&mut self, buffer: &mut gst::BufferRef, mask: &Mask, shown: FrameTime) -> u64 {
        let Tag {
            meta, labels, fault, ..
        } = &mut self.tag;
        if labels
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &mask.labels))
        {
            meta.plane = glib::Bytes::from_owned(Arc::clone(&mask.labels));
            *labels = Some(Arc::clone(&mask.labels));
        }
        meta.mask = Size::square(mask.side_px);
        meta.epoch = mask.epoch;
        meta.running_time_nanos = mask.time.running_nanos;
        meta.age_nanos = shown.since_nanos(mask.time);
        meta.carried = mask.carried;
        (meta.frame, meta.region) = (self.format.size, self.square.region);
        let now = self.engine.fault().map(|(error, _)| error);
        if now != fault.as_ref() || (now.is_none() && meta.status.is_some()) {
            meta.status = now.map(|error| format!("no new masks: {error}"));
            *fault = now.cloned();
        }
        meta.attach(buffer);
        meta.age_nanos
    }

    /// Attaches a plane without a mask to a frame shown at `shown`, and `status` for the viewer.
    pub fn attach_nothing(&mut self, buffer: &mut gst::BufferRef, shown: FrameTime, status: String) {
        let epoch = self.engine.epoch();
        let Tag {
            meta,
            labels,
            nothing,
            fault,
        } = &mut self.tag;
        meta.plane.clone_from(nothing);
        meta.mask = Size::square(1);
        meta.epoch = epoch;
        meta.running_time_nanos = shown.running_nanos;
        meta.age_nanos = 0;
        meta.carried = false;
        (meta.frame, meta.region) = (self.format.size, self.square.region);
        meta.status = Some(status);
        (*labels, *fault) = (None, None);
        meta.attach(buffer);
    }
}

impl State {
    /// Tells the viewer why there are no masks for such frames at all, if that is so.
    pub(super) fn attach_trouble(&mut self, buffer: &mut gst::Buffer, shown: FrameTime) {
        let epoch = self.epoch();
        if let Some(trouble) = &mut self.trouble {
            trouble.epoch = epoch;
            trouble.running_time_nanos = shown.running_nanos;
            trouble.attach(buffer.make_mut());
        }
    }

    /// What the viewer is told where a model takes so long that its masks are not young enough to be shown all the time:
    /// one is as old as a pass takes when it comes, and twice that when the next one comes.
    pub(super) fn slowness(&self, now_nanos: u64) -> Option<String> {
        let supervisor = &self.session.supervisor;
        let pace = supervisor.pace(now_nanos);
        let oldest = self.session.settings.max_mask_age_nanos;
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        // To whole seconds, so that the line is not another for every frame.
        let is_warm = pace.passes >= WARM_PASSES;
        let clip = match (pace.median_nanos, pace.busy_nanos) {
            (Some(median), _) if is_warm && median.saturating_mul(2) > oldest => {
                format!("{:.1} s for a clip", seconds(median))
            }
            (_, Some(busy)) if busy > oldest => format!("{:.0} s for a clip so far", seconds(busy).floor()),
            _ => return None,
        };
        let cause = match supervisor.processor_share(now_nanos) {
            Some(share) if share < STARVED_SHARE => format!(
                "other programs starve the model: it has less than {:.0} % of the processor time that it wants",
                // To whole tens, for the same reason.
                10.0 * (share * 10.0).floor() + 10.0
            ),
            _ if is_warm => "the model is too slow".into(),
            _ => "the model is starting".into(),
        };
        let limit = format!("masks older than {:.1} s are not shown", seconds(oldest));
        Some(format!("{cause}: {clip}, {limit}"))
    }
}
