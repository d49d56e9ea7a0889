//! EndoVis 2017 instrument segmentation as it was released.
//!
//! ```text
//! instrument_1_4_training/instrument_dataset_1/left_frames/frame000.png          225 frames, 1920x1080
//! instrument_1_4_training/instrument_dataset_1/ground_truth/Other_labels/…       one folder for each instrument
//! instrument_1_4_training/…/ground_truth/Left_Prograsp_Forceps_labels/…          10 shaft, 20 wrist, 30 clasper
//! instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png           75 frames; 300 in 9 and 10
//! instrument_2017_test/instrument_dataset_1/PartsSegmentation/frame225.png       30 shaft, 100 wrist, 255 clasper
//! parts_mapping.json  type_mapping.json                                          what the values are called
//! ```
//!
//! The scene is 1280x1024 at (320, 28) of a 1920x1080 picture; the border is cut off pictures and masks.
//!
//! A frame's masks are combined by the **maximum of the class id** at each pixel: where instruments overlap, the
//! clasper wins over the wrist and the wrist over the shaft, the later type over the earlier, and a pixel that any
//! mask leaves unknown is ignored. `Other` (ultrasound probe, laparoscopic tools) is background in the binary and
//! parts tasks, and a type of its own. The order of parts is shaft, wrist, clasper: EndoVis 2018 swaps the last two.

use super::class_table::ClassTable;
use super::coding::{LabelCounts, Labeling};
use super::dataset::{
    Dataset, Frame, Kind, Reader, Role, Sequence, Task2017, own_name, role_by_folder, same_size,
};
use super::layout::{GRADED, LEFT, Layout, child, lower_name};
use super::mappings::{OTHER, TEST_PARTS, TRAINING_PARTS, TYPES, part_values, type_of, type_values};
use super::names::trailing_number;
use super::note::{Note, add_sidecars};
use super::palette::Tally;
use super::picture;
use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::labels::{Class, ClassSet, NO_MASK};
use image::GrayImage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of a stored picture with its border.
const STORED: Size = Size {
    width_px: 1920,
    height_px: 1080,
};

/// Where the scene is in it.
const SCENE: Rect = Rect {
    x_px: 320,
    y_px: 28,
    width_px: 1280,
    height_px: 1024,
};

/// Lowest number of a test frame of sequences 1 to 8, and of a sequence that was only released for testing.
const FIRST_TEST_FRAME: u32 = 225;
const FIRST_TEST_SEQUENCE: u32 = 9;

/// The classes of a task. Parts have the names and colours they have in EndoVis 2018.
pub fn classes(task: Task2017) -> ClassSet {
    let names: Vec<String> = match task {
        Task2017::Binary => vec!["background".into(), "instrument".into()],
        Task2017::Parts => {
            let parts = ["shaft", "wrist", "clasper"].map(|part| format!("instrument-{part}"));
            std::iter::once("background".into()).chain(parts).collect()
        }
        Task2017::Type => {
            let types = TYPES.iter().map(|(name, _)| String::from(*name));
            std::iter::once("background".into()).chain(types).collect()
        }
    };
    let scene = ClassSet::endovis_2018();
    let fallback = ClassSet::numbered(names.len()).ok();
    let color = |id: usize, name: &str| {
        let known = scene.iter().find(|c| c.name == name);
        let other = fallback.as_ref().and_then(|set| set.iter().nth(id));
        known.or(other).map_or([0; 3], |c| c.color)
    };
    let classes = names.into_iter().enumerate().map(|(id, name)| Class {
        color: color(id, &name),
        name,
    });
    // Two to eight distinct names that are not empty.
    ClassSet::new(classes.collect()).unwrap_or_else(|_| scene.clone())
}

/// One folder of masks and what its values mean.
#[derive(Debug)]
pub struct MaskFolder {
    /// The folder.
    pub path: PathBuf,
    /// Files by the names of their frames.
    files: BTreeMap<String, PathBuf>,
    /// How they are read.
    pub(super) labeling: Labeling,
}

impl MaskFolder {
    /// Lists a folder whose values mean `class_of`, [`NO_MASK`] for nothing.
    fn list(path: PathBuf, task: Task2017, class_of: &[u8; 256], notes: &mut Vec<Note>) -> Result<Self> {
        let found = picture::list(&path)?;
        add_sidecars(notes, found.sidecars);
        let files: BTreeMap<String, PathBuf> = found
            .pictures
            .into_iter()
            .map(|path| (stem(&path), path))
            .collect();
        let known = (0_u16..).zip(class_of).filter(|(_, class)| **class != NO_MASK);
        let table = ClassTable {
            colors: Vec::new(),
            class_of: known.map(|(value, class)| (value, *class)).collect(),
            ..ClassTable::of(classes(task))
        };
        Ok(Self {
            labeling: Labeling::new(table, files.values().cloned().collect()),
            path,
            files,
        })
    }
}

