//! `masaminfer`: video in, the same video out, with the masks of an MA-SAM model attached to its frames.
//!
//! ```text
//! gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer model=demo.safetensors \
//!     ! masamoverlay ! videoconvert ! autovideosink
//! ```
//!
//! The element does not touch pixels. It shows each frame to a [`crate::stream::Engine`], which a worker thread
//! serves, and attaches [`crate::gst::meta::MaskMeta`]. No lock is held while the model runs.
//! Frames leave on the streaming thread, and with `video-delay` on a task of the source pad once their time is over, as
//! events do that came between them: a sink that waits for what it is sent holds up no camera. A flush, a seek, new caps,
//! a new segment, time that jumps back and DISCONT begin a new epoch: no mask of before is shown after it. In live mode
//! DISCONT with frames missing in front of it, for no longer than a mask may be old, is a loss and no new epoch.
//!
//! In live mode each mask is announced downstream before a frame shows it, unless masks are carried: by an event
//! `custom-downstream-oob` from a thread of its own, past all frames that are under way, whose structure is that of the
//! meta but for the times of a frame. `masamoverlay` has the mask ready by then; whoever else wants to prepare for masks
//! may do the same. A mask waits for its announcement a short time only.

use crate::geometry::MAX_FRAME_SIDE_PX;
use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

mod attach;
mod chain;
mod change;
mod delay;
mod events;
mod held;
mod herald;
mod imp;
mod picture;
mod pool;
mod queries;
mod report;
mod session;
mod settings;
mod state;

pub use settings::{Emit, Mode, Priority};

glib::wrapper! {
    /// The element; its properties are documented by `gst-inspect-1.0 masaminfer`.
    pub struct Infer(ObjectSubclass<imp::Infer>) @extends gst::Element, gst::Object;
}

impl Infer {
    /// Has the element use what `open` gives instead of loading `model`: for tests, and for programs that bring
    /// their own [`crate::segmenter::Segmenter`]. Called at every change from NULL to READY.
    pub fn set_segmenter<F>(&self, open: F)
    where
        F: Fn() -> crate::Result<Box<dyn crate::segmenter::Segmenter>> + Send + Sync + 'static,
    {
        use glib::subclass::prelude::ObjectSubclassIsExt;
        self.imp().set_opener(std::sync::Arc::new(open));
    }
}

/// The frames it takes, and gives.
pub(crate) fn caps() -> gst::Caps {
    let side = 1..=MAX_FRAME_SIDE_PX as i32;
    gst_video::VideoCapsBuilder::new()
        .format_list(crate::gst::planes::FORMATS)
        .width_range(side.clone())
        .height_range(side)
        .build()
}

/// Adds the element to `plugin`.
///
/// # Errors
/// GStreamer refuses it, for example because the name is taken.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    std::sync::LazyLock::force(&imp::CAT);
    gst::Element::register(Some(plugin), "masaminfer", gst::Rank::NONE, Infer::static_type())
}
