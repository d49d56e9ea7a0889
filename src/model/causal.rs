//! A causal model run one frame at a time.
//!
//! Everything but the temporal convolutions looks at one frame alone, and a causal convolution looks at its own last
//! two inputs. So those are all that has to be remembered: for each adapter what `down` gave for the last two frames.
//! One new frame then costs one frame, and the outputs are those of the causal forward pass over everything since the
//! state was empty.

use super::config::ModelConfig;
use crate::segmenter::Temporal;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Frames that a causal convolution looks back.
pub const LOOK_BACK: usize = 2;

/// What one stream's past has left behind.
#[derive(Debug, Clone)]
pub struct CausalState {
    /// In the order of the adapters: `[LOOK_BACK, grid * grid, adapter_width]`, older frame first.
    adapters: Vec<Tensor>,
}

impl CausalState {
    /// The state before the first frame: zeros, as the convolution is padded with.
    ///
    /// # Errors
    /// A model whose taps are not causal, or Candle's own.
    pub fn new(config: &ModelConfig, dtype: DType, device: &Device) -> Result<Self> {
        if config.temporal != Temporal::Causal {
            bail!("the model's temporal taps are centered: it looks at later frames")
        }
        let shape = Self::shape(config);
        let adapters = (0..Self::count(config))
            .map(|_| Tensor::zeros(&shape[..], dtype, device))
            .collect::<Result<_>>()?;
        Ok(Self { adapters })
    }

    /// Copies `after` into the memory of this state: for passes that are recorded with its addresses.
    ///
    /// # Errors
    /// States of different models, or Candle's own.
    pub fn overwrite(&self, after: &Self) -> Result<()> {
        if self.adapters.len() != after.adapters.len() {
            bail!(
                "states of {} and {} adapters",
                self.adapters.len(),
                after.adapters.len()
            );
        }
        for (own, after) in self.adapters.iter().zip(&after.adapters) {
            own.slice_set(after, 0, 0)?;
        }
        Ok(())
    }

    /// Adapters of a model.
    fn count(config: &ModelConfig) -> usize {
        config.adapters_in_block() * config.encoder_depth
    }

    fn shape(config: &ModelConfig) -> [usize; 3] {
        [LOOK_BACK, config.grid_side().pow(2), config.adapter_width]
    }

    /// All numbers as float32, little end first.
    ///
    /// # Errors
    /// Candle's own.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for tensor in &self.adapters {
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(bytes)
    }

    /// The way back of [`CausalState::to_bytes`].
    ///
    /// # Errors
    /// Bytes of another length, numbers that are not finite, or as [`CausalState::new`].
    pub fn from_bytes(bytes: &[u8], config: &ModelConfig, dtype: DType, device: &Device) -> Result<Self> {
        let mut state = Self::new(config, dtype, device)?;
        let shape = Self::shape(config);
        let length: usize = shape.iter().product();
        if bytes.len() != 4 * length * state.adapters.len() {
            bail!(
                "a state of this model has {} bytes, not {}",
                4 * length * state.adapters.len(),
                bytes.len()
            );
        }
        for (tensor, bytes) in state
            .adapters
            .iter_mut()
            .zip(bytes.chunks_exact(4 * length.max(1)))
        {
            let values: Vec<f32> = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            if values.iter().any(|value| !value.is_finite()) {
                bail!("a number of the state is not finite");
            }
            *tensor = Tensor::from_vec(values, &shape[..], device)?.to_dtype(dtype)?;
        }
        Ok(state)
    }
}

/// The states of some streams on their way through the adapters of one step.
#[derive(Debug)]
pub struct Passing<'a> {
    states: &'a [&'a CausalState],
    /// What each stream's adapters have left behind so far.
    left: Vec<Vec<Tensor>>,
}

impl<'a> Passing<'a> {
    /// Begins a step with one state for each frame of it.
    pub fn new(states: &'a [&'a CausalState]) -> Self {
        Self {
            states,
            left: states.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// The inputs of the next adapter's convolution, `low` being that of the new frames, `[streams, tokens, adapter]`:
    /// `[streams, LOOK_BACK + 1, tokens, adapter]`.
    pub(super) fn window(&mut self, low: &Tensor) -> Result<Tensor> {
        let next = self.left.first().map_or(0, Vec::len);
        let mut windows = Vec::with_capacity(self.states.len());
        for (stream, (state, left)) in self.states.iter().zip(&mut self.left).enumerate() {
            let Some(past) = state.adapters.get(next) else {
                bail!("the state has {} adapters, the model more", state.adapters.len())
            };
            let window = Tensor::cat(&[past, &low.narrow(0, stream, 1)?], 0)?;
            left.push(window.narrow(0, 1, LOOK_BACK)?.contiguous()?);
            windows.push(window);
        }
        Tensor::stack(&windows, 0)
    }

    /// The states after the step, in the order of those before it.
    pub fn finish(self) -> Vec<CausalState> {
        let state = |adapters| CausalState { adapters };
        self.left.into_iter().map(state).collect()
    }
}
