//! The loss over planes of logits in two passes: sums forward, slopes backward, nothing written in between.
//!
//! ```text
//! cross-entropy = sum over pixels of w[label] (log sum e^z - z[label]) / sum of w[label]
//! dice = mean over classes of 1 - N / D, N = 2 sum(p g) + s, D = sum(p²) + sum(g²) + s
//! d dice / d z_j = p_j (t_j - sum over c of p_c t_c), t_c = -(2 g_c D - 2 p_c N) / (D² classes)
//! ```

use crate::kernels::{math, simd};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Pixels at work at a time: with twelve classes their logits stay in a core's first-level cache.
const BLOCK: usize = 128;
/// Pixels of one task.
const TASK: usize = 1 << 14;

/// The loss of logits, `[images, classes, pixels..]`, as `[cross-entropy, dice]`.
pub(super) struct LossKernel {
    /// Class of each pixel, `[images, pixels]`; whatever is no class counts for nothing.
    pub(super) labels: Arc<[u8]>,
    /// Weight of each class in the cross-entropy.
    pub(super) class_weights: Arc<[f32]>,
    /// Added to both sides of Dice's fraction.
    pub(super) smooth: f64,
}

/// Sums over pixels, one entry per class where there are several.
#[derive(Clone)]
struct Sums {
    cross_entropy: f64,
    weight: f64,
    overlap: Vec<f64>,
    squares: Vec<f64>,
    count: Vec<f64>,
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self {
            cross_entropy: 0.0,
            weight: 0.0,
            overlap: vec![0.0; classes],
            squares: vec![0.0; classes],
            count: vec![0.0; classes],
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.cross_entropy += other.cross_entropy;
        self.weight += other.weight;
        let pairs = [
            (&mut self.overlap, &other.overlap),
            (&mut self.squares, &other.squares),
            (&mut self.count, &other.count),
        ];
        for (sums, values) in pairs {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        self
    }
}

/// Lengths and data of one call.
struct Planes<'a> {
    logits: &'a [f32],
    classes: usize,
    pixels: usize,
}

impl<'a> Planes<'a> {
    fn new(logits: &'a [f32], shape: &[usize], labels: usize) -> Result<Self> {
        let [images, classes, ref rest @ ..] = *shape else {
            bail!("logits {shape:?} are no planes")
        };
        let pixels: usize = rest.iter().product();
        if images * pixels != labels || logits.len() != labels * classes {
            bail!("{labels} labels for logits {shape:?}");
        }
        Ok(Self {
            logits,
            classes,
            pixels,
        })
    }

    /// Runs `f` over all tasks, in parallel, and gives their results in order: image, first pixel, pixels.
    fn tasks<T: Send>(&self, f: impl Fn(usize, usize, usize) -> T + Sync) -> Vec<T> {
        let images = self.logits.len() / (self.classes * self.pixels).max(1);
        let per_image = self.pixels.div_ceil(TASK);
        (0..images * per_image)
            .into_par_iter()
            .map(|task| {
                let first = task % per_image * TASK;
                f(task / per_image, first, TASK.min(self.pixels - first))
            })
            .collect()
    }
}

/// Probabilities of a block, class by class, and log of the sum of exponentials plus the largest logit.
#[inline(always)]
fn softmax<const FMA: bool>(
    planes: &Planes,
    image: usize,
    first: usize,
    count: usize,
    p: &mut [[f32; BLOCK]],
    log_sums: &mut [f32; BLOCK],
) {
    let plane =
        |class: usize| &planes.logits[(image * planes.classes + class) * planes.pixels + first..][..count];
    let mut largest = [f32::NEG_INFINITY; BLOCK];
    for (class, p) in p.iter_mut().enumerate() {
        p[..count].copy_from_slice(plane(class));
        for (largest, z) in largest.iter_mut().zip(p.iter()) {
            *largest = if *z > *largest { *z } else { *largest };
        }
    }
    let mut sums = [0f32; BLOCK];
    for p in p.iter_mut() {
        for ((p, sum), largest) in p.iter_mut().zip(&mut sums).zip(&largest) {
            *p = math::exp::<FMA>(*p - largest);
            *sum += *p;
        }
    }
    for ((log_sum, sum), largest) in log_sums.iter_mut().zip(&mut sums).zip(&largest) {
        *log_sum = largest + sum.ln();
        *sum = 1.0 / *sum;
    }
    for p in p.iter_mut() {
        p.iter_mut().zip(&sums).for_each(|(p, inverse)| *p *= inverse);
    }
}

