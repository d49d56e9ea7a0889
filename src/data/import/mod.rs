//! Exports of annotation tools to the layout of [`folders`](super::folders): `images/`, `masks/` of class ids as 8-bit
//! gray, and `classes.json`. Everything else reads that one layout.

mod coco;
mod cvat;
mod shape;

use super::picture;
use crate::error::{Error, Result};
use crate::labels::{MAX_CLASSES, Rgb};
use image::GrayImage;
use shape::Shape;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Largest export that is read: COCO's own largest file has 0.5 GB.
const MAX_EXPORT_BYTES: u64 = 1 << 30;

/// How deep pictures are looked for below the export.
const MAX_DEPTH: usize = 6;

/// A kind of export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// COCO: `instances_*.json` with polygons and run lengths.
    Coco(Vec<PathBuf>),
    /// CVAT for images 1.1: `annotations.xml` with polygons, boxes, ellipses and masks.
    Cvat(PathBuf),
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Frames with masks.
    pub frames: usize,
    /// Of these, frames without any object: all background.
    pub empty: usize,
    /// Objects.
    pub objects: usize,
    /// Classes, background included.
    pub classes: usize,
}

/// A class of an export; the first one is background.
#[derive(Debug, Clone)]
struct ExportClass {
    name: String,
    color: Option<Rgb>,
}

/// One annotated picture.
#[derive(Debug, Clone)]
struct ExportFrame {
    /// Its file as the export names it.
    file: String,
    /// Name of the part of the export that it belongs to, which becomes a folder; empty for none.
    part: String,
    width_px: u32,
    height_px: u32,
    /// Objects from back to front, with the ids of their classes.
    objects: Vec<(u8, Shape)>,
}

impl Export {
    /// Tells what `source`, a file or a folder, is an export of.
    ///
    /// # Errors
    /// A folder that cannot be read, or nothing that is known.
    pub fn find(source: &Path) -> Result<Self> {
        let mut files = Vec::new();
        if source.is_dir() {
            collect(source, 0, &mut |path| files.push(path.to_owned()))?;
        } else {
            files.push(source.to_owned());
        }
        files.sort();
        let suffix =
            |path: &&PathBuf, wanted: &str| path.extension().is_some_and(|s| s.eq_ignore_ascii_case(wanted));
        let xml = files
            .iter()
            .filter(|path| suffix(path, "xml"))
            .collect::<Vec<_>>();
        let json: Vec<&PathBuf> = files.iter().filter(|path| suffix(path, "json")).collect();
        let named = |path: &&&PathBuf| super::layout::lower_name(path).starts_with("instances");
        let instances: Vec<PathBuf> = json.iter().filter(named).map(|path| (**path).clone()).collect();
        if !instances.is_empty() {
            return Ok(Self::Coco(instances));
        }
        match (&xml[..], &json[..]) {
            ([xml], _) => Ok(Self::Cvat((*xml).clone())),
            (_, [json]) if coco::is_coco(json) => Ok(Self::Coco(vec![(*json).clone()])),
            _ => {
                let cause = "no export (expected one of: COCO's instances_*.json, CVAT's annotations.xml, folders \
                             images and masks that hold videos)";
                Err(Error::file(source, cause))
            }
        }
    }

    /// Writes the export in `source` as a data set to `out`, which has to be empty or absent; `progress` is called with
    /// the number of frames and then after each one.
    ///
    /// # Errors
    /// An export that cannot be understood; pictures that are missing or of another size than stated; `out` not empty; a
    /// file that cannot be written.
    pub fn write(&self, source: &Path, out: &Path, progress: &dyn Fn(Option<usize>)) -> Result<Imported> {
        let (classes, frames) = match self {
            Self::Coco(files) => coco::read(files)?,
            Self::Cvat(file) => cvat::read(file)?,
        };
        if classes.len() > MAX_CLASSES {
            return Err(Error::config(
                "classes",
                classes.len(),
                format!("a model has at most {MAX_CLASSES} classes"),
            ));
        }
        let images = find_images(source, &frames)?;
        prepare(out)?;
        progress(Some(frames.len()));
        let mut imported = Imported {
            classes: classes.len(),
            ..Imported::default()
        };
        let names = names(&frames)?;
        for ((frame, image), name) in frames.iter().zip(&images).zip(&names) {
            let size = picture::size(image)?;
            if (size.width_px, size.height_px) != (frame.width_px, frame.height_px) {
                let cause = format!(
                    "the picture is {}x{}, but the export says {}x{}",
                    size.width_px, size.height_px, frame.width_px, frame.height_px
                );
                return Err(Error::file(image, cause));
            }
            picture::upright(image)?;
            let mut mask = GrayImage::new(frame.width_px, frame.height_px);
            for (class, shape) in &frame.objects {
                shape.paint(&mut mask, *class);
            }
            write_frame(out, name, image, &mask)?;
            imported.frames += 1;
            imported.objects += frame.objects.len();
            imported.empty += usize::from(frame.objects.is_empty());
            progress(None);
        }
        write_classes(out, &classes)?;
        Ok(imported)
    }
}

/// Makes `out`, which has to be empty or absent.
///
/// # Errors
/// A folder that is in use or cannot be made.
pub fn prepare(out: &Path) -> Result<()> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::file(
            out,
            "the folder is not empty; data sets are written to a new one only",
        ));
    }
    fs::create_dir_all(out).map_err(|cause| Error::file(out, cause))
}

