//! From the picture's tokens to masks: upscaling, class product and the choice of a class, token by token.
//!
//! Every step of upscaling turns one pixel into four and looks at no other, so a task takes one row of the grid all the
//! way up: its pixels stay in the order in which they were split, and only the classes are brought to their places. No
//! picture at full resolution is written but the result.

use super::layers::{Dense, Norm, floats};
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::gelu::gelu_in_place;
use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Panels, Rows, Start, product};
use crate::kernels::softmax::softmax_rows;
use crate::model::layers::{LayerNorm, Mlp3, Upscale};
use crate::model::mask_decoder::MaskDecoder;
use crate::model::resize;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Three products with ReLU between.
#[derive(Debug)]
struct Head3<N>([Dense<N>; 3]);

impl<N: Number> Head3<N> {
    fn new(mlp: &Mlp3) -> Result<Self> {
        let Mlp3([a, b, c]) = mlp;
        Ok(Self([Dense::new(a)?, Dense::new(b)?, Dense::new(c)?]))
    }

    /// Of one row.
    fn run(&self, x: &[f32], y: &mut [f32], room: &mut Room<N>) -> Result<()> {
        let Self([first, second, third]) = self;
        let Room {
            floats: [a, b, ..],
            numbers: [narrow, ..],
            ..
        } = room;
        let (a, b) = (take(a, first.outputs()), take(b, second.outputs()));
        first.run(N::of_all(x, narrow), a)?;
        a.iter_mut().for_each(|value| *value = value.max(0.0));
        second.run(N::of_all(a, narrow), b)?;
        b.iter_mut().for_each(|value| *value = value.max(0.0));
        third.run(N::of_all(b, narrow), y)
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(Dense::bytes).sum()
    }
}

/// One step of upscaling.
#[derive(Debug)]
struct Step<N> {
    /// Outputs are four pixels, row by row, each of all its channels.
    product: Dense<N>,
    skip: Option<Dense<N>>,
    norm: Option<Norm>,
}

impl<N: Number> Step<N> {
    fn new(upscale: &Upscale, skip: Option<Dense<N>>, norm: Option<&LayerNorm>) -> Result<Self> {
        let (inputs, outputs, ..) = upscale.weight.dims4()?;
        let weight = upscale
            .weight
            .permute((2, 3, 1, 0))?
            .reshape((4 * outputs, inputs))?;
        let bias = Tensor::cat(&[&upscale.bias; 4], 0)?;
        Ok(Self {
            product: Dense {
                bias: floats(&bias)?,
                ..Dense::without_bias(&weight)?
            },
            skip,
            norm: norm.map(Norm::new).transpose()?,
        })
    }

    fn channels(&self) -> usize {
        self.product.outputs() / 4
    }
}

