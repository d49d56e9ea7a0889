//! Class tables: what the colors and ids of label pictures mean.
//!
//! | file | forms |
//! |---|---|
//! | `classes.json`, `labels.json` | a list, or `{"classes": [..]}`, of `{"name", "color", "classid" or "id", "ignore"}` or of names; an object of names and colors, of names and ids, or of ids and names |
//! | `classes.csv`, `labels.csv`, `class_dict.csv` | a head with `name` and `id`, `color`, or `r`, `g`, `b` |
//! | `labelmap.txt` | CVAT's `name:r,g,b:parts:actions` |
//!
//! A color is `[r, g, b]` or `[r, g, b, a]` of 0 to 255, the same as fractions of 1 (`0.5`), or `"#rrggbb"`. Alpha is how an
//! annotation tool drew it and means nothing.
//!
//! EndoVis 2018 has a table in each release, which lists only that release's classes, so the classes of a data set are
//! the union of its tables. A table whose colors are all EndoVis' own means the twelve classes of
//! [`ClassSet::endovis_2018`] in their fixed order, whatever ids it states; where labels are ids, its ids count.

mod read;

pub(super) use read::read_json;
pub use read::{Entry, read};

use super::note::Note;
use crate::error::{Error, Result};
use crate::labels::{Class, ClassSet, MAX_CLASSES, NO_MASK, Rgb};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names of the files that are read as class tables, in lower case.
pub(super) const NAMES: [&str; 6] = [
    "labels.json",
    "classes.json",
    "classes.csv",
    "labels.csv",
    "class_dict.csv",
    "labelmap.txt",
];

/// The tables of a data set together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTable {
    /// The classes in the order of their ids.
    pub classes: ClassSet,
    /// Colors of label pictures and their classes; [`NO_MASK`] for one that is ignored.
    pub colors: Vec<(Rgb, u8)>,
    /// Values of label pictures and their classes; [`NO_MASK`] for one that is ignored.
    pub class_of: BTreeMap<u16, u8>,
    /// Why label pictures of ids cannot be read with this table.
    pub no_ids: Option<String>,
    /// What a reader assumed about ids, to be said where they are used.
    pub ids_remark: Option<String>,
    /// What is odd about the tables.
    pub notes: Vec<Note>,
}

impl ClassTable {
    /// A table that maps colors and ids of `classes` as they are.
    pub fn of(classes: ClassSet) -> Self {
        let colors = classes
            .iter()
            .zip(0..=u8::MAX)
            .map(|(class, id)| (class.color, id));
        let ids = (0..=u8::MAX).take(classes.len());
        Self {
            colors: colors.collect(),
            class_of: ids.map(|id| (u16::from(id), id)).collect(),
            classes,
            no_ids: None,
            ids_remark: None,
            notes: Vec::new(),
        }
    }
}

/// The classes of all `tables` of EndoVis 2018 together, and remarks on what differs from the challenge's own list.
///
/// # Errors
/// As [`read`]; tables that contradict each other; ids with gaps in a list that is not EndoVis' own.
pub fn union(tables: &[PathBuf]) -> Result<ClassTable> {
    let own = ClassSet::endovis_2018();
    let mut all: BTreeMap<usize, (Entry, &PathBuf)> = BTreeMap::new();
    let mut stated: BTreeMap<u16, u8> = BTreeMap::new();
    let (mut notes, mut foreign) = (Vec::new(), None);
    let (mut conflict, mut no_ids) = (None, None);
    for path in tables {
        for (place, entry) in read(path)?.into_iter().enumerate() {
            let id = entry.id.unwrap_or(place);
            let same = |c: &&Class| entry.color.map_or(c.name == entry.name, |color| c.color == color);
            match own.iter().position(|c| same(&c)) {
                Some(place) => {
                    let named = own.iter().nth(place).map(|c| c.name.as_str()).unwrap_or_default();
                    if named != entry.name || entry.id.is_some_and(|id| place != id) {
                        let text = format!(
                            "it calls class {id} {}; by its color that is class {place}, {named}",
                            entry.name
                        );
                        let path = path.clone();
                        notes.push(Note::ClassTable { path, text });
                    }
                    if entry.id.is_some() {
                        // Ids of a table are below MAX_CLASSES.
                        let before = stated.insert(id as u16, place as u8);
                        if before.is_some_and(|before| usize::from(before) != place) {
                            let two = format!("{}: id {id} means two classes", path.display());
                            no_ids = no_ids.or(Some(two));
                        }
                    }
                }
                None => foreign = foreign.or(Some(path)),
            }
            match all.get(&id) {
                Some((known, first)) if (&known.name, known.color) != (&entry.name, entry.color) => {
                    let cause = format!(
                        "class {id} is {} {:?} here, but {} {:?} in {}",
                        entry.name,
                        entry.color.unwrap_or_default(),
                        known.name,
                        known.color.unwrap_or_default(),
                        first.display()
                    );
                    conflict = conflict.or(Some(Error::file(path, cause)));
                }
                Some(_) => {}
                None => {
                    all.insert(id, (entry, path));
                }
            }
        }
    }
    let Some(foreign) = foreign else {
        let mut table = ClassTable::of(own);
        let in_order = stated.iter().all(|(id, class)| *id == u16::from(*class));
        if !in_order {
            table.class_of = stated;
        }
        if tables.is_empty() {
            table.ids_remark = Some("in EndoVis 2018's order, there is no labels.json".into());
        }
        (table.no_ids, table.notes) = (no_ids, notes);
        return Ok(table);
    };
    if let Some(error) = conflict {
        return Err(error);
    }
    if let Some((place, _)) = all.keys().enumerate().find(|(place, id)| place != *id) {
        let cause = format!("no table says what class {place} is; the ids of classes have no gaps");
        return Err(Error::file(foreign, cause));
    }
    let entries = all.into_iter().map(|(id, (entry, _))| (id, entry)).collect();
    let mut table = assemble(foreign, entries)?;
    let path = foreign.clone();
    let text = "its colors are not EndoVis 2018's: the classes are those of the tables".into();
    table.notes = vec![Note::ClassTable { path, text }];
    Ok(table)
}

