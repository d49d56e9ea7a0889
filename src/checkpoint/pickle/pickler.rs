//! The pickle that `torch.save` would write for a plain dict of tensors, protocol 2.

use std::collections::HashMap;

/// One tensor of a state dict that is written: contiguous, with a storage of its own.
pub(crate) struct TensorEntry<'a> {
    /// Its key in the dict.
    pub name: &'a str,
    /// Name of its storage class in the module `torch`.
    pub storage_class: &'static str,
    /// The archive's entry of the storage is `data/KEY`.
    pub key: String,
    /// Shape, outermost axis first.
    pub shape: &'a [usize],
}

/// Pickles a dict of `entries`.
///
/// # Errors
/// A name longer than 2^32 - 1 bytes, or a shape whose product does not fit a signed 64-bit integer.
pub(crate) fn write_state_dict(entries: &[TensorEntry]) -> Result<Vec<u8>, String> {
    let mut pickler = Pickler {
        bytes: vec![0x80, 2],
        memo: HashMap::new(),
    };
    pickler.bytes.push(b'}');
    pickler.bytes.push(b'(');
    for entry in entries {
        pickler.tensor(entry)?;
    }
    pickler.bytes.extend(b"u.");
    Ok(pickler.bytes)
}

struct Pickler {
    bytes: Vec<u8>,
    /// Places of what has been written once and is fetched after that.
    memo: HashMap<&'static str, u8>,
}

impl Pickler {
    /// `name: _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`
    fn tensor(&mut self, entry: &TensorEntry) -> Result<(), String> {
        let (strides, len) =
            row_major(entry.shape).ok_or_else(|| format!("its shape {:?} is too large", entry.shape))?;
        self.text(entry.name)?;
        self.global("torch._utils\n_rebuild_tensor_v2\n");
        self.bytes.extend(b"((");
        self.fixed_text("storage")?;
        self.global(entry.storage_class);
        self.text(&entry.key)?;
        self.fixed_text("cpu")?;
        self.int(len);
        self.bytes.extend(b"tQ");
        self.int(0);
        self.ints(entry.shape.iter().map(|&axis| axis as i64));
        self.ints(strides);
        self.bytes.push(0x89);
        self.global("collections\nOrderedDict\n");
        self.bytes.extend(b")RtR");
        Ok(())
    }

    /// Writes `what` by `write` the first time, and fetches it from the memo after that.
    fn once(&mut self, what: &'static str, write: impl FnOnce(&mut Self)) {
        if let Some(&place) = self.memo.get(what) {
            self.bytes.extend([b'h', place]);
            return;
        }
        write(self);
        // There are fewer than 256 different things to remember; more would only be written out again.
        if let Ok(place) = u8::try_from(self.memo.len()) {
            self.bytes.extend([b'q', place]);
            self.memo.insert(what, place);
        }
    }

    /// A global as `module\nname\n`, or a name of the module `torch`.
    fn global(&mut self, global: &'static str) {
        self.once(global, |pickler| {
            pickler.bytes.push(b'c');
            if global.contains('\n') {
                pickler.bytes.extend(global.as_bytes());
            } else {
                pickler.bytes.extend(b"torch\n");
                pickler.bytes.extend(global.as_bytes());
                pickler.bytes.push(b'\n');
            }
        });
    }

    fn fixed_text(&mut self, text: &'static str) -> Result<(), String> {
        let mut written = Ok(());
        self.once(text, |pickler| written = pickler.text(text));
        written
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let len = u32::try_from(text.len()).map_err(|_| format!("text of {} bytes", text.len()))?;
        self.bytes.push(b'X');
        self.bytes.extend(len.to_le_bytes());
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    fn int(&mut self, int: i64) {
        if let Ok(int) = u8::try_from(int) {
            self.bytes.extend([b'K', int]);
        } else if let Ok(int) = i32::try_from(int) {
            self.bytes.push(b'J');
            self.bytes.extend(int.to_le_bytes());
        } else {
            self.bytes.extend([0x8a, 8]);
            self.bytes.extend(int.to_le_bytes());
        }
    }

    fn ints(&mut self, ints: impl IntoIterator<Item = i64>) {
        self.bytes.push(b'(');
        for int in ints {
            self.int(int);
        }
        self.bytes.push(b't');
    }
}

/// Strides of a contiguous tensor as PyTorch counts them (an empty axis counts as one), and its number of
/// elements.
fn row_major(shape: &[usize]) -> Option<(Vec<i64>, i64)> {
    let mut strides = vec![0; shape.len()];
    let (mut step, mut len) = (1i64, 1i64);
    for (stride, &axis) in strides.iter_mut().zip(shape).rev() {
        let axis = i64::try_from(axis).ok()?;
        *stride = step;
        step = step.checked_mul(axis.max(1))?;
        len = len.checked_mul(axis)?;
    }
    Some((strides, len))
}
