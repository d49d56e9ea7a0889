//! AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), its moments open so that they can be saved.
//!
//! ```text
//! p <- p - rate decay p
//! m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g²
//! p <- p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```

use super::parameters::Parameters;
use crate::error::Result;
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Constants of the optimiser; the defaults are MA-SAM's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Keeps the division finite.
    pub eps: f64,
    /// Weight decay per step over the learning rate.
    pub decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            eps: 1e-8,
            decay: 0.1,
        }
    }
}

/// First and second moment of one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor,
    /// Running mean of its square.
    pub second: Tensor,
}

/// The optimiser and all its state.
#[derive(Debug, Clone)]
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
        let AdamWConfig {
            beta_1,
            beta_2,
            eps,
            decay,
        } = self.config;
        self.steps += 1;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (unbias_1, unbias_2) = (1.0 - beta_1.powi(exponent), 1.0 - beta_2.powi(exponent));
        for (name, var) in parameters.trained() {
            let Some(gradient) = gradients.get(var.as_tensor()) else {
                continue;
            };
            let gradient = gradient.detach();
            let (first, second) = match self.moments.get(name) {
                Some(m) => (m.first.clone(), m.second.clone()),
                None => (gradient.zeros_like()?, gradient.zeros_like()?),
            };
            let first = ((first * beta_1)? + (&gradient * (1.0 - beta_1))?)?;
            let second = ((second * beta_2)? + (gradient.sqr()? * (1.0 - beta_2))?)?;
            let slope = ((&second / unbias_2)?.sqrt()? + eps)?;
            let change = ((&first / unbias_1)? / slope)?;
            let kept = (var.as_tensor().detach() * (1.0 - rate * decay))?;
            var.set(&(kept - (change * rate)?)?)?;
            self.moments.insert(name.clone(), Moments { first, second });
        }
        Ok(())
    }
}
