//! Small checkpoints with bits flipped and ends cut off, thousands of times: whatever comes of it, there is
//! no panic, no long wait and no large allocation. `MASAM_FUZZ_SEED` and `MASAM_FUZZ_CASES` repeat or
//! lengthen a run.

#[path = "pth/archives.rs"]
mod archives;

use archives::{archive, checkpoint, crc32, deflated, fixture, peak_mapped_bytes, stored};
use masam::checkpoint::pth::PthFile;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest that one file may take. They take well under a millisecond each; this leaves room for a busy
/// machine.
const MAX_CASE: Duration = Duration::from_secs(10);

/// Most that all files together may add to the memory mapped at one time. The bounds allow some 150 MB.
const MAX_MAPPED_BYTES: u64 = 512 << 20;

/// SplitMix64, so that a seed gives the same files everywhere.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Up to eight changes: flipped bits, bytes of extreme or useful values, copied pieces, a cut.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        /// Opcodes, lengths and magics that lead somewhere.
        const TELLING: &[u8] = b"\x00\x01\x7f\x80\xff\x85\x86\x87\x8a\x8d\x93\x94\x95RQb}](tusaeqrhjcNPK012.";
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len());
            match self.below(10) {
                0..4 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                4..7 => {
                    let value = TELLING[self.below(TELLING.len())];
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
                7 => {
                    let end = (at + 1 + self.below(12)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                8 => {
                    let end = (at + 1 + self.below(12)).min(bytes.len());
                    bytes.drain(at.min(end)..end);
                }
                _ => {
                    if self.below(8) == 0 {
                        bytes.truncate(at);
                    } else {
                        let end = (at + 8).min(bytes.len());
                        bytes[at.min(end)..end].fill(0xff);
                    }
                }
            }
        }
    }
}

/// Opens and reads all of a file; counts what came of it.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    opened: usize,
    read: usize,
    slowest: Duration,
}

impl Tally {
    fn try_file(&mut self, path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
        let start = Instant::now();
        match PthFile::open(path) {
            Err(masam::Error::File { .. }) => self.refused += 1,
            Err(other) => panic!("an error of another kind: {other}"),
            Ok(file) => {
                self.opened += 1;
                for (name, info) in file.tensors() {
                    if let Ok(tensor) = file.read(name) {
                        assert_eq!(tensor.dims(), info.shape());
                        self.read += 1;
                    }
                }
            }
        }
        let took = start.elapsed();
        assert!(took < MAX_CASE, "one file took {took:?}");
        self.slowest = self.slowest.max(took);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The entries of a committed checkpoint.
fn unpacked(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(fixture(name)).unwrap()).unwrap();
    let count = zip.len();
    let read = |index| {
        let mut entry = zip.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.name().unwrap().into_owned(), content)
    };
    (0..count).map(read).collect()
}

// One test, so that nothing else in this process maps memory meanwhile.
#[test]
fn mutated_checkpoints_do_no_harm() {
    let seed = setting("MASAM_FUZZ_SEED", 20_230_922);
    let cases = setting("MASAM_FUZZ_CASES", 2_000);
    println!("MASAM_FUZZ_SEED={seed} MASAM_FUZZ_CASES={cases}");
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    let mut generator = Generator(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutated.pth");
    let before = peak_mapped_bytes();
    if before.is_none() {
        eprintln!("SKIPPED: the memory check, as this system has no /proc/self/status");
    }

    for name in ["epoch_299.pth", "views.pth", "protocol_4.pth"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let entries = unpacked(name);

        // The file: mostly the archive's records and the checksums take the blow.
        let mut archives = Tally::default();
        for _ in 0..cases {
            let mut bytes = whole.clone();
            generator.mutate(&mut bytes);
            archives.try_file(&path, &bytes);
        }
        println!("{name}, the file: {archives:?}");
        assert!(archives.refused > 0 && archives.opened > 0);

        // The pickle, in an archive that is in order, so that the machine takes the blow; every other one
        // deflated.
        let mut programs = Tally::default();
        for case in 0..cases {
            let parts = entries.iter().map(|(name, content)| {
                let mut content = content.clone();
                if name.ends_with("data.pkl") {
                    generator.mutate(&mut content);
                }
                if case % 2 == 0 {
                    stored(name, &content)
                } else {
                    deflated(name, &content)
                }
            });
            programs.try_file(&path, &archive(&parts.collect::<Vec<_>>()));
        }
        println!("{name}, its pickle: {programs:?}");
        assert!(programs.refused > 0 && programs.read > 0);
    }

    // Files of the format before PyTorch 1.6.
    let kinds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints");
    for name in ["legacy.bin", "namespace_legacy.pth", "whole_module_legacy.pth"] {
        let whole = std::fs::read(kinds.join(name)).unwrap();
        let mut legacy = Tally::default();
        for _ in 0..cases {
            let mut bytes = whole.clone();
            generator.mutate(&mut bytes);
            legacy.try_file(&path, &bytes);
        }
        println!("{name}: {legacy:?}");
        assert!(legacy.refused > 0 && legacy.read > 0);
    }

    // Programs that never were one.
    let mut noise = Tally::default();
    for _ in 0..cases {
        let len = generator.below(400);
        let mut program: Vec<u8> = b"\x80\x02}q\x00(".to_vec();
        program.extend((0..len).map(|_| generator.next() as u8));
        noise.try_file(&path, &checkpoint(&program, &[]));
    }
    println!("noise: {noise:?}");

    if let (Some(before), Some(after)) = (before, peak_mapped_bytes()) {
        println!("mapped at most {} MB more than before", (after - before) >> 20);
        assert!(after - before < MAX_MAPPED_BYTES);
    }
}
