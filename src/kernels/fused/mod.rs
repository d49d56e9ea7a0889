//! Several layers as one operation with its own gradient.
//!
//! ```text
//! mlp        x + lin2(gelu(lin1(norm(x))))
//! attention  x + proj(attention(qkv(norm(x))))
//! adapter    x + up(gelu(conv(down(norm(x)))))
//! upscale    gelu(norm(transposed convolution(x)))
//! ```
//! Layer by layer, training spends most of its time on moving intermediate results through memory and on adding
//! gradients to zeros. Here one task takes one clip (or one image) through a whole stage while everything is still in
//! its core's cache, and keeps only what the way back cannot compute again cheaply.
//!
//! A stage's weights come as one vector, `packed`, so that Candle sees an operation of two arguments.

mod adapter;
mod attention;
mod mlp;
mod upscale;

use super::contiguous_f32;
use super::product::{Start, Threads, View, product};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

pub use adapter::AdapterStage;
pub use attention::AttentionStage;
pub use mlp::MlpStage;
pub use upscale::UpscaleStage;

/// Strips that a batch is cut into on the way back, each with sums of its own: a fixed number, so that the result
/// does not depend on the number of threads.
const STRIPS: usize = 4;

/// One stage. Lengths are in floats.
pub trait Stage: Send + Sync {
    /// Name of the operation.
    const NAME: &'static str;

    /// Length of what is worked on at a time: a clip where frames look at each other, an image otherwise.
    fn unit(&self) -> usize;

    /// Length of what comes of a unit.
    fn output(&self) -> usize {
        self.unit()
    }

    /// Shape of the output for an input of shape `x`.
    fn shape(&self, x: &[usize]) -> Vec<usize> {
        x.to_vec()
    }

    /// Length of [`pack`]ed weights.
    fn packed(&self) -> usize;

    /// Length of what is kept of a unit for the way back.
    fn kept(&self) -> usize;

    /// `y = stage(x)`.
    ///
    /// # Errors
    /// Lengths that do not fit one another.
    fn forward(
        &self,
        work: &mut Work,
        packed: &[f32],
        x: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
    ) -> Result<()>;

    /// The gradient of `x` into `grad_x`, that of the weights added to `grad_packed` where it is wanted.
    ///
    /// # Errors
    /// Lengths that do not fit one another.
    fn backward(&self, work: &mut Work, packed: &[f32], back: Back<'_>) -> Result<()>;
}

/// Arguments of [`Stage::backward`], all of one unit.
#[derive(Debug)]
pub struct Back<'a> {
    /// Input.
    pub x: &'a [f32],
    /// What the forward pass kept.
    pub kept: &'a [f32],
    /// Gradient of the output.
    pub grad: &'a [f32],
    /// Gradient of the input.
    pub grad_x: &'a mut [f32],
    /// Gradient of the packed weights.
    pub grad_packed: Option<&'a mut [f32]>,
}

/// Buffers of one task, used again from unit to unit.
#[derive(Debug, Default)]
pub struct Work([Vec<f32>; 4]);

impl Work {
    /// Four buffers of these lengths, with whatever was in them.
    fn take(&mut self, lengths: [usize; 4]) -> [&mut [f32]; 4] {
        let Self(buffers) = self;
        for (buffer, length) in buffers.iter_mut().zip(lengths) {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        }
        let [a, b, c, d] = buffers;
        let [la, lb, lc, ld] = lengths;
        [&mut a[..la], &mut b[..lb], &mut c[..lc], &mut d[..ld]]
    }
}

/// `stage(x)`, differentiable in both.
///
/// * `x`: any shape whose elements are whole units of the stage, float32 on the CPU
/// * `packed`: the weights, as [`pack`] makes them
///
/// # Errors
/// Lengths that do not fit the stage, or Candle's own.
pub fn fused<S: Stage + 'static>(x: &Tensor, packed: &Tensor, stage: S) -> Result<Tensor> {
    let op = StageOp {
        stage,
        kept: Mutex::default(),
        tracked: x.track_op() || packed.track_op(),
    };
    x.contiguous()?.apply_op2(&packed.contiguous()?, op)
}

