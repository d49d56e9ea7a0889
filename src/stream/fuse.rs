//! From a clip's outputs to masks: turned upright, and averaged where several clips serve one frame.
//!
//! ```text
//! mean[class, y, x] = sum over clips of softmax[class, y, x] / clips     label[y, x] = first class with the largest mean
//! ```

use crate::geometry::Orientation;
use crate::segmenter::Plane;
use std::collections::BTreeMap;

/// What is known of a frame's outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    /// `[side, side]` class ids, upright.
    pub labels: Vec<u8>,
    /// `[classes, side, side]`, the mean softmax, in the orientation of the model's input; only where
    /// probabilities were asked for.
    pub probabilities: Option<Vec<f32>>,
}

/// Sums softmaxes per frame until all clips that serve it have been heard.
#[derive(Debug)]
pub struct Fuser {
    side_px: usize,
    classes: usize,
    orientation: Orientation,
    sums: BTreeMap<u64, Sum>,
    /// Buffers of finished frames, for the next ones: a sum takes `classes * side * side * 4` bytes.
    spare: Vec<Vec<f32>>,
}

#[derive(Debug)]
struct Sum {
    values: Vec<f32>,
    clips: usize,
}

/// Spare buffers kept; more would only hold memory.
const SPARE_BUFFERS: usize = 2;

impl Fuser {
    /// For planes of `classes` classes and `side_px * side_px` pixels.
    pub fn new(side_px: u32, classes: usize, orientation: Orientation) -> Self {
        Self {
            side_px: side_px as usize,
            classes,
            orientation,
            sums: BTreeMap::new(),
            spare: Vec::new(),
        }
    }

    fn area(&self) -> usize {
        self.side_px * self.side_px
    }

    /// Adds one clip's output for `frame`.
    ///
    /// # Errors
    /// A plane of another kind or size than was asked for; the message says which.
    pub fn add(&mut self, frame: u64, plane: &Plane) -> Result<(), String> {
        let Plane::Probabilities(values) = plane else {
            return Err("the model gave labels where probabilities were wanted".into());
        };
        let expected = self.classes * self.area();
        if values.len() != expected {
            return Err(format!(
                "the model gave {} probabilities where {expected} were wanted",
                values.len()
            ));
        }
        match self.sums.get_mut(&frame) {
            Some(sum) => {
                for (sum, value) in sum.values.iter_mut().zip(values) {
                    *sum += value;
                }
                sum.clips += 1;
            }
            None => {
                let mut copy = self.spare.pop().unwrap_or_default();
                copy.clear();
                copy.extend_from_slice(values);
                self.sums.insert(
                    frame,
                    Sum {
                        values: copy,
                        clips: 1,
                    },
                );
            }
        }
        Ok(())
    }

    /// Clips heard for `frame`.
    pub fn clips_heard(&self, frame: u64) -> usize {
        self.sums.get(&frame).map_or(0, |sum| sum.clips)
    }

    /// The mean for `frame`, `None` when no clip was heard. Its sum is forgotten.
    pub fn take(&mut self, frame: u64, keep_probabilities: bool) -> Option<Fused> {
        let Sum { mut values, clips } = self.sums.remove(&frame)?;
        let labels = self.upright(argmax(&values, self.area()));
        let probabilities = if keep_probabilities {
            let scale = clips as f32;
            values.iter_mut().for_each(|v| *v /= scale);
            Some(values)
        } else {
            self.recycle(values);
            None
        };
        Some(Fused {
            labels,
            probabilities,
        })
    }

    /// Forgets what was summed for `frame`.
    pub fn discard(&mut self, frame: u64) {
        if let Some(sum) = self.sums.remove(&frame) {
            self.recycle(sum.values);
        }
    }

