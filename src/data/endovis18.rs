//! EndoVis 2018 scene segmentation as it was released.
//!
//! ```text
//! miccai_challenge_2018_release_1/labels.json
//! miccai_challenge_2018_release_1/seq_1/left_frames/frame000.png     149 frames, 1280x1024
//! miccai_challenge_2018_release_1/seq_1/right_frames/…               not labelled, not read
//! miccai_challenge_2018_release_1/seq_1/labels/frame000.png          in the colours of labels.json
//! miccai_challenge_release_2/…  _3/…  _4/…                           seq_5 to seq_16, no seq_8
//! repairs/seq_1_frame042.png                                         takes the place of a label
//! test_data/seq_1/…                                                  four sequences of about 250 frames
//! ```
//!
//! The test set has sequences `seq_1` to `seq_4` of its own. They are told from the training sequences by the
//! nearest folder whose name says test or training; where none does, a `seq_1` to `seq_4` of at least
//! [`TEST_FRAMES`] frames is a test sequence, since training sequences have 149.

use super::class_table::{self, ClassTable};
use super::coding::Labeling;
use super::dataset::{Dataset, Frame, Kind, Reader, Role, Sequence, own_name, role_by_folder};
use super::folders::by_frame;
use super::layout::{LEFT, Layout, child};
use super::names::{number_after, trailing_number};
use super::note::{Note, add_sidecars};
use super::picture;
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Fewest frames of a test sequence whose folders do not say what it is.
pub const TEST_FRAMES: usize = 200;

/// Lists the sequences of `layout` and applies its corrected labels.
///
/// # Errors
/// A folder that cannot be read, or a `labels.json` that cannot be understood.
pub fn open(layout: &Layout) -> Result<Dataset> {
    let mut table = class_table::union(&layout.class_tables)?;
    let notes = std::mem::take(&mut table.notes);
    let classes = table.classes.clone();
    let unread = Arc::new(Labeling::new(table.clone(), Vec::new()));
    let mut data = Dataset {
        root: layout.root.clone(),
        kind: Kind::EndoVis2018,
        classes,
        sequences: Vec::new(),
        repairs: Vec::new(),
        notes,
        accept_unknown_labels: false,
    };
    for folder in &layout.sequences {
        match sequence(layout, folder, &unread, &mut data.notes)? {
            Some(sequence) => data.sequences.push(sequence),
            None => data.notes.push(Note::Empty { path: folder.clone() }),
        }
    }
    for path in &layout.repairs {
        repair(&layout.root, path, &mut data);
    }
    read_together(&mut data, table);
    Ok(data)
}

/// Lets all label pictures be read in the same way.
pub(super) fn read_together(data: &mut Dataset, table: ClassTable) {
    let frames = data.sequences.iter().flat_map(|s| &s.frames);
    let files = frames.filter_map(|frame| frame.label.clone()).collect();
    let labeling = Arc::new(Labeling::new(table, files));
    for sequence in &mut data.sequences {
        sequence.reader = Reader::Pictures(labeling.clone());
    }
}

/// One sequence; none where it has no pictures.
fn sequence(
    layout: &Layout,
    folder: &Path,
    unread: &Arc<Labeling>,
    notes: &mut Vec<Note>,
) -> Result<Option<Sequence>> {
    let pictures = picture::list(&child(folder, LEFT).unwrap_or_else(|| folder.join(LEFT)))?;
    add_sidecars(notes, pictures.sidecars);
    if pictures.pictures.is_empty() {
        return Ok(None);
    }
    let own = own_name(folder);
    let number = trailing_number(&own);
    let guessed = || {
        let many = pictures.pictures.len() >= TEST_FRAMES && number.is_some_and(|n| (1..=4).contains(&n));
        if many { Role::Test } else { Role::Train }
    };
    let role = role_by_folder(&layout.root, folder).unwrap_or_else(guessed);
    let name = match role {
        Role::Train | Role::Validation => own,
        Role::Test => format!("test/{own}"),
    };
    let labels_folder = child(folder, "labels").unwrap_or_else(|| folder.join("labels"));
    let mut listed = Vec::new();
    if labels_folder.is_dir() {
        let found = picture::list(&labels_folder)?;
        add_sidecars(notes, found.sidecars);
        listed = found.pictures;
    }
    let (mut labels, lonely) = by_frame(&pictures.pictures, listed);
    if labels.is_empty() && !lonely.is_empty() {
        let cause = "none of these labels has the name of a frame";
        return Err(Error::file(&labels_folder, cause));
    }
    let labelled = !labels.is_empty();
    let mut frames = Vec::new();
    for image in pictures.pictures {
        let frame = stem(&image);
        let label = labels.remove(&frame);
        if labelled && label.is_none() {
            notes.push(Note::MissingLabel {
                sequence: name.clone(),
                frame: frame.clone(),
                path: labels_folder.join(format!("{frame}.png")),
            });
        }
        frames.push(Frame {
            name: frame,
            image,
            label,
            repaired: false,
        });
    }
    notes.extend(lonely.into_iter().map(|path| Note::MissingFrame {
        sequence: name.clone(),
        path,
    }));
    Ok(Some(Sequence {
        name,
        number,
        role,
        folder: folder.to_owned(),
        frames,
        reader: Reader::Pictures(unread.clone()),
    }))
}

/// File name without suffix.
fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Puts a corrected label in its place. Its sequence and frame are in its path below `repairs`, whether that reads
/// `seq_1_frame042.png`, `seq_1/frame042.png` or `seq_1/labels/frame042.png`.
fn repair(root: &Path, path: &Path, data: &mut Dataset) {
    let inside = path.strip_prefix(root).unwrap_or(path).with_extension("");
    let parts: Vec<_> = inside
        .iter()
        .map(|part| part.to_string_lossy().to_lowercase())
        .collect();
    let start = parts.iter().position(|p| p == "repairs").map_or(0, |i| i + 1);
    let way = parts.get(start..).unwrap_or_default().join("_");
    let (sequence, frame) = (number_after(&way, "seq"), number_after(&way, "frame"));
    let mut used = false;
    if sequence.is_some() && frame.is_some() {
        // Where a release was unpacked twice, both copies are corrected.
        let training = data.sequences.iter_mut().filter(|s| s.role == Role::Train);
        for sequence in training.filter(|s| s.number == sequence) {
            let wanted = |f: &&mut Frame| trailing_number(&f.name) == frame;
            if let Some(frame) = sequence.frames.iter_mut().find(wanted) {
                frame.label = Some(path.to_owned());
                frame.repaired = true;
                used = true;
            }
        }
    }
    if !used {
        let path = path.to_owned();
        data.notes.push(Note::UnusedRepair { path });
    }
}
