//! Checkpoints put together byte by byte, so that each can be wrong in one way of its own.

// Two test programs share this file, and neither uses all of it.
#![allow(dead_code)]

use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// An entry as the directory describes it, which need not be true.
pub struct Entry {
    pub name: Vec<u8>,
    pub packed: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub size: u64,
    pub packed_size: u64,
    pub crc: u32,
    /// Offset of the local header, where it is not the true one.
    pub offset: Option<u64>,
}

/// A stored entry that is in order.
pub fn stored(name: &str, content: &[u8]) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        packed: content.to_vec(),
        method: 0,
        flags: 0,
        size: content.len() as u64,
        packed_size: content.len() as u64,
        crc: crc32(content),
        offset: None,
    }
}

/// A deflated entry that is in order.
pub fn deflated(name: &str, content: &[u8]) -> Entry {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(
        "x",
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated),
    )
    .unwrap();
    zip.write_all(content).unwrap();
    let mut zip = ZipArchive::new(zip.finish().unwrap()).unwrap();
    let mut packed = Vec::new();
    zip.by_index_raw(0).unwrap().read_to_end(&mut packed).unwrap();
    Entry {
        packed_size: packed.len() as u64,
        packed,
        method: 8,
        ..stored(name, content)
    }
}

/// The archive of `entries`: local headers with their data, the directory, the end record.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = entry.offset.unwrap_or(file.len() as u64);
        let clamp = |size: u64| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let mut common = Vec::new();
        common.extend(20u16.to_le_bytes());
        common.extend(entry.flags.to_le_bytes());
        common.extend(entry.method.to_le_bytes());
        common.extend([0, 0, 0x21, 0]);
        common.extend(entry.crc.to_le_bytes());
        common.extend(clamp(entry.packed_size));
        common.extend(clamp(entry.size));
        common.extend((entry.name.len() as u16).to_le_bytes());

        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(0u16.to_le_bytes());
        file.extend(&entry.name);
        file.extend(&entry.packed);

        // Sizes that need 64 bits stand in an extra field.
        let mut wide = Vec::new();
        for size in [entry.size, entry.packed_size] {
            if size >= u64::from(u32::MAX) {
                wide.extend(size.to_le_bytes());
            }
        }
        let mut extra = Vec::new();
        if !wide.is_empty() {
            extra.extend(1u16.to_le_bytes());
            extra.extend((wide.len() as u16).to_le_bytes());
            extra.extend(wide);
        }
        directory.extend(b"PK\x01\x02");
        directory.extend(20u16.to_le_bytes());
        directory.extend(&common);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend((offset as u32).to_le_bytes());
        directory.extend(&entry.name);
        directory.extend(extra);
    }
    let (start, count) = (file.len() as u32, entries.len() as u16);
    let len = directory.len() as u32;
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(len.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// A checkpoint with this pickle and these storages, `data/0` and on.
pub fn checkpoint(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut entries = vec![
        stored("archive/data.pkl", pickle),
        stored("archive/byteorder", b"little"),
    ];
    for (index, storage) in storages.iter().enumerate() {
        entries.push(stored(&format!("archive/data/{index}"), storage));
    }
    entries.push(stored("archive/version", b"3\n"));
    archive(&entries)
}

/// The reversed CRC-32 of zip, a bit at a time.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

// Pieces of pickles, protocol 2.

/// A whole pickle around one value.
pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [
        b"X".as_slice(),
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

pub fn int(int: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &int.to_le_bytes()].concat()
}

pub fn ints(ints: &[i64]) -> Vec<u8> {
    let parts: Vec<u8> = ints.iter().flat_map(|&part| int(part)).collect();
    [b"(".as_slice(), &parts, b"t"].concat()
}

pub fn dict(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries
        .iter()
        .flat_map(|(key, value)| [key.as_slice(), value].concat())
        .collect();
    [b"}(".as_slice(), &entries, b"u"].concat()
}

/// What a pickle says of a tensor of float32.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub key: &'a str,
    pub len: i64,
    pub offset: i64,
    pub shape: &'a [i64],
    pub strides: &'a [i64],
}

/// Two by three of float32, in order, in storage 0 of six elements.
pub const PLAIN: Tensor = Tensor {
    key: "0",
    len: 6,
    offset: 0,
    shape: &[2, 3],
    strides: &[3, 1],
};

impl Tensor<'_> {
    pub fn pickled(self) -> Vec<u8> {
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(self.key),
            text("cpu"),
            int(self.len),
            b"tQ".to_vec(),
            int(self.offset),
            ints(self.shape),
            ints(self.strides),
            b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ]
        .concat()
    }

    /// A checkpoint of this tensor alone, named `weight`, over the six floats of [`six_floats`].
    pub fn checkpoint(self) -> Vec<u8> {
        checkpoint(
            &pickle(&dict(&[(text("weight"), self.pickled())])),
            &[&six_floats()],
        )
    }
}

pub fn six_floats() -> Vec<u8> {
    [1f32, 2., 3., 4., 5., 6.]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Where `name` lies among the committed checkpoints.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/pth")
        .join(name)
}

/// Most memory that this process has had mapped at one time, touched or not; `None` where the system does not
/// tell.
pub fn peak_mapped_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
