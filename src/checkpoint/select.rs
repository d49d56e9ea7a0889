//! Which of the state dicts in a checkpoint is read.
//!
//! A tensor's place is its keys joined by dots, `state_dict.model.image_encoder.pos_embed`: the dictionaries of the
//! checkpoint and the wrappers of the model look the same, and whatever stands before SAM's own name is a prefix.
//! Tensors of one prefix are one state dict.

use super::names;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most state dicts that a message lists.
const LISTED: usize = 12;

/// Keys that say of what lies under them that it is the model, and no more.
const USUAL_KEYS: [&str; 21] = [
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "models",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "parameters",
    "sam",
    "sam_model",
    "medsam_model",
    "student",
    "online",
    "checkpoint",
    "backbone",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
];

/// Which state dict to read, where a checkpoint holds several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// The model's own weights, not an average of them.
    #[default]
    Usual,
    /// The average over training steps (EMA).
    Ema,
    /// What lies under this key, for example `best_state` or `state_dict.student`.
    Key(String),
}

/// A state dict in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its keys joined by dots; empty for the checkpoint itself.
    pub key: String,
    /// Tensors of SAM's or MA-SAM's names in it.
    pub tensors: usize,
    /// Its keys say that it is an average over training steps.
    pub averaged: bool,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = if self.key.is_empty() { "(top)" } else { &self.key };
        let averaged = if self.averaged { ", averaged" } else { "" };
        write!(
            f,
            "{} ({} tensors{averaged})",
            super::pickle::shown(key),
            self.tensors
        )
    }
}

/// Where a tensor belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The state dict that is read.
    Own,
    /// SAM's part of it, which lies apart.
    Sam,
    /// Beside the state dict under no name of SAM's.
    Beside,
    /// Another state dict.
    Elsewhere,
}

/// The state dict that is read.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    own: String,
    sam: Option<String>,
    /// What all names that are read begin with.
    pub(crate) prefix: String,
    /// Prefixes of the state dicts that are not read.
    elsewhere: Vec<String>,
    /// The state dicts that are not read.
    pub(crate) others: Vec<Candidate>,
}

impl Chosen {
    /// Where the tensor at `path` belongs.
    pub(crate) fn place(&self, path: &str) -> Place {
        match names::root(path).and_then(|at| path.get(..at)) {
            Some(prefix) if prefix == self.own => Place::Own,
            Some(prefix) if self.sam.as_deref() == Some(prefix) => Place::Sam,
            Some(_) => Place::Elsewhere,
            None if !path.starts_with(&self.prefix) => Place::Elsewhere,
            None if self.elsewhere.iter().any(|other| path.starts_with(other)) => Place::Elsewhere,
            None => Place::Beside,
        }
    }
}

#[derive(Default)]
struct Group {
    tensors: usize,
    encoder: bool,
    adapters: bool,
    fingerprint: u64,
}