    /// A single clip's labels, turned upright.
    ///
    /// # Errors
    /// As [`Fuser::add`], the other way round; or an id that is no class.
    pub fn labels(&self, plane: Plane) -> Result<Fused, String> {
        let Plane::Labels(labels) = plane else {
            return Err("the model gave probabilities where labels were wanted".into());
        };
        if labels.len() != self.area() {
            return Err(format!(
                "the model gave {} labels where {} were wanted",
                labels.len(),
                self.area()
            ));
        }
        if let Some(id) = labels.iter().find(|&&id| usize::from(id) >= self.classes) {
            return Err(format!(
                "the model gave class {id}, but it has {} classes",
                self.classes
            ));
        }
        Ok(Fused {
            labels: self.upright(labels),
            probabilities: None,
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sums.clear();
    }

    fn recycle(&mut self, values: Vec<f32>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(values);
        }
    }

    fn upright(&self, labels: Vec<u8>) -> Vec<u8> {
        upright(labels, self.side_px, self.orientation)
    }
}

/// The labels of a square of `side_px` in the orientation of a model's input, turned upright.
pub fn upright(labels: Vec<u8>, side_px: usize, orientation: Orientation) -> Vec<u8> {
    match orientation {
        Orientation::Upright => labels,
        Orientation::Transposed => transposed(&labels, side_px),
    }
}

/// Rows and columns of a square exchanged about the diagonal from bottom left to top right.
fn transposed(square: &[u8], side: usize) -> Vec<u8> {
    let mut turned: Vec<u8> = (0..side)
        .flat_map(|y| square.iter().skip(y).step_by(side.max(1)).copied())
        .collect();
    turned.reverse();
    turned
}

/// The first class with the largest value at each of `area` pixels of `[classes, area]`.
fn argmax(values: &[f32], area: usize) -> Vec<u8> {
    let mut labels = vec![0_u8; area];
    let mut classes = values.chunks_exact(area.max(1));
    let Some(first) = classes.next() else {
        return labels;
    };
    let mut best = first.to_vec();
    for (class, plane) in classes.enumerate() {
        let id = u8::try_from(class + 1).unwrap_or(u8::MAX);
        for ((label, best), &value) in labels.iter_mut().zip(&mut best).zip(plane) {
            if value > *best {
                *best = value;
                *label = id;
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_decides_and_ties_go_to_the_lower_class() {
        let mut fuser = Fuser::new(1, 3, Orientation::Upright);
        fuser.add(4, &Plane::Probabilities(vec![0.6, 0.4, 0.0])).unwrap();
        fuser.add(4, &Plane::Probabilities(vec![0.1, 0.6, 0.3])).unwrap();
        assert_eq!(fuser.clips_heard(4), 2);
        let fused = fuser.take(4, true).unwrap();
        assert_eq!(fused.labels, [1]);
        let mean = fused.probabilities.unwrap();
        for (got, want) in mean.iter().zip([0.35, 0.5, 0.15]) {
            assert!((got - want).abs() < 1e-6);
        }
        assert!(fuser.take(4, true).is_none());
        fuser.add(5, &Plane::Probabilities(vec![0.4, 0.4, 0.2])).unwrap();
        assert_eq!(
            fuser.take(5, false),
            Some(Fused {
                labels: vec![0],
                probabilities: None
            })
        );
    }

    #[test]
    fn transposed_models_give_upright_masks() {
        let fuser = Fuser::new(3, 9, Orientation::Transposed);
        let fused = fuser
            .labels(Plane::Labels(vec![0, 1, 2, 3, 4, 5, 6, 7, 8]))
            .unwrap();
        assert_eq!(fused.labels, [8, 5, 2, 7, 4, 1, 6, 3, 0]);
        let mut fuser = Fuser::new(2, 2, Orientation::Transposed);
        fuser
            .add(
                0,
                &Plane::Probabilities(vec![0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]),
            )
            .unwrap();
        assert_eq!(fuser.take(0, false).unwrap().labels, [1, 0, 1, 1]);
    }

    #[test]
    fn wrong_planes_are_refused() {
        let mut fuser = Fuser::new(2, 2, Orientation::Upright);
        assert!(fuser.add(0, &Plane::Labels(vec![0; 4])).is_err());
        assert!(
            fuser
                .add(0, &Plane::Probabilities(vec![0.0; 7]))
                .unwrap_err()
                .contains("7 probabilities")
        );
        assert!(fuser.labels(Plane::Probabilities(vec![0.0; 8])).is_err());
        assert!(
            fuser
                .labels(Plane::Labels(vec![0; 3]))
                .unwrap_err()
                .contains("3 labels")
        );
        assert!(
            fuser
                .labels(Plane::Labels(vec![0, 1, 2, 0]))
                .unwrap_err()
                .contains("class 2")
        );
        assert_eq!(fuser.clips_heard(0), 0);
    }
}