/// File name without suffix.
fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The part of a stored picture that shows the scene, where that is not all of it.
pub(super) fn crop(stored: Size) -> Option<Rect> {
    (stored == STORED).then_some(SCENE)
}

/// Lists the sequences of `layout` for `task`.
///
/// # Errors
/// A folder that cannot be read, or a mapping that cannot be understood.
pub fn open(layout: &Layout, task: Task2017) -> Result<Dataset> {
    let mut data = Dataset {
        root: layout.root.clone(),
        kind: Kind::EndoVis2017,
        classes: classes(task),
        sequences: Vec::new(),
        repairs: Vec::new(),
        notes: Vec::new(),
        accept_unknown_labels: false,
    };
    let mut unused = layout.graded.clone();
    for folder in &layout.sequences {
        match sequence(layout, folder, task, &mut unused, &mut data.notes)? {
            Some(sequence) => data.sequences.push(sequence),
            None => data.notes.push(Note::Empty { path: folder.clone() }),
        }
    }
    data.notes
        .extend(unused.into_iter().map(|path| Note::UnusedLabels { path }));
    Ok(data)
}

fn sequence(
    layout: &Layout,
    folder: &Path,
    task: Task2017,
    unused: &mut Vec<PathBuf>,
    notes: &mut Vec<Note>,
) -> Result<Option<Sequence>> {
    let pictures = picture::list(&child(folder, LEFT).unwrap_or_else(|| folder.join(LEFT)))?;
    add_sidecars(notes, pictures.sidecars);
    let Some(first) = pictures.pictures.first() else {
        return Ok(None);
    };
    let own = own_name(folder);
    let number = trailing_number(&own);
    let late = trailing_number(&stem(first)).is_some_and(|n| n >= FIRST_TEST_FRAME)
        || number.is_some_and(|n| n >= FIRST_TEST_SEQUENCE);
    let guessed = if late { Role::Test } else { Role::Train };
    let role = role_by_folder(&layout.root, folder).unwrap_or(guessed);
    let name = match role {
        Role::Train | Role::Validation => own,
        Role::Test => format!("test/{own}"),
    };
    let mut masks = mask_folders(layout, folder, task, notes)?;
    if masks.is_empty() && role == Role::Test {
        // The labels of the test set are a download of their own.
        let wanted = |path: &PathBuf| number.is_some() && dataset_number(path) == number;
        if let Some(place) = unused.iter().position(wanted) {
            masks.extend(graded(layout, &unused.remove(place), task, notes)?);
        }
    }
    let mut frames = Vec::new();
    for image in pictures.pictures {
        let frame = stem(&image);
        let missing = masks.iter().find(|m| !m.files.contains_key(&frame));
        if let Some(missing) = missing {
            notes.push(Note::MissingLabel {
                sequence: name.clone(),
                frame: frame.clone(),
                path: missing.path.join(format!("{frame}.png")),
            });
        }
        let complete = missing.is_none();
        let label = masks.first().filter(|_| complete).and_then(|m| m.path.parent());
        frames.push(Frame {
            name: frame,
            image,
            label: label.map(Path::to_owned),
            repaired: false,
        });
    }
    for masks in &masks {
        let lonely = masks
            .files
            .iter()
            .filter(|(stem, _)| frames.iter().all(|f| f.name != **stem));
        notes.extend(lonely.map(|(_, path)| Note::MissingFrame {
            sequence: name.clone(),
            path: path.clone(),
        }));
    }
    Ok(Some(Sequence {
        name,
        number,
        role,
        folder: folder.to_owned(),
        frames,
        reader: Reader::Masks(masks.into()),
    }))
}

/// The number of the nearest `instrument_dataset_N` at or above `path`.
fn dataset_number(path: &Path) -> Option<u32> {
    let name = |p: &&Path| lower_name(p).starts_with("instrument_dataset");
    path.ancestors()
        .find(name)
        .and_then(|p| trailing_number(&own_name(p)))
}

