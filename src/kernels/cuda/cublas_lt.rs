//! Matrix products through cuBLASLt: what follows a product is done while its numbers are in registers.

use super::Element;
use super::product::{Operands, Product};
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::DevicePtrMut;
use candle_core::{Error, Result};
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of_val;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What an algorithm may use beside its operands, as NVIDIA advises for Hopper.
const MAX_WORKSPACE_BYTES: usize = 32 << 20;

/// A card's own handle.
#[derive(Clone, Copy)]
struct Handle(sys::cublasLtHandle_t);

// SAFETY: cuBLASLt takes one handle from several threads at once.
unsafe impl Send for Handle {}

/// How a product is to be done.
#[derive(Clone, Copy)]
struct Chosen {
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
}

#[derive(Default)]
struct Known {
    handles: HashMap<usize, Handle>,
    /// By card; `None` where cuBLASLt knows no way.
    chosen: HashMap<(usize, Product), Option<Chosen>>,
}

/// Both stay to the end: there is one of each card and of each shape of a model.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// Something of cuBLASLt's that has to be given back.
struct Owned<T: Copy> {
    it: T,
    give_back: unsafe fn(T) -> std::result::Result<(), result::CublasError>,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made by its own constructor and is given back once. What that answers changes nothing any more.
        let _ = unsafe { (self.give_back)(self.it) };
    }
}

type Matrix = Owned<sys::cublasLtMatrixLayout_t>;

fn told<T>(result: std::result::Result<T, result::CublasError>) -> Result<T> {
    result.map_err(|error| Error::msg(format!("cuBLASLt: {error}")))
}

fn data_type(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
    }
}

/// A product described to cuBLASLt.
struct Described {
    what: Owned<sys::cublasLtMatmulDesc_t>,
    a: Matrix,
    b: Matrix,
    d: Matrix,
}

impl Described {
    fn new(product: &Product, bias: u64) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // Sums in float32 whatever the operands, and no TF32.
        let (sums, factors) = (
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        );
        let what = Owned {
            it: told(result::create_matmul_desc(sums, factors))?,
            give_back: result::destroy_matmul_desc,
        };
        if product.is_a_turned {
            const TURNED: i32 = 1; // CUBLAS_OP_T
            set(&what, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TURNED)?;
        }
        if product.has_bias {
            let after = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(&what, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &after)?;
            set(&what, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let kind = data_type(product.element);
        let matrix = |(rows, columns, lead)| -> Result<Matrix> {
            Ok(Owned {
                it: told(result::create_matrix_layout(kind, rows, columns, lead))?,
                give_back: result::destroy_matrix_layout,
            })
        };
        let [a, b, d] = product.matrices().map(matrix);
        Ok(Self {
            what,
            a: a?,
            b: b?,
            d: d?,
        })
    }
}

fn set<T>(
    what: &Owned<sys::cublasLtMatmulDesc_t>,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<()> {
    let bytes = (&raw const *value).cast::<c_void>();
    // SAFETY: the description lives, and the value is read during the call.
    told(unsafe { result::set_matmul_desc_attribute(what.it, attribute, bytes, size_of_val(value)) })
}

/// What cuBLASLt thinks fastest.
fn choose(handle: Handle, product: &Product, described: &Described) -> Result<Option<Chosen>> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let wishes = Owned {
        it: told(result::create_matmul_pref())?,
        give_back: result::destroy_matmul_pref,
    };
    let wish = |attribute, bytes: *const c_void, length| {
        // SAFETY: the wishes live, and the value is read during the call.
        told(unsafe { result::set_matmul_pref_attribute(wishes.it, attribute, bytes, length) })
    };
    let most = MAX_WORKSPACE_BYTES;
    wish(
        Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
        (&raw const most).cast(),
        size_of_val(&most),
    )?;
    // Parts of a sum are added up as they were summed, not as narrow as the output.
    let sums = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    wish(
        Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        (&raw const sums).cast(),
        size_of_val(&sums),
    )?;
    let attributes = [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ];
    for (attribute, bytes) in attributes.into_iter().zip(&product.alignment) {
        wish(attribute, (&raw const *bytes).cast(), size_of_val(bytes))?;
    }
    let (a, b, d) = (described.a.it, described.b.it, described.d.it);
    // SAFETY: everything that is handed over lives.
    let found =
        unsafe { result::get_matmul_algo_heuristic(handle.0, described.what.it, a, b, d, d, wishes.it) };
    match found {
        Ok(found) => Ok(Some(Chosen {
            algorithm: found.algo,
            workspace_bytes: found.workspaceSize,
        })),
        Err(error) => {
            tracing::warn!("cuBLASLt knows no way for {product:?}, {error}: it goes through cuBLAS");
            Ok(None)
        }
    }
}

/// Puts a product on the device's stream; `false` where cuBLASLt knows no way, and nothing has been done.
///
/// # Errors
/// cuBLASLt's own, or the driver's.
///
/// # Safety
/// The addresses have to be those of tensors on this device with the lengths that the product was made for.
pub(super) unsafe fn run(device: &CudaDevice, product: &Product, operands: &Operands) -> Result<bool> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().map_err(Error::wrap)?;
    let described = Described::new(product, operands.bias)?;
    let card = context.ordinal();
    let (handle, chosen) = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match known.handles.get(&card) {
            Some(handle) => *handle,
            None => {
                let handle = Handle(told(result::create_handle())?);
                known.handles.insert(card, handle);
                handle
            }
        };
        let chosen = match known.chosen.get(&(card, *product)) {
            Some(chosen) => *chosen,
            None => {
                let chosen = choose(handle, product, &described)?;
                known.chosen.insert((card, *product), chosen);
                chosen
            }
        };
        (handle, chosen)
    };
    let Some(chosen) = chosen else { return Ok(false) };
    // In the stream's order like every other tensor, so that a recorded pass takes it along.
    let mut workspace = match chosen.workspace_bytes {
        0 => None,
        bytes => {
            // SAFETY: cuBLASLt writes it before it reads it.
            let room = unsafe { device.alloc::<u8>(bytes)? };
            Some(room)
        }
    };
    let room = workspace.as_mut().map(|room| room.device_ptr_mut(&stream));
    let one = 1f32;
    let kept = if product.has_residual { 1f32 } else { 0f32 };
    let residual = match operands.residual {
        0 => operands.y,
        residual => residual,
    };
    // SAFETY: the description and the layouts live, both factors are float32 on the machine as described, and the caller
    // answers for the addresses.
    told(unsafe {
        result::matmul(
            handle.0,
            described.what.it,
            (&raw const one).cast(),
            (&raw const kept).cast(),
            operands.weight as *const c_void,
            described.a.it,
            operands.x as *const c_void,
            described.b.it,
            residual as *const c_void,
            described.d.it,
            operands.y as *mut c_void,
            described.d.it,
            &raw const chosen.algorithm,
            room.as_ref().map_or(0, |(address, _)| *address) as *mut c_void,
            chosen.workspace_bytes,
            stream.cu_stream().cast(),
        )
    })?;
    Ok(true)
}
