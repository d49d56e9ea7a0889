//! An operation's reference in the place of what a device or type lacks: gradients, in float32 whatever the type, and on
//! the CPU the card's forward passes.

use super::contiguous_f32;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Tensor, Var, bail};

/// `f` of contiguous float32 tensors on the CPU, where the card's operations are their references (tests take this way).
/// Gives floats or bytes.
///
/// # Errors
/// Those of `f`, or Candle's own.
pub(super) fn forward<const N: usize>(
    inputs: [(&CpuStorage, &Layout); N],
    f: impl FnOnce(&[Tensor]) -> Result<Tensor>,
) -> Result<(CpuStorage, Shape)> {
    let tensor = |(storage, layout): (&CpuStorage, &Layout)| {
        let values = contiguous_f32(storage, layout)?.to_vec();
        Tensor::from_vec(values, layout.shape(), &Device::Cpu)
    };
    let tensors = inputs.into_iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let output = f(&tensors)?;
    let flat = output.flatten_all()?;
    let storage = match output.dtype() {
        DType::F32 => CpuStorage::F32(flat.to_vec1()?),
        DType::U8 => CpuStorage::U8(flat.to_vec1()?),
        other => bail!("a reference that gives {other:?}"),
    };
    Ok((storage, output.shape().clone()))
}

/// Gradients of `sum(f(inputs) * grad)` by each of `inputs`, in their own types. `f` has to be differentiable.
///
/// # Errors
/// Those of `f`, or Candle's own.
pub(super) fn gradients<const N: usize>(
    inputs: [&Tensor; N],
    grad: &Tensor,
    f: impl FnOnce(&[Tensor; N]) -> Result<Tensor>,
) -> Result<[Option<Tensor>; N]> {
    let mut leaves = Vec::with_capacity(N);
    for input in inputs {
        leaves.push(Var::from_tensor(&input.detach().to_dtype(DType::F32)?)?);
    }
    let tensors = std::array::from_fn(|i| match leaves.get(i) {
        Some(leaf) => leaf.as_tensor().clone(),
        None => grad.clone(), // there are as many leaves as inputs
    });
    let output = f(&tensors)?;
    let found = (output * grad.detach().to_dtype(DType::F32)?)?
        .sum_all()?
        .backward()?;
    let mut gradients = std::array::from_fn(|_| None);
    for ((gradient, leaf), input) in gradients.iter_mut().zip(&leaves).zip(inputs) {
        if let Some(slope) = found.get(leaf) {
            *gradient = Some(slope.to_dtype(input.dtype())?);
        }
    }
    Ok(gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::layer_norm;
    use crate::model::weights::uniform;
    use candle_core::Device;

    #[test]
    fn they_are_those_of_the_fast_way() {
        let tensor = |name: &str, shape: &[usize]| {
            let values: Vec<f32> = uniform(name, shape.iter().product()).map(|u| u as f32).collect();
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let (x, weight, bias) = (tensor("x", &[5, 7]), tensor("w", &[7]), tensor("b", &[7]));
        let grad = tensor("grad", &[5, 7]);
        let y = layer_norm::layer_norm(&x, &weight, &bias, 1e-6).unwrap();
        let wanted = (y * grad.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let found = gradients([&x, &weight, &bias], &grad, |[x, w, b]| {
            layer_norm::reference(x, w, b, 1e-6)
        })
        .unwrap();
        for (found, leaf) in found.iter().zip([&x, &weight, &bias]) {
            let apart = (found.as_ref().unwrap() - wanted.get(leaf).unwrap()).unwrap();
            let apart = apart
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(apart < 1e-5, "{apart}");
        }
    }
}
