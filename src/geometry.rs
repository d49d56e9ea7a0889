//! Sizes and rectangles in pixels, and the way from the model's square back to the frame.
//!
//! The model sees a square of `side_px` made from one rectangle of the frame, the *region*, stretched and turned:
//! ```text
//! frame --crop--> region --stretch to square--> square --turn (orientation)--> model input
//! ```

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

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
