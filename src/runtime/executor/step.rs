//! One new frame of each stream through the image encoder.
//!
//! Between two attentions nothing looks at another token: the way out of one block, and the way into the next, are one
//! task for each piece of tokens. With a single frame there is little work between two points where all threads wait
//! for one another, so there are few of those: two in a block.

use super::attention::Projected;
use super::patch::Picture;
use super::room::{Cut, Rooms, Shared, span, take};
use super::state::State;
use super::{Encoder, EncoderBlock};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::Number;
use candle_core::Result;
use std::ops::Range;

/// What a step leaves behind for the neck and the decoder.
pub(super) struct Between<'a, N> {
    /// `[streams, tokens, encoder_width]`
    pub(super) stream: &'a mut [f32],
    pub(super) projected: &'a mut Projected<N>,
    /// For each skip `[streams, tokens, encoder_width]`.
    pub(super) skips: &'a mut [Buffer<f32>],
    /// `[streams, tokens, prompt_width]`: what the neck's second convolution takes.
    pub(super) neck: &'a mut Buffer<N>,
}

/// The convolutions' inputs of one stream, as all tasks share them.
struct Past<'a, N> {
    low: Shared<'a, N>,
    taps: [usize; 3],
    /// Numbers of an adapter's three slots.
    adapter: usize,
}

impl<N> Past<'_, N> {
    /// An adapter's slots for some tokens: two frames before, one frame before, the new frame.
    ///
    /// # Safety
    /// Nobody else uses these tokens.
    #[allow(clippy::mut_from_ref)] // as with the buffer they come from
    unsafe fn slots(&self, adapter: usize, rows: &Range<usize>, width: usize) -> Result<[&mut [N]; 3]> {
        let begin = adapter * self.adapter;
        // SAFETY: the caller's promise; no two taps share a slot.
        let slot = |tap: usize| unsafe {
            let first = begin + self.taps[tap] + rows.start * width;
            self.low.slice(first..first + rows.len() * width)
        };
        Ok([slot(0)?, slot(1)?, slot(2)?])
    }
}

impl<N: Number> Encoder<N> {
    /// From pictures to the neck's first norm.
    pub(super) fn step<'a>(
        &self,
        rooms: &Rooms<N>,
        states: &mut [&mut State<N>],
        picture: &(dyn Fn(usize) -> Picture<'a> + Sync),
        between: &mut Between<'_, N>,
    ) -> Result<()> {
        let (tokens, width) = (self.tokens, self.width);
        let streams = states.len();
        let cut = Cut::new(tokens, streams, 1);
        let past: Vec<Past<'_, N>> = states
            .iter_mut()
            .map(|state| Past {
                taps: state.taps(),
                adapter: state.adapter(1),
                low: Shared::new(&mut state.low),
            })
            .collect();
        let Projected { qkv, mixed } = &mut *between.projected;
        let qkv = take(qkv, streams * tokens * 3 * width);
        let mixed = take(mixed, streams * tokens * width);
        let neck = Shared::new(take(between.neck, streams * tokens * self.neck.channels()));
        let skips: Vec<Shared<'_, f32>> = between.skips.iter_mut().map(|skip| Shared::new(skip)).collect();
        let stream = Shared::new(between.stream);
        // Asked for before the tasks begin: what the caller does here may use the pool itself.
        let pictures: Vec<Picture<'_>> = (0..streams).map(picture).collect();
        let in_block = |block: &EncoderBlock<N>| {
            usize::from(block.adapter_1.is_some()) + usize::from(block.adapter_2.is_some())
        };
        for index in 0..=self.blocks.len() {
            let (before, after) = (
                index.checked_sub(1).map(|i| &self.blocks[i]),
                self.blocks.get(index),
            );
            // Adapters are counted through the model; all blocks have the same.
            let first_adapter = |index: usize| index * self.blocks.first().map_or(0, in_block);
            let seen = &*mixed;
            let asked = Shared::new(&mut *qkv);
            rooms.run(cut.pieces() * streams, |task, room| {
                let (image, rows) = cut.piece(task);
                let here = span(image, tokens, &rows, width);
                // SAFETY: each task has tokens of its own, in all buffers.
                let x = unsafe { stream.slice(here.clone())? };
                let past = &past[image];
                match before {
                    None => self.patches.rows(pictures[image], &rows, x, room)?,
                    Some(block) => {
                        block.attention.answer_rows(&seen[here.clone()], x)?;
                        if let Some(adapter) = &block.adapter_2 {
                            let number = first_adapter(index) - 1;
                            // SAFETY: as above.
                            let low = unsafe { past.slots(number, &rows, adapter.inner())? };
                            adapter.step_rows(x, low, room)?;
                        }
                        block.mlp.rows(x, room)?;
                        if let Some(skip) = block.skip.and_then(|skip| skips.get(skip)) {
                            // SAFETY: as above.
                            unsafe { skip.slice(here)? }.copy_from_slice(x);
                        }
                    }
                }
                match after {
                    None => {
                        // SAFETY: as above.
                        let y = unsafe { neck.slice(span(image, tokens, &rows, self.neck.channels()))? };
                        self.neck.first_rows(x, y, room)
                    }
                    Some(block) => {
                        if let Some(adapter) = &block.adapter_1 {
                            // SAFETY: as above.
                            let low = unsafe { past.slots(first_adapter(index), &rows, adapter.inner())? };
                            adapter.step_rows(x, low, room)?;
                        }
                        // SAFETY: as above.
                        let qkv = unsafe { asked.slice(span(image, tokens, &rows, 3 * width))? };
                        block.attention.ask_rows(x, qkv, room)
                    }
                }
            })?;
            if let Some(block) = after {
                block.attention.mix(rooms, streams, tokens, qkv, mixed)?;
            }
        }
        Ok(())
    }
}
