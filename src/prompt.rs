//! Prompts in pixels of the frame, as a user gives them, and their way into the model's square.
//!
//! ```
//! use masam::geometry::{Alignment, ModelSquare, Orientation, Size};
//! use masam::prompt::FramePrompt;
//! let frame = Size { width_px: 640, height_px: 480 };
//! let prompt: FramePrompt = "box=100,50,300,200 point=150,90 outside=280,60".parse()?;
//! let square = ModelSquare {
//!     region: frame.rect(),
//!     side_px: 512,
//!     orientation: Orientation::Upright,
//!     alignment: Alignment::Edges,
//! };
//! assert!(prompt.in_square(frame, &square)?.box_px.is_some());
//! # Ok::<(), masam::Error>(())
//! ```

use crate::error::{Error, Result, all_of};
use crate::geometry::{ModelSquare, Size};
use crate::segmenter::Prompt;
use std::fmt;
use std::str::FromStr;

/// Most points of one prompt: each is a token in every layer of the decoder.
pub const MAX_POINTS: usize = 64;

/// How a prompt is written.
const FORM: &str = "it has to be made of box=x0,y0,x1,y1, point=x,y and outside=x,y in pixels of the frame";

/// What the user points at. Positions are in pixels of the frame, whole numbers being the centres of pixels; the same
/// prompt serves every frame. Without box and points the model segments everything.
///
/// A model follows prompts only if it was trained with them; its file does not say whether it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FramePrompt {
    /// `[x0, y0, x1, y1]`: a box around the object, with `x0 < x1` and `y0 < y1`.
    pub box_frame_px: Option<[f32; 4]>,
    /// `([x, y], inside)`: points on the object, and points beside it.
    pub points_frame_px: Vec<([f32; 2], bool)>,
}

impl FramePrompt {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.box_frame_px.is_none() && self.points_frame_px.is_empty()
    }

    /// The same prompt in the square that the model sees of a frame of size `frame`. What the square does not show of
    /// a box is cut off.
    ///
    /// # Errors
    /// A position outside the frame, or a point or a whole box outside the region that the square shows.
    pub fn in_square(&self, frame: Size, square: &ModelSquare) -> Result<Prompt> {
        let corners = self
            .box_frame_px
            .iter()
            .flat_map(|b| [[b[0], b[1]], [b[2], b[3]]]);
        let points = self.points_frame_px.iter().map(|(point, _)| *point);
        let last = [frame.width_px, frame.height_px].map(|side| side.saturating_sub(1) as f32);
        for position in corners.chain(points) {
            if !lies_between(position, [0.0, 0.0], last) {
                let bound = format!(
                    "it has to lie inside the frame of {}x{}: x in 0 to {}, y in 0 to {}",
                    frame.width_px, frame.height_px, last[0], last[1]
                );
                return Err(Error::config("prompt", self, bound));
            }
        }
        let region = square.region;
        let first = [region.x_px, region.y_px].map(|edge| edge as f32);
        let last = [region.right_px(), region.bottom_px()].map(|edge| edge.saturating_sub(1) as f32);
        let hidden = || {
            let bound = format!(
                "the model sees only the region of interest {},{},{},{}",
                region.x_px, region.y_px, region.width_px, region.height_px
            );
            Error::config("prompt", self, bound)
        };
        let mut prompt = Prompt::default();
        if let Some([x0, y0, x1, y1]) = self.box_frame_px {
            let (from, to) = (
                [x0.max(first[0]), y0.max(first[1])],
                [x1.min(last[0]), y1.min(last[1])],
            );
            if from[0] >= to[0] || from[1] >= to[1] {
                return Err(hidden());
            }
            // Turning exchanges corners.
            let (a, b) = (square.model_from_frame(from), square.model_from_frame(to));
            prompt.box_px = Some([a[0].min(b[0]), a[1].min(b[1]), a[0].max(b[0]), a[1].max(b[1])]);
        }
        for &(point, inside) in &self.points_frame_px {
            if !lies_between(point, first, last) {
                return Err(hidden());
            }
            prompt.points_px.push((square.model_from_frame(point), inside));
        }
        Ok(prompt)
    }
}

fn lies_between(position: [f32; 2], first: [f32; 2], last: [f32; 2]) -> bool {
    (0..2).all(|axis| (first[axis]..=last[axis]).contains(&position[axis]))
}

/// `N` finite numbers with commas between them.
fn numbers<const N: usize>(text: &str) -> Option<[f32; N]> {
    let numbers: Option<Vec<f32>> = text
        .split(',')
        .map(|n| n.parse().ok().filter(|n: &f32| n.is_finite()))
        .collect();
    numbers?.try_into().ok()
}

impl FromStr for FramePrompt {
    type Err = Error;

    /// Reads parts with blanks or semicolons between them; nothing is the empty prompt. Every part that is wrong is named.
    fn from_str(text: &str) -> Result<Self> {
        let mut prompt = Self::default();
        let parts = text.split(|c: char| c.is_whitespace() || c == ';');
        let errors = parts
            .filter(|part| !part.is_empty())
            .filter_map(|part| {
                let bound = prompt.add(part).err()?;
                Some(Error::config("prompt", part, bound))
            })
            .collect();
        all_of(errors)?;
        Ok(prompt)
    }
}