/// Where the masks of the decoded images go, one buffer for each.
#[derive(Debug)]
pub enum Masks<'a> {
    /// Class ids, `[side, side]`.
    Labels(&'a mut [u8]),
    /// Softmax over classes, `[classes, side, side]`.
    Probabilities(&'a mut [f32]),
    /// Logits, `[classes, side, side]`.
    Logits(&'a mut [f32]),
}

/// Upscaling and class products.
#[derive(Debug)]
pub(super) struct MaskHead<N> {
    steps: Vec<Step<N>>,
    kernels: Vec<Head3<N>>,
    iou: Head3<N>,
    /// Tokens along the grid, pixels along what upscaling gives, pixels along the result.
    grid_side: usize,
    decoded_side: usize,
    side_px: usize,
    /// Where the pixels of a token lie in what upscaling gives, in the order in which they are split.
    offsets: Vec<usize>,
}

/// Buffers of the mask head.
#[derive(Debug)]
pub(super) struct MaskBuffers<N> {
    /// `[images, classes, channels]`
    kernels: Buffer<f32>,
    /// For each image its class products' right operand, padded to whole vectors of classes.
    panels: Vec<Panels<N>>,
    /// For each skip `[images, tokens, channels]`.
    skips: Vec<Buffer<f32>>,
    /// `[images, classes, decoded_side, decoded_side]`, where that is not the result's side.
    logits: Buffer<f32>,
}

impl<N> Default for MaskBuffers<N> {
    fn default() -> Self {
        Self {
            kernels: Buffer::default(),
            panels: Vec::new(),
            skips: Vec::new(),
            logits: Buffer::default(),
        }
    }
}

impl<N: Number> MaskBuffers<N> {
    pub(super) fn bytes(&self) -> usize {
        let floats = self.skips.iter().chain([&self.kernels, &self.logits]);
        let floats: usize = floats.map(|buffer| size_of_val(buffer.as_slice())).sum();
        floats + self.panels.iter().map(Panels::bytes).sum::<usize>()
    }
}

/// What the mask head is given, for some images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoded<'a> {
    /// `[images, tokens, width]`, the IoU's token before those of the classes.
    pub(super) tokens: &'a [f32],
    /// `[images, tokens of the picture, width]`
    pub(super) picture: &'a [f32],
    /// For each step that has one the output of a block, `[all images, tokens of the picture, encoder width]`.
    pub(super) skips: &'a [Buffer<f32>],
    pub(super) images: usize,
}

impl<N: Number> MaskHead<N> {
    pub(super) fn new(decoder: &MaskDecoder, grid_side: usize, side_px: usize) -> Result<Self> {
        let steps = decoder.steps.iter().map(|step| {
            let skip = step.skip_projection.as_ref().map(Dense::new).transpose()?;
            Step::new(&step.upscale, skip, step.norm.as_ref())
        });
        let steps: Vec<Step<N>> = steps.collect::<Result<_>>()?;
        let decoded_side = grid_side << steps.len();
        let offsets = (0..1usize << (2 * steps.len())).map(|pixel| {
            let (y, x) = split_order(pixel, steps.len());
            y * decoded_side + x
        });
        Ok(Self {
            kernels: decoder
                .output_hypernetworks_mlps
                .iter()
                .map(Head3::new)
                .collect::<Result<_>>()?,
            iou: Head3::new(&decoder.iou_prediction_head)?,
            grid_side,
            decoded_side,
            side_px,
            offsets: offsets.collect(),
            steps,
        })
    }

    /// Masks of all images; how many of an image's logits are not finite goes into `not_finite`.
    pub(super) fn run(
        &self,
        rooms: &Rooms<N>,
        buffers: &mut MaskBuffers<N>,
        decoded: Decoded<'_>,
        masks: &mut [Masks<'_>],
        not_finite: &mut [usize],
    ) -> Result<()> {
        let (images, classes) = (decoded.images, self.kernels.len());
        if masks.len() != images || not_finite.len() != images {
            bail!(
                "{} masks and {} counts for {images} images",
                masks.len(),
                not_finite.len()
            );
        }
        for mask in &*masks {
            let (length, wanted) = match mask {
                Masks::Labels(ids) => (ids.len(), self.side_px * self.side_px),
                Masks::Probabilities(values) | Masks::Logits(values) => {
                    (values.len(), classes * self.side_px * self.side_px)
                }
            };
            if length != wanted {
                bail!("a mask of {length} numbers, not {wanted}");
            }
        }
        self.make_kernels(rooms, buffers, decoded)?;
        self.project_skips(rooms, buffers, decoded)?;
        let counts: Vec<AtomicUsize> = not_finite.iter().map(|_| AtomicUsize::new(0)).collect();
        let sinks: Vec<Sink<'_>> = masks
            .iter_mut()
            .map(|mask| Sink::new(mask, self.side_px))
            .collect();
        let plane = self.decoded_side * self.decoded_side;
        let is_direct = self.decoded_side == self.side_px;
        let MaskBuffers {
            panels,
            skips,
            logits,
            ..
        } = buffers;
        let low = Sink::Planes {
            values: Shared::new(take(logits, if is_direct { 0 } else { images * classes * plane })),
            plane,
            is_softmax: false,
        };
        let (panels, skips) = (&*panels, &*skips);
        rooms.run(images * self.grid_side, |index, room| {
            let (image, row) = (index / self.grid_side, index % self.grid_side);
            let pitch = panels[image].outputs();
            let pixels = self.upscale(decoded, skips, image, row, room)?;
            let Room {
                floats: [values, logits, ..],
                numbers: [narrow, ..],
                ..
            } = room;
            let logits = take(logits, pixels * pitch);
            let values = &values[..pixels * panels[image].inputs()];
            let values = Rows::new(N::of_all(values, narrow), pixels, panels[image].inputs());
            product(logits, pitch, Start::Zero, values, &panels[image].all())?;
            let height = pixels / self.decoded_side;
            let (sink, first) = match is_direct {
                true => (&sinks[image], 0),
                false => (&low, image * classes * plane),
            };
            let rows = row * height * self.decoded_side..(row + 1) * height * self.decoded_side;
            let of_token = self.offsets.len();
            let place = |pixel: usize| pixel / of_token * height + self.offsets[pixel % of_token];
            // SAFETY: each task has rows of an image of its own.
            let count = unsafe { sink.put(first, rows, (logits, pitch, classes), place)? };
            counts[image].fetch_add(count, Ordering::Relaxed);
            Ok(())
        })?;
        if let (false, Sink::Planes { values, .. }) = (is_direct, &low) {
            // SAFETY: nobody writes them any more.
            let low = unsafe { values.slice(0..images * classes * plane)? };
            self.enlarge(rooms, low, &sinks)?;
        }
        for (count, found) in not_finite.iter_mut().zip(&counts) {
            *count = found.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// The class products' right operands.
    fn make_kernels(
        &self,
        rooms: &Rooms<N>,
        buffers: &mut MaskBuffers<N>,
        decoded: Decoded<'_>,
    ) -> Result<()> {
        let (images, classes) = (decoded.images, self.kernels.len());
        let channels = self.steps.last().map_or(0, Step::channels);
        let [width, tokens] = self.token_sizes(decoded);
        let kernels = take(&mut buffers.kernels, images * classes * channels);
        let shared = Shared::new(kernels);
        rooms.run(images * classes, |index, room| {
            let (image, class) = (index / classes, index % classes);
            let at = (image * tokens + 1 + class) * width;
            // SAFETY: each task has a kernel of its own.
            let kernel = unsafe { shared.slice(index * channels..(index + 1) * channels)? };
            self.kernels[class].run(&decoded.tokens[at..at + width], kernel, room)
        })?;
        while buffers.panels.len() < images {
            buffers.panels.push(Panels::zeros(0, 0)?);
        }
        let lanes = N::lanes()?;
        for (panels, kernels) in buffers
            .panels
            .iter_mut()
            .zip(kernels.chunks_exact(classes * channels))
        {
            panels.reshape(channels, classes.next_multiple_of(lanes));
            panels.fill(|channel, class| match class < classes {
                true => N::of(kernels[class * channels + channel]),
                false => N::ZERO,
            });
        }
        Ok(())
    }

    /// Width and number of an image's tokens.
    fn token_sizes(&self, decoded: Decoded<'_>) -> [usize; 2] {
        let Head3([first, ..]) = &self.iou;
        [
            first.inputs(),
            decoded.tokens.len() / decoded.images / first.inputs(),
        ]
    }

    /// The outputs of earlier blocks at the widths of their steps.
    fn project_skips(
        &self,
        rooms: &Rooms<N>,
        buffers: &mut MaskBuffers<N>,
        decoded: Decoded<'_>,
    ) -> Result<()> {
        let tokens = self.grid_side * self.grid_side;
        let cut = Cut::new(tokens, decoded.images, 1);
        buffers.skips.resize_with(self.steps.len(), Buffer::default);
        let steps = self.steps.iter().zip(decoded.skips).zip(&mut buffers.skips);
        for ((step, from), to) in steps {
            let Some(projection) = &step.skip else { continue };
            let (width, channels) = (projection.inputs(), projection.outputs());
            let to = Shared::new(take(to, decoded.images * tokens * channels));
            rooms.run(cut.pieces() * decoded.images, |index, room| {
                let (image, rows) = cut.piece(index);
                // SAFETY: each task has rows of its own.
                let to = unsafe { to.slice(span(image, tokens, &rows, channels))? };
                let from = &from[span(image, tokens, &rows, width)];
                projection.run(N::of_all(from, &mut room.numbers[0]), to)
            })?;
        }
        Ok(())
    }

    /// Takes a row of an image's grid all the way up, into the room's first floats, and says how many pixels it became.
    fn upscale(
        &self,
        decoded: Decoded<'_>,
        skips: &[Buffer<f32>],
        image: usize,
        row: usize,
        room: &mut Room<N>,
    ) -> Result<usize> {
        let side = self.grid_side;
        let tokens = side * side;
        let Room {
            floats: [values, normed, ..],
            numbers: [narrow, ..],
            ..
        } = room;
        let width = decoded.picture.len() / decoded.images / tokens;
        let picture = &decoded.picture[span(image, tokens, &(row * side..(row + 1) * side), width)];
        take(values, picture.len()).copy_from_slice(picture);
        let mut pixels = side;
        for (index, step) in self.steps.iter().enumerate() {
            let channels = step.channels();
            let from = N::of_all(&values[..pixels * step.product.inputs()], narrow);
            pixels *= 4;
            let to = take(normed, pixels * channels);
            step.product.run(from, to)?;
            if step.skip.is_some() && index < decoded.skips.len() {
                let skip = &skips[index][span(image, tokens, &(0..tokens), channels)];
                self.add_skip(skip, index + 1, row, to);
            }
            match &step.norm {
                Some(norm) => norm.rows(to, take(values, pixels * channels)),
                None => std::mem::swap(values, normed),
            }
            gelu_in_place(&mut values[..pixels * channels]);
        }
        Ok(pixels)
    }

    /// Adds the bilinearly enlarged `skip`, `[tokens, channels]`, to the pixels of a row of the grid, each split
    /// `splits` times.
    fn add_skip(&self, skip: &[f32], splits: usize, row: usize, pixels: &mut [f32]) {
        let (side, parts) = (self.grid_side, 1 << splits);
        let channels = skip.len() / (side * side);
        for (pixel, values) in pixels.chunks_exact_mut(channels).enumerate() {
            let (token, split) = (pixel >> (2 * splits), pixel & (parts * parts - 1));
            let (y, x) = split_order(split, splits);
            let (low_y, high_y, part_y) = neighbours(row * parts + y, side, side * parts);
            let (low_x, high_x, part_x) = neighbours(token * parts + x, side, side * parts);
            for (y, weight_y) in [(low_y, 1.0 - part_y), (high_y, part_y)] {
                for (x, weight_x) in [(low_x, 1.0 - part_x), (high_x, part_x)] {
                    let from = &skip[(y * side + x) * channels..][..channels];
                    let weight = weight_y * weight_x;
                    values
                        .iter_mut()
                        .zip(from)
                        .for_each(|(value, from)| *value += weight * from);
                }
            }
        }
    }

    /// Brings logits at the decoder's own resolution to the result's, row by row.
    fn enlarge(&self, rooms: &Rooms<N>, low: &[f32], sinks: &[Sink<'_>]) -> Result<()> {
        let (from, to, classes) = (self.decoded_side, self.side_px, self.kernels.len());
        rooms.run(sinks.len() * to, |index, room| {
            let (image, y) = (index / to, index % to);
            let logits = take(&mut room.floats[0], to * classes);
            let (low_y, high_y, part_y) = neighbours(y, from, to);
            for (x, logits) in logits.chunks_exact_mut(classes).enumerate() {
                let (low_x, high_x, part_x) = neighbours(x, from, to);
                for (class, logit) in logits.iter_mut().enumerate() {
                    let plane = &low[(image * classes + class) * from * from..][..from * from];
                    let along = |y: usize| {
                        (1.0 - part_x) * plane[y * from + low_x] + part_x * plane[y * from + high_x]
                    };
                    *logit = (1.0 - part_y) * along(low_y) + part_y * along(high_y);
                }
            }
            // SAFETY: each task has a row of an image of its own.
            // What is not finite has been counted at the lower resolution.
            unsafe { sinks[image].put(0, y * to..(y + 1) * to, (logits, classes, classes), |x| x)? };
            Ok(())
        })
    }

    /// The model's own estimate of each mask's quality, `[images, classes]`.
    pub(super) fn iou(&self, rooms: &Rooms<N>, decoded: Decoded<'_>) -> Result<Vec<f32>> {
        let [width, tokens] = self.token_sizes(decoded);
        let classes = self.kernels.len();
        let mut iou = vec![0f32; decoded.images * classes];
        let shared = Shared::new(&mut iou);
        rooms.run(decoded.images, |image, room| {
            // SAFETY: each task has an image of its own.
            let to = unsafe { shared.slice(image * classes..(image + 1) * classes)? };
            self.iou
                .run(&decoded.tokens[image * tokens * width..][..width], to, room)
        })?;
        Ok(iou)
    }

    pub(super) fn bytes(&self) -> usize {
        let steps = self
            .steps
            .iter()
            .map(|step| step.product.bytes() + step.skip.as_ref().map_or(0, Dense::bytes));
        let heads = self.kernels.iter().chain([&self.iou]).map(Head3::bytes);
        steps.sum::<usize>() + heads.sum::<usize>()
    }
}

/// As the plain forward enlarges, [`resize::neighbours`], in float32.
fn neighbours(i: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let (low, high, part) = resize::neighbours(i, from, to);
    (low, high, part as f32)
}

/// Where tasks put the classes of pixels.
enum Sink<'a> {
    Labels(Shared<'a, u8>),
    Planes {
        values: Shared<'a, f32>,
        plane: usize,
        is_softmax: bool,
    },
}

/// The class with the highest logit; the lower id wins a tie.
fn highest(logits: &[f32]) -> u8 {
    let (mut best, mut most) = (0, f32::NEG_INFINITY);
    for (class, logit) in (0u8..=255).zip(logits) {
        let is_higher = *logit > most;
        best = if is_higher { class } else { best };
        most = if is_higher { *logit } else { most };
    }
    best
}

impl<'a> Sink<'a> {
    fn new(mask: &'a mut Masks<'_>, side_px: usize) -> Self {
        let plane = side_px * side_px;
        match mask {
            Masks::Labels(ids) => Self::Labels(Shared::new(ids)),
            Masks::Probabilities(values) => Self::Planes {
                values: Shared::new(values),
                plane,
                is_softmax: true,
            },
            Masks::Logits(values) => Self::Planes {
                values: Shared::new(values),
                plane,
                is_softmax: false,
            },
        }
    }

    /// Puts pixels whose logits lie in rows of `pitch`, the first `classes` of which count, to `place(pixel)` among the
    /// pixels `range` of a plane; planes begin at `first`. Says how many logits are not finite.
    ///
    /// # Safety
    /// Nobody else uses these pixels.
    unsafe fn put(
        &self,
        first: usize,
        range: Range<usize>,
        (logits, pitch, classes): (&mut [f32], usize, usize),
        place: impl Fn(usize) -> usize,
    ) -> Result<usize> {
        // What pads the classes does not count.
        let pixels = logits.chunks_exact(pitch).map(|pixel| &pixel[..classes]);
        let not_finite = pixels.flatten().filter(|value| !value.is_finite()).count();
        match self {
            Sink::Labels(ids) => {
                // SAFETY: the caller's promise.
                let ids = unsafe { ids.slice(range)? };
                for (pixel, logits) in logits.chunks_exact(pitch).enumerate() {
                    ids[place(pixel)] = highest(&logits[..classes]);
                }
            }
            Sink::Planes {
                values,
                plane,
                is_softmax,
            } => {
                if *is_softmax {
                    softmax_rows(logits, pitch, classes, 1.0);
                }
                for class in 0..classes {
                    let start = first + class * plane + range.start;
                    // SAFETY: the caller's promise.
                    let to = unsafe { values.slice(start..start + range.len())? };
                    for (pixel, logits) in logits.chunks_exact(pitch).enumerate() {
                        to[place(pixel)] = logits[class];
                    }
                }
            }
        }
        Ok(not_finite)
    }
}

/// Row and column of a pixel that was split `steps` times from one, from its number in the order of splitting.
fn split_order(pixel: usize, steps: usize) -> (usize, usize) {
    (0..steps).fold((0, 0), |(y, x), step| {
        let quarter = pixel >> (2 * (steps - 1 - step)) & 3;
        (2 * y + quarter / 2, 2 * x + quarter % 2)
    })
}
