//! Classes: their ids, names and colours, and the palettes they are drawn in.
//!
//! A class id is one byte, so a plane of ids is `GRAY8` and a model has at most [`MAX_CLASSES`] classes. Class 0
//! is background: never drawn unless asked for.

use crate::error::{Error, Result, all_of};
use serde::{Deserialize, Serialize};

/// Most classes a model may have: ids are bytes, and 255 is kept for "no mask here".
pub const MAX_CLASSES: usize = 255;

/// The id of pixels outside the region that the model saw.
pub const NO_MASK: u8 = 255;

/// Colour as `[red, green, blue]`, full range sRGB.
pub type Rgb = [u8; 3];

/// One class: what it is called and how it is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Name as in the data set, for example `instrument-shaft`.
    pub name: String,
    /// Colour in pictures.
    pub color: Rgb,
}

/// The classes of a model in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassSet(Vec<Class>);

/// EndoVis 2018 scene segmentation: names and colours as released with its `labels.json` files.
const ENDOVIS_2018: [(&str, Rgb); 12] = [
    ("background-tissue", [0, 0, 0]),
    ("instrument-shaft", [0, 255, 0]),
    ("instrument-clasper", [0, 255, 255]),
    ("instrument-wrist", [125, 255, 12]),
    ("kidney-parenchyma", [255, 55, 0]),
    ("covered-kidney", [24, 55, 125]),
    ("thread", [187, 155, 25]),
    ("clamps", [0, 255, 125]),
    ("suturing-needle", [255, 255, 125]),
    ("suction-instrument", [123, 15, 175]),
    ("small-intestine", [124, 155, 5]),
    ("ultrasound-probe", [12, 255, 141]),
];

/// Colours that stay apart for the common forms of colour blindness and on red tissue: the eight of Okabe and Ito
/// (2008) without black, then lighter and darker steps between them. Entry 0 is background.
const SAFE_COLORS: [Rgb; 16] = [
    [0, 0, 0],
    [86, 180, 233],
    [240, 228, 66],
    [0, 158, 115],
    [213, 94, 0],
    [0, 114, 178],
    [255, 255, 255],
    [204, 121, 167],
    [230, 159, 0],
    [120, 94, 240],
    [170, 221, 170],
    [153, 229, 255],
    [255, 190, 150],
    [60, 60, 160],
    [190, 190, 190],
    [110, 80, 40],
];

impl ClassSet {
    /// Checks and takes `classes`.
    ///
    /// # Errors
    /// None or more than [`MAX_CLASSES`] classes, an empty name, or a name used twice.
    pub fn new(classes: Vec<Class>) -> Result<Self> {
        let set = Self(classes);
        set.validate()?;
        Ok(set)
    }

    /// Checks what [`ClassSet::new`] checks; deserialised sets have not been through it.
    ///
    /// # Errors
    /// As [`ClassSet::new`].
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        if self.0.is_empty() || self.0.len() > MAX_CLASSES {
            errors.push(Error::config(
                "classes",
                self.0.len(),
                format!("a model has 1 to {MAX_CLASSES} classes"),
            ));
        }
        for (id, class) in self.0.iter().take(MAX_CLASSES).enumerate() {
            // Masks are validated with every frame: nothing is written down before something is wrong.
            let field = || format!("classes[{id}].name");
            if class.name.is_empty() {
                errors.push(Error::config(field(), "empty", "every class has a name"));
            } else if let Some(first) = self.0[..id].iter().position(|c| c.name == class.name) {
                let bound = format!("class {first} already has that name");
                errors.push(Error::config(field(), &class.name, bound));
            }
        }
        all_of(errors)
    }

    /// The twelve classes of EndoVis 2018 in its own colours.
    pub fn endovis_2018() -> Self {
        Self(
            ENDOVIS_2018
                .iter()
                .map(|&(name, color)| Class {
                    name: name.into(),
                    color,
                })
                .collect(),
        )
    }

    /// `count` classes named `class-0`, `class-1`, … in colour-blind-safe colours, for models without names.
    ///
    /// # Errors
    /// As [`ClassSet::new`].
    pub fn numbered(count: usize) -> Result<Self> {
        Self::new(
            (0..count)
                .map(|id| Class {
                    name: format!("class-{id}"),
                    color: SAFE_COLORS[id % SAFE_COLORS.len()],
                })
                .collect(),
        )
    }

    /// EndoVis 2018 where the count is 12, [`ClassSet::numbered`] elsewhere.
    ///
    /// # Errors
    /// As [`ClassSet::new`].
    pub fn default_for(count: usize) -> Result<Self> {
        if count == ENDOVIS_2018.len() {
            Ok(Self::endovis_2018())
        } else {
            Self::numbered(count)
        }
    }

    /// The same classes in colour-blind-safe colours.
    pub fn with_safe_colors(&self) -> Self {
        let safe = |(id, c): (usize, &Class)| Class {
            name: c.name.clone(),
            color: SAFE_COLORS[id % SAFE_COLORS.len()],
        };
        Self(self.0.iter().enumerate().map(safe).collect())
    }

    /// Number of classes, background included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false for a checked set; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The class with that id.
    pub fn get(&self, id: u8) -> Option<&Class> {
        self.0.get(usize::from(id))
    }

    /// Classes in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Class> {
        self.0.iter()
    }

    /// The id that `word` means: a class name, or an id in digits.
    ///
    /// # Errors
    /// A word that is neither; the message lists the names.
    pub fn id_of(&self, word: &str) -> Result<u8> {
        let by_name = self.0.iter().position(|c| c.name == word);
        let id = by_name.or_else(|| word.parse::<usize>().ok().filter(|&id| id < self.0.len()));
        id.and_then(|id| u8::try_from(id).ok()).ok_or_else(|| {
            let names = self
                .0
                .iter()
                .map(|c| c.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            Error::config(
                "class",
                word,
                format!("it has to be an id below {} or one of {names}", self.0.len()),
            )
        })
    }

    /// Ids named in a comma list such as `instrument-shaft,3`; an empty list is no ids.
    ///
    /// # Errors
    /// Each word that is not a class.
    pub fn ids_of(&self, list: &str) -> Result<Vec<u8>> {
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        let (mut ids, mut errors) = (Vec::new(), Vec::new());
        for word in words {
            match self.id_of(word) {
                Ok(id) => ids.push(id),
                Err(error) => errors.push(error),
            }
        }
        all_of(errors)?;
        Ok(ids)
    }

    /// These classes with the colours of `overrides`, a list such as `thread=#ff00ff,3=#00ff00`.
    ///
    /// # Errors
    /// Each entry without `=`, with an unknown class or with a color that is not `#rrggbb`.
    pub fn recolored(&self, overrides: &str) -> Result<Self> {
        let (mut set, mut errors) = (self.clone(), Vec::new());
        for entry in overrides.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let wrong = || Error::config("palette", entry, "an entry of a palette reads name=#rrggbb");
            let parsed = entry.split_once('=').ok_or_else(wrong).and_then(|(name, color)| {
                let id = usize::from(self.id_of(name.trim())?);
                Ok((id, parse_color(color.trim()).ok_or_else(wrong)?))
            });
            match parsed {
                Ok((id, color)) => set.0[id].color = color,
                Err(error) => errors.push(error),
            }
        }
        all_of(errors)?;
        Ok(set)
    }
}

