//! The executor: a clip or a step planned once, over buffers that stay, by kernels that work in place.
//!
//! [`MaSam`] is its reference: tests hold the two against each other. The executor owns packed weights, in float32 or
//! bfloat16, with the residual stream and all sums in float32; on its way a frame's tokens are computed only where an
//! output depends on them. Once each thread has seen each kind of work nothing above four kilobytes is
//! allocated.
//!
//! ```
//! use candle_core::{DType, Device};
//! use masam::model::{FormulaWeights, ModelConfig};
//! use masam::runtime::executor::{Executor, Job, Masks, Picture};
//!
//! let config = ModelConfig { image_side_px: 64, encoder_depth: 3, global_blocks: vec![2], ..ModelConfig::demo() };
//! let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
//! let mut executor = Executor::<f32>::load(&config, weights)?;
//! let (frame, mut ids) = (vec![0.5; 3 * 64 * 64], vec![0; 64 * 64]);
//! let job = Job { clips: 1, frames: 5, outputs: &[4], picture: &|_| Picture::Planes(&frame) };
//! let not_finite = executor.clip(&job, &mut [Masks::Labels(&mut ids)])?;
//! assert_eq!(not_finite, [0]);
//! # Ok::<(), masam::Error>(())
//! ```

mod adapter;
mod attention;
mod layers;
mod masks;
mod mlp;
mod neck;
mod patch;
mod plan;
mod room;
mod state;
mod step;
mod transformer;

use crate::error::{Error, Result};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::Number;
use crate::model::image_encoder::Block;
use crate::model::prompt_encoder::PromptEncoder;
use crate::model::{FactMode, MaSam, ModelConfig, Prompts};
use adapter::Adapter;
use attention::{BlockAttention, Projected};
use candle_core::Tensor;
use candle_nn::VarBuilder;
use layers::{add, add_to_rows, floats};
use masks::{Decoded, MaskBuffers, MaskHead};
use mlp::BlockMlp;
use neck::Neck;
use patch::Patches;
use plan::Plan;
use room::{Rooms, take};
use step::Between;
use transformer::{Exchange, Sides, Transformer};

pub use masks::Masks;
pub use patch::Picture;
pub use state::State;

/// Clips to run.
pub struct Job<'a> {
    /// How many.
    pub clips: usize,
    /// Frames of each.
    pub frames: usize,
    /// Images whose masks are wanted, counted through all clips, ascending.
    pub outputs: &'a [usize],
    /// The picture of an image.
    pub picture: &'a (dyn Fn(usize) -> Picture<'a> + Sync),
}

/// Is shown what lies between (images that no output depends on hold anything): `patch_embed` and `block_N`, `[images, grid, grid, encoder_width]`; `features`,
/// `[outputs, grid, grid, prompt_width]`; and `iou`, `[outputs, classes]`.
pub type Observer<'a> = &'a mut dyn FnMut(&str, &[f32]);

#[derive(Debug)]
struct EncoderBlock<N> {
    adapter_1: Option<Adapter<N>>,
    attention: BlockAttention<N>,
    adapter_2: Option<Adapter<N>>,
    mlp: BlockMlp<N>,
    /// Which skip of the decoder its output is.
    skip: Option<usize>,
}

/// The image encoder.
#[derive(Debug)]
struct Encoder<N> {
    patches: Patches<N>,
    blocks: Vec<EncoderBlock<N>>,
    neck: Neck<N>,
    /// Of a picture.
    tokens: usize,
    width: usize,
}

/// Prompts as the decoder takes them.
#[derive(Debug, Default)]
struct Told {
    /// `[tokens, width]`, the IoU's and the classes' tokens first.
    tokens: Vec<f32>,
    /// `[width]` or `[grid * grid, width]`, added to the features.
    dense: Buffer<f32>,
}

/// A model ready to run on the CPU.
#[derive(Debug)]
pub struct Executor<N> {
    config: ModelConfig,
    encoder: Encoder<N>,
    prompt_encoder: PromptEncoder,
    /// `[tokens, width]`, the IoU's and the classes'.
    own_tokens: Vec<f32>,
    /// `[grid * grid, width]`
    picture_positions: Buffer<f32>,
    told: Told,
    transformer: Transformer<N>,
    masks: MaskHead<N>,
    buffers: Buffers<N>,
}

/// What a run works in.
#[derive(Debug)]
struct Buffers<N> {
    rooms: Rooms<N>,
    plan: Option<Plan>,
    /// `[images, tokens, encoder_width]`
    stream: Buffer<f32>,
    projected: Projected<N>,
    /// For each skip `[outputs, tokens, encoder_width]`.
    skips: Vec<Buffer<f32>>,
    neck: Buffer<N>,
    /// `[outputs, tokens, prompt_width]`
    picture: Buffer<f32>,
    /// `[outputs, tokens, prompt_width]`
    tokens: Buffer<f32>,
    exchange: Exchange<N>,
    masks: MaskBuffers<N>,
    not_finite: Vec<usize>,
}

