//! What the pixels of a data set's label pictures mean.
//!
//! It is decided once for a whole data set, from the pixels of every label picture, before the first one is used:
//! class ids, class colors, or one class and the rest. What fits the class table in two ways that differ, or in none,
//! is refused. See docs/datasets.md.

use super::class_table::ClassTable;
use super::label_picture::{LabelPicture, Pixel, Value, as_byte};
use super::label_survey::{Looked, look_at_all};
use super::palette::{OddColor, Palette, Tally};
use crate::error::{Error, Result};
use crate::labels::{NO_MASK, Rgb};
use image::GrayImage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest share of pixels without a meaning that is used without being accepted.
pub const MAX_UNKNOWN_SHARE: f64 = 0.001;

/// Most different values that one class can have before they are edges smoothed by resizing.
const MAX_VALUES_OF_A_CLASS: usize = 8;

/// What pixels mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// Their color is a class's.
    Colors,
    /// Their value is an id; of 16 bits, and of fewer than 8, stretched from or to 8 bits or as it is.
    Ids {
        wide_is_stretched: bool,
        narrow_is_stretched: bool,
    },
    /// The largest value is class 1, 0 is class 0.
    Mask,
}

/// Pixels of one label picture, or of many, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LabelCounts {
    /// All pixels.
    pub pixels: u64,
    /// Pixels without a meaning: an unknown color or value.
    pub unknown: u64,
    /// Pixels whose color was near a class's and taken for it.
    pub repaired: u64,
    /// Pixels marked as ignored.
    pub ignored: u64,
    /// Pixels of class 0.
    pub background: u64,
}

impl LabelCounts {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &LabelCounts) {
        self.pixels += other.pixels;
        self.unknown += other.unknown;
        self.repaired += other.repaired;
        self.ignored += other.ignored;
        self.background += other.background;
    }

    /// Share of pixels without a meaning, 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.unknown as f64 / self.pixels.max(1) as f64
    }

    /// Pixels of classes.
    pub fn known(&self) -> u64 {
        self.pixels.saturating_sub(self.unknown + self.ignored)
    }
}

/// What a look at every label picture found.
#[derive(Debug)]
pub(super) struct Survey {
    coding: Result<Coding, String>,
    /// In words: `class ids in gray16`.
    pub read_as: String,
    /// A label picture of a format that changes pixels.
    pub lossy: Option<PathBuf>,
    counts: BTreeMap<PathBuf, LabelCounts>,
}

impl Survey {
    /// Why the labels cannot be read.
    pub fn refusal(&self) -> Option<&str> {
        self.coding.as_ref().err().map(String::as_str)
    }
}

/// Label pictures that mean the same, and how they are read.
#[derive(Debug)]
pub(super) struct Labeling {
    table: ClassTable,
    palette: Palette,
    files: Vec<PathBuf>,
    survey: Mutex<Option<Arc<Survey>>>,
}

impl Labeling {
    /// Of `files`, with what `table` says about their pixels.
    pub fn new(table: ClassTable, files: Vec<PathBuf>) -> Self {
        let palette = Palette::new(table.colors.clone());
        Self {
            table,
            palette,
            files,
            survey: Mutex::new(None),
        }
    }

    /// What the pixels mean, from all files that can be read.
    pub fn survey(&self) -> Arc<Survey> {
        let mut survey = self.survey.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*survey {
            return known.clone();
        }
        let found = Arc::new(self.look());
        if !found.counts.is_empty() {
            *survey = Some(found.clone());
        }
        found
    }

    /// Pixels of one of the files; `None` for one that cannot be read.
    pub fn counts(&self, path: &Path) -> Option<LabelCounts> {
        self.survey().counts.get(path).copied()
    }

    /// The class ids of a picture, 255 where a pixel has none; odd pixels are added to `tally`.
    ///
    /// # Errors
    /// A file that cannot be read, or labels whose meaning is not certain.
    pub fn read(&self, path: &Path, tally: &mut Tally) -> Result<GrayImage> {
        let picture = LabelPicture::read(path)?;
        let coding = match &self.survey().coding {
            Ok(coding) => *coding,
            Err(cause) => return Err(Error::file(path, cause)),
        };
        let mut ids = GrayImage::new(picture.size.width_px, picture.size.height_px);
        // Labels are made of areas: most pixels are like the one before.
        let mut last: Option<(Pixel, u8, Option<OddColor>)> = None;
        let mut run = 0;
        let mut settle = |last: Option<(Pixel, u8, Option<OddColor>)>, run: u64| {
            if let Some((pixel, _, Some(odd))) = last {
                tally.count(pixel.color, OddColor { pixels: run, ..odd });
            }
        };
        for (id, pixel) in ids.iter_mut().zip(picture.pixels()) {
            match last {
                Some((known, class, _)) if known == pixel => *id = class,
                _ => {
                    settle(last, run);
                    run = 0;
                    let (class, odd) = self.class_of(coding, &pixel);
                    last = Some((pixel, class, odd));
                    *id = class;
                }
            }
            run += 1;
        }
        settle(last, run);
        Ok(ids)
    }

