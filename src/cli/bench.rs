//! `masam bench`: seconds per clip, against what the machine can do.

use super::against::{self, Comparison, Variant};
use super::{card, host_time, memory};
use crate::kernels::packed::Number;
use crate::model::weights::uniform;
use crate::model::{CausalState, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use crate::runtime::executor::{Executor, Job, Masks, Picture, State};
use crate::runtime::thread_pool::ThreadPool;
use crate::runtime::{DeviceChoice, Place, PrecisionChoice, Recording};
use crate::segmenter::Temporal;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use clap::Args;
use std::process::ExitCode;
use std::time::Instant;

/// Time the model on formula weights; the last line is JSON.
#[derive(Debug, Args)]
pub struct Bench {
    /// vit_b, vit_l, vit_h, demo, or a tiny test model: tiny, tiny_odd, tiny_causal, tiny_sam, tiny_multi,
    /// tiny_before, tiny_after.
    #[arg(long, default_value = "demo")]
    config: String,
    /// Input side in pixels; 0 for the configuration's.
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// Frames of a clip.
    #[arg(long, default_value_t = 5)]
    frames: usize,
    /// Clips at once.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: PrecisionChoice,
    /// cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// CPU threads; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Runs that count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Runs before them.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Time one new frame of a causal model as well, in turn with the clips.
    #[arg(long)]
    step: bool,
    /// Time clips of which only the newest frame's mask is wanted as well, in turn with the others.
    #[arg(long)]
    newest: bool,
    /// Run the plain forward, on Candle tensors, instead of the executor.
    #[arg(long)]
    plain: bool,
    /// Record each pass once as a CUDA graph and play it (cards only).
    #[arg(long)]
    graph: bool,
    /// Time a 1080p frame in the machine's memory to class ids there as well (with --step by one new frame).
    #[arg(long)]
    host: bool,
    /// Time PyTorch as well, in turn with this program, and print the ratios: its fastest variant, of whole clips.
    #[arg(long)]
    against_pytorch: bool,
    /// Python that has PyTorch, for --against-pytorch.
    #[arg(long, value_name = "PROGRAM", default_value = against::PYTHON)]
    python: std::path::PathBuf,
    /// Ways of running PyTorch that are tried, for --against-pytorch.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "eager,sdpa,compile,compile-sdpa"
    )]
    variants: Vec<Variant>,
    /// Pairs of runs, for --against-pytorch.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
}

/// Seconds of the runs that count, ascending.
#[derive(Default)]
struct Times {
    clips: Vec<f64>,
    /// As many, or none.
    steps: Vec<f64>,
    /// As many, or none.
    newest: Vec<f64>,
    /// Bytes of packed weights and of buffers, where the executor runs.
    memory: Option<[usize; 2]>,
    /// Counted operations of the newest frame's mask over those of all masks, where the executor runs.
    newest_counted: Option<f64>,
}

