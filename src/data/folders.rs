//! Data sets of one's own: a folder of images, a folder of masks beside it, and a class table.
//!
//! ```text
//! classes.json                             what ids or colors mean (see `class_table`)
//! images/frame000.png  masks/frame000.png  one sequence, or
//! images/SEQ/…         masks/SEQ/…         one for each folder, or
//! SEQ/images/…         SEQ/masks/…         the same the other way round
//! train.txt val.txt test.txt               names of frames: parts one folder of images into up to three sequences
//! ```
//! A sequence below a folder called `train`, `val` or `test` is on that side. A mask belongs to the frame of its name,
//! with or without `_mask` or the like behind it.

use super::class_table;
use super::dataset::{Dataset, Frame, Kind, Reader, Role, Sequence, own_name};
use super::endovis18::read_together;
use super::layout::{Layout, Pair, lower_name};
use super::names::trailing_number;
use super::note::{Note, add_sidecars};
use super::picture;
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders of images, in lower case; CVAT's and Pascal VOC's is the last.
pub(super) const IMAGES: [&str; 7] = ["images", "image", "imgs", "img", "frames", "rgb", "jpegimages"];

/// Folders of masks, in lower case.
pub(super) const MASKS: [&str; 10] = [
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentationclass",
    "segmentations",
    "ground_truth",
    "gt",
];

/// What tools put behind the name of a frame.
const SUFFIXES: [&str; 12] = [
    "_mask",
    "-mask",
    "_masks",
    "_label",
    "-label",
    "_labels",
    "_seg",
    "_segmentation",
    "_gt",
    "_annotation",
    "_labelids",
    "_class",
];

/// Longest list of frames that is read.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Lists the sequences of `layout`.
///
/// # Errors
/// A folder or table that cannot be read; no class table; images with several folders of masks; pictures beside folders;
/// masks none of which belongs to an image.
pub fn open(layout: &Layout) -> Result<Dataset> {
    let table = class_table::own(&layout.class_tables)?;
    let mut data = Dataset {
        root: layout.root.clone(),
        kind: Kind::Folders,
        classes: table.classes.clone(),
        sequences: Vec::new(),
        repairs: Vec::new(),
        notes: table.notes.clone(),
        accept_unknown_labels: false,
    };
    for pair in &layout.pairs {
        let masks = masks_of(pair)?;
        let below = picture_folders(&pair.images)?;
        for folder in &below {
            let name = name_of(layout, pair, folder);
            let inside = folder.strip_prefix(&pair.images).unwrap_or(Path::new(""));
            let labels = masks.as_ref().map(|masks| masks.join(inside));
            let frames = frames(&name, folder, labels.as_deref(), &mut data.notes)?;
            let role = role_of(&name).unwrap_or(Role::Train);
            let lists = if below.len() == 1 {
                lists(&pair.folder)?
            } else {
                Vec::new()
            };
            for (name, role, frames) in parted(name, role, frames, &lists, &mut data.notes)? {
                data.sequences.push(Sequence {
                    number: trailing_number(&name),
                    name,
                    role,
                    folder: folder.clone(),
                    frames,
                    reader: Reader::Pictures(Arc::new(super::coding::Labeling::new(
                        table.clone(),
                        Vec::new(),
                    ))),
                });
            }
        }
    }
    let is_labelled = data.sequences.iter().any(Sequence::is_labelled);
    if is_labelled && layout.class_tables.is_empty() {
        let cause = "no class table (expected classes.json beside the images, for example [{\"id\": 0, \"name\": \
                     \"background\"}, {\"id\": 1, \"name\": \"liver\", \"color\": \"#ff0000\"}]; see docs/datasets.md)";
        return Err(Error::file(&layout.root, cause));
    }
    if !is_labelled && !data.sequences.is_empty() {
        let cause = "no masks (expected a folder masks beside the images). An export of COCO or CVAT becomes a data set \
                     by `masam data import`";
        return Err(Error::file(&layout.root, cause));
    }
    read_together(&mut data, table);
    Ok(data)
}