/// Finds the state dict among tensors at `paths`, each with a number that tells their contents apart; `None` where no
/// path holds a name of SAM's or MA-SAM's.
///
/// # Errors
/// Several state dicts of which none is surely meant, none that is averaged, or none under the key.
pub(crate) fn choose<'a>(
    paths: impl Iterator<Item = (&'a str, u64)>,
    selection: &Selection,
) -> Result<Option<Chosen>, String> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (path, content) in paths {
        let Some((prefix, name)) = names::root(path).and_then(|at| path.split_at_checked(at)) else {
            continue;
        };
        if components(prefix).any(is_optimizer) {
            continue;
        }
        let group = groups.entry(prefix).or_default();
        let name = names::canonical(name);
        group.tensors += 1;
        group.encoder |= name.starts_with("image_encoder.patch_embed.");
        group.adapters |= names::is_ours(&name);
        let mut hasher = DefaultHasher::new();
        (name, content).hash(&mut hasher);
        group.fingerprint = group.fingerprint.wrapping_add(hasher.finish());
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let candidates: Vec<(&str, Candidate)> = groups
        .iter()
        .map(|(&prefix, group)| (prefix, candidate(prefix, group)))
        .collect();
    let listed = || {
        let shown = candidates.iter().take(LISTED);
        let shown: Vec<String> = shown.map(|(_, candidate)| candidate.to_string()).collect();
        shown.join(", ")
    };
    let wanted: Vec<&str> = candidates
        .iter()
        .filter(|(_, candidate)| match selection {
            Selection::Usual => !candidate.averaged,
            Selection::Ema => candidate.averaged,
            Selection::Key(key) => under(&candidate.key, key),
        })
        .map(|&(prefix, _)| prefix)
        .collect();
    let averaged = wanted.len() < candidates.len();
    let several = || {
        format!(
            "holds several state dicts, and none of them is surely the one: {}; choose one by its key (--key KEY)",
            listed()
        )
    };
    let group = |prefix: &str| groups.get(prefix);
    let same = |a: &str, b: &str| matches!((group(a), group(b)), (Some(a), Some(b)) if (a.tensors, a.fingerprint) == (b.tensors, b.fingerprint));
    let (own, sam) = match (wanted.as_slice(), selection) {
        // Averages alone are what there is.
        ([], Selection::Usual) => match candidates.as_slice() {
            [(only, _)] => (*only, None),
            _ => return Err(several()),
        },
        ([], Selection::Ema) => return Err(format!("holds no averaged (EMA) weights, but {}", listed())),
        ([], Selection::Key(key)) => {
            return Err(format!("holds no state dict under `{key}`, but {}", listed()));
        }
        ([only], Selection::Usual) if averaged && !components(only).all(is_usual) => return Err(several()),
        ([only], _) => (*only, None),
        ([first, rest @ ..], _) if rest.iter().all(|other| same(first, other)) => {
            let usual = wanted
                .iter()
                .find(|prefix| components(prefix).all(is_usual))
                .unwrap_or(first);
            (*usual, None)
        }
        (&[a, b], _) => match (group(a), group(b)) {
            // A whole model: SAM's part under a prefix of its own.
            (Some(a_group), Some(b_group)) if !a_group.encoder && a_group.adapters && b_group.encoder => {
                (a, Some(b))
            }
            (Some(a_group), Some(b_group)) if !b_group.encoder && b_group.adapters && a_group.encoder => {
                (b, Some(a))
            }
            _ => return Err(several()),
        },
        _ => return Err(several()),
    };
    let is_read = |prefix: &str| prefix == own || Some(prefix) == sam;
    let others: Vec<(&str, Candidate)> = candidates
        .iter()
        .filter(|(prefix, _)| !is_read(prefix))
        .cloned()
        .collect();
    Ok(Some(Chosen {
        prefix: sam.map_or(own, |sam| common(own, sam)).to_owned(),
        own: own.to_owned(),
        sam: sam.map(str::to_owned),
        elsewhere: others.iter().map(|(prefix, _)| (*prefix).to_owned()).collect(),
        others: others.into_iter().map(|(_, candidate)| candidate).collect(),
    }))
}

/// Whether what lies under this key is an optimizer's: moments of the weights carry the weights' names.
pub(crate) fn is_optimizer(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let word = |word: &str| matches!(word, "opt" | "optim" | "optims" | "scaler" | "sched");
    ["optimizer", "optimiser", "scheduler"]
        .iter()
        .any(|part| key.contains(part))
        || words(&key).any(word)
}

fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split(|c: char| !c.is_ascii_alphanumeric())
}

fn candidate(prefix: &str, group: &Group) -> Candidate {
    Candidate {
        key: prefix.trim_end_matches('.').to_owned(),
        tensors: group.tensors,
        averaged: components(prefix).any(is_averaged),
    }
}

fn components(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split('.').filter(|part| !part.is_empty())
}

