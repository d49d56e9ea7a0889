//! The program's log: `tracing` alone, as lines for people or as JSON, one object a line.
//!
//! With JSON everything that reaches standard error becomes such a line: what the program says to its user, and what
//! libraries print. GStreamer's own debug lines come along as events of the target `gstreamer`.

use clap::ValueEnum;
use gstreamer as gst;
use std::io::{BufRead, BufReader, IsTerminal, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Variable with what is logged, as `tracing_subscriber::filter::Targets` reads it: levels, or `target=level`, with commas between them.
const FILTER: &str = "MASAM_LOG";
/// What is logged for people who do not ask: not what a run tells them anyway.
const TOLD: &str = "warn,masam::cli::run::log=off";
/// GStreamer's variable of the same meaning.
const GST_DEBUG: &str = "GST_DEBUG";
/// What GStreamer is asked for from level debug on, where `GST_DEBUG` does not say.
const GST_THRESHOLD: &str = "*:WARNING,masam*:DEBUG";
/// Longest wait at the end for what was printed last; a child process may hold standard error open.
const DRAIN: Duration = Duration::from_secs(1);

/// From which level on events are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// What ends a command.
    Error,
    /// What costs masks or frames, besides.
    Warn,
    /// Start, model, device, input, rates and end, besides.
    Info,
    /// Decisions that change what a viewer sees, and GStreamer's warnings, besides.
    Debug,
    /// Each frame, besides.
    Trace,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The log of this process. It ends with [`Log::end`].
pub(super) struct Log {
    capture: Option<Capture>,
}

impl Log {
    /// Begins: with `level`, else as `MASAM_LOG` says, else from warnings on, in JSON from the information on.
    pub(super) fn begin(json: bool, level: Option<Level>) -> Self {
        let default = if json { Level::Info.word() } else { TOLD };
        let from_environment = std::env::var(FILTER).ok().filter(|_| level.is_none());
        let (mut filter, wrong) = match from_environment.as_deref().map(str::parse::<Targets>) {
            Some(Ok(filter)) => (Ok(filter), None),
            Some(Err(error)) => (default.parse(), Some(error)),
            None => (level.map_or(default, Level::word).parse(), None),
        };
        let asked = std::env::var_os(GST_DEBUG).is_some();
        let detailed = filter.iter().any(|filter: &Targets| {
            let levels = filter
                .iter()
                .map(|(_, level)| level)
                .chain(filter.default_level());
            levels.max().is_some_and(|most| most >= LevelFilter::DEBUG)
        });
        if (json || detailed) && asked {
            // GStreamer has filtered already.
            filter = filter.map(|filter| filter.with_target("gstreamer", LevelFilter::TRACE));
        }
        let capture = if json { Capture::begin() } else { None };
        let terminal = capture
            .as_ref()
            .and_then(|capture| capture.terminal.try_clone().ok());
        let lines = tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal());
        // Ours are all read, so a filter is there.
        let log = tracing_subscriber::registry().with(filter.unwrap_or_default());
        match terminal.map(std::fs::File::from) {
            Some(terminal) => log.with(lines.json().with_writer(terminal)).init(),
            None if json => log.with(lines.json().with_writer(std::io::stderr)).init(),
            None => log.with(lines.with_writer(std::io::stderr)).init(),
        }
        if json {
            std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
        }
        if json || detailed {
            bridge_gstreamer(detailed && !asked);
        }
        if let Some(error) = wrong {
            tracing::warn!(%error, "invalid {FILTER} (expected as in {FILTER}=debug): logging {default}");
        }
        Self { capture }
    }

    /// Writes what was printed last.
    pub(super) fn end(self) {
        if let Some(capture) = self.capture {
            capture.end();
        }
    }
}

/// Hands GStreamer's debug lines to `tracing`; with `threshold`, of the levels that belong to level debug.
fn bridge_gstreamer(threshold: bool) {
    gst::log::remove_default_log_function();
    if threshold {
        gst::log::set_threshold_from_string(GST_THRESHOLD, false);
    }
    gst::log::add_log_function(|category, level, file, _, line, object, message| {
        let Some(message) = message.get() else { return };
        let object = object.map(ToString::to_string);
        let (category, message, file, object) = (
            category.name(),
            message.as_str(),
            file.as_str(),
            object.as_deref(),
        );
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "gstreamer", tracing::Level::$level, category, object, file, line, "{message}"
                )
            };
        }
        match level {
            gst::DebugLevel::Error => event!(ERROR),
            gst::DebugLevel::Warning => event!(WARN),
            gst::DebugLevel::Fixme | gst::DebugLevel::Info => event!(INFO),
            gst::DebugLevel::Debug => event!(DEBUG),
            _ => event!(TRACE),
        }
    });
}

/// Standard error, led through this process: each line becomes an event.
struct Capture {
    /// Where standard error went before.
    terminal: OwnedFd,
    drained: Receiver<()>,
}

impl Capture {
    /// None where there are no more files to be had: then lines stay as they are.
    fn begin() -> Option<Self> {
        let terminal = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
        let (reader, writer) = std::io::pipe().ok()?;
        let (done, drained) = channel();
        let reading = std::thread::Builder::new()
            .name("masam-log".into())
            .spawn(move || {
                relay(reader);
                let _ = done.send(()); // the end may have stopped waiting
            });
        reading.ok()?;
        rustix::stdio::dup2_stderr(&writer).ok()?;
        Some(Self { terminal, drained })
    }

    fn end(self) {
        // Closes this process's last writing end of the pipe.
        if rustix::stdio::dup2_stderr(&self.terminal).is_ok() {
            let _ = self.drained.recv_timeout(DRAIN); // what comes later is lost
        }
    }
}

/// Makes an event of each line; what the program says of trouble is a warning.
fn relay(reader: PipeReader) {
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        match line.strip_prefix("masam: ") {
            _ if line.is_empty() => {}
            Some(trouble) => tracing::warn!(target: "stderr", "{trouble}"),
            None => tracing::info!(target: "stderr", "{line}"),
        }
    }
}