impl Bench {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.runs == 0 || self.frames == 0 || self.batch == 0 {
            bail!("--runs, --frames and --batch have to be at least 1");
        }
        if self.threads > 1024 {
            bail!("--threads {}: it has to be at most 1024", self.threads);
        }
        if self.batch.saturating_mul(self.frames) > 1024 {
            bail!(
                "--batch {} times --frames {}: at most 1024 pictures",
                self.batch,
                self.frames
            );
        }
        if self.against_pytorch {
            self.compare()?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut config = configuration(&self.config)?;
        if self.size > 0 {
            config.image_side_px = self.size;
        }
        if self.step {
            config.temporal = Temporal::Causal;
        }
        config.validate()?;
        let place = Place::choose(&self.device, self.dtype)?;
        if place.device.is_cpu() {
            let images = self.batch * self.frames;
            let what = format!(
                "{} at {} px over {images} frames",
                config.name, config.image_side_px
            );
            let value_bytes = place.dtype.size_in_bytes() as u64;
            memory::require(&what, config.forward_bytes(images, value_bytes))?;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .build()
            .context("thread pool")?;
        let threads = pool.current_num_threads();
        let Times {
            clips: times,
            steps,
            newest,
            memory: bytes,
            newest_counted,
        } = match self.is_executed(&place) {
            // What the executor runs on behind a stream.
            true => ThreadPool::new("masam-bench", Some(threads))?.install(|| self.times(&config, &place)),
            false => pool.install(|| self.times(&config, &place)),
        }?;
        let used_bytes = card::used_bytes(&place.device);
        let peak_gflops = match place.device.is_cpu() {
            true => pool.install(peak::gflops),
            false => card::gflops(&place)?,
        };
        let operations = config
            .operations(self.batch * self.frames, self.batch * self.frames)
            .total();
        let median = times[times.len() / 2];
        let mut report = serde_json::json!({
            "what": "masam",
            "engine": if self.is_executed(&place) { "executor" } else { "plain" },
            "version": env!("CARGO_PKG_VERSION"),
            "config": config.name,
            "image": config.image_side_px,
            "frames": self.frames,
            "batch": self.batch,
            "device": self.device.to_string(),
            "dtype": self.dtype.to_string(),
            "path": place.description,
            "threads": threads,
            "graph": self.graph,
            "runs": self.runs,
            "min_s": times[0],
            "median_s": median,
            "max_s": times[times.len() - 1],
            "operations": operations,
            "gflops": operations / median / 1e9,
            "peak_gflops": peak_gflops,
            "peak_rss_bytes": peak_rss_bytes(),
        });
        if let (true, Some(fields)) = (self.host, report.as_object_mut()) {
            let work = (self.frames, self.step);
            let seconds = host_time::seconds(&config, &place, work, (self.warmup, self.runs))?;
            fields.insert("host_p50_s".into(), host_time::quantile(&seconds, 0.5).into());
            fields.insert("host_p99_s".into(), host_time::quantile(&seconds, 0.99).into());
        }
        if let (Some(bytes), Some(fields)) = (used_bytes, report.as_object_mut()) {
            fields.insert("card_bytes".into(), bytes.into());
        }
        if let (Some(step), Some(fields)) = (steps.get(steps.len() / 2), report.as_object_mut()) {
            fields.insert("step_median_s".into(), (*step).into());
            fields.insert("step_over_clip".into(), (step / median).into());
        }
        if let (Some(newest), Some(fields)) = (newest.get(newest.len() / 2), report.as_object_mut()) {
            fields.insert("newest_median_s".into(), (*newest).into());
            fields.insert("newest_over_clip".into(), (newest / median).into());
        }
        if let (Some(counted), Some(fields)) = (newest_counted, report.as_object_mut()) {
            fields.insert("newest_over_clip_counted".into(), counted.into());
        }
        if let (Some([weights, buffers]), Some(fields)) = (bytes, report.as_object_mut()) {
            fields.insert("weight_bytes".into(), weights.into());
            fields.insert("buffer_bytes".into(), buffers.into());
        }
        println!("{report}");
        Ok(ExitCode::SUCCESS)
    }

    fn compare(&self) -> Result<()> {
        if self.size > 0
            || self.step
            || self.newest
            || self.plain
            || self.graph
            || self.host
            || self.threads > 0
        {
            bail!("--against-pytorch compares whole clips of a preset, with all threads");
        }
        let device = match self.device {
            DeviceChoice::Cuda(0) => "cuda".to_owned(),
            other => other.to_string(),
        };
        let common = [
            ("--config", self.config.clone()),
            ("--batch", self.batch.to_string()),
            ("--frames", self.frames.to_string()),
            ("--dtype", self.dtype.to_string()),
            ("--device", device),
        ];
        let comparison = Comparison {
            common: common
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value])
                .collect(),
            python: &self.python,
            variants: &self.variants,
            pairs: self.pairs,
            runs: self.runs,
        };
        comparison.run()
    }

    fn times(&self, config: &ModelConfig, place: &Place) -> Result<Times> {
        let side = config.image_side_px;
        let count = self.batch * self.frames * 3 * side * side;
        let values: Vec<f32> = uniform("clip", count).map(|u| ((u + 1.0) / 2.0) as f32).collect();
        match (self.is_executed(place), place.dtype) {
            (true, DType::BF16) => self.execute::<half::bf16>(config, &values),
            (true, _) => self.execute::<f32>(config, &values),
            (false, _) => self.plainly(config, place, values),
        }
    }

    /// Whether the executor runs where the device is a CPU.
    pub(super) fn executes(&self) -> bool {
        !self.plain && !self.against_pytorch
    }

    fn is_executed(&self, place: &Place) -> bool {
        place.device.is_cpu() && self.executes()
    }

    /// The executor: class ids of every frame.
    fn execute<N: Number>(&self, config: &ModelConfig, values: &[f32]) -> Result<Times> {
        let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
        let mut executor = Executor::<N>::load(config, weights)?;
        let pixels = config.image_side_px * config.image_side_px;
        let images = self.batch * self.frames;
        let picture = |image: usize| Picture::Planes(&values[image * 3 * pixels..(image + 1) * 3 * pixels]);
        let all: Vec<usize> = (0..images).collect();
        let newest: Vec<usize> = (1..=self.batch).map(|clip| clip * self.frames - 1).collect();
        let mut ids = vec![0u8; images * pixels];
        // Of streams, which clips have no need of.
        let streams = if self.step { self.batch } else { 0 };
        let mut states: Vec<State<N>> = (0..streams).map(|_| State::new(config)).collect();
        let mut times = Times::default();
        for run in 0..self.warmup + self.runs {
            let counts = run >= self.warmup;
            for (is_asked, outputs, kept) in [
                (true, &all, &mut times.clips),
                (self.newest, &newest, &mut times.newest),
            ] {
                if !is_asked {
                    continue;
                }
                let job = Job {
                    clips: self.batch,
                    frames: self.frames,
                    outputs,
                    picture: &picture,
                };
                let mut masks: Vec<Masks<'_>> = ids
                    .chunks_exact_mut(pixels)
                    .take(outputs.len())
                    .map(Masks::Labels)
                    .collect();
                let start = Instant::now();
                executor.clip(&job, &mut masks)?;
                kept.extend(counts.then_some(start.elapsed().as_secs_f64()));
            }
            if self.step {
                let mut masks: Vec<Masks<'_>> = ids
                    .chunks_exact_mut(pixels)
                    .take(self.batch)
                    .map(Masks::Labels)
                    .collect();
                let mut passing: Vec<&mut State<N>> = states.iter_mut().collect();
                let start = Instant::now();
                executor.step(&mut passing, &|stream| picture(stream * self.frames), &mut masks)?;
                times
                    .steps
                    .extend(counts.then_some(start.elapsed().as_secs_f64()));
            }
        }
        if self.newest {
            let operations = |outputs: &[usize]| executor.operations(self.batch, self.frames, outputs);
            times.newest_counted = Some(operations(&newest) / operations(&all));
        }
        times.memory = Some([executor.weight_bytes(), executor.buffer_bytes()]);
        Ok(times.sorted())
    }

    /// The plain forward: logits of every frame.
    fn plainly(&self, config: &ModelConfig, place: &Place, values: Vec<f32>) -> Result<Times> {
        let weights = FormulaWeights::builder(place.dtype, &place.device);
        let model = MaSam::new(config, FactMode::Folded, weights)?;
        let side = config.image_side_px;
        let clip = Tensor::from_vec(values, (self.batch, self.frames, 3, side, side), &Device::Cpu)?;
        let clip = clip.to_device(&place.device)?.to_dtype(place.dtype)?;
        let frame = clip.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?; // [batch, 3, side, side]
        let newest: Vec<u32> = (1..=self.batch)
            .map(|clip| (clip * self.frames - 1) as u32)
            .collect();
        let newest = Tensor::new(newest, &place.device)?;
        let mut state = match self.step {
            true => Some(CausalState::new(config, self.batch, place.dtype, &place.device)?),
            false => None,
        };
        let mut times = Times::default();
        let timed = |pass: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
            place.device.synchronize()?;
            let start = Instant::now();
            pass()?;
            place.device.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        // A recorded pass has to give what the plain one gives.
        let play = |recorded: &Recording, wanted: &Tensor| -> Result<()> {
            let apart = card::apart(recorded.play()?, wanted)?;
            if apart.is_nan() || apart > 1e-3 {
                bail!("the recorded pass gives something else: {apart:.1e} of the largest logit apart");
            }
            Ok(())
        };
        let recorded = match self.graph {
            true => {
                let model = model.clone();
                let logits = model.forward(&clip, &Prompts::default())?.logits;
                let pass = move |clip: &[Tensor]| Ok(model.forward(&clip[0], &Prompts::default())?.logits);
                let recorded = Recording::new(vec![clip.force_contiguous()?], pass)?;
                play(&recorded, &logits)?;
                Some(recorded)
            }
            false => None,
        };
        let recorded_step = match &state {
            Some(state) if self.graph => {
                let step = |model: &MaSam, frame: &Tensor, state: &CausalState| -> crate::Result<_> {
                    let (features, after) = model.step(frame, state)?;
                    let logits = model.decode(&features, &Prompts::default())?.logits;
                    Ok((logits, after))
                };
                let (owned, state_of_pass) = (model.clone(), state.clone());
                let pass = move |frame: &[Tensor]| {
                    let (logits, after) = step(&owned, &frame[0], &state_of_pass)?;
                    state_of_pass.overwrite(&after)?;
                    Ok(logits)
                };
                let recorded = Recording::new(vec![frame.force_contiguous()?], pass)?;
                // From the state that the recording's own passes have left, and from the one after.
                let (first, after) = step(&model, &frame, state)?;
                play(&recorded, &first)?;
                play(&recorded, &step(&model, &frame, &after)?.0)?;
                Some(recorded)
            }
            _ => None,
        };
        for run in 0..self.warmup + self.runs {
            let counts = run >= self.warmup;
            let seconds = timed(&mut || {
                match &recorded {
                    Some(recorded) => {
                        recorded.write(&[&clip])?;
                        recorded.play()?;
                    }
                    None => drop(model.forward(&clip, &Prompts::default())?),
                }
                Ok(())
            })?;
            times.clips.extend(counts.then_some(seconds));
            if self.newest {
                let seconds = timed(&mut || {
                    let features = model.encode_wanted(&clip, &newest)?;
                    model.decode(&features, &Prompts::default())?;
                    Ok(())
                })?;
                times.newest.extend(counts.then_some(seconds));
            }
            if let Some(state) = &mut state {
                let seconds = timed(&mut || {
                    if let Some(recorded) = &recorded_step {
                        recorded.write(&[&frame])?;
                        recorded.play()?;
                        return Ok(());
                    }
                    let (features, after) = model.step(&frame, state)?;
                    model.decode(&features, &Prompts::default())?;
                    *state = after;
                    Ok(())
                })?;
                times.steps.extend(counts.then_some(seconds));
            }
        }
        Ok(times.sorted())
    }
}

