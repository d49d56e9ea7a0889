//! The library's log in a plugin: events of `tracing` become lines of GStreamer's debug category `masam`, so that
//! `GST_DEBUG=masam:5` shows them. In a program that links the library they belong to the program's own subscriber.

use gst::DebugLogger;
use gstreamer as gst;
use std::fmt::{self, Write};
use std::sync::LazyLock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masam",
        gst::DebugColorFlags::empty(),
        Some("MA-SAM model, kernels and worker"),
    )
});

/// Begins to hand events over. `tracing` is the plugin's own here, so no other subscriber is in the way.
pub(super) fn begin() {
    LazyLock::force(&CAT);
    // A plugin that is loaded a second time goes on with the first one's.
    let _ = tracing::subscriber::set_global_default(ToGStreamer);
}

struct ToGStreamer;

impl Subscriber for ToGStreamer {
    /// Thresholds of categories can change at any time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        CAT.above_threshold(level_of(metadata.level()))
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        let file = gst::glib::GString::from_string_checked(metadata.file().unwrap_or_default().to_owned());
        CAT.log(
            None::<&gst::glib::Object>,
            level_of(metadata.level()),
            file.unwrap_or_default().as_gstr(),
            metadata.target(),
            metadata.line().unwrap_or(0),
            format_args!("{}{}", line.message, line.fields),
        );
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1) // spans are not shown
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn level_of(level: &Level) -> gst::DebugLevel {
    match *level {
        Level::ERROR => gst::DebugLevel::Error,
        Level::WARN => gst::DebugLevel::Warning,
        Level::INFO => gst::DebugLevel::Info,
        Level::DEBUG => gst::DebugLevel::Debug,
        Level::TRACE => gst::DebugLevel::Trace,
    }
}

/// `message field=value field=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn events_become_lines_of_the_category_with_their_fields() {
        gst::init().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let function = gst::log::add_log_function(move |category, level, _, _, _, _, message| {
            if category.name() == "masam" {
                let text = message.get().map(|text| text.to_string()).unwrap_or_default();
                seen.lock().unwrap().push((level, text));
            }
        });
        CAT.set_threshold(gst::DebugLevel::Info);
        tracing::subscriber::with_default(ToGStreamer, || {
            tracing::warn!(sequence = "a", frames = 3, "left out");
            tracing::debug!("below the threshold");
            CAT.set_threshold(gst::DebugLevel::Debug);
            tracing::debug!("above it by now");
        });
        gst::log::remove_log_function(function);
        assert_eq!(
            *lines.lock().unwrap(),
            [
                (
                    gst::DebugLevel::Warning,
                    "left out sequence=\"a\" frames=3".to_owned()
                ),
                (gst::DebugLevel::Debug, "above it by now".to_owned()),
            ]
        );
    }
}
