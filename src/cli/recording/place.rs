//! Where a recording is written, and what becomes of a file that is there already.

use crate::cli::video::is_playable;
use anyhow::{Context, Result, bail};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file that is written for an output.
///
/// Where nothing is there, that is the output itself. Otherwise it is `OUTPUT.part` (`.part.1` and so on where that
/// is there, too), which takes the output's place when the recording has come to its end and plays.
pub(in crate::cli) struct Place {
    output: PathBuf,
    written: PathBuf,
    /// The earlier file that is to be replaced.
    earlier: Option<Identity>,
    /// The file that is written; its lock tells other runs so.
    file: File,
}

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// At the end of its input, or where the user stopped it.
    Complete,
    /// Before that.
    CutShort,
    /// Before its first frame.
    Nothing,
}

/// Tells one state of a file from any other.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len_bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(there: &Metadata) -> Self {
        Self {
            device: there.dev(),
            inode: there.ino(),
            len_bytes: there.len(),
            modified: (there.mtime(), there.mtime_nsec()),
        }
    }
}

impl Place {
    /// Opens the file to write; `say` hears in which file the recording is until its end, where that is not `output`.
    ///
    /// # Errors
    /// A folder that is not there or that cannot be written to.
    pub(in crate::cli) fn open(output: &Path, say: impl Fn(&str)) -> Result<(Self, File)> {
        let place = |written: PathBuf, earlier: Option<Identity>, file: File| -> Result<(Self, File)> {
            sync_folder(&written);
            let to_write = file.try_clone()?;
            let place = Self {
                output: output.to_owned(),
                written,
                earlier,
                file,
            };
            Ok((place, to_write))
        };
        if let Some(file) = open_new(output)? {
            if has_content(&part_of(output, 0)) {
                say(&left(&part_of(output, 0)));
            }
            return place(output.to_owned(), None, file);
        }
        let earlier = std::fs::metadata(output).ok().as_ref().map(Identity::of);
        let (written, file) = open_part(output, |part| say(&left(part)))?;
        say(&format!(
            "{} is there already; until its end the recording is {}",
            output.display(),
            written.display()
        ));
        place(written, earlier, file)
    }

    /// The file that is written.
    pub(in crate::cli) fn written(&self) -> &Path {
        &self.written
    }

    /// Puts the recording where it belongs and returns where that is; None where there is no recording.
    ///
    /// # Errors
    /// A file that cannot be moved. The recording stays where it is.
    pub(in crate::cli) fn settle(&self, outcome: Outcome, say: impl Fn(&str)) -> Result<Option<PathBuf>> {
        let len_bytes = std::fs::metadata(&self.written).map_or(0, |there| there.len());
        if len_bytes == 0 || outcome == Outcome::Nothing {
            // Nothing was recorded in it.
            let _ = std::fs::remove_file(&self.written);
            return Ok(None);
        }
        // At its end it is synced already; what was cut short may have a second left.
        self.file
            .sync_data()
            .with_context(|| self.written.display().to_string())?;
        if self.written == self.output {
            return Ok(Some(self.output.clone()));
        }
        let now = std::fs::metadata(&self.output).ok();
        let why = match outcome {
            Outcome::CutShort | Outcome::Nothing => "as it was, because the recording was cut short",
            Outcome::Complete if now.is_some() && now.as_ref().map(Identity::of) != self.earlier => {
                "what another program has written meanwhile"
            }
            Outcome::Complete if !is_playable(&self.written) => {
                "as it was, because no frame of the recording can be decoded here"
            }
            Outcome::Complete => {
                std::fs::rename(&self.written, &self.output).with_context(|| {
                    format!(
                        "the recording is {}, it cannot be moved to {}",
                        self.written.display(),
                        self.output.display()
                    )
                })?;
                sync_folder(&self.output);
                return Ok(Some(self.output.clone()));
            }
        };
        say(&format!(
            "the recording is {}; {} is {why}",
            self.written.display(),
            self.output.display()
        ));
        Ok(Some(self.written.clone()))
    }
}

/// Opens a file that is not there yet, or that is empty and nobody's; None where there is something else.
fn open_new(path: &Path) -> Result<Option<File>> {
    let open = |create: bool| OpenOptions::new().write(true).create_new(create).open(path);
    let file = match open(true) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let there = std::fs::metadata(path);
            if !there.is_ok_and(|there| there.is_file() && there.len() == 0) {
                return Ok(None);
            }
            match open(false) {
                Ok(file) => file,
                Err(_) => return Ok(None),
            }
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // Also where the file system has no locks.
        _ => Ok(Some(file)),
    }
}

/// The name of a recording whose output is there already.
fn part_of(output: &Path, number: u32) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    output.with_file_name(name)
}

fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| there.len() > 0)
}

fn left(part: &Path) -> String {
    format!("{} is from another run and stays as it is", part.display())
}

/// Opens a part that is not there yet; `taken` hears of the others.
fn open_part(output: &Path, taken: impl Fn(&Path)) -> Result<(PathBuf, File)> {
    for number in 0..10_000 {
        let path = part_of(output, number);
        match open_new(&path)? {
            Some(file) => return Ok((path, file)),
            None => taken(&path),
        }
    }
    bail!("{}: too many files beside it end in .part.N", output.display())
}

/// Makes a new name in a folder survive a power cut, where the file system can.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // A file system that cannot sync a folder keeps its names another way.
    let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.mp4");
        let open = || {
            let said = std::cell::RefCell::new(String::new());
            let (place, _) = Place::open(&output, |line| said.borrow_mut().push_str(line)).unwrap();
            (place, said.into_inner())
        };
        let (first, said) = open();
        assert_eq!((first.written(), said.as_str()), (output.as_path(), ""));
        // While it is written another run takes the next name, although nothing is in it yet.
        let (second, said) = open();
        assert_eq!(second.written(), folder.path().join("out.mp4.part"));
        assert!(said.contains("out.mp4.part"), "{said}");
        std::fs::write(second.written(), b"left").unwrap();
        drop((first, second));
        let (third, said) = open();
        assert_eq!(third.written(), output, "an empty file is nothing");
        assert!(said.contains("out.mp4.part is from another run"), "{said}");
        drop(third);
        std::fs::write(&output, b"precious").unwrap();
        let (fourth, said) = open();
        assert_eq!(fourth.written(), folder.path().join("out.mp4.part.1"));
        assert!(said.contains("out.mp4.part.1"), "{said}");
        assert_eq!(std::fs::read(&output).unwrap(), b"precious");
        // What cannot be played takes nobody's place, and is not thrown away.
        std::fs::write(fourth.written(), b"not a video").unwrap();
        let kept = fourth.settle(Outcome::Complete, |_| {}).unwrap().unwrap();
        assert_eq!(std::fs::read(kept).unwrap(), b"not a video");
        assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    }
}
