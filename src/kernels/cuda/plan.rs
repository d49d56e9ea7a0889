//! Grid, threads and shared memory of each launch, and whether a kernel can take an input at all.

use super::arguments::{
    Address, AttentionArgs, EpilogueArgs, LabelArgs, NormArgs, PrepareArgs, TemporalArgs, UpscaleArgs,
};
use super::{Element, Launch, Source};
use crate::kernels::attention::Sizes;
use crate::kernels::prepare::Coded;
use candle_core::{Result, bail};

/// Bytes that a card reads and writes at once.
const PIECE_BYTES: usize = 16;
/// Shared memory that a block can have on every card since Ampere.
const SHARED_BYTES: usize = 99 << 10;
/// Blocks along y and z.
const MAX_BLOCKS: usize = 65_535;
const THREADS: usize = 256;
/// Keys of a tile and elements behind each of its rows, in `attention.cu`.
const TILE_KEYS: usize = 64;
const ROW_PAD: usize = 8;
/// Queries of a warp in `attention.cu`.
const WARP_QUERIES: usize = 16;
/// Queries of a block, keys of a tile and widest head in `attention_plain.cu`.
const PLAIN_QUERIES: usize = 16;
const PLAIN_KEYS: usize = 32;
const PLAIN_HEAD: usize = 256;
/// Most channels of a pixel in `labels.cu`.
const LABEL_CHANNELS: usize = 64;

/// A length as the kernels count.
fn int(length: usize) -> Result<i32> {
    match i32::try_from(length) {
        Ok(length) => Ok(length),
        Err(_) => bail!("a length of {length} is beyond what a kernel can count"),
    }
}

/// Blocks of `size` that hold `count`.
fn blocks(count: usize, size: usize) -> Result<u32> {
    Ok(int(count.div_ceil(size))? as u32)
}

/// Whether rows of `width` elements at these addresses are whole pieces.
fn is_vector(element: Element, width: usize, addresses: &[Address]) -> bool {
    (width * element.bytes()).is_multiple_of(PIECE_BYTES)
        && addresses.iter().all(|a| a.is_multiple_of(PIECE_BYTES as u64))
}

/// Elements that a thread takes at once.
fn piece(element: Element, vector: bool) -> usize {
    if vector { PIECE_BYTES / element.bytes() } else { 1 }
}

/// Tensors of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionTensors {
    pub(super) qkv: Address,
    pub(super) bias: Address,
    pub(super) relative: Address,
    pub(super) output: Address,
}

/// Shared memory of the tensor cores' attention with heads of `head` channels.
fn attention_shared(head: usize, side: usize, warps: usize) -> usize {
    let stages = 4 * TILE_KEYS * (head + ROW_PAD) * 2;
    stages + warps * WARP_QUERIES * (2 * side + 1) * 4 + TILE_KEYS * 4
}

/// Compiled head width and warps, where the tensor cores can take this.
fn on_tensor_cores(element: Element, sizes: &Sizes, tensors: &AttentionTensors) -> Option<(usize, usize)> {
    let addresses = [tensors.qkv, tensors.bias, tensors.relative, tensors.output];
    if element == Element::F32 || !is_vector(element, sizes.head_width, &addresses) {
        return None;
    }
    let head = [32, 64, 80, 128]
        .into_iter()
        .find(|&head| head >= sizes.head_width)?;
    let queries = sizes.side.min(sizes.height) * sizes.side.min(sizes.width);
    let groups = queries.div_ceil(WARP_QUERIES);
    // Four warps share a tile of keys well. More of them only where fewer queries are then beyond the last.
    let fits = |warps: &usize| attention_shared(head, sizes.side, *warps) <= SHARED_BYTES;
    let waste = |warps: &usize| groups.div_ceil(*warps) * warps;
    let several = (4..=8).filter(fits).min_by_key(waste);
    let warps = several.or_else(|| (1..4).rev().find(fits))?;
    Some((head, warps))
}

/// Shared memory of the plain kernel.
fn plain_shared(sizes: &Sizes) -> usize {
    let width = sizes.head_width;
    4 * (PLAIN_KEYS * (2 * width + 1) + PLAIN_QUERIES * (width + 2 * sizes.side + PLAIN_KEYS))
}

/// Whether one of the two kernels can take this.
pub(super) fn has_attention(sizes: &Sizes) -> bool {
    let (rows, columns) = sizes.partitions();
    sizes.head_width <= PLAIN_HEAD
        && plain_shared(sizes) <= SHARED_BYTES
        && sizes.images * rows * columns <= MAX_BLOCKS
        && sizes.heads <= MAX_BLOCKS
        && sizes.images * sizes.height * sizes.width > 0
}

