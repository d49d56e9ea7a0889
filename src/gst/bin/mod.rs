//! `masam`: `masaminfer` and `masamoverlay` in one element, with the properties of both.
//!
//! ```text
//! gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masam model=demo.safetensors style=both \
//!     ! videoconvert ! autovideosink
//! ```

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod imp;
mod specification;

glib::wrapper! {
    /// The element. Its parts are named `infer` and `overlay`.
    pub struct Masam(ObjectSubclass<imp::Masam>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

impl Masam {
    /// The part that makes the masks.
    pub fn infer(&self) -> &super::infer::Infer {
        use glib::subclass::prelude::ObjectSubclassIsExt;
        self.imp().infer()
    }

    /// The part that draws them.
    pub fn overlay(&self) -> &super::overlay::MasamOverlay {
        use glib::subclass::prelude::ObjectSubclassIsExt;
        self.imp().overlay()
    }
}

/// Adds the element to `plugin`.
///
/// # Errors
/// GStreamer refuses it, for example because the name is taken.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    std::sync::LazyLock::force(&imp::CAT);
    gst::Element::register(Some(plugin), "masam", gst::Rank::NONE, Masam::static_type())
}
