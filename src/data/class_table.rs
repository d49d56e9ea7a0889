//! `labels.json`: the class tables of EndoVis 2018.
//!
//! Two schemas are about: a bare list of `{"name", "color": [r, g, b], "classid"}` in the training releases, and
//! `{"classes": [..]}` with `[r, g, b, a]` and `"active"` in the test set. Each lists only the classes of its own
//! release, so the classes of a data set are the union of its tables. A table whose colours are all EndoVis' own
//! means the twelve classes of [`ClassSet::endovis_2018`] in their fixed order, whatever ids it states.

use super::note::Note;
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use crate::labels::{Class, ClassSet, MAX_CLASSES};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest JSON file that is read; real ones have 2 kB.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Name of the class.
    pub name: String,
    /// `[red, green, blue]` or `[red, green, blue, alpha]`; alpha is how the annotation tool drew it and means nothing.
    color: Vec<u8>,
    /// Its id; without one, its place in the list.
    #[serde(alias = "id")]
    classid: Option<usize>,
}

/// Reads a JSON file of at most 1 MiB.
///
/// # Errors
/// A file that cannot be read, is a pipe or a device, is larger, or is no JSON.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let text = regular_file::read_text(path, MAX_TABLE_BYTES)?;
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|cause| Error::file(path, cause))
}

/// Reads a table of either schema: each class with its id and colour.
///
/// # Errors
/// As a file that cannot be read, another schema, a colour that has not three or four channels, an id of 255 or more.
pub fn read(path: &Path) -> Result<Vec<(usize, Class)>> {
    let list = match read_json(path)? {
        Value::Object(mut fields) => fields
            .remove("classes")
            .ok_or_else(|| Error::file(path, "there is neither a list of classes nor a field `classes`"))?,
        list => list,
    };
    let entries: Vec<Entry> = serde_json::from_value(list).map_err(|cause| Error::file(path, cause))?;
    let class = |(place, entry): (usize, Entry)| {
        let id = entry.classid.unwrap_or(place);
        let color = match entry.color[..] {
            [r, g, b] | [r, g, b, _] => [r, g, b],
            _ => {
                let cause = format!(
                    "the colour of {} has {} channels, not 3 or 4",
                    entry.name,
                    entry.color.len()
                );
                return Err(Error::file(path, cause));
            }
        };
        if id >= MAX_CLASSES {
            let cause = format!("{} has the id {id}, but ids are below {MAX_CLASSES}", entry.name);
            return Err(Error::file(path, cause));
        }
        let name = entry.name;
        Ok((id, Class { name, color }))
    };
    entries.into_iter().enumerate().map(class).collect()
}

/// The classes of all `tables` together, and remarks on what differs from the challenge's own list.
///
/// # Errors
/// As [`read`]; tables that contradict each other; ids with gaps in a list that is not EndoVis' own.
pub fn union(tables: &[PathBuf]) -> Result<(ClassSet, Vec<Note>)> {
    let own = ClassSet::endovis_2018();
    let mut all: BTreeMap<usize, (Class, &PathBuf)> = BTreeMap::new();
    let (mut notes, mut foreign) = (Vec::new(), None);
    let mut conflict = None;
    for path in tables {
        for (id, class) in read(path)? {
            match own.iter().position(|c| c.color == class.color) {
                Some(place) => {
                    let named = own.iter().nth(place).map(|c| c.name.as_str()).unwrap_or_default();
                    if named != class.name || place != id {
                        let text = format!(
                            "it calls class {id} {}; by its colour that is class {place}, {named}",
                            class.name
                        );
                        let path = path.clone();
                        notes.push(Note::ClassTable { path, text });
                    }
                }
                None => foreign = foreign.or(Some(path)),
            }
            match all.get(&id) {
                Some((known, first)) if *known != class => {
                    let cause = format!(
                        "class {id} is {} {:?} here, but {} {:?} in {}",
                        class.name,
                        class.color,
                        known.name,
                        known.color,
                        first.display()
                    );
                    conflict = conflict.or(Some(Error::file(path, cause)));
                }
                Some(_) => {}
                None => {
                    all.insert(id, (class, path));
                }
            }
        }
    }
    let Some(foreign) = foreign else {
        return Ok((own, notes));
    };
    if let Some(error) = conflict {
        return Err(error);
    }
    if let Some((place, _)) = all.keys().enumerate().find(|(place, id)| place != *id) {
        let cause = format!("no table says what class {place} is; the ids of classes have no gaps");
        return Err(Error::file(foreign, cause));
    }
    let classes = all.into_values().map(|(class, _)| class).collect();
    let set = ClassSet::new(classes).map_err(|cause| Error::file(foreign, cause))?;
    let path = foreign.clone();
    let text = "its colours are not EndoVis 2018's: the classes are those of the tables".into();
    Ok((set, vec![Note::ClassTable { path, text }]))
}