/// Weights one after the other as one vector; differentiable.
///
/// # Errors
/// Candle's own.
pub fn pack(parts: &[&Tensor]) -> Result<Tensor> {
    let flat = parts
        .iter()
        .map(|part| part.flatten_all())
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&flat, 0)
}

struct StageOp<S> {
    stage: S,
    kept: Mutex<Vec<f32>>,
    tracked: bool,
}

impl<S: Stage> StageOp<S> {
    /// Number of units.
    fn units(&self, x: usize, packed: usize) -> Result<usize> {
        let unit = self.stage.unit();
        if unit == 0 || !x.is_multiple_of(unit) || packed != self.stage.packed() {
            bail!(
                "{}: {x} elements in units of {unit}, {packed} weights instead of {}",
                S::NAME,
                self.stage.packed()
            );
        }
        Ok(x / unit)
    }
}

impl<S: Stage> CustomOp2 for StageOp<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, packed) = (
            contiguous_f32(x, x_layout)?,
            contiguous_f32(packed, packed_layout)?,
        );
        let units = self.units(x.len(), packed.len())?;
        let (unit, kept_of_unit) = (self.stage.unit(), self.stage.kept().max(1));
        let output = self.stage.output();
        let mut y = vec![0f32; units * output];
        let mut kept = vec![0f32; units * kept_of_unit];
        let strip = units.div_ceil(STRIPS).max(1);
        y.par_chunks_mut(strip * output)
            .zip(x.par_chunks(strip * unit))
            .zip(kept.par_chunks_mut(strip * kept_of_unit))
            .try_for_each(|((y, x), kept)| {
                let mut work = Work::default();
                let units = y.chunks_exact_mut(output).zip(x.chunks_exact(unit));
                units
                    .zip(kept.chunks_exact_mut(kept_of_unit))
                    .try_for_each(|((y, x), kept)| self.stage.forward(&mut work, packed, x, y, kept))
            })?;
        if self.tracked {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
        Ok((CpuStorage::F32(y), Shape::from(self.stage.shape(x_layout.dims()))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let units = self.units(x.elem_count(), packed.elem_count())?;
        let (unit, kept_of_unit) = (self.stage.unit(), self.stage.kept().max(1));
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() != units * kept_of_unit {
            bail!("{}: nothing was kept for the way back", S::NAME);
        }
        let grad = grad.contiguous()?;
        let output = self.stage.output();
        let wanted = packed.track_op();
        let mut grad_x = vec![0f32; x.elem_count()];
        let strip = units.div_ceil(STRIPS).max(1);
        let strips = super::with_elements(x, |x| {
            super::with_elements(packed, |packed| {
                super::with_elements(&grad, |grad| {
                    grad_x
                        .par_chunks_mut(strip * unit)
                        .zip(x.par_chunks(strip * unit).zip(grad.par_chunks(strip * output)))
                        .zip(kept.par_chunks(strip * kept_of_unit))
                        .map(|((grad_x, (x, grad)), kept)| {
                            let mut sums = if wanted {
                                vec![0f32; packed.len()]
                            } else {
                                Vec::new()
                            };
                            let mut work = Work::default();
                            let inputs = x.chunks_exact(unit).zip(grad.chunks_exact(output));
                            let units = grad_x.chunks_exact_mut(unit).zip(inputs);
                            for ((grad_x, (x, grad)), kept) in units.zip(kept.chunks_exact(kept_of_unit)) {
                                let grad_packed = wanted.then_some(&mut sums[..]);
                                let back = Back {
                                    x,
                                    kept,
                                    grad,
                                    grad_x,
                                    grad_packed,
                                };
                                self.stage.backward(&mut work, packed, back)?;
                            }
                            Ok(sums)
                        })
                        .collect::<Result<Vec<Vec<f32>>>>()
                })
            })
        })?;
        let grad_x = Tensor::from_vec(grad_x, x.shape(), x.device())?;
        let mut strips = strips.into_iter();
        let grad_packed = match (wanted, strips.next()) {
            (true, Some(mut sums)) => {
                for strip in strips {
                    add(&mut sums, &strip);
                }
                Some(Tensor::from_vec(sums, packed.shape(), packed.device())?)
            }
            _ => None,
        };
        Ok((Some(grad_x), grad_packed))
    }
}

/// Adds `values` to `sums`.
fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The parts of a packed vector, in the order of their lengths.
fn parts<const N: usize>(packed: &[f32], lengths: [usize; N]) -> Result<[&[f32]; N]> {
    let mut rest = packed;
    let mut found = [&packed[..0]; N];
    for (part, length) in found.iter_mut().zip(lengths) {
        let Some((head, tail)) = rest.split_at_checked(length) else {
            bail!("{} packed weights, {lengths:?} asked for", packed.len());
        };
        (*part, rest) = (head, tail);
    }
    Ok(found)
}

/// The same of a vector that is written to.
fn parts_mut<const N: usize>(packed: &mut [f32], lengths: [usize; N]) -> Result<[&mut [f32]; N]> {
    let total = packed.len();
    let mut rest = packed;
    let mut found: [&mut [f32]; N] = std::array::from_fn(|_| Default::default());
    for (part, length) in found.iter_mut().zip(lengths) {
        let Some((head, tail)) = rest.split_at_mut_checked(length) else {
            bail!("{total} packed weights, {lengths:?} asked for");
        };
        (*part, rest) = (head, tail);
    }
    Ok(found)
}

/// A product of `rows` rows: `x W^T`, with a bias in front or added to what `y` holds.
struct Layer<'a> {
    /// `[outputs, inputs]`
    weight: &'a [f32],
    inputs: usize,
    outputs: usize,
}

