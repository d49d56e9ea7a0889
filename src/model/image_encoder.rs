//! SAM's image encoder with MA-SAM's adapters:
//! ```text
//! patches + positions -> blocks -> neck
//! block: adapter 1 -> norm -> attention -> + -> adapter 2 -> norm -> MLP -> +
//! ```

use super::attention::Attention;
use super::causal::Passing;
use super::config::{Adapters, ModelConfig};
use super::fact::SharedFactors;
use super::layers::{Activation, Conv3x3, ENCODER_EPS, LayerNorm, Mlp, PatchConv};
use super::masam::{FactMode, Observer};
use super::temporal_adapter::{Position, TemporalAdapter};
use crate::kernels::{attention::Span, linear::unbiased};
use crate::pulse;
use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

/// How the images of a batch follow one another.
pub(crate) enum Time<'a, 'b> {
    /// Clips of so many frames.
    Clips(usize),
    /// One new frame of each stream.
    Step(&'a mut Passing<'b>),
}

/// One transformer block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) adapter_1: Option<TemporalAdapter>,
    pub(crate) norm1: LayerNorm,
    pub(crate) attn: Attention,
    pub(crate) adapter_2: Option<TemporalAdapter>,
    pub(crate) norm2: LayerNorm,
    pub(crate) mlp: Mlp,
}

impl Block {
    fn new(
        config: &ModelConfig,
        index: usize,
        shared: &SharedFactors,
        mode: FactMode,
        weights: VarBuilder,
    ) -> Result<Self> {
        let width = config.encoder_width;
        let adapter = |position: Position| {
            let here = match position {
                Position::Before => matches!(config.adapters, Adapters::Both | Adapters::Before),
                Position::After => matches!(config.adapters, Adapters::Both | Adapters::After),
            };
            let adapter =
                || TemporalAdapter::new(width, config.adapter_width, config.temporal, position, &weights);
            here.then(adapter).transpose()
        };
        let span = Span {
            heads: config.encoder_heads,
            side: config.span_side(index),
        };
        Ok(Self {
            adapter_1: adapter(Position::Before)?,
            norm1: LayerNorm::new(width, ENCODER_EPS, weights.pp("norm1"))?,
            attn: Attention::new(width, config.fact_rank, span, shared, mode, weights.pp("attn"))?,
            adapter_2: adapter(Position::After)?,
            norm2: LayerNorm::new(width, ENCODER_EPS, weights.pp("norm2"))?,
            mlp: Mlp::new(
                width,
                config.mlp_ratio * width,
                Activation::Gelu,
                weights.pp("mlp"),
            )?,
        })
    }

    /// The output for all images, or only for `wanted`: behind the second adapter no frame looks at another.
    fn forward(&self, x: &Tensor, time: &mut Time<'_, '_>, wanted: Option<&Tensor>) -> Result<Tensor> {
        let mut adapt = |adapter: &Option<TemporalAdapter>, x: Tensor| match (adapter, &mut *time) {
            (None, _) => Ok(x),
            (Some(adapter), Time::Clips(frames)) => adapter.forward(&x, *frames),
            (Some(adapter), Time::Step(passing)) => adapter.step(&x, passing),
        };
        let mut x = adapt(&self.adapter_1, x.clone())?;
        x = self.attn.residual(&x, &self.norm1)?;
        x = adapt(&self.adapter_2, x)?;
        if let Some(wanted) = wanted {
            x = x.index_select(wanted, 0)?;
        }
        self.mlp.residual(&x, &self.norm2)
    }
}

/// The encoder's output.
#[derive(Debug, Clone)]
pub struct Features {
    /// `[images, grid, grid, prompt_width]`
    pub grid: Tensor,
    /// Outputs of the global blocks that the decoder asks for, last block first,
    /// `[images, grid, grid, encoder_width]` each.
    pub skips: Vec<Tensor>,
}

impl Features {
    /// The features of some images only, in the order of `images`.
    ///
    /// # Errors
    /// Candle's own, for an index out of range.
    pub fn select(&self, images: &Tensor) -> Result<Self> {
        let skips = self
            .skips
            .iter()
            .map(|s| s.index_select(images, 0))
            .collect::<Result<_>>()?;
        Ok(Self {
            grid: self.grid.index_select(images, 0)?,
            skips,
        })
    }
}

/// The image encoder.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    pub(crate) patch_embed: PatchConv,
    pub(crate) pos_embed: Tensor,
    pub(crate) blocks: Vec<Block>,
    pub(crate) neck_in: Tensor,
    pub(crate) neck_norm_in: LayerNorm,
    pub(crate) neck_conv: Conv3x3,
    pub(crate) neck_norm_out: LayerNorm,
    /// Blocks whose outputs the decoder is shown.
    skip_blocks: Vec<usize>,
}

/// The blocks of an encoder, first to last, each made when it is asked for.
pub(crate) struct Blocks<'a> {
    config: &'a ModelConfig,
    shared: SharedFactors,
    mode: FactMode,
    weights: VarBuilder<'a>,
    next: usize,
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        self.next += 1;
        pulse::beat();
        (index < self.config.encoder_depth).then(|| {
            let weights = self.weights.pp(index);
            Block::new(self.config, index, &self.shared, self.mode, weights)
        })
    }
}

