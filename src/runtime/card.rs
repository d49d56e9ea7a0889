//! NVIDIA cards: what has to be there before one is used, and how it is opened.
//!
//! A build with CUDA opens the driver and its libraries at run time, so the same program starts on machines without
//! them. Candle panics where one is absent, hence everything is looked for first.

use crate::error::{Error, Result};
use candle_core::Device;

/// What is known of a card once it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    /// As the driver calls it.
    pub(super) name: String,
}

fn unavailable(number: usize, why: impl Into<String>) -> Error {
    Error::Unavailable {
        what: format!("device cuda:{number}"),
        why: why.into(),
    }
}

/// Opens card `number` with a stream of its own.
///
/// # Errors
/// [`Error::Unavailable`] that names what is missing: CUDA in this build, the driver, a library, or the card.
#[cfg(not(feature = "cuda"))]
pub(super) fn open(number: usize) -> Result<(Device, Card)> {
    Err(unavailable(
        number,
        "this program was built without CUDA (`make cuda` builds it with); use device=cpu",
    ))
}

#[cfg(feature = "cuda")]
pub(super) use present::{alone, open};

#[cfg(feature = "cuda")]
mod present {
    use super::{Card, Device, Result, unavailable};
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use std::panic::catch_unwind;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    /// The driver has to know CUDA 13.0, whose PTX Candle's kernels are: major times 1000 plus minor times 10.
    const DRIVER_VERSION: i32 = 13_000;
    /// bfloat16 on tensor cores begins with Ampere.
    const CAPABILITY: (i32, i32) = (8, 0);

    /// Held while a card is opened or a pass recorded, so that neither meets the other.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Waits until no card is opened and no pass recorded, and keeps it so.
    pub(in super::super) fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As without CUDA.
    pub(in super::super) fn open(number: usize) -> Result<(Device, Card)> {
        let absent = absent();
        if !absent.is_empty() {
            return Err(unavailable(
                number,
                format!(
                    "{} cannot be opened; the driver has to be 580 or newer, and the folder of CUDA 13's libraries \
                     has to be known to the loader, for example by LD_LIBRARY_PATH",
                    absent.join(", ")
                ),
            ));
        }
        let _alone = alone();
        // A library of another age may lack a symbol, at which cudarc panics.
        let found = catch_unwind(|| -> std::result::Result<(Device, Card), String> {
            // Held until the device is there, so that the driver sets the card up once.
            let (card, _context) = examine(number)?;
            Ok((new_device(number)?, card))
        });
        match found {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(why)) => Err(unavailable(number, why)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                let why = text.unwrap_or("a CUDA library is not what was expected");
                Err(unavailable(number, why))
            }
        }
    }

    /// The libraries that cannot be opened.
    #[cfg(feature = "dynamic-loading")]
    fn absent() -> Vec<&'static str> {
        use candle_core::cuda_backend::cudarc::{cublas, cublaslt, curand};
        // SAFETY: opening these libraries runs their initialisers, which is what they are for.
        let found = unsafe {
            [
                ("libcuda.so.1 (NVIDIA's driver)", sys::is_culib_present()),
                ("libcublas.so.13", cublas::sys::is_culib_present()),
                ("libcublasLt.so.13", cublaslt::sys::is_culib_present()),
                ("libcurand.so.10", curand::sys::is_culib_present()),
            ]
        };
        let absent = found.into_iter().filter(|(_, found)| !found);
        absent.map(|(name, _)| name).collect()
    }

    /// A build that is linked with the libraries does not start without them.
    #[cfg(not(feature = "dynamic-loading"))]
    fn absent() -> Vec<&'static str> {
        Vec::new()
    }

    /// Asks the driver about itself and the card; the error says what does not suffice.
    fn examine(number: usize) -> std::result::Result<(Card, Arc<CudaContext>), String> {
        let told = |e: result::DriverError| e.to_string();
        result::init().map_err(told)?;
        let mut version = 0;
        // SAFETY: the pointer is that of a live integer.
        let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        status.result().map_err(told)?;
        if version < DRIVER_VERSION {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(format!(
                "the driver speaks CUDA {major}.{minor}, this build 13.0; a driver 580 or newer does"
            ));
        }
        let cards = CudaContext::device_count().map_err(told)?;
        if usize::try_from(cards).is_ok_and(|cards| number >= cards) {
            return Err(format!("the driver knows {cards} cards, counted from 0"));
        }
        let context = CudaContext::new(number).map_err(told)?;
        let (major, minor) = context.compute_capability().map_err(told)?;
        if (major, minor) < CAPABILITY {
            return Err(format!(
                "its compute capability is {major}.{minor}; 8.0 (Ampere) or newer is needed"
            ));
        }
        let name = context.name().map_err(told)?;
        Ok((Card { name }, context))
    }

    fn new_device(number: usize) -> std::result::Result<Device, String> {
        let device = Device::new_cuda_with_stream(number).map_err(|e| e.to_string())?;
        if let Device::Cuda(cuda) = &device {
            // SAFETY: all tensors of a device live on its one stream, in whose order everything happens, so there is
            // nothing that events between streams would have to keep apart.
            unsafe { cuda.disable_event_tracking() };
            keep_memory(cuda.cuda_stream().context()).map_err(|e| e.to_string())?;
        }
        Ok(device)
    }

    /// Has the card's pool keep what is freed for the next clip. Without it each wait for the card gives all of it back
    /// to the driver, and the next clip has to ask for it anew.
    fn keep_memory(context: &CudaContext) -> std::result::Result<(), result::DriverError> {
        let mut threshold = u64::MAX;
        // SAFETY: the device is that of a live context, its pool lives as long, and the attribute is an integer of 64
        // bits, which the call only reads.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
        }
    }
}
