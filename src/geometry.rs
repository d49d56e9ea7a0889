//! Sizes and rectangles in pixels, and the way from the model's square back to the frame.
//!
//! The model sees a square of `side_px` made from one rectangle of the frame, the *region*, stretched and turned:
//! ```text
//! frame --crop--> region --stretch to square--> square --turn (orientation)--> model input
//! ```

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest side of a frame we accept, in pixels: 16 times UHD in area, and small enough that
/// `width * height * 4` stays far from overflowing.
pub const MAX_FRAME_SIDE_PX: u32 = 16_384;

/// Width and height in pixels, both at least 1 after [`Size::checked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Pixels in a row.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
}

impl Size {
    /// A size with both sides in `1..=MAX_FRAME_SIDE_PX`.
    ///
    /// # Errors
    /// A side outside these bounds.
    pub fn checked(width_px: u32, height_px: u32) -> Result<Self> {
        for (field, value) in [("width", width_px), ("height", height_px)] {
            if value == 0 || value > MAX_FRAME_SIDE_PX {
                return Err(Error::config(
                    field,
                    value,
                    format!("it has to be 1 to {MAX_FRAME_SIDE_PX} pixels"),
                ));
            }
        }
        Ok(Self { width_px, height_px })
    }

    /// A square.
    pub fn square(side_px: u32) -> Self {
        Self {
            width_px: side_px,
            height_px: side_px,
        }
    }

    /// Pixels in all.
    pub fn area(self) -> usize {
        self.width_px as usize * self.height_px as usize
    }

    /// The rectangle of this size at the origin.
    pub fn rect(self) -> Rect {
        Rect {
            x_px: 0,
            y_px: 0,
            width_px: self.width_px,
            height_px: self.height_px,
        }
    }
}

/// A rectangle of whole pixels; `x_px`, `y_px` is its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge.
    pub x_px: u32,
    /// Top edge.
    pub y_px: u32,
    /// Pixels in a row.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
}

impl Rect {
    /// Its width and height.
    pub fn size(self) -> Size {
        Size {
            width_px: self.width_px,
            height_px: self.height_px,
        }
    }

    /// First column to the right of it; saturating, so a hostile rectangle cannot wrap.
    pub fn right_px(self) -> u32 {
        self.x_px.saturating_add(self.width_px)
    }

    /// First row below it.
    pub fn bottom_px(self) -> u32 {
        self.y_px.saturating_add(self.height_px)
    }

    /// Whether it is not empty and lies inside a frame of `size`.
    pub fn fits(self, size: Size) -> bool {
        let along = |start: u32, length: u32, whole: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
        };
        along(self.x_px, self.width_px, size.width_px) && along(self.y_px, self.height_px, size.height_px)
    }

    /// Reads `x,y,w,h`.
    ///
    /// # Errors
    /// Anything else, or an empty rectangle.
    pub fn parse(text: &str) -> Result<Self> {
        let bound = "a rectangle reads x,y,width,height in pixels, width and height above 0";
        let wrong = || Error::config("rectangle", text, bound);
        let numbers: Vec<u32> = text
            .split(',')
            .map(|n| n.trim().parse::<u32>())
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        let [x_px, y_px, width_px, height_px] = numbers[..] else {
            return Err(wrong());
        };
        if width_px == 0 || height_px == 0 {
            return Err(wrong());
        }
        Ok(Self {
            x_px,
            y_px,
            width_px,
            height_px,
        })
    }
}

/// The part of the frame that the model sees, as a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Roi {
    /// The whole frame.
    None,
    /// The lit part, found from the first frames: endoscope towers put their picture on black.
    #[default]
    Auto,
    /// This rectangle, in pixels of the frame.
    Given(Rect),
}