/// The folder of masks beside a folder of images.
fn masks_of(pair: &Pair) -> Result<Option<PathBuf>> {
    let named = |path: &&PathBuf| MASKS.contains(&lower_name(path).as_str());
    let like = |path: &&PathBuf| {
        let name = lower_name(path);
        ["mask", "label", "annot", "segment"]
            .iter()
            .any(|word| name.contains(word))
    };
    let exact: Vec<&PathBuf> = pair.others.iter().filter(named).collect();
    let candidates = match exact.len() {
        // Instances of objects, which CVAT writes beside the classes, have another name.
        1.. => exact,
        0 => pair.others.iter().filter(like).collect(),
    };
    match candidates[..] {
        [] => Ok(None),
        [masks] => Ok(Some(masks.clone())),
        _ => {
            let names: Vec<String> = candidates.iter().map(|p| own_name(p)).collect();
            let cause = format!(
                "{} folders of masks: {} (expected one; call it masks)",
                names.len(),
                names.join(", ")
            );
            Err(Error::file(&pair.folder, cause))
        }
    }
}

/// The folders with pictures at or below `images`; pictures lie in the last of them only.
fn picture_folders(images: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(images.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let pictures = !picture::list(&folder)?.pictures.is_empty();
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(|cause| Error::file(&folder, cause))? {
            let path = entry.map_err(|cause| Error::file(&folder, cause))?.path();
            if path.is_dir() && !lower_name(&path).starts_with(['.', '_']) {
                folders.push(path);
            }
        }
        match (pictures, folders.is_empty()) {
            (true, true) => found.push(folder),
            (true, false) => {
                let cause =
                    "it holds pictures and folders (expected pictures alone, or a folder for each sequence)";
                return Err(Error::file(&folder, cause));
            }
            (false, _) if depth < 4 => open.extend(folders.into_iter().map(|folder| (folder, depth + 1))),
            (false, _) => {}
        }
    }
    found.sort();
    Ok(found)
}

/// The folders that lead to the pictures, without the folder called images: `train/seq_1`.
fn name_of(layout: &Layout, pair: &Pair, folder: &Path) -> String {
    let outside = pair.folder.strip_prefix(&layout.root).unwrap_or(Path::new(""));
    let inside = folder.strip_prefix(&pair.images).unwrap_or(Path::new(""));
    // Joining nothing would leave a slash at the end.
    let way: PathBuf = outside.iter().chain(inside).collect();
    if way.as_os_str().is_empty() {
        return own_name(&layout.root);
    }
    way.display().to_string()
}

