//! The kernels' own sources, launched by the plans that a card gets, against the references: odd sizes, every type,
//! aligned and not, threads taken up in several orders.

mod attention;
mod labels;
mod memory;
mod rows;

use super::Element;
use crate::model::weights::uniform;
use candle_core::{Device, Tensor};

const ELEMENTS: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];

/// `MASAM_SEED`, or always the same; printed, so that a failure can be had again.
fn seed() -> String {
    let seed = std::env::var("MASAM_SEED").unwrap_or_else(|_| "1".into());
    println!("MASAM_SEED={seed}");
    seed
}

/// Values in [-scale, scale) that `element` can hold, as a tensor of float32.
fn values(element: Element, seed: &str, name: &str, shape: &[usize], scale: f64) -> Tensor {
    let values: Vec<f32> = uniform(&format!("{seed} {name}"), shape.iter().product())
        .map(|u| rounded(element, (u * scale) as f32))
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn rounded(element: Element, value: f32) -> f32 {
    match element {
        Element::F32 => value,
        Element::Bf16 => half::bf16::from_f32(value).to_f32(),
        Element::F16 => half::f16::from_f32(value).to_f32(),
    }
}

/// What rounding to the type leaves of a sum of order one, with room for a few of them.
fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => 2e-5,
        Element::Bf16 => 1e-2,
        Element::F16 => 2e-3,
    }
}

/// Largest difference over the largest magnitude.
fn difference(got: &[f32], wanted: &Tensor) -> f32 {
    let wanted = wanted.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(got.len(), wanted.len());
    let largest = wanted.iter().fold(1e-20f32, |m, w| m.max(w.abs()));
    let differences = got.iter().zip(&wanted).map(|(g, w)| (g - w).abs());
    // f32::max would pass over NaN.
    differences.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m }) / largest
}
