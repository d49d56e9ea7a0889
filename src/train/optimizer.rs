//! AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), its moments open so that they can be saved. The
//! layers' matrices may be left to [`muon`].
//!
//! ```text
//! p <- p - rate decay p
//! m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g²
//! p <- p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```

//!
//! On the CPU all of it happens in place, in parallel, and reads every number once per formula.

use super::muon;
use super::parameters::Parameters;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Constants of the optimiser; the defaults are MA-SAM's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Keeps the division finite.
    pub eps: f64,
    /// Weight decay per step over the learning rate.
    pub decay: f64,
    /// What moves the layers' matrices; everything else is moved by AdamW.
    pub matrices: Rule,
}

/// What moves a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// AdamW, as published.
    #[default]
    Adamw,
    /// [`muon`]: fewer steps for a model that starts from nothing. For the CPU.
    Muon,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            eps: 1e-8,
            decay: 0.1,
            matrices: Rule::Adamw,
        }
    }
}

/// First and second moment of one parameter. They change in place.
#[derive(Debug)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor,
    /// Running mean of its square.
    pub second: Tensor,
}

/// The optimiser and all its state.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// Steps taken.
    pub steps: u64,
    /// Moments by canonical name, for parameters that have had a gradient.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// A fresh optimiser.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// One step with learning rate `rate`; parameters without a gradient stay as they are.
    ///
    /// # Errors
    /// Candle's own.
    pub fn step(&mut self, parameters: &Parameters, gradients: &GradStore, rate: f64) -> Result<()> {
        self.step_scaled(parameters, gradients, rate, 1.0)
    }

    /// As [`AdamW::step`], with every gradient taken `factor` times.
    ///
    /// # Errors
    /// As [`AdamW::step`].
    pub fn step_scaled(
        &mut self,
        parameters: &Parameters,
        gradients: &GradStore,
        rate: f64,
        factor: f64,
    ) -> Result<()> {
        self.steps += 1;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let AdamWConfig { beta_1, beta_2, .. } = self.config;
        let change = Change {
            unbias_1: 1.0 - beta_1.powi(exponent),
            unbias_2: 1.0 - beta_2.powi(exponent),
            config: self.config,
            rate,
        };
        let by_muon = |name: &str, var: &Var| {
            self.config.matrices == Rule::Muon && muon::applies_to(name, var.as_tensor().dims())
        };
        let (matrices, rest): (Vec<_>, Vec<_>) =
            parameters.trained().partition(|(name, var)| by_muon(name, var));
        self.step_matrices(&matrices, gradients, rate, factor)?;
        for (name, var) in rest {
            let Some(gradient) = gradients.get(var.as_tensor()) else {
                continue;
            };
            let gradient = gradient.detach().contiguous()?;
            if !self.moments.contains_key(name) {
                let (first, second) = (gradient.zeros_like()?, gradient.zeros_like()?);
                self.moments.insert(name.clone(), Moments { first, second });
            }
            let Some(moments) = self.moments.get_mut(name) else {
                continue;
            };
            if gradient.dtype() == DType::F32 && matches!(gradient.device(), Device::Cpu) {
                let mean = |beta, square| Mean { beta, factor, square };
                moments.first.inplace_op2(&gradient, &mean(beta_1, false))?;
                moments.second.inplace_op2(&gradient, &mean(beta_2, true))?;
                var.as_tensor()
                    .inplace_op3(&moments.first, &moments.second, &change)?;
            } else {
                change.reference(var, &(gradient * factor)?, moments)?;
            }
        }
        Ok(())
    }
}

impl AdamW {
    /// A step of Muon for each of `matrices`. Their momentum is kept as a first moment; there is no second.
    fn step_matrices(
        &mut self,
        matrices: &[(&String, &Var)],
        gradients: &GradStore,
        rate: f64,
        factor: f64,
    ) -> Result<()> {
        let flat = |x: &Tensor| -> Result<Vec<f32>> { Ok(x.flatten_all()?.to_vec1::<f32>()?) };
        let mut moving = Vec::with_capacity(matrices.len());
        for &(name, var) in matrices {
            let Some(gradient) = gradients.get(var.as_tensor()) else {
                continue;
            };
            let (size, gradient) = (var.dims2()?, flat(gradient)?);
            let momentum = match self.moments.get(name) {
                Some(moments) => flat(&moments.first)?,
                None => vec![0.0; gradient.len()],
            };
            let weights = flat(var.as_tensor())?;
            let matrix = muon::Matrix {
                size,
                weights,
                momentum,
                gradient,
            };
            moving.push((name, var, matrix));
        }
        let (rate, decay, factor) = (rate as f32, self.config.decay as f32, factor as f32);
        moving
            .par_iter_mut()
            .try_for_each(|(_, _, matrix)| matrix.step(rate, decay, factor))?;
        for (name, var, matrix) in moving {
            let device = var.device();
            let first = Tensor::from_vec(matrix.momentum, matrix.size, device)?;
            let second = Tensor::zeros(1, DType::F32, device)?;
            var.set(&Tensor::from_vec(matrix.weights, matrix.size, device)?)?;
            self.moments.insert(name.clone(), Moments { first, second });
        }
        Ok(())
    }
}

/// A running mean of the gradient, `factor` times, or of its square.
struct Mean {
    beta: f64,
    factor: f64,
    square: bool,
}

