//! The bytes of a pickle, taken from the front.

use super::{TextSpan, text_at};

/// Longest name of a module or of a global in it.
const MAX_GLOBAL_BYTES: usize = 200;

/// What is taken, or the cause for which it cannot be.
pub(super) type Step<T> = Result<T, String>;

/// A program and how far it has been read.
pub(super) struct Program<'a> {
    bytes: &'a [u8],
    cursor: usize,
}

impl<'a> Program<'a> {
    /// The program that starts at byte `cursor`.
    pub(super) fn new(bytes: &'a [u8], cursor: usize) -> Self {
        Self {
            bytes,
            cursor: cursor.min(bytes.len()),
        }
    }

    /// The byte that is taken next.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Bytes that have not been taken.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.cursor)
    }

    /// Text that was taken before.
    pub(super) fn text(&self, span: TextSpan) -> &'a str {
        text_at(self.bytes, span)
    }

    pub(super) fn take(&mut self, len: u64) -> Step<&'a [u8]> {
        let bytes = self.bytes;
        let left = bytes.len() - self.cursor;
        let end = usize::try_from(len)
            .ok()
            .filter(|&len| len <= left)
            .map(|len| self.cursor + len);
        match end.and_then(|end| self.bytes.get(self.cursor..end)) {
            Some(taken) => {
                self.cursor += taken.len();
                Ok(taken)
            }
            None => Err(format!("{len} bytes are needed, but {left} are left")),
        }
    }

    pub(super) fn take_array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N as u64)?
            .try_into()
            .map_err(|_| "cut short".to_string())
    }

    pub(super) fn take_u8(&mut self) -> Step<u8> {
        self.take_array().map(u8::from_le_bytes)
    }

    pub(super) fn take_u32(&mut self) -> Step<u32> {
        self.take_array().map(u32::from_le_bytes)
    }

    pub(super) fn take_u64(&mut self) -> Step<u64> {
        self.take_array().map(u64::from_le_bytes)
    }

    pub(super) fn take_text(&mut self, len: u64) -> Step<TextSpan> {
        let start = self.cursor;
        let text = self.take(len)?;
        match std::str::from_utf8(text) {
            Ok(_) => Ok(TextSpan {
                start,
                len: text.len(),
            }),
            Err(_) => Err("text that is not UTF-8".into()),
        }
    }

    /// Text up to the end of the line, without it.
    pub(super) fn take_line(&mut self) -> Step<TextSpan> {
        let ahead = self.bytes.iter().skip(self.cursor).take(MAX_GLOBAL_BYTES + 1);
        let Some(len) = ahead.clone().position(|&byte| byte == b'\n') else {
            return Err(format!(
                "the name of a global does not end within {MAX_GLOBAL_BYTES} bytes"
            ));
        };
        let line = self.take_text(len as u64)?;
        self.cursor += 1;
        Ok(line)
    }
}
