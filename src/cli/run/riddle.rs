//! GStreamer's errors about inputs in plain words, with what to do.

use crate::cli::video::describe;
use gstreamer as gst;
use gstreamer::prelude::*;

/// An error in plain words where it is one that users meet, with GStreamer's own behind. `missing` names what it has
/// no element for.
pub(super) fn plain(error: &gst::message::Error, missing: Option<&str>) -> String {
    let own = error.error();
    let from_us = error
        .src()
        .is_some_and(|source| ["streams", "source"].contains(&source.name().as_str()));
    if from_us && own.matches(gst::StreamError::WrongType) {
        let text = own.message();
        if !text.starts_with("Internal") && !text.starts_with("The stream") {
            return text.to_owned();
        }
    }
    let lacks = own.matches(gst::StreamError::CodecNotFound) || own.matches(gst::CoreError::MissingPlugin);
    let words = if lacks
        || missing.is_some() && own.domain() == gst::glib::Quark::from_str("gst-stream-error-quark")
    {
        format!(
            "GStreamer has no {} (Debian: gstreamer1.0-libav and gstreamer1.0-plugins-bad have most)",
            missing.unwrap_or("decoder for it")
        )
    } else if own.matches(gst::StreamError::TypeNotFound) {
        "GStreamer does not know this format; if it is a video, `ffmpeg -i IN OUT.mkv` may convert it".into()
    } else if own.matches(gst::StreamError::Demux) {
        "the container is broken, or not what it says it is".into()
    } else if own.matches(gst::StreamError::Decode) {
        "the video is broken at this place".into()
    } else if own.matches(gst::StreamError::Decrypt) || own.matches(gst::StreamError::DecryptNokey) {
        "the video is encrypted".into()
    } else {
        return describe(error);
    };
    format!("{words} ({})", describe(error))
}
