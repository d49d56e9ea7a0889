//! Pickles as data: a restricted reader for the `data.pkl` of PyTorch checkpoints, and a writer for the same.
//!
//! A pickle is a program for a stack machine, and Python's own reader lets it call anything. [`load`] runs
//! the program on a machine that has no calls: a global is looked up in a fixed list and becomes a mark of
//! that list, and `REDUCE` builds dictionaries, storages and tensor records out of those marks. Any other
//! global is foreign: it stays a name, and what the program would make of it becomes an [`Instance`], of which
//! only attributes and entries are kept. Nothing of the file is ever imported, called or evaluated.
//!
//! All that the machine takes is bounded before it is taken: the pickle's length, the values on the stack,
//! the objects, the entries of the memo, and how deep objects nest. Objects live in one list and refer to
//! each other by position, so that deep, shared or circular structures cost nothing to hold or drop.
//!
//! ```
//! use masam::checkpoint::pickle::{self, Value};
//!
//! // What `pickle.dumps({"epoch": 7}, 2)` writes, without the memo.
//! let pickle = pickle::load(b"\x80\x02}X\x05\x00\x00\x00epochK\x07s.".to_vec())?;
//! let entries = pickle.dict(pickle.root()).unwrap_or_default();
//! assert_eq!(pickle.text(entries[0].0), Some("epoch"));
//! assert!(matches!(entries[0].1, Value::Int(7)));
//!
//! // A call is read as its name.
//! let pickle = pickle::load(b"\x80\x02cos\nsystem\n)R.".to_vec())?;
//! assert_eq!(pickle.describe(pickle.root()), "object of os.system");
//! # Ok::<(), masam::checkpoint::pickle::Flaw>(())
//! ```

use std::sync::Arc;

mod globals;
mod machine;
mod pickler;
mod program;
mod rebuild;

pub use globals::{Element, ForeignName, Global};
pub(crate) use pickler::{TensorEntry, write_state_dict};

/// Longest pickle that is read. A model of 1,000 tensors with its optimiser takes about half a megabyte.
pub const MAX_PICKLE_BYTES: usize = 16 << 20;

/// Most objects (tuples, lists, dictionaries, storages, tensors) of one pickle.
pub const MAX_OBJECTS: usize = 1 << 19;

/// Most items and axes that all objects of one pickle hold together.
pub const MAX_PARTS: usize = 1 << 22;

/// Most values that stand on the stack, or in the memo, at one time.
pub const MAX_VALUES: usize = 1 << 20;

/// Most levels of tuples, lists and dictionaries inside each other.
pub const MAX_DEPTH: usize = 200;

/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pickle offset {offset}: {cause}")]
pub struct Flaw {
    /// Byte of the pickle at which the refused instruction starts.
    pub offset: usize,
    /// What is wrong there.
    pub cause: String,
}

/// A place in the list of objects of one [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(u32);

/// A piece of text, kept as its place in the pickle's own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSpan {
    start: usize,
    len: usize,
}

/// One value. Cheap to copy: everything larger than a number is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text; read it with [`Pickle::text`].
    Text(TextSpan),
    /// A value that a state dict has no use for, by kind: bytes, a set, a larger integer, a device.
    Other(&'static str),
    /// A global of the fixed list that has not been used yet.
    Global(Global),
    /// A global that is not on the list: only its name is known.
    Foreign(ForeignName),
    /// An [`Object`]; read it with [`Pickle::object`].
    Object(ObjectId),
}

/// A value with parts.
#[derive(Debug)]
pub enum Object {
    /// A tuple, or a `torch.Size`.
    Tuple(Vec<Value>),
    /// A list.
    List(Vec<Value>),
    /// A dictionary or `OrderedDict`, in the order of writing.
    Dict(Vec<(Value, Value)>),
    /// A tensor's storage: an entry of the archive.
    Storage(StorageRecord),
    /// A tensor or parameter.
    Tensor(Box<TensorRecord>),
    /// What a foreign global would have made.
    Instance(Box<Instance>),
}

/// An object of a foreign class, or the result of a foreign function. Its arguments are not kept.
#[derive(Debug)]
pub struct Instance {
    /// The class or function.
    pub class: ForeignName,
    /// The attributes set on it, usually a dictionary.
    pub state: Option<Value>,
    /// The entries set in it, where the class is a kind of dictionary.
    pub entries: Vec<(Value, Value)>,
}

/// What a pickle says of a storage. Nothing of it has been held against the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageRecord {
    /// The archive's entry is `data/KEY`.
    pub key: TextSpan,
    /// Type of the elements; `None` for bytes whose type comes with each tensor.
    pub element: Option<Element>,
    /// Length in elements, in bytes where `element` is `None`.
    pub len: u64,
}

