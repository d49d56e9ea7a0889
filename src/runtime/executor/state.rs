//! What a stream's past has left behind: for each adapter the inputs of its convolution at the last frames.
//!
//! Three slots in turn: the two frames before, and the one that is being computed. A step writes the third slot alone
//! and makes it the newest once it has succeeded, so a step that fails changes nothing.

use crate::kernels::packed::Number;
use crate::model::ModelConfig;
use candle_core::{Result, bail};

const SLOTS: usize = 3;

/// The causal state of one stream.
#[derive(Debug, Clone)]
pub struct State<N> {
    /// `[adapters, SLOTS, tokens, adapter_width]`
    pub(super) low: Vec<N>,
    /// Numbers of a slot.
    pub(super) slot: usize,
    /// Slot of the last frame.
    newest: usize,
}

impl<N: Number> State<N> {
    /// The state before the first frame: zeros, as the convolution is padded with.
    pub fn new(config: &ModelConfig) -> Self {
        let (length, slot) = Self::new_lengths(config);
        Self {
            low: vec![N::ZERO; length],
            slot,
            newest: 0,
        }
    }

    /// Numbers in all, and those of a slot.
    pub(super) fn new_lengths(config: &ModelConfig) -> (usize, usize) {
        let adapters = config.adapters_in_block() * config.encoder_depth;
        let slot = config.grid_side().pow(2) * config.adapter_width;
        (adapters * SLOTS * slot, slot)
    }

    /// Where in an adapter's numbers the frames under its taps begin, oldest first; the last is the new frame's.
    pub(super) fn taps(&self) -> [usize; 3] {
        [2, 0, 1].map(|after| (self.newest + after) % SLOTS * self.slot)
    }

    /// Where an adapter's numbers begin.
    pub(super) fn adapter(&self, index: usize) -> usize {
        index * SLOTS * self.slot
    }

    /// The frame that was computed is the newest from now on.
    pub(super) fn advance(&mut self) {
        self.newest = (self.newest + 1) % SLOTS;
    }

    /// The last two frames of each adapter, older frame first, as float32, little end first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let [older, newer, _] = self.taps();
        let adapters = self.low.chunks_exact((SLOTS * self.slot).max(1));
        let frames = adapters.flat_map(|slots| [older, newer].map(|at| &slots[at..at + self.slot]));
        frames
            .flatten()
            .flat_map(|value| value.float().to_le_bytes())
            .collect()
    }

    /// The way back of [`State::to_bytes`].
    ///
    /// # Errors
    /// Bytes of another length, or numbers that are not finite.
    pub fn from_bytes(bytes: &[u8], config: &ModelConfig) -> Result<Self> {
        let mut state = Self::new(config);
        let wanted = state.low.len() / SLOTS * 2 * size_of::<f32>();
        if bytes.len() != wanted {
            bail!("a state of this model has {wanted} bytes, not {}", bytes.len());
        }
        let [older, newer, _] = state.taps();
        let slot = state.slot;
        let frames = state.low.chunks_exact_mut((SLOTS * slot).max(1));
        for (slots, bytes) in frames.zip(bytes.chunks_exact((2 * slot * size_of::<f32>()).max(1))) {
            for (at, bytes) in [older, newer]
                .into_iter()
                .zip(bytes.chunks_exact(slot * size_of::<f32>()))
            {
                for (number, bytes) in slots[at..at + slot].iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *number = N::of(f32::from_le_bytes(*bytes));
                    if !number.float().is_finite() {
                        bail!("a number of the state is not finite");
                    }
                }
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_hold_the_last_two_frames_in_their_order() {
        let config = ModelConfig {
            image_side_px: 16,
            encoder_depth: 1,
            adapter_width: 2,
            ..ModelConfig::demo()
        };
        let mut state = State::<f32>::new(&config);
        for frame in 1..=4 {
            for adapter in 0..2 {
                let at = state.adapter(adapter) + state.taps()[2];
                state.low[at..at + 2].fill((10 * adapter + frame) as f32);
            }
            state.advance();
        }
        let bytes = state.to_bytes();
        let floats: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        assert_eq!(floats, [3.0, 3.0, 4.0, 4.0, 13.0, 13.0, 14.0, 14.0]);
        let back = State::<f32>::from_bytes(&bytes, &config).unwrap();
        assert_eq!(back.to_bytes(), bytes);
        assert!(State::<f32>::from_bytes(&bytes[4..], &config).is_err());
        let mut bad = bytes.clone();
        bad[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(State::<f32>::from_bytes(&bad, &config).is_err());
    }
}
