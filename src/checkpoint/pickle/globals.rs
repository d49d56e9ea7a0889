//! The globals that a checkpoint of tensors needs, and what each is taken for.

use super::TextSpan;

/// Type of a tensor's elements, as PyTorch names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are PyTorch's own")]
pub enum Element {
    Float64,
    Float32,
    Float16,
    BFloat16,
    Int64,
    Int32,
    Int16,
    Int8,
    UInt8,
    UInt16,
    UInt32,
    Bool,
    /// A type that is known but not read: complex numbers, unsigned 64-bit integers, eight-bit floats.
    Unread {
        name: &'static str,
        bytes: usize,
    },
}

impl Element {
    /// PyTorch's name: `float32`.
    pub fn name(self) -> &'static str {
        match self {
            Element::Float64 => "float64",
            Element::Float32 => "float32",
            Element::Float16 => "float16",
            Element::BFloat16 => "bfloat16",
            Element::Int64 => "int64",
            Element::Int32 => "int32",
            Element::Int16 => "int16",
            Element::Int8 => "int8",
            Element::UInt8 => "uint8",
            Element::UInt16 => "uint16",
            Element::UInt32 => "uint32",
            Element::Bool => "bool",
            Element::Unread { name, .. } => name,
        }
    }

    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Element::Float64 | Element::Int64 => 8,
            Element::Float32 | Element::Int32 | Element::UInt32 => 4,
            Element::Float16 | Element::BFloat16 | Element::Int16 | Element::UInt16 => 2,
            Element::Int8 | Element::UInt8 | Element::Bool => 1,
            Element::Unread { bytes, .. } => bytes,
        }
    }
}

/// A global that is not on the list, by its places in the pickle's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignName {
    /// Its module.
    pub module: TextSpan,
    /// Its name in the module.
    pub name: TextSpan,
}

/// An entry of the fixed list of globals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict` or `collections.defaultdict`.
    Dict,
    /// `torch.Size`.
    Size,
    /// `torch._utils._rebuild_tensor(storage, offset, shape, strides)`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])`.
    RebuildTensorV2,
    /// `torch._utils._rebuild_tensor_v3(.., requires_grad, hooks, dtype[, metadata])`, the storage being
    /// bytes.
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter(tensor, ..)` and `_rebuild_parameter_with_state`.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(function, class, arguments, state)`: a tensor with attributes, or of a
    /// class of its own.
    RebuildFromType,
    /// The class of a tensor or parameter, which only `RebuildFromType` takes as it is.
    TensorClass,
    /// `torch.FloatStorage` and its like.
    Storage(Element),
    /// `torch.storage.UntypedStorage`.
    UntypedStorage,
    /// `torch.float32` and its like.
    Dtype(Element),
    /// Something harmless whose result a state dict has no use for, by kind.
    Plain(&'static str),
}

impl Global {
    /// What it is, in a word or two.
    pub fn kind(self) -> &'static str {
        match self {
            Global::Dict | Global::Size | Global::TensorClass => "class",
            Global::Storage(_) | Global::UntypedStorage => "storage class",
            Global::Dtype(_) => "dtype",
            Global::Plain(kind) => kind,
            _ => "function",
        }
    }
}

const COMPLEX64: Element = Element::Unread {
    name: "complex64",
    bytes: 8,
};
const COMPLEX128: Element = Element::Unread {
    name: "complex128",
    bytes: 16,
};

/// Looks a global up.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    let global = match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => Global::Dict,
        ("collections", "Counter") => Global::Plain("counter"),
        // Protocol 2 writes `builtins` by its name in Python 2.
        ("builtins" | "__builtin__", "set") => Global::Plain("set"),
        ("builtins" | "__builtin__", "bytearray") => Global::Plain("bytes"),
        ("builtins" | "__builtin__", "complex") => Global::Plain("complex number"),
        ("_codecs", "encode") => Global::Plain("bytes"),
        ("torch.serialization", "_get_layout") => Global::Plain("layout"),
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => Global::RebuildFromType,
        ("torch.nn.parameter", "Parameter") => Global::TensorClass,
        // `_UntypedStorage` is its name in PyTorch 1.11 and 1.12.
        ("torch.storage", "UntypedStorage" | "_UntypedStorage") => Global::UntypedStorage,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Plain("device"),
        ("torch", "Tensor") => Global::TensorClass,
        ("torch", _) => return find_torch_type(name),
        _ => return None,
    };
    Some(global)
}

/// Storage classes and dtypes of the module `torch`.
fn find_torch_type(name: &str) -> Option<Global> {
    let unread = |name, bytes| Global::Dtype(Element::Unread { name, bytes });
    let global = match name {
        "DoubleStorage" => Global::Storage(Element::Float64),
        "FloatStorage" => Global::Storage(Element::Float32),
        "HalfStorage" => Global::Storage(Element::Float16),
        "BFloat16Storage" => Global::Storage(Element::BFloat16),
        "LongStorage" => Global::Storage(Element::Int64),
        "IntStorage" => Global::Storage(Element::Int32),
        "ShortStorage" => Global::Storage(Element::Int16),
        "CharStorage" => Global::Storage(Element::Int8),
        "ByteStorage" => Global::Storage(Element::UInt8),
        "BoolStorage" => Global::Storage(Element::Bool),
        "ComplexFloatStorage" => Global::Storage(COMPLEX64),
        "ComplexDoubleStorage" => Global::Storage(COMPLEX128),
        "float64" => Global::Dtype(Element::Float64),
        "float32" => Global::Dtype(Element::Float32),
        "float16" => Global::Dtype(Element::Float16),
        "bfloat16" => Global::Dtype(Element::BFloat16),
        "int64" => Global::Dtype(Element::Int64),
        "int32" => Global::Dtype(Element::Int32),
        "int16" => Global::Dtype(Element::Int16),
        "int8" => Global::Dtype(Element::Int8),
        "uint8" => Global::Dtype(Element::UInt8),
        "uint16" => Global::Dtype(Element::UInt16),
        "uint32" => Global::Dtype(Element::UInt32),
        "bool" => Global::Dtype(Element::Bool),
        "uint64" => unread("uint64", 8),
        "complex32" => unread("complex32", 4),
        "complex64" => Global::Dtype(COMPLEX64),
        "complex128" => Global::Dtype(COMPLEX128),
        "float8_e4m3fn" => unread("float8_e4m3fn", 1),
        "float8_e4m3fnuz" => unread("float8_e4m3fnuz", 1),
        "float8_e5m2" => unread("float8_e5m2", 1),
        "float8_e5m2fnuz" => unread("float8_e5m2fnuz", 1),
        "float8_e8m0fnu" => unread("float8_e8m0fnu", 1),
        _ => return None,
    };
    Some(global)
}