impl Times {
    fn sorted(mut self) -> Self {
        for times in [&mut self.clips, &mut self.steps, &mut self.newest] {
            times.sort_by(f64::total_cmp);
        }
        self
    }
}

/// Presets, and the tiny models that reference tensors are made with.
fn configuration(name: &str) -> Result<ModelConfig> {
    let tiny = ModelConfig {
        name: name.into(),
        image_side_px: 128,
        patch_side_px: 16,
        encoder_width: 32,
        encoder_depth: 4,
        encoder_heads: 2,
        global_blocks: vec![1, 3],
        partition_side: 3,
        adapter_width: 16,
        fact_rank: 4,
        prompt_width: 64,
        decoder_heads: 4,
        decoder_mlp_width: 64,
        ..ModelConfig::vit_b()
    };
    use crate::model::{Adapters, Decoder};
    Ok(match name {
        "tiny" => tiny,
        "tiny_odd" => ModelConfig {
            image_side_px: 112,
            partition_side: 5,
            encoder_heads: 4,
            fact_rank: 3,
            adapter_width: 12,
            classes: 5,
            ..tiny
        },
        "tiny_causal" => ModelConfig {
            temporal: Temporal::Causal,
            ..tiny
        },
        "tiny_sam" => ModelConfig {
            decoder: Decoder::Sam,
            classes: 2,
            ..tiny
        },
        "tiny_multi" => ModelConfig {
            decoder: Decoder::MultiScale,
            ..tiny
        },
        "tiny_before" => ModelConfig {
            adapters: Adapters::Before,
            ..tiny
        },
        "tiny_after" => ModelConfig {
            adapters: Adapters::After,
            ..tiny
        },
        preset => ModelConfig::preset(preset)?,
    })
}

