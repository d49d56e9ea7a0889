//! Which sequences are for training and which for testing. Splits never cut a sequence: its frames look alike.
//!
//! | text | sequences |
//! |---|---|
//! | `all` | all |
//! | `train`, `val` | EndoVis 2018: the common split of the training set; `val` is 2, 5, 9, 15, `train` the others. Own data: what lies in folders, or is listed in files, of that name |
//! | `challenge-train`, `test` | what the challenge released for training, for testing |
//! | `fold2017:1`, `fold2017:1:train` | EndoVis 2017: fold 1 of {1,3} {2,5} {4,8} {6,7}, the training sequences outside it |
//! | `fold:1/4`, `fold:1/4:train` | training sequences dealt out to 4 folds in turn: those of fold 1, the others |

use super::dataset::{Dataset, Kind, Role, Sequence};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Sequences of the common validation split of EndoVis 2018.
pub const COMMON_VALIDATION: [u32; 4] = [2, 5, 9, 15];

/// The usual folds of EndoVis 2017, by sequence.
pub const FOLDS_2017: [[u32; 2]; 4] = [[1, 3], [2, 5], [4, 8], [6, 7]];

/// Most folds that make sense of any data set here.
const MAX_FOLDS: usize = 1000;

/// Which side of a split is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is trained on.
    Train,
    /// What is held out.
    Validation,
}

/// A choice of sequences. Reads from and writes as the texts in the table of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Every sequence.
    All,
    /// As the challenge released them.
    Challenge(Role),
    /// The common split of EndoVis 2018's training set.
    CommonValidation(Part),
    /// A fold of EndoVis 2017's training set.
    Fold2017 {
        /// 1 to 4.
        fold: usize,
        /// The fold itself ([`Part::Validation`]) or the others.
        part: Part,
    },
    /// Cross-validation over the training sequences in their order: sequence `i` is in fold `i % folds`.
    KFold {
        /// How many folds.
        folds: usize,
        /// Which one, from 1.
        index: usize,
        /// The fold itself ([`Part::Validation`]) or the others.
        part: Part,
    },
}

impl Split {
    /// The sequences of `data` that belong to it.
    pub(super) fn select<'a>(&self, data: &'a Dataset) -> Result<Vec<&'a Sequence>> {
        let kind = match self {
            Split::CommonValidation(_) if data.kind == Kind::Folders => None,
            Split::CommonValidation(_) => Some(Kind::EndoVis2018),
            Split::Fold2017 { .. } => Some(Kind::EndoVis2017),
            _ => None,
        };
        if let Some(kind) = kind.filter(|kind| *kind != data.kind) {
            let bound = format!("it is a split of {kind}, and this is {}", data.kind);
            return Err(Error::config("split", self, bound));
        }
        let training: Vec<&Sequence> = data.sequences.iter().filter(|s| s.role == Role::Train).collect();
        let held_out = |held: bool, part: Part| held == (part == Part::Validation);
        let numbered = |numbers: &[u32], part: Part| {
            let held = |s: &&Sequence| held_out(s.number.is_some_and(|n| numbers.contains(&n)), part);
            training.iter().copied().filter(held).collect()
        };
        let chosen: Vec<&Sequence> = match *self {
            Split::All => data.sequences.iter().collect(),
            Split::Challenge(role) => data.sequences.iter().filter(|s| s.role == role).collect(),
            Split::CommonValidation(part) if data.kind == Kind::Folders => {
                let role = match part {
                    Part::Train => Role::Train,
                    Part::Validation => Role::Validation,
                };
                data.sequences.iter().filter(|s| s.role == role).collect()
            }
            Split::CommonValidation(part) => numbered(&COMMON_VALIDATION, part),
            Split::Fold2017 { fold, part } => {
                let numbers = fold.checked_sub(1).and_then(|i| FOLDS_2017.get(i));
                numbered(numbers.ok_or_else(|| fold_bound(fold, FOLDS_2017.len()))?, part)
            }
            Split::KFold { folds, index, part } => {
                if index == 0 || index > folds || folds > MAX_FOLDS {
                    return Err(fold_bound(index, folds.min(MAX_FOLDS)));
                }
                if folds > training.len() {
                    let bound = format!("there are {} training sequences to deal out", training.len());
                    return Err(Error::config("split", self, bound));
                }
                let dealt = training.iter().copied().enumerate();
                dealt
                    .filter(|(place, _)| held_out(place % folds == index - 1, part))
                    .map(|(_, s)| s)
                    .collect()
            }
        };
        if chosen.is_empty() {
            let names: Vec<&str> = data.sequences.iter().map(|s| s.name.as_str()).collect();
            let bound = format!("it selects none of {}", names.join(", "));
            return Err(Error::config("split", self, bound));
        }
        Ok(chosen)
    }
}

