//! A layer: what is drawn over a frame, as runs of pixels, row by row.
//!
//! Most pixels of a mask lie well inside a class, so a row is a few *solid runs* of one ink and, where classes meet,
//! *edge pixels* with a coverage and colour of their own. Pixels in no run are not touched at all. Chroma planes get
//! a layer of their own, averaged from the full one by [`Layer::subsample`].

use super::blend::EDGE_ONE;

/// A grey level in an edge pixel's colour.
pub const EDGE_COLOR_ONE: f32 = 256.0;

/// What solid runs are drawn with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ink {
    /// Coverage, 0..=1.
    pub alpha: f32,
    /// Components in the frame's own colour space, 0..=255.
    pub color: [f32; 3],
}

/// One pixel with a coverage of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)] // four numbers in this order, which whole vectors are read as
pub struct Edge {
    /// Coverage, 0..=32768.
    pub alpha: u16,
    /// Coverage times colour, in 1/256 of a grey level.
    pub color: [u16; 3],
}

impl Edge {
    /// From a coverage in 0..=1 and the colour already multiplied by it.
    #[inline(always)]
    pub fn new(alpha: f32, premultiplied: [f32; 3]) -> Self {
        Self {
            // Adding a half and cutting rounds what is not negative, without a call.
            alpha: (alpha.clamp(0.0, 1.0) * EDGE_ONE + 0.5) as u16,
            color: premultiplied.map(|c| (c.clamp(0.0, 255.0) * EDGE_COLOR_ONE + 0.5) as u16),
        }
    }

    /// Coverage, 0..=1.
    pub fn coverage(self) -> f32 {
        f32::from(self.alpha) / EDGE_ONE
    }

    /// Coverage times colour, 0..=255.
    pub fn premultiplied(self) -> [f32; 3] {
        self.color.map(|color| f32::from(color) / EDGE_COLOR_ONE)
    }

    fn of(ink: Ink) -> Self {
        Self::new(ink.alpha, ink.color.map(|c| c * ink.alpha))
    }
}

/// How a run is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// With the ink of that index.
    Solid(u8),
    /// With edge pixels from that index on.
    Edges(u32),
}

/// Pixels `start_px..end_px` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First pixel.
    pub start_px: u32,
    /// First pixel after it.
    pub end_px: u32,
    /// What they get.
    pub paint: Paint,
}

/// Runs of all rows, in ascending order and without overlap.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    width_px: u32,
    inks: Vec<Ink>,
    /// Runs of each row.
    rows: Vec<(u32, u32)>,
    /// First run of the current row.
    current: usize,
    runs: Vec<Run>,
    edges: Vec<Edge>,
    /// The inks as pixels: scratch of [`Layer::subsample`].
    solids: Vec<Edge>,
}

impl Layer {
    /// Begins a layer of `width_px`, in the memory of the one before.
    pub fn start(&mut self, width_px: u32, inks: impl IntoIterator<Item = Ink>) {
        self.width_px = width_px;
        self.inks.clear();
        self.inks.extend(inks);
        self.rows.clear();
        self.current = 0;
        self.runs.clear();
        self.edges.clear();
    }

    /// Paints `start_px..end_px` of the current row, right of all before it.
    #[inline]
    pub fn solid(&mut self, start_px: u32, end_px: u32, ink: u8) {
        debug_assert!(end_px <= self.width_px && usize::from(ink) < self.inks.len());
        if start_px >= end_px {
            return;
        }
        if let Some(last) = self.last_of_row()
            && last.end_px == start_px
            && last.paint == Paint::Solid(ink)
        {
            last.end_px = end_px;
            return;
        }
        self.runs.push(Run {
            start_px,
            end_px,
            paint: Paint::Solid(ink),
        });
    }

    /// Paints pixel `x_px` of the current row, right of all before it.
    #[inline]
    pub fn edge(&mut self, x_px: u32, edge: Edge) {
        debug_assert!(x_px < self.width_px);
        if edge.alpha > 0 {
            self.edges(x_px, std::iter::once(edge));
        }
    }