/// Most memory this process has held at once, in bytes; 0 where the system does not tell.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

mod peak {
    //! What the machine can do: fused multiply-adds on registers alone, all cores at once.

    use crate::kernels::{math::mul_add, simd};
    use std::time::{Duration, Instant};

    /// Independent sums, enough to hide the latency of two units of sixteen lanes.
    const STRANDS: usize = 16 * 16;
    const ROUNDS: usize = 1 << 16;

    struct Loop {
        factor: f32,
    }

    impl simd::Body for Loop {
        type Output = f32;

        #[inline(always)]
        fn run<const FMA: bool>(self) -> f32 {
            let mut sums = [1f32; STRANDS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = mul_add::<FMA>(*sum, self.factor, 0.25);
                }
            }
            sums.iter().sum()
        }
    }

    /// Best of several slices of a tenth of a second, in GFLOP/s over all threads of the current pool.
    pub(super) fn gflops() -> f64 {
        let slice = || {
            let done = rayon::broadcast(|_| {
                let (start, mut rounds) = (Instant::now(), 0u64);
                while start.elapsed() < Duration::from_millis(100) {
                    std::hint::black_box(simd::dispatch(Loop {
                        factor: std::hint::black_box(0.5),
                    }));
                    rounds += 1;
                }
                (2 * (STRANDS * ROUNDS) as u64 * rounds) as f64 / start.elapsed().as_secs_f64()
            });
            done.iter().sum::<f64>() / 1e9
        };
        (0..10).map(|_| slice()).fold(0.0, f64::max)
    }
}