/// The side that the folders of a sequence say.
fn role_of(name: &str) -> Option<Role> {
    let words = name.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    let role = |word: String| match word.as_str() {
        "train" | "training" | "trainset" => Some(Role::Train),
        "val" | "valid" | "validation" => Some(Role::Validation),
        "test" | "testing" | "testset" => Some(Role::Test),
        _ => None,
    };
    words.into_iter().filter_map(role).next()
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Labels by the names of their frames; with them those that belong to none.
pub(super) fn by_frame(
    frames: &[PathBuf],
    labels: Vec<PathBuf>,
) -> (BTreeMap<String, PathBuf>, Vec<PathBuf>) {
    let names: BTreeSet<String> = frames.iter().map(|path| stem(path)).collect();
    let exact = |path: &PathBuf| names.contains(&stem(path));
    let (exact, others): (Vec<_>, Vec<_>) = labels.into_iter().partition(exact);
    let mut found: BTreeMap<String, PathBuf> = exact.into_iter().map(|path| (stem(&path), path)).collect();
    let mut lonely = Vec::new();
    for path in others {
        let name = stem(&path);
        let lower = name.to_lowercase();
        let bare = |suffix: &&str| name.get(..lower.strip_suffix(*suffix)?.len()).map(str::to_owned);
        let frame = SUFFIXES.iter().filter_map(bare).find(|bare| names.contains(bare));
        match frame.filter(|frame| !found.contains_key(frame)) {
            Some(frame) => drop(found.insert(frame, path)),
            None => lonely.push(path),
        }
    }
    (found, lonely)
}

fn frames(name: &str, images: &Path, labels: Option<&Path>, notes: &mut Vec<Note>) -> Result<Vec<Frame>> {
    let pictures = picture::list(images)?;
    add_sidecars(notes, pictures.sidecars);
    let mut listed = Vec::new();
    if let Some(labels) = labels.filter(|labels| labels.is_dir()) {
        let found = picture::list(labels)?;
        add_sidecars(notes, found.sidecars);
        if found.pictures.is_empty() {
            let cause = "it holds no mask pictures. An export of COCO or CVAT becomes a data set by `masam data import`";
            return Err(Error::file(labels, cause));
        }
        listed = found.pictures;
    }
    let (masks, images) = (listed.first().cloned(), pictures.pictures);
    let (mut found, lonely) = by_frame(&images, listed);
    if let (Some(mask), true) = (masks, found.is_empty()) {
        let frame = images.first().map(|path| stem(path)).unwrap_or_default();
        let cause = format!(
            "no mask has the name of an image: {} and {frame}, for example",
            stem(&mask)
        );
        return Err(Error::file(labels.unwrap_or(Path::new("")), cause));
    }
    notes.extend(lonely.into_iter().map(|path| Note::MissingFrame {
        sequence: name.to_owned(),
        path,
    }));
    let is_labelled = !found.is_empty();
    let frame = |image: PathBuf| {
        let frame = stem(&image);
        let label = found.remove(&frame);
        if let (None, true, Some(labels)) = (&label, is_labelled, labels) {
            notes.push(Note::MissingLabel {
                sequence: name.to_owned(),
                frame: frame.clone(),
                path: labels.join(format!("{frame}.png")),
            });
        }
        Frame {
            name: frame,
            image,
            label,
            repaired: false,
        }
    };
    Ok(images.into_iter().map(frame).collect())
}

/// `train.txt`, `val.txt` and `test.txt` beside the images or where Pascal VOC has them: names of frames.
fn lists(folder: &Path) -> Result<Vec<(&'static str, Role, BTreeSet<String>)>> {
    let mut lists = Vec::new();
    for (name, role) in [
        ("train", Role::Train),
        ("val", Role::Validation),
        ("test", Role::Test),
    ] {
        let places = [folder.to_owned(), folder.join("ImageSets/Segmentation")];
        let files = places.iter().map(|place| place.join(format!("{name}.txt")));
        let Some(path) = files.into_iter().find(|path| path.is_file()) else {
            continue;
        };
        let text = regular_file::read_text(&path, MAX_LIST_BYTES)?;
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        let named = |word: &str| {
            let path = Path::new(word);
            if picture::is_picture(path) {
                stem(path)
            } else {
                word.rsplit('/').next().unwrap_or(word).to_owned()
            }
        };
        lists.push((name, role, words.map(named).collect::<BTreeSet<_>>()));
    }
    Ok(lists)
}

/// A sequence in parts by lists of its frames' names; whole without lists.
fn parted(
    name: String,
    role: Role,
    frames: Vec<Frame>,
    lists: &[(&'static str, Role, BTreeSet<String>)],
    notes: &mut Vec<Note>,
) -> Result<Vec<(String, Role, Vec<Frame>)>> {
    if lists.is_empty() {
        return Ok(vec![(name, role, frames)]);
    }
    let mut parts: Vec<(String, Role, Vec<Frame>)> = lists
        .iter()
        .map(|(list, role, _)| ((*list).to_owned(), *role, Vec::new()))
        .collect();
    let mut left = 0;
    for frame in frames {
        let places: Vec<usize> = (0..lists.len())
            .filter(|&at| lists.get(at).is_some_and(|l| l.2.contains(&frame.name)))
            .collect();
        match places[..] {
            [] => left += 1,
            [at] => parts
                .get_mut(at)
                .into_iter()
                .for_each(|part| part.2.push(frame.clone())),
            _ => {
                let bound = "a frame is in one of train.txt, val.txt and test.txt";
                return Err(Error::config("frame", frame.name, bound));
            }
        }
    }
    if left > 0 {
        notes.push(Note::NotListed {
            sequence: name,
            frames: left,
        });
    }
    parts.retain(|(_, _, frames)| !frames.is_empty());
    Ok(parts)
}
