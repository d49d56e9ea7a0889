//! Reading a configuration so that everything wrong with it is said at once, by full name and line.
//!
//! A value of the wrong type ends deserialization, so it is noted, taken out of the document, and the rest is read again;
//! then come fields that do not exist, then values out of bounds.

use super::{Scenes, TrainConfig};
use crate::error::{Error, Result, name};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// Fields whose bounds follow from others: while those are wrong, these are not judged.
const RESTS_ON: [(&str, &str); 3] = [
    ("loss.class_weights", "model"),
    ("clips.at_once", "clips.accumulate"),
    ("model", "model.preset"),
];

/// How alike two names are, 0 to 1, from where one is taken for the other misspelt.
const ALIKE: f64 = 0.8;

/// Most characters of a value that a message shows.
const VALUE_CHARS: usize = 60;

/// A thing that is wrong.
struct Fault {
    line: Option<usize>,
    /// The full name of the field it is about; none where the text is no TOML.
    path: Option<String>,
    text: String,
    /// A number below 0 where none may be: read as 0, so that the field's own bound is found.
    was_negative: bool,
}

/// A configuration from `text`.
///
/// # Errors
/// [`Error::Configuration`] with all faults, in the order of their lines.
pub(super) fn parse(text: &str) -> Result<TrainConfig> {
    let (mut document, broken) = DeTable::parse_recoverable(text);
    let whole = document.clone();
    let mut faults: Vec<Fault> = Vec::new();
    for error in broken {
        let line = error.span().map(|span| line_of(text, span.start));
        if faults.iter().all(|fault| fault.line != line) {
            let text = name(error.message());
            faults.push(Fault {
                line,
                path: None,
                text,
                was_negative: false,
            });
        }
    }
    let is_toml = faults.is_empty();
    let config = loop {
        let mut unknown = Vec::new();
        let deserializer = Deserializer::from(document.clone());
        let read = serde_ignored::deserialize(deserializer, |path| {
            // An optional section is a `?` in the path.
            unknown.push(path.to_string().replace(".?", ""));
        });
        match read {
            Ok(config) => {
                faults.extend(unknown.into_iter().map(|path| unknown_field(&path, &whole, text)));
                long_lists(whole.get_ref(), &known(), "", text, &mut faults);
                break config;
            }
            Err(error) => {
                let span = error.span();
                let Some(path) = span.clone().and_then(|span| path_to(document.get_ref(), &span)) else {
                    let line = span.map(|span| line_of(text, span.start));
                    let text = name(error.message());
                    faults.push(Fault {
                        line,
                        path: None,
                        text,
                        was_negative: false,
                    });
                    return Err(error_of(faults));
                };
                faults.push(wrong_type(&path, error.message(), &whole, text));
                let was_negative = faults.last().is_some_and(|fault| fault.was_negative);
                replace(document.get_mut(), &path, was_negative);
            }
        }
    };
    // Where the text is no TOML, a field that seems missing may be in the part that was not understood.
    if is_toml {
        judge(&config, &mut faults, &whole, text);
    }
    match faults.is_empty() {
        true => Ok(config),
        false => Err(error_of(faults)),
    }
}

/// Adds what [`TrainConfig::validate`] finds in fields that could be read.
fn judge(config: &TrainConfig, faults: &mut Vec<Fault>, document: &Spanned<DeTable>, text: &str) {
    let found = match config.validate() {
        Ok(()) => Vec::new(),
        Err(Error::Several(errors)) => errors,
        Err(error) => vec![error],
    };
    let unsure: Vec<String> = faults.iter().filter_map(|fault| fault.path.clone()).collect();
    for error in found {
        let Error::Config { field, value, bound } = &error else {
            let text = error.to_string();
            faults.push(Fault {
                line: None,
                path: None,
                text,
                was_negative: false,
            });
            continue;
        };
        let (field, place) = (field.as_str(), find(document, field));
        let value = place
            .as_ref()
            .and_then(|place| place.value(text))
            .unwrap_or_else(|| name(value));
        let invalid = invalid(field, &value, bound);
        let is_same = |fault: &&mut Fault| fault.path.as_deref() == Some(field);
        if let Some(known) = faults.iter_mut().find(is_same) {
            if known.was_negative {
                known.text = invalid;
            }
            continue;
        }
        let rests = RESTS_ON
            .iter()
            .filter(|(own, _)| within(field, own))
            .map(|(_, other)| *other);
        let rests: Vec<&str> = rests.chain([field]).collect();
        let rests_on = |path: &String| path != field && rests.iter().any(|rest| within(path, rest));
        if unsure.iter().any(rests_on) {
            continue;
        }
        let line = place.map(|place| line_of(text, place.key.start));
        faults.push(Fault {
            line,
            path: Some(field.into()),
            text: invalid,
            was_negative: false,
        });
    }
}

