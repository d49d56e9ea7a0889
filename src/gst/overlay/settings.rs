//! What the user of `masamoverlay` wishes, and what it means for the classes of a model.

use crate::kernels::picture::blend_color::ColorSpace;
use crate::kernels::picture::contour::{ClassInk, NOT_DRAWN};
use crate::labels::{Class, ClassSet, NO_MASK, Rgb};
use crate::{Error, Result};
use gst::glib;
use gstreamer as gst;

/// What of a class is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "MasamOverlayStyle")]
pub enum Style {
    /// Its area.
    #[default]
    #[enum_value(name = "Fill: the area of each class", nick = "fill")]
    Fill,
    /// Its outline.
    #[enum_value(name = "Contour: the outline of each class", nick = "contour")]
    Contour,
    /// Its area, and its outline more strongly.
    #[enum_value(name = "Both: area and outline", nick = "both")]
    Both,
}

/// A contour covers this many times as much as the area it surrounds, and at most all.
const STROKE_STRENGTH: f32 = 2.0;

/// The element's properties.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// 0..=1.
    pub opacity: f32,
    pub style: Style,
    /// Comma list; empty is all but background.
    pub show_classes: String,
    /// Comma list, taken from what is shown.
    pub hide_classes: String,
    /// `safe`, `model` or `endovis`, then or instead `name=#rrggbb` entries.
    pub palette: String,
    /// The palette's name where [`Self::palette`] has none, or is wrong.
    pub default_palette: &'static str,
    /// Comma list of `name=factor`.
    pub class_opacity: String,
    pub legend: bool,
    pub status: bool,
    /// Masks older than this are not drawn; `None` draws any.
    pub expire_after_nanos: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            opacity: 0.45,
            style: Style::Fill,
            show_classes: String::new(),
            hide_classes: String::new(),
            palette: "safe".into(),
            default_palette: "safe",
            class_opacity: String::new(),
            legend: true,
            status: true,
            expire_after_nanos: Some(500_000_000),
        }
    }
}

/// The settings applied to the classes of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inks {
    /// For each id the index of its ink, or [`NOT_DRAWN`].
    pub ink_of_id: [u8; 256],
    /// Ink `i` draws class `ids[i]`.
    pub inks: Vec<ClassInk>,
    /// Classes that may be drawn, in the order of `inks`.
    pub classes: Vec<Class>,
    pub ids: Vec<u8>,
}

impl Default for Inks {
    /// Nothing is drawn.
    fn default() -> Self {
        Self {
            ink_of_id: [NOT_DRAWN; 256],
            inks: Vec::new(),
            classes: Vec::new(),
            ids: Vec::new(),
        }
    }
}

impl Settings {
    /// What to draw of `classes` on frames of `space`, and what was wrong with the wishes: each wrong list counts as
    /// empty.
    pub fn inks(&self, classes: &ClassSet, space: &ColorSpace) -> (Inks, Vec<Error>) {
        let mut errors = Vec::new();
        let mut or_default = |result: Result<Vec<u8>>| {
            result.unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            })
        };
        let show = or_default(classes.ids_of(&self.show_classes));
        let hide = or_default(classes.ids_of(&self.hide_classes));
        let colors = palette(classes, &self.palette, self.default_palette).or_else(|error| {
            errors.push(error);
            palette(classes, "", self.default_palette)
        });
        let colors = colors.unwrap_or_else(|_| classes.clone());
        let factors = class_opacity(classes, &self.class_opacity).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let mut inks = Inks::default();
        for (id, class) in (0..NO_MASK).zip(colors.iter()) {
            let shown = if show.is_empty() {
                id != 0
            } else {
                show.contains(&id)
            };
            let factor = factors
                .iter()
                .rfind(|&&(of, _)| of == id)
                .map_or(1.0, |&(_, factor)| factor);
            let opacity = (self.opacity * factor).clamp(0.0, 1.0);
            if !shown || hide.contains(&id) || opacity == 0.0 {
                continue;
            }
            inks.ink_of_id[usize::from(id)] = inks.inks.len() as u8;
            inks.inks.push(ClassInk {
                color: space.color(class.color),
                fill: if self.style == Style::Contour {
                    0.0
                } else {
                    opacity
                },
                stroke: (opacity * STROKE_STRENGTH).min(1.0),
            });
            inks.classes.push(class.clone());
            inks.ids.push(id);
        }
        (inks, errors)
    }
}

/// Checks a value of a property that names classes of the model; other properties are right in any case.
///
/// # Errors
/// A class that is not among `classes`, or an entry that cannot be read.
pub(crate) fn check(property: &str, text: &str, classes: &ClassSet) -> Result<()> {
    match property {
        "show-classes" | "hide-classes" => classes.ids_of(text).map(|_| ()),
        "palette" => palette(classes, text, "safe").map(|_| ()),
        "class-opacity" => class_opacity(classes, text).map(|_| ()),
        _ => Ok(()),
    }
}