/// Elements of a task: all its slices stay in a core's second-level cache.
const TASK: usize = 1 << 15;

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    let range = layout.contiguous_offsets();
    match (storage, range) {
        (CpuStorage::F32(values), Some((start, end))) if end <= values.len() => Ok(&mut values[start..end]),
        _ => bail!("AdamW: a parameter or a moment is not contiguous float32"),
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout, length: usize) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout
        .contiguous_offsets()
        .and_then(|(start, end)| values.get(start..end))
    {
        Some(values) if values.len() == length => Ok(values),
        _ => bail!("AdamW: {:?} does not fit {length} elements", layout.shape()),
    }
}

impl InplaceOp2 for Mean {
    fn name(&self) -> &'static str {
        "adamw-moment"
    }

    fn cpu_fwd(
        &self,
        mean: &mut CpuStorage,
        mean_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let mean = slice_mut(mean, mean_layout)?;
        let gradient = slice(gradient, gradient_layout, mean.len())?;
        let (kept, share, factor) = (self.beta as f32, (1.0 - self.beta) as f32, self.factor as f32);
        mean.par_chunks_mut(TASK)
            .zip(gradient.par_chunks(TASK))
            .for_each(|(mean, gradient)| {
                let pairs = mean.iter_mut().zip(gradient);
                match self.square {
                    true => pairs.for_each(|(m, g)| *m = *m * kept + (g * factor) * (g * factor) * share),
                    false => pairs.for_each(|(m, g)| *m = *m * kept + g * factor * share),
                }
            });
        Ok(())
    }
}

/// What the moments do to a parameter.
struct Change {
    config: AdamWConfig,
    unbias_1: f64,
    unbias_2: f64,
    rate: f64,
}

impl Change {
    /// The whole step by Candle's own operations: for other devices, and what the fast one is tested against.
    fn reference(&self, var: &Var, gradient: &Tensor, moments: &mut Moments) -> Result<()> {
        let AdamWConfig {
            beta_1,
            beta_2,
            eps,
            decay,
            ..
        } = self.config;
        moments.first = ((&moments.first * beta_1)? + (gradient * (1.0 - beta_1))?)?;
        moments.second = ((&moments.second * beta_2)? + (gradient.sqr()? * (1.0 - beta_2))?)?;
        let slope = ((&moments.second / self.unbias_2)?.sqrt()? + eps)?;
        let change = ((&moments.first / self.unbias_1)? / slope)?;
        let kept = (var.as_tensor().detach() * (1.0 - self.rate * decay))?;
        Ok(var.set(&(kept - (change * self.rate)?)?)?)
    }
}

impl InplaceOp3 for Change {
    fn name(&self) -> &'static str {
        "adamw-step"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<()> {
        let parameter = slice_mut(parameter, parameter_layout)?;
        let first = slice(first, first_layout, parameter.len())?;
        let second = slice(second, second_layout, parameter.len())?;
        let kept = (1.0 - self.rate * self.config.decay) as f32;
        let (unbias_1, unbias_2) = ((1.0 / self.unbias_1) as f32, (1.0 / self.unbias_2) as f32);
        let (eps, rate) = (self.config.eps as f32, self.rate as f32);
        let tasks = parameter
            .par_chunks_mut(TASK)
            .zip(first.par_chunks(TASK))
            .zip(second.par_chunks(TASK));
        tasks.for_each(|((parameter, first), second)| {
            for ((p, m), v) in parameter.iter_mut().zip(first).zip(second) {
                *p = *p * kept - (m * unbias_1) / ((v * unbias_2).sqrt() + eps) * rate;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Weights;
    use crate::model::weights::uniform;
    use crate::train::Trained;

    #[test]
    fn the_step_in_place_equals_its_reference() {
        let name = "mask_decoder.iou_token.weight"; // any name that is trained
        for length in [1, 7, TASK - 1, TASK + 3] {
            let values = |what: &str, size: f64| {
                let values: Vec<f32> = uniform(&format!("{what} {length}"), length)
                    .map(|u| (u * size) as f32)
                    .collect();
                Tensor::from_vec(values, length, &Device::Cpu).unwrap()
            };
            let mut weights = Weights::default();
            weights.insert(name, values("weight", 1.0));
            let fast = Parameters::new(&weights, Trained::Full, &Device::Cpu).unwrap();
            let plain = Var::from_tensor(&values("weight", 1.0)).unwrap();
            let mut optimizer = AdamW::new(AdamWConfig::default());
            let zeros = || plain.as_tensor().detach().zeros_like().unwrap();
            let mut moments = Moments {
                first: zeros(),
                second: zeros(),
            };
            for step in 1..=5 {
                let gradient = values(&format!("gradient {step}"), 0.01);
                let var = fast.get(name).unwrap();
                let loss = (var.as_tensor() * &gradient).unwrap().sum_all().unwrap();
                optimizer
                    .step_scaled(&fast, &loss.backward().unwrap(), 8e-4, 0.3)
                    .unwrap();
                let change = Change {
                    config: AdamWConfig::default(),
                    unbias_1: 1.0 - 0.9f64.powi(step),
                    unbias_2: 1.0 - 0.999f64.powi(step),
                    rate: 8e-4,
                };
                change
                    .reference(&plain, &(gradient * 0.3).unwrap(), &mut moments)
                    .unwrap();
            }
            let of = |x: &Tensor| x.to_vec1::<f32>().unwrap();
            let (got, wanted) = (of(fast.get(name).unwrap().as_tensor()), of(plain.as_tensor()));
            let start = of(&values("weight", 1.0));
            for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert!((got - wanted).abs() < 1e-6, "{length}, {i}: {got} for {wanted}");
            }
            let moved = got
                .iter()
                .zip(&start)
                .filter(|(now, then)| (*now - *then).abs() > 1e-4)
                .count();
            assert!(moved * 10 > length * 8, "{moved} of {length} move");
        }
    }
}
