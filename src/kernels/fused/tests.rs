use super::*;
use crate::kernels::attention::{Span, attention as attend};
use crate::kernels::{gelu::gelu, layer_norm::layer_norm, linear::linear};
use crate::model::weights::uniform;
use candle_core::{Device, Var};

const EPS: f64 = 1e-6;

fn values(name: &str, shape: &[usize], size: f64) -> Var {
    let count = shape.iter().product();
    let values: Vec<f32> = uniform(name, count).map(|u| (u * size) as f32).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Holds output and all gradients of a stage against those of the same operations one by one.
fn compare<S: Stage + 'static>(
    case: &str,
    x: &[usize],
    weights: &[&[usize]],
    stage: S,
    plain: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
) {
    let x = values(&format!("{case} x"), x, 1.0);
    let weights: Vec<Var> = (0..weights.len())
        .map(|i| values(&format!("{case} weight {i}"), weights[i], 0.5))
        .collect();
    let tensors: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
    let wanted = plain(&x, &tensors).unwrap();
    let got = fused(&x, &pack(&tensors.iter().collect::<Vec<_>>()).unwrap(), stage).unwrap();
    let slopes = values(&format!("{case} slopes"), wanted.dims(), 1.0);
    let gradients = |y: &Tensor| {
        (y * slopes.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap()
    };
    let near = |what: &str, got: &Tensor, wanted: &Tensor| {
        assert_eq!(got.dims(), wanted.dims(), "{case}, {what}");
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (got, wanted) = (flat(got), flat(wanted));
        let largest = wanted.iter().fold(0f32, |m, w| m.max(w.abs()));
        for (i, (g, w)) in got.iter().zip(&wanted).enumerate() {
            assert!(
                (g - w).abs() <= 2e-5 * largest.max(1e-3),
                "{case}, {what}, {i}: {g} for {w}"
            );
        }
        assert!(largest > 0.0, "{case}, {what}: all zero");
    };
    near("output", &got, &wanted);
    let (got, wanted) = (gradients(&got), gradients(&wanted));
    near("x", got.get(&x).unwrap(), wanted.get(&x).unwrap());
    for (i, weight) in weights.iter().enumerate() {
        near(
            &format!("weight {i}"),
            got.get(weight).unwrap(),
            wanted.get(weight).unwrap(),
        );
    }
}

#[test]
fn the_mlp_equals_its_operations() {
    for (images, height, width, channels, hidden) in [(1, 1, 1, 3, 2), (3, 2, 5, 7, 11), (9, 4, 3, 16, 40)] {
        let stage = MlpStage {
            tokens: height * width,
            width: channels,
            hidden,
            eps: EPS,
        };
        let shapes: [&[usize]; 6] = [
            &[channels],
            &[channels],
            &[hidden, channels],
            &[hidden],
            &[channels, hidden],
            &[channels],
        ];
        compare(
            &format!("mlp {images}"),
            &[images, height, width, channels],
            &shapes,
            stage,
            |x, w| {
                let inner = gelu(&linear(&layer_norm(x, &w[0], &w[1], EPS)?, &w[2], &w[3])?)?;
                x + linear(&inner, &w[4], &w[5])?
            },
        );
    }
}

#[test]
fn the_adapter_equals_its_operations() {
    for (clips, frames, before) in [(1, 1, 2), (2, 1, 1), (1, 2, 2), (5, 5, 1), (3, 5, 2), (2, 7, 0)] {
        let (height, width, channels, adapter) = (3, 2, 9, 5);
        let stage = AdapterStage {
            frames,
            tokens: height * width,
            width: channels,
            adapter,
            before,
            eps: EPS,
        };
        let shapes: [&[usize]; 6] = [
            &[channels],
            &[channels],
            &[adapter, channels],
            &[3, adapter, adapter],
            &[adapter],
            &[channels, adapter],
        ];
        let images = clips * frames;
        compare(
            &format!("adapter {clips} {frames} {before}"),
            &[images, height, width, channels],
            &shapes,
            stage,
            |x, w| {
                let none = Tensor::zeros(adapter, x.dtype(), x.device())?;
                let low = linear(&layer_norm(x, &w[0], &w[1], EPS)?, &w[2], &none)?
                    .reshape((clips, frames, height * width, adapter))?
                    .pad_with_zeros(1, before, 2 - before)?;
                let mut sum = w[4].clone();
                for tap in 0..3 {
                    sum = linear(&low.narrow(1, tap, frames)?, &w[3].get(tap)?, &sum)?;
                }
                linear(&gelu(&sum)?.reshape((images, height, width, adapter))?, &w[5], x)
            },
        );
    }
}

#[test]
fn attention_equals_its_operations() {
    // Whole grids, partitions that fit, and some that reach beyond the grid.
    for (images, height, width, heads, head_width, side) in
        [(2, 3, 3, 2, 4, 3), (1, 4, 6, 1, 3, 2), (5, 5, 4, 3, 2, 3)]
    {
        let channels = heads * head_width;
        let span = Span { heads, side };
        let stage = AttentionStage {
            grid: (height, width),
            width: channels,
            span,
            eps: EPS,
        };
        let shapes: [&[usize]; 7] = [
            &[channels],
            &[channels],
            &[3 * channels, channels],
            &[3 * channels],
            &[channels, channels],
            &[channels],
            &[2 * (2 * side - 1), head_width],
        ];
        compare(
            &format!("attention {images}"),
            &[images, height, width, channels],
            &shapes,
            stage,
            |x, w| {
                let qkv = linear(&layer_norm(x, &w[0], &w[1], EPS)?, &w[2], &w[3])?;
                x + linear(&attend(&qkv, &w[3], &w[6], span)?, &w[4], &w[5])?
            },
        );
    }
}

#[test]
fn frozen_weights_get_no_gradient_and_wrong_lengths_are_refused() {
    let stage = MlpStage {
        tokens: 4,
        width: 3,
        hidden: 5,
        eps: EPS,
    };
    let x = values("x", &[2, 2, 2, 3], 1.0);
    let frozen = values("w", &[stage.packed()], 0.5).as_tensor().detach();
    let y = fused(&x, &frozen, stage).unwrap();
    let found = y.sum_all().unwrap().backward().unwrap();
    assert!(found.get(&x).is_some() && found.get(&frozen).is_none());
    let short = values("w", &[stage.packed() - 1], 0.5);
    let error = fused(&x, &short, stage).unwrap_err().to_string();
    assert!(error.contains("mlp-stage"), "{error}");
    let odd = values("x", &[2, 2, 2, 2], 1.0);
    assert!(fused(&odd, &frozen, stage).is_err());
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let stage = MlpStage {
        tokens: 6,
        width: 8,
        hidden: 12,
        eps: EPS,
    };
    let x = values("threads x", &[11, 2, 3, 8], 1.0);
    let packed = values("threads w", &[stage.packed()], 0.5);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let y = fused(&x, &packed, stage).unwrap();
            let found = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            found.get(&packed).unwrap().to_vec1::<f32>().unwrap()
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn upscaling_equals_its_operations() {
    for (images, height, width, inputs, outputs, norm) in [
        (1, 1, 1, 2, 3, true),
        (6, 2, 3, 5, 4, true),
        (3, 4, 2, 4, 2, false),
    ] {
        let stage = UpscaleStage {
            grid: (height, width),
            inputs,
            outputs,
            norm_eps: norm.then_some(EPS),
        };
        let all: [&[usize]; 4] = [&[2, 2, outputs, inputs], &[outputs], &[outputs], &[outputs]];
        let shapes = if norm { &all[..] } else { &all[..2] };
        compare(
            &format!("upscale {images}"),
            &[images, height, width, inputs],
            shapes,
            stage,
            |x, w| {
                let bias = w[1].repeat(4)?;
                let y = linear(x, &w[0].reshape((4 * outputs, inputs))?, &bias)?
                    .reshape(&[images, height, width, 2, 2, outputs])?
                    .permute([0, 1, 3, 2, 4, 5])?
                    .reshape((images, 2 * height, 2 * width, outputs))?;
                gelu(&if norm {
                    layer_norm(&y, &w[2], &w[3], EPS)?
                } else {
                    y
                })
            },
        );
    }
}
