//! A causal model run one frame at a time.
//!
//! Everything but the temporal convolutions looks at one frame alone, and a causal convolution looks at its own last
//! two inputs. So those are all that has to be remembered: for each adapter what `down` gave for the last two frames.
//! One new frame then costs one frame, and the outputs are those of the causal forward pass over everything since the
//! state was empty.

use super::config::ModelConfig;
use crate::segmenter::Temporal;
use candle_core::{D, DType, Device, Result, Tensor, bail};

/// Frames that a causal convolution looks back.
pub const LOOK_BACK: usize = 2;

/// What the pasts of some streams have left behind.
#[derive(Debug, Clone)]
pub struct CausalState {
    /// For each adapter in order `[streams, grid * grid, LOOK_BACK * adapter_width]`: of every token the older frame,
    /// then the newer one. All adapters are one tensor, so that streams are joined and parted by few copies; a model
    /// without adapters has one of nothing but zeros.
    inputs: Tensor,
    adapters: usize,
}

impl CausalState {
    /// The state of `streams` streams before their first frame: zeros, as the convolution is padded with.
    ///
    /// # Errors
    /// A model whose taps are not causal, or Candle's own.
    pub fn new(config: &ModelConfig, streams: usize, dtype: DType, device: &Device) -> Result<Self> {
        if config.temporal != Temporal::Causal {
            bail!("the model's temporal taps are centered: it looks at later frames")
        }
        let adapters = config.adapters_in_block() * config.encoder_depth;
        let tokens = config.grid_side().pow(2);
        let shape = [adapters.max(1), streams, tokens, LOOK_BACK * config.adapter_width];
        Ok(Self {
            inputs: Tensor::zeros(&shape[..], dtype, device)?,
            adapters,
        })
    }

    /// How many streams this is the state of.
    pub fn streams(&self) -> usize {
        self.inputs.dims().get(1).copied().unwrap_or(0)
    }

    /// One state of all streams of `states`, in their order.
    ///
    /// # Errors
    /// None at all, states of different models, or Candle's own.
    pub fn join(states: &[&Self]) -> Result<Self> {
        let Some(first) = states.first() else {
            bail!("a state of no streams")
        };
        let inputs: Vec<&Tensor> = states.iter().map(|state| &state.inputs).collect();
        Ok(Self {
            inputs: Tensor::cat(&inputs, 1)?,
            adapters: first.adapters,
        })
    }

    /// The state of one of the streams, in memory of its own.
    ///
    /// # Errors
    /// A stream that is not there, or Candle's own.
    pub fn stream(&self, index: usize) -> Result<Self> {
        Ok(Self {
            inputs: self.inputs.narrow(1, index, 1)?.force_contiguous()?,
            adapters: self.adapters,
        })
    }

    /// Copies `after` into the memory of this state: for passes that are recorded with its addresses.
    ///
    /// # Errors
    /// States of different models or of another number of streams, or Candle's own.
    pub fn overwrite(&self, after: &Self) -> Result<()> {
        if self.inputs.dims() != after.inputs.dims() {
            bail!(
                "states of shapes {:?} and {:?}",
                self.inputs.dims(),
                after.inputs.dims()
            );
        }
        match self.adapters {
            0 => Ok(()),
            _ => self.inputs.slice_set(&after.inputs, 0, 0),
        }
    }

    /// All numbers as float32, little end first: for each stream and adapter `[LOOK_BACK, grid * grid, adapter_width]`.
    ///
    /// # Errors
    /// Candle's own.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if self.adapters == 0 {
            return Ok(Vec::new());
        }
        let (_, streams, tokens, values) = self.inputs.dims4()?;
        let frames = self
            .inputs
            .narrow(0, 0, self.adapters)?
            .reshape((self.adapters, streams, tokens, LOOK_BACK, values / LOOK_BACK))?
            .permute((1, 0, 3, 2, 4))?
            .to_dtype(DType::F32)?;
        let values = frames.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The way back of [`CausalState::to_bytes`], for one stream.
    ///
    /// # Errors
    /// Bytes of another length, numbers that are not finite, or as [`CausalState::new`].
    pub fn from_bytes(bytes: &[u8], config: &ModelConfig, dtype: DType, device: &Device) -> Result<Self> {
        let empty = Self::new(config, 1, dtype, device)?;
        let (_, streams, tokens, width) = empty.inputs.dims4()?;
        let wanted = 4 * empty.adapters * streams * tokens * width;
        if bytes.len() != wanted {
            bail!("a state of this model has {wanted} bytes, not {}", bytes.len());
        }
        if wanted == 0 {
            return Ok(empty);
        }
        let numbers = bytes.as_chunks::<4>().0;
        let values: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            bail!("a number of the state is not finite");
        }
        let shape = (empty.adapters, streams, LOOK_BACK, tokens, width / LOOK_BACK);
        let frames = Tensor::from_vec(values, shape, &Device::Cpu)?.transpose(2, 3)?;
        Ok(Self {
            inputs: frames
                .contiguous()?
                .flatten_from(D::Minus2)?
                .to_dtype(dtype)?
                .to_device(device)?,
            adapters: empty.adapters,
        })
    }
}

/// The state of some streams on its way through the adapters of one step.
#[derive(Debug)]
pub struct Passing<'a> {
    before: &'a CausalState,
    /// What the adapters have left behind so far, as in [`CausalState`].
    left: Vec<Tensor>,
}

impl<'a> Passing<'a> {
    /// Begins a step.
    pub fn new(before: &'a CausalState) -> Self {
        Self {
            before,
            left: Vec::with_capacity(before.adapters),
        }
    }

    /// The inputs of the next adapter's convolution side by side, oldest first, `low` being that of the new frames,
    /// `[streams, tokens, adapter]`: `[streams, tokens, (LOOK_BACK + 1) * adapter]`.
    pub(super) fn taps(&mut self, low: &Tensor) -> Result<Tensor> {
        let (adapters, width) = (self.before.adapters, low.dim(D::Minus1)?);
        if self.left.len() >= adapters {
            bail!("the state has {adapters} adapters, the model more");
        }
        let past = self.before.inputs.get(self.left.len())?;
        let taps = Tensor::cat(&[&past, low], D::Minus1)?;
        self.left.push(taps.narrow(D::Minus1, width, LOOK_BACK * width)?);
        Ok(taps)
    }

    /// The state after the step.
    ///
    /// # Errors
    /// Candle's own.
    pub fn finish(self) -> Result<CausalState> {
        Ok(CausalState {
            inputs: match self.left.is_empty() {
                true => self.before.inputs.clone(),
                false => Tensor::stack(&self.left, 0)?.contiguous()?,
            },
            adapters: self.before.adapters,
        })
    }
}
