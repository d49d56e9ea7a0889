//! The kernels' arguments, field by field as the `.cu` files declare them: addresses first, no gaps.

/// Where something lies in the card's memory (in a test, in the machine's); 0 for nothing.
pub(super) type Address = u64;

/// Declares the structs and, in builds with CUDA, that they may be handed to a kernel.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default)]
        pub(super) struct $name {
            $(pub(super) $field: $kind,)*
        }

        #[cfg(feature = "cuda")]
        // SAFETY: a plain struct of integers and floats in C's layout.
        unsafe impl candle_core::cuda_backend::cudarc::driver::DeviceRepr for $name {}
    )*};
}

arguments! {
    /// Of `attention.cu` and `attention_plain.cu`.
    AttentionArgs {
        qkv: Address, bias: Address, relative: Address, output: Address,
        height: i32, width: i32, side: i32, heads: i32, head_width: i32, rows: i32, columns: i32, scale: f32,
    }
    /// Of `norm.cu`.
    NormArgs {
        x: Address, weight: Address, bias: Address, y: Address,
        rows: i64, width: i32, vector: i32, eps: f32, unused: i32,
    }
    /// Of `epilogue.cu`.
    EpilogueArgs {
        x: Address, bias: Address, residual: Address, y: Address,
        count: i64, width: i32, vector: i32, activation: i32, unused: i32,
    }
    /// Of `temporal.cu`.
    TemporalArgs {
        x: Address, y: Address,
        count: i64, frames_in: i32, frames_out: i32, tokens: i32, channels: i32, before: i32, vector: i32,
    }
    /// Of `upscale.cu`.
    UpscaleArgs {
        x: Address, bias: Address, y: Address,
        pixels: i64, height: i32, width: i32, channels: i32, lanes: i32, norm: i32, vector: i32, eps: f32, unused: i32,
    }
    /// Of `labels.cu`.
    LabelArgs {
        x: Address, bias: Address, kernels: Address, y: Address,
        height: i32, width: i32, channels: i32, classes: i32, tall: i32, wide: i32,
    }
    /// Of `prepare.cu`.
    PrepareArgs {
        x: Address, tables: Address, y: Address,
        side: i32, frames: i32,
        luma_offset: i32, luma_scale: i32, red_v: i32, green_u: i32, green_v: i32, blue_u: i32,
    }
}