/// The folders of masks in a sequence: one for each instrument, or the one of the task in a test set.
fn mask_folders(
    layout: &Layout,
    folder: &Path,
    task: Task2017,
    notes: &mut Vec<Note>,
) -> Result<Vec<MaskFolder>> {
    let inside = |name: &str| child(folder, name).unwrap_or_else(|| folder.join(name));
    let places = [inside("ground_truth"), inside("gt"), folder.to_owned()];
    for place in &places {
        if GRADED.iter().any(|name| place.join(name).is_dir()) {
            return Ok(graded(layout, place, task, notes)?.into_iter().collect());
        }
    }
    let Some(truth) = places.iter().take(2).find(|p| p.is_dir()) else {
        return Ok(Vec::new());
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(truth).map_err(|cause| Error::file(truth, cause))? {
        let path = entry.map_err(|cause| Error::file(truth, cause))?.path();
        if path.is_dir() && !lower_name(&path).starts_with(['.', '_']) {
            folders.push(path);
        }
    }
    folders.sort();
    let parts = part_values(layout, folder, TRAINING_PARTS)?;
    let mut masks = Vec::new();
    for path in folders {
        let kind = type_of(&lower_name(&path));
        if kind.is_none() {
            let text = "its name is no type of instrument; for the type task its pixels are ignored".into();
            let path = path.clone();
            notes.push(Note::ClassTable { path, text });
        }
        let class_of = std::array::from_fn(|value| match (value, task) {
            (0, _) => 0,
            (_, Task2017::Type) => kind.unwrap_or(NO_MASK),
            _ if kind == Some(OTHER) => 0,
            (_, Task2017::Binary) => 1,
            (value, Task2017::Parts) => parts.get(&value).copied().unwrap_or(NO_MASK),
        });
        masks.push(MaskFolder::list(path, task, &class_of, notes)?);
    }
    Ok(masks)
}

/// The masks of `task` in a folder of the test labels.
fn graded(
    layout: &Layout,
    place: &Path,
    task: Task2017,
    notes: &mut Vec<Note>,
) -> Result<Option<MaskFolder>> {
    let folder = match task {
        Task2017::Binary => "BinarySegmentation",
        Task2017::Parts => "PartsSegmentation",
        Task2017::Type => "TypeSegmentation",
    };
    let path = place.join(folder);
    if !path.is_dir() {
        return Ok(None);
    }
    let mut class_of = [NO_MASK; 256];
    match task {
        Task2017::Binary => class_of = [1; 256],
        Task2017::Parts => {
            for (value, class) in part_values(layout, place, TEST_PARTS)? {
                class_of[value.min(255)] = class;
            }
        }
        Task2017::Type => {
            for (value, class) in type_values(layout, place)? {
                class_of[usize::from(value)] = class;
            }
        }
    }
    class_of[0] = 0;
    MaskFolder::list(path, task, &class_of, notes).map(Some)
}

/// Class ids of the scene of one frame: the maximum over its masks.
///
/// # Errors
/// A mask that cannot be read or has another size than the stored picture and the scene.
pub(super) fn combine(
    folders: &Arc<[MaskFolder]>,
    frame: &Frame,
    stored: Size,
    tally: &mut Tally,
) -> Result<GrayImage> {
    let scene = crop(stored).unwrap_or(stored.rect());
    let mut classes = GrayImage::new(scene.width_px, scene.height_px);
    for masks in folders.iter() {
        let Some(path) = masks.files.get(&frame.name) else {
            let cause = format!("there is no mask of {}", frame.name);
            return Err(Error::file(&masks.path, cause));
        };
        let found = picture::size(path)?;
        let origin = if found == scene.size() {
            (0, 0)
        } else {
            same_size(path, found, &frame.image, stored)?;
            (scene.x_px, scene.y_px)
        };
        let mask = masks.labeling.read(path, tally)?;
        let inside =
            image::imageops::crop_imm(&mask, origin.0, origin.1, scene.width_px, scene.height_px).to_image();
        for (class, own) in classes.iter_mut().zip(inside.iter()) {
            *class = (*class).max(*own);
        }
    }
    Ok(classes)
}

/// Pixels of the masks of one frame by what became of them: those of the first mask, and of all masks those without a
/// meaning; `None` where there is no mask that can be read.
pub(super) fn counts(folders: &[MaskFolder], frame: &Frame) -> Option<LabelCounts> {
    let mut all: Option<LabelCounts> = None;
    for masks in folders {
        let own = masks.labeling.counts(masks.files.get(&frame.name)?)?;
        all = Some(match all {
            None => own,
            Some(all) => LabelCounts {
                unknown: (all.unknown + own.unknown).min(all.pixels),
                ignored: all.ignored + own.ignored,
                background: all.background.min(own.background),
                ..all
            },
        });
    }
    all
}
