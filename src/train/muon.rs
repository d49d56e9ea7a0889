//! Muon (Jordan and others, 2024): momentum whose singular values are all made about one before it is applied to a
//! matrix, so that every direction of a layer learns at the same speed.
//!
//! ```text
//! m <- b m + g          u <- g + b m
//! p <- p - rate decay p - rate 0.2 sqrt(max(rows, columns)) orthogonal(u)
//! ```
//! The factor gives an update the length that AdamW's usually has, so that both share rate and decay (Liu and others,
//! 2025).

use crate::error::Result;
use crate::kernels::product::{Start, Threads, View, product};

/// Decay of the momentum.
pub const MOMENTUM: f32 = 0.95;

/// Length of an update's elements, as a root of the mean square.
const UPDATE_RMS: f32 = 0.2;

/// Steps of the iteration.
const STEPS: usize = 5;

/// The quintic `a x + b x³ + c x⁵`, which brings singular values of 0.01 to 1 to between 0.7 and 1.2 in five steps.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Smallest side of a matrix that is worth it.
const LEAST_SIDE: usize = 8;

/// Whether a parameter is the matrix of a layer: not a table, not a token, not a factor of FacT, which starts at zero.
pub fn applies_to(name: &str, shape: &[usize]) -> bool {
    let tables = ["embed", "rel_pos_", "token", "fact", "gaussian", "not_a_point"];
    matches!(shape, &[rows, columns] if rows.min(columns) >= LEAST_SIDE)
        && name.ends_with("weight")
        && !tables.iter().any(|table| last_parts(name).contains(table))
}

/// The name without the path of the part that it belongs to: `cross_attn_token_to_image` is no token.
fn last_parts(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at + 1);
    let first = dots.nth(1).unwrap_or(0);
    &name[first..]
}

/// One matrix and what its step needs.
#[derive(Debug)]
pub struct Matrix {
    /// Rows and columns.
    pub size: (usize, usize),
    /// The weights, row by row.
    pub weights: Vec<f32>,
    /// The momentum.
    pub momentum: Vec<f32>,
    /// The gradient.
    pub gradient: Vec<f32>,
}

impl Matrix {
    /// One step; the gradient is taken `factor` times.
    ///
    /// # Errors
    /// Lengths that do not fit the size.
    pub fn step(&mut self, rate: f32, decay: f32, factor: f32) -> Result<()> {
        let Self {
            size: (rows, columns),
            weights,
            momentum,
            gradient,
        } = self;
        for (m, g) in momentum.iter_mut().zip(&mut *gradient) {
            *g *= factor;
            *m = *m * MOMENTUM + *g;
            *g += MOMENTUM * *m;
        }
        let update = orthogonal(gradient, (*rows, *columns))?;
        let reach = rate * UPDATE_RMS * (*rows.max(columns) as f32).sqrt();
        for (p, u) in weights.iter_mut().zip(&update) {
            *p = *p * (1.0 - rate * decay) - reach * u;
        }
        Ok(())
    }
}