fn fold_bound(fold: usize, folds: usize) -> Error {
    Error::config("fold", fold, format!("folds are counted from 1 to {folds}"))
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |part: &Part| match part {
            Part::Train => ":train",
            Part::Validation => "",
        };
        match self {
            Split::All => f.write_str("all"),
            Split::Challenge(Role::Train) => f.write_str("challenge-train"),
            Split::Challenge(Role::Test) => f.write_str("test"),
            Split::Challenge(Role::Validation) => f.write_str("val"),
            Split::CommonValidation(Part::Train) => f.write_str("train"),
            Split::CommonValidation(Part::Validation) => f.write_str("val"),
            Split::Fold2017 { fold, part } => write!(f, "fold2017:{fold}{}", tail(part)),
            Split::KFold { folds, index, part } => write!(f, "fold:{index}/{folds}{}", tail(part)),
        }
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let bound = "it has to be all, train, val, challenge-train, test, fold2017:N, fold:N/FOLDS, or one of the \
                         folds with :train";
            Error::config("split", text, bound)
        };
        let (start, part) = match text.strip_suffix(":train") {
            Some(start) => (start, Part::Train),
            None => (text, Part::Validation),
        };
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| wrong());
        if let Some(fold) = start.strip_prefix("fold2017:") {
            let fold = number(fold)?;
            if fold == 0 || fold > FOLDS_2017.len() {
                return Err(fold_bound(fold, FOLDS_2017.len()));
            }
            return Ok(Split::Fold2017 { fold, part });
        }
        if let Some((index, folds)) = start.strip_prefix("fold:").and_then(|rest| rest.split_once('/')) {
            let (index, folds) = (number(index)?, number(folds)?);
            if !(2..=MAX_FOLDS).contains(&folds) {
                let bound = format!("there are 2 to {MAX_FOLDS} folds");
                return Err(Error::config("folds", folds, bound));
            }
            if index == 0 || index > folds {
                return Err(fold_bound(index, folds));
            }
            return Ok(Split::KFold { folds, index, part });
        }
        match text {
            "all" => Ok(Split::All),
            "train" => Ok(Split::CommonValidation(Part::Train)),
            "val" => Ok(Split::CommonValidation(Part::Validation)),
            "challenge-train" => Ok(Split::Challenge(Role::Train)),
            "test" | "challenge-test" => Ok(Split::Challenge(Role::Test)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        for text in [
            "all",
            "train",
            "val",
            "challenge-train",
            "test",
            "fold2017:4",
            "fold2017:1:train",
            "fold:1/4",
            "fold:3/3:train",
        ] {
            assert_eq!(text.parse::<Split>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn texts_are_read_strictly() {
        for text in [
            "",
            "All",
            "train ",
            "fold",
            "fold:",
            "fold:1",
            "fold:0/4",
            "fold:5/4",
            "fold:1/1",
            "fold:1/0",
            "fold:1/4:val",
            "fold:1/99999",
            "fold2017:0",
            "fold2017:5",
            "val:train",
            "fold:-1/4",
            "fold:99999999999999999999/4",
        ] {
            assert!(text.parse::<Split>().is_err(), "{text}");
        }
    }
}