/// Forward sums of one task.
struct Forward<'a> {
    planes: &'a Planes<'a>,
    kernel: &'a LossKernel,
    image: usize,
    first: usize,
    count: usize,
}

impl simd::Body for Forward<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Sums {
        let Planes {
            classes,
            pixels,
            logits,
        } = *self.planes;
        let mut sums = Sums::new(classes);
        let mut p = vec![[0f32; BLOCK]; classes];
        let mut log_sums = [0f32; BLOCK];
        for first in (self.first..self.first + self.count).step_by(BLOCK) {
            let count = BLOCK.min(self.first + self.count - first);
            softmax::<FMA>(self.planes, self.image, first, count, &mut p, &mut log_sums);
            let labels = &self.kernel.labels[self.image * pixels + first..][..count];
            let mut counted = [0f32; BLOCK];
            for (i, (&label, counted)) in labels.iter().zip(&mut counted).enumerate() {
                let class = usize::from(label);
                if class >= classes {
                    continue;
                }
                *counted = 1.0;
                let weight = f64::from(self.kernel.class_weights[class]);
                let z = logits[(self.image * classes + class) * pixels + first + i];
                sums.cross_entropy += weight * f64::from(log_sums[i] - z);
                sums.weight += weight;
                sums.overlap[class] += f64::from(p[class][i]);
                sums.count[class] += 1.0;
            }
            for (p, squares) in p.iter().zip(&mut sums.squares) {
                let mut strands = [0f32; 16];
                for (p, counted) in p.chunks_exact(16).zip(counted.chunks_exact(16)) {
                    for ((strand, p), counted) in strands.iter_mut().zip(p).zip(counted) {
                        *strand += p * p * counted;
                    }
                }
                *squares += f64::from(strands.iter().sum::<f32>());
            }
        }
        sums
    }
}

/// Slopes of one task, into `[classes, count]`.
struct Backward<'a> {
    planes: &'a Planes<'a>,
    kernel: &'a LossKernel,
    image: usize,
    first: usize,
    count: usize,
    /// Slope of the cross-entropy per unit of class weight.
    cross_entropy: f32,
    /// t_c = at_label * g_c + along * p_c for each class.
    at_label: &'a [f32],
    along: &'a [f32],
}

impl simd::Body for Backward<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Vec<f32> {
        let Planes { classes, pixels, .. } = *self.planes;
        let mut slopes = vec![0f32; classes * self.count];
        let mut p = vec![[0f32; BLOCK]; classes];
        let mut log_sums = [0f32; BLOCK];
        for start in (0..self.count).step_by(BLOCK) {
            let (first, count) = (self.first + start, BLOCK.min(self.count - start));
            softmax::<FMA>(self.planes, self.image, first, count, &mut p, &mut log_sums);
            let labels = &self.kernel.labels[self.image * pixels + first..][..count];
            // What the label's class adds beside the smooth part, and the weights of the pixels.
            let (mut counted, mut own, mut cross) = ([0f32; BLOCK], [0f32; BLOCK], [0f32; BLOCK]);
            let mut mean = [0f32; BLOCK];
            for (i, &label) in labels.iter().enumerate() {
                let class = usize::from(label);
                if class < classes {
                    counted[i] = 1.0;
                    own[i] = self.at_label[class];
                    cross[i] = self.cross_entropy * self.kernel.class_weights[class];
                    mean[i] = p[class][i] * own[i];
                }
            }
            for (p, along) in p.iter().zip(self.along) {
                for (mean, p) in mean.iter_mut().zip(p) {
                    *mean = math::mul_add::<FMA>(p * along, *p, *mean);
                }
            }
            for (class, (p, along)) in p.iter().zip(self.along).enumerate() {
                let slopes = &mut slopes[class * self.count + start..][..count];
                for (((slope, p), counted), (mean, cross)) in slopes
                    .iter_mut()
                    .zip(p)
                    .zip(&counted)
                    .zip(mean.iter().zip(&cross))
                {
                    *slope = p * counted * math::mul_add::<FMA>(*along, *p, cross - mean);
                }
            }
            for (i, &label) in labels.iter().enumerate() {
                let class = usize::from(label);
                if class < classes {
                    slopes[class * self.count + start + i] += p[class][i] * own[i] - cross[i];
                }
            }
        }
        slopes
    }
}