    /// The class of a pixel, and what was odd about it.
    fn class_of(&self, coding: Coding, pixel: &Pixel) -> (u8, Option<OddColor>) {
        match coding {
            Coding::Colors if !pixel.is_color => self.unknown(pixel),
            Coding::Colors => self.palette.look_up(pixel.color),
            Coding::Ids { .. } => match pixel.value.and_then(|value| self.id(coding, value)) {
                Some(class) => (class, None),
                None => self.unknown(pixel),
            },
            Coding::Mask => match pixel.value {
                Some(value) => (u8::from(value.1 > 0), None),
                None => self.unknown(pixel),
            },
        }
    }

    /// The class of a value as an id; `None` for an unknown one.
    fn id(&self, coding: Coding, (bits, sample): Value) -> Option<u8> {
        let Coding::Ids {
            wide_is_stretched,
            narrow_is_stretched,
        } = coding
        else {
            return None;
        };
        let id = match bits {
            16 if wide_is_stretched => (sample % 257 == 0).then_some(sample / 257)?,
            0..8 if narrow_is_stretched => u16::from(as_byte((bits, sample))),
            _ => sample,
        };
        let ignored = (id == u16::from(NO_MASK)).then_some(NO_MASK);
        self.table.class_of.get(&id).copied().or(ignored)
    }

    /// A pixel without a meaning, and the class that is nearest to it.
    fn unknown(&self, pixel: &Pixel) -> (u8, Option<OddColor>) {
        let value = match pixel.value {
            Some((8 | 16, sample)) => sample,
            _ => u16::from(pixel.color[0]),
        };
        let by_value = self
            .table
            .class_of
            .iter()
            .min_by_key(|(id, _)| id.abs_diff(value));
        let (nearest, distance) = match (pixel.value, by_value) {
            (Some(_), Some((id, class))) => (*class, id.abs_diff(value).min(255) as u8),
            _ => match self.palette.look_up(pixel.color).1 {
                Some(odd) => (odd.nearest, odd.distance),
                None => (NO_MASK, 0),
            },
        };
        let odd = OddColor {
            pixels: 1,
            nearest,
            distance,
            repaired: false,
        };
        (NO_MASK, Some(odd))
    }

    /// Looks at every file.
    fn look(&self) -> Survey {
        let looked = look_at_all(&self.files);
        let mut all = Looked::default();
        looked.iter().flatten().for_each(|one| all.add(one));
        let lossy = looked
            .iter()
            .zip(&self.files)
            .find(|(one, _)| one.as_ref().is_some_and(|l| l.is_lossy));
        let (coding, what) = match self.decide(&all) {
            Ok((coding, what)) => (Ok(coding), what),
            Err(cause) => (Err(cause), "nothing certain".into()),
        };
        let storage: Vec<&str> = all.storage.iter().copied().collect();
        let mut read_as = format!("{what} in {}", storage.join(" and "));
        if let (Ok(Coding::Ids { .. }), Some(remark)) = (&coding, &self.table.ids_remark) {
            read_as += &format!(" ({remark})");
        }
        let count = |one: &Looked| {
            let mut counts = LabelCounts {
                unknown: one.further,
                pixels: one.further,
                ..LabelCounts::default()
            };
            for (pixel, &pixels) in &one.pixels {
                counts.pixels += pixels;
                let (class, odd) = match coding {
                    Ok(coding) => self.class_of(coding, pixel),
                    Err(_) => self.unknown(pixel),
                };
                match (class, odd) {
                    (NO_MASK, Some(_)) => counts.unknown += pixels,
                    (NO_MASK, None) => counts.ignored += pixels,
                    (0, None) => counts.background += pixels,
                    _ => {}
                }
                if odd.is_some_and(|odd| odd.repaired) {
                    counts.repaired += pixels;
                }
            }
            counts
        };
        let counted = self.files.iter().zip(&looked);
        let counts = counted.filter_map(|(path, one)| Some((path.clone(), count(one.as_ref()?))));
        Survey {
            counts: counts.collect(),
            lossy: lossy.map(|(_, path)| path.clone()),
            coding,
            read_as,
        }
    }

