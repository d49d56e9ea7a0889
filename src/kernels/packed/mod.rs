//! Products with weights that are packed once and used for ever.
//!
//! A general matrix product copies its right operand into the order its inner loop wants each time it is called.
//! Weights do not change, so here that is done when a model is loaded: [`Panels`] hold columns in groups of three
//! vectors, input after input, and [`product`] reads them straight through. The left operand is read where it lies.
//!
//! One product runs on the caller's thread alone; callers cut rows into tasks. Sums are taken in the same order
//! however rows are cut, so results depend on no thread count.
//!
//! ```
//! use masam::kernels::packed::{Panels, Rows, Start, product};
//! let weight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [outputs 2, inputs 3]
//! let panels = Panels::<f32>::of_weight(&weight, 2, 3)?;
//! let mut y = [0.0; 2];
//! product(&mut y, 2, Start::Zero, Rows::new(&[1.0, 0.0, 1.0], 1, 3), &panels.all())?;
//! assert_eq!(y, [4.0, 10.0]);
//! # Ok::<(), candle_core::Error>(())
//! ```

pub mod attention;
mod lanes;
mod number;
mod tile;

use crate::kernels::memory::Buffer;
use candle_core::{Result, bail};
pub use number::Number;
use std::ops::Range;

/// Vectors of a panel: with eight rows, 24 sums in registers, three for the panel and a few to spare.
pub(super) const VECTORS: usize = 3;

/// A right operand, `[inputs, outputs]`, in the order the inner loop reads it: panels of up to three vectors of
/// outputs; in a panel one step of inputs after the other; in a step of [`Number::DEPTH`] inputs one output after the
/// other. Outputs are padded with zeros to whole vectors and inputs to whole steps.
#[derive(Debug, Clone)]
pub struct Panels<N> {
    data: Buffer<N>,
    inputs: usize,
    outputs: usize,
    lanes: usize,
}

impl<N: Number> Panels<N> {
    /// Room for `inputs` by `outputs`, all zero.
    ///
    /// # Errors
    /// A type that this processor does not multiply.
    pub fn zeros(inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self::with_lanes(N::lanes()?, inputs, outputs))
    }

    fn with_lanes(lanes: usize, inputs: usize, outputs: usize) -> Self {
        let mut panels = Self {
            data: Buffer::default(),
            inputs: 0,
            outputs: 0,
            lanes,
        };
        panels.reshape(inputs, outputs);
        panels
    }

    /// From a layer's weight, `[outputs, inputs]`, as checkpoints hold it.
    ///
    /// # Errors
    /// Another length, or as [`Panels::zeros`].
    pub fn of_weight(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self> {
        if weight.len() != outputs * inputs {
            bail!(
                "{} weights for {outputs} outputs of {inputs} inputs",
                weight.len()
            );
        }
        let mut panels = Self::zeros(inputs, outputs)?;
        panels.fill(|input, output| N::of(weight[output * inputs + input]));
        Ok(panels)
    }

    /// Takes another size, within what was once allocated if it is smaller, and forgets what it held.
    pub fn reshape(&mut self, inputs: usize, outputs: usize) {
        // A size beyond all memory ends in a panic here, not in a short buffer.
        let length = inputs
            .next_multiple_of(N::DEPTH)
            .saturating_mul(outputs.next_multiple_of(self.lanes));
        if self.data.len() < length {
            self.data.resize(length, N::ZERO);
        }
        self.inputs = inputs;
        self.outputs = outputs;
        // Padding has to be zero, and nothing else writes it.
        if !inputs.is_multiple_of(N::DEPTH) || !outputs.is_multiple_of(self.lanes) {
            self.data[..length].fill(N::ZERO);
        }
    }

    /// Sets every element, `f(input, output)`.
    pub fn fill(&mut self, f: impl Fn(usize, usize) -> N) {
        for output in 0..self.outputs {
            let (start, pitch) = self.column(output);
            for input in 0..self.inputs {
                let at = start + input / N::DEPTH * pitch + input % N::DEPTH;
                self.data[at] = f(input, output);
            }
        }
    }

    /// Sets the inputs of one output.
    ///
    /// # Errors
    /// Another number of inputs, or no such output.
    pub fn set_column(&mut self, output: usize, values: &[N]) -> Result<()> {
        if output >= self.outputs || values.len() != self.inputs {
            bail!(
                "{} values for output {output} of {}x{}",
                values.len(),
                self.inputs,
                self.outputs
            );
        }
        let (start, pitch) = self.column(output);
        let steps = values.chunks(N::DEPTH);
        for (step, values) in self.data[start..].chunks_mut(pitch).zip(steps) {
            step[..values.len()].copy_from_slice(values);
        }
        Ok(())
    }

    /// Sets the outputs of one input.
    ///
    /// # Errors
    /// Another number of outputs, or no such input.
    pub fn set_row(&mut self, input: usize, values: &[N]) -> Result<()> {
        if input >= self.inputs || values.len() != self.outputs {
            bail!(
                "{} values for input {input} of {}x{}",
                values.len(),
                self.inputs,
                self.outputs
            );
        }
        let width = self.lanes * VECTORS;
        for (panel, values) in values.chunks(width).enumerate() {
            let (start, pitch) = self.column(panel * width);
            let step = start + input / N::DEPTH * pitch + input % N::DEPTH;
            let places = self.data[step..].iter_mut().step_by(N::DEPTH);
            places.zip(values).for_each(|(place, value)| *place = *value);
        }
        Ok(())
    }

    /// Where an output's first input lies, and how far it is from one step of its inputs to the next.
    fn column(&self, output: usize) -> (usize, usize) {
        let width = self.lanes * VECTORS;
        let first = output / width * width;
        let pitch = self.pitch(first);
        let start = self.place(first, 0) + (output - first) * N::DEPTH;
        (start, pitch)
    }

    /// Length of a step of the panel that begins with that output.
    fn pitch(&self, first: usize) -> usize {
        let vectors = (self.outputs - first).div_ceil(self.lanes).min(VECTORS);
        vectors * self.lanes * N::DEPTH
    }

    /// Where the panel that begins with `output` has `input`, which begins a step.
    fn place(&self, output: usize, input: usize) -> usize {
        output * self.inputs.next_multiple_of(N::DEPTH) + input / N::DEPTH * self.pitch(output)
    }

    /// All of it as a product's right operand.
    pub fn all(&self) -> Part<'_, N> {
        Part {
            panels: self,
            inputs: 0..self.inputs,
            outputs: 0..self.outputs,
        }
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Outputs of a whole panel: where a [`Part`] may begin.
    pub fn panel_width(&self) -> usize {
        self.lanes * VECTORS
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }
}

