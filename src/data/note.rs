//! What is odd about a folder, in words and as JSON.

use super::layout::LEFT;
use std::fmt;
use std::path::PathBuf;

/// Something odd about a folder that does not keep it from being used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Note {
    /// A tree of macOS' shadow files, skipped.
    Macosx {
        /// Its folder.
        path: PathBuf,
    },
    /// `._*` files beside real ones, skipped.
    Sidecars {
        /// How many.
        files: usize,
    },
    /// A frame of a labelled sequence without a label, or without one of its masks; it counts as not labelled.
    MissingLabel {
        /// Name of the sequence.
        sequence: String,
        /// Name of the frame.
        frame: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// A label whose frame is missing; it is not used.
    MissingFrame {
        /// Name of the sequence.
        sequence: String,
        /// The label.
        path: PathBuf,
    },
    /// A corrected label that belongs to no frame of the training sequences here.
    UnusedRepair {
        /// The corrected label.
        path: PathBuf,
    },
    /// A `labels.json` or mapping that differs from the challenge's own list.
    ClassTable {
        /// The file.
        path: PathBuf,
        /// How it differs.
        text: String,
    },
    /// The same sequence of the same release more than once; all are kept, under names that tell them apart.
    Twice {
        /// The name they would share.
        sequence: String,
        /// Their folders.
        folders: Vec<PathBuf>,
    },
    /// A sequence whose `left_frames` has no pictures; it is left out.
    Empty {
        /// Its folder.
        path: PathBuf,
    },
    /// Labels whose sequence is not here.
    UnusedLabels {
        /// Their folder.
        path: PathBuf,
    },
    /// A training sequence without any label beside others that have some.
    Unlabelled {
        /// Name of the sequence.
        sequence: String,
        /// Its folder.
        path: PathBuf,
    },
    /// Frames that no list of the data set names; they are left out.
    NotListed {
        /// Name of the sequence.
        sequence: String,
        /// How many.
        frames: usize,
    },
    /// Frames whose numbers follow each other at more than the sequence's usual distance.
    Gap {
        /// Name of the sequence.
        sequence: String,
        /// The last frame before the gap.
        after: String,
        /// The first one after it.
        before: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Macosx { path } => write!(f, "{}: shadow files of macOS, skipped", path.display()),
            Note::Sidecars { files } => write!(f, "{files} ._* files, skipped"),
            Note::MissingLabel {
                sequence,
                frame,
                path,
            } => {
                write!(f, "{sequence} {frame}: no label, {} is missing", path.display())
            }
            Note::MissingFrame { sequence, path } => {
                write!(f, "{sequence}: {} has no frame, not used", path.display())
            }
            Note::UnusedRepair { path } => {
                write!(f, "{}: corrects no frame of this data set", path.display())
            }
            Note::ClassTable { path, text } => write!(f, "{}: {text}", path.display()),
            Note::Twice { sequence, folders } => {
                let folders: Vec<_> = folders.iter().map(|p| p.display().to_string()).collect();
                write!(
                    f,
                    "{sequence} is here {} times: {}",
                    folders.len(),
                    folders.join(", ")
                )
            }
            Note::Empty { path } => write!(f, "{}: {LEFT} has no pictures, left out", path.display()),
            Note::UnusedLabels { path } => {
                write!(f, "{}: labels of a sequence that is not here", path.display())
            }
            Note::Unlabelled { sequence, path } => {
                write!(f, "{sequence}: {} has no labels, others have", path.display())
            }
            Note::NotListed { sequence, frames } => {
                write!(f, "{sequence}: {frames} frames in no list, left out")
            }
            Note::Gap {
                sequence,
                after,
                before,
            } => write!(f, "{sequence}: no frames between {after} and {before}"),
        }
    }
}

/// Counts `files` shadow files into the note about them.
pub(super) fn add_sidecars(notes: &mut Vec<Note>, files: usize) {
    for note in notes.iter_mut() {
        if let Note::Sidecars { files: known } = note {
            *known += files;
            return;
        }
    }
    if files > 0 {
        notes.push(Note::Sidecars { files });
    }
}