fn error_of(mut faults: Vec<Fault>) -> Error {
    faults.sort_by_key(|fault| fault.line);
    let line = |fault: Fault| match fault.line {
        Some(line) => format!("line {line}: {}", fault.text),
        None => fault.text,
    };
    Error::Configuration {
        path: None,
        faults: faults.into_iter().map(line).collect(),
    }
}

/// `invalid WHAT VALUE (expected CONSTRAINT)`, and the word that is probably meant.
fn invalid(field: &str, value: &str, bound: &str) -> String {
    let Some(expected) = bound.strip_prefix("it has to be ") else {
        return format!("invalid {field} {value} ({})", name(bound));
    };
    let said = format!("invalid {field} {value} (expected {})", name(expected));
    let words = expected.split(", ").flat_map(|words| words.split(" or "));
    match nearest(value.trim_matches(['"', '\'']), words) {
        Some(word) => format!("{said}. Did you mean \"{word}\"?"),
        None => said,
    }
}

/// A value of another type than its field's, or a word that is none of its words.
fn wrong_type(path: &[String], message: &str, document: &Spanned<DeTable>, text: &str) -> Fault {
    let full = path.join(".");
    let place = find(document, &full);
    let value = place
        .as_ref()
        .and_then(|place| place.value(text))
        .unwrap_or_default();
    let (_, expected) = message.rsplit_once(", expected ").unwrap_or(("", message));
    let was_negative = message.contains("integer `-") && matches!(expected, "u8" | "u32" | "u64" | "usize");
    let said = invalid(&full, &value, &format!("it has to be {}", in_words(expected)));
    let line = place.map(|place| line_of(text, place.key.start));
    Fault {
        line,
        path: Some(full),
        text: said,
        was_negative,
    }
}

/// Rust's names of types, for people.
fn in_words(expected: &str) -> String {
    match expected {
        "u64" | "usize" => "a whole number, 0 or more".into(),
        "u8" => "a whole number, 0 to 255".into(),
        "u32" => "a whole number, 0 to 4294967295".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "path string" => "a text in quotes".into(),
        "a sequence" => "a list in brackets".into(),
        other if other.starts_with("an array of length ") => {
            other.replace("an array of length ", "a list of ") + " numbers"
        }
        other => match other.strip_prefix("struct ") {
            Some(_) => "a section with fields of its own".into(),
            None => name(other.trim_start_matches("one of ").replace('`', "")),
        },
    }
}

/// A field that does not exist, with those that do.
fn unknown_field(path: &str, document: &Spanned<DeTable>, text: &str) -> Fault {
    let known = known();
    let (section, own) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = match section {
        "" => String::new(),
        section => format!("/{}", section.replace('.', "/")),
    };
    let fields: Vec<&str> = known
        .pointer(&pointer)
        .and_then(|section| section.as_object())
        .map_or_else(Vec::new, |map| map.keys().map(String::as_str).collect());
    let full = |field: &str| match section {
        "" => field.to_owned(),
        section => format!("{section}.{field}"),
    };
    let elsewhere = || {
        known
            .as_object()?
            .iter()
            .find(|(_, section)| section.get(own).is_some())
    };
    let meant = nearest(own, fields.iter().copied())
        .map(full)
        .or_else(|| elsewhere().map(|(section, _)| format!("{section}.{own}")));
    let said = match meant {
        Some(meant) => format!("unknown field {}. Did you mean {meant}?", name(path)),
        None => format!("unknown field {} (expected {})", name(path), fields.join(", ")),
    };
    let line = find(document, path).map(|place| line_of(text, place.key.start));
    Fault {
        line,
        path: Some(path.into()),
        text: said,
        was_negative: false,
    }
}

