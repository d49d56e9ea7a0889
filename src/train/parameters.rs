//! Which weights are trained, and weights as variables.

use crate::checkpoint::Weights;
use crate::error::Result;
use crate::model::Part;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the one buffer that is never trained: SAM draws it once at random.
const BUFFER: &str = "positional_encoding_gaussian_matrix";

/// What is trained; the rest is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trained {
    /// FacT, adapters, prompt encoder and mask decoder: the paper's choice.
    #[default]
    #[serde(rename = "fact+adapters")]
    FactAndAdapters,
    /// FacT, prompt encoder and mask decoder.
    Fact,
    /// Adapters, prompt encoder and mask decoder.
    Adapters,
    /// Prompt encoder and mask decoder.
    Decoder,
    /// Everything.
    Full,
}

impl Trained {
    /// Whether the weight of that canonical name is trained.
    pub fn includes(self, name: &str) -> bool {
        if name.ends_with(BUFFER) {
            return false;
        }
        match Part::of(name) {
            Part::PromptEncoder | Part::MaskDecoder => true,
            Part::Fact => matches!(self, Self::FactAndAdapters | Self::Fact | Self::Full),
            Part::Adapters => matches!(self, Self::FactAndAdapters | Self::Adapters | Self::Full),
            Part::ImageEncoder => self == Self::Full,
        }
    }
}

/// The weights of a model in training: variables for what is trained, tensors for the rest.
#[derive(Debug, Clone)]
pub struct Parameters {
    trained: BTreeMap<String, Var>,
    frozen: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// Takes float32 weights and makes variables of those that `trained` includes.
    ///
    /// # Errors
    /// Candle's own.
    pub fn new(weights: &Weights, trained: Trained, device: &Device) -> Result<Self> {
        let mut parameters = Self {
            trained: BTreeMap::new(),
            frozen: BTreeMap::new(),
        };
        for (name, tensor) in weights.iter() {
            let tensor = tensor.to_dtype(DType::F32)?.to_device(device)?;
            if trained.includes(name) {
                parameters
                    .trained
                    .insert(name.clone(), Var::from_tensor(&tensor)?);
            } else {
                parameters.frozen.insert(name.clone(), tensor);
            }
        }
        Ok(parameters)
    }

    /// Variables by canonical name, in its order.
    pub fn trained(&self) -> impl ExactSizeIterator<Item = (&String, &Var)> {
        self.trained.iter()
    }

    /// The variable of that name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.trained.get(name)
    }

    /// Adds the gradients of `own` to those of `sums`.
    ///
    /// # Errors
    /// Candle's own.
    pub fn add_gradients(&self, sums: &mut GradStore, own: &GradStore) -> Result<()> {
        for var in self.trained.values() {
            if let Some(gradient) = own.get(var.as_tensor()) {
                let sum = match sums.get(var.as_tensor()) {
                    Some(earlier) => (earlier + gradient)?,
                    None => gradient.clone(),
                };
                sums.insert(var.as_tensor(), sum);
            }
        }
        Ok(())
    }

    /// Length of all gradients taken as one vector.
    ///
    /// # Errors
    /// Candle's own.
    pub fn gradient_norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut sum = 0f64;
        for gradient in self
            .trained
            .values()
            .filter_map(|var| gradients.get(var.as_tensor()))
        {
            sum += f64::from(
                gradient
                    .sqr()?
                    .sum_all()?
                    .to_dtype(DType::F32)?
                    .to_scalar::<f32>()?,
            );
        }
        Ok(sum.sqrt())
    }

    /// Gives variables and frozen weights to a model; build it with
    /// [`FactMode::Apart`](crate::model::FactMode::Apart).
    pub fn builder(&self, device: &Device) -> VarBuilder<'static> {
        self.builder_as(DType::F32, device)
    }

    /// As [`Parameters::builder`], each weight rounded to `dtype` on its way; gradients come back in f32.
    pub fn builder_as(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone())
    }

    /// A copy of all weights as they are now.
    ///
    /// # Errors
    /// Candle's own.
    pub fn weights(&self) -> Result<Weights> {
        let mut weights = Weights::default();
        for (name, var) in &self.trained {
            weights.insert(name, var.as_tensor().detach().copy()?);
        }
        for (name, tensor) in &self.frozen {
            weights.insert(name, tensor.clone());
        }
        Ok(weights)
    }
}

impl SimpleBackend for Parameters {
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

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        let trained = self.trained.get(name).map(|var| var.as_tensor().clone());
        match trained.or_else(|| self.frozen.get(name).cloned()) {
            Some(tensor) => tensor.to_dtype(dtype),
            None => candle_core::bail!("weight {name} is missing"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.trained.contains_key(name) || self.frozen.contains_key(name)
    }
}
