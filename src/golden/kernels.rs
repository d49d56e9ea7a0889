//! Every kernel of a device against its reference in float32 on the CPU, values and gradients, over odd sizes: where a
//! reference tensor is missed, this says by which kernel.

use super::{Check, Measure, Setting, Tolerance};
use crate::error::Result;
use crate::kernels::attention::{self, Span};
use crate::kernels::picture::convert::{ColorSpace, Matrix, Range};
use crate::kernels::{gelu, labels, layer_norm, linear, prepare, softmax, temporal, upscale};
use crate::model::weights::uniform;
use candle_core::{DType, Device, Tensor, Var};

type Tensors = candle_core::Result<Tensor>;

/// What rounding to the type leaves of a sum of order one.
fn tolerance(precision: DType) -> Tolerance {
    let max = match precision {
        DType::BF16 => 1.5e-2,
        DType::F16 => 3e-3,
        _ => 5e-5,
    };
    Tolerance {
        max,
        rms: max / 3.0,
        margin: 0.0,
        agreement: 0.0,
    }
}

/// Collects one check after another.
struct Bench<'a> {
    setting: &'a Setting,
    checks: Vec<(String, Result<Check>)>,
}

impl Bench<'_> {
    /// Inputs that the type can hold, as float32 on the CPU.
    fn inputs(&self, shapes: &[(&[usize], f64)]) -> candle_core::Result<Vec<Tensor>> {
        let input = |(i, (shape, scale)): (usize, &(&[usize], f64))| {
            let values: Vec<f32> = uniform(&format!("kernels {i}"), shape.iter().product())
                .map(|u| (u * scale) as f32)
                .collect();
            Tensor::from_vec(values, *shape, &Device::Cpu)?
                .to_dtype(self.setting.precision)?
                .to_dtype(DType::F32)
        };
        shapes.iter().enumerate().map(input).collect()
    }

    /// `fast` on the device in its type against `plain` on the CPU; in float32 gradients of both as well, if wanted.
    fn compare(
        &mut self,
        name: String,
        shapes: &[(&[usize], f64)],
        gradients: bool,
        fast: impl Fn(&[Tensor]) -> Tensors,
        plain: impl Fn(&[Tensor]) -> Tensors,
    ) {
        let Setting {
            device, precision, ..
        } = self.setting;
        let run = || -> Result<Vec<Measure>> {
            let inputs = self.inputs(shapes)?;
            let placed = (inputs.iter())
                .map(|t| t.to_device(device)?.to_dtype(*precision))
                .collect::<candle_core::Result<Vec<_>>>()?;
            let floats = |t: &Tensor| {
                let t = t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                t.flatten_all()?.to_vec1::<f32>()
            };
            let wanted = plain(&inputs)?;
            let mut measures = vec![Measure::of(&name, &floats(&fast(&placed)?)?, &floats(&wanted)?)];
            if gradients && *precision == DType::F32 {
                let slopes = |inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Tensors| -> Result<Vec<Vec<f32>>> {
                    let leaves = (inputs.iter())
                        .map(Var::from_tensor)
                        .collect::<candle_core::Result<Vec<_>>>()?;
                    let tensors: Vec<Tensor> = leaves.iter().map(|l| l.as_tensor().clone()).collect();
                    let y = f(&tensors)?;
                    let weights: Vec<f32> = uniform("slopes", y.elem_count()).map(|u| u as f32).collect();
                    let weights = Tensor::from_vec(weights, y.shape(), y.device())?;
                    let found = (y * weights)?.sum_all()?.backward()?;
                    let slope = |leaf: &Var| match found.get(leaf) {
                        Some(slope) => floats(slope),
                        None => floats(&leaf.zeros_like()?),
                    };
                    Ok(leaves.iter().map(slope).collect::<candle_core::Result<_>>()?)
                };
                let pairs = slopes(&placed, &fast)?.into_iter().zip(slopes(&inputs, &plain)?);
                for (i, (got, wanted)) in pairs.enumerate() {
                    let mut measure = Measure::of(&format!("gradient {i}"), &got, &wanted);
                    measure.bound = Some(1e-3);
                    measures.push(measure);
                }
            }
            Ok(measures)
        };
        let check = run().map(|measures| Check {
            name: name.clone(),
            measures,
            label_agreement: 1.0,
            clear_disagreements: 0,
            tolerance: tolerance(*precision),
        });
        self.checks.push((name, check));
    }

    fn attention(&mut self) {
        // Whole grids, exact and padded partitions, one larger than the grid, narrow and odd heads.
        for [images, height, width, side, heads, head_width] in [
            [1, 1, 1, 1, 1, 8],
            [2, 7, 7, 3, 3, 24],
            [1, 5, 5, 14, 2, 64],
            [2, 32, 32, 14, 2, 80],
            [1, 32, 32, 32, 2, 64],
            [1, 9, 21, 21, 1, 128],
            [1, 6, 5, 4, 3, 5],
        ] {
            let channels = 3 * heads * head_width;
            let span = Span { heads, side };
            self.compare(
                format!("attention {images}x{height}x{width} side {side}, {heads} heads of {head_width}"),
                &[
                    (&[images, height, width, channels], 2.0),
                    (&[channels], 2.0),
                    (&[2 * (2 * side - 1), head_width], 0.5),
                ],
                height < 9,
                |x| attention::attention(&x[0], &x[1], &x[2], span),
                |x| attention::reference(&x[0], &x[1], &x[2], span),
            );
        }
    }

    fn rows(&mut self) {
        for (rows, width) in [(1, 1), (5, 17), (33, 64), (7, 768), (3, 1280)] {
            let (x, vector): (&[usize], &[usize]) = (&[rows, width], &[width]);
            self.compare(
                format!("layer norm {rows}x{width}"),
                &[(x, 3.0), (vector, 1.0), (vector, 1.0)],
                width > 1,
                |x| layer_norm::layer_norm(&x[0], &x[1], &x[2], 1e-6),
                |x| layer_norm::reference(&x[0], &x[1], &x[2], 1e-6),
            );
            self.compare(
                format!("softmax {rows}x{width}"),
                &[(x, 9.0)],
                true,
                |x| softmax::softmax(&x[0]),
                |x| softmax::reference(&x[0]),
            );
            self.compare(
                format!("gelu {rows}x{width}"),
                &[(x, 5.0)],
                true,
                |x| gelu::gelu(&x[0]),
                |x| gelu::reference(&x[0]),
            );
        }
    }

    fn products(&mut self) {
        for (rows, inputs, outputs) in [(1, 1, 1), (33, 17, 65), (129, 64, 320)] {
            let what = format!("{rows}x{inputs} to {outputs}");
            let scale = (3.0 / inputs as f64).sqrt();
            let shapes: [(&[usize], f64); 4] = [
                (&[rows, inputs], 1.0),
                (&[outputs, inputs], scale),
                (&[outputs], 1.0),
                (&[rows, outputs], 1.0),
            ];
            self.compare(
                format!("linear {what}"),
                &shapes[..3],
                true,
                |x| linear::linear(&x[0], &x[1], &x[2]),
                |x| linear::reference(&x[0], &x[1], &x[2]),
            );
            self.compare(
                format!("linear with GELU {what}"),
                &shapes[..3],
                true,
                |x| linear::linear_gelu(&x[0], &x[1], &x[2]),
                |x| linear::reference(&x[0], &x[1], &x[2])?.gelu_erf(),
            );
            self.compare(
                format!("linear onto a residual {what}"),
                &shapes,
                true,
                |x| linear::linear_onto(&x[0], &x[1], &x[2], &x[3]),
                |x| &x[3] + linear::reference(&x[0], &x[1], &x[2])?,
            );
            self.compare(
                format!("linear without bias {what}"),
                &shapes[..2],
                true,
                |x| linear::unbiased(&x[0], &x[1]),
                |x| x[0].matmul(&x[1].t()?),
            );
        }
    }

    fn shuffles(&mut self) {
        for (frames, frames_out, before, channels) in [(5, 5, 1, 384), (4, 4, 2, 12), (3, 1, 0, 7)] {
            self.compare(
                format!("stacked frames {frames} to {frames_out}, {channels} channels"),
                &[(&[2, frames, 9, channels], 1.0)],
                true,
                |x| temporal::stacked(&x[0], frames_out, before),
                |x| temporal::reference(&x[0], frames_out, before),
            );
        }
        for (channels, eps) in [(64, Some(1e-6)), (8, None), (20, Some(1e-6)), (5, None)] {
            self.compare(
                format!("upscale to {channels} channels"),
                &[
                    (&[2, 3, 5, 2, 2, channels], 2.0),
                    (&[if eps.is_some() { 3 } else { 1 }, channels], 1.0),
                ],
                true,
                |x| upscale::squares(&x[0], &x[1], eps),
                |x| upscale::reference(&x[0], &x[1], eps),
            );
        }
    }

    /// What only a card has: floats out of bytes, and bytes out of floats.
    fn ends(&mut self) {
        let table = |bytes: &Tensor| bytes.to_dtype(DType::F32)?.affine(1.0 / 128.0, -1.0);
        let bytes = |x: &Tensor| x.affine(127.0, 128.0)?.to_dtype(DType::U8);
        let precision = self.setting.precision;
        // Made on the CPU on both sides, so that the same bytes come of the same floats.
        let inputs = |x: &Tensor, device: &Device| -> candle_core::Result<[Tensor; 2]> {
            let cpu = Device::Cpu;
            let values = Tensor::arange(0u32, 256, &cpu)?.to_dtype(DType::F32)?;
            let tables = table(&values)?.unsqueeze(0)?.repeat((2, 1))?.to_device(device)?;
            let bytes = bytes(&x.to_device(&cpu)?.to_dtype(DType::F32)?)?.to_device(device)?;
            Ok([bytes, tables])
        };
        self.compare(
            "preparation of two clips".into(),
            &[(&[4, 9, 9, 3], 1.0)],
            false,
            |x| {
                let [bytes, tables] = inputs(&x[0], x[0].device())?;
                prepare::planes(&bytes, &tables, precision)
            },
            |x| table(&bytes(&x[0])?)?.permute((0, 3, 1, 2))?.contiguous(),
        );
        let of_nv12 = |x: &Tensor, device: &Device, precision| {
            let [bytes, tables] = inputs(x, device)?;
            let colors = ColorSpace {
                matrix: Matrix::BT709,
                range: Range::Limited,
            };
            prepare::planes_of_nv12(&bytes, &tables, colors, precision)
        };
        self.compare(
            "preparation of two clips in NV12".into(),
            &[(&[4, 15, 10], 1.0)],
            false,
            |x| of_nv12(&x[0], x[0].device(), precision),
            |x| of_nv12(&x[0], &Device::Cpu, DType::F32),
        );
        // Classes far apart, so that rounding turns none into another.
        self.compare(
            "labels of small planes".into(),
            &[(&[2, 3, 8, 8], 1.0)],
            false,
            |x| labels::of_planes(&x[0], 8)?.narrow(1, 0, 64),
            |x| x[0].argmax(1)?.flatten_from(1),
        );
        // Each pixel has a class whose channels stand out, and the classes their own channels.
        const CLASSES: usize = 3;
        const CHANNELS: usize = 24;
        let stands_out = |shape: &[usize], class_of: fn(usize) -> usize, like: &Tensor| {
            let at = |i: usize| {
                f32::from(u8::from(
                    i % CHANNELS / (CHANNELS / CLASSES) == class_of(i / CHANNELS),
                ))
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(at).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)?
                .to_device(like.device())?
                .to_dtype(like.dtype())
        };
        let of_product = |x: &[Tensor]| {
            let pattern = stands_out(&[2, 5, 3, 2, 2, CHANNELS], |pixel| pixel % 7 % CLASSES, &x[0])?;
            let kernels = stands_out(&[2, CLASSES, CHANNELS], |row| row % CLASSES, &x[0])?;
            labels::of_product(&(pattern.affine(2.0, 0.0)? + &x[0])?, &x[1], &kernels)
        };
        self.compare(
            "labels of a product".into(),
            &[(&[2, 5, 3, 2, 2, CHANNELS], 0.2), (&[CHANNELS], 0.05)],
            false,
            of_product,
            of_product,
        );
    }
}

/// Checks of all kernels; the type is that of `setting`.
pub fn kernels(setting: &Setting) -> Vec<(String, Result<Check>)> {
    let mut bench = Bench {
        setting,
        checks: Vec::new(),
    };
    bench.attention();
    bench.rows();
    bench.products();
    bench.shuffles();
    if !setting.device.is_cpu() {
        bench.ends();
    }
    bench.checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::pretended_card;

    #[test]
    fn the_cpu_passes_as_itself_and_as_a_card() {
        let setting = Setting {
            engine: crate::golden::Engine::Plain,
            device: Device::Cpu,
            precision: DType::F32,
        };
        for checks in [kernels(&setting), pretended_card::during(|| kernels(&setting))] {
            assert!(checks.len() > 30);
            for (name, check) in checks {
                let check = check.unwrap();
                assert!(check.passed(), "{name}: {check}");
            }
        }
    }
}
