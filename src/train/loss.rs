//! MA-SAM's loss: 0.2 cross-entropy + 0.8 Dice (paper, section 3.1).
//!
//! Dice is taken per class over the whole batch, background included, on softmax probabilities p and one-hot labels g:
//! `1 - (2 sum(p g) + 1e-5) / (sum p² + sum g² + 1e-5)`, then the mean over classes.

use super::loss_kernel::LossKernel;
use crate::error::{Error, Result};
use crate::kernels::softmax::softmax;
use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// The id of pixels that count for nothing.
pub const IGNORED: u8 = 255;
const SMOOTH: f64 = 1e-5;

/// What the parts of the loss count for; the default is the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossConfig {
    /// Share of cross-entropy in the sum, 0 to 1; the rest is Dice.
    pub cross_entropy_share: f64,
    /// Weight of each class in the cross-entropy, which becomes a weighted mean; without it all count the same.
    pub class_weights: Option<Vec<f32>>,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            cross_entropy_share: 0.2,
            class_weights: None,
        }
    }
}

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

/// The paper's loss.
///
/// * `logits`: `[images, classes, height, width]`
/// * `labels`: `[images, height, width]`, bytes: class ids or [`IGNORED`]
///
/// # Errors
/// As [`losses_with`].
pub fn losses(logits: &Tensor, labels: &Tensor) -> Result<Losses> {
    losses_with(logits, labels, &LossConfig::default())
}

/// As [`losses`], with shares and weights of one's own.
///
/// # Errors
/// Shapes that do not fit, an id that is no class, no pixel that counts, a weight that is negative or not finite,
/// or Candle's own.
pub fn losses_with(logits: &Tensor, labels: &Tensor, config: &LossConfig) -> Result<Losses> {
    let (ids, class_weights) = checked(logits, labels, config)?;
    let (cross_entropy, dice) = if logits.dtype() == DType::F32 && matches!(logits.device(), Device::Cpu) {
        let kernel = LossKernel {
            labels: ids.into(),
            class_weights: class_weights.into(),
            smooth: SMOOTH,
        };
        let parts = logits.contiguous()?.apply_op1(kernel)?;
        (parts.get(0)?, parts.get(1)?)
    } else {
        reference(logits, &ids, &class_weights)?
    };
    let share = config.cross_entropy_share;
    let total = ((&cross_entropy * share)? + (&dice * (1.0 - share))?)?;
    let scalar = |x: Tensor| x.to_dtype(DType::F32);
    Ok(Losses {
        total,
        cross_entropy: scalar(cross_entropy)?,
        dice: scalar(dice)?,
    })
}

/// Whether any pixel of `labels` has a part in the loss.
///
/// # Errors
/// Candle's own.
pub fn has_counting_pixel(labels: &Tensor, config: &LossConfig) -> Result<bool> {
    let weight = |id: u8| match &config.class_weights {
        Some(weights) => weights.get(usize::from(id)).copied().unwrap_or(0.0),
        None => f32::from(id != IGNORED),
    };
    let ids = labels.flatten_all()?.to_vec1::<u8>()?;
    Ok(ids.into_iter().any(|id| weight(id) > 0.0))
}

/// Labels and class weights, once everything fits.
fn checked(logits: &Tensor, labels: &Tensor, config: &LossConfig) -> Result<(Vec<u8>, Vec<f32>)> {
    let (images, classes, height, width) = logits.dims4()?;
    if labels.dims() != [images, height, width] {
        let cause = format!("labels {:?} for logits {:?}", labels.dims(), logits.dims());
        return Err(Error::tensor("labels", cause));
    }
    let weights = config.class_weights.clone().unwrap_or(vec![1.0; classes]);
    if weights.len() != classes || weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
        let bound = format!("it has to be {classes} numbers, none negative");
        return Err(Error::config("class_weights", format!("{weights:?}"), bound));
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
    let counts = |id: &u8| weights.get(usize::from(*id)).is_some_and(|w| *w > 0.0);
    if !ids.iter().any(counts) {
        return Err(Error::tensor("labels", "no pixel counts"));
    }
    Ok((ids, weights))
}

