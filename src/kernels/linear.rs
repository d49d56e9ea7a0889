//! `x W^T + start`: the product behind every projection, with a bias or a residual as its starting value.
//!
//! Candle's own `matmul` followed by `broadcast_add` reads and writes the output twice more; here the output is
//! filled with the bias (or with the tensor to add to) and the product accumulates onto it.

use super::product::{Start, Threads, View, product};
use super::{by_reference, gelu::gelu, is_cpu_f32, is_on_card, is_tracked};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// `x W^T + start`.
///
/// * `x`: `[.., inputs]`
/// * `weight`: `[outputs, inputs]`, any strides
/// * `start`: `[outputs]` (a bias) or `[.., outputs]` (a residual)
///
/// Gives `[.., outputs]`. Differentiable in all three.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn linear(x: &Tensor, weight: &Tensor, start: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) {
        x.contiguous()?.apply_op3(weight, &start.contiguous()?, LinearOp)
    } else if is_on_card(x) {
        x.contiguous()?
            .apply_op3(&matrix(weight)?, &start.contiguous()?, LinearOp)
    } else {
        reference(x, weight, start)
    }
}

/// The same by Candle's own operations: what [`linear`] is tested against, and its way on other devices and types.
///
/// # Errors
/// As [`linear`].
pub fn reference(x: &Tensor, weight: &Tensor, start: &Tensor) -> Result<Tensor> {
    let rows = x.elem_count() / x.dim(candle_core::D::Minus1)?;
    let product = x.reshape((rows, ()))?.matmul(&weight.t()?)?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = weight.dim(0)?;
    }
    product.reshape(shape)?.broadcast_add(start)
}

/// `x W^T`, as [`linear`] without a start.
///
/// # Errors
/// As [`linear`].
pub fn unbiased(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if is_on_card(x) && !is_tracked(&[x, weight]) {
        return x
            .contiguous()?
            .apply_op2_no_bwd(&matrix(weight)?, &LinearAfter::default());
    }
    let none = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
    linear(x, weight, &none)
}

/// `gelu(x W^T + bias)`; on a card, where nothing is trained, bias and GELU are one pass.
///
/// # Errors
/// As [`linear`].
pub fn linear_gelu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if is_on_card(x) && !is_tracked(&[x, weight, bias]) {
        let after = LinearAfter {
            bias: Some(bias.contiguous()?),
            gelu: true,
        };
        return x.contiguous()?.apply_op2_no_bwd(&matrix(weight)?, &after);
    }
    gelu(&linear(x, weight, bias)?)
}

/// `residual + x W^T + bias`; on a card, where nothing is trained, both are added in one pass.
///
/// # Errors
/// As [`linear`].
pub fn linear_onto(x: &Tensor, weight: &Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if is_on_card(x) && !is_tracked(&[x, weight, bias, residual]) {
        let after = LinearAfter {
            bias: Some(bias.contiguous()?),
            gelu: false,
        };
        let residual = residual.contiguous()?;
        return x
            .contiguous()?
            .apply_op3_no_bwd(&matrix(weight)?, &residual, &after);
    }
    residual + linear(x, weight, bias)?
}

/// The weight as a card's product takes it: rows or columns side by side.
fn matrix(weight: &Tensor) -> Result<Tensor> {
    match weight.is_contiguous() || weight.t()?.is_contiguous() {
        true => Ok(weight.clone()),
        false => weight.contiguous(),
    }
}

/// What a card does with a product in the same pass, without a gradient.
#[derive(Default)]
struct LinearAfter {
    bias: Option<Tensor>,
    gelu: bool,
}

impl LinearAfter {
    /// What a card does, but for the residual.
    fn reference(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let start = match &self.bias {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(weight.dim(0)?, x.dtype(), x.device())?,
        };
        let sum = reference(x, weight, &start)?;
        if self.gelu { gelu(&sum) } else { Ok(sum) }
    }

    #[cfg(feature = "cuda")]
    fn run(
        &self,
        x: super::cuda::forward::Placed<'_>,
        weight: super::cuda::forward::Placed<'_>,
        residual: Option<super::cuda::forward::Placed<'_>>,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::forward::{After, linear, with_placed};
        let after = After {
            bias: None,
            residual,
            gelu: self.gelu,
        };
        match &self.bias {
            Some(bias) => with_placed(bias, |bias| {
                let bias = Some(bias);
                linear(x, weight, After { bias, ..after })
            }),
            None => linear(x, weight, after),
        }
    }
}

impl CustomOp2 for LinearAfter {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_reference::forward([(x, x_layout), (weight, weight_layout)], |x| {
            self.reference(&x[0], &x[1])
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        self.run((x, x_layout), (weight, weight_layout), None)
    }
}

impl CustomOp3 for LinearAfter {
    fn name(&self) -> &'static str {
        "linear-onto"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [
            (x, x_layout),
            (weight, weight_layout),
            (residual, residual_layout),
        ];
        by_reference::forward(inputs, |x| &x[2] + self.reference(&x[0], &x[1])?)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
        residual: &candle_core::CudaStorage,
        residual_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        self.run(
            (x, x_layout),
            (weight, weight_layout),
            Some((residual, residual_layout)),
        )
    }
}

