//! Patches and positions: pictures to tokens.

use super::layers::{Dense, floats};
use super::plan::Plan;
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Rows, Start, product};
use crate::model::layers::PatchConv;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;

/// One frame at the model's side.
#[derive(Debug, Clone, Copy)]
pub enum Picture<'a> {
    /// Rows of pixels, red first, and the number that each byte stands for.
    Bytes {
        /// `[side, side, 3]`
        rgb: &'a [u8],
        /// The value of each byte.
        values: &'a [f32; 256],
    },
    /// `[3, side, side]`
    Planes(&'a [f32]),
}

/// The embedding of patches.
#[derive(Debug)]
pub(super) struct Patches<N> {
    projection: Dense<N>,
    /// `[tokens, width]`: positions and the projection's bias.
    positions: Buffer<f32>,
    /// Pixels along a patch and along the picture.
    patch_px: usize,
    side_px: usize,
}

impl<N: Number> Patches<N> {
    pub(super) fn new(conv: &PatchConv, positions: &Tensor, side_px: usize) -> Result<Self> {
        let (_, _, patch_px, _) = conv.weight.dims4()?;
        let positions = positions.broadcast_add(&conv.bias)?;
        Ok(Self {
            projection: Dense::without_bias(&conv.weight)?,
            positions: Buffer::from(&*floats(&positions)?),
            patch_px,
            side_px,
        })
    }

    /// Tokens of the images that the plan wants, into `stream`, `[images, tokens, width]`.
    pub(super) fn run<'a>(
        &self,
        rooms: &Rooms<N>,
        plan: &Plan,
        picture: &(dyn Fn(usize) -> Picture<'a> + Sync),
        stream: &mut [f32],
    ) -> Result<()> {
        let width = self.projection.outputs();
        let tokens = self.positions.len() / width;
        let cut = Cut::new(tokens, plan.embedded.len(), 1);
        let stream = Shared::new(stream);
        // Asked for before the tasks begin: what the caller does here may use the pool itself.
        let pictures: Vec<Picture<'_>> = plan.embedded.iter().map(|image| picture(*image)).collect();
        rooms.run(cut.pieces() * plan.embedded.len(), |index, room| {
            let (which, rows) = cut.piece(index);
            let image = plan.embedded[which];
            // SAFETY: each task has rows of its own.
            let y = unsafe { stream.slice(span(image, tokens, &rows, width))? };
            self.rows(pictures[which], &rows, y, room)
        })
    }

    /// Some tokens of one picture.
    pub(super) fn rows(
        &self,
        picture: Picture<'_>,
        rows: &Range<usize>,
        y: &mut [f32],
        room: &mut Room<N>,
    ) -> Result<()> {
        let (width, inputs) = (self.projection.outputs(), self.projection.inputs());
        y.copy_from_slice(&self.positions[rows.start * width..rows.end * width]);
        let [patches, ..] = &mut room.numbers;
        let patches = take(patches, rows.len() * inputs);
        self.gather(picture, rows, patches)?;
        let patches = Rows::new(patches, rows.len(), inputs);
        product(y, width, Start::Output, patches, &self.projection.panels.all())
    }

    /// The pixels of some tokens, `[tokens, 3, patch, patch]`.
    fn gather(&self, picture: Picture<'_>, tokens: &Range<usize>, patches: &mut [N]) -> Result<()> {
        let (patch, side) = (self.patch_px, self.side_px);
        let length = match picture {
            Picture::Bytes { rgb, .. } => rgb.len(),
            Picture::Planes(planes) => planes.len(),
        };
        if length != 3 * side * side {
            bail!("a picture of {length} numbers, not {}", 3 * side * side);
        }
        let across = side / patch;
        for (token, patches) in tokens.clone().zip(patches.chunks_exact_mut(3 * patch * patch)) {
            let (top, left) = (token / across * patch, token % across * patch);
            for (row, to) in patches.chunks_exact_mut(patch).enumerate() {
                let (channel, y) = (row / patch, top + row % patch);
                let first = y * side + left;
                match picture {
                    Picture::Bytes { rgb, values } => {
                        let pixels = rgb[3 * first..3 * (first + patch)].as_chunks::<3>().0;
                        for (to, pixel) in to.iter_mut().zip(pixels) {
                            *to = N::of(values[usize::from(pixel[channel])]);
                        }
                    }
                    Picture::Planes(planes) => {
                        N::narrow(&planes[channel * side * side + first..][..patch], to)
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.projection.bytes() + size_of_val(self.positions.as_slice())
    }
}
