//! Every tensor in a checkpoint, with the keys that lead to it: through dictionaries, short lists, and the objects of
//! foreign classes, of which a pickled module is one.

use super::{MAX_NAME_BYTES, shown};
use crate::checkpoint::pickle::{Instance, Object, ObjectId, Pickle, TensorRecord, Value};
use crate::checkpoint::select::is_optimizer;
use std::collections::{HashMap, VecDeque};

/// Longest path to a container, in bytes; what lies deeper is not looked at.
const MAX_PATH_BYTES: usize = 400;

/// Most containers that are looked at, the outermost first.
const MAX_CONTAINERS: usize = 1 << 16;

/// Most places of one container, as of a state dict that is both the last and the best.
const MAX_PLACES: usize = 4;

/// Most tensors of a checkpoint.
const MAX_TENSORS: usize = 1 << 16;

/// Longest list that may hold state dicts; longer ones are records of training.
const MAX_LIST: usize = 64;

/// Attributes of a pickled `torch.nn.Module` that are no part of a name.
const MODULE_PARTS: [&str; 3] = ["_parameters", "_buffers", "_modules"];

/// A tensor and the keys that lead to it, joined by dots.
pub(super) struct Found<'a> {
    pub path: String,
    pub what: What<'a>,
}

/// What lies there.
pub(super) enum What<'a> {
    Tensor(&'a TensorRecord),
    Unread(Unread),
}

/// A kind of tensor that is not read.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    pub name: &'static str,
    pub cure: &'static str,
}

/// Finds the tensors of `pickle`; those of optimizers are left out.
///
/// # Errors
/// A name that is too long, or more tensors than any model has.
pub(super) fn tensors(pickle: &Pickle) -> Result<Vec<Found<'_>>, String> {
    let mut walk = Walk {
        pickle,
        seen: HashMap::new(),
        containers: 0,
        waiting: VecDeque::new(),
        found: Vec::new(),
    };
    walk.meet(pickle.root(), String::new())?;
    while let Some((object, path)) = walk.waiting.pop_front() {
        walk.open(object, &path)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    /// How often each container was put in line.
    seen: HashMap<ObjectId, usize>,
    containers: usize,
    waiting: VecDeque<(&'a Object, String)>,
    found: Vec<Found<'a>>,
}

impl<'a> Walk<'a> {
    /// Notes the value at `path` if it is a tensor, and puts it in line if it may hold some.
    fn meet(&mut self, value: Value, path: String) -> Result<(), String> {
        let (Value::Object(id), Some(object)) = (value, self.pickle.object(value)) else {
            return Ok(());
        };
        let what = match object {
            Object::Tensor(record) => What::Tensor(record),
            Object::Storage(_) => return Ok(()),
            Object::Instance(instance) => match unread(self.pickle, instance) {
                Some(kind) => What::Unread(kind),
                None => return self.wait(id, object, path),
            },
            Object::Tuple(_) | Object::List(_) | Object::Dict(_) => return self.wait(id, object, path),
        };
        if path.is_empty() {
            return Ok(());
        }
        if self.found.len() >= MAX_TENSORS {
            return Err(format!("holds more than {MAX_TENSORS} tensors"));
        }
        self.found.push(Found { path, what });
        Ok(())
    }

    fn wait(&mut self, id: ObjectId, object: &'a Object, path: String) -> Result<(), String> {
        let places = self.seen.entry(id).or_default();
        if path.len() <= MAX_PATH_BYTES && self.containers < MAX_CONTAINERS && *places < MAX_PLACES {
            *places += 1;
            self.containers += 1;
            self.waiting.push_back((object, path));
        }
        Ok(())
    }

    fn open(&mut self, object: &'a Object, path: &str) -> Result<(), String> {
        match object {
            Object::Dict(entries) => self.entries(entries, path, false),
            Object::Tuple(items) | Object::List(items) if items.len() <= MAX_LIST => {
                for (index, &item) in items.iter().enumerate() {
                    self.meet(item, joined(path, &index.to_string()))?;
                }
                Ok(())
            }
            Object::Instance(instance) => {
                self.entries(&instance.entries, path, false)?;
                let state = instance.state.and_then(|state| self.pickle.dict(state));
                self.entries(state.unwrap_or_default(), path, true)
            }
            _ => Ok(()),
        }
    }

    /// Meets the values of a dictionary, or of an object's attributes.
    fn entries(&mut self, entries: &'a [(Value, Value)], path: &str, attributes: bool) -> Result<(), String> {
        for &(key, value) in entries {
            if !matches!(value, Value::Object(_)) {
                continue;
            }
            let number;
            let key = match (self.pickle.text(key), key) {
                (Some(text), _) => text,
                (None, Value::Int(int)) => {
                    number = int.to_string();
                    &number
                }
                _ => continue,
            };
            if key.len() > MAX_NAME_BYTES {
                let bytes = key.len();
                return Err(format!("tensor {}: its name has {bytes} bytes", shown(key)));
            }
            if is_optimizer(key) {
                continue;
            }
            let path = match attributes && MODULE_PARTS.contains(&key) {
                true => path.to_owned(),
                false => joined(path, key),
            };
            self.meet(value, path)?;
        }
        Ok(())
    }
}

fn joined(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The kind of tensor that a foreign function would have made, if that is what it makes.
fn unread(pickle: &Pickle, instance: &Instance) -> Option<Unread> {
    let (module, name) = (
        pickle.span(instance.class.module),
        pickle.span(instance.class.name),
    );
    let kind = |name, cure| Some(Unread { name, cure });
    match (module, name) {
        ("torch._utils", _) if name.starts_with("_rebuild_sparse") => kind(
            "a sparse tensor",
            "torch.save({k: t.to_dense() for k, t in weights.items()}, new_path)",
        ),
        ("torch._utils", "_rebuild_qtensor") => kind(
            "a quantized tensor",
            "torch.save({k: t.dequantize() for k, t in weights.items()}, new_path)",
        ),
        ("torch._utils" | "torch._tensor", _) if name.starts_with("_rebuild") => kind(
            "a tensor of a device or kind of its own",
            "torch.save({k: t.cpu() for k, t in weights.items()}, new_path)",
        ),
        ("torch.storage", "_load_from_bytes") => kind(
            "a tensor inside a pickle of Python's own module",
            "torch.save(pickle.load(open(path, 'rb')), new_path)",
        ),
        (_, "_reconstruct" | "_frombuffer") if module.starts_with("numpy.") => kind(
            "a NumPy array",
            "torch.save({k: torch.from_numpy(v) for k, v in weights.items()}, new_path)",
        ),
        _ => None,
    }
}
