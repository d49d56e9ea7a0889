//! Pictures of an evaluation: overlays as the elements draw them, maps of errors, and a contact sheet.

use super::evaluation::Seen;
use crate::data::Sequence;
use crate::data::picture::size_of;
use crate::geometry::Size;
use crate::kernels::picture::blend::Pass;
use crate::kernels::picture::blend_color::{ColorSpace, Range};
use crate::kernels::picture::blend_layer::ChromaRows;
use crate::kernels::picture::blend_sheet::{FrameLayout, Sheet};
use crate::kernels::picture::contour::{ClassInk, Drawing, Limits, MaskPlane, NOT_DRAWN, Tracer};
use crate::labels::{ClassSet, NO_MASK, Rgb};
use crate::metrics::IGNORED;
use anyhow::{Context, Result};
use image::{GrayImage, ImageFormat, RgbImage, imageops};
use std::io::Cursor;

/// Width of pictures in reports.
const WIDTH_PX: u32 = 480;

/// Frames shown of each kind, where there are as many.
const OF_EACH: usize = 3;

/// Between the pictures of a contact sheet.
const GAP_PX: u32 = 4;

/// A frame that may be shown: its score, and its mask, packed.
struct Candidate {
    /// Of the sequence in the plan, and of the frame in it.
    place: usize,
    index: usize,
    iou: f64,
    /// The mask at the model's side as PNG: a few kilobytes, so that all can be kept until the median is known.
    mask: Vec<u8>,
}

/// Remembers every scored frame until the best, median and worst are known.
#[derive(Default)]
pub(super) struct Album {
    candidates: Vec<Candidate>,
}

/// A frame chosen for showing.
pub(super) struct Shown {
    /// `best`, `median` or `worst`.
    pub kind: &'static str,
    pub sequence: String,
    pub frame: String,
    /// Mean IoU over the classes in its ground truth.
    pub iou: f64,
    /// Input, ground truth over it, prediction over it, all of one size.
    pub pictures: [RgbImage; 3],
}

impl Album {
    /// Keeps a frame where it has a score.
    ///
    /// # Errors
    /// A mask that is no square of `side_px`.
    pub fn keep(&mut self, seen: &Seen<'_>, side_px: u32) -> Result<()> {
        let Some(iou) = seen.counts.and_then(|counts| counts.mean_iou()) else {
            return Ok(());
        };
        let plane = GrayImage::from_raw(side_px, side_px, seen.plane.to_vec()).context("a square mask")?;
        let mut mask = Cursor::new(Vec::new());
        plane.write_to(&mut mask, ImageFormat::Png)?;
        self.candidates.push(Candidate {
            place: seen.place,
            index: seen.index,
            iou,
            mask: mask.into_inner(),
        });
        Ok(())
    }

    /// The best, median and worst frames with their pictures, decoded again from `sequences`.
    ///
    /// # Errors
    /// A file that can no longer be read.
    pub fn choose(mut self, sequences: &[&Sequence], classes: &ClassSet) -> Result<Vec<Shown>> {
        self.candidates.sort_by(|a, b| {
            b.iou
                .total_cmp(&a.iou)
                .then((a.place, a.index).cmp(&(b.place, b.index)))
        });
        let mut tracer = Tracer::default();
        let mut shown = Vec::new();
        for (kind, range) in ranges(self.candidates.len()) {
            for candidate in self.candidates.get(range).unwrap_or_default() {
                let sequence = sequences.get(candidate.place).context("a sequence of the plan")?;
                let image = sequence.image(candidate.index)?;
                let truth = sequence
                    .labels(candidate.index)?
                    .context("labels that were there before")?;
                let mask =
                    image::load_from_memory_with_format(&candidate.mask, ImageFormat::Png)?.into_luma8();
                let small = thumbnail(&image);
                let mut over = |ids: &GrayImage| {
                    let mut picture = small.clone();
                    overlay(&mut tracer, &mut picture, ids, classes);
                    picture
                };
                let pictures = [small.clone(), over(&truth), over(&mask)];
                shown.push(Shown {
                    kind,
                    sequence: sequence.name.clone(),
                    frame: sequence.frame(candidate.index)?.name.clone(),
                    iou: candidate.iou,
                    pictures,
                });
            }
        }
        Ok(shown)
    }
}

