//! Layers as the executor keeps them: weights packed, everything else as floats.

use crate::kernels::layer_norm::norm_rows;
use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Panels, Rows, Start, product};
use crate::model::layers::{LayerNorm, Linear};
use candle_core::{DType, Device, Result, Tensor};

/// All numbers of a tensor, row by row.
pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()
}

/// Norm over rows.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

impl Norm {
    pub(super) fn new(norm: &LayerNorm) -> Result<Self> {
        Ok(Self {
            weight: floats(&norm.weight)?,
            bias: floats(&norm.bias)?,
            eps: norm.eps,
        })
    }

    /// Normalises the rows of `x` into `y`.
    pub(super) fn rows(&self, x: &[f32], y: &mut [f32]) {
        norm_rows(x, &self.weight, &self.bias, self.eps, y);
    }

    /// Normalises rows where they are, by way of `room`.
    pub(super) fn in_place(&self, x: &mut [f32], room: &mut [f32]) {
        let room = &mut room[..x.len()];
        self.rows(x, room);
        x.copy_from_slice(room);
    }
}

/// `x W^T + b`.
#[derive(Debug)]
pub(super) struct Dense<N> {
    pub(super) panels: Panels<N>,
    /// Empty where there is none.
    pub(super) bias: Vec<f32>,
}

impl<N: Number> Dense<N> {
    pub(super) fn new(linear: &Linear) -> Result<Self> {
        Ok(Self {
            bias: floats(&linear.bias)?,
            ..Self::without_bias(&linear.weight)?
        })
    }

    /// `weight`: `[outputs, ..]`
    pub(super) fn without_bias(weight: &Tensor) -> Result<Self> {
        let outputs = weight.dim(0)?;
        let inputs = weight.elem_count() / outputs.max(1);
        Ok(Self {
            panels: Panels::of_weight(&floats(weight)?, outputs, inputs)?,
            bias: Vec::new(),
        })
    }

    pub(super) fn inputs(&self) -> usize {
        self.panels.inputs()
    }

    pub(super) fn outputs(&self) -> usize {
        self.panels.outputs()
    }

    /// `y = x W^T + b` for rows that lie side by side.
    pub(super) fn run(&self, x: &[N], y: &mut [f32]) -> Result<()> {
        let start = match self.bias.is_empty() {
            true => Start::Zero,
            false => Start::Row(&self.bias),
        };
        self.into(x, y, start)
    }

    /// `y += x W^T + b`.
    pub(super) fn add(&self, x: &[N], y: &mut [f32]) -> Result<()> {
        let start = match self.bias.is_empty() {
            true => Start::Output,
            false => Start::OutputAndRow(&self.bias),
        };
        self.into(x, y, start)
    }

    fn into(&self, x: &[N], y: &mut [f32], start: Start<'_>) -> Result<()> {
        let rows = Rows::new(x, x.len() / self.inputs().max(1), self.inputs());
        product(y, self.outputs(), start, rows, &self.panels.all())
    }

    /// `y = x W^T + b` as numbers, by way of `room`.
    pub(super) fn narrow(&self, x: &[N], y: &mut [N], room: &mut Buffer<f32>) -> Result<()> {
        if let Some(floats) = N::as_floats(y) {
            return self.run(x, floats);
        }
        let floats = super::room::take(room, y.len());
        self.run(x, floats)?;
        N::narrow(floats, y);
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + size_of_val(self.bias.as_slice())
    }
}

/// Adds `row` to every row of `y`.
pub(super) fn add_to_rows(y: &mut [f32], row: &[f32]) {
    y.chunks_exact_mut(row.len()).for_each(|y| add(y, row));
}

/// `y += x`.
pub(super) fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// `sum = a + b`.
pub(super) fn sum(a: &[f32], b: &[f32], sum: &mut [f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = a + b;
    }
}
