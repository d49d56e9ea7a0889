//! From Candle's storages to a launch and back: what the operations' `cuda_fwd` call.

use super::arguments::Address;
use super::plan::{self, AttentionTensors, Epilogue, Frames, Rowwise, Squares};
use super::product::{Operands, Product};
use super::{Element, Launch, card, cublas_lt};
use crate::kernels::attention::Sizes;
use crate::kernels::prepare::Coded;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice};
use candle_core::{Layout, Result, Shape, Storage, Tensor, bail};

/// A storage and how a tensor lies in it.
pub(in crate::kernels) type Placed<'a> = (&'a CudaStorage, &'a Layout);

/// A contiguous tensor's address, valid on its device's stream until this is dropped.
struct Input<'a> {
    address: Address,
    _synchronised: SyncOnDrop<'a>,
}

fn input<'a>((storage, layout): Placed<'a>, stream: &'a CudaStream) -> Result<Input<'a>> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!("a tensor of shape {:?} has to be contiguous here", layout.shape());
    };
    let ((address, _synchronised), bytes) = match &storage.slice {
        CudaStorageSlice::F32(slice) => (slice.device_ptr(stream), 4),
        CudaStorageSlice::BF16(slice) => (slice.device_ptr(stream), 2),
        CudaStorageSlice::F16(slice) => (slice.device_ptr(stream), 2),
        CudaStorageSlice::U8(slice) => (slice.device_ptr(stream), 1),
        _ => bail!("the card's kernels take no {:?}", storage.dtype()),
    };
    Ok(Input {
        address: address + (start * bytes) as Address,
        _synchronised,
    })
}

fn output<'a>(storage: &'a mut CudaStorage, stream: &'a CudaStream) -> Result<Input<'a>> {
    let (address, _synchronised) = match &mut storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::BF16(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::F16(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::U8(slice) => slice.device_ptr_mut(stream),
        _ => bail!("the card's kernels give floats of 16 or 32 bits, or bytes"),
    };
    Ok(Input {
        address,
        _synchronised,
    })
}

/// Memory that a kernel will fill.
fn room(device: &CudaDevice, element: Element, count: usize) -> Result<CudaStorage> {
    // SAFETY: every element is written by the kernel it is made for before anything reads it.
    unsafe {
        Ok(match element {
            Element::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device.clone()),
            Element::Bf16 => CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, device.clone()),
            Element::F16 => CudaStorage::wrap_cuda_slice(device.alloc::<half::f16>(count)?, device.clone()),
        })
    }
}

/// The type of all of these, which has to be one.
fn element_of(storages: &[&CudaStorage]) -> Result<Element> {
    let Some(first) = storages.first().map(|s| s.dtype()) else {
        bail!("a kernel of no tensors")
    };
    match Element::of(first) {
        Some(element) if storages.iter().all(|s| s.dtype() == first) => Ok(element),
        _ => bail!(
            "the card's kernels take tensors of one type, not {:?}",
            storages.iter().map(|s| s.dtype()).collect::<Vec<_>>()
        ),
    }
}

