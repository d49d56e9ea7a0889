//! Bilinear resizing of tensors as two products, so that it is exact, differentiable and works on any device.
//!
//! Pixel centres at half integers, edges repeated: what PyTorch calls `align_corners=False`, without antialiasing.

use candle_core::{DType, Device, Result, Tensor};

/// `[to, from]`: row i holds the weights of output i. At most two of a row are not zero.
///
/// # Errors
/// Nothing to take from, or Candle's own.
pub fn matrix(from: usize, to: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    if from == 0 {
        candle_core::bail!("an axis without elements cannot be resized to {to}");
    }
    let mut rows = vec![0f64; to * from];
    for i in 0..to {
        let (low, high, part) = neighbours(i, from, to);
        rows[i * from + low] += 1.0 - part;
        rows[i * from + high] += part;
    }
    Tensor::from_vec(rows, (to, from), device)?.to_dtype(dtype)
}

/// The two of `from` elements between which element `i` of `to` lies, and how far it is to the second. There has to be
/// one.
pub(crate) fn neighbours(i: usize, from: usize, to: usize) -> (usize, usize, f64) {
    let centre = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
    let low = (centre as usize).min(from - 1);
    (low, (low + 1).min(from - 1), centre - low as f64)
}

/// `[.., height, width]` to `[.., to.0, to.1]`.
///
/// # Errors
/// Fewer than two dimensions, an axis without elements, or Candle's own.
pub fn planes(x: &Tensor, to: (usize, usize)) -> Result<Tensor> {
    let (height, width) = (x.dim(candle_core::D::Minus2)?, x.dim(candle_core::D::Minus1)?);
    if (height, width) == to {
        return Ok(x.clone());
    }
    let down = matrix(height, to.0, x.dtype(), x.device())?;
    let across = matrix(width, to.1, x.dtype(), x.device())?;
    planes_by(x, &down, &across)
}

/// As [`planes`], with what [`matrix`] gives for both axes, in the type of `x`.
pub(crate) fn planes_by(x: &Tensor, down: &Tensor, across: &Tensor) -> Result<Tensor> {
    let (to, height) = down.dims2()?;
    let (wide, width) = across.dims2()?;
    let mut shape = x.dims().to_vec();
    let rank = shape.len();
    (shape[rank - 2], shape[rank - 1]) = (to, wide);
    let x = x
        .reshape(((), width))?
        .matmul(&across.t()?)?
        .reshape(((), height, wide))?;
    down.broadcast_left(x.dim(0)?)?
        .contiguous()?
        .matmul(&x)?
        .reshape(shape)
}

/// `[images, height, width, channels]` to `[images, to.0, to.1, channels]`.
///
/// # Errors
/// Another rank, or Candle's own.
pub fn channels_last(x: &Tensor, to: (usize, usize)) -> Result<Tensor> {
    planes(&x.permute((0, 3, 1, 2))?.contiguous()?, to)?
        .permute((0, 2, 3, 1))?
        .contiguous()
}

/// `[images, side, side, channels]` to `[images, to, to, channels]`, `by` being what [`matrix`] gives for these sides: for
/// who does it again and again.
///
/// # Errors
/// Another rank, a matrix of other sides, or Candle's own.
pub(crate) fn squares_by(x: &Tensor, by: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    if [height, width] != [by.dim(1)?; 2] {
        candle_core::bail!("a matrix {:?} cannot resize {:?}", by.shape(), x.shape());
    }
    planes_by(&x.permute((0, 3, 1, 2))?.contiguous()?, by, by)?
        .permute((0, 2, 3, 1))?
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarging_by_two_gives_the_known_quarters() {
        let x = Tensor::new(&[[[0f32, 4.0], [8.0, 12.0]]], &Device::Cpu).unwrap();
        let y = planes(&x, (4, 4)).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(y[0][0], [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(y[0][1], [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(y[0][3], [8.0, 9.0, 11.0, 12.0]);
    }

    #[test]
    fn an_axis_without_elements_is_an_error() {
        for shape in [(1, 0, 8), (1, 8, 0)] {
            let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            assert!(planes(&x, (4, 4)).is_err(), "{shape:?}");
        }
        let x = Tensor::zeros((1, 0, 8, 32), DType::F32, &Device::Cpu).unwrap();
        assert!(channels_last(&x, (4, 4)).is_err());
    }

    #[test]
    fn shrinking_takes_the_two_nearest() {
        let x = Tensor::new(&[[0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], &Device::Cpu).unwrap();
        let y = planes(&x.unsqueeze(0).unwrap(), (1, 3))
            .unwrap()
            .flatten_all()
            .unwrap();
        let y = y.to_vec1::<f32>().unwrap();
        for (got, exact) in y.iter().zip([2.0 / 3.0, 3.0, 16.0 / 3.0]) {
            assert!((got - exact).abs() < 1e-6, "{y:?}");
        }
    }

    #[test]
    fn a_matrix_made_before_does_the_same() {
        let values: Vec<f32> = (0..2 * 3 * 3 * 5).map(|i| (i * i % 17) as f32).collect();
        let x = Tensor::from_vec(values, (2, 3, 3, 5), &Device::Cpu).unwrap();
        for to in [1, 3, 4, 12] {
            let by = matrix(3, to, DType::F32, &Device::Cpu).unwrap();
            let (got, wanted) = (squares_by(&x, &by).unwrap(), channels_last(&x, (to, to)).unwrap());
            assert_eq!(got.dims(), wanted.dims());
            let apart = (got - wanted).unwrap().abs().unwrap().max_all().unwrap();
            assert!(apart.to_scalar::<f32>().unwrap() < 1e-5);
        }
        let by = matrix(4, 8, DType::F32, &Device::Cpu).unwrap();
        assert!(squares_by(&x, &by).is_err());
    }
}
