//! A run's numbers as an event file that TensorBoard reads.
//!
//! The file is a chain of records, each one event of TensorFlow's `event.proto` in protocol buffers' wire format:
//! ```text
//! length: u64 | masked CRC-32C of length: u32 | event | masked CRC-32C of event: u32        all little-endian
//! mask(crc) = rotate_right(crc, 15) + 0xa282ead8
//! ```

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the first event of every file has to say (TensorFlow, `events_writer.cc`).
const VERSION: &str = "brain.Event:2";
/// `SessionLog.START` of `event.proto`.
const SESSION_START: u64 = 1;

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Begins a file in `folder`, which has to exist, for a run that goes on at `step`. TensorBoard puts all files of
    /// a folder together and forgets what an earlier one says of `step` and later ones.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(folder: &Path, step: u64, unix_seconds: f64) -> Result<Self> {
        let path = folder.join(format!("events.out.tfevents.{unix_seconds:017.6}.masam"));
        let file = File::create(&path).map_err(|e| Error::file(&path, e))?;
        let mut events = Self { file, path };
        let mut version = Message::event(unix_seconds, 0);
        version.bytes(3, VERSION.as_bytes());
        events.write(&version)?;
        if step > 0 {
            let mut session = Message::default();
            session.integer(1, SESSION_START);
            let mut start = Message::event(unix_seconds, step);
            start.bytes(7, &session.0);
            events.write(&start)?;
        }
        Ok(events)
    }

    /// Writes named numbers of one step. A `/` in a name puts a chart into a group.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        unix_seconds: f64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let mut summary = Message::default();
        for (name, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, name.as_bytes());
            entry.float(2, value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::event(unix_seconds, step);
        event.bytes(5, &summary.0);
        self.write(&event)
    }

    /// One record in one write, so that a reader beside us never waits for its second half.
    fn write(&mut self, event: &Message) -> Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.0.len() + 16);
        record.extend(length);
        record.extend(masked(crc32c::crc32c(&length)).to_le_bytes());
        record.extend(&event.0);
        record.extend(masked(crc32c::crc32c(&event.0)).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(|e| Error::file(&self.path, e))
    }
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A message of protocol buffers, field by field.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    /// An event with its time and step.
    fn event(unix_seconds: f64, step: u64) -> Self {
        let mut event = Self::default();
        event.tag(1, 1);
        event.0.extend(unix_seconds.to_le_bytes());
        if step > 0 {
            event.integer(2, step);
        }
        event
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit (RFC 3720, appendix B.4: 32 zero bytes give 0x8a9136aa).
    fn naive_crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                }
            })
        })
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    /// The events of a file, every checksum held against the naive one.
    fn events(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(number(&bytes[8..12]), masked(naive_crc(&bytes[..8])));
            let event = &bytes[12..12 + length];
            assert_eq!(number(&bytes[12 + length..16 + length]), masked(naive_crc(event)));
            events.push(event.to_vec());
            bytes = &bytes[16 + length..];
        }
        events
    }

    #[test]
    fn records_are_what_tensorboard_reads() {
        assert_eq!(naive_crc(&[0; 32]), 0x8a91_36aa);
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 0, 1.0e9).unwrap();
        file.scalars(300, 1.5e9, [("loss/total", 0.25), ("rate", 8e-4)])
            .unwrap();
        let bytes = std::fs::read(&file.path).unwrap();
        // The first bytes of every event file that TensorFlow writes.
        assert_eq!(bytes[..12], *b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"");
        let events = events(&bytes);
        let mut version = vec![0x09];
        version.extend(1.0e9f64.to_le_bytes());
        version.extend(*b"\x1a\x0dbrain.Event:2");
        assert_eq!(events[0], version);
        let mut scalars = vec![0x09];
        scalars.extend(1.5e9f64.to_le_bytes());
        scalars.extend(*b"\x10\xac\x02\x2a\x20\x0a\x11\x0a\x0aloss/total\x15");
        scalars.extend(0.25f32.to_le_bytes());
        scalars.extend(*b"\x0a\x0b\x0a\x04rate\x15");
        scalars.extend(8e-4f32.to_le_bytes());
        assert_eq!(events[1], scalars);
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn a_run_that_goes_on_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = EventFile::create(folder.path(), 7, 2.0).unwrap();
        let events = events(&std::fs::read(&file.path).unwrap());
        assert_eq!(events[1][9..], *b"\x10\x07\x3a\x02\x08\x01");
        let missing = folder.path().join("none");
        assert!(
            EventFile::create(&missing, 0, 2.0)
                .unwrap_err()
                .to_string()
                .contains("none")
        );
    }
}
