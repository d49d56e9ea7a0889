//! The lit part of a frame: endoscope towers put their picture, often a round one, on black.
//!
//! A pixel is lit when its largest channel exceeds `LIT`; a column or row belongs to the picture when it has at
//! least a tenth as many lit pixels as the fullest one. Of columns, then of rows within them, the longest run
//! counts, so that a patient's name beside the picture does not. The edges are moved out to even pixels, where
//! chroma samples lie.
//!
//! Single frames mislead (a dark corner, a fade-in), so [`RegionFinder`] joins what the first frames show. While they
//! show nothing it takes little time: a dark frame costs a glance at a few of its rows, and of others in a live video ever
//! fewer are searched, but always the first one 200 ms after the last that was.

use super::convert::{Picture, RgbRow};
use crate::geometry::{Rect, Size};

/// Brightest byte that still counts as black: compressed borders are not quite 0.
const LIT: u8 = 24;

/// Part of the fullest line's lit pixels that a line of the picture has at least.
const LINE_SHARE: usize = 10;

/// Lines of which a picture's run may be broken, as a part of all lines: a black stripe through the picture.
const GAP_SHARE: usize = 50;

/// Rows looked at; edges are then found exactly between the last dark and the first lit one.
const ROWS_SAMPLED: u32 = 270;

/// The picture covers at least this part of the frame, or the frame is too dark to tell.
const AREA_SHARE: usize = 16;

/// Frames with content after which the region stays.
const FRAMES_JOINED: u32 = 8;

/// A frame of which less than this part is lit is too dark to tell, as [`ROWS_GLANCED`] show.
const LIT_SHARE: usize = 256;

/// Rows of a first glance: a dark frame costs no more, however many there are.
const ROWS_GLANCED: u32 = 34;

/// How long nothing is searched after a frame that showed nothing: this after the first, twice as long after each
/// further one, up to a time that nobody notices.
const FIRST_REST_NANOS: u64 = 25_000_000;
const LONGEST_REST_NANOS: u64 = 200_000_000;

/// Finds the region of interest from the first frames of a stream.
#[derive(Debug, Clone, Default)]
pub struct RegionFinder {
    found: Option<Rect>,
    frames: u32,
    /// When a frame showed nothing, and how long nothing is searched after it.
    rest: Option<(u64, u64)>,
    row: RgbRow,
}

impl RegionFinder {
    /// Whether the region stays as it is from now on.
    pub fn is_settled(&self) -> bool {
        self.frames >= FRAMES_JOINED
    }

    /// Looks at `area` of a picture. The region so far, relative to `area`; `None` before any was found.
    ///
    /// * `live_nanos`: running time, where searching every frame would cost a live video too much
    pub fn observe(&mut self, picture: &Picture<'_>, area: Rect, live_nanos: Option<u64>) -> Option<Rect> {
        if self.is_settled() || live_nanos.is_some_and(|now| self.is_at_rest(now)) {
            return self.found;
        }
        if is_dark(picture, area, &mut self.row) {
            return self.found;
        }
        match content(picture, area, &mut self.row) {
            Some(content) => {
                self.frames += 1;
                self.rest = None;
                self.found = Some(self.found.map_or(content, |found| joined(found, content)));
            }
            // A search takes as long as all else that a frame needs, and what one does not show, the next hardly does.
            None => {
                let longer = |(_, rest): (u64, u64)| (2 * rest).min(LONGEST_REST_NANOS);
                let rest = self.rest.map_or(FIRST_REST_NANOS, longer);
                self.rest = live_nanos.map(|now| (now, rest));
            }
        }
        self.found
    }

    /// Whether `now` lies in the rest after a frame that showed nothing. Before that frame it is another video's time.
    fn is_at_rest(&self, now: u64) -> bool {
        self.rest
            .is_some_and(|(since, rest)| (since..since.saturating_add(rest)).contains(&now))
    }
}

/// The smallest rectangle around both.
fn joined(a: Rect, b: Rect) -> Rect {
    let (x_px, y_px) = (a.x_px.min(b.x_px), a.y_px.min(b.y_px));
    let width_px = a.right_px().max(b.right_px()) - x_px;
    let height_px = a.bottom_px().max(b.bottom_px()) - y_px;
    Rect {
        x_px,
        y_px,
        width_px,
        height_px,
    }
}