impl<N> Default for Buffers<N> {
    fn default() -> Self {
        Self {
            rooms: Rooms::default(),
            plan: None,
            stream: Buffer::default(),
            projected: Projected::default(),
            skips: Vec::new(),
            neck: Buffer::default(),
            picture: Buffer::default(),
            tokens: Buffer::default(),
            exchange: Exchange::default(),
            masks: MaskBuffers::default(),
            not_finite: Vec::new(),
        }
    }
}

impl<N: Number> Executor<N> {
    /// Packs the weights of a model whose FacT is folded in.
    ///
    /// # Errors
    /// A type that this processor does not multiply, widths it cannot take, or Candle's own.
    pub fn new(mut model: MaSam) -> Result<Self> {
        let blocks = std::mem::take(&mut model.image_encoder.blocks);
        Self::packed(model, blocks.into_iter().map(Ok))
    }

    /// Takes the weights of a model with FacT folded in and packs them, part by part: no more than one block exists
    /// twice.
    ///
    /// # Errors
    /// A configuration out of bounds, a weight that `weights` cannot give, or as [`Executor::new`].
    pub fn load(config: &ModelConfig, weights: VarBuilder<'_>) -> Result<Self> {
        let (model, blocks) = MaSam::apart(config, FactMode::Folded, weights)?;
        Self::packed(model, blocks)
    }

    fn packed(model: MaSam, blocks: impl Iterator<Item = candle_core::Result<Block>>) -> Result<Self> {
        N::lanes().map_err(|e| Error::Unavailable {
            what: format!("precision {} on the CPU", N::NAME),
            why: e.to_string(),
        })?;
        let MaSam {
            config,
            image_encoder,
            prompt_encoder,
            mask_decoder,
            ..
        } = model;
        check_widths::<N>(&config)?;
        let grid = config.grid_side();
        let patches = Patches::new(
            &image_encoder.patch_embed,
            &image_encoder.pos_embed,
            config.image_side_px,
        )?;
        let neck = Neck::new(&image_encoder, grid)?;
        let blocks: Vec<EncoderBlock<N>> = blocks
            .enumerate()
            .map(|(index, block)| {
                let block = block?;
                if block.attn.fact.is_some() {
                    let why = "the executor wants it folded into the weights";
                    return Err(Error::config("fact", "apart", why));
                }
                Ok(EncoderBlock::new(block, grid, config.skip_of(index))?)
            })
            .collect::<Result<_>>()?;
        let own_tokens = Tensor::cat(&[&mask_decoder.iou_token, &mask_decoder.mask_tokens], 0)?;
        let mut executor = Self {
            encoder: Encoder {
                patches,
                blocks,
                neck,
                tokens: grid * grid,
                width: config.encoder_width,
            },
            own_tokens: floats(&own_tokens)?,
            picture_positions: Buffer::from(&*floats(&prompt_encoder.grid_positions()?)?),
            prompt_encoder,
            told: Told::default(),
            transformer: Transformer::new(&mask_decoder.transformer)?,
            masks: MaskHead::new(&mask_decoder, grid, config.image_side_px)?,
            buffers: Buffers::default(),
            config,
        };
        executor.prompt(&Prompts::default())?;
        Ok(executor)
    }

    /// Sizes and choices.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What all runs from now on are told about their pictures; at first nothing.
    ///
    /// # Errors
    /// Prompts of the wrong shape, or more than one of them.
    pub fn prompt(&mut self, prompts: &Prompts) -> Result<()> {
        let encoded = self.prompt_encoder.forward(prompts)?;
        if encoded.dense.dim(0)? != 1 {
            let given = encoded.dense.dim(0)?;
            return Err(Error::config(
                "prompts",
                given,
                "the executor takes one for all images",
            ));
        }
        let mut tokens = self.own_tokens.clone();
        if let Some(sparse) = &encoded.sparse {
            if sparse.dim(0)? != 1 {
                return Err(Error::config(
                    "prompts",
                    sparse.dim(0)?,
                    "the executor takes one for all images",
                ));
            }
            tokens.extend(floats(sparse)?);
        }
        self.told = Told {
            tokens,
            dense: Buffer::from(&*floats(&encoded.dense)?),
        };
        Ok(())
    }