/// Lists that are longer than their fields: what is too much would be passed over.
fn long_lists(
    table: &DeTable,
    known: &serde_json::Value,
    section: &str,
    text: &str,
    faults: &mut Vec<Fault>,
) {
    for (key, value) in table.iter() {
        let path = format!("{section}{}", key.get_ref());
        let Some(meant) = known.get(key.get_ref().as_ref()) else {
            continue;
        };
        if let Some(inner) = value.get_ref().as_table() {
            long_lists(inner, meant, &format!("{path}."), text, faults);
        } else if let (Some(list), Some(meant)) = (value.get_ref().as_array(), meant.as_array())
            && list.len() > meant.len()
        {
            let place = Place {
                key: key.span(),
                value: value.span(),
                is_section: false,
            };
            let given = place.value(text).unwrap_or_default();
            let bound = format!("it has to be a list of {} numbers", meant.len());
            faults.push(Fault {
                line: Some(line_of(text, key.span().start)),
                text: invalid(&path, &given, &bound),
                path: Some(path),
                was_negative: false,
            });
        }
    }
}

/// All fields, as JSON writes them.
fn known() -> serde_json::Value {
    let mut all = TrainConfig::default();
    all.data.phantom = Some(Scenes::default());
    all.data.validation_phantom = Some(Scenes::default());
    serde_json::to_value(all).unwrap_or_default()
}

/// The word that `given` may be meant for.
pub(super) fn nearest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |word: &str| strsim::jaro_winkler(given, word);
    let best = words.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.filter(|word| likeness(word) >= ALIKE)
}

