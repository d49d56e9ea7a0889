//! What `gst-launch-1.0` finds of our plugin: looked up in GStreamer's registry before this program adds its own elements.

use super::Report;
use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Name of the plugin, and of files that hold it.
const PLUGIN: &str = "masam";
const FILES: [&str; 2] = ["libmasam.so", "libgstmasam.so"];
/// Variables that change where GStreamer looks; of two that mean the same the first wins.
const PATH: [&str; 2] = ["GST_PLUGIN_PATH_1_0", "GST_PLUGIN_PATH"];
const SYSTEM_PATH: [&str; 2] = ["GST_PLUGIN_SYSTEM_PATH_1_0", "GST_PLUGIN_SYSTEM_PATH"];
/// As deep as GStreamer itself looks into folders.
const DEPTH: usize = 10;
/// Where `make install` once put the plugin, below the folder of the architecture; GStreamer does not look there.
const FORGOTTEN: &str = "/usr/local/lib";
const CURE: &str = "cure: make build && sudo make install, or export GST_PLUGIN_PATH=target/release";

/// What the plugin of this program would say of itself.
fn own() -> (String, String) {
    (
        env!("CARGO_PKG_VERSION").into(),
        format!("masam build {}", crate::BUILD),
    )
}

/// Reports the plugin that `gst-launch-1.0` would use, others beside it, and what decides between them. GStreamer is
/// initialized, and the elements of this program are not registered.
pub(super) fn examine(report: &mut Report) {
    launcher(report);
    for variable in PATH.iter().chain(&SYSTEM_PATH).chain(&["GST_REGISTRY"]) {
        if let Some(value) = std::env::var_os(variable) {
            report.ok(format!("{variable}={}", value.to_string_lossy()));
        }
    }
    for folder in listed(&PATH).unwrap_or_default() {
        if !folder.is_dir() {
            report.absent(format!(
                "{}: no such folder, named by GST_PLUGIN_PATH",
                folder.display()
            ));
        }
    }
    let registry = gst::Registry::get();
    let mut used = None;
    for plugin in registry.plugins() {
        let Some(file) = plugin.filename().filter(|file| is_ours(file)) else {
            continue;
        };
        if plugin.plugin_flags().contains(gst::PluginFlags::BLACKLISTED) {
            let cause = load(&file).err().unwrap_or_else(|| {
                "it loads by now: delete GStreamer's registry (~/.cache/gstreamer-1.0) so that it is tried again".into()
            });
            report.broken(format!("{} is blacklisted by GStreamer: {cause}", file.display()));
            used = Some(file);
        }
    }
    let factory = gst::ElementFactory::find("masaminfer");
    match factory.and_then(|factory| factory.plugin()) {
        Some(plugin) => {
            let file = plugin.filename().unwrap_or_default();
            match load(&file) {
                Ok(found) => compare(report, &file, &found),
                Err(cause) => report.broken(format!("{}: {cause}", file.display())),
            }
            used = Some(file);
        }
        None if used.is_none() => {
            let known = registry.find_plugin(PLUGIN).and_then(|plugin| plugin.filename());
            match known {
                Some(file) => report.broken(format!("{} has no masaminfer; {CURE}", file.display())),
                None => report.absent(format!("masaminfer: gst-launch-1.0 does not find it; {CURE}")),
            }
        }
        None => {}
    }
    others(report, used.as_deref());
}

/// The `gst-launch-1.0` on the path, and whether it is of the GStreamer that this program runs on.
fn launcher(report: &mut Report) {
    let output = Command::new("gst-launch-1.0")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return report
            .absent("gst-launch-1.0, gst-inspect-1.0; if wanted: install gstreamer1.0-tools".into());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("GStreamer "))
        .unwrap_or("?");
    if gst::version_string().ends_with(version) {
        report.ok(format!("gst-launch-1.0 of GStreamer {version}"));
    } else {
        report.broken(format!(
            "gst-launch-1.0 is of GStreamer {version}, this program runs on {}: what follows may not hold for it",
            gst::version_string()
        ));
    }
}

