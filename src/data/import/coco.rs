//! COCO: images, categories, and annotations as polygons or run lengths.
//!
//! Background is class 0, the categories follow in the order of their ids. Annotations are painted in the order of the
//! file, later ones over earlier ones; a picture without annotations is all background.

use super::shape::Shape;
use super::{ExportClass, ExportFrame, MAX_EXPORT_BYTES, numbered};
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Document {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    id: i64,
    image_id: i64,
    category_id: i64,
    #[serde(default)]
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs { counts: Counts, size: [u32; 2] },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u64>),
    Packed(String),
}

/// Whether a JSON file has the three lists of COCO.
pub(super) fn is_coco(path: &Path) -> bool {
    let text = regular_file::read_text(path, MAX_EXPORT_BYTES).unwrap_or_default();
    ["\"images\"", "\"annotations\"", "\"categories\""]
        .iter()
        .all(|field| text.contains(field))
}

/// Reads the files together; their categories have to be the same.
pub(super) fn read(files: &[PathBuf]) -> Result<(Vec<ExportClass>, Vec<ExportFrame>)> {
    let mut categories: BTreeMap<i64, String> = BTreeMap::new();
    let mut documents = Vec::new();
    for path in files {
        let text = regular_file::read_text(path, MAX_EXPORT_BYTES)?;
        let document: Document = serde_json::from_str(&text).map_err(|cause| Error::file(path, cause))?;
        for category in &document.categories {
            let known = categories
                .entry(category.id)
                .or_insert_with(|| category.name.clone());
            if *known != category.name {
                let cause = format!("category {} is {} and {known}", category.id, category.name);
                return Err(Error::file(path, cause));
            }
        }
        documents.push((path, document));
    }
    let names = categories.values().cloned();
    let (classes, ids) = numbered(names.map(|name| ExportClass { name, color: None }).collect());
    let class_of: BTreeMap<i64, u8> = categories.keys().copied().zip(ids).collect();
    let mut frames = Vec::new();
    for (path, document) in documents {
        let mut objects: BTreeMap<i64, Vec<(u8, Shape)>> = BTreeMap::new();
        for annotation in document.annotations {
            let wrong = |cause: &str| Error::file(path, format!("annotation {}: {cause}", annotation.id));
            let class = *class_of
                .get(&annotation.category_id)
                .ok_or_else(|| wrong("its category is not listed"))?;
            let shape = shape(annotation.segmentation).ok_or_else(|| {
                wrong("no segmentation that can be painted (expected polygons or run lengths; a box is no mask)")
            })?;
            objects
                .entry(annotation.image_id)
                .or_default()
                .push((class, shape));
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let part = stem.trim_start_matches("instances").trim_start_matches('_');
        let part = if files.len() > 1 {
            part.to_owned()
        } else {
            String::new()
        };
        for image in document.images {
            let objects = objects.remove(&image.id).unwrap_or_default();
            let fits = |(_, shape): &(u8, Shape)| !matches!(shape, Shape::Runs { size, .. } if *size != (image.width, image.height));
            if !objects.iter().all(fits) {
                let cause = format!(
                    "{}: run lengths of another size than the picture",
                    image.file_name
                );
                return Err(Error::file(path, cause));
            }
            frames.push(ExportFrame {
                file: image.file_name,
                part: part.clone(),
                width_px: image.width,
                height_px: image.height,
                objects,
            });
        }
        if let Some(id) = objects.keys().next() {
            return Err(Error::file(
                path,
                format!("annotations of image {id}, which is not listed"),
            ));
        }
    }
    Ok((classes, frames))
}

fn shape(segmentation: Option<Segmentation>) -> Option<Shape> {
    match segmentation? {
        Segmentation::Polygons(polygons) => {
            let corners = |flat: Vec<f64>| -> Option<Vec<(f64, f64)>> {
                let (pairs, rest) = flat.as_chunks::<2>();
                (rest.is_empty() && pairs.len() >= 3).then(|| pairs.iter().map(|[x, y]| (*x, *y)).collect())
            };
            let polygons: Option<Vec<_>> = polygons.into_iter().map(corners).collect();
            polygons
                .filter(|polygons| !polygons.is_empty())
                .map(Shape::Polygons)
        }
        Segmentation::Runs { counts, size } => {
            let [height, width] = size;
            let runs = match counts {
                Counts::Plain(runs) => runs,
                Counts::Packed(text) => unpacked(text.as_bytes())?,
            };
            let all = runs.iter().try_fold(0_u64, |all, run| all.checked_add(*run))?;
            (all == u64::from(width) * u64::from(height)).then_some(Shape::Runs {
                left: 0,
                top: 0,
                size: (width, height),
                is_by_column: true,
                runs,
            })
        }
    }
}

/// COCO's packed run lengths: numbers of 5 bits a character from `0` on, the sixth says that more follow, the highest is
/// the sign; from the third on each is the difference to the one before the last.
fn unpacked(text: &[u8]) -> Option<Vec<u64>> {
    let mut runs: Vec<i64> = Vec::new();
    let mut characters = text.iter().peekable();
    while characters.peek().is_some() {
        let (mut value, mut shift) = (0_i64, 0);
        loop {
            let bits = i64::from(characters.next()?.checked_sub(48)?);
            value |= (bits & 31).checked_shl(shift).filter(|_| shift < 50)?;
            shift += 5;
            if bits & 32 == 0 {
                if bits & 16 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
        }
        if runs.len() > 2 {
            value += runs.get(runs.len() - 2)?;
        }
        runs.push(value);
    }
    runs.into_iter().map(|run| u64::try_from(run).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_runs_are_those_of_pycocotools() {
        // pycocotools.mask.encode of a picture of 4 rows and 5 columns with an object in rows 1 to 2 of columns 1 to 3, and
        // of one of 40 and 50 with rows 5 to 29 of columns 10 to 39.
        assert_eq!(unpacked(b"5220003"), Some(vec![5, 2, 2, 2, 2, 2, 5]));
        let large = unpacked(b"e<i0?000000000000000000000000000000000000000000000000000000000[<").unwrap();
        assert_eq!(
            (&large[..3], large.len(), large[60]),
            (&[405, 25, 15][..], 61, 410)
        );
        for broken in [&b"P"[..], b"\x10", b"oooooooooooooooooooo"] {
            assert!(unpacked(broken).is_none(), "{broken:?}");
        }
    }
}
