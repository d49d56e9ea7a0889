//! The pixels of label pictures, counted by what they look like, before they mean anything.

use super::label_picture::{LabelPicture, Pixel};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most different pixels of one picture, or of all, that are kept apart; labels have a few, noise has many.
const MAX_PIXELS: usize = 4096;

/// What one label picture, or all of them, hold.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub pixels: BTreeMap<Pixel, u64>,
    /// Pixels unlike those that are kept apart.
    pub further: u64,
    pub storage: BTreeSet<&'static str>,
    pub is_lossy: bool,
    /// Borders between areas whose values differ by more than one: sharp ones, and those with values between.
    pub edges: u64,
    pub ramps: u64,
    /// Values of ramps with the values on both sides.
    pub ramp_values: BTreeSet<[u16; 3]>,
}

impl Looked {
    /// All pixels.
    pub fn count(&self) -> u64 {
        self.pixels.values().sum::<u64>() + self.further
    }

    fn add_pixels(&mut self, pixel: Pixel, count: u64) {
        if self.pixels.len() < MAX_PIXELS || self.pixels.contains_key(&pixel) {
            *self.pixels.entry(pixel).or_default() += count;
        } else {
            self.further += count;
        }
    }

    /// Adds what another picture holds.
    pub fn add(&mut self, other: &Looked) {
        other
            .pixels
            .iter()
            .for_each(|(pixel, count)| self.add_pixels(*pixel, *count));
        self.further += other.further;
        self.storage.extend(&other.storage);
        self.is_lossy |= other.is_lossy;
        self.edges += other.edges;
        self.ramps += other.ramps;
        if self.ramp_values.len() < MAX_PIXELS {
            self.ramp_values.extend(&other.ramp_values);
        }
    }

    /// Looks for values that lie between those to the left and right of them, in runs too short for an area.
    fn add_row(&mut self, runs: &[(u16, u32)]) {
        const SHORT: u32 = 2;
        let mut before: Option<u16> = None;
        let mut between: Vec<u16> = Vec::new();
        for &(value, length) in runs {
            if length <= SHORT {
                between.push(value);
                continue;
            }
            if let Some(before) = before.filter(|before| before.abs_diff(value) > 1) {
                let (low, high) = (before.min(value), before.max(value));
                match between.first() {
                    None => self.edges += 1,
                    Some(middle) if between.iter().all(|v| low < *v && *v < high) => {
                        self.ramps += 1;
                        self.ramp_values.insert([low, *middle, high]);
                    }
                    Some(_) => {}
                }
            }
            before = Some(value);
            between.clear();
        }
    }
}

/// Looks at files side by side, on threads of its own: a thread of a pool that waits for others may be given another
/// label picture to read, which waits for this.
pub(super) fn look_at_all(files: &[PathBuf]) -> Vec<Option<Looked>> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut own = Vec::new();
        while let Some((at, path)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, files.get(at)?)))
        {
            own.push((at, look(path)));
        }
        own
    };
    let looked: Vec<(usize, Option<Looked>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A decoder that panics has read nothing.
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    let mut all: Vec<Option<Looked>> = files.iter().map(|_| None).collect();
    for (at, one) in looked {
        if let Some(place) = all.get_mut(at) {
            *place = one;
        }
    }
    all
}

/// Looks at one file; `None` where it cannot be read, which is said when it is used.
fn look(path: &Path) -> Option<Looked> {
    let picture = LabelPicture::read(path).ok()?;
    let mut looked = Looked {
        storage: BTreeSet::from([picture.storage]),
        is_lossy: picture.is_lossy,
        ..Looked::default()
    };
    let width = picture.size.width_px as usize;
    let mut runs: Vec<(u16, u32)> = Vec::new();
    let mut last: Option<(Pixel, u64)> = None;
    for (at, pixel) in picture.pixels().enumerate() {
        match &mut last {
            Some((known, run)) if *known == pixel => *run += 1,
            _ => {
                if let Some((pixel, run)) = last.replace((pixel, 1)) {
                    looked.add_pixels(pixel, run);
                }
            }
        }
        if let Some((_, sample)) = pixel.value {
            match runs.last_mut() {
                Some((value, length)) if *value == sample => *length += 1,
                _ => runs.push((sample, 1)),
            }
        }
        if (at + 1).is_multiple_of(width) {
            looked.add_row(&runs);
            runs.clear();
        }
    }
    if let Some((pixel, run)) = last {
        looked.add_pixels(pixel, run);
    }
    Some(looked)
}