impl Roi {
    /// The region of a frame of `size` before any frame was seen: the whole frame for [`Roi::Auto`].
    ///
    /// # Errors
    /// A given rectangle that does not lie inside the frame.
    pub fn region_in(self, size: Size) -> Result<Rect> {
        match self {
            Roi::None | Roi::Auto => Ok(size.rect()),
            Roi::Given(rect) if rect.fits(size) => Ok(rect),
            Roi::Given(_) => {
                let bound = format!(
                    "it has to lie inside the frame of {}x{}",
                    size.width_px, size.height_px
                );
                Err(Error::config("roi", self, bound))
            }
        }
    }
}

impl FromStr for Roi {
    type Err = Error;

    /// Reads `x,y,width,height` in pixels, `auto` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "auto" => Ok(Roi::Auto),
            "none" => Ok(Roi::None),
            text => Rect::parse(text).map(Roi::Given).map_err(|_| {
                let bound = "it has to be x,y,width,height in pixels, auto or none";
                Error::config("roi", text, bound)
            }),
        }
    }
}

impl fmt::Display for Roi {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Roi::None => f.write_str("none"),
            Roi::Auto => f.write_str("auto"),
            Roi::Given(rect) => {
                let Rect {
                    x_px,
                    y_px,
                    width_px,
                    height_px,
                } = rect;
                write!(f, "{x_px},{y_px},{width_px},{height_px}")
            }
        }
    }
}

/// How the square is turned before the model sees it. A model says in its file which one it was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// As the camera shows it.
    #[default]
    Upright,
    /// Rows and columns exchanged about the diagonal from bottom left to top right: a quarter turn counter-clockwise,
    /// then mirrored left to right, as in the authors' EndoVis preparation. Doing it twice gives the picture back.
    Transposed,
}

impl Orientation {
    /// Where the pixel `(x, y)` of the model's square of `side_px` lies in the upright one, and the other way round:
    /// it is its own inverse.
    #[inline]
    pub fn upright_from_model(self, x: u32, y: u32, side_px: u32) -> (u32, u32) {
        match self {
            Orientation::Upright => (x, y),
            Orientation::Transposed => (side_px - 1 - y, side_px - 1 - x),
        }
    }
}

/// How the pixels of a region and those of the square made from it lie on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// The outer edges coincide: what an area resize does.
    Edges,
    /// The centres of the corner pixels coincide: what the reference's spline does.
    Corners,
}

/// The way from a position in the frame to the same spot in the model's square, and back.
///
/// Positions are in pixels, and whole numbers are the centres of pixels: the top left pixel's centre is `[0, 0]`.
/// ```
/// use masam::geometry::{Alignment, ModelSquare, Orientation, Rect};
/// let region = Rect { x_px: 100, y_px: 0, width_px: 400, height_px: 200 };
/// let square = ModelSquare { region, side_px: 200, orientation: Orientation::Upright, alignment: Alignment::Edges };
/// assert_eq!(square.model_from_frame([100.5, 20.0]), [0.0, 20.0]);
/// assert_eq!(square.frame_from_model([0.0, 20.0]), [100.5, 20.0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSquare {
    /// The part of the frame that becomes the square.
    pub region: Rect,
    /// Side of the square.
    pub side_px: u32,
    /// How the square is turned.
    pub orientation: Orientation,
    /// How it is made from the region.
    pub alignment: Alignment,
}

impl ModelSquare {
    /// Where a position of the frame lies in the square. Positions outside the region end up outside the square.
    pub fn model_from_frame(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let along = |position: f32, start: u32, length: u32| {
            self.stretched(f64::from(position) - f64::from(start), length, self.side_px)
        };
        let x = along(x, self.region.x_px, self.region.width_px);
        let y = along(y, self.region.y_px, self.region.height_px);
        self.turned([x, y]).map(|position| position as f32)
    }

    /// Where a position of the square lies in the frame.
    pub fn frame_from_model(&self, position: [f32; 2]) -> [f32; 2] {
        let [x, y] = self.turned(position.map(f64::from));
        let along = |position: f64, start: u32, length: u32| {
            (self.stretched(position, self.side_px, length) + f64::from(start)) as f32
        };
        [
            along(x, self.region.x_px, self.region.width_px),
            along(y, self.region.y_px, self.region.height_px),
        ]
    }

