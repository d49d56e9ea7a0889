//! What a pickle's globals are taken for: the calls that would build dictionaries, storages and tensors, done
//! as data. Calls of foreign globals leave an object of that name.

use super::globals::{self, Element, ForeignName, Global};
use super::machine::Machine;
use super::program::Step;
use super::{Object, StorageRecord, TensorRecord, TextSpan, Value, shown};

/// Most axes of a tensor; PyTorch's own bound.
const MAX_RANK: usize = 64;

/// Longest key of a storage; real ones are short numbers.
const MAX_KEY_BYTES: usize = 200;

impl Machine<'_> {
    pub(super) fn push_global(&mut self, module: TextSpan, name: TextSpan) -> Step<()> {
        let (module_text, name_text) = (self.program.text(module), self.program.text(name));
        match globals::find(module_text, name_text) {
            Some(global) => self.push(Value::Global(global)),
            None => self.push(Value::Foreign(ForeignName { module, name })),
        }
    }

    pub(super) fn reduce(&mut self) -> Step<()> {
        let arguments = self.pop()?;
        match self.pop()? {
            Value::Global(function) => {
                let arguments = self.arguments(arguments)?;
                self.call(function, &arguments)
            }
            function => match self.foreign_class(function) {
                Some(class) => self.push_instance(class),
                None => Err("REDUCE of something that is no global".into()),
            },
        }
    }

    /// The foreign global that `value` is or was made of.
    fn foreign_class(&self, value: Value) -> Option<ForeignName> {
        match value {
            Value::Foreign(class) => Some(class),
            _ => match self.object(value) {
                Some(Object::Instance(instance)) => Some(instance.class),
                _ => None,
            },
        }
    }

    /// Builds what `function` would build, out of `arguments`.
    fn call(&mut self, function: Global, arguments: &[Value]) -> Step<()> {
        match (function, arguments) {
            (Global::Dict, []) => self.push_object(Object::Dict(Vec::new())),
            (Global::Dict, &[argument]) => {
                let entries = self.pairs(argument)?;
                self.push_object(Object::Dict(entries))
            }
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
                if class != Value::Global(Global::TensorClass) && self.foreign_class(class).is_none() {
                    return Err("a tensor of something that is no class".into());
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

    /// The entries of a dictionary that was written as a list of pairs, as Python 2 did; a `defaultdict`'s argument
    /// makes its missing values, and gives none.
    fn pairs(&mut self, argument: Value) -> Step<Vec<(Value, Value)>> {
        let len = match self.object(argument) {
            Some(Object::List(items)) => items.len(),
            _ => return Ok(Vec::new()),
        };
        // Walking them is work, whatever comes of it.
        self.count_parts(len)?;
        let Some(Object::List(items)) = self.object(argument) else {
            return Ok(Vec::new());
        };
        let pair = |&item: &Value| match self.object(item) {
            Some(Object::Tuple(pair) | Object::List(pair)) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        Ok(items.iter().filter_map(pair).collect())
    }

    pub(super) fn new_object(&mut self) -> Step<()> {
        self.pop()?;
        match self.pop()? {
            Value::Global(Global::Dict) => self.push_object(Object::Dict(Vec::new())),
            Value::Global(Global::Plain(kind)) => self.push(Value::Other(kind)),
            class => match self.foreign_class(class) {
                Some(class) => self.push_instance(class),
                None => Err("a new object of something that is no plain class".into()),
            },
        }
    }

    /// `BUILD` sets attributes, such as the `_metadata` of a state dict; only a foreign object keeps them.
    pub(super) fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        match target {
            Value::Other(_) => Ok(()),
            Value::Object(_) => match self.object(target) {
                Some(Object::Dict(_) | Object::Tensor(_)) => Ok(()),
                Some(Object::Instance(_)) => self.set_state(target, state),
                _ => Err("attributes are set on something that takes none".into()),
            },
            _ => Err("attributes are set on something that takes none".into()),
        }
    }

    /// `("storage", class, key, location, length)`: an entry of the archive. Before PyTorch 1.6 a view of another
    /// storage followed, none in any file of the last years, and `("module", class, file, source)` named a class.
    pub(super) fn persistent(&mut self) -> Step<()> {
        let parts = self.pop_arguments()?;
        let (kind, class, key, len) = match *parts.as_slice() {
            [
                Value::Text(kind),
                Value::Global(class),
                Value::Text(key),
                _,
                Value::Int(len),
            ]
            | [
                Value::Text(kind),
                Value::Global(class),
                Value::Text(key),
                _,
                Value::Int(len),
                Value::None,
            ] => (kind, class, key, len),
            [Value::Text(kind), class @ Value::Foreign(_), _, _] if self.program.text(kind) == "module" => {
                return self.push(class);
            }
            _ => return Err("a persistent id that is no storage".into()),
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
            // A storage as Python's own pickle module writes it.
            Some(Object::Instance(instance)) => return self.push_instance(instance.class),
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
            Some(Object::Tensor(_) | Object::Instance(_)) => self.push(tensor),
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