/// `#rrggbb` to bytes.
pub fn parse_color(text: &str) -> Option<Rgb> {
    let digits = text
        .strip_prefix('#')
        .filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some([red, green, blue])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endovis_has_twelve_distinct_classes() {
        let set = ClassSet::endovis_2018();
        set.validate().unwrap();
        assert_eq!(set.len(), 12);
        assert_eq!(set.id_of("suturing-needle").unwrap(), 8);
        assert_eq!(set.id_of("11").unwrap(), 11);
    }

    #[test]
    fn words_that_are_no_class_are_named() {
        let set = ClassSet::endovis_2018();
        assert!(
            set.ids_of("thread, 12")
                .unwrap_err()
                .to_string()
                .contains("class is 12")
        );
        assert_eq!(set.ids_of("").unwrap(), Vec::<u8>::new());
        assert_eq!(set.ids_of("thread,clamps,0").unwrap(), vec![6, 7, 0]);
    }

    #[test]
    fn every_wrong_word_is_named() {
        let set = ClassSet::endovis_2018();
        let error = set.ids_of("thred,thread,99").unwrap_err().to_string();
        assert!(
            error.contains("class is thred") && error.contains("class is 99"),
            "{error}"
        );
        let error = set
            .recolored("thread=blue,clamps=#00ff00,needle=#000000")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("thread=blue") && error.contains("class is needle"),
            "{error}"
        );
        let mut classes = vec![
            Class {
                name: String::new(),
                color: [0; 3]
            };
            2
        ];
        classes.push(Class {
            name: "a".into(),
            color: [0; 3],
        });
        classes.push(classes[2].clone());
        let error = ClassSet::new(classes).unwrap_err().to_string();
        for id in [0, 1, 3] {
            assert!(error.contains(&format!("classes[{id}].name")), "{id}: {error}");
        }
    }

    #[test]
    fn palettes_are_read_strictly() {
        let set = ClassSet::endovis_2018();
        assert_eq!(
            set.recolored("thread=#FF00ff").unwrap().get(6).unwrap().color,
            [255, 0, 255]
        );
        for bad in [
            "thread",
            "thread=",
            "thread=#12345",
            "thread=#12345g",
            "nothing=#000000",
            "thread=#+12345",
        ] {
            assert!(set.recolored(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn class_sets_are_bounded() {
        assert!(ClassSet::numbered(0).is_err());
        assert!(ClassSet::numbered(255).is_ok());
        assert!(ClassSet::numbered(256).is_err());
        let twice = vec![
            Class {
                name: "a".into(),
                color: [0; 3]
            };
            2
        ];
        assert!(
            ClassSet::new(twice)
                .unwrap_err()
                .to_string()
                .contains("classes[1].name")
        );
    }
}
