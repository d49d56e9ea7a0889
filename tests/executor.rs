//! The executor against the plain forward: every decoder, adapter position and prompt, odd sizes, several clips, some
//! of the outputs, one frame at a time, any number of threads.

use candle_core::{DType, Device, Tensor};
use half::bf16;
use masam::kernels::packed::Number;
use masam::model::weights::uniform;
use masam::model::{Adapters, Decoder, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use masam::runtime::executor::{Executor, Job, Masks, Picture, State};
use masam::segmenter::Temporal;

/// Largest difference to the plain forward, relative to the largest logit.
const TOLERANCE: f32 = 5e-5;

fn small() -> ModelConfig {
    ModelConfig {
        name: "small".into(),
        image_side_px: 64,
        patch_side_px: 8,
        encoder_width: 48,
        encoder_depth: 4,
        encoder_heads: 3,
        global_blocks: vec![1, 3],
        partition_side: 3,
        adapter_width: 20,
        fact_rank: 4,
        prompt_width: 64,
        decoder_heads: 4,
        decoder_mlp_width: 40,
        ..ModelConfig::demo()
    }
}

fn model(config: &ModelConfig) -> MaSam {
    let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
    MaSam::new(config, FactMode::Folded, weights).unwrap()
}

fn pixels(config: &ModelConfig, images: usize) -> Vec<f32> {
    let side = config.image_side_px;
    uniform("executor", images * 3 * side * side)
        .map(|u| ((u + 1.0) / 2.0) as f32)
        .collect()
}

/// Logits of all images by the plain forward, `[images, classes * side * side]`.
fn plain(
    config: &ModelConfig,
    pixels: &[f32],
    clips: usize,
    frames: usize,
    prompts: &Prompts,
) -> Vec<Vec<f32>> {
    let side = config.image_side_px;
    let clip = Tensor::from_slice(pixels, (clips, frames, 3, side, side), &Device::Cpu).unwrap();
    let logits = model(config).forward(&clip, prompts).unwrap().logits;
    logits.flatten_from(1).unwrap().to_vec2().unwrap()
}

/// Logits of some images by the executor.
fn executed<N: Number>(
    executor: &mut Executor<N>,
    pixels: &[f32],
    (clips, frames): (usize, usize),
    outputs: &[usize],
) -> Vec<Vec<f32>> {
    let config = executor.config().clone();
    let area = config.image_side_px.pow(2);
    let picture = |image: usize| Picture::Planes(&pixels[image * 3 * area..(image + 1) * 3 * area]);
    let job = Job {
        clips,
        frames,
        outputs,
        picture: &picture,
    };
    let mut logits = vec![vec![f32::NAN; config.classes * area]; outputs.len()];
    let mut masks: Vec<Masks<'_>> = logits.iter_mut().map(|values| Masks::Logits(values)).collect();
    let not_finite = executor.clip(&job, &mut masks).unwrap();
    assert!(not_finite.iter().all(|count| *count == 0));
    logits
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

fn near(what: &str, got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let scale = largest(wanted);
    let worst = got.iter().zip(wanted).fold(0f32, |worst, (a, b)| {
        let apart = (a - b).abs();
        if apart.is_finite() {
            worst.max(apart)
        } else {
            f32::INFINITY
        }
    });
    assert!(worst <= TOLERANCE * scale, "{what}: {worst} of {scale}");
}

#[test]
fn every_decoder_and_adapter_position_gives_the_plain_forward() {
    for decoder in [Decoder::Progressive, Decoder::Sam, Decoder::MultiScale] {
        for adapters in [Adapters::Both, Adapters::Before, Adapters::After, Adapters::None] {
            for temporal in [Temporal::Centered, Temporal::Causal] {
                let config = ModelConfig {
                    decoder,
                    adapters,
                    temporal,
                    ..small()
                };
                let what = format!("{decoder:?} {adapters:?} {temporal:?}");
                let pixels = pixels(&config, 6);
                let wanted = plain(&config, &pixels, 2, 3, &Prompts::default());
                let mut executor = Executor::<f32>::new(model(&config)).unwrap();
                // All outputs, then fewer with the same buffers, then all again.
                for outputs in [&[0, 1, 2, 3, 4, 5][..], &[2], &[1, 5], &[0, 1, 2, 3, 4, 5]] {
                    let got = executed(&mut executor, &pixels, (2, 3), outputs);
                    for (image, got) in outputs.iter().zip(&got) {
                        near(&format!("{what} {outputs:?} image {image}"), got, &wanted[*image]);
                    }
                }
            }
        }
    }
}

#[test]
fn odd_sizes_give_the_plain_forward() {
    let odd = [
        // Partitions that do not divide the grid, and one larger than it.
        (40, 5, 3, 5, 12),
        (24, 20, 1, 2, 5),
        // One token.
        (8, 3, 1, 1, 2),
        (56, 7, 7, 2, 17),
    ];
    for (side, partition, frames, heads, classes) in odd {
        let config = ModelConfig {
            image_side_px: side,
            partition_side: partition,
            encoder_heads: heads,
            encoder_width: 10 * heads,
            adapter_width: 7,
            classes,
            ..small()
        };
        let what =
            format!("side {side}, partition {partition}, {frames} frames, {heads} heads, {classes} classes");
        let pixels = pixels(&config, frames);
        let wanted = plain(&config, &pixels, 1, frames, &Prompts::default());
        let outputs: Vec<usize> = (0..frames).collect();
        let mut executor = Executor::<f32>::new(model(&config)).unwrap();
        let got = executed(&mut executor, &pixels, (1, frames), &outputs);
        for (image, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            near(&format!("{what}, image {image}"), got, wanted);
        }
    }
}

#[test]
fn prompts_are_heeded_and_forgotten() {
    let config = small();
    let pixels = pixels(&config, 2);
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let mask: Vec<f32> = uniform("mask", 32 * 32).map(|u| u as f32).collect();
    let prompted = [
        Prompts {
            boxes: Some(tensor(&[8.0, 4.0, 50.0, 60.0], &[1, 4])),
            ..Prompts::default()
        },
        Prompts {
            points: Some(tensor(&[20.0, 30.0, 50.0, 9.0], &[1, 2, 2])),
            point_labels: Some(tensor(&[1.0, 0.0], &[1, 2])),
            masks: Some(tensor(&mask, &[1, 1, 32, 32])),
            ..Prompts::default()
        },
        Prompts::default(),
    ];
    let mut executor = Executor::<f32>::new(model(&config)).unwrap();
    let bare = executed(&mut executor, &pixels, (1, 2), &[0, 1]);
    for (index, prompts) in prompted.iter().enumerate() {
        executor.prompt(prompts).unwrap();
        let got = executed(&mut executor, &pixels, (1, 2), &[0, 1]);
        let wanted = plain(&config, &pixels, 1, 2, prompts);
        for (got, wanted) in got.iter().zip(&wanted) {
            near(&format!("prompt {index}"), got, wanted);
        }
        assert_eq!(got == bare, index == 2, "prompt {index} is told from none");
    }
}

#[test]
fn labels_and_probabilities_are_those_of_the_logits() {
    for decoder in [Decoder::Progressive, Decoder::Sam] {
        let config = ModelConfig { decoder, ..small() };
        let (area, classes) = (config.image_side_px.pow(2), config.classes);
        let pixels = pixels(&config, 1);
        let mut executor = Executor::<f32>::new(model(&config)).unwrap();
        let logits = executed(&mut executor, &pixels, (1, 1), &[0]).remove(0);
        let job = Job {
            clips: 1,
            frames: 1,
            outputs: &[0],
            picture: &|_| Picture::Planes(&pixels),
        };
        let (mut ids, mut values) = (vec![0u8; area], vec![0f32; classes * area]);
        executor.clip(&job, &mut [Masks::Labels(&mut ids)]).unwrap();
        executor
            .clip(&job, &mut [Masks::Probabilities(&mut values)])
            .unwrap();
        for pixel in 0..area {
            let of = |planes: &[f32]| -> Vec<f32> {
                (0..classes).map(|class| planes[class * area + pixel]).collect()
            };
            let (logits, values) = (of(&logits), of(&values));
            let best = (0..classes).fold(
                0,
                |best, class| if logits[class] > logits[best] { class } else { best },
            );
            assert_eq!(usize::from(ids[pixel]), best, "{decoder:?} pixel {pixel}");
            let sum: f32 = logits.iter().map(|logit| (logit - logits[best]).exp()).sum();
            for (logit, value) in logits.iter().zip(&values) {
                assert!(
                    ((logit - logits[best]).exp() / sum - value).abs() < 1e-5,
                    "{decoder:?} pixel {pixel}"
                );
            }
        }
    }
}

#[test]
fn steps_of_several_streams_give_the_causal_forward() {
    for (adapters, decoder) in [
        (Adapters::Both, Decoder::MultiScale),
        (Adapters::Before, Decoder::Sam),
        (Adapters::After, Decoder::Progressive),
        (Adapters::None, Decoder::MultiScale),
    ] {
        let config = ModelConfig {
            adapters,
            decoder,
            ..small()
        };
        let (streams, frames) = (2, 6);
        let pixels = pixels(&config, streams * frames);
        let area = config.image_side_px.pow(2);
        let wanted = plain(&config, &pixels, streams, frames, &Prompts::default());
        let mut executor = Executor::<f32>::new(model(&config)).unwrap();
        let mut states: Vec<State<f32>> = (0..streams).map(|_| State::new(&config)).collect();
        for frame in 0..frames {
            let mut logits = vec![vec![0f32; config.classes * area]; streams];
            let mut masks: Vec<Masks<'_>> = logits.iter_mut().map(|values| Masks::Logits(values)).collect();
            let mut passing: Vec<&mut State<f32>> = states.iter_mut().collect();
            let picture = |stream: usize| {
                let image = stream * frames + frame;
                Picture::Planes(&pixels[image * 3 * area..(image + 1) * 3 * area])
            };
            executor.step(&mut passing, &picture, &mut masks).unwrap();
            for (stream, got) in logits.iter().enumerate() {
                let what = format!("{adapters:?}, stream {stream}, frame {frame}");
                near(&what, got, &wanted[stream * frames + frame]);
            }
            // A state goes on from its bytes as it would have gone on by itself.
            for state in &mut states {
                *state = State::from_bytes(&state.to_bytes(), &config).unwrap();
            }
        }
    }
}

#[test]
fn a_step_that_fails_leaves_its_state() {
    let config = small();
    let area = config.image_side_px.pow(2);
    let pixels = pixels(&config, 1);
    let mut executor = Executor::<f32>::new(model(&config)).unwrap();
    let mut state = State::new(&config);
    let mut ids = vec![0u8; area];
    let mut step = |state: &mut State<f32>, pixels: &[f32]| {
        let picture = |_: usize| Picture::Planes(pixels);
        executor
            .step(&mut [state], &picture, &mut [Masks::Labels(&mut ids)])
            .map(<[usize]>::to_vec)
    };
    step(&mut state, &pixels).unwrap();
    let before = state.to_bytes();
    assert!(
        step(&mut state, &pixels[1..]).is_err(),
        "a picture of the wrong size"
    );
    assert_eq!(state.to_bytes(), before);
    let mut poisoned = pixels.clone();
    poisoned[77] = f32::NAN;
    assert!(step(&mut state, &poisoned).unwrap()[0] > 0);
    assert_eq!(state.to_bytes(), before);
    step(&mut state, &pixels).unwrap();
    assert_ne!(state.to_bytes(), before);
    let other = ModelConfig {
        adapter_width: 8,
        ..small()
    };
    assert!(
        step(&mut State::new(&other), &pixels).is_err(),
        "another model's state"
    );
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let config = small();
    let pixels = pixels(&config, 5);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut executor = Executor::<f32>::new(model(&config)).unwrap();
            executed(&mut executor, &pixels, (1, 5), &[0, 4])
        })
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn jobs_that_do_not_fit_are_refused() {
    let config = small();
    let area = config.image_side_px.pow(2);
    let pixels = pixels(&config, 2);
    let mut executor = Executor::<f32>::new(model(&config)).unwrap();
    let mut run = |outputs: &[usize], lengths: &[usize], pixels: &[f32]| {
        let mut ids: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0; *length]).collect();
        let mut masks: Vec<Masks<'_>> = ids.iter_mut().map(|ids| Masks::Labels(ids)).collect();
        let job = Job {
            clips: 1,
            frames: 2,
            outputs,
            picture: &|_| Picture::Planes(pixels),
        };
        executor.clip(&job, &mut masks).is_ok()
    };
    let frame = &pixels[..3 * area];
    assert!(run(&[0, 1], &[area, area], frame));
    assert!(!run(&[], &[], frame), "no output");
    assert!(!run(&[1, 0], &[area, area], frame), "not ascending");
    assert!(!run(&[2], &[area], frame), "no such image");
    assert!(!run(&[1], &[area - 1], frame), "a mask too short");
    assert!(!run(&[0, 1], &[area], frame), "a mask too few");
    assert!(!run(&[1], &[area], &frame[1..]), "a picture too short");
    assert!(run(&[1], &[area], frame), "and all is well afterwards");
    let two = Tensor::zeros((2, 1, 32, 32), DType::F32, &Device::Cpu).unwrap();
    let prompts = Prompts {
        masks: Some(two),
        ..Prompts::default()
    };
    assert!(executor.prompt(&prompts).is_err(), "a mask for each image");
    let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
    let apart = MaSam::new(&config, FactMode::Apart, weights).unwrap();
    assert!(Executor::<f32>::new(apart).is_err(), "FacT apart");
}

