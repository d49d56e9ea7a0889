//! `masamoverlay`: draws the mask meta over the video.
//!
//! ```text
//! gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer model=demo.safetensors
//!     ! masamoverlay style=both ! videoconvert ! autovideosink
//! ```
//!
//! The frame is changed in its own format; chroma is blended at chroma resolution. Pixels without a mask are not
//! touched. A frame with nothing to draw (opacity 0, no meta, one that is too old with `status` off, or no visible
//! class with `legend` and `status` off) leaves as the buffer it came in.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

pub(crate) mod ahead;
mod imp;
pub(crate) mod layout;
pub(crate) mod painter;
pub(crate) mod panels;
pub(crate) mod settings;

pub use settings::Style;

glib::wrapper! {
    /// The element `masamoverlay`.
    pub struct MasamOverlay(ObjectSubclass<imp::MasamOverlay>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element with `plugin`, or with GStreamer itself when there is none.
///
/// # Errors
/// GStreamer refused.
pub fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    crate::gst::meta::register();
    std::sync::LazyLock::force(&imp::CAT);
    gst::Element::register(
        plugin,
        "masamoverlay",
        gst::Rank::NONE,
        MasamOverlay::static_type(),
    )
}
