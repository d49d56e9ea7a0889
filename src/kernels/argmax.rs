//! The class with the highest logit, per pixel.

use super::simd;
use rayon::prelude::*;

/// Labels of one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// `[pixels]` class ids; the lower id wins a tie.
    pub ids: Vec<u8>,
    /// Logits that are NaN or infinite. Above zero the ids mean nothing.
    pub not_finite: usize,
}

/// `logits`: `[classes, pixels]`, at most 256 classes.
pub fn argmax(logits: &[f32], classes: usize) -> Labels {
    /// Pixels of a piece: its best logits and ids stay in the first-level cache.
    const PIECE: usize = 1 << 12;
    let pixels = logits.len() / classes.max(1);
    let mut ids = vec![0u8; pixels];
    let not_finite = ids
        .par_chunks_mut(PIECE)
        .enumerate()
        .map(|(piece, ids)| {
            simd::dispatch(Piece {
                logits,
                pixels,
                first: piece * PIECE,
                classes,
                ids,
            })
        })
        .sum();
    Labels { ids, not_finite }
}

/// The same by its definition.
pub fn reference(logits: &[f32], classes: usize) -> Labels {
    let pixels = logits.len() / classes.max(1);
    let best = |pixel: usize| {
        let logit = |class: usize| logits[class * pixels + pixel];
        (1..classes).fold(
            0,
            |best, class| if logit(class) > logit(best) { class } else { best },
        ) as u8
    };
    Labels {
        ids: (0..pixels).map(best).collect(),
        not_finite: logits[..pixels * classes]
            .iter()
            .filter(|v| !v.is_finite())
            .count(),
    }
}

struct Piece<'a> {
    logits: &'a [f32],
    pixels: usize,
    first: usize,
    classes: usize,
    ids: &'a mut [u8],
}

impl simd::Body for Piece<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> usize {
        let Self {
            logits,
            pixels,
            first,
            classes,
            ids,
        } = self;
        let length = ids.len();
        let plane = |class: usize| &logits[class * pixels + first..][..length];
        let mut best = plane(0).to_vec();
        let count = |plane: &[f32]| plane.iter().map(|v| u32::from(!v.is_finite())).sum::<u32>() as usize;
        let mut not_finite = count(plane(0));
        for class in 1..classes {
            let plane = plane(class);
            not_finite += count(plane);
            for ((best, id), logit) in best.iter_mut().zip(ids.iter_mut()).zip(plane) {
                let better = *logit > *best;
                *best = if better { *logit } else { *best };
                *id = if better { class as u8 } else { *id };
            }
        }
        not_finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::uniform;

    #[test]
    fn pieces_equal_the_definition() {
        for (classes, pixels) in [(1, 5), (2, 1), (12, 4096), (12, 4097), (255, 33), (3, 10_001)] {
            // Few levels, so that ties occur.
            let mut logits: Vec<f32> = uniform("argmax", classes * pixels)
                .map(|u| (u * 8.0).round() as f32)
                .collect();
            assert_eq!(
                argmax(&logits, classes),
                reference(&logits, classes),
                "{classes} {pixels}"
            );
            logits[pixels / 2] = f32::NAN;
            let last = logits.len() - 1;
            logits[last] = f32::INFINITY;
            let found = argmax(&logits, classes);
            assert_eq!(found.not_finite, if last == pixels / 2 { 1 } else { 2 });
        }
    }
}