/// Visits every visible file below `folder`.
fn collect(folder: &Path, depth: usize, see: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|cause| Error::file(folder, cause))? {
        let path = entry.map_err(|cause| Error::file(folder, cause))?.path();
        let name = super::layout::lower_name(&path);
        if name.starts_with('.') || name == "__macosx" {
            continue;
        }
        if path.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, see)?;
        } else if path.is_file() {
            see(&path);
        }
    }
    Ok(())
}

/// The files of `frames`: by the end of their paths, which has to fit one file alone.
fn find_images(source: &Path, frames: &[ExportFrame]) -> Result<Vec<PathBuf>> {
    let folder = if source.is_dir() {
        source
    } else {
        source.parent().unwrap_or(Path::new("."))
    };
    let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    collect(folder, 0, &mut |path| {
        if picture::is_picture(path) {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            by_name.entry(name).or_default().push(path.to_owned());
        }
    })?;
    let find = |frame: &ExportFrame| {
        let own = plain(&frame.file);
        let name = own.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let candidates = by_name.get(&name).map(Vec::as_slice).unwrap_or_default();
        let within: Vec<&PathBuf> = candidates.iter().filter(|path| path.ends_with(&own)).collect();
        let part: Vec<&PathBuf> = within
            .iter()
            .copied()
            .filter(|p| p.iter().any(|word| *word == *frame.part))
            .collect();
        match (&within[..], &part[..], candidates) {
            ([only], _, _) | (_, [only], _) => Ok((*only).clone()),
            ([], _, [only]) => Ok(only.clone()),
            ([], ..) => Err(Error::file(
                folder,
                format!("the picture {} is missing", frame.file),
            )),
            _ => Err(Error::file(
                folder,
                format!("there are {} pictures {}", within.len(), frame.file),
            )),
        }
    };
    frames.iter().map(find).collect()
}

/// A path of an export without anything that leads out of a folder.
fn plain(file: &str) -> PathBuf {
    let file = file.replace('\\', "/");
    let parts = Path::new(&file).components();
    parts
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// Folder and stem of each frame below `images` and `masks`: no folder holds pictures and folders.
fn names(frames: &[ExportFrame]) -> Result<Vec<PathBuf>> {
    let name = |frame: &ExportFrame| {
        let own = plain(&frame.file).with_extension("");
        match frame.part.is_empty() || own.starts_with(&frame.part) {
            true => own,
            false => plain(&frame.part).join(own),
        }
    };
    let mut names: Vec<PathBuf> = frames.iter().map(name).collect();
    let folders = |name: &PathBuf| name.components().count();
    let deepest = names.iter().map(folders).max().unwrap_or(0);
    if names.iter().any(|name| folders(name) != deepest) {
        // Folders of different depths become one name each.
        for name in &mut names {
            let folder = name
                .parent()
                .unwrap_or(Path::new(""))
                .to_string_lossy()
                .replace('/', "-");
            let folder = if folder.is_empty() {
                "others".into()
            } else {
                folder
            };
            *name = Path::new(&folder).join(name.file_name().unwrap_or_default());
        }
    }
    let mut sorted: Vec<&PathBuf> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => {
            let name = pair
                .iter()
                .map(|name| name.display().to_string())
                .next()
                .unwrap_or_default();
            Err(Error::config(
                "picture",
                name,
                "every picture is listed once, and has a name of its own",
            ))
        }
        None => Ok(names),
    }
}

fn write_frame(out: &Path, name: &Path, image: &Path, mask: &GrayImage) -> Result<()> {
    let mut copied = out.join("images").join(name).into_os_string();
    copied.push(".");
    copied.push(image.extension().unwrap_or_default());
    let copied = PathBuf::from(copied);
    let mut masked = out.join("masks").join(name).into_os_string();
    masked.push(".png");
    let masked = PathBuf::from(masked);
    for path in [&copied, &masked] {
        let folder = path.parent().unwrap_or(out);
        fs::create_dir_all(folder).map_err(|cause| Error::file(folder, cause))?;
    }
    fs::copy(image, &copied).map_err(|cause| Error::file(&copied, cause))?;
    mask.save(&masked).map_err(|cause| Error::file(&masked, cause))
}

fn write_classes(out: &Path, classes: &[ExportClass]) -> Result<()> {
    let entry = |(id, class): (usize, &ExportClass)| {
        let mut entry = serde_json::json!({"id": id, "name": class.name});
        if let (Some([r, g, b]), Some(fields)) = (class.color, entry.as_object_mut()) {
            fields.insert("color".into(), format!("#{r:02x}{g:02x}{b:02x}").into());
        }
        entry
    };
    let list: Vec<_> = classes.iter().enumerate().map(entry).collect();
    let path = out.join("classes.json");
    fs::write(&path, format!("{:#}\n", serde_json::Value::from(list)))
        .map_err(|cause| Error::file(&path, cause))
}

/// Ids of `classes`, in their order, after background, which may be one of them.
fn numbered(classes: Vec<ExportClass>) -> (Vec<ExportClass>, Vec<u8>) {
    let is_background = |class: &ExportClass| class.name.trim().eq_ignore_ascii_case("background");
    let mut all = vec![ExportClass {
        name: "background".into(),
        color: Some([0; 3]),
    }];
    let mut ids = Vec::new();
    for mut class in classes {
        if is_background(&class) {
            ids.push(0);
            continue;
        }
        // More than 255 classes are refused before an id is used.
        ids.push(all.len().min(254) as u8);
        let taken = class
            .color
            .is_some_and(|color| all.iter().any(|other| other.color == Some(color)));
        class.color = class.color.filter(|_| !taken);
        all.push(class);
    }
    (all, ids)
}
