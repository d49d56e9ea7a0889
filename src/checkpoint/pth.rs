//! PyTorch checkpoints (`.pth`, `.pt`, `.ckpt`, `.bin`): the zip archive of `torch.save` and its older format, read
//! without running any of their code; the former written so that `torch.load(path, weights_only=True)` takes it.
//!
//! A checkpoint is a pickle, which says what tensors there are, and their storages. A tensor is
//! a view of a storage: element `(i, j, ..)` lies at `offset + i * strides[0] + j * strides[1] + ..`.
//! [`PthFile::open`] reads the pickle and holds every tensor against its storage; [`PthFile::read`] then
//! reads the bytes of one tensor.
//!
//! ```no_run
//! use masam::checkpoint::pth::{self, PthFile};
//! use std::path::Path;
//!
//! let file = PthFile::open(Path::new("sam_vit_b.pth"))?;
//! for (name, info) in file.tensors() {
//!     println!("{name}: {:?} {}", info.shape(), info.stored_as());
//! }
//! let table = file.read("image_encoder.pos_embed")?;
//! pth::write(Path::new("table.pth"), [("image_encoder.pos_embed", &table)])?;
//! # Ok::<(), masam::Error>(())
//! ```

mod archive;
mod container;
mod elements;
mod legacy;
mod state_dict;
mod writer;

use crate::checkpoint::pickle::{Element, TensorRecord, shown};
use crate::checkpoint::select::{Candidate, Place, Selection};
use crate::error::{Error, Result};
use archive::SMALL_BYTES;
use candle_core::{DType, Tensor};
use container::Container;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use writer::write;

/// Reading all tensors of a checkpoint may take this many times what its archive holds (more than once only
/// for tensors that share a storage), and [`SMALL_BYTES`] on top. A view can repeat one element any number of
/// times.
const MAX_READ_RATIO: u64 = 32;

/// Skipped values that are kept by name.
const MAX_SKIPPED_NAMED: usize = 4096;

/// An opened checkpoint. Reading takes `&self`: readers of several threads wait for each other.
#[derive(Debug)]
pub struct PthFile {
    path: PathBuf,
    container: Mutex<Container>,
    tensors: BTreeMap<String, TensorInfo>,
    skipped: Skipped,
    nested_under: Option<String>,
    others: Vec<Candidate>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    dtype: DType,
    shape: Vec<usize>,
    place: Place,
    element: Element,
    /// Key of its storage.
    storage: String,
    /// First element, counted in elements from the storage's start.
    offset: u64,
    /// As long as `shape`, in elements.
    strides: Vec<u64>,
    /// Elements from the first that the tensor touches to the last, both included; none for an empty tensor.
    span: u64,
}

/// What a checkpoint holds besides the tensors that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    count: usize,
    named: Vec<(String, String)>,
}

impl PthFile {
    /// Opens the checkpoint at `path`. The tensors of SAM's or MA-SAM's names are found wherever they lie; those of
    /// another model may be the whole checkpoint, lie under a usual key such as `state_dict` or `model`, or be the only
    /// dict of tensors in it.
    ///
    /// # Errors
    /// [`Error::File`] with the cause, naming the pickle's offset, the archive's entry or the tensor: not a
    /// file of `torch.save`, damaged or cut short, big-endian data, no tensors, several state dicts of which none is
    /// surely meant, a tensor that reaches past its storage, or sizes that no honest file has.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_selected(path, &Selection::Usual)
    }

    /// The same with a choice among several state dicts.
    ///
    /// # Errors
    /// As [`PthFile::open`], and a choice that the checkpoint does not have.
    pub fn open_selected(path: &Path, selection: &Selection) -> Result<Self> {
        let (container, pickle) = Container::open(path)?;
        let fail = |cause: String| Error::file(path, cause);
        let found = state_dict::find(&pickle, selection).map_err(fail)?;
        let mut skipped = found.skipped;
        let mut tensors = BTreeMap::new();
        let mut read_bytes = 0u64;
        for (name, place, record) in found.tensors {
            let Some(dtype) = elements::dtype(record.element) else {
                skipped.add(shown(&name), format!("tensor of {}", record.element.name()));
                continue;
            };
            let fail = |cause: String| Error::file(path, format!("tensor {}: {cause}", shown(&name)));
            let storage = pickle.span(record.storage.key).to_owned();
            let info = locate(record, dtype, storage, place, &container).map_err(fail)?;
            read_bytes = read_bytes.saturating_add(info.read_bytes(&container));
            match tensors.entry(name.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(info)),
                Entry::Occupied(_) => return Err(fail("is there twice".into())),
            }
        }
        let held_bytes = container.total_bytes();
        let max_bytes = held_bytes
            .saturating_mul(MAX_READ_RATIO)
            .saturating_add(SMALL_BYTES);
        if read_bytes > max_bytes {
            return Err(fail(format!(
                "its tensors come to {read_bytes} bytes, but the archive holds {held_bytes}, for which at most \
                 {max_bytes} are read"
            )));
        }
        Ok(Self {
            path: path.to_path_buf(),
            container: Mutex::new(container),
            tensors,
            skipped,
            nested_under: found.under,
            others: found.others,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors that can be read, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The keys that the state dict lies under, joined by dots; `None` when it is the whole checkpoint.
    pub fn nested_under(&self) -> Option<&str> {
        self.nested_under.as_deref()
    }

    /// State dicts of SAM's or MA-SAM's names that are not read.
    pub fn others(&self) -> &[Candidate] {
        &self.others
    }

    /// What the checkpoint holds besides: numbers, text, the optimiser, tensors of types that are not read.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Reads tensor `name` to the CPU, contiguous, as [`TensorInfo::dtype`].
    ///
    /// # Errors
    /// [`Error::File`] when there is no such tensor, when the archive's entry is damaged (its checksum is
    /// checked the first time), or when there is no memory for it.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let fail = |cause: String| Error::file(&self.path, cause);
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| fail(format!("has no tensor {}", shown(name))))?;
        let size_bytes = info.element.size_bytes() as u64;
        let bytes = if info.span == 0 {
            Vec::new()
        } else {
            // A reader that panicked leaves nothing half done that the next would use: every read seeks
            // first.
            let mut container = self.container.lock().unwrap_or_else(PoisonError::into_inner);
            container
                .read(&info.storage, info.offset * size_bytes, info.span * size_bytes)
                .map_err(|err| match err {
                    Error::File { path, cause } => {
                        Error::file(path, format!("tensor {}: {cause}", shown(name)))
                    }
                    other => other,
                })?
        };
        elements::tensor(info, bytes).map_err(|cause| fail(format!("tensor {}: {cause}", shown(name))))
    }
}

