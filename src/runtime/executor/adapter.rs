//! A temporal adapter in place: `x += up(gelu(conv(down(norm(x)))))`.
//!
//! A task takes some tokens through all frames of a clip, so that the convolution finds what it needs in the task's own
//! buffers.

use super::layers::{Dense, Norm, floats};
use super::plan::{Images, Plan, beside, shifts};
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::gelu::gelu_in_place;
use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Panels, Rows, Start, product};
use crate::model::temporal_adapter::TemporalAdapter;
use crate::segmenter::Temporal;
use candle_core::Result;
use std::ops::Range;

/// One adapter.
#[derive(Debug)]
pub(super) struct Adapter<N> {
    norm: Norm,
    down: Dense<N>,
    taps: [Panels<N>; 3],
    taps_bias: Vec<f32>,
    up: Dense<N>,
    temporal: Temporal,
}

impl<N: Number> Adapter<N> {
    pub(super) fn new(adapter: &TemporalAdapter) -> Result<Self> {
        let width = adapter.down.dim(0)?;
        let tap = |index: usize| {
            let weight = adapter.taps.reshape((width, width, 3))?.narrow(2, index, 1)?;
            Panels::of_weight(&floats(&weight)?, width, width)
        };
        Ok(Self {
            norm: Norm::new(&adapter.norm)?,
            down: Dense::without_bias(&adapter.down)?,
            taps: [tap(0)?, tap(1)?, tap(2)?],
            taps_bias: floats(&adapter.taps_bias)?,
            up: Dense::without_bias(&adapter.up)?,
            temporal: adapter.temporal,
        })
    }

    /// Adapts the images `wanted`, for whose convolution `low` are needed, all of them ascending.
    pub(super) fn clips(
        &self,
        rooms: &Rooms<N>,
        plan: &Plan,
        (low, wanted): (&Images, &Images),
        stream: &mut [f32],
    ) -> Result<()> {
        let (frames, width) = (plan.frames, self.down.inputs());
        let tokens = stream.len() / width / plan.images();
        let inner = self.down.outputs();
        let cut = Cut::new(tokens, low.len(), low.len().div_ceil(plan.clips));
        let stream = Shared::new(stream);
        rooms.run(cut.pieces() * plan.clips, |index, room| {
            let (clip, rows) = cut.piece(index);
            let of_clip = |images: &'_ Images| -> Range<usize> {
                let at = |image| images.partition_point(|i| *i < image);
                at(clip * frames)..at((clip + 1) * frames)
            };
            let (low, wanted) = (&low[of_clip(low)], &wanted[of_clip(wanted)]);
            let Room {
                floats: [normed, sums, ..],
                numbers: [narrow, lows, ..],
                ..
            } = room;
            let piece = rows.len() * inner;
            let lows = take(lows, low.len() * piece);
            for (image, lows) in low.iter().zip(lows.chunks_exact_mut(piece)) {
                // SAFETY: each task has tokens of its own, in whatever image.
                let x = unsafe { stream.slice(span(*image, tokens, &rows, width))? };
                self.low(x, lows, (&mut *normed, &mut *narrow, &mut *sums))?;
            }
            for image in wanted {
                // SAFETY: as above.
                let x = unsafe { stream.slice(span(*image, tokens, &rows, width))? };
                let under = shifts(self.temporal).map(|shift| {
                    let at = low.binary_search(&beside(*image, shift, frames)?).ok()?;
                    lows.get(at * piece..(at + 1) * piece)
                });
                self.finish(x, under, (&mut *sums, &mut *narrow))?;
            }
            Ok(())
        })
    }

    /// Adapts some tokens of one new frame, of which `low` are the convolution's inputs under the taps, the new frame's
    /// last and to be filled.
    pub(super) fn step_rows(&self, x: &mut [f32], low: [&mut [N]; 3], room: &mut Room<N>) -> Result<()> {
        let Room {
            floats: [normed, sums, ..],
            numbers: [narrow, ..],
            ..
        } = room;
        let [older, newer, new] = low;
        self.low(x, new, (&mut *normed, &mut *narrow, &mut *sums))?;
        self.finish(x, [Some(&*older), Some(&*newer), Some(&*new)], (sums, narrow))
    }

    /// Channels inside.
    pub(super) fn inner(&self) -> usize {
        self.down.outputs()
    }

    /// The convolution's input for some tokens of one frame.
    fn low(
        &self,
        x: &[f32],
        low: &mut [N],
        (normed, narrow, sums): (&mut Buffer<f32>, &mut Buffer<N>, &mut Buffer<f32>),
    ) -> Result<()> {
        let normed = take(normed, x.len());
        self.norm.rows(x, normed);
        self.down.narrow(N::of_all(normed, narrow), low, sums)
    }

    /// From the convolution's inputs under the taps to the output, in place. Frames outside the clip are zero.
    fn finish(
        &self,
        x: &mut [f32],
        under: [Option<&[N]>; 3],
        (sums, narrow): (&mut Buffer<f32>, &mut Buffer<N>),
    ) -> Result<()> {
        let inner = self.down.outputs();
        let rows = x.len() / self.down.inputs();
        let sums = take(sums, rows * inner);
        let mut start = Start::Row(&self.taps_bias);
        // The tap of the frame itself is always there.
        for (low, weight) in under.into_iter().zip(&self.taps) {
            if let Some(low) = low {
                product(sums, inner, start, Rows::new(low, rows, inner), &weight.all())?;
                start = Start::Output;
            }
        }
        gelu_in_place(sums);
        self.up.add(N::of_all(sums, narrow), x)
    }

    pub(super) fn bytes(&self) -> usize {
        let taps: usize = self.taps.iter().map(Panels::bytes).sum();
        self.down.bytes() + taps + self.up.bytes()
    }
}
