//! What the values in masks of EndoVis 2017 mean: `parts_mapping.json`, `type_mapping.json`, and the values as they
//! are known from the released files.
//!
//! The values of parts go by the kind of folder: 10, 20, 30 for shaft, wrist and clasper in the mask of one
//! instrument, 30, 100, 255 in `PartsSegmentation`. 30 is a clasper in one and a shaft in the
//! other, and a mapping that merely states the other folder's values is not followed. One with values of its own is.

use super::class_table::read_json;
use super::layout::{Layout, lower_name};
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values of shaft, wrist and clasper in the mask of one instrument.
pub(super) const TRAINING_PARTS: [u8; 3] = [10, 20, 30];

/// Values of shaft, wrist and clasper in `PartsSegmentation`, and of the probe, which is background.
pub(super) const TEST_PARTS: [u8; 3] = [30, 100, 255];
const TEST_PROBE: u8 = 200;

/// Types in the challenge's order, from id 1, and what their folders' names hold.
pub(super) const TYPES: [(&str, &str); 7] = [
    ("bipolar-forceps", "bipolar"),
    ("prograsp-forceps", "prograsp"),
    ("large-needle-driver", "needle driver"),
    ("vessel-sealer", "vessel sealer"),
    ("grasping-retractor", "grasping retractor"),
    ("monopolar-curved-scissors", "scissors"),
    ("other", "other"),
];

/// Id of the type `other`.
pub(super) const OTHER: u8 = 7;

/// The type that a folder's or mapping's name means.
pub(super) fn type_of(name: &str) -> Option<u8> {
    let words = name
        .to_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), " ");
    let place = TYPES.iter().position(|(_, part)| words.contains(part));
    place.and_then(|p| u8::try_from(p + 1).ok())
}

/// Class of each value of a part: `known` unless a mapping has values of its own.
pub(super) fn part_values(layout: &Layout, folder: &Path, known: [u8; 3]) -> Result<BTreeMap<usize, u8>> {
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
pub(super) fn type_values(layout: &Layout, folder: &Path) -> Result<Vec<(u8, u8)>> {
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