impl ImageEncoder {
    /// All but the blocks, and the blocks, for who does not want all of them at once. Weights below `image_encoder`.
    pub(crate) fn apart<'a>(
        config: &'a ModelConfig,
        mode: FactMode,
        weights: VarBuilder<'a>,
    ) -> Result<(Self, Blocks<'a>)> {
        let (width, out, side) = (config.encoder_width, config.prompt_width, config.grid_side());
        let shared = SharedFactors::new(width, config.fact_rank, config.fact_scale, weights.clone())?;
        let neck = weights.pp("neck");
        let encoder = Self {
            patch_embed: PatchConv::new(
                3,
                width,
                config.patch_side_px,
                weights.pp("patch_embed").pp("proj"),
            )?,
            pos_embed: weights.get((1, side, side, width), "pos_embed")?,
            blocks: Vec::new(),
            neck_in: neck.pp(0).get((out, width, 1, 1), "weight")?,
            neck_norm_in: LayerNorm::new(out, ENCODER_EPS, neck.pp(1))?,
            neck_conv: Conv3x3::new(out, out, neck.pp(2))?,
            neck_norm_out: LayerNorm::new(out, ENCODER_EPS, neck.pp(3))?,
            skip_blocks: (0..config.encoder_depth)
                .filter(|block| config.skip_of(*block).is_some())
                .collect(),
        };
        let blocks = Blocks {
            config,
            shared,
            mode,
            weights: weights.pp("blocks"),
            next: 0,
        };
        Ok((encoder, blocks))
    }

    /// `[batch * frames, 3, side_px, side_px]` to features; `frames` is the length of a clip. `observer` sees
    /// `patch_embed` and every `block_N`.
    pub fn forward(&self, images: &Tensor, frames: usize, observer: Observer<'_>) -> Result<Features> {
        self.run(images, &mut Time::Clips(frames), observer, None)
    }

    /// As [`ImageEncoder::forward`], the features of the images in `wanted` only: what no other frame looks at is not
    /// computed for the rest.
    pub fn forward_wanted(&self, images: &Tensor, frames: usize, wanted: &Tensor) -> Result<Features> {
        self.run(images, &mut Time::Clips(frames), &mut |_, _| {}, Some(wanted))
    }

    /// One new frame of each stream, `[streams, 3, side_px, side_px]`, to features.
    pub fn step(&self, images: &Tensor, passing: &mut Passing<'_>) -> Result<Features> {
        self.run(images, &mut Time::Step(passing), &mut |_, _| {}, None)
    }

    fn run(
        &self,
        images: &Tensor,
        time: &mut Time<'_, '_>,
        observer: Observer<'_>,
        wanted: Option<&Tensor>,
    ) -> Result<Features> {
        let mut x = self.embed(images)?;
        observer("patch_embed", &x);
        let mut skips = Vec::new();
        for i in 0..self.depth() {
            let last = i + 1 == self.depth();
            x = self.through(i, &x, time, wanted.filter(|_| last))?;
            observer(&format!("block_{i}"), &x);
            if self.is_skip(i) {
                let skip = match wanted.filter(|_| !last) {
                    Some(wanted) => x.index_select(wanted, 0)?,
                    None => x.clone(),
                };
                skips.insert(0, skip);
            }
        }
        Ok(Features {
            grid: self.finish(&x)?,
            skips,
        })
    }

    /// Patches and positions: `[images, 3, side_px, side_px]` to `[images, grid, grid, encoder_width]`.
    pub(crate) fn embed(&self, images: &Tensor) -> Result<Tensor> {
        self.patch_embed
            .forward_channels_first(images)?
            .broadcast_add(&self.pos_embed)
    }

    /// Number of blocks.
    pub(crate) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Block `index` alone, `[images, grid, grid, encoder_width]` to the same.
    pub(crate) fn block(&self, index: usize, x: &Tensor, frames: usize) -> Result<Tensor> {
        self.through(index, x, &mut Time::Clips(frames), None)
    }

    fn through(
        &self,
        index: usize,
        x: &Tensor,
        time: &mut Time<'_, '_>,
        wanted: Option<&Tensor>,
    ) -> Result<Tensor> {
        pulse::beat();
        match self.blocks.get(index) {
            Some(block) => block.forward(x, time, wanted),
            None => bail!("there is no block {index} among {}", self.blocks.len()),
        }
    }

    /// Whether the decoder is shown the output of block `index`: one of the last global blocks.
    pub(crate) fn is_skip(&self, index: usize) -> bool {
        self.skip_blocks.contains(&index)
    }

    /// The neck: `[images, grid, grid, encoder_width]` to `[images, grid, grid, prompt_width]`.
    pub(crate) fn finish(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.neck_in.squeeze(3)?.squeeze(2)?;
        let x = self.neck_norm_in.forward(&unbiased(x, &weight)?)?;
        self.neck_norm_out.forward(&self.neck_conv.forward(&x)?)
    }
}
