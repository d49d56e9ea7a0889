//! Finding the state dict in what a checkpoint holds: at the top, or one level down, beside an epoch and an
//! optimiser.

use super::{Skipped, shown};
use crate::checkpoint::pickle::{Pickle, TensorRecord, Value};

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
    /// The key it lies under; `None` when it is the whole checkpoint.
    pub under: Option<&'a str>,
    /// Names and tensors in the order of the file.
    pub tensors: Vec<(&'a str, &'a TensorRecord)>,
    /// All else that the checkpoint holds.
    pub skipped: Skipped,
}

/// Finds the state dict of `pickle`.
///
/// One under a usual key comes first, then tensors at the top, then the only dict at the top that holds
/// tensors.
pub(super) fn find(pickle: &Pickle) -> Result<StateDict<'_>, String> {
    let top = pickle.dict(pickle.root()).ok_or_else(|| {
        format!(
            "holds no dict of tensors, but a {}; save a state_dict()",
            pickle.describe(pickle.root())
        )
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
                tensors.push((name, record));
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
        under,
        tensors,
        skipped,
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