    /// A position on a line of `from` pixels on the same line made of `to` pixels.
    fn stretched(&self, position: f64, from: u32, to: u32) -> f64 {
        let (from, to) = (f64::from(from), f64::from(to));
        match self.alignment {
            Alignment::Edges => (position + 0.5) * to / from - 0.5,
            Alignment::Corners if from > 1.0 => position * (to - 1.0) / (from - 1.0),
            // A single pixel becomes the whole line.
            Alignment::Corners => position + (to - 1.0) / 2.0,
        }
    }

    /// As [`Orientation::upright_from_model`], its own inverse.
    fn turned(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let last = f64::from(self.side_px) - 1.0;
        match self.orientation {
            Orientation::Upright => [x, y],
            Orientation::Transposed => [last - y, last - x],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_to_the_square_and_back() {
        let regions = [
            (0, 0, 640, 480),
            (320, 28, 1280, 1024),
            (7, 3, 1, 90),
            (5, 9, 33, 1),
        ];
        for orientation in [Orientation::Upright, Orientation::Transposed] {
            for alignment in [Alignment::Edges, Alignment::Corners] {
                for (x_px, y_px, width_px, height_px) in regions {
                    let region = Rect {
                        x_px,
                        y_px,
                        width_px,
                        height_px,
                    };
                    let square = ModelSquare {
                        region,
                        side_px: 256,
                        orientation,
                        alignment,
                    };
                    let last = [(region.right_px() - 1) as f32, (region.bottom_px() - 1) as f32];
                    let first = [x_px as f32, y_px as f32];
                    let inner = [0.3, 0.8].map(|share: f32| {
                        [0, 1].map(|axis| first[axis] + share * (last[axis] - first[axis]))
                    });
                    for frame in [first, last, inner[0], inner[1]] {
                        let model = square.model_from_frame(frame);
                        let inside = |p: &f32| (-0.5..=255.5).contains(p);
                        assert!(model.iter().all(inside), "{square:?} {frame:?} {model:?}");
                        let back = square.frame_from_model(model);
                        for axis in 0..2 {
                            let error = (back[axis] - frame[axis]).abs();
                            assert!(error < 1e-3, "{square:?} {frame:?} {model:?} {back:?}");
                        }
                    }
                }
            }
        }
    }

    /// A pixel's own colour is the check: where the resize puts it is where the position says.
    #[test]
    fn whole_pixels_go_where_the_turn_puts_them() {
        for orientation in [Orientation::Upright, Orientation::Transposed] {
            for alignment in [Alignment::Edges, Alignment::Corners] {
                let square = ModelSquare {
                    region: Size::square(16).rect(),
                    side_px: 16,
                    orientation,
                    alignment,
                };
                for (x, y) in [(0, 0), (15, 0), (3, 11)] {
                    let (upright_x, upright_y) = orientation.upright_from_model(x, y, 16);
                    let model = square.model_from_frame([upright_x as f32, upright_y as f32]);
                    assert_eq!(model, [x as f32, y as f32], "{square:?}");
                }
            }
        }
    }

    #[test]
    fn rectangles_are_read_strictly() {
        let rect = Rect::parse("320, 28,1280,1024").unwrap();
        assert_eq!(
            rect,
            Rect {
                x_px: 320,
                y_px: 28,
                width_px: 1280,
                height_px: 1024
            }
        );
        for bad in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,0,4",
            "-1,2,3,4",
            "a,b,c,d",
            "1,2,3,4294967296",
        ] {
            assert!(Rect::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fitting_does_not_wrap() {
        let size = Size::checked(1920, 1080).unwrap();
        assert!(size.rect().fits(size));
        let far = Rect {
            x_px: u32::MAX,
            y_px: 0,
            width_px: 2,
            height_px: 1,
        };
        assert!(!far.fits(size));
        assert_eq!(far.right_px(), u32::MAX);
        assert!(Size::checked(0, 1).is_err() && Size::checked(1, MAX_FRAME_SIDE_PX + 1).is_err());
    }
}
