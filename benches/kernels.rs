//! Kernels against their plain references, at the sizes of vit_b on one frame of 512 px; stages of a training step at
//! those of the demo model; and picture kernels on whole frames.
//!
//! `cargo bench --bench kernels` or, for one of them, `cargo bench --bench kernels attention`.

mod pictures;

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use masam::kernels::attention::Span;
use masam::kernels::fused::{MlpStage, fused, pack};
use masam::kernels::packed::attention::{HeadOfSpan, Room, SpanAttention};
use masam::kernels::packed::{Number, Panels, Rows, Start, product};
use masam::kernels::{argmax, attention, class_product, gelu, layer_norm, linear, softmax};
use masam::model::weights::uniform;
use std::hint::black_box;

const TOKENS: usize = 1024;
const WIDTH: usize = 768;
const HEADS: usize = 12;

fn tensor(seed: &str, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = uniform(seed, shape.iter().product()).map(|u| u as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor of its own shape")
}

fn pair(
    criterion: &mut Criterion,
    name: &str,
    fast: impl Fn() -> candle_core::Result<Tensor>,
    plain: impl Fn() -> candle_core::Result<Tensor>,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.bench_function("fast", |b| b.iter(|| black_box(fast().expect("shapes fit"))));
    group.bench_function("reference", |b| {
        b.iter(|| black_box(plain().expect("shapes fit")))
    });
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let x = tensor("x", &[TOKENS, WIDTH]);
    let hidden = tensor("hidden", &[TOKENS, 4 * WIDTH]);
    let (weight, bias) = (
        tensor("weight", &[4 * WIDTH, WIDTH]),
        tensor("bias", &[4 * WIDTH]),
    );
    let (scale, shift) = (tensor("scale", &[WIDTH]), tensor("shift", &[WIDTH]));
    let linear_fast = || linear::linear(&x, &weight, &bias);
    pair(criterion, "linear 1024x768->3072", linear_fast, || {
        linear::reference(&x, &weight, &bias)
    });
    let norm_fast = || layer_norm::layer_norm(&x, &scale, &shift, 1e-6);
    pair(criterion, "layer norm 1024x768", norm_fast, || {
        layer_norm::reference(&x, &scale, &shift, 1e-6)
    });
    pair(
        criterion,
        "gelu 1024x3072",
        || gelu::gelu(&hidden),
        || gelu::reference(&hidden),
    );
    pair(
        criterion,
        "softmax 1024x3072",
        || softmax::softmax(&hidden),
        || softmax::reference(&hidden),
    );

    let qkv = tensor("qkv", &[1, 32, 32, 3 * WIDTH]);
    let qkv_bias = tensor("qkv bias", &[3 * WIDTH]);
    for side in [14, 32] {
        let relative = tensor("relative", &[2 * (2 * side - 1), WIDTH / HEADS]);
        let span = Span { heads: HEADS, side };
        pair(
            criterion,
            &format!("attention 32x32, side {side}"),
            || attention::attention(&qkv, &qkv_bias, &relative, span),
            || attention::reference(&qkv, &qkv_bias, &relative, span),
        );
    }

    let (classes, pixels) = (
        tensor("classes", &[1, 12, 32]),
        tensor("pixels", &[1, 512 * 512, 32]),
    );
    pair(
        criterion,
        "class product 12x32, 512x512",
        || class_product::class_product(&classes, &pixels),
        || class_product::reference(&classes, &pixels),
    );

    let logits: Vec<f32> = uniform("logits", 12 * 512 * 512).map(|u| u as f32).collect();
    let mut group = criterion.benchmark_group("argmax 12x512x512");
    group.sample_size(10);
    group.bench_function("fast", |b| {
        b.iter(|| black_box(argmax::argmax(black_box(&logits), 12)))
    });
    group.bench_function("reference", |b| {
        b.iter(|| black_box(argmax::reference(black_box(&logits), 12)))
    });
    group.finish();
}

/// The executor's products and attention on one thread, float32 and bfloat16, beside the reference on all of them.
fn packed(criterion: &mut Criterion) {
    fn numbers<N: Number>(seed: &str, count: usize) -> Vec<N> {
        uniform(seed, count).map(|u| N::of(u as f32)).collect()
    }
    fn products<N: Number>(criterion: &mut Criterion) {
        const ROWS: usize = 128;
        if let Err(error) = N::lanes() {
            println!("skipped: {error}");
            return;
        }
        let mut group = criterion.benchmark_group(format!("packed product {}", N::NAME));
        group.sample_size(20);
        for (inputs, outputs) in [(WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 384), (64, 1024)] {
            let weight: Vec<f32> = numbers("weight", inputs * outputs);
            let panels = Panels::<N>::of_weight(&weight, outputs, inputs).expect("its own size");
            let (left, mut output) = (numbers::<N>("left", ROWS * inputs), vec![0.0; ROWS * outputs]);
            group.throughput(Throughput::Elements((2 * ROWS * inputs * outputs) as u64));
            group.bench_function(format!("{ROWS}x{inputs}->{outputs}"), |b| {
                b.iter(|| {
                    let left = Rows::new(black_box(&left), ROWS, inputs);
                    product(&mut output, outputs, Start::Zero, left, &panels.all()).expect("sizes fit");
                    black_box(&mut output);
                })
            });
        }
        group.finish();
    }
    fn spans<N: Number>(criterion: &mut Criterion) {
        if N::lanes().is_err() {
            return;
        }
        let mut group = criterion.benchmark_group(format!("packed attention 32x32 {}", N::NAME));
        group.sample_size(10);
        let (qkv, bias) = (
            numbers::<N>("qkv", TOKENS * 3 * WIDTH),
            numbers::<f32>("qkv bias", 3 * WIDTH),
        );
        for side in [14, 32] {
            let relative: Vec<f32> = numbers("relative", 2 * (2 * side - 1) * WIDTH / HEADS);
            let attention =
                SpanAttention::<N>::new((32, 32), HEADS, side, &bias, &relative).expect("sizes fit");
            let mut room = Room::default();
            group.bench_function(format!("side {side}"), |b| {
                b.iter(|| {
                    let (down, across) = attention.spans();
                    for unit in 0..down * across * HEADS {
                        let at = unit / HEADS;
                        let corner = (at / across * side, at % across * side);
                        let (rows, columns) = attention.extent(corner);
                        let part = HeadOfSpan {
                            corner,
                            head: unit % HEADS,
                            queries: 0..rows * columns,
                        };
                        let write = |token, values: &[f32]| {
                            black_box((token, values));
                        };
                        attention
                            .run(&mut room, black_box(&qkv), &part, write)
                            .expect("sizes fit");
                    }
                })
            });
        }
        group.finish();
    }
    products::<f32>(criterion);
    products::<half::bf16>(criterion);
    spans::<f32>(criterion);
    spans::<half::bf16>(criterion);
}

/// One MLP of the demo model on eight images, there and back: as one operation, and layer by layer.
fn training(criterion: &mut Criterion) {
    const DEMO_WIDTH: usize = 192;
    const EPS: f64 = 1e-6;
    let var = |name: &str, shape: &[usize]| Var::from_tensor(&tensor(name, shape)).expect("a variable");
    let x = var("x", &[8, 16, 16, DEMO_WIDTH]);
    let hidden = 4 * DEMO_WIDTH;
    let weights = [
        var("norm", &[DEMO_WIDTH]),
        var("norm bias", &[DEMO_WIDTH]),
        var("first", &[hidden, DEMO_WIDTH]),
        var("first bias", &[hidden]),
        var("second", &[DEMO_WIDTH, hidden]),
        var("second bias", &[DEMO_WIDTH]),
    ];
    let [norm, norm_bias, first, first_bias, second, second_bias] = weights.each_ref().map(Var::as_tensor);
    let gradient = |y: Tensor| {
        let found = y.sum_all()?.backward()?;
        Ok(found.get(x.as_tensor()).cloned().unwrap_or(y))
    };
    let stage = MlpStage {
        tokens: 256,
        width: DEMO_WIDTH,
        hidden,
        eps: EPS,
    };
    pair(
        criterion,
        "mlp 8x256x192 there and back",
        || {
            let packed = pack(&[norm, norm_bias, first, first_bias, second, second_bias])?;
            gradient(fused(&x, &packed, stage)?)
        },
        || {
            let inner = linear::linear(
                &layer_norm::layer_norm(&x, norm, norm_bias, EPS)?,
                first,
                first_bias,
            )?;
            let inner = linear::linear(&gelu::gelu(&inner)?, second, second_bias)?;
            gradient((x.as_tensor() + inner)?)
        },
    );
}

criterion_group!(
    benches,
    kernels,
    packed,
    training,
    pictures::resizes,
    pictures::fills,
    pictures::contours,
    pictures::texts
);
criterion_main!(benches);
