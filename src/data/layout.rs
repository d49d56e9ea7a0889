//! Finds the parts of a data set in a folder, however deep an archive put them.
//!
//! `__MACOSX` trees mirror the real ones with `._frame000.png` files that are no pictures: they are counted and left
//! alone, like every other hidden file. Nothing inside a sequence is searched for further sequences.

use super::class_table;
use super::folders::IMAGES;
use super::picture;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder with the pictures of the left camera, which makes its parent a sequence.
pub const LEFT: &str = "left_frames";

/// Folders of the 2017 test labels, all parts or types in one picture.
pub const GRADED: [&str; 3] = ["BinarySegmentation", "PartsSegmentation", "TypeSegmentation"];

/// How deep folders are searched below the root; releases need 4 (root, archive, release, `seq_1-…-001`).
const MAX_DEPTH: usize = 8;

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The folder as given.
    pub root: PathBuf,
    /// Folders with `left_frames`.
    pub sequences: Vec<PathBuf>,
    /// Folders of images with what lies beside them.
    pub pairs: Vec<Pair>,
    /// Class tables: `labels.json` and the like.
    pub class_tables: Vec<PathBuf>,
    /// `parts_mapping.json`, `type_mapping.json` and the like.
    pub mappings: Vec<PathBuf>,
    /// Pictures below folders called `repairs`.
    pub repairs: Vec<PathBuf>,
    /// Folders outside any sequence that hold one of [`GRADED`].
    pub graded: Vec<PathBuf>,
    /// `__MACOSX` trees.
    pub macosx: Vec<PathBuf>,
    /// `._*` files outside of sequences and `__MACOSX` trees.
    pub sidecars: usize,
}

/// A folder of images with the folders beside it, of which one may hold masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// The folder of images.
    pub images: PathBuf,
    /// The other folders.
    pub others: Vec<PathBuf>,
}

/// The folder called `name` in `folder`, in small letters or capitals.
pub(super) fn child(folder: &Path, name: &str) -> Option<PathBuf> {
    let exact = folder.join(name);
    if exact.is_dir() {
        return Some(exact);
    }
    let entries = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries
        .filter(|path| lower_name(path) == name.to_lowercase())
        .collect();
    found.sort();
    found.into_iter().find(|path| path.is_dir())
}

impl Layout {
    /// Searches `root`.
    ///
    /// # Errors
    /// A folder that does not exist or cannot be read.
    pub fn find(root: &Path) -> Result<Self> {
        let mut layout = Self {
            root: root.to_owned(),
            ..Self::default()
        };
        layout.search(root, 0, &mut BTreeSet::new())?;
        Ok(layout)
    }

    fn search(&mut self, folder: &Path, depth: usize, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
        // Links may lead in circles.
        let real = fs::canonicalize(folder).map_err(|cause| Error::file(folder, cause))?;
        if depth > MAX_DEPTH || !seen.insert(real) {
            return Ok(());
        }
        let (files, folders) = self.entries(folder)?;
        for file in files {
            let name = lower_name(&file);
            match name.as_str() {
                name if class_table::NAMES.contains(&name) => self.class_tables.push(file),
                _ if name.ends_with("mapping.json") || name.ends_with("mappings.json") => {
                    self.mappings.push(file)
                }
                _ => {}
            }
        }
        let holds = |name: &str| folders.iter().any(|f| f.file_name().is_some_and(|n| n == name));
        if folders.iter().any(|f| lower_name(f) == LEFT) {
            self.sequences.push(folder.to_owned());
            return Ok(());
        }
        let (images, others): (Vec<_>, Vec<_>) = folders
            .iter()
            .cloned()
            .partition(|f| IMAGES.contains(&lower_name(f).as_str()));
        if let [images] = &images[..] {
            self.pairs.push(Pair {
                folder: folder.to_owned(),
                images: images.clone(),
                others,
            });
            return Ok(());
        }
        if GRADED.iter().any(|name| holds(name)) {
            self.graded.push(folder.to_owned());
            return Ok(());
        }
        for inner in folders {
            if lower_name(&inner) == "repairs" {
                self.collect_repairs(&inner, depth + 1)?;
            } else {
                self.search(&inner, depth + 1, seen)?;
            }
        }
        Ok(())
    }

    /// Every picture below a `repairs` folder.
    fn collect_repairs(&mut self, folder: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let (files, folders) = self.entries(folder)?;
        self.repairs
            .extend(files.into_iter().filter(|f| picture::is_picture(f)));
        folders
            .iter()
            .try_for_each(|inner| self.collect_repairs(inner, depth + 1))
    }

    /// Visible files and folders in `folder` in the order of their names; what macOS left behind is counted.
    fn entries(&mut self, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(|cause| Error::file(folder, cause))? {
            let path = entry.map_err(|cause| Error::file(folder, cause))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == "__MACOSX" {
                self.macosx.push(path);
            } else if name.starts_with("._") {
                self.sidecars += 1;
            } else if name.starts_with('.') {
                // .DS_Store, .git and other housekeeping.
            } else if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
        for list in [&mut files, &mut folders] {
            list.sort_by_cached_key(|p| {
                super::names::natural_key(&p.file_name().unwrap_or_default().to_string_lossy())
            });
        }
        Ok((files, folders))
    }
}

/// The last part of a path in lower case.
pub(super) fn lower_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase()
}
