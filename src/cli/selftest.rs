//! `masam selftest`: this build against reference tensors.

use crate::golden::{self, Check, Engine, FIXTURES, GoldenFile, Kind, Setting};
use crate::runtime::{DeviceChoice, Place, PrecisionChoice};
use anyhow::{Context, Result};
use candle_core::DType;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare this build with reference tensors.
///
/// Prints a line for each file and exits with 1 when any fails or none was found. Without --goldens the fixtures
/// built into the program are run. Where NAME.sam.pth and NAME.masam.pth lie beside NAME.safetensors, the model is
/// also built from them. On a card every kernel is compared with its reference first.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Folder with reference files (*.safetensors).
    #[arg(long, value_name = "DIR")]
    goldens: Option<PathBuf>,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// auto, f32, bf16 or f16.
    #[arg(long, default_value = "auto")]
    precision: PrecisionChoice,
}

impl Selftest {
    pub(super) fn run(self) -> Result<ExitCode> {
        let place = Place::choose(&self.device, self.precision)?;
        let setting = |engine| Setting {
            device: place.device.clone(),
            precision: place.dtype,
            engine,
        };
        // The CPU has two ways of running a model, and 16 bits only by the executor.
        let engines: &[Engine] = match (place.device.is_cpu(), place.dtype) {
            (true, DType::F32) => &[Engine::Plain, Engine::Executor],
            (true, _) => &[Engine::Executor],
            (false, _) => &[Engine::Plain],
        };
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let mut report = |name: &str, check: crate::Result<Option<Check>>| match check {
            Ok(Some(check)) => {
                println!("{check}");
                if check.passed() { passed += 1 } else { failed += 1 }
            }
            Ok(None) => {
                println!("{name} SKIP: files of its kind are not checked in this type");
                skipped += 1;
            }
            Err(error) => {
                println!("{name} FAIL: {error}");
                failed += 1;
            }
        };
        if !place.device.is_cpu() {
            // A card's kernels one by one; the CPU's are held against their references by the tests.
            for (name, check) in golden::kernels(&setting(Engine::Plain)) {
                report(&name, check.map(Some));
            }
        }
        let mut run =
            |name: &str, open: &dyn Fn() -> crate::Result<GoldenFile>, pair: Option<(&Path, &Path)>| {
                for &engine in engines {
                    let setting = setting(engine);
                    let file = match open() {
                        Ok(file) => file,
                        Err(error) => {
                            report(name, Err(error));
                            return;
                        }
                    };
                    if engine == Engine::Executor && file.kind() != Kind::Forward {
                        continue;
                    }
                    report(name, golden::run(&file, &setting));
                    if let Some((sam, masam)) = pair {
                        let check = golden::run_pair(&file, sam, masam, &setting);
                        report(&masam.display().to_string(), check.map(Some));
                    }
                }
            };
        match &self.goldens {
            Some(folder) => {
                for path in files(folder)? {
                    // Where the original software's files lie beside it, they have to give the same.
                    let (sam, masam) = (path.with_extension("sam.pth"), path.with_extension("masam.pth"));
                    let pair = (sam.exists() && masam.exists()).then_some((sam.as_path(), masam.as_path()));
                    run(&path.display().to_string(), &|| GoldenFile::open(&path), pair);
                }
            }
            None => {
                for fixture in FIXTURES {
                    let open = || GoldenFile::from_bytes(fixture.name, fixture.bytes.to_vec());
                    run(fixture.name, &open, None);
                }
            }
        }
        println!(
            "{passed} passed, {failed} failed, {skipped} skipped ({})",
            place.description
        );
        if passed == 0 && failed == 0 {
            println!("no reference file was checked");
        }
        Ok(if failed == 0 && passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    Ok(paths)
}