    /// What the pixels of all files mean, with its name; or why that is not certain.
    fn decide(&self, all: &Looked) -> Result<(Coding, String), String> {
        let exact = |pixel: &Pixel| pixel.is_color && self.palette.exact(pixel.color).is_some();
        let mut values: BTreeSet<Value> = BTreeSet::new();
        let mut of_no_value = 0;
        for (pixel, count) in &all.pixels {
            match pixel.value {
                Some(value) => drop(values.insert(value)),
                None => of_no_value += count,
            }
        }
        let is_largest = |(bits, sample): &Value| u32::from(*sample) == (1 << bits) - 1;
        let two_values = of_no_value == 0 && values.iter().all(|v| v.1 == 0 || is_largest(v));
        if two_values
            && values.iter().any(is_largest)
            && !self.table.class_of.contains_key(&u16::from(NO_MASK))
            && !all.pixels.keys().all(exact)
        {
            return self.mask(&values);
        }
        let ids = self.scales(&values, all)?;
        let unknown = |coding| {
            let unknown = |pixel: &&Pixel| matches!(self.class_of(coding, pixel), (NO_MASK, Some(_)));
            all.pixels
                .keys()
                .filter(unknown)
                .map(|p| all.pixels[p])
                .sum::<u64>()
                + all.further
        };
        let (by_color, by_id) = (unknown(Coding::Colors), unknown(ids));
        let few = |unknown: u64| unknown as f64 <= all.count() as f64 * MAX_UNKNOWN_SHARE;
        if few(by_color) && few(by_id) {
            let meant =
                |coding, pixel: &Pixel| Some(self.class_of(coding, pixel).0).filter(|id| *id != NO_MASK);
            let differs = |pixel: &&Pixel| match (meant(Coding::Colors, pixel), meant(ids, pixel)) {
                (Some(color), Some(id)) => color != id,
                _ => false,
            };
            if let Some(pixel) = all.pixels.keys().find(differs) {
                let [r, g, b] = pixel.color;
                return Err(format!(
                    "invalid labels: #{r:02x}{g:02x}{b:02x} is one class as a color and another one as an id"
                ));
            }
        }
        let is_gray = all.storage.iter().any(|storage| storage.starts_with("gray"));
        if by_color < by_id
            || (by_color == by_id && of_no_value > 0)
            || (by_color == 0 && !is_gray && values.len() == 1)
        {
            self.check_colors(all, few(by_color))?;
            return Ok((Coding::Colors, "class colors".into()));
        }
        self.check_ids(ids, all, &values, few(by_id))?;
        Ok((ids, "class ids".into()))
    }

    /// Two values: one class and the rest, where there are but two.
    fn mask(&self, values: &BTreeSet<Value>) -> Result<(Coding, String), String> {
        let largest: BTreeSet<u16> = values.iter().map(|v| v.1).filter(|v| *v > 0).collect();
        let largest: Vec<String> = largest.iter().map(u16::to_string).collect();
        let (largest, classes) = (largest.join(" and "), self.table.classes.len());
        if values.iter().all(|v| v.1 > 0 && v.0 >= 8) {
            return Err("no pixel has a class: all are 255, which means ignored".into());
        }
        match self.table.classes.get(1) {
            Some(class) if classes == 2 && values.iter().any(|v| v.1 == 0) => Ok((
                Coding::Mask,
                format!("0 and {largest} ({largest} is {})", class.name),
            )),
            _ => Err(format!(
                "invalid labels: they hold 0 and {largest} alone, but there are {classes} classes (expected class ids \
                 or class colors)"
            )),
        }
    }

    /// Whether values of 16 bits, and of fewer than 8, are ids as they are or stretched from or to bytes.
    fn scales(&self, values: &BTreeSet<Value>, all: &Looked) -> Result<Coding, String> {
        let coding = |wide_is_stretched, narrow_is_stretched| Coding::Ids {
            wide_is_stretched,
            narrow_is_stretched,
        };
        let unknown = |coding, wide: bool| {
            let of = |(pixel, count): (&Pixel, &u64)| {
                let value = pixel
                    .value
                    .filter(|(bits, _)| if wide { *bits == 16 } else { *bits < 8 })?;
                self.id(coding, value).is_none().then_some(*count)
            };
            all.pixels.iter().filter_map(of).sum::<u64>()
        };
        let wide = unknown(coding(true, false), true) < unknown(coding(false, false), true);
        let (stretched, plain) = (coding(wide, true), coding(wide, false));
        let (of_stretched, of_plain) = (unknown(stretched, false), unknown(plain, false));
        let mut few_bits = values.iter().filter(|v| v.0 < 8);
        if of_stretched == 0
            && of_plain == 0
            && few_bits.any(|v| self.id(stretched, *v) != self.id(plain, *v))
        {
            return Err("invalid labels: samples of fewer than 8 bits fit the classes as they are and as gray values \
                        (expected 8-bit gray)"
                .into());
        }
        Ok(coding(wide, of_stretched < of_plain))
    }

