//! What a run learns from: a data set on disk, or scenes that are generated.

use crate::data::phantom::{Eyes, PhantomConfig};
use crate::data::{Dataset, DatasetConfig, Split, Task2017};
use crate::error::Result;
use crate::geometry::Size;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is learnt from, and what is validated on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// A data set on disk: EndoVis 2018 or 2017, what `masam phantom` writes, or images and masks of your own.
    pub folder: Option<PathBuf>,
    /// Its sequences for training, for example `train`; all by default.
    pub split: Option<String>,
    /// Its sequences for validation, for example `val`; without it there is no validation.
    pub validation_split: Option<String>,
    /// Scenes that are generated when the run starts.
    pub phantom: Option<Scenes>,
    /// Generated scenes for validation.
    pub validation_phantom: Option<Scenes>,
    /// What the classes of EndoVis 2017 are: `binary`, `parts` or `type`.
    pub task_2017: Option<String>,
    /// Whether labels with more than 0.1 % of pixels of unknown colors or values are used, those pixels ignored.
    pub accept_unknown_labels: bool,
    /// Most memory, GiB, for the frames of `folder` that are trained on, and as much again for those of validation;
    /// 8 by default. They are decoded once and kept at the model's side, four bytes a pixel.
    pub memory_gib: Option<f64>,
    /// Another task on the same pictures: lists of class names, each of which becomes one class. Every class of the
    /// data stands in one of them.
    pub groups: Option<Vec<Vec<String>>>,
    /// Time between two frames of a clip in the data, milliseconds; goes into the model file.
    pub frame_interval_ms: Option<u64>,
}

/// Most memory for frames, GiB, where the configuration does not say.
const MEMORY_GIB: f64 = 8.0;

impl Data {
    /// Opens the data set on disk; `None` where there is none.
    ///
    /// # Errors
    /// As [`Dataset::open_with`], or a task that does not exist.
    pub fn open(&self) -> Result<Option<Dataset>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let config = DatasetConfig {
            task_2017: self.task()?,
            accept_unknown_labels: self.accept_unknown_labels,
        };
        Dataset::open_with(folder, config).map(Some)
    }

    /// What the classes of EndoVis 2017 are.
    ///
    /// # Errors
    /// A text that is no task.
    pub fn task(&self) -> Result<Task2017> {
        self.task_2017
            .as_deref()
            .map_or(Ok(Task2017::default()), str::parse)
    }

    /// Sequences to learn from, and to validate on.
    ///
    /// # Errors
    /// A text that is no split.
    pub fn splits(&self) -> Result<(Split, Option<Split>)> {
        let train = self.split.as_deref().map_or(Ok(Split::All), str::parse)?;
        Ok((
            train,
            self.validation_split.as_deref().map(str::parse).transpose()?,
        ))
    }

    /// Most memory for frames, GiB.
    pub fn memory_gib(&self) -> f64 {
        self.memory_gib.unwrap_or(MEMORY_GIB)
    }
}

/// Generated scenes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scenes {
    /// Sequences; a multiple of 8 shows every class.
    pub sequences: usize,
    /// Frames in each.
    pub frames: usize,
    /// Frames per second.
    pub fps: u32,
    /// Width and height in pixels before they are brought to the model's side.
    pub size: [u32; 2],
    /// Everything in them follows from it.
    pub seed: u64,
}

impl Default for Scenes {
    fn default() -> Self {
        Self {
            sequences: 8,
            frames: 16,
            fps: 10,
            size: [640, 512],
            seed: 1,
        }
    }
}

impl Scenes {
    /// As the generator wants it.
    pub fn config(&self) -> PhantomConfig {
        PhantomConfig {
            seed: self.seed,
            size: Size {
                width_px: self.size[0],
                height_px: self.size[1],
            },
            frames: self.frames,
            frame_rate: (self.fps, 1),
            supersample: 1,
            eyes: Eyes::Left,
        }
    }
}