    /// Paints the pixels from `x_px` of the current row on, right of all before them; each has to cover something.
    #[inline]
    pub fn edges(&mut self, x_px: u32, edges: impl Iterator<Item = Edge>) {
        let first = self.edges.len() as u32;
        self.edges.extend(edges);
        let count = self.edges.len() as u32 - first;
        debug_assert!(self.edges[first as usize..].iter().all(|edge| edge.alpha > 0));
        debug_assert!(x_px + count <= self.width_px);
        if count == 0 {
            return;
        }
        if let Some(last) = self.last_of_row()
            && last.end_px == x_px
            && matches!(last.paint, Paint::Edges(_))
        {
            last.end_px += count;
            return;
        }
        self.runs.push(Run {
            start_px: x_px,
            end_px: x_px + count,
            paint: Paint::Edges(first),
        });
    }

    /// Ends the current row.
    pub fn end_row(&mut self) {
        self.rows.push((self.current as u32, self.runs.len() as u32));
        self.current = self.runs.len();
    }

    /// Adds a row that equals the one before.
    pub fn repeat_row(&mut self) {
        let last = self.rows.last().copied().unwrap_or_default();
        self.rows.push(last);
    }

    /// The last run, if it is one of the current row.
    #[inline]
    fn last_of_row(&mut self) -> Option<&mut Run> {
        self.runs.get_mut(self.current..)?.last_mut()
    }

    /// Pixels in a row.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// Rows ended so far.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is painted.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The inks solid runs refer to.
    pub fn inks(&self) -> &[Ink] {
        &self.inks
    }

    /// Runs of a row; none for a row that is not there.
    #[inline]
    pub fn row(&self, row: usize) -> &[Run] {
        let range = self
            .rows
            .get(row)
            .map(|&(start, end)| start as usize..end as usize);
        range.and_then(|range| self.runs.get(range)).unwrap_or_default()
    }

    /// Edge pixels from index `first` on.
    #[inline]
    pub fn edges_from(&self, first: u32) -> &[Edge] {
        self.edges.get(first as usize..).unwrap_or_default()
    }

    /// Number of edge pixels and of runs, for statistics.
    pub fn counts(&self) -> (usize, usize) {
        (self.edges.len(), self.runs.len())
    }

    /// Makes `self` the layer of a chroma plane of `full`: each sample is the mean of the pixels it covers.
    ///
    /// A sample covers two pixels of a row. Over how many rows, `rows` says. At the right and lower edges of odd
    /// frames it covers those that are there.
    pub fn subsample(&mut self, full: &Layer, rows: ChromaRows) {
        self.start(full.width_px.div_ceil(2), full.inks.iter().copied());
        let count = match rows {
            ChromaRows::Each => full.rows(),
            ChromaRows::Pairs | ChromaRows::FieldPairs => full.rows().div_ceil(2),
        };
        let mut solids = std::mem::take(&mut self.solids);
        solids.clear();
        solids.extend(full.inks.iter().map(|&ink| Edge::of(ink)));
        let mut before = None;
        for row in 0..count {
            let (upper, lower) = rows.luma_rows(row, full.rows());
            let drawn = (full.rows.get(upper), lower.and_then(|lower| full.rows.get(lower)));
            if row > 0 && before == Some(drawn) {
                self.repeat_row();
                continue;
            }
            before = Some(drawn);
            let mut upper = Cursor::new(full, &solids, upper);
            // A row over itself is its own mean.
            let mut lower = lower.map(|lower| Cursor::new(full, &solids, lower));
            self.subsample_row(full.width_px, &mut upper, lower.as_mut());
            self.end_row();
        }
        self.solids = solids;
    }

