//! The library's one error type: every variant names what it is about, the value found and the bound it broke.

use crate::segmenter::SegmentError;
use std::fmt::Display;
use std::path::PathBuf;

/// What went wrong, with the value and the bound. GStreamer and program errors are made from it at their own boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration, property or option has a value outside its bounds.
    #[error("{} is {}, but {}", name(field), name(value), sentence(bound))]
    Config {
        /// The field as the user wrote it, for example `image_side_px`.
        field: String,
        /// The value found.
        value: String,
        /// What it has to be.
        bound: String,
    },
    /// Several fields are wrong; all of them are reported at once.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
    /// A configuration file is wrong: everything that is, each with its line and full name.
    #[error("{}", configuration(path, faults))]
    Configuration {
        /// The file, where it is known.
        path: Option<PathBuf>,
        /// One thing each, in the order of their lines.
        faults: Vec<String>,
    },
    /// A file could not be read, written or understood.
    #[error("{}: {}", name(path.display()), sentence(cause))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause, naming the offset, key or tensor where there is one.
        cause: String,
    },
    /// A tensor of a file or an input has the wrong shape, type or content.
    #[error("tensor {}: {}", self::name(name), sentence(cause))]
    Tensor {
        /// Canonical name of the weight, or the name of the input.
        name: String,
        /// What is wrong, with both shapes where shapes differ.
        cause: String,
    },
    /// A set of weights does not fit the model: everything that is missing, extra or misshapen at once.
    #[error(
        "the weights do not fit the model: {}",
        describe_misfit(missing, extra, misshapen)
    )]
    Misfit {
        /// Names the model needs and the file lacks.
        missing: Vec<String>,
        /// Names in the file that the model does not know.
        extra: Vec<String>,
        /// `name: shape in file, shape in model`.
        misshapen: Vec<String>,
    },
    /// Something that exists elsewhere cannot be done with this build, device or model.
    #[error("{} is not available: {}", name(what), sentence(why))]
    Unavailable {
        /// What was asked for.
        what: String,
        /// What is missing, and the cure where there is one.
        why: String,
    },
    /// The model computed no mask for a frame.
    #[error("frame {frame} has no mask: {cause}")]
    NoMask {
        /// Index of the frame in its sequence, from 0.
        frame: u64,
        /// What failed.
        cause: SegmentError,
    },
    /// Candle failed inside a forward pass.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// An operating-system error without a file of its own.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A [`Error::Config`] from anything printable.
    pub fn config(field: impl Into<String>, value: impl ToString, bound: impl Into<String>) -> Self {
        Error::Config {
            field: field.into(),
            value: value.to_string(),
            bound: bound.into(),
        }
    }

    /// A [`Error::File`] for `path`.
    pub fn file(path: impl Into<PathBuf>, cause: impl ToString) -> Self {
        Error::File {
            path: path.into(),
            cause: cause.to_string(),
        }
    }

    /// A [`Error::Tensor`] for `name`.
    pub fn tensor(name: impl Into<String>, cause: impl ToString) -> Self {
        Error::Tensor {
            name: name.into(),
            cause: cause.to_string(),
        }
    }
}

/// One error per broken field: nothing for none, the error itself for one, [`Error::Several`] for more.
pub fn all_of(mut errors: Vec<Error>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

/// At most this many names of each kind are spelled out; a foreign checkpoint can differ in hundreds.
const NAMES_SHOWN: usize = 12;

/// Most characters of a name or value that a message shows.
const NAME_CHARS: usize = 200;

/// Most characters of a cause, which may list several names.
const SENTENCE_CHARS: usize = 8000;

/// A name or value as a message shows it. It may come from a file: control characters, which could forge lines or
/// drive a terminal, are escaped, and what is very long is cut.
pub(crate) fn name(text: impl Display) -> String {
    printable(text, NAME_CHARS)
}

/// The same for a whole cause.
fn sentence(text: impl Display) -> String {
    printable(text, SENTENCE_CHARS)
}

/// Done twice, it is done once: a cause may hold the text of another error.
fn printable(text: impl Display, max_chars: usize) -> String {
    let text = text.to_string();
    let mut shown = String::with_capacity(text.len().min(max_chars));
    let mut rest = text.chars();
    for char in rest.by_ref().take(max_chars) {
        // The marks that turn the direction of writing can show a name as another.
        let turns =
            matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || turns {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    match rest.count() {
        0 => shown,
        more => shown + &format!("… ({more} characters more)"),
    }
}

fn join(errors: &[Error]) -> String {
    let shown = errors.iter().take(NAMES_SHOWN).map(Error::to_string);
    let mut text = shown.collect::<Vec<_>>().join("; ");
    let more = errors.len().saturating_sub(NAMES_SHOWN);
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

fn configuration(path: &Option<PathBuf>, faults: &[String]) -> String {
    let file = path
        .as_ref()
        .map_or("configuration".into(), |path| name(path.display()));
    match faults {
        [only] => format!("{file}: {}", sentence(only)),
        _ => {
            let lines = faults.iter().map(|fault| format!("\n  {}", sentence(fault)));
            format!("{file}: {} errors{}", faults.len(), lines.collect::<String>())
        }
    }
}

fn describe_misfit(missing: &[String], extra: &[String], misshapen: &[String]) -> String {
    let list = |what: &str, names: &[String]| {
        if names.is_empty() {
            return None;
        }
        let shown = names
            .iter()
            .take(NAMES_SHOWN)
            .map(name)
            .collect::<Vec<_>>()
            .join(", ");
        let rest = names.len().saturating_sub(NAMES_SHOWN);
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        Some(format!("{} {what}: {shown}{more}", names.len()))
    };
    [
        list("missing", missing),
        list("extra", extra),
        list("misshapen", misshapen),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_lines_or_fill_the_screen() {
        let hostile = format!("a\nmasam: all is well\u{1b}[2J\u{202e}{}", "x".repeat(5_000_000));
        for error in [
            Error::tensor(&hostile, &hostile),
            Error::config(&hostile, &hostile, &hostile),
            Error::file(&hostile, Error::tensor(&hostile, &hostile)),
            Error::Several(vec![Error::tensor(&hostile, ""), Error::tensor(&hostile, "")]),
            Error::Misfit {
                missing: vec![hostile.clone(); 100],
                extra: vec![hostile.clone()],
                misshapen: vec![hostile.clone()],
            },
        ] {
            let text = error.to_string();
            assert!(text.chars().count() < 20_000, "{} bytes", text.len());
            assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']), "{text:?}");
            assert!(text.contains("a\\nmasam: all is well\\u{1b}[2J"), "{text:?}");
            assert!(text.contains("characters more)"), "{text:?}");
        }
        let plain = "Größe \\ \"x\"";
        assert_eq!(
            Error::tensor(plain, "it is 3").to_string(),
            format!("tensor {plain}: it is 3")
        );
    }
}