/// Whether `path` is `section` or lies in it.
fn within(path: &str, section: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Where a field stands in the text.
struct Place {
    key: Range<usize>,
    value: Range<usize>,
    is_section: bool,
}

impl Place {
    /// The value as it is written, where it fits into a line.
    fn value(&self, text: &str) -> Option<String> {
        let written = text.get(self.value.clone()).filter(|_| !self.is_section)?;
        let short: String = written.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut shown: String = short.chars().take(VALUE_CHARS).collect();
        if shown.len() < short.len() {
            shown.push('…');
        }
        Some(name(shown))
    }
}

/// The place of the field with that full name.
fn find(document: &Spanned<DeTable>, path: &str) -> Option<Place> {
    let (mut table, mut place) = (document.get_ref(), None);
    for part in path.split('.') {
        let (key, value) = table.get_key_value(part)?;
        let inner = value.get_ref().as_table();
        place = Some(Place {
            key: key.span(),
            value: value.span(),
            is_section: inner.is_some(),
        });
        match inner {
            Some(inner) => table = inner,
            None => break,
        }
    }
    place
}

/// The path to the innermost field that holds `span`.
fn path_to(table: &DeTable, span: &Range<usize>) -> Option<Vec<String>> {
    for (key, value) in table.iter() {
        let own = key.get_ref().to_string();
        if let Some(inner) = value.get_ref().as_table().and_then(|inner| path_to(inner, span)) {
            return Some([vec![own], inner].concat());
        }
        let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
        if holds(value.span()) || holds(key.span()) {
            return Some(vec![own]);
        }
    }
    None
}

/// Takes a field out of the document, or makes it 0.
fn replace(table: &mut DeTable, path: &[String], by_zero: bool) {
    match path {
        [] => {}
        [field] if by_zero => {
            if let Some(value) = table.get_mut(field.as_str()) {
                *value.get_mut() = DeValue::Integer(toml::de::DeInteger::default());
            }
        }
        [field] => {
            table.remove(field.as_str());
        }
        [section, rest @ ..] => {
            if let Some(DeValue::Table(inner)) = table.get_mut(section.as_str()).map(Spanned::get_mut) {
                replace(inner, rest, by_zero);
            }
        }
    }
}

/// The line, counted from 1, of the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match parse(text) {
            Err(Error::Configuration { faults, .. }) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_kinds_of_faults_are_said_at_once_by_full_name_and_line() {
        let text = "trained = 'fakt'\nlerning_rate = 1.0\n\
                    [model]\npreset = 'demoo'\nclasses = 0\n\
                    [data.phantom]\nsequences = 'two'\nseeds = 3\nsize = [3, 4000000]\n\
                    [clips]\nframes = 65\nbatches = 3\nstride = [1, 2, 3]\n\
                    [schedule]\nsteps = -1\nrate = -1.0\n\
                    [augment]\nposterise_bits = 300\nerase = 1\n";
        assert_eq!(
            faults(text),
            [
                "line 1: invalid trained 'fakt' (expected fact+adapters, fact, adapters, decoder, full). \
                 Did you mean \"fact\"?",
                "line 2: unknown field lerning_rate (expected augment, clips, data, guard, loss, model, name, optimizer, \
                 precision, preprocessing, save, schedule, seed, start, trained)",
                "line 4: invalid model.preset 'demoo' (expected vit_b, vit_l, vit_h, demo). Did you mean \"demo\"?",
                "line 5: invalid model.classes 0 (expected 1 to 255)",
                "line 7: invalid data.phantom.sequences 'two' (expected a whole number, 0 or more)",
                "line 8: unknown field data.phantom.seeds. Did you mean data.phantom.seed?",
                "line 9: invalid data.phantom.size [3, 4000000] (expected 32 to 4096 pixels)",
                "line 11: invalid clips.frames 65 (expected 1 to 64)",
                "line 12: unknown field clips.batches. Did you mean clips.batch?",
                "line 13: invalid clips.stride [1, 2, 3] (expected a list of 2 numbers)",
                "line 15: invalid schedule.steps -1 (expected 1 or more)",
                "line 16: invalid schedule.rate -1.0 (expected above 0 and at most 1000)",
                "line 18: invalid augment.posterise_bits 300 (expected a whole number, 0 to 255)",
                "line 19: invalid augment.erase 1 (expected true or false)",
            ]
        );
    }

    #[test]
    fn a_field_that_could_not_be_read_does_not_make_others_wrong() {
        let text = "[data]\nfolder = 3\n[model]\npreset = 5\nencoder_heads = 7\n[loss]\nclass_weights = [1.0]\n\
                    [clips]\naccumulate = 'x'\nat_once = 4\n";
        let lines: Vec<String> = faults(text)
            .iter()
            .map(|fault| fault.chars().take(20).collect())
            .collect();
        assert_eq!(
            lines,
            [
                "line 2: invalid data",
                "line 4: invalid mode",
                "line 5: unknown fiel",
                "line 9: invalid clip",
            ]
        );
    }

    #[test]
    fn text_that_is_no_toml_does_not_hide_what_can_be_read() {
        let found = faults("name = demo\nseed = 'x'\n[data.phantom\n");
        assert!(found.len() >= 2 && found[0].starts_with("line 1: "), "{found:?}");
        assert!(
            found.contains(&"line 2: invalid seed 'x' (expected a whole number, 0 or more)".into()),
            "{found:?}"
        );
    }

    #[test]
    fn a_field_in_the_wrong_section_is_named_with_its_own() {
        assert_eq!(
            faults("steps = 5\n[data.phantom]\n"),
            ["line 1: unknown field steps. Did you mean schedule.steps?"]
        );
        assert_eq!(
            faults("[shedule]\nsteps = 5\n[data.phantom]\n"),
            ["line 1: unknown field shedule. Did you mean schedule?"]
        );
    }
}
