//! Strings, pictures and tables from outside, mutated some thousand times from a seed: nothing panics. The same bodies
//! are cargo-fuzz targets in `fuzz/`. `MASAM_FUZZ_SEED` and `MASAM_FUZZ_CASES` repeat or lengthen a run.

#[path = "hostile/elements.rs"]
mod elements;
mod hostile;

use masam::checkpoint::ModelFile;
use masam::checkpoint::card::{ModelCard, Preprocessing};
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::weights::Weights;
use masam::model::{Decoder, ModelConfig};
use std::path::{Path, PathBuf};

/// SplitMix64, so that a seed gives the same cases everywhere.
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

    /// Some bytes changed, repeated, left out or put in.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: &[u8] = b"\x00\xff\x7f\x80=,:#/-+.0189aexn[]{}\"";
        for _ in 0..1 + self.below(6) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = TELLING[self.below(TELLING.len())],
                3 => {
                    let piece = bytes[at..bytes.len().min(at + 1 + self.below(9))].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, TELLING[self.below(TELLING.len())]),
            }
        }
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seeds of a fuzz target, and mutations of them.
fn cases(target: &str, count: u64, mut run: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let seed = from_environment("MASAM_FUZZ_SEED", 7);
    println!("seed {seed}");
    seeds.iter().for_each(|bytes| run(bytes));
    let mut generator = Generator(seed);
    for _ in 0..from_environment("MASAM_FUZZ_CASES", count) {
        let mut bytes = seeds[generator.below(seeds.len())].clone();
        generator.mutate(&mut bytes);
        run(&bytes);
    }
}

#[test]
fn property_strings() {
    cases("strings", 20_000, |bytes| {
        hostile::strings(&String::from_utf8_lossy(bytes))
    });
}

#[test]
fn picture_geometry() {
    cases("geometry", 3000, |bytes| {
        // The first bytes say what there is; the rest are pixels.
        hostile::geometry(bytes);
        let mut turned = bytes.to_vec();
        turned
            .iter_mut()
            .take(20)
            .for_each(|byte| *byte = byte.rotate_left(3));
        hostile::geometry(&turned);
    });
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    cases("class_table", 500, |bytes| hostile::class_table(bytes, &path));
    cases("model_file", 500, |bytes| hostile::model_file(bytes, &path));
    cases("pth", 500, |bytes| hostile::pth(bytes, &path));
}

/// Reading a pipe would wait for ever.
#[test]
fn a_table_that_is_a_pipe_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.json");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let error = masam::data::class_table::read(&path).unwrap_err().to_string();
    assert!(error.contains("not a regular file, but a pipe"), "{error}");
}

/// What the other bodies leave out: the elements themselves.
#[test]
fn properties_buffers_and_metas() {
    cases("elements", 2000, elements::elements);
}

/// A model as small as a model can be, in the corpus whole and without the length of its header.
#[test]
fn a_model_file_is_among_the_seeds() {
    let config = ModelConfig {
        name: "least".into(),
        image_side_px: 1,
        patch_side_px: 1,
        encoder_width: 1,
        encoder_depth: 1,
        encoder_heads: 1,
        global_blocks: Vec::new(),
        partition_side: 1,
        mlp_ratio: 1,
        adapter_width: 1,
        fact_rank: 1,
        prompt_width: 8,
        decoder_depth: 1,
        decoder_heads: 1,
        decoder_mlp_width: 1,
        decoder: Decoder::Sam,
        classes: 1,
        ..ModelConfig::demo()
    };
    let mut weights = Weights::default();
    for weight in config.weights() {
        let zeros =
            candle_core::Tensor::zeros(weight.shape, candle_core::DType::F32, &candle_core::Device::Cpu);
        weights.insert(weight.name, zeros.unwrap());
    }
    let card = ModelCard::new(config, Preprocessing::live()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("least.safetensors");
    ModelFile { card, weights }.write(&path, Storage::F16).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/model_file");
    if std::env::var_os("MASAM_FUZZ_SEEDS").is_some() {
        let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8_lossy(&whole[8..end]).trim_end().to_owned();
        std::fs::write(corpus.join("least"), &whole).unwrap();
        std::fs::write(
            corpus.join("least_header"),
            [header.as_bytes(), &whole[end..]].concat(),
        )
        .unwrap();
    }
    let path = corpus.join("least");
    if let Err(error) = ModelFile::read(&path) {
        panic!("{error}; MASAM_FUZZ_SEEDS=1 writes it anew");
    }
}
