//! Class tables from their files.

use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use crate::labels::{MAX_CLASSES, Rgb, parse_color};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Number, Value};
use std::path::Path;

/// Largest table that is read; real ones have 2 kB.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// One class of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its id, where the table states one, below [`MAX_CLASSES`].
    pub id: Option<usize>,
    /// Its name.
    pub name: String,
    /// Its color in label pictures, where the table states one.
    pub color: Option<Rgb>,
    /// Whether its pixels belong to no class: `"ignore": true`.
    pub ignore: bool,
}

/// An entry whose color is not yet understood: the whole table says whether numbers are bytes or fractions.
struct Raw {
    entry: Entry,
    numbers: Option<Vec<Number>>,
}

/// Reads a JSON file of at most 1 MiB.
///
/// # Errors
/// A file that cannot be read, is a pipe or a device, is larger, or is no JSON.
pub(in crate::data) fn read_json(path: &Path) -> Result<Value> {
    parse_json(path, &read_text(path)?)
}

fn read_text(path: &Path) -> Result<String> {
    let text = regular_file::read_text(path, MAX_TABLE_BYTES)?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn parse_json<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| Error::file(path, cause))
}

/// Reads a table in any of its forms, by the suffix of its name: `.csv`, `.txt` (CVAT's label map), else JSON.
///
/// # Errors
/// A file that cannot be read, another form, a color that has not three or four channels of 0 to 255 or 0.0 to 1.0, an
/// id of 255 or more.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let suffix = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let text = read_text(path)?;
    let raw = match suffix.as_str() {
        "csv" => csv(path, &text)?,
        "txt" => label_map(path, &text)?,
        _ => json(path, &text)?,
    };
    let entries = colors(path, raw)?;
    if let Some(entry) = entries.iter().find(|e| e.id.is_some_and(|id| id >= MAX_CLASSES)) {
        let id = entry.id.unwrap_or_default();
        let cause = format!("{} has the id {id}, but ids are below {MAX_CLASSES}", entry.name);
        return Err(Error::file(path, cause));
    }
    if let Some(entry) = entries.iter().find(|e| e.name.trim().is_empty()) {
        let cause = format!("invalid class name {:?} (expected a word)", entry.name);
        return Err(Error::file(path, cause));
    }
    Ok(entries)
}

