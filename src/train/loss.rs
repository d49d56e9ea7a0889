//! MA-SAM's loss: 0.2 cross-entropy + 0.8 Dice (paper, section 3.1).
//!
//! Dice is taken per class over the whole batch, background included, on softmax probabilities p and one-hot labels g:
//! `1 - (2 sum(p g) + 1e-5) / (sum p² + sum g² + 1e-5)`, then the mean over classes.

use crate::error::{Error, Result};
use crate::kernels::softmax::softmax;
use candle_core::{D, DType, Tensor};

/// The id of pixels that count for nothing.
pub const IGNORED: u8 = 255;
/// Share of cross-entropy in the sum; the rest is Dice.
pub const CROSS_ENTROPY_SHARE: f64 = 0.2;
const SMOOTH: f64 = 1e-5;

/// The loss and its two parts, scalars that can be differentiated.
#[derive(Debug, Clone)]
pub struct Losses {
    /// 0.2 cross-entropy + 0.8 Dice.
    pub total: Tensor,
    /// Mean over pixels that count.
    pub cross_entropy: Tensor,
    /// Mean over classes.
    pub dice: Tensor,
}

/// * `logits`: `[images, classes, height, width]`
/// * `labels`: `[images, height, width]`, bytes: class ids or [`IGNORED`]
///
/// # Errors
/// Shapes that do not fit, an id that is no class, no pixel that counts, or Candle's own.
pub fn losses(logits: &Tensor, labels: &Tensor) -> Result<Losses> {
    let (images, classes, height, width) = logits.dims4()?;
    if labels.dims() != [images, height, width] {
        let cause = format!("labels {:?} for logits {:?}", labels.dims(), logits.dims());
        return Err(Error::tensor("labels", cause));
    }
    let ids = labels.flatten_all()?.to_vec1::<u8>()?;
    if let Some(id) = ids
        .iter()
        .find(|&&id| usize::from(id) >= classes && id != IGNORED)
    {
        return Err(Error::tensor(
            "labels",
            format!("{id} is no class of {classes} and not {IGNORED}"),
        ));
    }
    let counted = ids.iter().filter(|&&id| id != IGNORED).count();
    if counted == 0 {
        return Err(Error::tensor("labels", "no pixel counts"));
    }
    // A one-hot row of zeros takes a pixel out of every sum below.
    let mut one_hot = vec![0f32; ids.len() * classes];
    for (row, &id) in one_hot.chunks_exact_mut(classes).zip(&ids) {
        if let Some(entry) = row.get_mut(usize::from(id)) {
            *entry = 1.0;
        }
    }
    let g = Tensor::from_vec(one_hot, (ids.len(), classes), logits.device())?.to_dtype(logits.dtype())?;
    let rows = logits
        .permute((0, 2, 3, 1))?
        .contiguous()?
        .reshape((ids.len(), classes))?; // [pixels, classes]

    let max = rows.max_keepdim(D::Minus1)?.detach();
    let shifted = rows.broadcast_sub(&max)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_p = shifted.broadcast_sub(&log_sum)?;
    let cross_entropy = ((&log_p * &g)?.sum_all()? * (-1.0 / counted as f64))?;

    let mut p = softmax(&rows)?;
    if counted < ids.len() {
        p = p.broadcast_mul(&g.sum_keepdim(D::Minus1)?)?;
    }
    let overlap = ((&p * &g)?.sum(0)? * 2.0)?;
    let sizes = (p.sqr()?.sum(0)? + g.sqr()?.sum(0)?)?;
    let share = ((overlap + SMOOTH)? / (sizes + SMOOTH)?)?;
    let dice = share.affine(-1.0, 1.0)?.mean_all()?;

    let total = ((&cross_entropy * CROSS_ENTROPY_SHARE)? + (&dice * (1.0 - CROSS_ENTROPY_SHARE))?)?;
    let scalar = |x: Tensor| x.to_dtype(DType::F32);
    Ok(Losses {
        total,
        cross_entropy: scalar(cross_entropy)?,
        dice: scalar(dice)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_worked_example_holds() {
        // Two pixels, two classes; probabilities (3/4, 1/4) and (1/2, 1/2); labels 0 and 1.
        let logits = Tensor::new(&[[[[3f32.ln(), 0.0]], [[0.0, 0.0]]]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[[[0u8, 1]]], &Device::Cpu).unwrap();
        let found = losses(&logits, &labels).unwrap();
        let of = |x: &Tensor| f64::from(x.to_scalar::<f32>().unwrap());
        let cross_entropy = -(0.75f64.ln() + 0.5f64.ln()) / 2.0;
        let first = 1.0 - (1.5 + SMOOTH) / (0.5625 + 0.25 + 1.0 + SMOOTH);
        let second = 1.0 - (1.0 + SMOOTH) / (0.0625 + 0.25 + 1.0 + SMOOTH);
        assert!((of(&found.cross_entropy) - cross_entropy).abs() < 1e-6);
        assert!((of(&found.dice) - (first + second) / 2.0).abs() < 1e-6);
        assert!((of(&found.total) - 0.2 * cross_entropy - 0.4 * (first + second)).abs() < 1e-6);
    }

    #[test]
    fn ignored_pixels_change_nothing() {
        let logits = Tensor::new(&[[[[1f32, 2.0, 9.0]], [[0.5, -1.0, -9.0]]]], &Device::Cpu).unwrap();
        let all = losses(
            &logits,
            &Tensor::new(&[[[0u8, 1, IGNORED]]], &Device::Cpu).unwrap(),
        )
        .unwrap();
        let some = logits.narrow(3, 0, 2).unwrap();
        let some = losses(&some, &Tensor::new(&[[[0u8, 1]]], &Device::Cpu).unwrap()).unwrap();
        let of = |x: &Tensor| x.to_scalar::<f32>().unwrap();
        assert!((of(&all.total) - of(&some.total)).abs() < 1e-6);
    }

    #[test]
    fn labels_that_mean_nothing_are_refused() {
        let logits = Tensor::zeros((1, 2, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let labels = |ids: [u8; 2]| Tensor::new(&[[ids]], &Device::Cpu).unwrap();
        assert!(
            losses(&logits, &labels([0, 2]))
                .unwrap_err()
                .to_string()
                .contains("2 is no class")
        );
        assert!(
            losses(&logits, &labels([IGNORED; 2]))
                .unwrap_err()
                .to_string()
                .contains("no pixel counts")
        );
        assert!(losses(&logits, &Tensor::new(&[[[0u8]]], &Device::Cpu).unwrap()).is_err());
    }
}
