//! What a pickle's globals are taken for: the calls that would build dictionaries, storages and tensors, done
//! as data.

use super::globals::{self, Element, Global};
use super::machine::Machine;
use super::program::Step;
use super::{Object, StorageRecord, TensorRecord, TextSpan, Value, shown};

/// Most axes of a tensor; PyTorch's own bound.
const MAX_RANK: usize = 64;

/// Longest key of a storage; real ones are short numbers.
const MAX_KEY_BYTES: usize = 200;

impl Machine<'_> {
    pub(super) fn push_global(&mut self, module: TextSpan, name: TextSpan) -> Step<()> {
        let (module, name) = (self.program.text(module), self.program.text(name));
        match globals::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => {
                let global = shown(&format!("{module}.{name}"));
                Err(format!(
                    "the global {global} is not one that a checkpoint of tensors needs; nothing of it was run"
                ))
            }
        }
    }

    pub(super) fn reduce(&mut self) -> Step<()> {
        let arguments = self.pop_arguments()?;
        match self.pop()? {
            Value::Global(function) => self.call(function, &arguments),
            _ => Err("REDUCE of something that is no global".into()),
        }
    }

    /// Builds what `function` would build, out of `arguments`.
    fn call(&mut self, function: Global, arguments: &[Value]) -> Step<()> {
        match (function, arguments) {
            (Global::OrderedDict, []) => self.push_object(Object::Dict(Vec::new())),
            (Global::Size, &[axes]) => {
                self.tuple_items(axes)?;
                self.push(axes)
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides])
            | (Global::RebuildTensorV2, &[storage, offset, shape, strides, _, _])
            | (Global::RebuildTensorV2, &[storage, offset, shape, strides, _, _, _]) => {
                self.tensor(storage, offset, shape, strides, None)
            }
            (Global::RebuildTensorV3, &[storage, offset, shape, strides, _, _, dtype])
            | (Global::RebuildTensorV3, &[storage, offset, shape, strides, _, _, dtype, _]) => match dtype {
                Value::Global(Global::Dtype(element)) => {
                    self.tensor(storage, offset, shape, strides, Some(element))
                }
                _ => Err("a tensor's dtype is no dtype".into()),
            },
            (Global::RebuildParameter, &[tensor, _, _] | &[tensor, _, _, _]) => self.push_tensor(tensor),
            (Global::RebuildFromType, &[Value::Global(function), class, arguments, _]) => {
                if class != Value::Global(Global::TensorClass) {
                    return Err("a tensor of a class of its own".into());
                }
                if function == Global::RebuildFromType {
                    return Err("a tensor with attributes inside another".into());
                }
                let arguments = self.arguments(arguments)?;
                self.call(function, &arguments)
            }
            (Global::Plain(kind), _) => self.push(Value::Other(kind)),
            _ => Err(format!(
                "a {} does not take these {} arguments",
                function.kind(),
                arguments.len()
            )),
        }
    }

    pub(super) fn new_object(&mut self) -> Step<()> {
        let arguments = self.pop_arguments()?;
        match self.pop()? {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push_object(Object::Dict(Vec::new()))
            }
            Value::Global(Global::Plain(kind)) => self.push(Value::Other(kind)),
            _ => Err("a new object of something that is no plain class".into()),
        }
    }

    /// `BUILD` sets attributes, such as the `_metadata` of a state dict; none is kept.
    pub(super) fn build(&mut self) -> Step<()> {
        self.pop()?;
        let target = self.top()?;
        match target {
            Value::Other(_) => Ok(()),
            Value::Object(_) => match self.object(target) {
                Some(Object::Dict(_) | Object::Tensor(_)) => Ok(()),
                _ => Err("attributes are set on something that takes none".into()),
            },
            _ => Err("attributes are set on something that takes none".into()),
        }
    }

    /// `("storage", class, key, location, length)`: an entry of the archive.
    pub(super) fn persistent(&mut self) -> Step<()> {
        let parts = self.pop_arguments()?;
        let &[
            Value::Text(kind),
            Value::Global(class),
            Value::Text(key),
            _,
            Value::Int(len),
        ] = parts.as_slice()
        else {
            return Err("a persistent id that is no storage".into());
        };
        if self.program.text(kind) != "storage" {
            return Err(format!(
                "a persistent id of kind {}",
                shown(self.program.text(kind))
            ));
        }
        if self.program.text(key).len() > MAX_KEY_BYTES {
            return Err(format!("a storage's key is longer than {MAX_KEY_BYTES} bytes"));
        }
        let element = match class {
            Global::Storage(element) => Some(element),
            Global::UntypedStorage => None,
            _ => return Err("a storage whose class is no storage class".into()),
        };
        let len = u64::try_from(len).map_err(|_| format!("a storage of {len} elements"))?;
        self.push_object(Object::Storage(StorageRecord { key, element, len }))
    }

    fn tensor(
        &mut self,
        storage: Value,
        offset: Value,
        shape: Value,
        strides: Value,
        dtype: Option<Element>,
    ) -> Step<()> {
        let storage = match self.object(storage) {
            Some(Object::Storage(storage)) => *storage,
            _ => return Err("a tensor without a storage".into()),
        };
        let element = dtype.or(storage.element).ok_or("a tensor without a dtype")?;
        let offset = match offset {
            Value::Int(offset) => {
                u64::try_from(offset).map_err(|_| format!("a tensor's offset is {offset}"))?
            }
            _ => return Err("a tensor's offset is no integer".into()),
        };
        let (shape, strides) = (self.axes("shape", shape)?, self.axes("strides", strides)?);
        if shape.len() != strides.len() {
            return Err(format!(
                "a tensor has {} axes but {} strides",
                shape.len(),
                strides.len()
            ));
        }
        self.push_object(Object::Tensor(Box::new(TensorRecord {
            storage,
            element,
            offset,
            shape,
            strides,
        })))
    }

    fn push_tensor(&mut self, tensor: Value) -> Step<()> {
        match self.object(tensor) {
            Some(Object::Tensor(_)) => self.push(tensor),
            _ => Err("a parameter that holds no tensor".into()),
        }
    }

    fn axes(&self, what: &str, value: Value) -> Step<Vec<u64>> {
        let items = self.tuple_items(value)?;
        if items.len() > MAX_RANK {
            return Err(format!(
                "a tensor's {what} has {} axes, but at most {MAX_RANK} are read",
                items.len()
            ));
        }
        let axis = |item: &Value| match *item {
            Value::Int(len) => {
                u64::try_from(len).map_err(|_| format!("a tensor's {what} has the entry {len}"))
            }
            _ => Err(format!("a tensor's {what} holds something that is no integer")),
        };
        items.iter().map(axis).collect()
    }
}
