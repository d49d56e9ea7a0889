//! Another task on the same pictures: classes taken together into fewer.

use super::Footage;
use crate::error::{Error, Result};
use crate::labels::{Class, ClassSet};

/// Groups of class names; each becomes one class, named and coloured like its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// New id of each class.
    of: Vec<u8>,
    classes: ClassSet,
}

impl Groups {
    /// Takes the classes of `classes` together as `names` says.
    ///
    /// # Errors
    /// A name that is no class, one that stands in two groups, or a class that stands in none.
    pub fn new(names: &[Vec<String>], classes: &ClassSet) -> Result<Self> {
        let wrong = |name: &str, bound: &str| Error::config("data.groups", name, bound);
        let mut of: Vec<Option<u8>> = vec![None; classes.len()];
        let mut grouped: Vec<Class> = Vec::new();
        for (group, names) in names.iter().enumerate() {
            for name in names {
                let known = classes.iter().position(|class| class.name == *name);
                let id = known.ok_or_else(|| wrong(name, "there is no such class"))?;
                if of[id].replace(group as u8).is_some() {
                    return Err(wrong(name, "it stands there twice"));
                }
                if grouped.len() == group {
                    grouped.extend(classes.iter().nth(id).cloned());
                }
            }
        }
        if let Some(class) = classes
            .iter()
            .zip(&of)
            .find_map(|(class, of)| of.is_none().then_some(class))
        {
            return Err(wrong(&class.name, "it has to stand in a group"));
        }
        let empty = grouped.len() != names.len();
        if empty {
            return Err(wrong("[]", "every group has a class"));
        }
        Ok(Self {
            of: of.into_iter().flatten().collect(),
            classes: ClassSet::new(grouped)?,
        })
    }

    /// The classes that come of it.
    pub fn classes(&self) -> &ClassSet {
        &self.classes
    }

    /// The same frames with the groups as labels; what is ignored stays ignored.
    ///
    /// # Errors
    /// Labels that are no class.
    pub fn apply(&self, footage: &Footage) -> Result<Footage> {
        let mut sequences = footage.sequences().to_vec();
        for frame in sequences.iter_mut().flatten() {
            let group = |&id: &u8| self.of.get(usize::from(id)).copied().unwrap_or(id);
            frame.labels = frame.labels.iter().map(group).collect();
        }
        Footage::new(footage.side(), self.classes.len(), sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segmenter::ModelFrame;
    use crate::train::footage::Labelled;
    use crate::train::loss::IGNORED;

    fn groups(names: &[&[&str]]) -> Result<Groups> {
        let names: Vec<Vec<String>> = names
            .iter()
            .map(|g| g.iter().map(|n| (*n).to_owned()).collect())
            .collect();
        Groups::new(&names, &ClassSet::numbered(4)?)
    }

    #[test]
    fn labels_become_their_groups() {
        let groups = groups(&[&["class-1", "class-3"], &["class-0"], &["class-2"]]).unwrap();
        assert_eq!(groups.classes().len(), 3);
        assert_eq!(groups.classes().iter().next().unwrap().name, "class-1");
        let frame = Labelled {
            frame: ModelFrame { rgb: [9; 12].into() },
            labels: [0, 1, 3, IGNORED].into(),
        };
        let footage = Footage::new(2, 4, vec![vec![frame]]).unwrap();
        let found = groups.apply(&footage).unwrap();
        assert_eq!(found.sequences()[0][0].labels[..], [1, 0, 0, IGNORED]);
        assert_eq!(found.sequences()[0][0].frame.rgb[..], [9; 12]);
    }

    #[test]
    fn what_makes_no_partition_is_refused() {
        let all: &[&str] = &["class-0", "class-1", "class-2", "class-3"];
        for (names, part) in [
            (vec![all, &["class-1"]], "class-1"),
            (vec![&all[..3]], "class-3"),
            (vec![all, &["liver"]], "liver"),
            (vec![all, &[]], "[]"),
        ] {
            let error = groups(&names).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("data.groups"), "{error}");
        }
    }
}