    fn subsample_row(&mut self, width_px: u32, upper: &mut Cursor<'_>, mut lower: Option<&mut Cursor<'_>>) {
        let mut x_px = 0;
        while x_px < width_px {
            upper.seek(x_px);
            let (paint, mut end_px) = (upper.paint, upper.end_px);
            let mut uniform = !matches!(paint, Some(Paint::Edges(_)));
            if let Some(lower) = &mut lower {
                lower.seek(x_px);
                uniform &= paint == lower.paint;
                end_px = end_px.min(lower.end_px);
            }
            // Samples that lie in one run of the same ink in both rows are of that ink.
            let samples = if end_px == width_px {
                (end_px - x_px).div_ceil(2)
            } else {
                (end_px - x_px) / 2
            };
            if uniform && samples > 0 {
                if let Some(Paint::Solid(ink)) = paint {
                    self.solid(x_px / 2, x_px / 2 + samples, ink);
                }
                x_px += samples * 2;
                continue;
            }
            let mut sum = Sum::default();
            for x_px in x_px..(x_px + 2).min(width_px) {
                sum.add(upper.pixel(x_px));
                if let Some(lower) = &mut lower {
                    sum.add(lower.pixel(x_px));
                }
            }
            self.edge(x_px / 2, sum.mean());
            x_px += 2;
        }
    }
}

/// Which rows of the frame a row of chroma samples covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChromaRows {
    /// One: 4:2:2.
    Each,
    /// Two that follow each other: 4:2:0.
    Pairs,
    /// Two of the same field: 4:2:0 with interleaved fields.
    FieldPairs,
}

impl ChromaRows {
    fn luma_rows(self, row: usize, rows: usize) -> (usize, Option<usize>) {
        let (upper, lower) = match self {
            ChromaRows::Each => return (row, None),
            ChromaRows::Pairs => (row * 2, row * 2 + 1),
            ChromaRows::FieldPairs => (row / 2 * 4 + row % 2, row / 2 * 4 + row % 2 + 2),
        };
        (upper.min(rows.saturating_sub(1)), (lower < rows).then_some(lower))
    }
}

/// Reads a row from left to right.
struct Cursor<'a> {
    edges: &'a [Edge],
    solids: &'a [Edge],
    width_px: u32,
    runs: std::slice::Iter<'a, Run>,
    next: Option<&'a Run>,
    /// What is painted from `start_px` to `end_px`, around the pixel asked for last.
    paint: Option<Paint>,
    start_px: u32,
    end_px: u32,
}

impl<'a> Cursor<'a> {
    fn new(layer: &'a Layer, solids: &'a [Edge], row: usize) -> Self {
        let mut runs = layer.row(row).iter();
        let next = runs.next();
        Self {
            edges: &layer.edges,
            solids,
            width_px: layer.width_px,
            runs,
            next,
            paint: None,
            start_px: 0,
            end_px: 0,
        }
    }

    /// Goes to `x_px`, not left of any asked for before.
    #[inline(always)]
    fn seek(&mut self, x_px: u32) {
        while x_px >= self.end_px {
            match self.next {
                Some(run) if run.start_px <= self.end_px => {
                    (self.paint, self.start_px, self.end_px) = (Some(run.paint), run.start_px, run.end_px);
                    self.next = self.runs.next();
                }
                gap => {
                    self.paint = None;
                    self.start_px = self.end_px;
                    // Beyond the last run and the row there is nothing for ever.
                    let end_px = gap.map_or(self.width_px, |run| run.start_px);
                    self.end_px = if end_px > self.end_px { end_px } else { u32::MAX };
                }
            }
        }
    }

    #[inline(always)]
    fn pixel(&mut self, x_px: u32) -> Edge {
        self.seek(x_px);
        let pixel = match self.paint {
            None => None,
            Some(Paint::Solid(ink)) => self.solids.get(usize::from(ink)),
            Some(Paint::Edges(first)) => self.edges.get((first + x_px - self.start_px) as usize),
        };
        pixel.copied().unwrap_or_default()
    }
}

