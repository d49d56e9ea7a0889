//! A folder of endoscopic sequences with labels, as a list of sequences of frames with class ids.
//!
//! ```no_run
//! use masam::data::{Dataset, Split};
//!
//! let data = Dataset::open("endovis2018".as_ref())?;
//! for sequence in data.split(&"val".parse()?)? {
//!     let (image, labels) = (sequence.image(0)?, sequence.labels(0)?);
//!     println!("{}: {:?}, labelled: {}", sequence.name, image.dimensions(), labels.is_some());
//! }
//! # Ok::<(), masam::Error>(())
//! ```
//!
//! The folder may hold all releases as they were unpacked, one release, or one sequence (`left_frames` and
//! `labels`), and what `masam phantom` writes. Nothing is decoded by opening it, and no file is ever changed.

use super::coding::{LabelCounts, Labeling};
use super::endovis17::{self, MaskFolder};
use super::endovis18;
use super::folders;
use super::layout::{GRADED, LEFT, Layout, child, lower_name};
use super::note::{Note, add_sidecars};
use super::palette::Tally;
use super::picture;
use super::split::Split;
use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::labels::ClassSet;
use image::{GrayImage, RgbImage};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The layout that was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Kind {
    /// EndoVis 2018 scene segmentation: one label picture in colours for a frame.
    #[serde(rename = "endovis-2018")]
    EndoVis2018,
    /// EndoVis 2017 instrument segmentation: one mask for each instrument.
    #[serde(rename = "endovis-2017")]
    EndoVis2017,
    /// Images and masks of one's own.
    #[serde(rename = "folders")]
    Folders,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::EndoVis2018 => "EndoVis 2018",
            Kind::EndoVis2017 => "EndoVis 2017",
            Kind::Folders => "images and masks",
        })
    }
}

/// Which side of its challenge a sequence is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Released for training.
    Train,
    /// Set aside to choose a model by; only in data sets of one's own.
    Validation,
    /// Released for testing.
    Test,
}

/// What the class ids of EndoVis 2017 mean; its masks serve three tasks. EndoVis 2018 has one and ignores this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task2017 {
    /// Background, instrument.
    Binary,
    /// Background, shaft, wrist, clasper.
    #[default]
    Parts,
    /// Background, and seven types of instrument.
    Type,
}

impl FromStr for Task2017 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "binary" => Ok(Task2017::Binary),
            "parts" => Ok(Task2017::Parts),
            "type" => Ok(Task2017::Type),
            _ => Err(Error::config("task", text, "it has to be binary, parts or type")),
        }
    }
}

/// How a data set is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatasetConfig {
    /// What the class ids of EndoVis 2017 mean.
    pub task_2017: Task2017,
    /// Whether labels with more than [`MAX_UNKNOWN_SHARE`](super::coding::MAX_UNKNOWN_SHARE) pixels of unknown colors or
    /// values are used, those pixels ignored.
    pub accept_unknown_labels: bool,
}

/// One picture, with the files its labels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// File name without suffix, for example `frame042`.
    pub name: String,
    /// The picture of the left camera.
    pub image: PathBuf,
    /// EndoVis 2018: the label picture, from `repairs/` where it was repaired. EndoVis 2017: the folder of the
    /// masks. None where there are no labels, or not all of them.
    pub label: Option<PathBuf>,
    /// Whether `label` is a corrected one from `repairs/`.
    pub repaired: bool,
}

/// Where a corrected label took the place of the released one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// Name of the sequence.
    pub sequence: String,
    /// Name of the frame.
    pub frame: String,
    /// The corrected label.
    pub path: PathBuf,
}

/// How the files of a sequence become class ids.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    /// One picture for each frame.
    Pictures(Arc<Labeling>),
    /// One mask for each folder, in pictures that may have a border.
    Masks(Arc<[MaskFolder]>),
}

/// Class ids of one frame, and what was odd about their colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// A class id for each pixel; 255 where it is ignored.
    pub classes: GrayImage,
    /// Colours (EndoVis 2017: values, as greys) that are no class's.
    pub tally: Tally,
}

