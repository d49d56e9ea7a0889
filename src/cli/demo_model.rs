//! The demo model, for who names none.

use std::path::{Path, PathBuf};

/// Where it lies in the repository, from which most try the program first.
pub const DEMO_MODEL: &str = "weights/demo.safetensors";

/// Below the prefix of an installed program.
const INSTALLED: &str = "share/masam/demo.safetensors";

/// `model`; or where that is [`DEMO_MODEL`] and not below the current folder, the one that `make install` put beside this
/// program.
pub fn present(model: &Path) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    or_installed(model, Path::new(DEMO_MODEL), &program)
}

fn or_installed(model: &Path, demo: &Path, program: &Path) -> PathBuf {
    let prefix = program.parent().and_then(Path::parent);
    let installed = prefix.map(|prefix| prefix.join(INSTALLED));
    installed
        .filter(|installed| model == demo && !model.exists() && installed.is_file())
        .unwrap_or_else(|| model.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_model_serves_who_names_none_and_has_none_here() {
        let prefix = tempfile::tempdir().unwrap();
        let program = prefix.path().join("bin/masam");
        let installed = prefix.path().join(INSTALLED);
        let here = prefix.path().join("demo.safetensors");
        let other = Path::new("other.safetensors");
        let found = |model: &Path| or_installed(model, &here, &program);
        assert_eq!(
            found(&here),
            here,
            "there is none at all: its absence is told by this name"
        );
        std::fs::create_dir_all(installed.parent().unwrap()).unwrap();
        std::fs::write(&installed, "").unwrap();
        assert_eq!(found(&here), installed);
        assert_eq!(found(other), other, "it was asked for");
        std::fs::write(&here, "").unwrap();
        assert_eq!(found(&here), here);
    }
}
