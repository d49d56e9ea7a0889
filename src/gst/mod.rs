//! The GStreamer plugin `masam`: its elements, and the mask meta they share.
//!
//! The plugin is the library's other face: built as `libmasam.so` it is found by `gst-launch-1.0`; a program that
//! links the library calls [`plugin_register_static`] after `gst::init` and has the same elements.

use gstreamer as gst;

pub mod bin;
pub mod infer;
mod log;
pub mod mask;
pub mod meta;
pub mod overlay;
pub(crate) mod planes;
mod told;

/// What `gst-inspect-1.0` and the loader read.
#[allow(missing_docs, reason = "the items are written by GStreamer's macro")]
mod definition {
    use super::{bin, gst, infer, log, mask, meta, overlay};
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        if plugin.filename().is_some() {
            log::begin(); // loaded from a file, not linked into a program
        }
        meta::register();
        infer::register(plugin)?;
        overlay::register(Some(plugin))?;
        mask::register(Some(plugin))?;
        bin::register(plugin)
    }

    gst::plugin_define!(
        masam,
        "Instrument and anatomy masks over endoscope video with MA-SAM (research software, not a medical device)",
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "Apache 2.0",
        env!("CARGO_PKG_NAME"),
        concat!("masam build ", env!("MASAM_BUILD")),
        "https://arxiv.org/abs/2309.08842"
    );
}

pub use definition::plugin_register_static;

/// Makes the elements known to this process, for programs that link the library. May be called again.
///
/// # Errors
/// GStreamer is not initialised or refused.
pub fn register() -> Result<(), gst::glib::BoolError> {
    plugin_register_static()
}
