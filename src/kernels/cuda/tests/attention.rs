//! Both kernels of attention.

use super::super::plan::{self, AttentionTensors};
use super::super::{Element, host};
use super::memory::Memory;
use super::{ELEMENTS, difference, seed, tolerance, values};
use crate::kernels::attention::{Sizes, Span, reference};

/// Runs one size, and gives the kernel's name and its distance from the reference.
fn run(element: Element, sizes: Sizes, shift: usize, order: u32) -> (String, f32) {
    let Sizes {
        images,
        height,
        width,
        heads,
        head_width,
        side,
    } = sizes;
    let channels = heads * head_width;
    let seed = format!("{} {sizes:?}", seed());
    let qkv = values(element, &seed, "qkv", &[images, height, width, 3 * channels], 2.0);
    let bias = values(element, &seed, "bias", &[3 * channels], 2.0);
    let relative = values(element, &seed, "relative", &[2 * (2 * side - 1), head_width], 0.5);
    let wanted = reference(&qkv, &bias, &relative, Span { heads, side }).unwrap();
    let mut inputs = [&qkv, &bias, &relative].map(|t| Memory::of(element, t, shift));
    let mut output = Memory::room(element, images * height * width * channels, shift);
    let [qkv, bias, relative] = &mut inputs;
    let tensors = AttentionTensors {
        qkv: qkv.address(),
        bias: bias.address(),
        relative: relative.address(),
        output: output.address(),
    };
    let launch = plan::attention(element, &sizes, tensors).unwrap();
    host::launch(&launch, order);
    (launch.kernel, difference(&output.floats(element), &wanted))
}

fn sizes([images, height, width, side, heads, head_width]: [usize; 6]) -> Sizes {
    Sizes {
        images,
        height,
        width,
        heads,
        head_width,
        side,
    }
}

/// Single tokens, whole grids, exact and padded partitions, one larger than the grid, several tiles of keys, rows of
/// queries that end inside a warp, heads narrower than what is compiled.
const SIZES: [[usize; 6]; 10] = [
    [1, 1, 1, 1, 1, 8],
    [2, 3, 3, 3, 2, 16],
    [1, 7, 7, 3, 3, 24],
    [2, 5, 5, 14, 1, 64],
    [1, 4, 9, 4, 2, 40],
    [1, 18, 17, 14, 2, 80],
    [1, 14, 14, 14, 1, 64],
    [1, 12, 12, 12, 1, 128],
    [1, 9, 21, 21, 2, 64],
    [1, 23, 23, 8, 3, 64],
];

#[test]
fn tensor_cores_equal_the_reference() {
    if !host::is_here() {
        return;
    }
    for element in [Element::Bf16, Element::F16] {
        for (i, size) in SIZES.into_iter().enumerate() {
            let (kernel, error) = run(element, sizes(size), 0, host::ORDERS[i % 3]);
            println!("{kernel} {size:?} {error:.1e}");
            assert!(
                !kernel.contains("plain") && error < tolerance(element),
                "{kernel} {size:?} {error}"
            );
        }
    }
}

#[test]
fn the_order_of_threads_makes_no_difference() {
    if !host::is_here() {
        return;
    }
    for size in [[1, 6, 5, 4, 1, 32], [1, 18, 17, 14, 1, 80]] {
        let errors = host::ORDERS.map(|order| run(Element::Bf16, sizes(size), 0, order).1);
        assert!(
            errors.iter().all(|e| *e == errors[0] && *e < 1e-2),
            "{size:?} {errors:?}"
        );
    }
}

#[test]
fn a_grid_of_32_by_32_tokens_is_one_span() {
    if !host::is_here() {
        return;
    }
    for (element, head_width) in [(Element::Bf16, 80), (Element::F16, 64)] {
        let (kernel, error) = run(element, sizes([1, 32, 32, 32, 1, head_width]), 0, 1);
        println!("{kernel} {error:.1e}");
        assert!(error < tolerance(element), "{kernel} {error}");
    }
}

#[test]
fn the_plain_kernel_equals_the_reference() {
    if !host::is_here() {
        return;
    }
    let odd = [[1, 3, 2, 2, 2, 5], [2, 4, 4, 4, 1, 33], [1, 2, 2, 3, 1, 200]];
    for (i, size) in odd.into_iter().chain(SIZES.into_iter().step_by(3)).enumerate() {
        for element in ELEMENTS {
            // Off by one element, no address is fit for tensor cores.
            let (kernel, error) = run(element, sizes(size), 1, host::ORDERS[i % 3]);
            assert!(
                kernel.contains("plain") && error < tolerance(element),
                "{kernel} {size:?} {error}"
            );
        }
    }
}

#[test]
fn every_model_has_a_kernel() {
    // vit_b, vit_h and demo, partitions and whole grids, and twice the side.
    for (heads, head_width) in [(12, 64), (16, 80), (3, 64)] {
        for side in [8, 14, 16, 32, 64] {
            let grid = if side < 16 { 32 } else { side };
            let size = sizes([5, grid, grid, side, heads, head_width]);
            assert!(plan::has_attention(&size), "{size:?}");
            let tensors = AttentionTensors {
                qkv: 256,
                bias: 512,
                relative: 1024,
                output: 4096,
            };
            let launch = plan::attention(Element::Bf16, &size, tensors).unwrap();
            assert!(!launch.kernel.contains("plain"), "{}", launch.kernel);
            assert!(launch.shared_bytes <= 99 << 10 && launch.threads >= 96);
        }
    }
    assert!(!plan::has_attention(&sizes([1, 4, 4, 4, 1, 300])));
}