/// Whether hardly anything of `area` is lit, at a glance.
fn is_dark(picture: &Picture<'_>, area: Rect, row: &mut RgbRow) -> bool {
    let step = area.height_px.div_ceil(ROWS_GLANCED).max(1);
    let (mut seen, mut bright) = (0, 0);
    for y in (0..area.height_px).step_by(step as usize) {
        read(picture, area, y, 0, area.width_px, row);
        seen += area.width_px as usize;
        bright += lit(row).filter(|&lit| lit).count();
    }
    bright * LIT_SHARE < seen
}

/// The lit part of `area`, relative to it; `None` of a frame that is too dark to tell.
fn content(picture: &Picture<'_>, area: Rect, row: &mut RgbRow) -> Option<Rect> {
    let Size { width_px, height_px } = area.size();
    let step = height_px.div_ceil(ROWS_SAMPLED).max(1);
    let rows: Vec<u32> = (0..height_px).step_by(step as usize).collect();

    let mut in_columns = vec![0_usize; width_px as usize];
    for &y in &rows {
        read(picture, area, y, 0, width_px, row);
        for (count, lit) in in_columns.iter_mut().zip(lit(row)) {
            *count += usize::from(lit);
        }
    }
    let (left, right) = longest_run(&in_columns)?;
    let width = (right - left) as u32;

    let mut count_in_row = |y: u32| {
        read(picture, area, y, left as u32, width, row);
        lit(row).filter(|&lit| lit).count()
    };
    let in_rows: Vec<usize> = rows.iter().map(|&y| count_in_row(y)).collect();
    let (first, end) = longest_run(&in_rows)?;
    let least = least_share(&in_rows);
    // Between two sampled rows lies the exact edge.
    let before = if first == 0 { 0 } else { rows[first - 1] + 1 };
    let top = (before..rows[first])
        .find(|&y| count_in_row(y) >= least)
        .unwrap_or(rows[first]);
    let after = rows.get(end).copied().unwrap_or(height_px);
    let bottom = (rows[end - 1] + 1..after)
        .rev()
        .find(|&y| count_in_row(y) >= least)
        .unwrap_or(rows[end - 1])
        + 1;

    let even = |low: u32, high: u32, limit: u32| (low / 2 * 2, high.next_multiple_of(2).min(limit));
    let (left, right) = even(left as u32, right as u32, width_px);
    let (top, bottom) = even(top, bottom, height_px);
    let rect = Rect {
        x_px: left,
        y_px: top,
        width_px: right - left,
        height_px: bottom - top,
    };
    (rect.size().area() * AREA_SHARE >= area.size().area()).then_some(rect)
}

fn read(picture: &Picture<'_>, area: Rect, y: u32, x: u32, width: u32, row: &mut RgbRow) {
    picture.read_row(area.y_px + y, area.x_px + x, width, row);
}

fn lit(row: &RgbRow) -> impl Iterator<Item = bool> {
    let channels = row.red.iter().zip(&row.green).zip(&row.blue);
    channels.map(|((&red, &green), &blue)| red.max(green).max(blue) > LIT)
}

fn least_share(counts: &[usize]) -> usize {
    counts
        .iter()
        .max()
        .map_or(1, |most| most.div_ceil(LINE_SHARE))
        .max(1)
}