/// The fields of a JSON object in the order of the file.
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Ordered(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn json(path: &Path, text: &str) -> Result<Vec<Raw>> {
    let entries = match parse_json::<Value>(path, text)? {
        Value::Array(list) => list,
        Value::Object(mut fields) => match fields.remove("classes") {
            Some(Value::Array(list)) => list,
            Some(Value::Object(inner)) => return object(path, inner.into_iter().collect()),
            Some(_) => {
                return Err(Error::file(
                    path,
                    "invalid `classes` (expected a list or an object)",
                ));
            }
            None => return object(path, parse_json::<Ordered>(path, text)?.0),
        },
        _ => {
            return Err(Error::file(
                path,
                "invalid class table (expected a list or an object of classes)",
            ));
        }
    };
    let entry = |value: Value| match value {
        Value::String(name) => Ok(Raw::named(name)),
        Value::Object(fields) => {
            let name = match fields.get("name") {
                Some(Value::String(name)) => name.clone(),
                _ => return Err(Error::file(path, "a class has no field `name`")),
            };
            let mut raw = Raw::named(name);
            if let Some(color) = fields.get("color") {
                raw.set_color(path, color)?;
            }
            if let Some(id) = fields.get("classid").or_else(|| fields.get("id")) {
                raw.entry.id = Some(raw.id(path, id)?);
            }
            raw.entry.ignore = fields.get("ignore") == Some(&Value::Bool(true));
            Ok(raw)
        }
        other => Err(Error::file(
            path,
            format!("invalid class {other} (expected an object or a name)"),
        )),
    };
    entries.into_iter().map(entry).collect()
}

/// An object of names and colors or ids, or of ids and names.
fn object(path: &Path, fields: Vec<(String, Value)>) -> Result<Vec<Raw>> {
    let field = |(key, value): (String, Value)| {
        let is_color = |text: &str| parse_color(text).is_some();
        match &value {
            Value::String(name) if key.parse::<usize>().is_ok() && !is_color(name) => {
                let mut raw = Raw::named(name.clone());
                raw.entry.id = key.parse().ok();
                Ok(raw)
            }
            Value::Number(_) => {
                let mut raw = Raw::named(key);
                raw.entry.id = Some(raw.id(path, &value)?);
                Ok(raw)
            }
            Value::Array(numbers) if numbers.len() >= 3 => {
                let mut raw = Raw::named(key);
                raw.set_color(path, &value)?;
                Ok(raw)
            }
            Value::String(color) if is_color(color) => {
                let mut raw = Raw::named(key);
                raw.set_color(path, &value)?;
                Ok(raw)
            }
            _ => Err(Error::file(
                path,
                format!(
                    "invalid class {key}: {value} (expected a list of classes, a field `classes`, or names with colors or ids)"
                ),
            )),
        }
    };
    fields.into_iter().map(field).collect()
}

impl Raw {
    fn named(name: String) -> Self {
        let entry = Entry {
            name,
            ..Entry::default()
        };
        Self { entry, numbers: None }
    }

    fn set_color(&mut self, path: &Path, color: &Value) -> Result<()> {
        let name = &self.entry.name;
        match color {
            Value::String(text) => {
                let wrong = || {
                    let cause = format!("invalid color {text:?} of {name} (expected \"#rrggbb\")");
                    Error::file(path, cause)
                };
                self.entry.color = Some(parse_color(text.trim()).ok_or_else(wrong)?);
            }
            Value::Array(values) => {
                let number = |value: &Value| match value {
                    Value::Number(number) => Ok(number.clone()),
                    other => Err(Error::file(
                        path,
                        format!("invalid color of {name}: {other} (expected a number)"),
                    )),
                };
                self.numbers = Some(values.iter().map(number).collect::<Result<_>>()?);
            }
            other => {
                let cause = format!("invalid color of {name}: {other} (expected [r, g, b] or \"#rrggbb\")");
                return Err(Error::file(path, cause));
            }
        }
        Ok(())
    }

    /// An id written as a number or as text.
    fn id(&self, path: &Path, id: &Value) -> Result<usize> {
        let number = match id {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64().and_then(|id| usize::try_from(id).ok()),
        };
        number.ok_or_else(|| {
            let cause = format!("invalid id {id} of {} (expected a whole number)", self.entry.name);
            Error::file(path, cause)
        })
    }
}

/// Decides for the whole table whether colors are bytes or fractions of 1.
fn colors(path: &Path, raw: Vec<Raw>) -> Result<Vec<Entry>> {
    let numbers = || raw.iter().filter_map(|r| r.numbers.as_ref());
    let channels = || numbers().flat_map(|n| n.iter().take(3));
    let value = |n: &Number| n.as_f64().unwrap_or(-1.0);
    let largest = channels().map(value).fold(0.0, f64::max);
    let as_fractions = channels().any(Number::is_f64) && largest <= 1.0;
    if !as_fractions && (0.5..=1.0).contains(&largest) {
        let cause = "no color has a value above 1 (expected 0 to 255, or fractions written as 0.0 to 1.0)";
        return Err(Error::file(path, cause));
    }
    let entry = |raw: Raw| {
        let mut entry = raw.entry;
        let Some(numbers) = raw.numbers else {
            return Ok(entry);
        };
        let (3 | 4) = numbers.len() else {
            let cause = format!(
                "the color of {} has {} channels, not 3 or 4",
                entry.name,
                numbers.len()
            );
            return Err(Error::file(path, cause));
        };
        let mut color = [0; 3];
        for (byte, number) in color.iter_mut().zip(&numbers) {
            let wanted = value(number) * if as_fractions { 255.0 } else { 1.0 };
            if !(0.0..=255.0).contains(&wanted) || (!as_fractions && wanted.fract() != 0.0) {
                let cause = format!("the color of {} has the value {number}, not 0 to 255", entry.name);
                return Err(Error::file(path, cause));
            }
            *byte = wanted.round() as u8;
        }
        entry.color = Some(color);
        Ok(entry)
    };
    raw.into_iter().map(entry).collect()
}

/// A table with a head: `name`, and `id`, `color`, or `r`, `g`, `b`.
fn csv(path: &Path, text: &str) -> Result<Vec<Raw>> {
    let head = text.lines().next().unwrap_or_default();
    let delimiter = [b';', b'\t'].into_iter().find(|d| head.contains(char::from(*d)));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let fail = |cause: csv::Error| Error::file(path, cause);
    let head: Vec<String> = reader
        .headers()
        .map_err(fail)?
        .iter()
        .map(str::to_lowercase)
        .collect();
    let column = |names: &[&str]| head.iter().position(|word| names.contains(&word.as_str()));
    let Some(name) = column(&["name", "class", "label", "class_name"]) else {
        return Err(Error::file(path, "invalid head (expected a column `name`)"));
    };
    let (id, color) = (
        column(&["id", "classid", "class_id", "value", "index"]),
        column(&["color", "hex"]),
    );
    let rgb = [
        column(&["r", "red"]),
        column(&["g", "green"]),
        column(&["b", "blue"]),
    ];
    let mut entries = Vec::new();
    for row in reader.records() {
        let row = row.map_err(fail)?;
        let cell = |column: Option<usize>| column.and_then(|at| row.get(at)).filter(|text| !text.is_empty());
        let mut raw = Raw::named(cell(Some(name)).unwrap_or_default().to_owned());
        if let Some(id) = cell(id) {
            raw.entry.id = Some(raw.id(path, &Value::String(id.into()))?);
        }
        if let Some(color) = cell(color) {
            raw.set_color(path, &Value::String(color.into()))?;
        } else if let [Some(r), Some(g), Some(b)] = rgb.map(cell) {
            raw.numbers = Some(numbers(path, &[r, g, b])?);
        }
        entries.push(raw);
    }
    Ok(entries)
}

/// CVAT's `labelmap.txt`: `name:r,g,b:parts:actions`, lines with `#` are comments.
fn label_map(path: &Path, text: &str) -> Result<Vec<Raw>> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, color) = (
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        );
        let mut raw = Raw::named(name.trim().to_owned());
        raw.numbers = Some(numbers(path, &color.split(',').collect::<Vec<_>>())?);
        Ok(raw)
    };
    lines.map(entry).collect()
}

fn numbers(path: &Path, texts: &[&str]) -> Result<Vec<Number>> {
    let number = |text: &&str| {
        serde_json::from_str(text.trim()).map_err(|_| {
            Error::file(
                path,
                format!("invalid color channel {text:?} (expected a number)"),
            )
        })
    };
    texts.iter().map(number).collect()
}