/// Launches what `plan` makes of the addresses of `inputs` and of a new tensor of `count` elements, and gives the latter.
fn run<const N: usize, A: DeviceRepr>(
    inputs: [Placed<'_>; N],
    (element, count): (Element, usize),
    plan: impl FnOnce([Address; N], Address) -> Result<Launch<A>>,
) -> Result<CudaStorage> {
    let Some((first, _)) = inputs.first() else {
        bail!("a kernel of no tensors")
    };
    let device = first.device.clone();
    let room = room(&device, element, count)?;
    fill(inputs, room, plan)
}

/// The same into memory that is there.
fn fill<const N: usize, A: DeviceRepr>(
    inputs: [Placed<'_>; N],
    mut room: CudaStorage,
    plan: impl FnOnce([Address; N], Address) -> Result<Launch<A>>,
) -> Result<CudaStorage> {
    let device = room.device.clone();
    let stream = device.cuda_stream();
    let inputs = inputs.map(|placed| input(placed, &stream));
    let mut addresses = [0; N];
    for (address, input) in addresses.iter_mut().zip(&inputs) {
        match input {
            Ok(input) => *address = input.address,
            Err(error) => bail!("{error}"),
        }
    }
    {
        let output = output(&mut room, &stream)?;
        let launch = plan(addresses, output.address)?;
        // SAFETY: the addresses are those of live tensors of this device, whose lengths the callers have checked.
        unsafe { card::launch(&device, &launch)? };
    }
    Ok(room)
}

/// Attention, for sizes that follow from the three layouts.
pub(in crate::kernels) fn attention(
    qkv: Placed<'_>,
    bias: Placed<'_>,
    relative: Placed<'_>,
    sizes: &Sizes,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[qkv.0, bias.0, relative.0])?;
    let shape = Shape::from((
        sizes.images,
        sizes.height,
        sizes.width,
        sizes.heads * sizes.head_width,
    ));
    let storage = run(
        [qkv, bias, relative],
        (element, shape.elem_count()),
        |[qkv, bias, relative], output| {
            let tensors = AttentionTensors {
                qkv,
                bias,
                relative,
                output,
            };
            plan::attention(element, sizes, tensors)
        },
    )?;
    Ok((storage, shape))
}

/// Whether a kernel can take attention of these sizes.
pub(in crate::kernels) fn has_attention(sizes: &Sizes) -> bool {
    plan::has_attention(sizes)
}

/// Rows and width of a tensor.
fn rows(layout: &Layout) -> Result<(usize, usize)> {
    match layout.dims().split_last() {
        Some((&width, leading)) if width > 0 => Ok((leading.iter().product(), width)),
        _ => bail!("a tensor of shape {:?} has no rows", layout.shape()),
    }
}

/// Layer norm; `weight` and `bias` have the length of a row.
pub(in crate::kernels) fn layer_norm(
    x: Placed<'_>,
    weight: Placed<'_>,
    bias: Placed<'_>,
    eps: f64,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[x.0, weight.0, bias.0])?;
    let size = rows(x.1)?;
    if weight.1.dims() != [size.1] || bias.1.dims() != [size.1] {
        let shapes = (x.1.shape(), weight.1.shape(), bias.1.shape());
        bail!("layer norm: input, weight and bias have shapes {shapes:?}");
    }
    let eps = eps as f32;
    let storage = run(
        [x, weight, bias],
        (element, size.0 * size.1),
        |[x, weight, bias], y| plan::rowwise(element, Rowwise::LayerNorm { weight, bias, eps }, size, (x, y)),
    )?;
    Ok((storage, x.1.shape().clone()))
}

/// Softmax of each row.
pub(in crate::kernels) fn softmax(x: Placed<'_>) -> Result<(CudaStorage, Shape)> {
    let (element, size) = (element_of(&[x.0])?, rows(x.1)?);
    let storage = run([x], (element, size.0 * size.1), |[x], y| {
        plan::rowwise(element, Rowwise::Softmax, size, (x, y))
    })?;
    Ok((storage, x.1.shape().clone()))
}

/// GELU of every element.
pub(in crate::kernels) fn gelu(x: Placed<'_>) -> Result<(CudaStorage, Shape)> {
    let (element, size) = (element_of(&[x.0])?, rows(x.1)?);
    let what = Epilogue {
        gelu: true,
        ..Epilogue::default()
    };
    let storage = run([x], (element, size.0 * size.1), |[x], y| {
        plan::epilogue(element, what, size, (x, y))
    })?;
    Ok((storage, x.1.shape().clone()))
}

/// What follows `x W^T` in the same pass.
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct After<'a> {
    pub(in crate::kernels) bias: Option<Placed<'a>>,
    pub(in crate::kernels) residual: Option<Placed<'a>>,
    pub(in crate::kernels) gelu: bool,
}

