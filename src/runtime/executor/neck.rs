//! The neck: a 1x1 convolution, a norm, a 3x3 convolution, a norm.

use super::layers::{Dense, Norm};
use super::plan::Images;
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::Number;
use crate::model::image_encoder::ImageEncoder;
use candle_core::Result;
use std::ops::Range;

/// The neck.
#[derive(Debug)]
pub(super) struct Neck<N> {
    first: Dense<N>,
    norm_first: Norm,
    /// Inputs in the order of neighbours, row by row.
    second: Dense<N>,
    norm_second: Norm,
    side: usize,
}

impl<N: Number> Neck<N> {
    pub(super) fn new(encoder: &ImageEncoder, side: usize) -> Result<Self> {
        let weight = encoder.neck_conv.weight.permute((0, 2, 3, 1))?; // [outputs, 3, 3, inputs]
        Ok(Self {
            first: Dense::without_bias(&encoder.neck_in)?,
            norm_first: Norm::new(&encoder.neck_norm_in)?,
            second: Dense::without_bias(&weight)?,
            norm_second: Norm::new(&encoder.neck_norm_out)?,
            side,
        })
    }

    /// From the images `wanted` of `stream` to `features`, `[wanted, tokens, channels]`, by way of `between`.
    pub(super) fn run(
        &self,
        rooms: &Rooms<N>,
        wanted: &Images,
        stream: &[f32],
        between: &mut Buffer<N>,
        features: &mut [f32],
    ) -> Result<()> {
        let (tokens, width, outputs) = (self.side * self.side, self.first.inputs(), self.first.outputs());
        let cut = Cut::new(tokens, wanted.len(), 1);
        let between = take(between, wanted.len() * tokens * outputs);
        let shared = Shared::new(between);
        rooms.run(cut.pieces() * wanted.len(), |index, room| {
            let (which, rows) = cut.piece(index);
            // SAFETY: each task has rows of its own.
            let y = unsafe { shared.slice(span(which, tokens, &rows, outputs))? };
            self.first_rows(&stream[span(wanted[which], tokens, &rows, width)], y, room)
        })?;
        self.second(rooms, wanted.len(), between, features)
    }

    /// The first convolution and norm of some tokens.
    pub(super) fn first_rows(&self, x: &[f32], y: &mut [N], room: &mut Room<N>) -> Result<()> {
        let Room {
            floats: [sums, normed, ..],
            numbers: [narrow, ..],
            ..
        } = room;
        let (sums, normed) = (take(sums, y.len()), take(normed, y.len()));
        self.first.run(N::of_all(x, narrow), sums)?;
        self.norm_first.rows(sums, normed);
        N::narrow(normed, y);
        Ok(())
    }

    /// Channels of a token.
    pub(super) fn channels(&self) -> usize {
        self.first.outputs()
    }

    /// The second convolution and norm, from `between`, `[images, tokens, channels]`.
    pub(super) fn second(
        &self,
        rooms: &Rooms<N>,
        images: usize,
        between: &[N],
        features: &mut [f32],
    ) -> Result<()> {
        let (tokens, outputs) = (self.side * self.side, self.first.outputs());
        let cut = Cut::new(tokens, images, 1);
        let features = Shared::new(features);
        rooms.run(cut.pieces() * images, |index, room| {
            let (which, rows) = cut.piece(index);
            // SAFETY: each task has rows of its own.
            let y = unsafe { features.slice(span(which, tokens, &rows, outputs))? };
            let Room {
                floats: [sums, ..],
                numbers: [neighbours, ..],
                ..
            } = room;
            let neighbours = take(neighbours, 9 * y.len());
            let image = &between[which * tokens * outputs..(which + 1) * tokens * outputs];
            self.gather(image, rows, neighbours);
            let sums = take(sums, y.len());
            self.second.run(neighbours, sums)?;
            self.norm_second.rows(sums, y);
            Ok(())
        })
    }

    /// The nine neighbours of some tokens side by side, zero outside the grid.
    fn gather(&self, image: &[N], tokens: Range<usize>, neighbours: &mut [N]) {
        let (side, width) = (self.side, self.first.outputs());
        for (token, neighbours) in tokens.zip(neighbours.chunks_exact_mut(9 * width)) {
            for (i, to) in neighbours.chunks_exact_mut(width).enumerate() {
                // One more than the neighbour's row and column.
                let (y, x) = (token / side + i / 3, token % side + i % 3);
                if (1..=side).contains(&y) && (1..=side).contains(&x) {
                    let at = ((y - 1) * side + x - 1) * width;
                    to.copy_from_slice(&image[at..at + width]);
                } else {
                    to.fill(N::ZERO);
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.first.bytes() + self.second.bytes()
    }
}