/// Start and end of the longest run of lines with enough lit pixels, bridging small gaps; `None` when all is dark.
fn longest_run(counts: &[usize]) -> Option<(usize, usize)> {
    let least = least_share(counts);
    let gap = counts.len() / GAP_SHARE;
    let mut best: Option<(usize, usize)> = None;
    let mut run: Option<(usize, usize)> = None;
    for (line, _) in counts.iter().enumerate().filter(|&(_, &count)| count >= least) {
        run = match run {
            Some((start, end)) if line - end <= gap => Some((start, line + 1)),
            _ => Some((line, line + 1)),
        };
        let longer = |(start, end): (usize, usize)| best.is_none_or(|(s, e)| end - start > e - s);
        if let Some(run) = run.filter(|&run| longer(run)) {
            best = Some(run);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::convert::{ColorSpace, PixelFormat, PlaneRef};
    use super::*;

    struct Gray {
        size: Size,
        bytes: Vec<u8>,
    }

    impl Gray {
        fn black(width_px: u32, height_px: u32) -> Self {
            let size = Size { width_px, height_px };
            // Not quite black, as after compression.
            Self {
                size,
                bytes: (0..size.area()).map(|i| (i * 7 % 11) as u8).collect(),
            }
        }

        fn fill(&mut self, inside: impl Fn(f64, f64) -> bool) -> &mut Self {
            for y in 0..self.size.height_px {
                for x in 0..self.size.width_px {
                    if inside(f64::from(x) + 0.5, f64::from(y) + 0.5) {
                        self.bytes[(y * self.size.width_px + x) as usize] = 120 + (x % 50) as u8;
                    }
                }
            }
            self
        }

        fn with<R>(&self, look: impl FnOnce(&Picture<'_>) -> R) -> R {
            let plane = PlaneRef {
                data: &self.bytes,
                stride_bytes: self.size.width_px as usize,
            };
            look(&Picture::new(PixelFormat::Gray8, self.size, &[plane], ColorSpace::RGB).unwrap())
        }

        fn content(&self) -> Option<Rect> {
            self.with(|picture| content(picture, self.size.rect(), &mut RgbRow::default()))
        }
    }

    fn rect(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Rect {
        Rect {
            x_px,
            y_px,
            width_px,
            height_px,
        }
    }

    #[test]
    fn pillars_are_left_out_and_text_in_them_too() {
        let mut frame = Gray::black(1920, 1080);
        frame.fill(|x, y| (320.0..1600.0).contains(&x) && (28.0..1052.0).contains(&y));
        assert_eq!(frame.content(), Some(rect(320, 28, 1280, 1024)));
        frame.fill(|x, y| (40.0..200.0).contains(&x) && (100.0..150.0).contains(&y));
        assert_eq!(frame.content(), Some(rect(320, 28, 1280, 1024)));
    }

    #[test]
    fn a_round_picture_is_boxed() {
        let mut frame = Gray::black(1280, 720);
        frame.fill(|x, y| (x - 640.0).hypot(y - 360.0) < 300.0);
        let found = frame.content().unwrap();
        for (edge, want) in [
            (found.x_px, 340),
            (found.y_px, 60),
            (found.right_px(), 940),
            (found.bottom_px(), 660),
        ] {
            assert!(edge.abs_diff(want) <= 4, "{found:?}");
        }
    }

    #[test]
    fn whole_frames_dark_frames_and_tiny_frames() {
        assert_eq!(
            Gray::black(640, 480).fill(|_, _| true).content(),
            Some(rect(0, 0, 640, 480))
        );
        assert_eq!(
            Gray::black(641, 481).fill(|_, _| true).content(),
            Some(rect(0, 0, 641, 481))
        );
        assert_eq!(Gray::black(640, 480).content(), None);
        assert_eq!(
            Gray::black(640, 480).fill(|x, y| x < 60.0 && y < 60.0).content(),
            None,
            "too small"
        );
        assert_eq!(Gray::black(1, 1).content(), None);
        assert_eq!(
            Gray::black(1, 1).fill(|_, _| true).content(),
            Some(rect(0, 0, 1, 1))
        );
        for side in 1..9 {
            let found = Gray::black(side, 9 - side).fill(|_, _| true).content();
            assert_eq!(found, Some(rect(0, 0, side, 9 - side)));
        }
    }

    #[test]
    fn the_first_frames_are_joined_and_then_it_stays() {
        let mut finder = RegionFinder::default();
        let observe = |finder: &mut RegionFinder, frame: &Gray| {
            frame.with(|p| finder.observe(p, frame.size.rect(), None))
        };
        let dark = Gray::black(200, 100);
        assert_eq!(observe(&mut finder, &dark), None);
        let mut dim = Gray::black(200, 100);
        dim.fill(|x, _| (60.0..120.0).contains(&x));
        assert_eq!(observe(&mut finder, &dim), Some(rect(60, 0, 60, 100)));
        let mut bright = Gray::black(200, 100);
        bright.fill(|x, _| (40.0..110.0).contains(&x));
        assert_eq!(observe(&mut finder, &bright), Some(rect(40, 0, 80, 100)));
        for _ in 0..6 {
            assert!(!finder.is_settled());
            observe(&mut finder, &dim);
        }
        assert!(finder.is_settled());
        let mut full = Gray::black(200, 100);
        full.fill(|_, _| true);
        assert_eq!(observe(&mut finder, &full), Some(rect(40, 0, 80, 100)));
    }

    #[test]
    fn a_glance_tells_dark_frames_from_others() {
        let is_dark = |frame: &Gray| frame.with(|p| is_dark(p, frame.size.rect(), &mut RgbRow::default()));
        // The brightest black, and one above it.
        let gray = |byte: u8| Gray {
            size: Size::square(40),
            bytes: vec![byte; 1600],
        };
        assert!(is_dark(&gray(LIT)) && gray(LIT).content().is_none());
        assert!(!is_dark(&gray(LIT + 1)) && gray(LIT + 1).content().is_some());
        // One pixel of 256 in each row, and of 257.
        for (width_px, want) in [(256, false), (257, true)] {
            assert_eq!(is_dark(Gray::black(width_px, 90).fill(|x, _| x < 1.0)), want);
        }
        // A band of 32 rows, wherever it lies.
        for top in 0..=1080 - 32 {
            let top = f64::from(top);
            let mut frame = Gray::black(16, 1080);
            assert!(is_dark(&frame));
            assert!(
                !is_dark(frame.fill(|_, y| (top..top + 32.0).contains(&y))),
                "{top}"
            );
        }
    }

    /// Shows frame `number` of a video of 30 frames a second.
    fn shown(finder: &mut RegionFinder, number: u64, frame: &Gray) -> Option<Rect> {
        frame.with(|p| finder.observe(p, frame.size.rect(), Some(number * 1_000_000_000 / 30)))
    }

    #[test]
    fn live_frames_that_show_nothing_are_searched_ever_less_but_within_200_ms() {
        let mut picture = Gray::black(640, 480);
        picture.fill(|x, _| x < 500.0);
        let found = Some(rect(0, 0, 500, 480));
        // After dark frames the first other one is searched.
        let mut finder = RegionFinder::default();
        for frame in 0..100 {
            assert_eq!(shown(&mut finder, frame, &Gray::black(640, 480)), None);
        }
        assert_eq!(shown(&mut finder, 100, &picture), found);

        let mut spot = Gray::black(640, 480);
        spot.fill(|x, y| x < 60.0 && y < 60.0);
        let mut finder = RegionFinder::default();
        let mut searched = Vec::new();
        for frame in 0..40 {
            if !finder.is_at_rest(frame * 1_000_000_000 / 30) {
                searched.push(frame);
            }
            assert_eq!(shown(&mut finder, frame, &spot), None);
        }
        assert_eq!(searched, [0, 1, 3, 6, 12, 18, 24, 30, 36]);
        let mut later = finder.clone();
        let waited = (40..100).find(|&frame| shown(&mut later, frame, &picture).is_some());
        assert_eq!(waited, Some(42));
        // Once there is something every frame counts again, and a rest is as short as the first.
        assert_eq!(shown(&mut later, 43, &spot), found);
        for frame in 44..43 + u64::from(FRAMES_JOINED) {
            assert!(!later.is_settled());
            shown(&mut later, frame, &picture);
        }
        assert!(later.is_settled());
        // No rest is longer than it says, nor shorter.
        let nanos = 36 * 1_000_000_000 / 30 + 200_000_000;
        assert_eq!(
            [nanos - 1, nanos].map(|now| finder.is_at_rest(now)),
            [true, false]
        );
        // Frames that are looked at seldom, and a time that begins anew, wait for nothing.
        assert_eq!(shown(&mut finder.clone(), 46, &picture), found);
        assert_eq!(shown(&mut finder.clone(), 0, &picture), found);
        // Nor does what is no live video.
        for _ in 0..100 {
            assert_eq!(spot.with(|p| finder.observe(p, spot.size.rect(), None)), None);
        }
        assert_eq!(
            picture.with(|p| finder.observe(p, picture.size.rect(), None)),
            found
        );
    }
}