/// Places of the best, median and worst among `count` frames from best to worst; no place twice.
fn ranges(count: usize) -> [(&'static str, std::ops::Range<usize>); 3] {
    let each = OF_EACH.min(count.div_ceil(3));
    let worst = count.saturating_sub(each).max(each.min(count));
    let middle = (count / 2).saturating_sub(each / 2).clamp(each.min(worst), worst);
    [
        ("best", 0..each),
        ("median", middle..(middle + each).min(worst)),
        ("worst", worst..count),
    ]
}

fn thumbnail(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let height = (u64::from(height) * u64::from(WIDTH_PX) / u64::from(width.max(1))).clamp(1, 4096);
    imageops::thumbnail(image, WIDTH_PX, height as u32)
}

/// Draws `ids`, which cover the whole picture, over it as `masamoverlay style=both` does, in the classes' own colours.
fn overlay(tracer: &mut Tracer, picture: &mut RgbImage, ids: &GrayImage, classes: &ClassSet) {
    let frame = size_of(picture);
    let mut ink_of_id = [NOT_DRAWN; 256];
    let mut inks = Vec::new();
    for (id, class) in classes.iter().enumerate().skip(1) {
        if let (Some(slot), Ok(ink)) = (ink_of_id.get_mut(id), u8::try_from(inks.len())) {
            *slot = ink;
            inks.push(ClassInk {
                color: class.color.map(f32::from),
                fill: 0.45,
                stroke: 0.9,
            });
        }
    }
    let mask = MaskPlane {
        ids: ids.as_raw(),
        mask: size_of(ids),
        region: frame.rect(),
        frame,
    };
    let drawing = Drawing {
        ink_of_id: &ink_of_id,
        inks: &inks,
        half_stroke_px: 1.0,
    };
    let layout = FrameLayout {
        size: frame,
        passes: Pass::RGB,
        chroma_rows: ChromaRows::Each,
        space: ColorSpace::rgb(Range::Full),
    };
    let mut sheet = Sheet::default();
    tracer.trace(&mask, &drawing, Limits::default(), &mut sheet.layer);
    sheet.finish(&layout);
    sheet.draw(&layout, 0, picture, frame.width_px as usize * 3);
}

/// A thing missed: true class, called background or nothing.
const MISSED: Rgb = [40, 110, 255];
/// Background called something.
const INVENTED: Rgb = [255, 60, 40];
/// One thing called another.
const CONFUSED: Rgb = [255, 220, 0];
/// A thing called what it is.
const RIGHT: Rgb = [60, 200, 90];

/// The picture in dim grey, with things that were missed, invented, confused and right in colour; pixels that are not
/// scored are black.
pub(super) fn error_map(image: &RgbImage, truth: &GrayImage, predicted: &[u8]) -> RgbImage {
    let mut map = image.clone();
    for ((pixel, truth), &predicted) in map.pixels_mut().zip(truth.pixels()).zip(predicted) {
        let [red, green, blue] = pixel.0.map(u16::from);
        let gray = ((red * 3 + green * 6 + blue) / 20) as u8;
        let nothing = |id: u8| id == 0 || id == NO_MASK;
        let color = match (truth.0[0], predicted) {
            (IGNORED, _) => Some([0; 3]),
            (truth, predicted) if nothing(truth) && nothing(predicted) => None,
            (truth, predicted) if truth == predicted => Some(RIGHT),
            (_, predicted) if nothing(predicted) => Some(MISSED),
            (0, _) => Some(INVENTED),
            _ => Some(CONFUSED),
        };
        let mixed = |color: u8| (u16::from(color) * 6 / 10 + u16::from(gray) * 8 / 10).min(255) as u8;
        pixel.0 = match color {
            Some([0, 0, 0]) => [0; 3],
            Some(color) => color.map(mixed),
            None => [gray; 3],
        };
    }
    map
}

/// Ids in their classes' colours, as the challenge wants submissions.
///
/// # Errors
/// Fewer or more ids than `size` has pixels.
pub(super) fn colors(ids: &[u8], size: Size, classes: &ClassSet) -> Result<RgbImage> {
    let color = |&id: &u8| classes.get(id).map_or([0; 3], |class| class.color);
    let bytes = ids.iter().flat_map(color).collect();
    RgbImage::from_raw(size.width_px, size.height_px, bytes).context("an id for each pixel")
}

/// One row for each frame: input, ground truth, prediction.
pub(super) fn contact_sheet(shown: &[Shown]) -> RgbImage {
    let row_px = |shown: &Shown| shown.pictures.iter().map(RgbImage::height).max().unwrap_or(0) + GAP_PX;
    let height = shown.iter().map(row_px).sum::<u32>().max(1);
    let mut sheet = RgbImage::new(3 * (WIDTH_PX + GAP_PX), height);
    let mut y = 0;
    for row in shown {
        for (picture, x) in row
            .pictures
            .iter()
            .zip((0..).step_by((WIDTH_PX + GAP_PX) as usize))
        {
            imageops::replace(&mut sheet, picture, x, i64::from(y));
        }
        y += row_px(row);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_median_and_worst_are_different_frames() {
        assert!(ranges(0).iter().all(|(_, range)| range.is_empty()));
        for count in 1..60 {
            let mut places: Vec<usize> = ranges(count).into_iter().flat_map(|(_, range)| range).collect();
            let all = places.len();
            places.dedup();
            assert!(places.is_sorted() && places.len() == all, "{count}: {places:?}");
            assert_eq!((places[0], all), (0, (3 * OF_EACH).min(count)), "{count}");
            assert!(
                places.contains(&(count - 1)) && places.iter().all(|&p| p < count),
                "{count}: {places:?}"
            );
        }
        assert_eq!(ranges(101)[1].1, 49..52);
    }

    #[test]
    fn errors_have_their_own_colours() {
        let black = RgbImage::new(6, 1);
        let truth = GrayImage::from_raw(6, 1, vec![0, 1, 1, 1, 0, 255]).unwrap();
        let map = error_map(&black, &truth, &[0, 1, 255, 2, 2, 1]);
        let at = |x| map.get_pixel(x, 0).0;
        let dim = |color: Rgb| color.map(|c| (u16::from(c) * 6 / 10) as u8);
        assert_eq!([at(0), at(1), at(2)], [[0; 3], dim(RIGHT), dim(MISSED)]);
        assert_eq!([at(3), at(4), at(5)], [dim(CONFUSED), dim(INVENTED), [0; 3]]);
    }

    #[test]
    fn the_overlay_colours_what_the_mask_covers() {
        let mut picture = RgbImage::from_pixel(40, 20, image::Rgb([100; 3]));
        let mask = GrayImage::from_fn(8, 4, |x, _| image::Luma([if x < 4 { 0 } else { 1 }]));
        overlay(
            &mut Tracer::default(),
            &mut picture,
            &mask,
            &ClassSet::endovis_2018(),
        );
        assert_eq!(picture.get_pixel(5, 10).0, [100; 3]);
        let [red, green, blue] = picture.get_pixel(35, 10).0;
        assert!(green > 150 && red < 70 && blue < 70, "{red} {green} {blue}");
    }
}
