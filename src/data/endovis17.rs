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
//!
//! The values of parts are those above, by the kind of folder: 30 is a clasper in one and a shaft in the other, so a
//! mapping that merely states the other folder's values is not followed. One with values of its own is.

use super::class_table::read_json;
use super::dataset::{
    Dataset, Frame, Kind, Note, Reader, Role, Sequence, Task2017, add_sidecars, own_name, role_by_folder,
    same_size,
};
use super::layout::{GRADED, LEFT, Layout, lower_name};
use super::names::trailing_number;
use super::palette::{OddColor, Tally};
use super::picture;
use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::labels::{Class, ClassSet, NO_MASK};
use image::GrayImage;
use serde_json::Value;
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

/// Values of shaft, wrist and clasper in the mask of one instrument.
const TRAINING_PARTS: [u8; 3] = [10, 20, 30];

/// Values of shaft, wrist and clasper in `PartsSegmentation`, and of the probe, which is background.
const TEST_PARTS: [u8; 3] = [30, 100, 255];
const TEST_PROBE: u8 = 200;

/// Types in the challenge's order, from id 1, and what their folders' names hold.
const TYPES: [(&str, &str); 7] = [
    ("bipolar-forceps", "bipolar"),
    ("prograsp-forceps", "prograsp"),
    ("large-needle-driver", "needle driver"),
    ("vessel-sealer", "vessel sealer"),
    ("grasping-retractor", "grasping retractor"),
    ("monopolar-curved-scissors", "scissors"),
    ("other", "other"),
];

/// Id of the type `other`.
const OTHER: u8 = 7;

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
#[derive(Debug, Clone)]
pub struct MaskFolder {
    /// The folder.
    pub path: PathBuf,
    /// Class id of each value; [`NO_MASK`] for values without a meaning.
    class_of: [u8; 256],
    /// Files by the names of their frames.
    files: BTreeMap<String, PathBuf>,
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
    let pictures = picture::list(&folder.join(LEFT))?;
    add_sidecars(notes, pictures.sidecars);
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
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
        Role::Train => own,
        Role::Test => format!("test/{own}"),
    };
    let mut masks = mask_folders(layout, folder, task, notes)?;
    if masks.is_empty() && role == Role::Test {
        // The labels of the test set are a download of their own.
        let wanted = |path: &PathBuf| number.is_some() && dataset_number(path) == number;
        if let Some(place) = unused.iter().position(wanted) {
            masks.extend(graded(layout, &unused.remove(place), task)?);
        }
    }
    for masks in &mut masks {
        let found = picture::list(&masks.path)?;
        add_sidecars(notes, found.sidecars);
        masks.files = found
            .pictures
            .into_iter()
            .map(|path| (stem(&path), path))
            .collect();
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
    let places = [folder.join("ground_truth"), folder.join("gt"), folder.to_owned()];
    for place in &places {
        if GRADED.iter().any(|name| place.join(name).is_dir()) {
            return Ok(graded(layout, place, task)?.into_iter().collect());
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
        let files = BTreeMap::new();
        masks.push(MaskFolder {
            path,
            class_of,
            files,
        });
    }
    Ok(masks)
}

/// The masks of `task` in a folder of the test labels.
fn graded(layout: &Layout, place: &Path, task: Task2017) -> Result<Option<MaskFolder>> {
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
    let files = BTreeMap::new();
    Ok(Some(MaskFolder {
        path,
        class_of,
        files,
    }))
}

/// The type that a folder's or mapping's name means.
fn type_of(name: &str) -> Option<u8> {
    let words = name
        .to_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), " ");
    let place = TYPES.iter().position(|(_, part)| words.contains(part));
    place.and_then(|p| u8::try_from(p + 1).ok())
}