/// Whether the file that GStreamer uses is of this program's build.
fn compare(report: &mut Report, file: &Path, found: &(String, String)) {
    let (version, package) = found;
    if *found == own() {
        report.ok(format!(
            "masaminfer: {} ({package}), as this program",
            file.display()
        ));
    } else {
        report.broken(format!(
            "masaminfer: {} is of another build than this program: version {version}, {package}; {CURE}",
            file.display()
        ));
    }
}

/// Copies of the plugin that GStreamer passes over.
fn others(report: &mut Report, used: Option<&Path>) {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut seen: Vec<PathBuf> = used.iter().map(|path| real(path)).collect();
    let mut visit = |folder: &Path, is_searched: bool| {
        let mut files = Vec::new();
        find(folder, DEPTH, &mut files);
        for file in files {
            let path = real(&file);
            if seen.contains(&path) {
                continue;
            }
            seen.push(path);
            let which = match load(&file) {
                Ok(found) if found == own() => "of this build".to_owned(),
                Ok((version, package)) => format!("version {version}, {package}"),
                Err(cause) => cause,
            };
            let why = if is_searched {
                "GStreamer passes over it, another comes first"
            } else {
                "GStreamer does not look there"
            };
            report.absent(format!(
                "{} ({which}): {why}; remove it if it is old",
                file.display()
            ));
        }
    };
    for folder in searched() {
        visit(&folder, true);
    }
    for folder in std::fs::read_dir(FORGOTTEN).into_iter().flatten().flatten() {
        visit(&folder.path().join("gstreamer-1.0"), false);
    }
}

/// Folders that GStreamer searches, in its order.
fn searched() -> Vec<PathBuf> {
    let mut folders = listed(&PATH).unwrap_or_default();
    match listed(&SYSTEM_PATH) {
        Some(system) => folders.extend(system),
        None => {
            folders.push(gst::glib::user_data_dir().join("gstreamer-1.0/plugins"));
            let core = gst::Registry::get().find_plugin("coreelements");
            let file = core.and_then(|plugin| plugin.filename());
            folders.extend(file.as_deref().and_then(Path::parent).map(Path::to_owned));
        }
    }
    folders
}

/// The folders that the first variable which is set lists.
fn listed(variables: &[&str]) -> Option<Vec<PathBuf>> {
    let value = variables.iter().find_map(std::env::var_os)?;
    Some(
        std::env::split_paths(&value)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
    )
}

fn is_ours(file: &Path) -> bool {
    FILES
        .iter()
        .any(|name| file.file_name().is_some_and(|own| own == *name))
}

/// Files of our plugin at and below `folder`.
fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            find(&path, depth - 1, files);
        } else if is_ours(&path) {
            files.push(path);
        }
    }
}

/// Version and package that a plugin file states, or why it does not load: tried in a process of its own, as its types
/// have the names of this program's.
fn load(file: &Path) -> Result<(String, String), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["doctor", "--load-plugin"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines();
    match (output.status.success(), lines.next(), lines.next()) {
        (true, Some(version), Some(package)) => Ok((version.into(), package.into())),
        (false, Some(cause), _) => Err(cause.into()),
        _ => Err(format!("loading it ends with {}", output.status)),
    }
}

/// The other side of [`load`].
pub(super) fn load_here(file: &Path) -> ExitCode {
    let loaded = gst::init()
        .map_err(|error| error.to_string())
        .and_then(|()| gst::Plugin::load_file(file).map_err(|error| error.message().replace('\n', " ")));
    match loaded {
        Ok(plugin) => {
            println!("{}\n{}", plugin.version(), plugin.package());
            ExitCode::SUCCESS
        }
        Err(cause) => {
            println!("{cause}");
            ExitCode::FAILURE
        }
    }
}
