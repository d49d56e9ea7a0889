//! From the bytes of a storage to a tensor.

use super::TensorInfo;
use crate::checkpoint::pickle::Element;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

/// The type that elements are read as; `None` for those that are not read.
pub(super) fn dtype(element: Element) -> Option<DType> {
    match element {
        Element::Float64 => Some(DType::F64),
        Element::Float32 => Some(DType::F32),
        Element::Float16 => Some(DType::F16),
        Element::BFloat16 => Some(DType::BF16),
        // Candle has neither signed bytes nor unsigned 16-bit integers.
        Element::Int64 | Element::Int8 | Element::UInt16 => Some(DType::I64),
        Element::Int32 => Some(DType::I32),
        Element::Int16 => Some(DType::I16),
        Element::UInt32 => Some(DType::U32),
        Element::UInt8 | Element::Bool => Some(DType::U8),
        Element::Unread { .. } => None,
    }
}

/// The tensor of `info`, whose span of the storage is `bytes`, little-endian.
pub(super) fn tensor(info: &TensorInfo, bytes: Vec<u8>) -> Result<Tensor, String> {
    let bytes = if is_contiguous(info) {
        bytes
    } else {
        gather(info, &bytes)?
    };
    match info.element {
        Element::Float64 => make(info, &bytes, f64::from_le_bytes),
        Element::Float32 => make(info, &bytes, f32::from_le_bytes),
        Element::Float16 => make(info, &bytes, f16::from_le_bytes),
        Element::BFloat16 => make(info, &bytes, bf16::from_le_bytes),
        Element::Int64 => make(info, &bytes, i64::from_le_bytes),
        Element::Int32 => make(info, &bytes, i32::from_le_bytes),
        Element::Int16 => make(info, &bytes, i16::from_le_bytes),
        Element::Int8 => make(info, &bytes, |raw| i64::from(i8::from_le_bytes(raw))),
        Element::UInt8 => make(info, &bytes, u8::from_le_bytes),
        Element::UInt16 => make(info, &bytes, |raw| i64::from(u16::from_le_bytes(raw))),
        Element::UInt32 => make(info, &bytes, u32::from_le_bytes),
        Element::Bool => make(info, &bytes, |raw: [u8; 1]| u8::from(raw != [0])),
        Element::Unread { name, .. } => Err(format!("elements of {name} are not read")),
    }
}

/// Whether the elements follow each other in the order of the shape. The stride of an axis of one does not
/// matter.
fn is_contiguous(info: &TensorInfo) -> bool {
    let mut step = 1u64;
    info.span == 0
        || info
            .shape
            .iter()
            .zip(&info.strides)
            .rev()
            .all(|(&axis, &stride)| {
                let follows = axis == 1 || stride == step;
                step = step.saturating_mul(axis as u64);
                follows
            })
}

/// Copies the elements of a view out of its `span` bytes, in the order of the shape.
fn gather(info: &TensorInfo, span: &[u8]) -> Result<Vec<u8>, String> {
    let size = info.element.size_bytes();
    let len = info.elem_count();
    let mut gathered = reserve(len.saturating_mul(size))?;
    let mut position = vec![0u64; info.shape.len()];
    let mut at = 0u64;
    for _ in 0..len {
        let start = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(size);
        let element = span
            .get(start..start.saturating_add(size))
            .ok_or("reaches past its storage")?;
        gathered.extend_from_slice(element);
        // The next position: the innermost axis that has room goes on by one, those inside it go back to
        // zero.
        for ((place, &axis), &stride) in position.iter_mut().zip(&info.shape).zip(&info.strides).rev() {
            if *place + 1 < axis as u64 {
                *place += 1;
                at += stride;
                break;
            }
            at -= *place * stride;
            *place = 0;
        }
    }
    Ok(gathered)
}

/// Decodes `bytes` and gives them the shape.
fn make<const N: usize, T: WithDType>(
    info: &TensorInfo,
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> Result<Tensor, String> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut values = reserve(elements.len())?;
    values.extend(elements.iter().map(|&raw| decode(raw)));
    Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu).map_err(|err| err.to_string())
}

fn reserve<T>(len: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|_| format!("no memory for {len} elements"))?;
    Ok(values)
}