/// One recording: frames in order of time.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// `seq_1` or `instrument_dataset_1`, `test/seq_1` where it was released for testing, and with the release's
    /// folder in front where that is still ambiguous. No two sequences of a data set have the same name.
    pub name: String,
    /// The number in its folder's name, which the splits go by.
    pub number: Option<u32>,
    /// Training or testing.
    pub role: Role,
    /// Its folder.
    pub folder: PathBuf,
    /// Its frames; at least one.
    pub frames: Vec<Frame>,
    pub(super) reader: Reader,
}

impl Sequence {
    /// Whether any frame has labels.
    pub fn is_labelled(&self) -> bool {
        self.frames.iter().any(|f| f.label.is_some())
    }

    /// Frame `index`.
    ///
    /// # Errors
    /// No such frame.
    pub fn frame(&self, index: usize) -> Result<&Frame> {
        self.frames.get(index).ok_or_else(|| {
            let bound = format!("{} has {} frames", self.name, self.frames.len());
            Error::config("frame", index, bound)
        })
    }

    /// Size of the picture of frame `index` as [`Sequence::image`] gives it, from its header alone.
    ///
    /// # Errors
    /// No such frame, or a file that cannot be read.
    pub fn size(&self, index: usize) -> Result<Size> {
        let stored = picture::size(&self.frame(index)?.image)?;
        Ok(self.crop(stored).map_or(stored, Rect::size))
    }

    /// The picture of frame `index`. EndoVis 2017's border of 1920x1080 frames is cut off.
    ///
    /// # Errors
    /// No such frame; a file that cannot be read, is no picture, is broken, or claims an absurd size.
    pub fn image(&self, index: usize) -> Result<RgbImage> {
        let path = &self.frame(index)?.image;
        picture::upright(path)?;
        let picture = picture::read(path)?;
        full_range(path, &picture)?;
        let picture = picture.into_rgb8();
        Ok(match self.crop(picture::size_of(&picture)) {
            Some(r) => {
                image::imageops::crop_imm(&picture, r.x_px, r.y_px, r.width_px, r.height_px).to_image()
            }
            None => picture,
        })
    }

    /// Class ids of frame `index`, 255 where a pixel is to be ignored; none where the frame has no labels.
    ///
    /// # Errors
    /// As [`Sequence::image`] for every file of the labels, and labels of another size than the picture.
    pub fn labels(&self, index: usize) -> Result<Option<GrayImage>> {
        Ok(self.read_labels(index)?.map(|labels| labels.classes))
    }

    /// As [`Sequence::labels`], with the colours that had to be repaired or ignored.
    ///
    /// # Errors
    /// As [`Sequence::labels`].
    pub fn read_labels(&self, index: usize) -> Result<Option<Labels>> {
        let frame = self.frame(index)?;
        let Some(path) = &frame.label else {
            return Ok(None);
        };
        let mut tally = Tally::default();
        picture::upright(&frame.image)?;
        match &self.reader {
            Reader::Pictures(labeling) => {
                let (found, wanted) = (picture::size(path)?, picture::size(&frame.image)?);
                same_size(path, found, &frame.image, wanted)?;
                let classes = labeling.read(path, &mut tally)?;
                Ok(Some(Labels { classes, tally }))
            }
            Reader::Masks(folders) => {
                let stored = picture::size(&frame.image)?;
                let classes = endovis17::combine(folders, frame, stored, &mut tally)?;
                Ok(Some(Labels { classes, tally }))
            }
        }
    }

    /// Pixels of the labels of frame `index` by what became of them; `None` where it has none that can be read. The
    /// first call looks at every label picture of the data set.
    ///
    /// # Errors
    /// No such frame.
    pub fn label_counts(&self, index: usize) -> Result<Option<LabelCounts>> {
        let frame = self.frame(index)?;
        let Some(path) = &frame.label else {
            return Ok(None);
        };
        Ok(match &self.reader {
            Reader::Pictures(labeling) => labeling.counts(path),
            Reader::Masks(folders) => endovis17::counts(folders, frame),
        })
    }

    /// How the labels are read.
    pub(super) fn labelings(&self) -> Vec<&Labeling> {
        match &self.reader {
            Reader::Pictures(labeling) => vec![labeling],
            Reader::Masks(folders) => folders.iter().map(|folder| &folder.labeling).collect(),
        }
    }

    /// The part of a stored picture of this size that shows the scene, where it is not all of it.
    fn crop(&self, stored: Size) -> Option<Rect> {
        match self.reader {
            Reader::Masks(_) => endovis17::crop(stored),
            Reader::Pictures(_) => None,
        }
    }
}