impl LossKernel {
    fn sums(&self, planes: &Planes) -> Sums {
        let parts = planes.tasks(|image, first, count| {
            let kernel = self;
            simd::dispatch(Forward {
                planes,
                kernel,
                image,
                first,
                count,
            })
        });
        // In order, so that the result depends on no thread count.
        parts
            .iter()
            .fold(Sums::new(planes.classes), |sums, part| sums.add(part))
    }
}

impl CustomOp1 for LossKernel {
    fn name(&self) -> &'static str {
        "segmentation-loss"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("the logits have to be contiguous here")
        };
        let planes = Planes::new(
            &logits.as_slice::<f32>()?[start..end],
            layout.dims(),
            self.labels.len(),
        )?;
        let sums = self.sums(&planes);
        let dice: f64 = (0..planes.classes)
            .map(|class| {
                let overlap = 2.0 * sums.overlap[class] + self.smooth;
                1.0 - overlap / (sums.squares[class] + sums.count[class] + self.smooth)
            })
            .sum();
        let found = [sums.cross_entropy / sums.weight, dice / planes.classes as f64];
        Ok((CpuStorage::F32(found.map(|x| x as f32).to_vec()), Shape::from(2)))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Ok([to_cross_entropy, to_dice]) = <[f32; 2]>::try_from(grad.to_vec1::<f32>()?) else {
            bail!("the gradient of a loss has two elements")
        };
        let (storage, layout) = logits.storage_and_layout();
        let (Storage::Cpu(values), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("the logits have to be contiguous and on the CPU here")
        };
        let planes = Planes::new(
            &values.as_slice::<f32>()?[start..end],
            layout.dims(),
            self.labels.len(),
        )?;
        let sums = self.sums(&planes);
        let (mut at_label, mut along) = (Vec::new(), Vec::new());
        for class in 0..planes.classes {
            let overlap = 2.0 * sums.overlap[class] + self.smooth;
            let sizes = sums.squares[class] + sums.count[class] + self.smooth;
            let share = f64::from(to_dice) / planes.classes as f64;
            at_label.push((-2.0 * share / sizes) as f32);
            along.push((2.0 * share * overlap / (sizes * sizes)) as f32);
        }
        let cross_entropy = (f64::from(to_cross_entropy) / sums.weight) as f32;
        let parts = planes.tasks(|image, first, count| {
            let slopes = simd::dispatch(Backward {
                planes: &planes,
                kernel: self,
                image,
                first,
                count,
                cross_entropy,
                at_label: &at_label,
                along: &along,
            });
            (image, first, count, slopes)
        });
        let mut found = vec![0f32; planes.logits.len()];
        for (image, first, count, slopes) in parts {
            for (class, slopes) in slopes.chunks_exact(count).enumerate() {
                let at = (image * planes.classes + class) * planes.pixels + first;
                found[at..at + count].copy_from_slice(slopes);
            }
        }
        Ok(Some(Tensor::from_vec(found, logits.shape(), logits.device())?))
    }
}