/// Attention of every token over its span, on tensor cores where they can.
pub(super) fn attention(
    element: Element,
    sizes: &Sizes,
    tensors: AttentionTensors,
) -> Result<Launch<AttentionArgs>> {
    if !has_attention(sizes) {
        bail!("attention: no kernel takes {sizes:?}");
    }
    let (rows, columns) = sizes.partitions();
    let arguments = AttentionArgs {
        qkv: tensors.qkv,
        bias: tensors.bias,
        relative: tensors.relative,
        output: tensors.output,
        height: int(sizes.height)?,
        width: int(sizes.width)?,
        side: int(sizes.side)?,
        heads: int(sizes.heads)?,
        head_width: int(sizes.head_width)?,
        rows: int(rows)?,
        columns: int(columns)?,
        scale: sizes.scale() as f32,
    };
    let (heads, spans) = (sizes.heads as u32, (sizes.images * rows * columns) as u32);
    let queries = sizes.side.min(sizes.height) * sizes.side.min(sizes.width);
    Ok(match on_tensor_cores(element, sizes, &tensors) {
        Some((head, warps)) => Launch {
            source: Source::Attention,
            kernel: format!("attention_{}_{head}", element.suffix()),
            grid: [blocks(queries, warps * WARP_QUERIES)?, heads, spans],
            threads: 32 * warps as u32,
            shared_bytes: attention_shared(head, sizes.side, warps) as u32,
            arguments,
        },
        None => Launch {
            source: Source::AttentionPlain,
            kernel: format!("attention_plain_{}", element.suffix()),
            grid: [blocks(queries, PLAIN_QUERIES)?, heads, spans],
            threads: 128,
            shared_bytes: plain_shared(sizes) as u32,
            arguments,
        },
    })
}

/// What is done to each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rowwise {
    LayerNorm {
        weight: Address,
        bias: Address,
        eps: f32,
    },
    Softmax,
}

/// Layer norm or softmax of `[rows, width]`.
pub(super) fn rowwise(
    element: Element,
    what: Rowwise,
    (rows, width): (usize, usize),
    (x, y): (Address, Address),
) -> Result<Launch<NormArgs>> {
    const WARPS: usize = 8;
    let (name, weight, bias, eps) = match what {
        Rowwise::LayerNorm { weight, bias, eps } => ("layer_norm", weight, bias, eps),
        Rowwise::Softmax => ("softmax", 0, 0, 0.0),
    };
    Ok(Launch {
        source: Source::Norm,
        kernel: format!("{name}_{}", element.suffix()),
        grid: [blocks(rows, WARPS)?, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: NormArgs {
            x,
            weight,
            bias,
            y,
            rows: rows as i64,
            width: int(width)?,
            vector: i32::from(is_vector(element, width, &[x, y])),
            eps,
            unused: 0,
        },
    })
}

/// What follows a product; addresses may be 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epilogue {
    pub(super) bias: Address,
    pub(super) residual: Address,
    pub(super) gelu: bool,
}

/// `y = activation(x + bias) + residual`, `[rows, width]`; `x` and `y` may be one.
pub(super) fn epilogue(
    element: Element,
    what: Epilogue,
    (rows, width): (usize, usize),
    (x, y): (Address, Address),
) -> Result<Launch<EpilogueArgs>> {
    let Epilogue { bias, residual, gelu } = what;
    let vector = is_vector(element, width, &[x, y, bias, residual]);
    Ok(Launch {
        source: Source::Epilogue,
        kernel: format!("epilogue_{}", element.suffix()),
        grid: [blocks(rows * width, THREADS * piece(element, vector))?, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: EpilogueArgs {
            x,
            bias,
            residual,
            y,
            count: (rows * width) as i64,
            width: int(width)?,
            vector: i32::from(vector),
            activation: i32::from(gelu),
            unused: 0,
        },
    })
}

/// How the frames of a clip lie for the temporal convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) clips: usize,
    pub(super) frames_in: usize,
    pub(super) frames_out: usize,
    pub(super) tokens: usize,
    pub(super) channels: usize,
    /// Frames that the first tap looks back.
    pub(super) before: usize,
}

/// `[clips, frames_in, tokens, channels]` to `[clips, frames_out, tokens, 3, channels]`.
pub(super) fn temporal(
    element: Element,
    frames: Frames,
    (x, y): (Address, Address),
) -> Result<Launch<TemporalArgs>> {
    let vector = is_vector(element, frames.channels, &[x, y]);
    let count = frames.clips * frames.frames_out * frames.tokens * 3 * frames.channels;
    Ok(Launch {
        source: Source::Temporal,
        kernel: format!("temporal_{}", element.suffix()),
        grid: [blocks(count, THREADS * piece(element, vector))?, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: TemporalArgs {
            x,
            y,
            count: count as i64,
            frames_in: int(frames.frames_in)?,
            frames_out: int(frames.frames_out)?,
            tokens: int(frames.tokens)?,
            channels: int(frames.channels)?,
            before: int(frames.before)?,
            vector: i32::from(vector),
        },
    })
}

/// Lengths of an upscaling step: of its input, and channels of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Squares {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Squares {
    /// Of a product, `[images, height, width, 2, 2, channels]`; `None` for another shape.
    pub(super) fn of(product: &[usize]) -> Option<Self> {
        match *product {
            [images, height, width, 2, 2, channels] => Some(Self {
                images,
                height,
                width,
                channels,
            }),
            _ => None,
        }
    }
}