/// Fails for a picture of 16 bits that holds samples of 12 or fewer: as bytes it would be black.
fn full_range(path: &Path, picture: &image::DynamicImage) -> Result<()> {
    use image::DynamicImage::{ImageLuma16, ImageRgb16};
    let samples: &[u16] = match picture {
        ImageLuma16(p) => p.as_raw(),
        ImageRgb16(p) => p.as_raw(),
        _ => return Ok(()),
    };
    let largest = samples.iter().copied().max().unwrap_or_default();
    if largest > 4095 || samples.iter().all(|sample| sample % 257 == 0) {
        return Ok(());
    }
    let cause = format!(
        "invalid 16-bit picture: its largest sample is {largest} (expected samples that fill 16 bits). Write 8-bit frames"
    );
    Err(Error::file(path, cause))
}

/// Fails where a label has not the size of its picture.
pub(super) fn same_size(label: &Path, found: Size, image: &Path, wanted: Size) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let cause = format!(
        "the label is {}x{}, but its picture {} is {}x{}",
        found.width_px,
        found.height_px,
        image.display(),
        wanted.width_px,
        wanted.height_px
    );
    Err(Error::file(label, cause))
}

/// All sequences of a folder.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The folder that was opened.
    pub root: PathBuf,
    /// The layout that was recognised.
    pub kind: Kind,
    /// What the ids of the labels mean.
    pub classes: ClassSet,
    /// The sequences: training before test, then by number.
    pub sequences: Vec<Sequence>,
    /// Corrected labels that were applied.
    pub repairs: Vec<Repair>,
    /// What was odd.
    pub notes: Vec<Note>,
    /// As [`DatasetConfig::accept_unknown_labels`].
    pub accept_unknown_labels: bool,
}

impl Dataset {
    /// Opens a folder; EndoVis 2017 with its parts.
    ///
    /// # Errors
    /// As [`Dataset::open_with`].
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, DatasetConfig::default())
    }

    /// Recognises the layout of `root` and lists its sequences.
    ///
    /// # Errors
    /// A folder that cannot be read, holds no sequence, or holds both challenges; a `labels.json` or mapping that
    /// cannot be understood.
    pub fn open_with(root: &Path, config: DatasetConfig) -> Result<Self> {
        let layout = Layout::find(root)?;
        let (old, new): (Vec<_>, Vec<_>) = layout.sequences.iter().partition(|s| is_2017(s));
        let mut data = match (old.first(), new.first()) {
            (Some(old), Some(new)) => {
                let cause = format!(
                    "it holds EndoVis 2017 ({}) and EndoVis 2018 ({}); open one of them",
                    old.display(),
                    new.display()
                );
                return Err(Error::file(root, cause));
            }
            (Some(_), None) => endovis17::open(&layout, config.task_2017)?,
            (None, Some(_)) => endovis18::open(&layout)?,
            (None, None) if !layout.pairs.is_empty() => folders::open(&layout)?,
            (None, None) => {
                let cause = format!(
                    "no sequence is below this folder; one is a folder with {LEFT}, and labels (EndoVis 2018) or \
                     ground_truth (EndoVis 2017) beside it, or a folder images with masks beside it. Exports of COCO \
                     and CVAT and videos become such folders by `masam data import`; see docs/datasets.md"
                );
                return Err(Error::file(root, cause));
            }
        };
        data.accept_unknown_labels = config.accept_unknown_labels;
        if data.sequences.is_empty() {
            let cause = format!("no {LEFT} or images below it has a picture");
            return Err(Error::file(root, cause));
        }
        data.notes.extend(
            layout
                .macosx
                .iter()
                .map(|path| Note::Macosx { path: path.clone() }),
        );
        add_sidecars(&mut data.notes, layout.sidecars);
        name_apart(&mut data);
        note_what_is_missing(&mut data);
        data.repairs = repairs(&data.sequences);
        Ok(data)
    }

    /// The sequences of `split`, in the order of [`Dataset::sequences`].
    ///
    /// # Errors
    /// A split that is not one of this kind of data set, or selects no sequence of it.
    pub fn split(&self, split: &Split) -> Result<Vec<&Sequence>> {
        split.select(self)
    }

    /// The sequence of that name.
    pub fn sequence(&self, name: &str) -> Option<&Sequence> {
        self.sequences.iter().find(|s| s.name == name)
    }
}