/// Words for what is no object.
const BACKGROUND: [&str; 8] = [
    "background",
    "bg",
    "unlabeled",
    "unlabelled",
    "none",
    "nothing",
    "other",
    "rest",
];

fn is_background(name: &str) -> bool {
    let name = name.to_lowercase();
    let word = name.trim_matches(|c: char| !c.is_alphanumeric());
    BACKGROUND.contains(&word) || word.starts_with("background")
}

/// The classes of a data set of one's own: the classes of `tables` in the order of their ids, with a class
/// `background` before them where no id 0 is listed.
///
/// # Errors
/// As [`read`]; no table; tables that contradict each other, or state ids for some classes only.
pub fn own(tables: &[PathBuf]) -> Result<ClassTable> {
    let mut all: Vec<(usize, Entry)> = Vec::new();
    let Some(first) = tables.first() else {
        return Ok(ClassTable::of(ClassSet::numbered(1)?));
    };
    let mut stated = None;
    for path in tables {
        let entries = read(path)?;
        let ids = entries.iter().filter(|e| e.id.is_some()).count();
        if ids > 0 && ids < entries.len() {
            let cause = format!(
                "{ids} of {} classes have an id (expected all or none)",
                entries.len()
            );
            return Err(Error::file(path, cause));
        }
        if *stated.get_or_insert(ids > 0) != (ids > 0) {
            return Err(Error::file(
                path,
                format!("this and {} differ in having ids", first.display()),
            ));
        }
        for (place, entry) in entries.into_iter().enumerate() {
            let id = entry.id.unwrap_or(place);
            match all.iter().find(|(known, _)| *known == id) {
                Some((_, known)) if *known == entry => {}
                Some((_, known)) => {
                    let cause = format!("id {id} is {} and {}", known.name, entry.name);
                    return Err(Error::file(path, cause));
                }
                None => all.push((id, entry)),
            }
        }
    }
    all.sort_by_key(|(id, _)| *id);
    let stated = stated.unwrap_or(false);
    let black = all.iter().any(|(_, e)| e.color == Some([0; 3]));
    let begins = all.first().is_some_and(|(_, e)| is_background(&e.name));
    let (mut notes, mut no_ids) = (Vec::new(), None);
    let mut note = |text: String| {
        let path = first.clone();
        notes.push(Note::ClassTable { path, text });
    };
    let background = || Entry {
        name: "background".into(),
        color: (!black).then_some([0; 3]),
        ..Entry::default()
    };
    if stated && all.iter().all(|(id, _)| *id > 0) {
        note("it lists no id 0: a class `background` is put before the others".into());
        all.insert(0, (0, background()));
    } else if !stated && !begins {
        no_ids = Some(format!(
            "{} states no ids, and its first class, {}, is not called background; state them",
            first.display(),
            all.first().map_or("", |(_, e)| e.name.as_str())
        ));
        if !black {
            note("it lists no background: a class `background` is put before the others, black".into());
            all.insert(0, (0, background()));
        }
    }
    let mut table = assemble(first, all)?;
    (table.notes, table.no_ids) = (notes, no_ids);
    Ok(table)
}

/// Classes from entries in the order of their ids; ids may have gaps.
fn assemble(path: &Path, entries: Vec<(usize, Entry)>) -> Result<ClassTable> {
    let kept = entries.iter().filter(|(_, e)| !e.ignore).count();
    let fallback = ClassSet::numbered(kept.clamp(1, MAX_CLASSES))?;
    let (mut classes, mut colors, mut class_of) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (id, entry) in entries {
        // No more than MAX_CLASSES of them are valid, which is checked below.
        let class = if entry.ignore {
            NO_MASK
        } else {
            classes.len().min(254) as u8
        };
        class_of.insert(id.min(usize::from(u16::MAX)) as u16, class);
        if let Some(color) = entry.color {
            if let Some((_, other)) = colors.iter().find(|(known, _)| *known == color) {
                let cause = format!("classes {other} and {class} have the same color {color:?}");
                return Err(Error::file(path, cause));
            }
            colors.push((color, class));
        }
        if !entry.ignore {
            let drawn = fallback.get(class).map_or([0; 3], |c| c.color);
            let (name, color) = (entry.name, entry.color.unwrap_or(drawn));
            classes.push(Class { name, color });
        }
    }
    let classes = ClassSet::new(classes).map_err(|cause| Error::file(path, cause))?;
    Ok(ClassTable {
        classes,
        colors,
        class_of,
        no_ids: None,
        ids_remark: None,
        notes: Vec::new(),
    })
}