    fn check_colors(&self, all: &Looked, few_unknown: bool) -> Result<(), String> {
        if few_unknown {
            return Ok(());
        }
        let known = |color: Rgb| self.palette.exact(color).is_some();
        let share = |holds: &dyn Fn(&Pixel) -> bool| {
            let pixels = all
                .pixels
                .iter()
                .filter(|(p, _)| holds(p))
                .map(|(_, count)| *count);
            pixels.sum::<u64>() as f64 / all.count() as f64
        };
        let swapped = share(&|p: &Pixel| known([p.color[2], p.color[1], p.color[0]]));
        if swapped >= 1.0 - MAX_UNKNOWN_SHARE {
            return Err(
                "invalid labels: their colors are the classes' in the order blue, green, red (expected red, \
                        green, blue). Swap the channels back"
                    .into(),
            );
        }
        let clear = share(&|p: &Pixel| !p.is_color);
        if clear > MAX_UNKNOWN_SHARE {
            return Err(format!(
                "invalid labels: {:.1} % of their pixels are transparent colors (expected alpha of 1 to 255, or \
                 transparent black). Write background in its class's color",
                clear * 100.0
            ));
        }
        let colored = |p: &Pixel| p.is_color && p.color != [0; 3] && known(p.color);
        if share(&colored) == 0.0 {
            let odd = all
                .pixels
                .keys()
                .map(|p| p.color)
                .find(|color| !known(*color))
                .unwrap_or_default();
            let [r, g, b] = odd;
            return Err(format!(
                "invalid labels: no pixel has a class's color but black, and #{r:02x}{g:02x}{b:02x} is none (expected \
                 class ids as 8-bit gray, or the colors of the class table)"
            ));
        }
        Ok(())
    }

    fn check_ids(
        &self,
        ids: Coding,
        all: &Looked,
        values: &BTreeSet<Value>,
        few_unknown: bool,
    ) -> Result<(), String> {
        if all.is_lossy {
            return Err(
                "invalid labels: class ids in JPEG or WebP, a format that changes pixels (expected PNG)"
                    .into(),
            );
        }
        let used: BTreeSet<u16> = values.iter().map(|v| v.1).filter(|v| *v > 0).collect();
        if let Some(cause) = self.table.no_ids.as_ref().filter(|_| !used.is_empty()) {
            return Err(format!("invalid labels: they hold class ids, but {cause}"));
        }
        let classes: BTreeSet<Option<u8>> = values
            .iter()
            .filter(|v| v.1 > 0)
            .map(|v| self.id(ids, *v))
            .collect();
        let smoothed =
            classes.len() == 1 && classes.iter().all(Option::is_some) && used.len() > MAX_VALUES_OF_A_CLASS;
        if smoothed || (all.ramps > all.edges && all.ramp_values.len() >= 4) {
            return Err(
                "invalid labels: values change gradually from class to class, so they were resized with \
                        interpolation (expected nearest neighbor)"
                    .into(),
            );
        }
        if few_unknown {
            return Ok(());
        }
        let unknown: Vec<u16> = values
            .iter()
            .filter(|v| self.id(ids, **v).is_none())
            .map(|v| v.1)
            .collect();
        let list = |values: &[u16]| {
            let shown: Vec<String> = values.iter().take(8).map(u16::to_string).collect();
            shown.join(", ") + if values.len() > 8 { ", …" } else { "" }
        };
        let step = used.iter().fold(0, |a, b| gcd(a, *b));
        let largest = used.last().copied().unwrap_or_default();
        if unknown.len() > 1 && step > 1 && usize::from(largest / step) <= self.table.classes.len() {
            return Err(format!(
                "invalid labels: their values are multiples of {step} up to {largest}, not the ids of the class table. \
                 Divide them by {step}, or write a class table with these ids"
            ));
        }
        let meant = values
            .iter()
            .any(|v| v.1 > 0 && self.id(ids, *v).is_some_and(|class| class != NO_MASK));
        if unknown.len() > self.table.classes.len().max(4) || (!meant && unknown.len() > 1) {
            return Err(format!(
                "invalid labels: {} of their values are no ids of the class table, such as {}",
                unknown.len(),
                list(&unknown)
            ));
        }
        Ok(())
    }
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}
