//! Named tensors in memory, on their way between files and a model.

use crate::error::{Error, Result};
use crate::model::ModelConfig;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tensors by canonical name.
#[derive(Debug, Clone, Default)]
pub struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    /// Tensors in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &Tensor)> {
        self.0.iter()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these are the weights of `config`: every name and every shape.
    ///
    /// # Errors
    /// [`Error::Misfit`] with all that is missing, extra or misshapen.
    pub fn check_fit(&self, config: &ModelConfig) -> Result<()> {
        misfit(
            config,
            self.0.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())),
        )
    }

    /// Whether every value is a finite number.
    ///
    /// # Errors
    /// [`Error::Tensor`] for the first tensor that holds NaN or infinity, with the index of the first such value.
    pub fn check_finite(&self) -> Result<()> {
        for (name, tensor) in &self.0 {
            check_finite(name, tensor)?;
        }
        Ok(())
    }

    /// Gives the weights to a model, converted to `dtype` on `device` one by one as it asks for them. Each is given
    /// once: what the model has made of it is all that stays in memory.
    pub fn builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let giving = Giving(Mutex::new(self.0));
        VarBuilder::from_backend(Box::new(giving), dtype, device.clone())
    }
}

/// Compares names and shapes with what `config` asks for.
pub(super) fn misfit<'a>(
    config: &ModelConfig,
    found: impl Iterator<Item = (&'a str, &'a [usize])>,
) -> Result<()> {
    let mut wanted: BTreeMap<String, Vec<usize>> =
        config.weights().into_iter().map(|w| (w.name, w.shape)).collect();
    let (mut extra, mut misshapen) = (Vec::new(), Vec::new());
    for (name, shape) in found {
        match wanted.remove(name) {
            None => extra.push(name.to_owned()),
            Some(own) if own != shape => {
                misshapen.push(format!("{name} ({shape:?} in the file, {own:?} in the model)"))
            }
            Some(_) => {}
        }
    }
    let missing: Vec<String> = wanted.into_keys().collect();
    if missing.is_empty() && extra.is_empty() && misshapen.is_empty() {
        return Ok(());
    }
    Err(Error::Misfit {
        missing,
        extra,
        misshapen,
    })
}

pub(super) fn check_finite(name: &str, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::tensor(
            name,
            format!("element {index} is {}", values[index]),
        )),
    }
}

/// Weights that are given away.
struct Giving(Mutex<BTreeMap<String, Tensor>>);

impl Giving {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Tensor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimpleBackend for Giving {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if *tensor.shape() != shape {
            candle_core::bail!("weight {name} is {:?}, the model needs {shape:?}", tensor.shape());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.held().remove(name);
        match tensor {
            Some(tensor) => tensor.to_device(device)?.to_dtype(dtype),
            None => candle_core::bail!("weight {name} is missing"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.held().contains_key(name)
    }
}
