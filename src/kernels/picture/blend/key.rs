//! Masks as pictures of their own: ids or colours of the nearest mask pixel, and a layer as a key with alpha.

use crate::kernels::picture::blend_layer::{Edge, Layer, Paint};
use crate::kernels::picture::contour::MaskPlane;
use crate::labels::NO_MASK;

/// Enlarges planes of class ids to the frame, each frame pixel taking the mask pixel its centre lies in.
#[derive(Debug, Default)]
pub struct Enlarger {
    /// For each frame column of the region its mask column.
    columns: Vec<u32>,
}

impl Enlarger {
    /// Writes the id of each frame pixel to `[frame.height_px, frame.width_px]` bytes, and [`NO_MASK`] outside the region;
    /// see [`Enlarger::write`].
    pub fn write_ids(&mut self, bytes: &mut [u8], mask: &MaskPlane<'_>) {
        let same: [[u8; 1]; 256] = std::array::from_fn(|id| [id as u8]);
        self.write(bytes, mask.frame.width_px as usize, mask, &same, [NO_MASK]);
    }

    /// Writes `value_of_id[id]` for each frame pixel of the region and `outside` elsewhere, to rows of `stride_bytes`
    /// that hold as many pixels of `N` bytes as the frame is wide.
    ///
    /// A mask whose plane does not fit its size, or whose region does not lie in the frame, is outside everywhere.
    pub fn write<const N: usize>(
        &mut self,
        bytes: &mut [u8],
        stride_bytes: usize,
        mask: &MaskPlane<'_>,
        value_of_id: &[[u8; N]; 256],
        outside: [u8; N],
    ) {
        let (frame, region) = (mask.frame, mask.region);
        let fits = mask.ids.len() == mask.mask.area() && region.fits(frame);
        self.columns.clear();
        if fits {
            self.columns
                .extend((0..region.width_px).map(|x| nearest(x, region.width_px, mask.mask.width_px)));
        }
        let row_bytes = frame.width_px as usize * N;
        let mut before: Option<(u32, usize)> = None;
        for y_px in 0..frame.height_px {
            let start = y_px as usize * stride_bytes;
            let source = (y_px.checked_sub(region.y_px))
                .filter(|&y| fits && y < region.height_px)
                .map(|y| nearest(y, region.height_px, mask.mask.height_px));
            if let Some((_, from)) = before.filter(|&(row, _)| Some(row) == source)
                && start + row_bytes <= bytes.len()
            {
                bytes.copy_within(from..from + row_bytes, start);
                continue;
            }
            let Some(row) = bytes.get_mut(start..start + row_bytes) else {
                return;
            };
            for pixel in row.chunks_exact_mut(N) {
                pixel.copy_from_slice(&outside);
            }
            let Some(source) = source else { continue };
            let width = mask.mask.width_px as usize;
            let ids = mask
                .ids
                .get(source as usize * width..(source as usize + 1) * width)
                .unwrap_or_default();
            let pixels = row.chunks_exact_mut(N).skip(region.x_px as usize);
            for (pixel, &column) in pixels.zip(&self.columns) {
                let value = ids
                    .get(column as usize)
                    .map_or(outside, |&id| value_of_id[usize::from(id)]);
                pixel.copy_from_slice(&value);
            }
            before = Some((source, start));
        }
    }
}

/// The mask pixel that the centre of frame pixel `at` of `length` lies in.
fn nearest(at: u32, length: u32, cells: u32) -> u32 {
    ((2 * u64::from(at) + 1) * u64::from(cells) / (2 * u64::from(length.max(1)))) as u32
}

/// Writes `layer`, whose components are red, green and blue, as RGBA with straight alpha to rows of `width_px` pixels
/// and `stride_bytes`; where nothing is painted all four bytes are 0.
pub fn write_key(bytes: &mut [u8], stride_bytes: usize, width_px: u32, layer: &Layer) {
    const STEP: usize = 4;
    for (row, line) in bytes.chunks_mut(stride_bytes.max(1)).enumerate() {
        let width_bytes = (width_px as usize * STEP).min(line.len());
        let Some(line) = line.get_mut(..width_bytes) else {
            return;
        };
        line.fill(0);
        for run in layer.row(row) {
            let range = run.start_px as usize * STEP..run.end_px as usize * STEP;
            let Some(target) = line.get_mut(range) else { break };
            let pixels = target.chunks_exact_mut(STEP);
            match run.paint {
                Paint::Solid(ink) => {
                    let Some(ink) = layer.inks().get(usize::from(ink)) else {
                        continue;
                    };
                    let [red, green, blue] = ink.color.map(byte);
                    let pixel = [red, green, blue, byte(ink.alpha * 255.0)];
                    pixels.for_each(|target| target.copy_from_slice(&pixel));
                }
                Paint::Edges(first) => {
                    for (target, &edge) in pixels.zip(layer.edges_from(first)) {
                        target.copy_from_slice(&straight(edge));
                    }
                }
            }
        }
    }
}

fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 255.0) + 0.5) as u8
}

/// A pixel's colour without its coverage, and the coverage as alpha.
fn straight(edge: Edge) -> [u8; 4] {
    let alpha = edge.coverage();
    if alpha == 0.0 {
        return [0; 4];
    }
    let [red, green, blue] = edge.premultiplied().map(|color| byte(color / alpha));
    [red, green, blue, byte(alpha * 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Rect, Size};
    use crate::kernels::picture::blend_layer::Ink;

    #[test]
    fn ids_are_those_of_the_nearest_mask_pixel() {
        let frame = Size {
            width_px: 7,
            height_px: 5,
        };
        let region = Rect {
            x_px: 1,
            y_px: 1,
            width_px: 5,
            height_px: 3,
        };
        let ids = [1, 2, 3, 4];
        let mask = MaskPlane {
            ids: &ids,
            mask: Size::square(2),
            region,
            frame,
        };
        let table = std::array::from_fn(|id| [id as u8 * 10]);
        let mut bytes = [7; 8 * 5];
        Enlarger::default().write(&mut bytes, 8, &mask, &table, [255]);
        // Centres of columns 0, 1 lie in the left half, 2 on its border and so in the right one.
        let upper = [255, 10, 10, 20, 20, 20, 255, 7];
        let lower = [255, 30, 30, 40, 40, 40, 255, 7];
        let none = [255, 255, 255, 255, 255, 255, 255, 7];
        assert_eq!(bytes, [none, upper, lower, lower, none].concat().as_slice());
        let outside = Rect {
            width_px: 7,
            ..region
        };
        Enlarger::default().write(
            &mut bytes,
            8,
            &MaskPlane {
                region: outside,
                ..mask
            },
            &table,
            [0],
        );
        assert!(bytes.iter().all(|&byte| byte == 0 || byte == 7));
    }

    #[test]
    fn keys_have_straight_alpha() {
        let mut layer = Layer::default();
        layer.start(
            4,
            [Ink {
                alpha: 0.5,
                color: [200.0, 100.0, 0.0],
            }],
        );
        layer.solid(0, 2, 0);
        layer.edge(2, Edge::new(0.25, [50.0, 25.0, 0.0]));
        layer.end_row();
        let mut bytes = [9; 40];
        write_key(&mut bytes, 20, 4, &layer);
        assert_eq!(bytes[..8], [200, 100, 0, 128, 200, 100, 0, 128]);
        assert_eq!(bytes[8..16], [200, 100, 0, 64, 0, 0, 0, 0]);
        // Padding keeps its bytes, rows without a layer are empty.
        assert_eq!(bytes[16..20], [9; 4]);
        assert_eq!(bytes[20..36], [0; 16]);
    }
}