struct LinearOp;

/// Rows, inputs and outputs, after checking that the three shapes belong together.
fn sizes(x: &Layout, weight: &Layout, start: &Layout) -> Result<(usize, usize, usize)> {
    let (outputs, inputs) = weight.shape().dims2()?;
    let Some((&last, leading)) = x.dims().split_last() else {
        bail!("linear: the input has no dimension")
    };
    let rows: usize = leading.iter().product();
    let full = start
        .dims()
        .split_last()
        .is_some_and(|(&o, l)| o == outputs && l == leading);
    if last != inputs || !(start.dims() == [outputs] || full) {
        bail!(
            "linear: input {:?}, weight {:?}, start {:?}",
            x.shape(),
            weight.shape(),
            start.shape()
        );
    }
    Ok((rows, inputs, outputs))
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        start: &CpuStorage,
        start_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs, outputs) = sizes(x_layout, weight_layout, start_layout)?;
        let x = super::contiguous_f32(x, x_layout)?;
        let start = super::contiguous_f32(start, start_layout)?;
        let weight = weight.as_slice::<f32>()?;
        let mut y = Vec::with_capacity(rows * outputs);
        if start_layout.dims().len() == 1 {
            for _ in 0..rows {
                y.extend_from_slice(start);
            }
        } else {
            y.extend_from_slice(start);
        }
        let [row_stride, column_stride] = weight_layout.stride()[..] else {
            bail!("linear: weight {:?} is not a matrix", weight_layout.shape());
        };
        let weight = weight.get(weight_layout.start_offset()..).unwrap_or_default();
        let weight = View::strided(weight, (outputs, inputs), (row_stride, column_stride));
        let x = View::rows(x, rows, inputs, inputs);
        product(&mut y, Start::Output, 1.0, x, weight.transposed(), Threads::Pool)?;
        let mut shape = x_layout.dims().to_vec();
        if let Some(width) = shape.last_mut() {
            *width = outputs;
        }
        Ok((CpuStorage::F32(y), Shape::from(shape)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
        start: &candle_core::CudaStorage,
        start_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::forward::{After, linear};
        sizes(x_layout, weight_layout, start_layout)?;
        let start = Some((start, start_layout));
        let after = match start_layout.dims().len() {
            1 => After {
                bias: start,
                ..After::default()
            },
            _ => After {
                residual: start,
                ..After::default()
            },
        };
        linear((x, x_layout), (weight, weight_layout), after)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        start: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = weight.dims2()?;
        let rows = x.elem_count() / inputs.max(1);
        let grad = grad.contiguous()?;
        let (flat, flat_x) = (grad.reshape((rows, outputs))?, x.reshape((rows, inputs))?);
        // What is frozen and has nothing trained before it needs no product.
        let grad_x = match x.track_op() {
            true => Some(flat.matmul(weight)?.reshape(x.shape())?),
            false => None,
        };
        let grad_weight = match weight.track_op() {
            true => Some(flat.t()?.matmul(&flat_x)?),
            false => None,
        };
        let grad_start = match (start.track_op(), start.rank()) {
            (false, _) => None,
            (true, 1) => Some(column_sums(&flat)?),
            (true, _) => Some(grad),
        };
        Ok((grad_x, grad_weight, grad_start))
    }
}

/// Sums of the columns of `x`, `[rows, columns]`, contiguous.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    if !is_cpu_f32(x) {
        return x.to_dtype(DType::F32)?.sum(0)?.to_dtype(x.dtype());
    }
    let sums = super::with_elements(x, |x| {
        // Strips whose sums are added up afterwards: a fixed number, so that the result depends on no thread count.
        let strip = rows.div_ceil(16).max(1) * columns.max(1);
        let add = |mut sums: Vec<f32>, row: &[f32]| {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            sums
        };
        let strips: Vec<Vec<f32>> = x
            .par_chunks(strip)
            .map(|strip| strip.chunks_exact(columns.max(1)).fold(vec![0f32; columns], add))
            .collect();
        Ok(strips
            .iter()
            .fold(vec![0f32; columns], |sums, strip| add(sums, strip)))
    })?;
    Tensor::from_vec(sums, columns, x.device())
}

/// Fills `rows` with the output of `f` in parallel, in pieces worth a task.
pub(super) fn for_rows<F>(output: &mut [f32], width: usize, f: F)
where
    F: Fn(usize, &mut [f32]) + Send + Sync,
{
    /// Elements of a piece: large against the cost of a task, small against a core's cache.
    const PIECE: usize = 1 << 15;
    let width = width.max(1);
    let rows_in_piece = (PIECE / width).max(1);
    output
        .par_chunks_mut(rows_in_piece * width)
        .enumerate()
        .for_each(|(piece, rows)| f(piece * rows_in_piece, rows));
}