/// Cross-entropy and Dice by Candle's own operations, on any device.
fn reference(logits: &Tensor, ids: &[u8], class_weights: &[f32]) -> Result<(Tensor, Tensor)> {
    let classes = logits.dim(1)?;
    // A one-hot row of zeros takes a pixel out of every sum below.
    let mut one_hot = vec![0f32; ids.len() * classes];
    let mut weight = 0f64;
    for (row, &id) in one_hot.chunks_exact_mut(classes).zip(ids) {
        if let (Some(entry), Some(own)) = (row.get_mut(usize::from(id)), class_weights.get(usize::from(id))) {
            *entry = 1.0;
            weight += f64::from(*own);
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
    let class_weights = Tensor::new(class_weights, logits.device())?.to_dtype(logits.dtype())?;
    let cross_entropy = (&log_p * &g)?.broadcast_mul(&class_weights)?.sum_all()?;
    let cross_entropy = (cross_entropy * (-1.0 / weight))?;

    let p = softmax(&rows)?.broadcast_mul(&g.sum_keepdim(D::Minus1)?)?;
    let overlap = ((&p * &g)?.sum(0)? * 2.0)?;
    let sizes = (p.sqr()?.sum(0)? + g.sqr()?.sum(0)?)?;
    let share = ((overlap + SMOOTH)? / (sizes + SMOOTH)?)?;
    let dice = share.affine(-1.0, 1.0)?.mean_all()?;
    Ok((cross_entropy, dice))
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
    fn the_kernel_equals_its_reference() {
        use crate::model::weights::uniform;
        use candle_core::Var;
        for (images, classes, height, width) in
            [(1, 2, 1, 1), (2, 5, 3, 7), (1, 12, 37, 41), (3, 3, 130, 131)]
        {
            let seed = format!("{images} {classes} {height} {width}");
            let pixels = images * height * width;
            let logits: Vec<f32> = uniform(&seed, pixels * classes)
                .map(|u| (u * 6.0) as f32)
                .collect();
            let logits = Tensor::from_vec(logits, (images, classes, height, width), &Device::Cpu).unwrap();
            let mut ids: Vec<u8> = uniform(&format!("{seed} labels"), pixels)
                .map(|u| ((u + 1.0) / 2.0 * (classes + 1) as f64) as u8)
                .map(|id| if usize::from(id) < classes { id } else { IGNORED })
                .collect();
            ids[0] = 1;
            let weights: Vec<f32> = (0..classes).map(|c| 0.5 + c as f32).collect();
            let labels = Tensor::from_vec(ids.clone(), (images, height, width), &Device::Cpu).unwrap();
            let config = LossConfig {
                class_weights: Some(weights.clone()),
                ..LossConfig::default()
            };
            let fast = Var::from_tensor(&logits).unwrap();
            let found = losses_with(fast.as_tensor(), &labels, &config).unwrap();
            let plain = Var::from_tensor(&logits.to_dtype(DType::F64).unwrap()).unwrap();
            let (cross_entropy, dice) = reference(plain.as_tensor(), &ids, &weights).unwrap();
            let of = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            for (got, wanted) in [(&found.cross_entropy, &cross_entropy), (&found.dice, &dice)] {
                let bound = 1e-6 * of(wanted).max(0.5);
                assert!(
                    (of(got) - of(wanted)).abs() < bound,
                    "{seed}: {} for {}",
                    of(got),
                    of(wanted)
                );
            }
            let total = ((cross_entropy * 0.2).unwrap() + (dice * 0.8).unwrap()).unwrap();
            let slopes = |total: &Tensor, of: &Var| -> Vec<f64> {
                let all = total.backward().unwrap();
                let own = all.get(of.as_tensor()).unwrap().to_dtype(DType::F64).unwrap();
                own.flatten_all().unwrap().to_vec1().unwrap()
            };
            let (got, wanted) = (slopes(&found.total, &fast), slopes(&total, &plain));
            let largest = wanted.iter().fold(0f64, |m, w| m.max(w.abs()));
            for (got, wanted) in got.iter().zip(&wanted) {
                assert!(
                    (got - wanted).abs() < 2e-6 * largest,
                    "{seed}: {got} for {wanted}"
                );
            }
        }
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