/// `gelu(x W^T + bias) + residual`; `x` is `[.., inputs]`, `weight` `[outputs, inputs]` or a transposed view of such.
pub(in crate::kernels) fn linear(
    x: Placed<'_>,
    weight: Placed<'_>,
    after: After<'_>,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[x.0, weight.0])?;
    let (count, inputs) = rows(x.1)?;
    let (outputs, width) = weight.1.shape().dims2()?;
    let mut dims = x.1.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let fits = |placed: Option<Placed<'_>>, wanted: &[usize]| placed.is_none_or(|(_, l)| l.dims() == wanted);
    if width != inputs || !fits(after.bias, &[outputs]) || !fits(after.residual, &dims) {
        bail!("linear: input {:?}, weight {:?}", x.1.shape(), weight.1.shape());
    }
    let Some((start, _)) = x.1.contiguous_offsets() else {
        bail!("linear: input {:?} has to be contiguous", x.1.shape());
    };
    let shape = Shape::from(dims);
    let stream = x.0.device.cuda_stream();
    let address = |placed: Option<Placed<'_>>| -> Result<Address> {
        match placed {
            Some(placed) if Element::of(placed.0.dtype()) == Some(element) => {
                Ok(input(placed, &stream)?.address)
            }
            Some((storage, _)) => bail!("linear: {:?} beside {element:?}", storage.dtype()),
            None => Ok(0),
        }
    };
    let what = Epilogue {
        bias: address(after.bias)?,
        residual: address(after.residual)?,
        gelu: after.gelu,
    };
    // cuBLASLt's GELU is the approximation by tanh, so that what comes before ours is not its to do either.
    let within = match after.gelu {
        true => Epilogue::default(),
        false => what,
    };
    let sizes = [count, inputs, outputs];
    let (product, rest) = match product(element, sizes, x, weight, within)? {
        Some(product) if after.gelu => (product, what),
        Some(product) => return Ok((product, shape)),
        None => {
            let flat = Layout::contiguous_with_offset((count, inputs), start);
            let turned = weight.1.transpose(0, 1)?;
            let product =
                x.0.matmul(weight.0, (1, count, outputs, inputs), &flat, &turned)?;
            (product, what)
        }
    };
    if (rest.bias, rest.residual, rest.gelu) == (0, 0, false) || count * outputs == 0 {
        return Ok((product, shape));
    }
    let storage = fill([], product, |[], y| {
        plan::epilogue(element, rest, (count, outputs), (y, y))
    })?;
    Ok((storage, shape))
}

/// `x W^T + bias + residual` by cuBLASLt, `None` where it knows no way.
fn product(
    element: Element,
    [count, inputs, outputs]: [usize; 3],
    x: Placed<'_>,
    weight: Placed<'_>,
    within: Epilogue,
) -> Result<Option<CudaStorage>> {
    let &[row_stride, column_stride] = weight.1.stride() else {
        bail!("linear: weight {:?} is not a matrix", weight.1.shape())
    };
    if count * inputs * outputs == 0 {
        return Ok(None);
    }
    let device = x.0.device.clone();
    let stream = device.cuda_stream();
    let mut room = room(&device, element, count * outputs)?;
    // A transposed view begins where the matrix does that it is a view of.
    let lies = Layout::contiguous_with_offset((outputs, inputs), weight.1.start_offset());
    let done = {
        let (x, weight) = (input(x, &stream)?, input((weight.0, &lies), &stream)?);
        let y = output(&mut room, &stream)?;
        let operands = Operands {
            weight: weight.address,
            x: x.address,
            bias: within.bias,
            residual: within.residual,
            y: y.address,
        };
        let sizes = [count, inputs, outputs];
        match Product::new(element, sizes, [row_stride, column_stride], &operands) {
            // SAFETY: the addresses are those of live tensors of this device, whose lengths the caller has checked.
            Some(product) => unsafe { cublas_lt::run(&device, &product, &operands)? },
            None => false,
        }
    };
    Ok(done.then_some(room))
}

/// `[clips, frames, tokens, channels]` to `[clips, frames_out, tokens, 3 * channels]`.
pub(in crate::kernels) fn temporal(
    x: Placed<'_>,
    frames_out: usize,
    before: usize,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[x.0])?;
    let (clips, frames_in, tokens, channels) = x.1.shape().dims4()?;
    let frames = Frames {
        clips,
        frames_in,
        frames_out,
        tokens,
        channels,
        before,
    };
    let shape = Shape::from((clips, frames_out, tokens, 3 * channels));
    let storage = run([x], (element, shape.elem_count()), |[x], y| {
        plan::temporal(element, frames, (x, y))
    })?;
    Ok((storage, shape))
}

/// Images, rows, columns and channels of an upscaling step's product.
fn squares(product: &Layout) -> Result<Squares> {
    match Squares::of(product.dims()) {
        Some(squares) => Ok(squares),
        None => bail!("an upscaling product of shape {:?}", product.shape()),
    }
}