/// Whether a sequence has the layout of EndoVis 2017.
fn is_2017(folder: &Path) -> bool {
    let mut masks = ["ground_truth", "gt"].iter().chain(&GRADED);
    lower_name(folder).starts_with("instrument_dataset") || masks.any(|m| child(folder, m).is_some())
}

/// The folder's own name, also where it was given as `.` or ends in `..`.
pub(super) fn own_name(folder: &Path) -> String {
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    real.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Which side of the challenge `folder` is on, by the nearest folder above it that says so; the root's own name and,
/// where the root is the sequence itself, its parent's count as well.
pub(super) fn role_by_folder(root: &Path, folder: &Path) -> Option<Role> {
    let inside = folder.strip_prefix(root).unwrap_or(folder);
    let mut names: Vec<String> = inside.iter().map(|n| n.to_string_lossy().into_owned()).collect();
    let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let above = if names.is_empty() { 2 } else { 1 };
    let outside = real
        .iter()
        .rev()
        .take(above)
        .map(|n| n.to_string_lossy().into_owned());
    let outside: Vec<String> = outside.collect();
    names.reverse();
    names.iter().chain(&outside).find_map(|name| {
        let name = name.to_lowercase();
        let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
        if words.clone().any(|w| matches!(w, "test" | "testing" | "testset")) {
            Some(Role::Test)
        } else if words.any(|w| matches!(w, "train" | "training" | "trainset"))
            || name.starts_with("miccai_challenge")
        {
            Some(Role::Train)
        } else {
            None
        }
    })
}

/// Notes training sequences without labels and gaps among frames.
fn note_what_is_missing(data: &mut Dataset) {
    let is_labelled = |s: &Sequence| s.frames.iter().any(|f| f.label.is_some());
    let training = || data.sequences.iter().filter(|s| s.role == Role::Train);
    let mut notes = Vec::new();
    if training().any(is_labelled) {
        notes.extend(training().filter(|s| !is_labelled(s)).map(|s| Note::Unlabelled {
            sequence: s.name.clone(),
            path: s.folder.clone(),
        }));
    }
    for sequence in &data.sequences {
        let names: Vec<&str> = sequence.frames.iter().map(|f| f.name.as_str()).collect();
        let name = |at: usize| names.get(at).map(|name| (*name).to_owned()).unwrap_or_default();
        notes.extend(super::names::gaps(&names).into_iter().map(|at| Note::Gap {
            sequence: sequence.name.clone(),
            after: name(at - 1),
            before: name(at),
        }));
    }
    data.notes.extend(notes);
}

/// Sorts the sequences and gives those that share a name their release's folder as well.
fn name_apart(data: &mut Dataset) {
    let key = |s: &Sequence| (s.role, super::names::natural_key(&s.name));
    data.sequences.sort_by_cached_key(key);
    let names: Vec<String> = data.sequences.iter().map(|s| s.name.clone()).collect();
    let shared = |name: &String| names.iter().filter(|n| *n == name).count() > 1;
    let mut distinct: Vec<&String> = names.iter().filter(|n| shared(n)).collect();
    distinct.dedup();
    for name in distinct {
        let same = |s: &&Sequence| s.name == *name;
        let folders = data
            .sequences
            .iter()
            .filter(same)
            .map(|s| s.folder.clone())
            .collect();
        let sequence = name.clone();
        data.notes.push(Note::Twice { sequence, folders });
    }
    for (sequence, name) in data.sequences.iter_mut().zip(&names) {
        if shared(name) {
            // The whole way down from the root is the shortest name that is sure to differ.
            let way = sequence
                .folder
                .strip_prefix(&data.root)
                .unwrap_or(&sequence.folder);
            sequence.name = way.display().to_string();
        }
    }
}

/// Corrected labels in the order of their frames.
fn repairs(sequences: &[Sequence]) -> Vec<Repair> {
    let of = |sequence: &Sequence| -> Vec<Repair> {
        let repaired = sequence.frames.iter().filter(|f| f.repaired);
        let repair = |frame: &Frame| {
            Some(Repair {
                sequence: sequence.name.clone(),
                frame: frame.name.clone(),
                path: frame.label.clone()?,
            })
        };
        repaired.filter_map(repair).collect()
    };
    sequences.iter().flat_map(of).collect()
}