/// `[images, height, width, 2, 2, channels]` to `[images, 2 height, 2 width, channels]` with bias, norm and GELU.
/// `eps` of the norm, `None` without one; addresses of input, biases and output.
pub(super) fn upscale(
    element: Element,
    squares: Squares,
    eps: Option<f64>,
    [x, bias, y]: [Address; 3],
) -> Result<Launch<UpscaleArgs>> {
    let Squares {
        images,
        height,
        width,
        channels,
    } = squares;
    let vector = is_vector(element, channels, &[x, bias, y]);
    let pieces = channels / piece(element, vector);
    let lanes = pieces.next_power_of_two().min(32);
    let pixels = images * height * width * 4;
    Ok(Launch {
        source: Source::Upscale,
        kernel: format!("upscale_{}", element.suffix()),
        grid: [blocks(pixels * lanes, THREADS)?, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: UpscaleArgs {
            x,
            bias,
            y,
            pixels: pixels as i64,
            height: int(height)?,
            width: int(width)?,
            channels: int(channels)?,
            lanes: int(lanes)?,
            norm: i32::from(eps.is_some()),
            vector: i32::from(vector),
            eps: eps.unwrap_or(0.0) as f32,
            unused: 0,
        },
    })
}

/// Whether [`labels_of_product`] can take this.
pub(super) fn has_labels(squares: Squares, classes: usize) -> bool {
    squares.channels <= LABEL_CHANNELS
        && 4 * (classes + 1) * squares.channels <= SHARED_BYTES
        && squares.images <= MAX_BLOCKS
        && classes <= 256
}

/// Labels from the last upscaling step's product; addresses of product, bias, class kernels and labels.
pub(super) fn labels_of_product(
    element: Element,
    squares: Squares,
    classes: usize,
    [x, bias, kernels, y]: [Address; 4],
) -> Result<Launch<LabelArgs>> {
    if !has_labels(squares, classes) {
        bail!("labels: no kernel takes {squares:?} with {classes} classes");
    }
    let (tall, wide) = (2 * squares.height, 2 * squares.width);
    Ok(Launch {
        source: Source::Labels,
        kernel: format!("labels_of_product_{}", element.suffix()),
        grid: [blocks(tall * wide, THREADS)?, squares.images as u32, 1],
        threads: THREADS as u32,
        shared_bytes: (4 * (classes + 1) * squares.channels) as u32,
        arguments: LabelArgs {
            x,
            bias,
            kernels,
            y,
            height: int(squares.height)?,
            width: int(squares.width)?,
            channels: int(squares.channels)?,
            classes: int(classes)?,
            tall: int(tall)?,
            wide: int(wide)?,
        },
    })
}

/// Labels from logits `[images, classes, height, width]`, enlarged to `(tall, wide)`.
pub(super) fn labels_of_planes(
    element: Element,
    [images, classes, height, width]: [usize; 4],
    (tall, wide): (usize, usize),
    (x, y): (Address, Address),
) -> Result<Launch<LabelArgs>> {
    if images > MAX_BLOCKS || classes > 256 {
        bail!("labels: no kernel takes {images} images with {classes} classes");
    }
    Ok(Launch {
        source: Source::Labels,
        kernel: format!("labels_of_planes_{}", element.suffix()),
        grid: [blocks(tall * wide, THREADS)?, images as u32, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: LabelArgs {
            x,
            y,
            height: int(height)?,
            width: int(width)?,
            classes: int(classes)?,
            tall: int(tall)?,
            wide: int(wide)?,
            ..LabelArgs::default()
        },
    })
}

/// `[images, side, side, 3]` (or NV12) to `[images, 3, side, side]`, `frames` of which share a table of 256 values;
/// addresses of bytes, tables and planes.
pub(super) fn prepare(
    element: Element,
    bytes: Coded,
    (images, side, frames): (usize, usize, usize),
    [x, tables, y]: [Address; 3],
) -> Result<Launch<PrepareArgs>> {
    if images > MAX_BLOCKS || frames == 0 {
        bail!("prepare: no kernel takes {images} frames at once, in clips of {frames}");
    }
    let (name, matrix) = match bytes {
        Coded::Rgb => ("rgb", [0; 6]),
        Coded::Nv12(_) if !side.is_multiple_of(2) => bail!("prepare: NV12 has an even side, not {side}"),
        Coded::Nv12(matrix) => ("nv12", matrix),
    };
    let [luma_offset, luma_scale, red_v, green_u, green_v, blue_u] = matrix;
    Ok(Launch {
        source: Source::Prepare,
        kernel: format!("prepare_{name}_{}", element.suffix()),
        grid: [blocks(side * side, THREADS)?, images as u32, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
        arguments: PrepareArgs {
            x,
            tables,
            y,
            side: int(side)?,
            frames: int(frames)?,
            luma_offset,
            luma_scale,
            red_v,
            green_u,
            green_v,
            blue_u,
        },
    })
}