impl FramePrompt {
    /// Adds one part, or says what it has to be.
    fn add(&mut self, part: &str) -> Result<(), String> {
        let (kind, values) = part.split_once('=').ok_or(FORM)?;
        match kind {
            "box" => {
                let corners @ [x0, y0, x1, y1] = numbers::<4>(values).ok_or(FORM)?;
                if x0 >= x1 || y0 >= y1 {
                    return Err("x1 has to be above x0, and y1 above y0".into());
                }
                if self.box_frame_px.replace(corners).is_some() {
                    return Err("there can be only one box".into());
                }
            }
            "point" | "outside" => {
                let point = numbers::<2>(values).ok_or(FORM)?;
                if self.points_frame_px.len() == MAX_POINTS {
                    return Err(format!("there can be {MAX_POINTS} points at most"));
                }
                self.points_frame_px.push((point, kind == "point"));
            }
            _ => return Err(FORM.into()),
        }
        Ok(())
    }
}

impl fmt::Display for FramePrompt {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some([x0, y0, x1, y1]) = self.box_frame_px {
            write!(f, "box={x0},{y0},{x1},{y1}")?;
            gap = " ";
        }
        for &([x, y], inside) in &self.points_frame_px {
            let kind = if inside { "point" } else { "outside" };
            write!(f, "{gap}{kind}={x},{y}")?;
            gap = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_part_is_named() {
        let error = "box=9,0,3,4 point=1 area=3 point=4,5"
            .parse::<FramePrompt>()
            .unwrap_err()
            .to_string();
        for part in ["box=9,0,3,4", "point=1,", "area=3"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("4,5"), "{error}");
    }
    use crate::geometry::{Alignment, Orientation, Rect};

    const FRAME: Size = Size {
        width_px: 200,
        height_px: 100,
    };

    fn square(region: Rect, orientation: Orientation) -> ModelSquare {
        ModelSquare {
            region,
            side_px: 50,
            orientation,
            alignment: Alignment::Edges,
        }
    }

    fn refused(text: &str) -> String {
        text.parse::<FramePrompt>()
            .and_then(|prompt| prompt.in_square(FRAME, &square(FRAME.rect(), Orientation::Upright)))
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn prompts_are_read_as_they_are_written() {
        let text = "box=10,20,30.5,40 point=12,22 outside=29,39";
        let prompt: FramePrompt = text.parse().unwrap();
        assert_eq!(prompt.to_string(), text);
        assert_eq!(prompt.box_frame_px, Some([10.0, 20.0, 30.5, 40.0]));
        assert_eq!(
            prompt.points_frame_px,
            [([12.0, 22.0], true), ([29.0, 39.0], false)]
        );
        let other: FramePrompt = " point=12,22;outside=29,39 ; box=10,20,30.5,40".parse().unwrap();
        assert_eq!(other, prompt);
        assert!("".parse::<FramePrompt>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_prompt_is_refused_by_name() {
        for bad in [
            "box=1,2,3",
            "box=1,2,3,4,5",
            "box",
            "box=",
            "10,20,30,40",
            "point=1",
            "point=NaN,1",
            "box=0,0,inf,1",
            "point=a,b",
            "circle=1,2,3",
            "=1,2",
        ] {
            let said = refused(bad);
            assert!(
                said.contains(&format!("prompt is {bad}, but it has to be made of box=")),
                "{said}"
            );
        }
        for bad in ["box=30,20,10,40", "box=10,20,10,40", "box=10,40,30,20"] {
            assert!(refused(bad).contains("x1 has to be above x0"), "{bad}");
        }
        assert!(
            refused("box=1,2,3,4 box=5,6,7,8").contains("prompt is box=5,6,7,8, but there can be only one")
        );
        let many = "point=1,1 ".repeat(MAX_POINTS + 1);
        assert!(refused(&many).contains("64 points at most"));
    }

    #[test]
    fn what_the_model_cannot_see_is_refused() {
        for outside in [
            "box=-1,0,10,10",
            "box=10,10,200,20",
            "point=0,100",
            "outside=199.5,0",
        ] {
            let said = refused(outside);
            assert!(
                said.contains(outside) && said.contains("inside the frame of 200x100"),
                "{said}"
            );
        }
        let region = Rect {
            x_px: 100,
            y_px: 0,
            width_px: 100,
            height_px: 100,
        };
        let square = square(region, Orientation::Upright);
        let place = |text: &str| {
            text.parse::<FramePrompt>()
                .and_then(|p| p.in_square(FRAME, &square))
        };
        for hidden in ["box=10,10,90,90", "point=99,5", "box=10,10,100,90"] {
            let said = place(hidden).expect_err(hidden).to_string();
            assert!(said.contains("region of interest 100,0,100,100"), "{said}");
        }
        // What sticks out is cut off at the region's edge.
        assert_eq!(
            place("box=50,20,150,60").unwrap(),
            place("box=100,20,150,60").unwrap()
        );
    }

    #[test]
    fn boxes_stay_boxes_when_they_are_turned() {
        let prompt: FramePrompt = "box=20,10,60,30 point=20,10 outside=60,30".parse().unwrap();
        let upright = prompt
            .in_square(FRAME, &square(FRAME.rect(), Orientation::Upright))
            .unwrap();
        // Four columns and two rows become one pixel.
        assert_eq!(upright.box_px, Some([4.625, 4.75, 14.625, 14.75]));
        let turned = prompt
            .in_square(FRAME, &square(FRAME.rect(), Orientation::Transposed))
            .unwrap();
        // x becomes 49 - y, and y 49 - x.
        assert_eq!(turned.box_px, Some([34.25, 34.375, 44.25, 44.375]));
        assert_eq!(
            turned.points_px,
            [([44.25, 44.375], true), ([34.25, 34.375], false)]
        );
    }
}