/// Sum of pixels.
#[derive(Default)]
struct Sum {
    alpha: u32,
    color: [u32; 3],
    count: u32,
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, pixel: Edge) {
        self.alpha += u32::from(pixel.alpha);
        for (sum, part) in self.color.iter_mut().zip(pixel.color) {
            *sum += u32::from(part);
        }
        self.count += 1;
    }

    /// Rounded to the nearest; a sample covers 1, 2 or 4 pixels.
    #[inline(always)]
    fn mean(self) -> Edge {
        let (half, shift) = (self.count / 2, self.count.trailing_zeros());
        let mean = |sum: u32| ((sum + half) >> shift) as u16;
        Edge {
            alpha: mean(self.alpha),
            color: self.color.map(mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INKS: [Ink; 2] = [
        Ink {
            alpha: 0.5,
            color: [200.0, 100.0, 50.0],
        },
        Ink {
            alpha: 1.0,
            color: [10.0, 20.0, 30.0],
        },
    ];

    /// A layer whose pixels are, row by row: `.` nothing, `0` and `1` an ink, `e` an edge.
    fn layer(rows: &[&str]) -> Layer {
        let mut layer = Layer::default();
        layer.start(rows[0].len() as u32, INKS);
        for row in rows {
            for (x_px, code) in (0_u32..).zip(row.bytes()) {
                match code {
                    b'0' | b'1' => layer.solid(x_px, x_px + 1, code - b'0'),
                    b'e' => layer.edge(x_px, Edge::new(0.25, [40.0, 40.0, 40.0])),
                    _ => {}
                }
            }
            layer.end_row();
        }
        layer
    }

    /// Coverage and first component of every pixel.
    fn pixels(layer: &Layer) -> Vec<Vec<(f32, f32)>> {
        let row = |row: usize| {
            let mut pixels = vec![(0.0, 0.0); layer.width_px() as usize];
            for run in layer.row(row) {
                for x_px in run.start_px..run.end_px {
                    let edge = match run.paint {
                        Paint::Solid(ink) => Edge::of(layer.inks()[usize::from(ink)]),
                        Paint::Edges(first) => layer.edges_from(first)[(x_px - run.start_px) as usize],
                    };
                    pixels[x_px as usize] = (edge.coverage(), edge.premultiplied()[0]);
                }
            }
            pixels
        };
        (0..layer.rows()).map(row).collect()
    }

    #[test]
    fn neighbours_of_one_ink_are_one_run() {
        let layer = layer(&["0011.e", "......", "ee.000"]);
        assert_eq!(layer.row(0).len(), 3);
        assert!(layer.row(1).is_empty() && layer.row(3).is_empty());
        assert_eq!(
            layer.row(2)[1],
            Run {
                start_px: 3,
                end_px: 6,
                paint: Paint::Solid(0)
            }
        );
        assert_eq!(layer.counts(), (3, 5));
    }

    /// Chroma samples are means of the pixels under them, at odd sizes of those that are there.
    #[test]
    fn samples_are_means() {
        let rows = ["001e.", "00e.1", "10.01", ".0e1e", "1.e00"];
        let full = layer(&rows);
        let exact = pixels(&full);
        for (kind, count, over) in [
            (ChromaRows::Each, 5, (|row| vec![row]) as fn(usize) -> Vec<usize>),
            (ChromaRows::Pairs, 3, |row: usize| vec![row * 2, row * 2 + 1]),
            (ChromaRows::FieldPairs, 3, |row: usize| {
                vec![row / 2 * 4 + row % 2, row / 2 * 4 + row % 2 + 2]
            }),
        ] {
            let mut half = Layer::default();
            half.subsample(&full, kind);
            assert_eq!((half.width_px(), half.rows()), (3, count));
            for (row, samples) in pixels(&half).into_iter().enumerate() {
                for (x, sample) in samples.into_iter().enumerate() {
                    let under: Vec<_> = over(row)
                        .into_iter()
                        .filter_map(|row| exact.get(row))
                        .flat_map(|pixels| pixels.iter().skip(x * 2).take(2))
                        .collect();
                    let mean =
                        |of: fn(&&(f32, f32)) -> f32| under.iter().map(of).sum::<f32>() / under.len() as f32;
                    let wanted = (mean(|pixel| pixel.0), mean(|pixel| pixel.1));
                    assert!(
                        (sample.0 - wanted.0).abs() < 1e-4 && (sample.1 - wanted.1).abs() < 0.01,
                        "{kind:?} row {row} sample {x}: {sample:?} is not {wanted:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn repeated_rows_are_repeated_at_chroma_resolution() {
        let mut full = layer(&["00e1"]);
        for _ in 0..5 {
            full.repeat_row();
        }
        let mut half = Layer::default();
        half.subsample(&full, ChromaRows::Pairs);
        assert_eq!(half.rows(), 3);
        assert!((0..3).all(|row| half.row(row) == half.row(0)) && half.row(0).len() == 2);
    }
}
