//! The MLP of a block in place: `x += lin2(gelu(lin1(norm(x))))`.
//!
//! A task takes its rows through a slab of hidden channels at a time, so that what lies between the two products never
//! leaves its core's cache.

use super::layers::{Dense, Norm};
use super::plan::Images;
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::gelu::gelu_in_place;
use crate::kernels::packed::{Number, Rows, Start, product};
use crate::model::layers::{LayerNorm, Mlp};
use candle_core::Result;

/// Panels of hidden channels that make a slab.
const SLAB_PANELS: usize = 8;

/// Norm and MLP of one block.
#[derive(Debug)]
pub(super) struct BlockMlp<N> {
    norm: Norm,
    first: Dense<N>,
    second: Dense<N>,
}

impl<N: Number> BlockMlp<N> {
    pub(super) fn new(mlp: &Mlp, norm: &LayerNorm) -> Result<Self> {
        Ok(Self {
            norm: Norm::new(norm)?,
            first: Dense::new(&mlp.lin1)?,
            second: Dense::new(&mlp.lin2)?,
        })
    }

    /// The MLP of all tokens of `images`, in place.
    pub(super) fn run(
        &self,
        rooms: &Rooms<N>,
        images: &Images,
        tokens: usize,
        stream: &mut [f32],
    ) -> Result<()> {
        let width = self.first.inputs();
        let cut = Cut::new(tokens, images.len(), 1);
        let stream = Shared::new(stream);
        rooms.run(cut.pieces() * images.len(), |index, room| {
            let (which, rows) = cut.piece(index);
            // SAFETY: each task has rows of its own.
            let x = unsafe { stream.slice(span(images[which], tokens, &rows, width))? };
            self.rows(x, room)
        })
    }

    /// The MLP of some tokens, in place.
    pub(super) fn rows(&self, x: &mut [f32], room: &mut Room<N>) -> Result<()> {
        let (width, hidden) = (self.first.inputs(), self.first.outputs());
        let rows = x.len() / width;
        let Room {
            floats: [normed, sums, ..],
            numbers: [narrow, active, ..],
            ..
        } = room;
        let normed = take(normed, x.len());
        self.norm.rows(x, normed);
        let normed = N::of_all(normed, narrow);
        let slab = SLAB_PANELS * self.first.panels.panel_width();
        for first in (0..hidden).step_by(slab) {
            let channels = first..hidden.min(first + slab);
            let count = channels.len();
            let sums = take(sums, rows * count);
            let bias = Start::Row(&self.first.bias[channels.clone()]);
            let weight = self.first.panels.all().outputs(channels.clone());
            product(sums, count, bias, Rows::new(normed, rows, width), &weight)?;
            gelu_in_place(sums);
            let active = N::of_all(sums, active);
            let weight = self.second.panels.all().inputs(channels);
            let start = match first {
                0 => Start::OutputAndRow(&self.second.bias),
                _ => Start::Output,
            };
            product(x, width, start, Rows::new(active, rows, count), &weight)?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.first.bytes() + self.second.bytes()
    }
}