/// Some inputs and outputs of [`Panels`].
#[derive(Debug, Clone)]
pub struct Part<'a, N> {
    panels: &'a Panels<N>,
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl<N: Number> Part<'_, N> {
    /// The same for some of the inputs; the first is a multiple of [`Number::DEPTH`], the last as well or the last of
    /// all.
    pub fn inputs(mut self, inputs: Range<usize>) -> Self {
        self.inputs = inputs;
        self
    }

    /// The same for some of the outputs; the first is a multiple of [`Panels::panel_width`], the last as well or the
    /// last of all.
    pub fn outputs(mut self, outputs: Range<usize>) -> Self {
        self.outputs = outputs;
        self
    }

    /// What a product reads after some `inputs` of the panel of `outputs`: the same inputs of the next panel, or as many
    /// more inputs of the first; behind the part's last its neighbour in the panels, which is likely to be next.
    fn after(&self, outputs: Range<usize>, inputs: Range<usize>) -> &[N] {
        let panels = self.panels;
        let (output, inputs) = if outputs.end < panels.outputs {
            (outputs.end, inputs)
        } else {
            (self.outputs.start, inputs.end..inputs.end + inputs.len())
        };
        let end = inputs.end.min(panels.inputs).next_multiple_of(N::DEPTH);
        let numbers = panels.place(output, inputs.start)..panels.place(output, end);
        panels.data.get(numbers).unwrap_or_default()
    }

    fn is_sound(&self) -> bool {
        let (panels, width) = (self.panels, self.panels.panel_width());
        let fits = |range: &Range<usize>, unit: usize, end: usize| {
            range.start <= range.end
                && range.end <= end
                && range.start.is_multiple_of(unit)
                && (range.end.is_multiple_of(unit) || range.end == end)
        };
        fits(&self.inputs, N::DEPTH, panels.inputs) && fits(&self.outputs, width, panels.outputs)
    }
}

/// A left operand: rows of adjacent numbers, each `stride` after the one before. Rows have whole steps of
/// [`Number::DEPTH`]; what fills the last step is finite.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, N> {
    data: &'a [N],
    count: usize,
    stride: usize,
}

impl<'a, N: Number> Rows<'a, N> {
    /// `count` rows.
    pub fn new(data: &'a [N], count: usize, stride: usize) -> Self {
        Self { data, count, stride }
    }
}

/// What the product is added to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start<'a> {
    /// Nothing: the output is overwritten.
    Zero,
    /// One row for all rows, a bias; the output is overwritten.
    Row(&'a [f32]),
    /// What the output holds.
    Output,
    /// What the output holds, and one row for all rows.
    OutputAndRow(&'a [f32]),
}

/// `output = start + left * right`; row i of the output begins at `i * stride`. Holds still first where the thread does
/// for frames: a thread of a live stream offers the processor to others.
///
/// # Errors
/// Sizes that do not fit one another or their data.
pub fn product<N: Number>(
    output: &mut [f32],
    stride: usize,
    start: Start<'_>,
    left: Rows<'_, N>,
    right: &Part<'_, N>,
) -> Result<()> {
    let (inputs, outputs) = (right.inputs.len(), right.outputs.len());
    let steps = inputs.div_ceil(N::DEPTH);
    let reaches = |rows: usize, stride: usize, width: usize, length: usize| {
        let end = (rows - 1)
            .checked_mul(stride)
            .and_then(|last| last.checked_add(width));
        width <= stride && end.is_some_and(|end| end <= length)
    };
    if left.count == 0 || outputs == 0 {
        return Ok(());
    }
    let row_fits = match start {
        Start::Zero | Start::Output => true,
        Start::Row(row) | Start::OutputAndRow(row) => row.len() == outputs,
    };
    if !right.is_sound()
        || !row_fits
        || !reaches(left.count, stride, outputs, output.len())
        || !reaches(left.count, left.stride, steps * N::DEPTH, left.data.len())
    {
        bail!(
            "{} rows of {} numbers, stride {}, times inputs {:?} and outputs {:?} of {}x{}, into {} numbers, stride \
             {stride}",
            left.count,
            left.data.len(),
            left.stride,
            right.inputs,
            right.outputs,
            right.panels.inputs,
            right.panels.outputs,
            output.len()
        );
    }
    N::run(tile::Job {
        output,
        stride,
        start,
        left,
        right,
    })
}

#[cfg(test)]
mod tests;
