//! What becomes of the mask meta when an element takes it from one buffer to another.

use super::view::MaskView;
use super::{CAT, put, set_geometry, structure_of};
use crate::geometry::{Rect, Size};
use gst::glib;
use gst::glib::translate::IntoGlib;
use gst::meta::MetaTransform;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// What GStreamer calls when an element takes metas from one buffer to another.
pub(super) unsafe extern "C" fn transform(
    to: *mut gst::ffi::GstBuffer,
    meta: *mut gst::ffi::GstCustomMeta,
    _from: *mut gst::ffi::GstBuffer,
    kind: glib::ffi::GQuark,
    data: glib::ffi::gpointer,
    _user_data: glib::ffi::gpointer,
) -> glib::ffi::gboolean {
    // SAFETY: GStreamer hands over a writable buffer and a meta of ours, both valid for the call, and `data` is what
    // the documentation of `kind` says: `GstMetaTransformCopy` for a copy, `GstVideoMetaTransform` for scaling.
    unsafe {
        let scale = gst_video::ffi::gst_video_meta_transform_scale_get_quark();
        let structure = gst::StructureRef::from_glib_borrow((*meta).structure);
        let moved = if kind == gst::meta::MetaTransformCopy::quark().into_glib() {
            let copy = data.cast::<gst::ffi::GstMetaTransformCopy>().as_ref();
            // Part of the bytes is no frame.
            copy.is_none_or(|copy| copy.region == glib::ffi::GFALSE)
                .then(|| structure.to_owned())
        } else if kind == scale {
            let infos = data.cast::<gst_video::ffi::GstVideoMetaTransform>().as_ref();
            infos.and_then(|infos| {
                let (from, to) = (infos.in_info.as_ref()?, infos.out_info.as_ref()?);
                scaled(structure, shape_of(from)?, shape_of(to)?)
            })
        } else {
            None
        };
        match moved {
            Some(structure) => {
                let to = gst::BufferRef::from_mut_ptr(to);
                // Some elements first let a meta be scaled and then copy it as well.
                if structure_of(to).is_none() {
                    put(to, structure);
                }
                glib::ffi::GTRUE
            }
            None => glib::ffi::GFALSE,
        }
    }
}

/// Size and pixel aspect ratio of a frame.
#[derive(Debug, Clone, Copy)]
struct Shape {
    size: Size,
    pixel_aspect: f64,
}

fn shape_of(info: &gst_video::ffi::GstVideoInfo) -> Option<Shape> {
    let size = Size::checked(u32::try_from(info.width).ok()?, u32::try_from(info.height).ok()?).ok()?;
    (info.par_n > 0 && info.par_d > 0).then(|| Shape {
        size,
        pixel_aspect: f64::from(info.par_n) / f64::from(info.par_d),
    })
}

/// Black borders of fewer pixels than this are rounding; wider ones move the picture visibly.
const BORDER_TOLERATED_PX: f64 = 2.0;

/// The structure for a frame scaled from one shape to another; `None` when it is malformed, belongs to another frame
/// than the one scaled, or the picture may have got black borders of unknown width.
fn scaled(structure: &gst::StructureRef, from: Shape, to: Shape) -> Option<gst::Structure> {
    let view = MaskView::read(structure)
        .inspect_err(|error| {
            gst::debug!(CAT, "malformed meta dropped: {error}");
        })
        .ok()?;
    if view.frame != from.size {
        gst::debug!(
            CAT,
            "meta of a {:?} frame dropped from one of {:?}",
            view.frame,
            from.size
        );
        return None;
    }
    let (width, height) = (f64::from(to.size.width_px), f64::from(to.size.height_px));
    // The picture's aspect ratio in pixels of the new frame, and what it would leave free there.
    let aspect =
        f64::from(from.size.width_px) / f64::from(from.size.height_px) * from.pixel_aspect / to.pixel_aspect;
    let border_px = if height * aspect <= width {
        width - height * aspect
    } else {
        height - width / aspect
    };
    if border_px >= BORDER_TOLERATED_PX {
        gst::debug!(
            CAT,
            "dropped: from {from:?} to {to:?} the picture may have got borders"
        );
        return None;
    }
    let mut structure = structure.to_owned();
    set_geometry(
        &mut structure,
        to.size,
        scaled_rect(view.region, from.size, to.size),
    );
    Some(structure)
}

/// `rect` of a frame in the same frame of another size, edges rounded to whole pixels, never empty.
fn scaled_rect(rect: Rect, from: Size, to: Size) -> Rect {
    let along = |start: u32, end: u32, from: u32, to: u32| {
        let edge = |x: u32| (u64::from(x) * u64::from(to) + u64::from(from) / 2) / u64::from(from);
        let start = edge(start).min(u64::from(to) - 1) as u32;
        (start, (edge(end) as u32).max(start + 1) - start)
    };
    let (x_px, width_px) = along(rect.x_px, rect.right_px(), from.width_px, to.width_px);
    let (y_px, height_px) = along(rect.y_px, rect.bottom_px(), from.height_px, to.height_px);
    Rect {
        x_px,
        y_px,
        width_px,
        height_px,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_scale_with_their_edges() {
        let (hd, uhd) = (
            Size {
                width_px: 1920,
                height_px: 1080,
            },
            Size {
                width_px: 3840,
                height_px: 2160,
            },
        );
        let rect = Rect {
            x_px: 321,
            y_px: 28,
            width_px: 1279,
            height_px: 1024,
        };
        assert_eq!(
            scaled_rect(rect, hd, uhd),
            Rect {
                x_px: 642,
                y_px: 56,
                width_px: 2558,
                height_px: 2048
            }
        );
        assert_eq!(
            scaled_rect(hd.rect(), hd, Size::square(1)),
            Size::square(1).rect()
        );
        let last = Rect {
            x_px: 1919,
            y_px: 1079,
            width_px: 1,
            height_px: 1,
        };
        for side in 1..40 {
            assert!(
                scaled_rect(last, hd, Size::square(side)).fits(Size::square(side)),
                "{side}"
            );
        }
    }
}
