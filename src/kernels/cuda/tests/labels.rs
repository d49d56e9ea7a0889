//! Kernels at both ends of the model: bytes to planes, and logits to labels.

use super::super::plan::{self, Squares};
use super::super::{Element, host};
use super::memory::Memory;
use super::{ELEMENTS, rounded, seed, values};
use crate::kernels::prepare::Coded;
use crate::model::resize;
use candle_core::Tensor;

/// Checks labels and flags, `[images, pixels + 1]`, against logits `[images, classes, pixels]`: where another class is
/// chosen than the first of the best, it is one whose logit is as good within `slack`.
fn check(what: &str, bytes: &[u8], logits: &Tensor, slack: f32) {
    let (images, classes, pixels) = logits.dims3().unwrap();
    let logits = logits.to_vec3::<f32>().unwrap();
    assert_eq!(bytes.len(), images * (pixels + 1));
    for (image, (labels, logits)) in bytes.chunks_exact(pixels + 1).zip(&logits).enumerate() {
        let finite = logits.iter().flatten().all(|v| v.is_finite());
        assert_eq!(
            labels[pixels],
            u8::from(!finite),
            "{what}: the flag of image {image}"
        );
        for (pixel, label) in labels[..pixels].iter().enumerate() {
            let best = (0..classes).map(|c| logits[c][pixel]).fold(f32::MIN, f32::max);
            let chosen = logits[usize::from(*label)][pixel];
            assert!(
                !finite || chosen >= best - slack,
                "{what}: pixel {pixel} of image {image}"
            );
        }
    }
}

#[test]
fn labels_come_straight_from_the_last_product() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for ([images, height, width, channels], classes) in [
        ([1, 1, 1, 1], 1),
        ([2, 3, 5, 8], 12),
        ([1, 9, 9, 12], 255),
        ([1, 2, 3, 64], 3),
    ] {
        for (i, element) in ELEMENTS.into_iter().enumerate() {
            let product = values(
                element,
                &seed,
                "product",
                &[images, height, width, 2, 2, channels],
                2.0,
            );
            let bias = values(element, &seed, "bias", &[channels], 1.0);
            let kernels = values(element, &seed, "kernels", &[images, classes, channels], 1.0);
            let pixels = product
                .broadcast_add(&bias)
                .unwrap()
                .permute([0, 1, 3, 2, 4, 5])
                .unwrap()
                .reshape((images, 4 * height * width, channels))
                .unwrap()
                .gelu_erf()
                .unwrap();
            let logits = kernels.matmul(&pixels.t().unwrap()).unwrap();
            let mut inputs = [&product, &bias, &kernels].map(|t| Memory::of(element, t, 1));
            let mut y = Memory::of_bytes(&vec![0; images * (4 * height * width + 1)], 3);
            let squares = Squares {
                images,
                height,
                width,
                channels,
            };
            let [product, bias, kernels] = &mut inputs;
            let at = [product.address(), bias.address(), kernels.address(), y.address()];
            let launch = plan::labels_of_product(element, squares, classes, at).unwrap();
            host::launch(&launch, host::ORDERS[i]);
            check(&launch.kernel, &y.bytes(), &logits, 1e-4);
        }
    }
}

#[test]
fn labels_of_smaller_planes_are_enlarged() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for (shape, to, poison) in [
        ([1, 1, 1, 1], (3, 2), f32::NAN),
        ([2, 12, 8, 8], (32, 32), f32::INFINITY),
        ([1, 5, 7, 9], (20, 13), 1.0),
        ([2, 3, 6, 4], (6, 4), 1.0),
    ] {
        for (i, element) in ELEMENTS.into_iter().enumerate() {
            let logits = values(element, &seed, "logits", &shape, 3.0);
            let mut flat = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            flat[0] = rounded(element, poison);
            let logits = Tensor::from_vec(flat, &shape, logits.device()).unwrap();
            let [images, classes, ..] = shape;
            let large = resize::planes(&logits, to).unwrap();
            let large = large.reshape((images, classes, to.0 * to.1)).unwrap();
            let mut x = Memory::of(element, &logits, 0);
            let mut y = Memory::of_bytes(&vec![0; images * (to.0 * to.1 + 1)], 0);
            let launch = plan::labels_of_planes(element, shape, to, (x.address(), y.address())).unwrap();
            host::launch(&launch, host::ORDERS[i]);
            if images == 1 || poison == 1.0 {
                check(&launch.kernel, &y.bytes(), &large, 1e-4);
                continue;
            }
            // As products, the reference spreads what is not finite over its whole image; the kernel flags it as well.
            let bytes = y.bytes();
            let row = to.0 * to.1 + 1;
            assert_eq!((bytes[row - 1], bytes[2 * row - 1]), (1, 0));
        }
    }
}