/// `[images, height, width, 2, 2, channels]` to `[images, 2 height, 2 width, channels]` with bias, norm and GELU;
/// `biases`: `[1, channels]`, or with a norm `[3, channels]`.
pub(in crate::kernels) fn upscale(
    product: Placed<'_>,
    biases: Placed<'_>,
    eps: Option<f64>,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[product.0, biases.0])?;
    let squares = squares(product.1)?;
    if biases.1.dims() != [if eps.is_some() { 3 } else { 1 }, squares.channels] {
        bail!("upscale: biases {:?} of {squares:?}", biases.1.shape());
    }
    let shape = Shape::from((
        squares.images,
        2 * squares.height,
        2 * squares.width,
        squares.channels,
    ));
    let storage = run(
        [product, biases],
        (element, shape.elem_count()),
        |[product, biases], y| plan::upscale(element, squares, eps, [product, biases, y]),
    )?;
    Ok((storage, shape))
}

/// Bytes set to zero: labels and flags.
fn zeros(device: &CudaDevice, count: usize) -> Result<CudaStorage> {
    Ok(CudaStorage::wrap_cuda_slice(
        device.alloc_zeros::<u8>(count)?,
        device.clone(),
    ))
}

/// Labels and a flag, `[images, 4 * height * width + 1]`, from the last upscaling step's product, its bias `[channels]`
/// and the classes' kernels `[images, classes, channels]`.
pub(in crate::kernels) fn labels_of_product(
    product: Placed<'_>,
    bias: Placed<'_>,
    kernels: Placed<'_>,
) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[product.0, bias.0, kernels.0])?;
    let squares = squares(product.1)?;
    let (images, classes, channels) = kernels.1.shape().dims3()?;
    if (images, channels) != (squares.images, squares.channels) || bias.1.dims() != [channels] {
        bail!(
            "labels: kernels {:?}, bias {:?} of {squares:?}",
            kernels.1.shape(),
            bias.1.shape()
        );
    }
    let shape = Shape::from((images, 4 * squares.height * squares.width + 1));
    let room = zeros(&product.0.device, shape.elem_count())?;
    let storage = fill([product, bias, kernels], room, |[product, bias, kernels], y| {
        plan::labels_of_product(element, squares, classes, [product, bias, kernels, y])
    })?;
    Ok((storage, shape))
}

/// Labels and a flag, `[images, side * side + 1]`, from logits `[images, classes, height, width]`.
pub(in crate::kernels) fn labels_of_planes(logits: Placed<'_>, side: usize) -> Result<(CudaStorage, Shape)> {
    let element = element_of(&[logits.0])?;
    let (images, classes, height, width) = logits.1.shape().dims4()?;
    let shape = Shape::from((images, side * side + 1));
    let room = zeros(&logits.0.device, shape.elem_count())?;
    let storage = fill([logits], room, |[x], y| {
        plan::labels_of_planes(element, [images, classes, height, width], (side, side), (x, y))
    })?;
    Ok((storage, shape))
}

/// Bytes of frames through tables `[clips, 256]` to planes `[images, 3, side, side]`.
pub(in crate::kernels) fn prepare(
    bytes: Placed<'_>,
    tables: Placed<'_>,
    coded: Coded,
    element: candle_core::DType,
) -> Result<(CudaStorage, Shape)> {
    let (clips, entries) = tables.1.shape().dims2()?;
    let (images, side) = coded.sizes(bytes.1).unwrap_or((0, 0));
    let frames = images.checked_div(clips).unwrap_or(0);
    if images == 0 || entries != 256 || frames * clips != images {
        let shapes = (bytes.1.shape(), tables.1.shape());
        bail!("prepare: bytes and tables {shapes:?}");
    }
    let (Some(element), Some(Element::F32)) = (Element::of(element), Element::of(tables.0.dtype())) else {
        bail!(
            "prepare: planes of {element:?} through tables of {:?}",
            tables.0.dtype()
        );
    };
    let shape = Shape::from((images, 3, side, side));
    let storage = run(
        [bytes, tables],
        (element, shape.elem_count()),
        |[bytes, tables], y| plan::prepare(element, coded, (images, side, frames), [bytes, tables, y]),
    )?;
    Ok((storage, shape))
}

/// A tensor's storage on a card, handed to `f`.
pub(in crate::kernels) fn with_placed<T>(x: &Tensor, f: impl FnOnce(Placed<'_>) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => f((storage, layout)),
        _ => bail!("a tensor of shape {:?} has to be on a card here", layout.shape()),
    }
}