fn is_usual(component: &str) -> bool {
    USUAL_KEYS.contains(&component) || component.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_averaged(component: &str) -> bool {
    const WORDS: [&str; 10] = [
        "ema", "swa", "teacher", "averaged", "average", "avg", "shadow", "momentum", "polyak", "modelema",
    ];
    let lower = component.to_ascii_lowercase();
    words(&lower).any(|word| WORDS.contains(&word))
}

/// Whether `candidate` is `key` or lies under it.
fn under(candidate: &str, key: &str) -> bool {
    let rest = candidate.strip_prefix(key.trim_end_matches('.'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The longest prefix of whole components that both begin with.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let ends = a.match_indices('.').map(|(at, _)| at + 1);
    ends.rev()
        .filter_map(|end| a.get(..end))
        .find(|prefix| b.starts_with(prefix))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAM: [&str; 2] = [
        "image_encoder.patch_embed.proj.weight",
        "mask_decoder.iou_token.weight",
    ];
    const MASAM: [&str; 2] = ["q_FacTs_000", "mask_decoder.iou_token.weight"];

    /// Chooses among state dicts of these prefixes and names; each has contents of its own.
    fn chosen(
        dicts: &[(&str, [&str; 2])],
        selection: &Selection,
    ) -> Result<(String, Option<String>), String> {
        let paths: Vec<(String, u64)> = dicts
            .iter()
            .enumerate()
            .flat_map(|(at, (prefix, names))| names.map(|name| (format!("{prefix}{name}"), at as u64)))
            .collect();
        let chosen = choose(
            paths.iter().map(|(path, content)| (path.as_str(), *content)),
            selection,
        )?;
        let chosen = chosen.expect("names of SAM's");
        Ok((chosen.own, chosen.sam))
    }

    fn own(dicts: &[(&str, [&str; 2])], selection: &Selection) -> Result<String, String> {
        chosen(dicts, selection).map(|(own, _)| own)
    }

    #[test]
    fn any_chain_of_prefixes_is_one_state_dict() {
        for prefix in [
            "",
            "module.",
            "_orig_mod.module.",
            "a.b.c.d.",
            "state_dict.model.sam.",
            "0.",
        ] {
            assert_eq!(own(&[(prefix, MASAM)], &Selection::Usual).unwrap(), prefix);
        }
    }

    #[test]
    fn averages_are_taken_when_asked_for() {
        for (usual, averaged) in [
            ("model.", "model_ema."),
            ("state_dict.", "state_dict_ema.module."),
            ("student.", "teacher."),
            ("", "ema.module."),
            ("state_dict.net.", "state_dict.swa_net."),
        ] {
            let both = [(usual, MASAM), (averaged, MASAM)];
            assert_eq!(own(&both, &Selection::Usual).unwrap(), usual);
            assert_eq!(own(&both, &Selection::Ema).unwrap(), averaged);
        }
        assert_eq!(own(&[("ema.", MASAM)], &Selection::Usual).unwrap(), "ema.");
        let none = own(&[("model.", MASAM)], &Selection::Ema).unwrap_err();
        assert!(
            none.contains("no averaged") && none.contains("model (2 tensors)"),
            "{none}"
        );
        // A word that only ends like it.
        assert_eq!(
            own(&[("schema.", MASAM), ("schema_ema.", MASAM)], &Selection::Ema).unwrap(),
            "schema_ema."
        );
    }

    #[test]
    fn what_is_not_sure_is_asked() {
        for dicts in [
            [("best_state.", MASAM), ("ema_state_dict.", MASAM)],
            [("model.", MASAM), ("net.", MASAM)],
            [("a.", SAM), ("b.", SAM)],
        ] {
            let error = own(&dicts, &Selection::Usual).unwrap_err();
            for (prefix, _) in dicts {
                let key = prefix.trim_end_matches('.');
                assert!(
                    error.contains(&format!("{key} (2 tensors")) && error.contains("--key"),
                    "{error}"
                );
                assert_eq!(own(&dicts, &Selection::Key(key.into())).unwrap(), prefix);
            }
            let error = own(&dicts, &Selection::Key("nothing".into())).unwrap_err();
            assert!(error.contains("under `nothing`"), "{error}");
        }
    }

    #[test]
    fn copies_and_moments_do_not_count() {
        let paths = [
            ("model.q_FacTs_000", 5),
            ("last.q_FacTs_000", 5),
            ("optimizer.state.q_FacTs_000", 7),
            ("g_optim.state.q_FacTs_000", 8),
        ];
        let chosen = choose(paths.into_iter(), &Selection::Usual).unwrap().unwrap();
        assert_eq!(chosen.own, "model.");
        assert_eq!(chosen.place("last.q_FacTs_000"), Place::Elsewhere);
        assert_eq!(chosen.place("model.pixel_mean"), Place::Beside);
        assert!(
            choose([("layer1.weight", 0)].into_iter(), &Selection::Usual)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_whole_model_has_two_parts() {
        for (own, sam, prefix) in [
            ("", "sam.", ""),
            ("model.", "model.sam.", "model."),
            ("adapter.", "sam.", ""),
        ] {
            let paths: Vec<String> = MASAM
                .map(|name| format!("{own}{name}"))
                .into_iter()
                .chain(SAM.map(|name| format!("{sam}{name}")))
                .collect();
            let chosen = choose(paths.iter().map(|path| (path.as_str(), 0)), &Selection::Usual);
            let chosen = chosen.unwrap().unwrap();
            assert_eq!((chosen.own.as_str(), chosen.sam.as_deref()), (own, Some(sam)));
            assert_eq!(chosen.prefix, prefix);
            assert_eq!(chosen.place(&paths[0]), Place::Own);
            assert_eq!(chosen.place(&paths[2]), Place::Sam);
        }
    }
}
