//! Launches on a card: images loaded once, functions found once.

use super::{Launch, Source};
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{Error, Result};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What `build.rs` made of a source.
macro_rules! image {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")).as_slice()
    };
}

impl Source {
    fn image(self) -> &'static [u8] {
        match self {
            Self::Attention => image!("attention"),
            Self::AttentionPlain => image!("attention_plain"),
            Self::Epilogue => image!("epilogue"),
            Self::Labels => image!("labels"),
            Self::Norm => image!("norm"),
            Self::Prepare => image!("prepare"),
            Self::Temporal => image!("temporal"),
            Self::Upscale => image!("upscale"),
        }
    }
}

/// By number of the card and name of the kernel. A function keeps its image and the card's context alive.
static FUNCTIONS: LazyLock<Mutex<HashMap<(usize, String), CudaFunction>>> = LazyLock::new(Mutex::default);

fn function(device: &CudaDevice, source: Source, kernel: &str) -> Result<CudaFunction> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let key = (context.ordinal(), kernel.to_owned());
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = functions.get(&key) {
        return Ok(function.clone());
    }
    let module = context
        .load_module(Ptx::from_binary(source.image().to_vec()))
        .map_err(Error::wrap)?;
    let function = module.load_function(kernel).map_err(Error::wrap)?;
    // Without this a block has 48 KiB.
    let most = context
        .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        .map_err(Error::wrap)?;
    function
        .set_attribute(
            CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            most,
        )
        .map_err(Error::wrap)?;
    functions.insert(key, function.clone());
    Ok(function)
}

/// Puts a launch on the device's stream. Nothing is launched for an empty grid.
///
/// # Errors
/// The driver's own.
///
/// # Safety
/// The addresses have to be those of tensors on this device with the lengths that the plan was made for.
pub(super) unsafe fn launch<A: DeviceRepr>(device: &CudaDevice, launch: &Launch<A>) -> Result<()> {
    let [x, y, z] = launch.grid;
    if x * y * z == 0 {
        return Ok(());
    }
    let function = function(device, launch.source, &launch.kernel)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    builder.arg(&launch.arguments);
    let config = LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the kernel takes this one struct, and the caller answers for what it points to.
    unsafe { builder.launch(config) }.map_err(Error::wrap)?;
    Ok(())
}
