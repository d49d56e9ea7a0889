//! The library's one error type: every variant names what it is about, the value found and the bound it broke.

use std::path::PathBuf;

/// What went wrong, with the value and the bound. GStreamer and program errors are made from it at their own boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration, property or option has a value outside its bounds.
    #[error("{field} is {value}, but {bound}")]
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
    /// A file could not be read, written or understood.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause, naming the offset, key or tensor where there is one.
        cause: String,
    },
    /// A tensor of a file or an input has the wrong shape, type or content.
    #[error("tensor {name}: {cause}")]
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
    #[error("{what} is not available: {why}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// What is missing, and the cure where there is one.
        why: String,
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

fn join(errors: &[Error]) -> String {
    errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

/// At most this many names of each kind are spelled out; a foreign checkpoint can differ in hundreds.
const NAMES_SHOWN: usize = 12;

fn describe_misfit(missing: &[String], extra: &[String], misshapen: &[String]) -> String {
    let list = |what: &str, names: &[String]| {
        if names.is_empty() {
            return None;
        }
        let shown = names
            .iter()
            .take(NAMES_SHOWN)
            .cloned()
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
