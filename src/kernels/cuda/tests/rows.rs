//! Kernels that go through a tensor row by row or element by element.

use super::super::plan::{self, Epilogue, Frames, Rowwise, Squares};
use super::super::{Element, host};
use super::memory::Memory;
use super::{ELEMENTS, difference, seed, tolerance, values};
use crate::kernels::{layer_norm, softmax};
use candle_core::Tensor;

/// Each type, aligned and one element off, in different orders.
fn each(mut test: impl FnMut(Element, usize, u32)) {
    for (i, element) in ELEMENTS.into_iter().enumerate() {
        test(element, 0, host::ORDERS[i]);
        test(element, 1, host::ORDERS[2 - i]);
    }
}

#[test]
fn layer_norm_and_softmax_equal_their_references() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for (rows, width) in [(1, 1), (3, 3), (9, 17), (8, 64), (5, 768), (2, 1280), (17, 264)] {
        each(|element, shift, order| {
            let value = |name: &str, shape: &[usize], scale| values(element, &seed, name, shape, scale);
            // An offset that a variance from the mean of squares would drown in.
            let x = (value("x", &[rows, width], 3.0) + 8.0).unwrap();
            let mut x_memory = Memory::of(element, &x, shift);
            let x = Tensor::from_vec(x_memory.floats(element), (rows, width), x.device()).unwrap();
            let (weight, bias) = (value("weight", &[width], 1.0), value("bias", &[width], 1.0));
            let mut w = Memory::of(element, &weight, shift);
            let mut b = Memory::of(element, &bias, shift);
            let norm = Rowwise::LayerNorm {
                weight: w.address(),
                bias: b.address(),
                eps: 1e-6,
            };
            let wanted = [
                (norm, layer_norm::reference(&x, &weight, &bias, 1e-6).unwrap()),
                (Rowwise::Softmax, softmax::reference(&x).unwrap()),
            ];
            for (what, wanted) in wanted {
                let mut y = Memory::room(element, rows * width, shift);
                let launch =
                    plan::rowwise(element, what, (rows, width), (x_memory.address(), y.address())).unwrap();
                host::launch(&launch, order);
                let error = difference(&y.floats(element), &wanted);
                assert!(
                    error < tolerance(element),
                    "{} {rows}x{width} {error}",
                    launch.kernel
                );
            }
        });
    }
}

#[test]
fn an_epilogue_adds_and_activates() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for (rows, width) in [(1, 1), (5, 3), (33, 24), (3, 384), (7, 31)] {
        each(|element, shift, order| {
            let value = |name: &str, shape: &[usize]| values(element, &seed, name, shape, 3.0);
            let (x, bias, residual) = (
                value("x", &[rows, width]),
                value("bias", &[width]),
                value("residual", &[rows, width]),
            );
            for choice in 0..8 {
                let (has_bias, has_residual, gelu) = (choice & 1 > 0, choice & 2 > 0, choice & 4 > 0);
                let mut wanted = x.clone();
                let mut b = Memory::of(element, &bias, shift);
                let mut r = Memory::of(element, &residual, shift);
                if has_bias {
                    wanted = wanted.broadcast_add(&bias).unwrap();
                }
                if gelu {
                    wanted = wanted.gelu_erf().unwrap();
                }
                if has_residual {
                    wanted = (wanted + &residual).unwrap();
                }
                // In place, as after a product.
                let mut y = Memory::of(element, &x, shift);
                let what = Epilogue {
                    bias: if has_bias { b.address() } else { 0 },
                    residual: if has_residual { r.address() } else { 0 },
                    gelu,
                };
                let at = y.address();
                let launch = plan::epilogue(element, what, (rows, width), (at, at)).unwrap();
                host::launch(&launch, order);
                let error = difference(&y.floats(element), &wanted);
                assert!(
                    error < tolerance(element),
                    "{} {rows}x{width} {choice} {error}",
                    launch.kernel
                );
            }
        });
    }
}

#[test]
fn frames_lie_side_by_side() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    // Clips, centered and causal, and a step's window of three frames.
    for (clips, frames_in, frames_out, before) in [(2, 5, 5, 1), (1, 4, 4, 2), (3, 3, 1, 0), (1, 1, 1, 2)] {
        for (tokens, channels) in [(1, 1), (7, 12), (9, 64)] {
            each(|element, shift, order| {
                let x = values(element, &seed, "x", &[clips, frames_in, tokens, channels], 1.0);
                let padded = x.pad_with_zeros(1, before, 2).unwrap();
                let taps: Vec<Tensor> = (0..3).map(|t| padded.narrow(1, t, frames_out).unwrap()).collect();
                let wanted = Tensor::stack(&taps, 3).unwrap(); // [clips, frames_out, tokens, 3, channels]
                let mut input = Memory::of(element, &x, shift);
                let mut output = Memory::room(element, wanted.elem_count(), shift);
                let frames = Frames {
                    clips,
                    frames_in,
                    frames_out,
                    tokens,
                    channels,
                    before,
                };
                let launch = plan::temporal(element, frames, (input.address(), output.address())).unwrap();
                host::launch(&launch, order);
                assert_eq!(
                    difference(&output.floats(element), &wanted),
                    0.0,
                    "{} {frames:?}",
                    launch.kernel
                );
            });
        }
    }
}

#[test]
fn a_token_becomes_a_square_of_four() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for (images, height, width, channels) in [
        (1, 1, 1, 1),
        (2, 3, 2, 5),
        (1, 2, 5, 8),
        (1, 3, 3, 48),
        (2, 2, 3, 64),
        (1, 1, 2, 320),
    ] {
        each(|element, shift, order| {
            let value = |name: &str, shape: &[usize]| values(element, &seed, name, shape, 2.0);
            let product = value("product", &[images, height, width, 2, 2, channels]);
            let bias = value("bias", &[3, channels]);
            for eps in [None, Some(1e-6)] {
                let mut wanted = product
                    .broadcast_add(&bias.get(0).unwrap())
                    .unwrap()
                    .permute([0, 1, 3, 2, 4, 5])
                    .unwrap()
                    .reshape((images, 2 * height, 2 * width, channels))
                    .unwrap();
                if let Some(eps) = eps {
                    let (weight, shift) = (bias.get(1).unwrap(), bias.get(2).unwrap());
                    wanted = layer_norm::reference(&wanted, &weight, &shift, eps).unwrap();
                }
                let wanted = wanted.gelu_erf().unwrap();
                let mut x = Memory::of(element, &product, shift);
                let mut b = Memory::of(element, &bias, shift);
                let mut y = Memory::room(element, wanted.elem_count(), shift);
                let squares = Squares {
                    images,
                    height,
                    width,
                    channels,
                };
                let launch =
                    plan::upscale(element, squares, eps, [x.address(), b.address(), y.address()]).unwrap();
                host::launch(&launch, order);
                let error = difference(&y.floats(element), &wanted);
                assert!(
                    error < tolerance(element),
                    "{} {squares:?} {eps:?} {error}",
                    launch.kernel
                );
            }
        });
    }
}