/// What a pickle says of a tensor. Nothing of it has been held against the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRecord {
    /// The storage it lies in.
    pub storage: StorageRecord,
    /// Type of the elements.
    pub element: Element,
    /// First element, counted in elements from the storage's start.
    pub offset: u64,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// Steps between neighbours along each axis, in elements; as long as `shape`.
    pub strides: Vec<u64>,
}

/// A pickle that has been read: its objects and the value it stands for.
#[derive(Debug)]
pub struct Pickle {
    bytes: Arc<[u8]>,
    objects: Vec<Object>,
    root: Value,
}

/// Reads a pickle of protocols 2 to 5, as `torch.save` writes them.
///
/// # Errors
/// A [`Flaw`] with the offset of the first instruction that is unknown, cut short, out of place or over a
/// bound, or of what follows the pickle's end.
pub fn load(bytes: Vec<u8>) -> Result<Pickle, Flaw> {
    let (pickle, end) = load_at(bytes.into(), 0)?;
    match pickle.bytes.len() - end {
        0 => Ok(pickle),
        left => Err(Flaw {
            offset: end.saturating_sub(1),
            cause: format!("{left} bytes follow the STOP"),
        }),
    }
}

/// Reads the pickle that starts at byte `start`; returns it with the first byte after it.
///
/// # Errors
/// As [`load`], but anything may follow.
pub(crate) fn load_at(bytes: Arc<[u8]>, start: usize) -> Result<(Pickle, usize), Flaw> {
    if bytes.len() > MAX_PICKLE_BYTES {
        let cause = format!(
            "{} bytes long, but at most {MAX_PICKLE_BYTES} are read",
            bytes.len()
        );
        return Err(Flaw { offset: 0, cause });
    }
    let (objects, root, end) = machine::run(&bytes, start)?;
    Ok((Pickle { bytes, objects, root }, end))
}

impl Pickle {
    /// The value the pickle stands for.
    pub fn root(&self) -> Value {
        self.root
    }

    /// All objects, in the order they were made.
    pub(crate) fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The object behind `value`, if it is one.
    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(ObjectId(index)) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// The entries of `value`, if it is a dictionary, or of a foreign class that is a kind of dictionary.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.object(value) {
            Some(Object::Dict(entries)) => Some(entries),
            Some(Object::Instance(instance)) if !instance.entries.is_empty() => Some(&instance.entries),
            _ => None,
        }
    }

    /// The record of `value`, if it is a tensor.
    pub fn tensor(&self, value: Value) -> Option<&TensorRecord> {
        match self.object(value) {
            Some(Object::Tensor(record)) => Some(record),
            _ => None,
        }
    }

    /// The text of `value`, if it is text.
    pub fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(span) => Some(self.span(span)),
            _ => None,
        }
    }

    /// The text at `span`, which came from this pickle.
    pub fn span(&self, span: TextSpan) -> &str {
        text_at(&self.bytes, span)
    }

    /// A foreign global as `module.name`, as it may stand in a message.
    pub fn foreign(&self, name: ForeignName) -> String {
        shown(&format!("{}.{}", self.span(name.module), self.span(name.name)))
    }

    /// What `value` is, in a few words: `dict of 3`, `int`, `tensor of complex64`.
    pub fn describe(&self, value: Value) -> String {
        match value {
            Value::None => "none".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Float(_) => "float".into(),
            Value::Text(_) => "text".into(),
            Value::Other(kind) => kind.into(),
            Value::Global(global) => global.kind().into(),
            Value::Foreign(name) => self.foreign(name),
            Value::Object(_) => match self.object(value) {
                Some(Object::Tuple(items)) => format!("tuple of {}", items.len()),
                Some(Object::List(items)) => format!("list of {}", items.len()),
                Some(Object::Dict(entries)) => format!("dict of {}", entries.len()),
                Some(Object::Storage(_)) => "storage".into(),
                Some(Object::Tensor(record)) => format!("tensor of {}", record.element.name()),
                Some(Object::Instance(instance)) => format!("object of {}", self.foreign(instance.class)),
                None => "nothing".into(),
            },
        }
    }
}

/// The text at `span` of `bytes`; the machine has checked bounds and encoding when it made the span.
fn text_at(bytes: &[u8], span: TextSpan) -> &str {
    let end = span.start.saturating_add(span.len);
    bytes
        .get(span.start..end)
        .and_then(|text| std::str::from_utf8(text).ok())
        .unwrap_or_default()
}

/// `text` as it may stand in a message: control characters escaped, and not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    /// Characters kept.
    const SHOWN_CHARS: usize = 100;
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
