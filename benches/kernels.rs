//! Kernels against their plain references, at the sizes of vit_b on one frame of 512 px, and picture kernels on whole
//! frames.
//!
//! `cargo bench --bench kernels` or, for one of them, `cargo bench --bench kernels attention`.

mod pictures;

use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use masam::kernels::attention::Span;
use masam::kernels::{argmax, attention, gelu, layer_norm, linear, softmax};
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

criterion_group!(
    benches,
    kernels,
    pictures::resizes,
    pictures::fills,
    pictures::contours
);
criterion_main!(benches);
