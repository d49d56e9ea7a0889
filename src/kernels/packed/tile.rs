//! The loops of a product: blocks of inputs, panels of outputs, strips of rows, and a tile of sums in registers.

use super::lanes::Lanes;
use super::number::Number;
use super::{Part, Rows, Start, VECTORS};

/// Numbers of a panel that one block of inputs takes: they stay in the first-level cache while all rows pass by.
const BLOCK_BYTES: usize = 36 << 10;

/// A product whose sizes have been checked: see [`product`](super::product).
pub struct Job<'a, 'b, N> {
    pub(super) output: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) start: Start<'a>,
    pub(super) left: Rows<'a, N>,
    pub(super) right: &'a Part<'b, N>,
}

/// Where a tile reads and writes.
struct Place<N> {
    left: *const N,
    left_stride: usize,
    panel: *const N,
    steps: usize,
    output: *mut f32,
    stride: usize,
    /// Outputs that exist: those of whole vectors, and some of the last.
    columns: usize,
    /// Whether the output's values are part of the sum.
    from_output: bool,
    /// A row that is, or null.
    from_row: *const f32,
    ahead: Ahead,
}

/// What a tile asks the cache for, a line at each step: its share of the panel that comes next. Weights are too many for
/// the caches, and the first strip of a panel would wait for each line of it.
#[derive(Clone, Copy)]
struct Ahead {
    first: *const u8,
    lines: usize,
}

/// Bytes that a cache fetches at once.
const LINE: usize = 64;

impl Ahead {
    /// The share of strip `index` of `count` in `numbers`.
    fn share<N>(numbers: &[N], (index, count): (usize, usize)) -> Self {
        let lines = size_of_val(numbers).div_ceil(LINE);
        let (begin, end) = (lines * index / count, lines * (index + 1) / count);
        Self {
            first: numbers.as_ptr().cast::<u8>().wrapping_add(begin * LINE),
            lines: end - begin,
        }
    }

    /// Asks for line `index`, or again for the last one.
    #[inline(always)]
    fn ask(self, index: usize) {
        let at = self
            .first
            .wrapping_add(index.min(self.lines.saturating_sub(1)) * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 has the instruction, and it touches no memory.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

impl<N: Number> Job<'_, '_, N> {
    /// Runs it with tiles of `ROWS` rows.
    #[inline(always)]
    pub(super) fn run<L: Lanes<Number = N>, const ROWS: usize>(self, lanes: L) {
        let Part {
            panels,
            inputs,
            outputs,
        } = self.right;
        let width = L::COUNT * VECTORS;
        let strips = self.left.count.div_ceil(ROWS);
        let block = BLOCK_BYTES / (width * size_of::<N>()) / N::DEPTH * N::DEPTH;
        let blocks = inputs.len().div_ceil(block).max(1);
        // Blocks of equal length: a short last one would be mostly reading and writing sums.
        let block = inputs
            .len()
            .div_ceil(blocks)
            .next_multiple_of(N::DEPTH)
            .max(N::DEPTH);
        for first_input in inputs
            .clone()
            .step_by(block)
            .chain(inputs.is_empty().then_some(inputs.start))
        {
            let steps = block.min(inputs.end - first_input).div_ceil(N::DEPTH);
            // Blocks after the first add to what the first has left.
            let is_first = first_input == inputs.start;
            let from_output = !is_first || matches!(self.start, Start::Output | Start::OutputAndRow(_));
            let row_of_all = match self.start {
                Start::Row(row) | Start::OutputAndRow(row) if is_first => row.as_ptr(),
                _ => std::ptr::null(),
            };
            for first in outputs.clone().step_by(width) {
                let columns = width.min(outputs.end - first);
                let at = panels.place(first, first_input);
                let next = self
                    .right
                    .after(first..first + columns, first_input..first_input + block);
                for row in (0..self.left.count).step_by(ROWS) {
                    // SAFETY: `product` has checked that all rows of both operands and of the output lie inside their
                    // slices, and that the part lies inside its panels, which are padded to whole vectors and steps.
                    unsafe {
                        let place = Place {
                            left: self
                                .left
                                .data
                                .as_ptr()
                                .add(row * self.left.stride + (first_input - inputs.start)),
                            left_stride: self.left.stride,
                            panel: panels.data.as_ptr().add(at),
                            steps,
                            output: self
                                .output
                                .as_mut_ptr()
                                .add(row * self.stride + (first - outputs.start)),
                            stride: self.stride,
                            columns,
                            from_output,
                            from_row: match row_of_all.is_null() {
                                true => row_of_all,
                                false => row_of_all.add(first - outputs.start),
                            },
                            ahead: Ahead::share(next, (row / ROWS, strips)),
                        };
                        strip::<L, ROWS>(lanes, &place, (self.left.count - row).min(ROWS));
                    }
                }
            }
        }
    }
}

/// A tile of as many rows and vectors as there are.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn strip<L: Lanes, const ROWS: usize>(lanes: L, place: &Place<L::Number>, rows: usize) {
    macro_rules! with_rows {
        ($rows:literal) => {
            match place.columns.div_ceil(L::COUNT) {
                3 => tile::<L, $rows, 3>(lanes, place),
                2 => tile::<L, $rows, 2>(lanes, place),
                _ => tile::<L, $rows, 1>(lanes, place),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            8 if ROWS >= 8 => with_rows!(8),
            7 if ROWS >= 7 => with_rows!(7),
            6 if ROWS >= 6 => with_rows!(6),
            5 if ROWS >= 5 => with_rows!(5),
            4 => with_rows!(4),
            3 => with_rows!(3),
            2 => with_rows!(2),
            _ => with_rows!(1),
        }
    }
}

/// `R` rows by `V` vectors of sums.
///
/// # Safety
/// `R` rows of `steps` can be read from the left operand, `steps` steps of `V` vectors from the panel, and `columns`,
/// which fill `V` vectors or end in the last of them, can be read and written in each of `R` rows of the output and read
/// from the row that is added, if there is one.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(lanes: L, place: &Place<L::Number>) {
    let depth = L::Number::DEPTH;
    let mut sums = [[lanes.zero(); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        let rows: [*const L::Number; R] = std::array::from_fn(|r| place.left.add(r * place.left_stride));
        let mut panel = place.panel;
        for step in 0..place.steps {
            let factors: [L::Factors; V] =
                std::array::from_fn(|v| lanes.factors(panel.add(v * L::COUNT * depth)));
            panel = panel.add(V * L::COUNT * depth);
            place.ahead.ask(step);
            for r in 0..R {
                let value = lanes.splat(rows[r].add(step * depth));
                for v in 0..V {
                    sums[r][v] = lanes.multiply_add(value, factors[v], sums[r][v]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let row = place.output.add(r * place.stride);
            for (v, sums) in sums.iter().enumerate() {
                let (to, mut sums) = (row.add(v * L::COUNT), *sums);
                let count = place.columns - v * L::COUNT;
                if !place.from_row.is_null() {
                    sums = lanes.add(lanes.load(place.from_row.add(v * L::COUNT), count), sums);
                }
                if place.from_output {
                    sums = lanes.add(lanes.load(to, count), sums);
                }
                lanes.store(to, sums, count);
            }
        }
    }
}
