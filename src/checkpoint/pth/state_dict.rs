//! Finding the state dict in what a checkpoint holds, beside an epoch, an optimizer and an average.

mod walk;

use super::{Skipped, shown};
use crate::checkpoint::pickle::{Pickle, TensorRecord, Value};
use crate::checkpoint::select::{self, Candidate, Chosen, Place, Selection};
use std::hash::{DefaultHasher, Hash, Hasher};
use walk::{Found, Unread, What};

/// Keys under which training programs keep the weights, the likeliest first.
const USUAL_KEYS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "module",
    "net",
    "network",
    "weights",
];

/// Keys that an error lists at most.
const KEYS_SHOWN: usize = 12;

/// Longest name of a tensor.
const MAX_NAME_BYTES: usize = 1024;

/// A state dict that has been found.
pub(super) struct StateDict<'a> {
    /// The keys it lies under, joined by dots; `None` when it is the whole checkpoint.
    pub under: Option<String>,
    /// Names, places and tensors.
    pub tensors: Vec<(String, Place, &'a TensorRecord)>,
    /// All else that the checkpoint holds.
    pub skipped: Skipped,
    /// State dicts that are not read.
    pub others: Vec<Candidate>,
}

/// Finds the state dict of `pickle`.
///
/// Tensors of SAM's or MA-SAM's names are found wherever they lie, and `selection` chooses among them. Where there are
/// none, a dict of tensors under a usual key comes first, then tensors at the top, then the only dict at the top that
/// holds tensors.
pub(super) fn find<'a>(pickle: &'a Pickle, selection: &Selection) -> Result<StateDict<'a>, String> {
    let found = walk::tensors(pickle)?;
    let content = |found: &Found| match &found.what {
        What::Tensor(record) => {
            let mut hasher = DefaultHasher::new();
            (pickle.span(record.storage.key), record.offset).hash(&mut hasher);
            hasher.finish()
        }
        What::Unread(_) => 0,
    };
    let paths = found.iter().map(|found| (found.path.as_str(), content(found)));
    match select::choose(paths, selection)? {
        Some(chosen) => known(pickle, found, chosen),
        None => unknown(pickle, &found),
    }
}

/// The state dict of a SAM or MA-SAM checkpoint.
fn known<'a>(pickle: &'a Pickle, found: Vec<Found<'a>>, chosen: Chosen) -> Result<StateDict<'a>, String> {
    let mut skipped = Skipped::default();
    for &(key, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        let text = key_text(pickle, key);
        let is_read = pickle.tensor(value).is_some()
            || chosen.prefix.split('.').next() == Some(text.as_str()) && pickle.object(value).is_some();
        if !is_read {
            skipped.add(text, pickle.describe(value));
        }
    }
    let mut tensors = Vec::new();
    let mut unread: Vec<(String, Unread)> = Vec::new();
    for Found { path, what } in found {
        let place = chosen.place(&path);
        if place == Place::Elsewhere {
            continue;
        }
        let name = path.get(chosen.prefix.len()..).unwrap_or_default().to_owned();
        match what {
            What::Tensor(record) => tensors.push((name, place, record)),
            What::Unread(kind) if place != Place::Beside => unread.push((name, kind)),
            What::Unread(kind) => skipped.add(shown(&name), kind.name.to_owned()),
        }
    }
    if let [(name, kind), rest @ ..] = unread.as_slice() {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return Err(format!(
            "tensor {}{more}: {}, which is not read; save it again where PyTorch is: {}",
            shown(name),
            kind.name,
            kind.cure
        ));
    }
    let under = chosen.prefix.trim_end_matches('.');
    Ok(StateDict {
        under: (!under.is_empty()).then(|| under.to_owned()),
        tensors,
        skipped,
        others: chosen.others,
    })
}

/// The state dict of any other checkpoint.
fn unknown<'a>(pickle: &'a Pickle, found: &[Found]) -> Result<StateDict<'a>, String> {
    let top = pickle.dict(pickle.root()).ok_or_else(|| {
        let names: Vec<String> = found
            .iter()
            .take(KEYS_SHOWN)
            .map(|found| shown(&found.path))
            .collect();
        let beside = match names.is_empty() {
            true => String::new(),
            false => format!(
                " with tensors of other names than SAM's or MA-SAM's: {}",
                names.join(", ")
            ),
        };
        let what = pickle.describe(pickle.root());
        let article = if what.starts_with('o') { "an" } else { "a" };
        format!("holds no dict of tensors, but {article} {what}{beside}; save a state_dict()")
    })?;
    let nested: Vec<(&str, Value)> = top
        .iter()
        .filter(|(_, value)| {
            pickle
                .dict(*value)
                .is_some_and(|entries| has_tensors(pickle, entries))
        })
        .filter_map(|&(key, value)| Some((pickle.text(key)?, value)))
        .collect();
    let usual = USUAL_KEYS
        .iter()
        .find_map(|usual| nested.iter().find(|(key, _)| key == usual));
    let (under, place) = match (usual, nested.as_slice()) {
        (Some(&(key, value)), _) => (Some(key), value),
        _ if has_tensors(pickle, top) => (None, pickle.root()),
        (None, &[(key, value)]) => (Some(key), value),
        (None, []) => {
            return Err(format!(
                "holds no tensors; its keys are: {}",
                list_keys(pickle, top)
            ));
        }
        (None, _) => {
            return Err(format!(
                "holds several dicts of tensors, none under a usual key: {}",
                list_keys(pickle, top)
            ));
        }
    };

    let mut skipped = Skipped::default();
    let mut tensors = Vec::new();
    for &(key, value) in pickle.dict(place).unwrap_or_default() {
        match (pickle.text(key), pickle.tensor(value)) {
            (Some(name), Some(record)) => {
                if name.len() > MAX_NAME_BYTES {
                    return Err(format!(
                        "tensor {}: its name has {} bytes",
                        shown(name),
                        name.len()
                    ));
                }
                tensors.push((name.to_owned(), Place::Beside, record));
            }
            _ => skipped.add(key_text(pickle, key), pickle.describe(value)),
        }
    }
    if under.is_some() {
        for &(key, value) in top.iter().filter(|(_, value)| *value != place) {
            skipped.add(key_text(pickle, key), pickle.describe(value));
        }
    }
    Ok(StateDict {
        under: under.map(str::to_owned),
        tensors,
        skipped,
        others: Vec::new(),
    })
}

fn has_tensors(pickle: &Pickle, entries: &[(Value, Value)]) -> bool {
    entries
        .iter()
        .any(|&(key, value)| pickle.text(key).is_some() && pickle.tensor(value).is_some())
}

fn key_text(pickle: &Pickle, key: Value) -> String {
    match key {
        Value::Int(int) => int.to_string(),
        _ => pickle
            .text(key)
            .map_or_else(|| format!("({})", pickle.describe(key)), shown),
    }
}

fn list_keys(pickle: &Pickle, entries: &[(Value, Value)]) -> String {
    if entries.is_empty() {
        return "none".into();
    }
    let keys = entries.iter().take(KEYS_SHOWN);
    let keys: Vec<_> = keys
        .map(|&(key, value)| format!("{} ({})", key_text(pickle, key), pickle.describe(value)))
        .collect();
    let rest = entries.len() - keys.len();
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    keys.join(", ") + &more
}