    /// Runs clips; how many logits of each output are not finite.
    ///
    /// # Errors
    /// Outputs that are not ascending images of the job, masks or pictures of the wrong size.
    pub fn clip(&mut self, job: &Job<'_>, masks: &mut [Masks<'_>]) -> Result<&[usize]> {
        self.observed(job, masks, None)
    }

    /// As [`Executor::clip`], with an observer.
    ///
    /// # Errors
    /// As [`Executor::clip`].
    pub fn observed(
        &mut self,
        job: &Job<'_>,
        masks: &mut [Masks<'_>],
        observer: Option<Observer<'_>>,
    ) -> Result<&[usize]> {
        let images = job.clips * job.frames;
        if job.outputs.is_empty()
            || !job.outputs.is_sorted_by(|a, b| a < b)
            || job.outputs.iter().any(|i| *i >= images)
        {
            let wanted = format!("they have to be ascending images of {images}");
            return Err(Error::config("outputs", format!("{:?}", job.outputs), wanted));
        }
        let plan = match self.buffers.plan.take() {
            Some(plan) if plan.is_for(job.clips, job.frames, job.outputs) => plan,
            _ => Plan::new(&self.config, job.clips, job.frames, job.outputs),
        };
        let done = self.run(&plan, job.picture, Time::Clips, masks, observer);
        self.buffers.plan = Some(plan);
        done?;
        Ok(&self.buffers.not_finite)
    }

    /// One new frame of each stream of a causal model; its outputs are those of [`Executor::clip`] over all frames since
    /// the states were new. States go on where it succeeds with finite outputs, and stay as they were elsewhere.
    ///
    /// # Errors
    /// A model that is not causal, states of another model, or as [`Executor::clip`].
    pub fn step<'a>(
        &mut self,
        states: &mut [&mut State<N>],
        picture: &(dyn Fn(usize) -> Picture<'a> + Sync),
        masks: &mut [Masks<'_>],
    ) -> Result<&[usize]> {
        let wanted = State::<N>::new_lengths(&self.config);
        if self.config.temporal != crate::segmenter::Temporal::Causal {
            return Err(Error::config(
                "temporal",
                "centered",
                "the model looks at later frames",
            ));
        }
        if states.is_empty() || states.iter().any(|state| (state.low.len(), state.slot) != wanted) {
            return Err(Error::config(
                "states",
                states.len(),
                "one state of this model for each frame",
            ));
        }
        let streams = states.len();
        let plan = match self.buffers.plan.take() {
            Some(plan) if plan.clips == streams && plan.frames == 1 && plan.decoded.len() == streams => plan,
            _ => Plan::new(&self.config, streams, 1, &(0..streams).collect::<Vec<_>>()),
        };
        let done = self.run(&plan, picture, Time::Step(states), masks, None);
        self.buffers.plan = Some(plan);
        done?;
        for (state, not_finite) in states.iter_mut().zip(&self.buffers.not_finite) {
            if *not_finite == 0 {
                state.advance();
            }
        }
        Ok(&self.buffers.not_finite)
    }

    fn run<'a>(
        &mut self,
        plan: &Plan,
        picture: &(dyn Fn(usize) -> Picture<'a> + Sync),
        time: Time<'_, '_, N>,
        masks: &mut [Masks<'_>],
        mut observer: Option<Observer<'_>>,
    ) -> candle_core::Result<()> {
        let (tokens, width) = (self.encoder.tokens, self.encoder.width);
        let Buffers {
            rooms,
            stream,
            projected,
            skips,
            neck,
            picture: features,
            tokens: token_buffer,
            exchange,
            masks: mask_buffers,
            not_finite,
            ..
        } = &mut self.buffers;
        rooms.fit()?;
        let stream = take(stream, plan.images() * tokens * width);
        let images = plan.decoded.len();
        let features = take(features, images * self.picture_positions.len());
        skips.resize_with(self.config.skips(), Buffer::default);
        for skip in skips.iter_mut() {
            take(skip, images * tokens * width);
        }
        match time {
            Time::Step(states) => {
                let mut between = Between {
                    stream,
                    projected,
                    skips,
                    neck,
                };
                self.encoder.step(rooms, states, picture, &mut between)?;
                self.encoder.neck.second(rooms, images, neck, features)?;
            }
            Time::Clips => {
                self.encoder.patches.run(rooms, plan, picture, stream)?;
                if let Some(observer) = &mut observer {
                    observer("patch_embed", stream);
                }
                for (index, (block, part)) in self.encoder.blocks.iter().zip(&plan.blocks).enumerate() {
                    if let Some(adapter) = &block.adapter_1 {
                        adapter.clips(rooms, plan, (&part.low_1, &part.attention), stream)?;
                    }
                    block
                        .attention
                        .run(rooms, projected, &part.attention, tokens, stream)?;
                    if let Some(adapter) = &block.adapter_2 {
                        adapter.clips(rooms, plan, (&part.low_2, &part.mlp), stream)?;
                    }
                    block.mlp.run(rooms, &part.mlp, tokens, stream)?;
                    if let Some(observer) = &mut observer {
                        observer(&format!("block_{index}"), stream);
                    }
                    if let Some(skip) = block.skip {
                        let length = tokens * width;
                        for (image, to) in plan.decoded.iter().zip(skips[skip].chunks_exact_mut(length)) {
                            to.copy_from_slice(&stream[image * length..(image + 1) * length]);
                        }
                    }
                }
                self.encoder
                    .neck
                    .run(rooms, &plan.decoded, stream, neck, features)?;
            }
        }
        if let Some(observer) = &mut observer {
            observer("features", features);
        }
        for image in features.chunks_exact_mut(self.picture_positions.len()) {
            match self.told.dense.len() == image.len() {
                true => add(image, &self.told.dense),
                false => add_to_rows(image, &self.told.dense),
            }
        }
        let token_buffer = take(token_buffer, images * self.told.tokens.len());
        for to in token_buffer.chunks_exact_mut(self.told.tokens.len()) {
            to.copy_from_slice(&self.told.tokens);
        }
        let mut sides = Sides {
            tokens: token_buffer,
            token_positions: &self.told.tokens,
            picture: features,
            picture_positions: &self.picture_positions,
        };
        self.transformer.run(rooms, exchange, &mut sides)?;
        let decoded = Decoded {
            tokens: sides.tokens,
            picture: sides.picture,
            skips,
            images,
        };
        not_finite.clear();
        not_finite.resize(images, 0);
        self.masks.run(rooms, mask_buffers, decoded, masks, not_finite)?;
        if let Some(observer) = observer {
            observer("iou", &self.masks.iou(rooms, decoded)?);
        }
        Ok(())
    }

    /// Floating-point operations of a job: products alone, of what its outputs depend on.
    pub fn operations(&self, clips: usize, frames: usize, outputs: &[usize]) -> f64 {
        Plan::new(&self.config, clips, frames, outputs).operations(&self.config)
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        let blocks = self.encoder.blocks.iter().map(|block| {
            let adapters = block.adapter_1.iter().chain(&block.adapter_2).map(Adapter::bytes);
            adapters.sum::<usize>() + block.attention.bytes() + block.mlp.bytes()
        });
        self.encoder.patches.bytes()
            + blocks.sum::<usize>()
            + self.encoder.neck.bytes()
            + self.transformer.bytes()
            + self.masks.bytes()
    }

    /// Bytes of the buffers that the runs so far have needed.
    pub fn buffer_bytes(&self) -> usize {
        let b = &self.buffers;
        let floats = b.skips.iter().chain([&b.stream, &b.picture, &b.tokens]);
        floats.map(|buffer| size_of_val(buffer.as_slice())).sum::<usize>()
            + size_of_val(b.neck.as_slice())
            + b.projected.bytes()
            + b.exchange.bytes()
            + b.masks.bytes()
            + b.rooms.bytes()
    }
}

/// How the images of a run follow one another.
enum Time<'a, 'b, N> {
    /// As clips of the plan's frames.
    Clips,
    /// As one new frame of each stream.
    Step(&'a mut [&'b mut State<N>]),
}

/// Pairs of numbers want even widths.
fn check_widths<N: Number>(config: &ModelConfig) -> Result<()> {
    let pixel = config.upscaling_widths().last().copied().unwrap_or(0);
    let widths = [
        ("encoder_width", config.encoder_width),
        ("encoder_heads", config.head_width()),
        ("adapter_width", config.adapter_width),
        ("prompt_width", pixel),
        ("decoder_heads", config.prompt_width / 2 / config.decoder_heads),
        ("decoder_mlp_width", config.decoder_mlp_width),
        ("patch_side_px", 3 * config.patch_side_px * config.patch_side_px),
    ];
    match widths.iter().find(|(_, width)| !width.is_multiple_of(N::DEPTH)) {
        Some((field, width)) => {
            let why = format!("{} takes channels in steps of {}", N::NAME, N::DEPTH);
            Err(Error::config(*field, width, why))
        }
        None => Ok(()),
    }
}

impl<N: Number> EncoderBlock<N> {
    fn new(block: Block, grid_side: usize, skip: Option<usize>) -> candle_core::Result<Self> {
        Ok(Self {
            adapter_1: block.adapter_1.as_ref().map(Adapter::new).transpose()?,
            attention: BlockAttention::new(&block.attn, &block.norm1, grid_side)?,
            adapter_2: block.adapter_2.as_ref().map(Adapter::new).transpose()?,
            mlp: BlockMlp::new(&block.mlp, &block.norm2)?,
            skip,
        })
    }
}
