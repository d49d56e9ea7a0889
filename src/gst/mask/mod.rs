//! `masammask`: the mask meta as a video of its own.
//!
//! ```text
//! gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer model=demo.safetensors
//!     ! masammask output=colour ! pngenc ! multifilesink location=mask%05d.png
//! ```
//!
//! | output | format | pixels |
//! |---|---|---|
//! | `classes` | GRAY8 | id of the class; 0 for background and classes not shown, 255 where there is no mask |
//! | `colour` | RGB | the class's colour; black where nothing is shown |
//! | `key` | RGBA | colour and opacity with smooth edges, alpha straight, for an external mixer |
//!
//! Its size is that of the frame. `classes` and `colour` take the mask pixel that the frame pixel's centre lies in, so
//! no value appears that is no class's; `key` is drawn as the overlay draws.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod imp;

/// What the element makes of the meta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "MasamMaskOutput")]
pub enum Output {
    /// Class ids.
    #[default]
    #[enum_value(
        name = "Classes: GRAY8 class ids, 255 where there is no mask",
        nick = "classes"
    )]
    Classes,
    /// Colours of the classes.
    #[enum_value(
        name = "Colour: RGB in the colours of the classes, black elsewhere",
        nick = "colour"
    )]
    Colour,
    /// Fill and alpha.
    #[enum_value(
        name = "Key: RGBA with smooth edges and straight alpha, for an external mixer",
        nick = "key"
    )]
    Key,
}

glib::wrapper! {
    /// The element `masammask`.
    pub struct MasamMask(ObjectSubclass<imp::MasamMask>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element with `plugin`, or with GStreamer itself when there is none.
///
/// # Errors
/// GStreamer refused.
pub fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    crate::gst::meta::register();
    std::sync::LazyLock::force(&imp::CAT);
    gst::Element::register(plugin, "masammask", gst::Rank::NONE, MasamMask::static_type())
}
