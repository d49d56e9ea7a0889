//! The stack machine that reads a pickle. Opcodes are those of Python's `pickletools`, protocols 2 to 5; the
//! text opcodes of protocols 0 and 1, their instances (`INST`, `OBJ`), extensions and out-of-band buffers are
//! refused.

use super::program::{Program, Step};
use super::{Flaw, ForeignName, Instance, MAX_DEPTH, MAX_OBJECTS, MAX_PARTS, MAX_VALUES};
use super::{Object, ObjectId, TextSpan, Value};
use std::collections::HashMap;

/// Most arguments of a call that is read, and most parts of a persistent id. Every real one has fewer than nine, and the
/// bound keeps a long tuple from being walked again and again at five bytes of program each time.
const MAX_ARGUMENTS: usize = 16;

/// Runs the program that starts at byte `start` and returns its objects, the value it leaves, and the first byte
/// after it.
pub(super) fn run(bytes: &[u8], start: usize) -> Result<(Vec<Object>, Value, usize), Flaw> {
    let mut machine = Machine {
        program: Program::new(bytes, start),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Vec::new(),
        depths: Vec::new(),
        parts: 0,
    };
    loop {
        let offset = machine.program.cursor();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((machine.objects, root, machine.program.cursor())),
            Err(cause) => return Err(Flaw { offset, cause }),
        }
    }
}

pub(super) struct Machine<'a> {
    pub(super) program: Program<'a>,
    stack: Vec<Value>,
    /// Heights of the stack at each open `MARK`, innermost last.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    objects: Vec<Object>,
    /// Levels below each object, itself included.
    depths: Vec<u8>,
    /// Items and axes that the objects hold together.
    parts: usize,
}

