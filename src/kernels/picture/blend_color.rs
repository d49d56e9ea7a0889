//! From palette colours to the components a frame stores.
//!
//! With the luma weights `(kr, kg, kb)` of the frame's matrix and its range (luma from `16` over `219` steps and
//! chroma over `224` when limited, all 255 when full):
//! ```text
//! Y = low + steps (kr R + kg G + kb B),   U = 128 + steps_c (B - Y') / (2 (1 - kb)),   V likewise with R
//! ```

use crate::labels::Rgb;

/// Largest byte, as a number.
const BYTE: f32 = 255.0;

/// Which range of bytes a component uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 0 to 255.
    Full,
    /// Luma and RGB 16 to 235, chroma 16 to 240.
    Limited,
}

/// An affine map from full-range RGB bytes to components.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorSpace {
    matrix: [[f32; 3]; 3],
    offset: [f32; 3],
}

impl ColorSpace {
    /// Components are red, green and blue.
    pub fn rgb(range: Range) -> Self {
        let (low, scale) = luma(range);
        Self {
            matrix: [[scale, 0.0, 0.0], [0.0, scale, 0.0], [0.0, 0.0, scale]],
            offset: [low; 3],
        }
    }

    /// Components are luma, U and V, with the luma weights of red and blue.
    pub fn yuv(kr: f32, kb: f32, range: Range) -> Self {
        let (low, scale) = luma(range);
        let chroma = match range {
            Range::Full => 1.0,
            Range::Limited => 224.0 / BYTE,
        };
        let y = [kr, 1.0 - kr - kb, kb];
        let u = [-y[0], -y[1], 1.0 - kb].map(|weight| weight * chroma / (2.0 * (1.0 - kb)));
        let v = [1.0 - kr, -y[1], -y[2]].map(|weight| weight * chroma / (2.0 * (1.0 - kr)));
        Self {
            matrix: [y.map(|weight| weight * scale), u, v],
            offset: [low, 128.0, 128.0],
        }
    }

    /// Components of a palette colour, 0..=255.
    pub fn color(&self, rgb: Rgb) -> [f32; 3] {
        self.premultiplied(1.0, rgb.map(f32::from))
            .map(|component| component.clamp(0.0, BYTE))
    }

    /// Components, times coverage, of a colour that is already times coverage.
    pub fn premultiplied(&self, alpha: f32, rgb: [f32; 3]) -> [f32; 3] {
        let row = |row: usize| {
            let weights = self.matrix[row];
            alpha * self.offset[row] + weights[0] * rgb[0] + weights[1] * rgb[1] + weights[2] * rgb[2]
        };
        [row(0), row(1), row(2)]
    }
}

fn luma(range: Range) -> (f32, f32) {
    match range {
        Range::Full => (0.0, 1.0),
        Range::Limited => (16.0, 219.0 / BYTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grays_and_primaries_are_where_the_standards_put_them() {
        let sd = ColorSpace::yuv(0.299, 0.114, Range::Limited);
        let close = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.05);
        assert!(close(sd.color([0, 0, 0]), [16.0, 128.0, 128.0]));
        assert!(close(sd.color([255, 255, 255]), [235.0, 128.0, 128.0]));
        assert!(close(sd.color([255, 0, 0]), [81.48, 90.2, 240.0]));
        let hd = ColorSpace::yuv(0.2126, 0.0722, Range::Limited);
        assert!(close(hd.color([0, 0, 255]), [31.81, 240.0, 117.73]));
        let full = ColorSpace::yuv(0.299, 0.114, Range::Full);
        assert!(close(full.color([0, 255, 0]), [149.69, 43.53, 21.23]));
        assert_eq!(ColorSpace::rgb(Range::Full).color([1, 2, 3]), [1.0, 2.0, 3.0]);
    }
}