impl<'a> Layer<'a> {
    fn new(weight: &'a [f32], inputs: usize, outputs: usize) -> Self {
        Self {
            weight,
            inputs,
            outputs,
        }
    }

    fn view(&self) -> View<'a> {
        View::rows(self.weight, self.outputs, self.inputs, self.inputs)
    }

    /// `y (+)= x W^T`.
    fn forward(&self, x: &[f32], y: &mut [f32], start: Start) -> Result<()> {
        let x = View::rows(x, x.len() / self.inputs, self.inputs, self.inputs);
        product(y, start, 1.0, x, self.view().transposed(), Threads::One)
    }

    /// `grad_x (+)= grad W`.
    fn backward(&self, grad: &[f32], grad_x: &mut [f32], start: Start) -> Result<()> {
        let grad = View::rows(grad, grad.len() / self.outputs, self.outputs, self.outputs);
        product(grad_x, start, 1.0, grad, self.view(), Threads::One)
    }

    /// `grad_weight += grad^T x`.
    fn slopes(&self, grad: &[f32], x: &[f32], grad_weight: &mut [f32]) -> Result<()> {
        let rows = x.len() / self.inputs;
        let grad = View::rows(grad, rows, self.outputs, self.outputs).transposed();
        let x = View::rows(x, rows, self.inputs, self.inputs);
        product(grad_weight, Start::Output, 1.0, grad, x, Threads::One)
    }
}

/// Every row of `y` becomes `bias`.
fn fill_rows(y: &mut [f32], bias: &[f32]) {
    y.chunks_exact_mut(bias.len())
        .for_each(|row| row.copy_from_slice(bias));
}

/// Adds the rows of `x` to `sums`.
fn add_rows(sums: &mut [f32], x: &[f32]) {
    let width = sums.len();
    x.chunks_exact(width).for_each(|row| add(sums, row));
}

#[cfg(test)]
mod tests;