/// Class of each value of a part: `known` unless a mapping has values of its own.
fn part_values(layout: &Layout, folder: &Path, known: [u8; 3]) -> Result<BTreeMap<usize, u8>> {
    let mut values: BTreeMap<usize, u8> = known.iter().map(|v| usize::from(*v)).zip(1..).collect();
    if known == TEST_PARTS {
        values.insert(usize::from(TEST_PROBE), 0);
    }
    let Some(path) = nearest_mapping(layout, folder, &["parts", "class"]) else {
        return Ok(values);
    };
    let named = read_mapping(path)?;
    let value_of = |part: &str| {
        named
            .iter()
            .find(|(name, _)| name.contains(part))
            .map(|(_, v)| *v)
    };
    let (Some(shaft), Some(wrist), Some(clasper)) =
        (value_of("shaft"), value_of("wrist"), value_of("clasper"))
    else {
        return Err(Error::file(path, "it does not name shaft, wrist and clasper"));
    };
    let own = [shaft, wrist, clasper];
    if own != TRAINING_PARTS && own != TEST_PARTS {
        // Whatever else it names is no part of a robotic instrument.
        values = named.iter().map(|(_, value)| (usize::from(*value), 0)).collect();
        values.extend(own.iter().map(|v| usize::from(*v)).zip(1..));
    }
    Ok(values)
}

/// Class of each value in `TypeSegmentation`: by the names of a mapping, without one the challenge's order.
fn type_values(layout: &Layout, folder: &Path) -> Result<Vec<(u8, u8)>> {
    let Some(path) = nearest_mapping(layout, folder, &["type"]) else {
        return Ok((1..=OTHER).map(|id| (id, id)).collect());
    };
    let known = |(name, value): (String, u8)| match type_of(&name) {
        Some(id) => Ok((value, id)),
        None if value == 0 => Ok((0, 0)),
        None => Err(Error::file(path, format!("{name} is no type of instrument"))),
    };
    read_mapping(path)?.into_iter().map(known).collect()
}

/// The mapping in the deepest folder that is above `folder`, or holds all that is found.
fn nearest_mapping<'a>(layout: &'a Layout, folder: &Path, words: &[&str]) -> Option<&'a PathBuf> {
    let named = |p: &&PathBuf| words.iter().any(|w| lower_name(p).contains(w));
    let above = |p: &&PathBuf| p.parent().is_some_and(|parent| folder.starts_with(parent));
    let candidates = layout.mappings.iter().filter(named).filter(above);
    candidates.max_by_key(|p| p.components().count())
}

/// A mapping as names in lower case and values, whichever of the two is the key.
fn read_mapping(path: &Path) -> Result<Vec<(String, u8)>> {
    let Value::Object(fields) = read_json(path)? else {
        return Err(Error::file(path, "it is no object of names and values"));
    };
    let pair = |(key, value): (String, Value)| {
        let wrong = || {
            let cause =
                format!("{key}: {value} is neither a name and a value of 0 to 255 nor the other way round");
            Error::file(path, cause)
        };
        let number = |n: u64| u8::try_from(n).map_err(|_| wrong());
        match &value {
            Value::Number(n) => Ok((key.to_lowercase(), number(n.as_u64().ok_or_else(wrong)?)?)),
            Value::String(name) => Ok((name.to_lowercase(), number(key.parse().map_err(|_| wrong())?)?)),
            _ => Err(wrong()),
        }
    };
    fields.into_iter().map(pair).collect()
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
        let mask = picture::read_gray(path)?;
        let mut counts = [0_u64; 256];
        let inside =
            image::imageops::crop_imm(&mask, origin.0, origin.1, scene.width_px, scene.height_px).to_image();
        for (class, value) in classes.iter_mut().zip(inside.iter()) {
            counts[usize::from(*value)] += 1;
            *class = (*class).max(masks.class_of[usize::from(*value)]);
        }
        for (value, &pixels) in (0..=u8::MAX).zip(&counts) {
            if pixels > 0 && masks.class_of[usize::from(value)] == NO_MASK {
                tally.count([value; 3], unknown(&masks.class_of, value, pixels));
            }
        }
    }
    Ok(classes)
}

/// A value without a meaning, and the class whose value is nearest.
fn unknown(class_of: &[u8; 256], value: u8, pixels: u64) -> OddColor {
    let known = (0..=u8::MAX).filter(|v| class_of[usize::from(*v)] != NO_MASK);
    let nearest = known.min_by_key(|v| v.abs_diff(value)).unwrap_or(0);
    OddColor {
        pixels,
        nearest: class_of[usize::from(nearest)],
        distance: nearest.abs_diff(value),
        repaired: false,
    }
}