#[test]
fn bytes_become_planes_through_their_clips_table() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    for (clips, frames, side) in [(1, 1, 1), (2, 3, 5), (1, 2, 16)] {
        for (i, element) in ELEMENTS.into_iter().enumerate() {
            let images = clips * frames;
            let bytes: Vec<u8> = byte_values(&seed, images * side * side * 3);
            let tables = values(Element::F32, &seed, "tables", &[clips, 256], 1.0);
            let mut x = Memory::of_bytes(&bytes, 5);
            let mut t = Memory::of(Element::F32, &tables, 0);
            let mut y = Memory::room(element, images * 3 * side * side, 0);
            let at = [x.address(), t.address(), y.address()];
            let launch = plan::prepare(element, Coded::Rgb, (images, side, frames), at).unwrap();
            host::launch(&launch, host::ORDERS[i]);
            let tables = tables.to_vec2::<f32>().unwrap();
            let got = y.floats(element);
            for image in 0..images {
                for pixel in 0..side * side {
                    for channel in 0..3 {
                        let byte = bytes[(image * side * side + pixel) * 3 + channel];
                        let wanted = rounded(element, tables[image / frames][usize::from(byte)]);
                        assert_eq!(got[(image * 3 + channel) * side * side + pixel], wanted);
                    }
                }
            }
        }
    }
}

#[test]
fn luma_and_chroma_become_planes() {
    if !host::is_here() {
        return;
    }
    let seed = seed();
    // BT.601, limited range, in 16 bits of fraction.
    let matrix = [16, 76_309, 104_597, -25_675, -53_279, 132_201];
    let side = 6;
    let bytes = byte_values(&seed, 2 * side * side * 3 / 2);
    let identity: Vec<f32> = (0..256).map(|v| v as f32).collect();
    let tables = Tensor::from_vec(identity, (1, 256), &candle_core::Device::Cpu).unwrap();
    let mut x = Memory::of_bytes(&bytes, 0);
    let mut t = Memory::of(Element::F32, &tables, 0);
    let mut y = Memory::room(Element::F32, 2 * 3 * side * side, 0);
    let at = [x.address(), t.address(), y.address()];
    let launch = plan::prepare(Element::F32, Coded::Nv12(matrix), (2, side, 2), at).unwrap();
    host::launch(&launch, 1);
    let got = y.floats(Element::F32);
    for image in 0..2 {
        let frame = &bytes[image * side * side * 3 / 2..];
        for pixel in 0..side * side {
            let (row, column) = (pixel / side, pixel % side);
            let chroma = side * side + row / 2 * side + column / 2 * 2;
            let (luma, u, v) = (
                1.164_383_56 * (f64::from(frame[pixel]) - 16.0),
                f64::from(frame[chroma]) - 128.0,
                f64::from(frame[chroma + 1]) - 128.0,
            );
            let wanted = [
                luma + 1.596_026_8 * v,
                luma - 0.391_762_3 * u - 0.812_967_6 * v,
                luma + 2.017_232_1 * u,
            ];
            for (channel, wanted) in wanted.into_iter().enumerate() {
                let got = f64::from(got[(image * 3 + channel) * side * side + pixel]);
                assert!(
                    (got - wanted.clamp(0.0, 255.0)).abs() <= 0.51,
                    "{got} for {wanted}"
                );
            }
        }
    }
    assert!(plan::prepare(Element::F32, Coded::Nv12(matrix), (1, 5, 1), at).is_err());
}

fn byte_values(seed: &str, count: usize) -> Vec<u8> {
    let name = format!("{seed} bytes");
    crate::model::weights::uniform(&name, count)
        .map(|u| ((u + 1.0) * 128.0) as u8)
        .collect()
}