impl Machine<'_> {
    /// Runs one instruction; returns the result when it was `STOP`.
    fn step(&mut self) -> Step<Option<Value>> {
        let opcode = self
            .program
            .take_u8()
            .map_err(|_| "the pickle ends before its STOP".to_string())?;
        match opcode {
            // Frame.
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'.' => return self.stop().map(Some),
            // Stack and memo.
            b'(' => self.mark()?,
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => self.push(self.top()?)?,
            b'q' => self
                .program
                .take_u8()
                .and_then(|index| self.remember(index.into()))?,
            b'r' => self.program.take_u32().and_then(|index| self.remember(index))?,
            0x94 => self.remember(u32::try_from(self.memo.len()).map_err(|_| "memo is full")?)?,
            b'h' => self
                .program
                .take_u8()
                .and_then(|index| self.recall(index.into()))?,
            b'j' => self.program.take_u32().and_then(|index| self.recall(index))?,
            // Numbers and text.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => self
                .program
                .take_u8()
                .and_then(|int| self.push(Value::Int(int.into())))?,
            b'M' => self
                .program
                .take_array()
                .and_then(|raw| self.push(Value::Int(u16::from_le_bytes(raw).into())))?,
            b'J' => self
                .program
                .take_array()
                .and_then(|raw| self.push(Value::Int(i32::from_le_bytes(raw).into())))?,
            0x8a => self.program.take_u8().and_then(|len| self.long(len.into()))?,
            0x8b => self.program.take_u32().and_then(|len| self.long(len.into()))?,
            b'G' => self
                .program
                .take_array()
                .and_then(|raw| self.push(Value::Float(f64::from_be_bytes(raw))))?,
            0x8c => self.program.take_u8().and_then(|len| self.unicode(len.into()))?,
            b'X' => self.program.take_u32().and_then(|len| self.unicode(len.into()))?,
            0x8d => self.program.take_u64().and_then(|len| self.unicode(len))?,
            b'U' => self
                .program
                .take_u8()
                .and_then(|len| self.python_2_string(len.into()))?,
            b'T' => self
                .program
                .take_u32()
                .and_then(|len| self.python_2_string(len.into()))?,
            b'C' => self
                .program
                .take_u8()
                .and_then(|len| self.raw_bytes(len.into()))?,
            b'B' => self
                .program
                .take_u32()
                .and_then(|len| self.raw_bytes(len.into()))?,
            0x8e | 0x96 => self.program.take_u64().and_then(|len| self.raw_bytes(len))?,
            // Containers.
            b')' => self.push_object(Object::Tuple(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_object(Object::Tuple(items))?;
            }
            b']' => self.push_object(Object::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push_object(Object::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(&items)?;
            }
            b'}' => self.push_object(Object::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_object(Object::Dict(Vec::new()))?;
                self.extend_dict(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            0x8f => self.push(Value::Other("set"))?,
            0x90 => {
                self.pop_to_mark()?;
                let target = self.top()?;
                if target != Value::Other("set") && !self.is_instance(target) {
                    return Err("ADDITEMS without a set".into());
                }
            }
            0x91 => {
                self.pop_to_mark()?;
                self.push(Value::Other("set"))?;
            }
            // Globals, and what is built from them.
            b'c' => {
                let (module, name) = (self.program.take_line()?, self.program.take_line()?);
                self.push_global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.push_global(module, name)?;
            }
            b'R' => self.reduce()?,
            0x81 => self.new_object()?,
            0x92 => {
                // Named arguments, which only foreign classes take.
                self.pop()?;
                self.new_object()?;
            }
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            _ => return Err(format!("opcode 0x{opcode:02x} is not one that torch.save writes")),
        }
        Ok(None)
    }

    fn protocol(&mut self) -> Step<()> {
        match self.program.take_u8()? {
            2..=5 => Ok(()),
            other => Err(format!("protocol {other}, but 2 to 5 are read")),
        }
    }

    fn frame(&mut self) -> Step<()> {
        let len = self.program.take_u64()?;
        let left = self.program.left();
        match usize::try_from(len) {
            Ok(len) if len <= left => Ok(()),
            _ => Err(format!("a frame of {len} bytes, but {left} are left")),
        }
    }

    fn stop(&mut self) -> Step<Value> {
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err("STOP with an unfinished object on the stack".into());
        }
        Ok(root)
    }

    // Stack and memo.

    /// Height below which the innermost `MARK` does not let go.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn push(&mut self, value: Value) -> Step<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Step<Value> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    pub(super) fn top(&self) -> Step<Value> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "the stack is empty".into())
    }

    fn pop_text(&mut self) -> Step<TextSpan> {
        match self.pop()? {
            Value::Text(span) => Ok(span),
            _ => Err("text is needed".into()),
        }
    }

    /// A short tuple's items.
    pub(super) fn pop_arguments(&mut self) -> Step<Vec<Value>> {
        let value = self.pop()?;
        self.arguments(value)
    }

    pub(super) fn arguments(&self, value: Value) -> Step<Vec<Value>> {
        let items = self.tuple_items(value)?;
        if items.len() > MAX_ARGUMENTS {
            return Err(format!(
                "{} arguments, but at most {MAX_ARGUMENTS} are read",
                items.len()
            ));
        }
        Ok(items.to_vec())
    }

    fn mark(&mut self) -> Step<()> {
        if self.marks.len() >= MAX_DEPTH {
            return Err(format!("objects nest deeper than {MAX_DEPTH}"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value>> {
        let height = self.marks.pop().ok_or("no MARK is open")?;
        Ok(self.split_off(height))
    }

    /// Everything on the stack from `height` up, in a vector of no more than its length.
    fn split_off(&mut self, height: usize) -> Vec<Value> {
        self.stack.split_off(height.min(self.stack.len()))
    }

    fn remember(&mut self, index: u32) -> Step<()> {
        let value = self.top()?;
        if self.memo.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values in the memo"));
        }
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Step<()> {
        let value = self
            .memo
            .get(&index)
            .copied()
            .ok_or_else(|| format!("memo {index} was never set"))?;
        self.push(value)
    }

    // Numbers and text.

    /// A two's complement integer of `len` bytes, lowest first.
    fn long(&mut self, len: u64) -> Step<()> {
        let raw = self.program.take(len)?;
        let negative = raw.last().is_some_and(|&high| high >= 0x80);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        match whole.get_mut(..raw.len()) {
            Some(low) => {
                low.copy_from_slice(raw);
                self.push(Value::Int(i64::from_le_bytes(whole)))
            }
            None => self.push(Value::Other("int of more than 64 bits")),
        }
    }

    fn unicode(&mut self, len: u64) -> Step<()> {
        let span = self.program.take_text(len)?;
        self.push(Value::Text(span))
    }

    /// A string of Python 2, which may be text or bytes.
    fn python_2_string(&mut self, len: u64) -> Step<()> {
        let start = self.program.cursor();
        let raw = self.program.take(len)?;
        let value = match std::str::from_utf8(raw) {
            Ok(_) => Value::Text(TextSpan {
                start,
                len: raw.len(),
            }),
            Err(_) => Value::Other("bytes"),
        };
        self.push(value)
    }

    fn raw_bytes(&mut self, len: u64) -> Step<()> {
        self.program.take(len)?;
        self.push(Value::Other("bytes"))
    }

    // Containers.

    fn depth(&self, value: Value) -> usize {
        match value {
            Value::Object(ObjectId(index)) => self.depths.get(index as usize).copied().unwrap_or(0).into(),
            _ => 0,
        }
    }

    /// One level above the deepest of `items`.
    fn depth_above(&self, items: &[Value]) -> Step<u8> {
        let below = items.iter().map(|&item| self.depth(item)).max().unwrap_or(0);
        match u8::try_from(below + 1) {
            Ok(depth) if usize::from(depth) <= MAX_DEPTH => Ok(depth),
            _ => Err(format!("objects nest deeper than {MAX_DEPTH}")),
        }
    }

    pub(super) fn push_object(&mut self, object: Object) -> Step<()> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} objects"));
        }
        let (depth, parts) = match &object {
            Object::Tuple(items) | Object::List(items) => (self.depth_above(items)?, items.len()),
            Object::Dict(entries) => (1, entries.len()),
            Object::Storage(_) => (1, 1),
            Object::Tensor(record) => (1, record.shape.len() + record.strides.len()),
            Object::Instance(_) => (1, 1),
        };
        self.count_parts(parts)?;
        let id = ObjectId(u32::try_from(self.objects.len()).map_err(|_| "too many objects")?);
        self.objects.push(object);
        self.depths.push(depth);
        self.push(Value::Object(id))
    }

    /// Something made of a foreign global.
    pub(super) fn push_instance(&mut self, class: ForeignName) -> Step<()> {
        let (state, entries) = (None, Vec::new());
        self.push_object(Object::Instance(Box::new(Instance {
            class,
            state,
            entries,
        })))
    }

    pub(super) fn count_parts(&mut self, added: usize) -> Step<()> {
        self.parts = self.parts.saturating_add(added);
        if self.parts > MAX_PARTS {
            return Err(format!("the objects hold more than {MAX_PARTS} parts"));
        }
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Step<()> {
        let start = self
            .stack
            .len()
            .checked_sub(len)
            .filter(|&start| start >= self.floor());
        let items = self.split_off(start.ok_or("the stack is empty")?);
        self.push_object(Object::Tuple(items))
    }

    fn extend_list(&mut self, added: &[Value]) -> Step<()> {
        let depth = self.depth_above(added)?;
        self.count_parts(added.len())?;
        let target = self.top()?;
        match self.object_mut(target, depth) {
            Some(Object::List(items)) => {
                items.extend_from_slice(added);
                Ok(())
            }
            // The items of a foreign list are not kept.
            Some(Object::Instance(_)) => Ok(()),
            // Its type is already all that is kept of it.
            _ if matches!(target, Value::Other(_)) => Ok(()),
            _ => Err("items are appended to something that is no list".into()),
        }
    }

    /// Adds `flat`, keys and values in turn, to the dictionary on top.
    fn extend_dict(&mut self, flat: &[Value]) -> Step<()> {
        let depth = self.depth_above(flat)?;
        self.count_parts(flat.len())?;
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without its value".into());
        }
        let target = self.top()?;
        match self.object_mut(target, depth) {
            Some(Object::Dict(entries)) => {
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Some(Object::Instance(instance)) => {
                let pairs = pairs.iter().map(|&[key, value]| (key, value));
                instance.entries.extend(pairs);
                Ok(())
            }
            _ if matches!(target, Value::Other(_)) => Ok(()),
            _ => Err("an item is set in something that is no dict".into()),
        }
    }

    /// Keeps the attributes of the foreign object `target`; of anything else none is kept.
    pub(super) fn set_state(&mut self, target: Value, added: Value) -> Step<()> {
        let depth = self.depth_above(&[added])?;
        if let Some(Object::Instance(instance)) = self.object_mut(target, depth) {
            instance.state = Some(added);
        }
        Ok(())
    }

    pub(super) fn is_instance(&self, value: Value) -> bool {
        matches!(self.object(value), Some(Object::Instance(_)))
    }

    /// The object behind `value`, for a change that makes it at least `depth` levels deep.
    fn object_mut(&mut self, value: Value, depth: u8) -> Option<&mut Object> {
        let Value::Object(ObjectId(index)) = value else {
            return None;
        };
        if let Some(own) = self.depths.get_mut(index as usize) {
            *own = depth.max(*own);
        }
        self.objects.get_mut(index as usize)
    }

    pub(super) fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(ObjectId(index)) => self.objects.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn tuple_items(&self, value: Value) -> Step<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(items)) => Ok(items),
            _ => Err("a tuple is needed".into()),
        }
    }
}