/// The matrix with all its singular values near one (Newton and Schulz's iteration: five steps of a quintic).
///
/// # Errors
/// A length that does not fit the size.
pub fn orthogonal(matrix: &[f32], (rows, columns): (usize, usize)) -> Result<Vec<f32>> {
    let norm = matrix
        .iter()
        .map(|v| f64::from(*v) * f64::from(*v))
        .sum::<f64>()
        .sqrt() as f32;
    let scale = 1.0 / (norm + 1e-12);
    // The smaller side goes first: the square of the other would be larger.
    let turned = rows > columns;
    let (short, long) = if turned { (columns, rows) } else { (rows, columns) };
    let turn = |from: &[f32], (rows, columns): (usize, usize)| -> Vec<f32> {
        let column = |c: usize| from.iter().skip(c).step_by(columns).take(rows).copied();
        (0..columns).flat_map(column).collect()
    };
    let mut x: Vec<f32> = matrix.iter().map(|v| v * scale).collect();
    if turned {
        x = turn(&x, (rows, columns));
    }
    let (mut square, mut fourth) = (vec![0f32; short * short], vec![0f32; short * short]);
    let mut next = vec![0f32; short * long];
    let [a, b, c] = QUINTIC;
    for _ in 0..STEPS {
        let view = View::rows(&x, short, long, long);
        product(
            &mut square,
            Start::Zero,
            1.0,
            view,
            view.transposed(),
            Threads::One,
        )?;
        let squares = View::rows(&square, short, short, short);
        product(&mut fourth, Start::Zero, c, squares, squares, Threads::One)?;
        fourth.iter_mut().zip(&square).for_each(|(f, s)| *f += b * s);
        next.iter_mut().zip(&x).for_each(|(n, x)| *n = a * x);
        let mixed = View::rows(&fourth, short, short, short);
        product(
            &mut next,
            Start::Output,
            1.0,
            mixed,
            View::rows(&x, short, long, long),
            Threads::One,
        )?;
        std::mem::swap(&mut x, &mut next);
    }
    Ok(if turned { turn(&x, (short, long)) } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::uniform;

    #[test]
    fn directions_stay_and_their_lengths_become_one() {
        for (rows, columns) in [(8, 8), (12, 31), (40, 9)] {
            let matrix: Vec<f32> = uniform(&format!("muon {rows}"), rows * columns)
                .map(|u| u as f32)
                .collect();
            let found = orthogonal(&matrix, (rows, columns)).unwrap();
            // The smaller Gram matrix is near the identity: its eigenvalues are squares of 0.7 to 1.2.
            let short = rows.min(columns);
            let at = |i: usize, k: usize| {
                if rows <= columns {
                    found[i * columns + k]
                } else {
                    found[k * columns + i]
                }
            };
            let gram = |i: usize, j: usize| (0..rows.max(columns)).map(|k| at(i, k) * at(j, k)).sum::<f32>();
            for i in 0..short {
                assert!(
                    (0.3..1.6).contains(&gram(i, i)),
                    "{rows}x{columns}: {}",
                    gram(i, i)
                );
                for j in 0..i {
                    assert!(gram(i, j).abs() < 0.4, "{rows}x{columns} {i} {j}: {}", gram(i, j));
                }
            }
            // It still points where the matrix does.
            let dot: f32 = found.iter().zip(&matrix).map(|(f, m)| f * m).sum();
            assert!(dot > 0.0);
        }
        assert!(orthogonal(&[0.0; 64], (8, 8)).unwrap().iter().all(|v| *v == 0.0));
    }

    #[test]
    fn a_step_goes_down_and_decays() {
        let gradient: Vec<f32> = uniform("muon gradient", 96).map(|u| u as f32).collect();
        let mut matrix = Matrix {
            size: (8, 12),
            weights: vec![1.0; 96],
            momentum: vec![0.0; 96],
            gradient: gradient.clone(),
        };
        matrix.step(1e-2, 0.5, 2.0).unwrap();
        let moved: f32 = matrix
            .weights
            .iter()
            .zip(&gradient)
            .map(|(w, g)| (w - 0.995) * g)
            .sum();
        assert!(moved < 0.0);
        assert!(
            matrix
                .momentum
                .iter()
                .zip(&gradient)
                .all(|(m, g)| (m - 2.0 * g).abs() < 1e-6)
        );
        let rms = (matrix.weights.iter().map(|w| (w - 0.995).powi(2)).sum::<f32>() / 96.0).sqrt();
        assert!((0.5e-3..4e-3).contains(&rms), "{rms}");
    }

    #[test]
    fn matrices_are_told_from_tables() {
        let yes = |name: &str| applies_to(name, &[192, 192]);
        assert!(yes("image_encoder.blocks.3.mlp.lin1.weight"));
        assert!(yes(
            "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"
        ));
        for name in [
            "mask_decoder.mask_tokens.weight",
            "image_encoder.fact_u.weight",
            "image_encoder.blocks.0.attn.q_fact.weight",
            "image_encoder.blocks.0.attn.rel_pos_h",
            "prompt_encoder.not_a_point_embed.weight",
        ] {
            assert!(!yes(name), "{name}");
        }
        assert!(!applies_to("a.lin1.weight", &[192]) && !applies_to("a.lin1.weight", &[4, 192]));
    }
}
