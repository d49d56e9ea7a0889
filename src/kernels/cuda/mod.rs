//! Kernels for NVIDIA cards, and how each is launched.
//!
//! The kernels are the `.cu` files beside this one. What surrounds them is in three parts: [`arguments`] states each
//! kernel's one argument a second time, [`plan`] decides on grid, threads and shared memory (plain arithmetic that runs
//! anywhere), and `card` and `forward` bring a plan and Candle's tensors to a card, in builds with CUDA. The tests compile
//! the same sources with a C++ compiler (`host.h`), launch the same plans there and compare with the references. Matrix
//! products are cuBLASLt's: [`product`] says what it is told, `cublas_lt` tells it.

#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod cublas_lt;
#[cfg(feature = "cuda")]
pub(super) mod forward;
#[cfg(test)]
mod host;
#[cfg(test)]
mod tests;

mod arguments;
mod plan;
mod product;

#[cfg(feature = "cuda")]
use candle_core::DType;

/// Types that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Element {
    F32,
    Bf16,
    F16,
}

impl Element {
    #[cfg(feature = "cuda")]
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::BF16 => Some(Self::Bf16),
            DType::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// What stands behind a kernel's name.
    fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// The files that kernels stand in, without their ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Attention,
    AttentionPlain,
    Epilogue,
    Labels,
    Norm,
    Prepare,
    Temporal,
    Upscale,
}

impl Source {
    #[cfg(test)]
    fn stem(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::AttentionPlain => "attention_plain",
            Self::Epilogue => "epilogue",
            Self::Labels => "labels",
            Self::Norm => "norm",
            Self::Prepare => "prepare",
            Self::Temporal => "temporal",
            Self::Upscale => "upscale",
        }
    }
}

/// One launch: what, how wide, on what.
#[derive(Debug, Clone)]
struct Launch<A> {
    source: Source,
    kernel: String,
    /// Blocks along x, y and z.
    grid: [u32; 3],
    /// Threads of a block, whole warps.
    threads: u32,
    /// Dynamic shared memory of a block.
    shared_bytes: u32,
    arguments: A,
}

/// Whether a kernel takes the labels of a product of this shape.
pub(super) fn has_labels(product: &[usize], classes: usize) -> bool {
    plan::Squares::of(product).is_some_and(|squares| plan::has_labels(squares, classes))
}