#[test]
fn a_picture_of_nan_is_counted() {
    let config = small();
    let area = config.image_side_px.pow(2);
    let poison = vec![f32::NAN; 3 * area];
    let good = pixels(&config, 1);
    let mut executor = Executor::<f32>::new(model(&config)).unwrap();
    let mut ids = [vec![0u8; area], vec![0u8; area]];
    let [first, second] = &mut ids;
    let job = Job {
        clips: 2,
        frames: 1,
        outputs: &[0, 1],
        picture: &|image| Picture::Planes(if image == 0 { &poison } else { &good }),
    };
    let mut masks = [Masks::Labels(first), Masks::Labels(second)];
    let not_finite = executor.clip(&job, &mut masks).unwrap();
    let logits = config.classes * config.decoded_side_px().pow(2);
    assert_eq!(not_finite[0], logits, "the poisoned clip");
    assert_eq!(not_finite[1], 0, "the clip beside it");
}

#[test]
fn bfloat16_stays_near_float32() {
    if let Err(error) = bf16::lanes() {
        println!("SKIPPED: {error}");
        return;
    }
    let config = ModelConfig {
        image_side_px: 128,
        patch_side_px: 16,
        ..small()
    };
    let pixels = pixels(&config, 5);
    let wanted = plain(&config, &pixels, 1, 5, &Prompts::default());
    let mut executor = Executor::<bf16>::new(model(&config)).unwrap();
    let got = executed(&mut executor, &pixels, (1, 5), &[0, 2, 4]);
    for (image, got) in [0, 2, 4].into_iter().zip(&got) {
        let wanted = &wanted[image];
        let squares: f32 = got.iter().zip(wanted).map(|(a, b)| (a - b).powi(2)).sum();
        let rms = (squares / got.len() as f32).sqrt() / largest(wanted);
        println!("image {image}: rms {rms:e} of the largest logit");
        assert!(rms <= 6e-3, "image {image}: {rms}");
        assert!(rms > 1e-6, "image {image} was not rounded at all");
    }
    let odd = ModelConfig {
        adapter_width: 7,
        ..small()
    };
    let error = Executor::<bf16>::new(model(&odd)).unwrap_err().to_string();
    assert!(error.contains("adapter_width"), "{error}");
}