/// `classes` in the colours of `text`: a palette's name, entries `name=#rrggbb`, or a name and then entries. Entries
/// alone change the palette `default`, and an empty text is that.
pub(crate) fn palette(classes: &ClassSet, text: &str, default: &str) -> Result<ClassSet> {
    let (first, rest) = text.split_once(',').unwrap_or((text, ""));
    let (name, entries) = match first.trim() {
        "" => (default, rest),
        name @ ("model" | "safe" | "endovis") => (name, rest),
        _ => (default, text),
    };
    let base = match name {
        "safe" => classes.with_safe_colors(),
        "endovis" => with_endovis_colors(classes)?,
        _ => classes.clone(),
    };
    base.recolored(entries)
}

/// EndoVis's colours for the classes that bear its names, their own for others.
fn with_endovis_colors(classes: &ClassSet) -> Result<ClassSet> {
    let endovis = ClassSet::endovis_2018();
    let color = |class: &Class| -> Rgb {
        endovis
            .iter()
            .find(|known| known.name == class.name)
            .map_or(class.color, |known| known.color)
    };
    ClassSet::new(
        classes
            .iter()
            .map(|class| Class {
                name: class.name.clone(),
                color: color(class),
            })
            .collect(),
    )
}

/// Reads `name=factor,...`, factors from 0 up; what they make of the opacity is cut at 1.
fn class_opacity(classes: &ClassSet, text: &str) -> Result<Vec<(u8, f32)>> {
    let entry = |entry: &str| {
        let bound = "an entry reads name=factor, with a factor of 0 or more";
        let wrong = || Error::config("class-opacity", entry, bound);
        let (name, factor) = entry.split_once('=').ok_or_else(wrong)?;
        let factor: f32 = factor.trim().parse().map_err(|_| wrong())?;
        if !(factor.is_finite() && factor >= 0.0) {
            return Err(wrong());
        }
        Ok((classes.id_of(name.trim())?, factor))
    };
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(entry)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::picture::blend_color::Range;

    fn drawn(settings: &Settings) -> (Vec<u8>, usize) {
        let (inks, errors) = settings.inks(&ClassSet::endovis_2018(), &ColorSpace::rgb(Range::Full));
        for (index, &id) in inks.ids.iter().enumerate() {
            assert_eq!(usize::from(inks.ink_of_id[usize::from(id)]), index);
        }
        (inks.ids, errors.len())
    }

    #[test]
    fn background_and_no_mask_are_not_drawn_unless_asked_for() {
        assert_eq!(drawn(&Settings::default()), ((1..12).collect(), 0));
        let show = |list: &str| Settings {
            show_classes: list.into(),
            ..Settings::default()
        };
        assert_eq!(drawn(&show("thread,0")), (vec![0, 6], 0));
        assert_eq!(drawn(&show("nothing")).1, 1);
        let hide = |list: &str| Settings {
            hide_classes: list.into(),
            ..show("thread,clamps")
        };
        assert_eq!(drawn(&hide("clamps")), (vec![6], 0));
        assert_eq!(
            drawn(&Settings {
                opacity: 0.0,
                ..Settings::default()
            }),
            (vec![], 0)
        );
        assert_eq!(
            drawn(&Settings {
                class_opacity: "1=0".into(),
                ..Settings::default()
            })
            .0[0],
            2
        );
    }

    #[test]
    fn palettes_have_names_and_entries() {
        let classes = ClassSet::endovis_2018();
        let color = |text: &str, id| palette(&classes, text, "safe").unwrap().get(id).unwrap().color;
        assert_eq!(color("model", 1), [0, 255, 0]);
        assert_ne!(color("safe", 1), [0, 255, 0]);
        assert_eq!(color("endovis,thread=#010203", 6), [1, 2, 3]);
        assert_eq!(color("safe,1=#010203", 1), [1, 2, 3]);
        assert_eq!(color("thread=#010203", 6), [1, 2, 3]);
        for unnamed in ["", "thread=#010203"] {
            assert_eq!(color(unnamed, 1), color("safe", 1), "{unnamed}");
            let of_model = palette(&classes, unnamed, "model").unwrap();
            assert_eq!(of_model.get(1).unwrap().color, [0, 255, 0], "{unnamed}");
        }
        for bad in ["other", "safe,other", "thread=red", "model,1"] {
            assert!(palette(&classes, bad, "model").is_err(), "{bad}");
        }
    }

    #[test]
    fn class_opacity_is_read_strictly() {
        let classes = ClassSet::endovis_2018();
        assert_eq!(
            class_opacity(&classes, "thread=0.5, 2=2").unwrap(),
            vec![(6, 0.5), (2, 2.0)]
        );
        for bad in [
            "thread",
            "thread=",
            "thread=-1",
            "thread=nan",
            "thread=inf",
            "x=1",
        ] {
            assert!(class_opacity(&classes, bad).is_err(), "{bad}");
        }
    }
}