impl TensorInfo {
    /// Type of the tensor that [`PthFile::read`] returns: the stored type where Candle has it, `U8` for
    /// `bool`, and `I64` for `int8` and `uint16`.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost axis first; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// PyTorch's name of the stored type, for example `float32`.
    pub fn stored_as(&self) -> &'static str {
        self.element.name()
    }

    /// The part of the checkpoint it belongs to.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes that reading goes through or makes, whichever is more.
    fn read_bytes(&self, container: &Container) -> u64 {
        let made = (self.elem_count() as u64).saturating_mul(self.dtype.size_in_bytes() as u64);
        if self.span == 0 {
            return made;
        }
        let taken = self.span.saturating_mul(self.element.size_bytes() as u64);
        made.max(container.cost_bytes(&self.storage, taken))
    }
}

impl Skipped {
    /// How many values were skipped.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Key and kind of each, `("epoch", "int")`; of more than 4096 only the first.
    pub fn named(&self) -> &[(String, String)] {
        &self.named
    }

    fn add(&mut self, name: String, kind: String) {
        self.count += 1;
        if self.named.len() < MAX_SKIPPED_NAMED {
            self.named.push((name, kind));
        }
    }
}

/// Holds a tensor's record against its storage, and that against the file.
fn locate(
    record: &TensorRecord,
    dtype: DType,
    storage: String,
    place: Place,
    container: &Container,
) -> Result<TensorInfo, String> {
    let claimed = &record.storage;
    let named = || container.full_name(&storage);
    let stored_bytes = container
        .size_bytes(&storage)
        .ok_or_else(|| format!("its storage {} is not in the archive", named()))?;
    let unit_bytes = claimed.element.map_or(1, Element::size_bytes) as u64;
    if claimed.len.checked_mul(unit_bytes) != Some(stored_bytes) {
        return Err(format!(
            "its storage {} has {stored_bytes} bytes, but {} elements are claimed",
            named(),
            claimed.len
        ));
    }

    // Candle multiplies the axes of a shape unchecked, those of an empty tensor too.
    let too_large = || format!("its shape {:?} is too large", record.shape);
    let axes = record.shape.iter().map(|&axis| axis.max(1));
    let product = axes
        .clone()
        .try_fold(1u64, u64::checked_mul)
        .ok_or_else(too_large)?;
    if product > isize::MAX as u64 / 8 {
        return Err(too_large());
    }
    let shape: Vec<usize> = record
        .shape
        .iter()
        .map(|&axis| usize::try_from(axis).map_err(|_| too_large()))
        .collect::<Result<_, _>>()?;

    let span = if record.shape.contains(&0) {
        0
    } else {
        let mut steps = axes
            .zip(&record.strides)
            .map(|(axis, &stride)| (axis - 1).checked_mul(stride));
        let last = steps.try_fold(0u64, |sum, step| sum.checked_add(step?));
        let available = stored_bytes / record.element.size_bytes() as u64;
        match last.and_then(|last| last.checked_add(1)) {
            Some(span)
                if record
                    .offset
                    .checked_add(span)
                    .is_some_and(|end| end <= available) =>
            {
                span
            }
            _ => {
                return Err(format!(
                    "its shape {:?} with strides {:?} from element {} reaches past the {available} elements of \
                     its storage",
                    record.shape, record.strides, record.offset
                ));
            }
        }
    };
    let (element, offset, strides) = (record.element, record.offset, record.strides.clone());
    Ok(TensorInfo {
        dtype,
        shape,
        place,
        element,
        storage,
        offset,
        strides,
        span,
    })
}
