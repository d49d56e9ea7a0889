//! Rows of bytes down the columns, two at a time.
//!
//! The parts of a sample are whole numbers of 16 bits, and a weight is two of them: `w = (high + low / 2^14) / 2^14`. One
//! instruction multiplies the parts of two rows with their weights and adds both to a sum of 32 bits; the sums of high
//! and low halves are put together at the end, to what float32 can hold. Before, each part of each row had to become a
//! float32 by itself.
//!
//! ```text
//! byte b of a row         wide(b) = b' b' with b' = b ^ 128     (unpacked with itself)
//! rows p and q            [p0 q0 p1 q1 …] dot [wp wq wp wq …]   (unpacked with each other)
//! ```
//! Unpacking goes by quarters of a vector, so that neighbours lie in four vectors until they are put back in order.

use crate::kernels::picture::axis::Axis;
use crate::kernels::picture::convert::PlaneRef;
use crate::kernels::picture::convert_rows::Factors;
use crate::kernels::picture::planes::{Down, Plane};
use crate::kernels::picture::samples::{Bytes, samples};
use crate::kernels::simd::first_lanes;
use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_epi8, _mm512_mul_ps, _mm512_mulhi_epi16, _mm512_permutex2var_ps, _mm512_set1_epi8,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16,
    _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_xor_si512,
};

/// Rows that are summed at most: more, and sums of 32 bits might not hold them.
const MOST_ROWS: usize = 64;

/// Bytes that are read at once.
const BLOCK: usize = 64;

/// Bits of each half of a weight.
const HALF_BITS: i32 = 14;

fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Two rows and what they weigh, both halves: the first row's in the lower 16 bits.
#[derive(Clone, Copy)]
struct Pair {
    rows: [*const u8; 2],
    high: i32,
    low: i32,
}

/// The pairs of one output.
struct Pairs {
    pairs: [Pair; MOST_ROWS / 2],
    count: usize,
}

fn halves(weight: f32) -> [i32; 2] {
    let one = (1 << HALF_BITS) as f32;
    let high = (weight * one).round();
    [high as i32, ((weight * one - high) * one).round() as i32]
}

/// Both of two numbers of 16 bits in 32.
fn both(first: i32, second: i32) -> i32 {
    first & 0xffff | second << 16
}

impl Pairs {
    /// `row` gives the bytes of a row by its distance from the first; an odd one is paired with itself at no weight.
    fn new<'a>(weights: &[f32], row: impl Fn(usize) -> &'a [u8]) -> Self {
        let nothing = Pair {
            rows: [std::ptr::null(); 2],
            high: 0,
            low: 0,
        };
        let mut all = Self {
            pairs: [nothing; MOST_ROWS / 2],
            count: weights.len().div_ceil(2),
        };
        for (pair, (at, weights)) in all.pairs.iter_mut().zip(weights.chunks(2).enumerate()) {
            let second = weights.get(1).copied().unwrap_or(0.0);
            let [[high, low], [second_high, second_low]] = [halves(weights[0]), halves(second)];
            *pair = Pair {
                rows: [row(2 * at).as_ptr(), row(2 * at + weights.len() - 1).as_ptr()],
                high: both(high, second_high),
                low: both(low, second_low),
            };
        }
        all
    }

    fn all(&self) -> &[Pair] {
        &self.pairs[..self.count]
    }
}

/// As [`Down::sum`] of `bytes`; `false` where this machine or these bytes are none for it, and nothing has been done.
pub fn sum<const PARTS: usize>(
    down: &Down,
    axis: &Axis,
    start: usize,
    bytes: Bytes<'_>,
    planes: &mut [&mut Plane; PARTS],
) -> bool {
    let rows = || down.first..down.first + down.count;
    if !is_here() || rows().any(|row| axis.output(row).1.len() > MOST_ROWS) {
        return false;
    }
    match (bytes, planes.as_mut_slice()) {
        (Bytes::Luma { plane, x, factor }, [sums]) => {
            let width = sums.width;
            for (row, sums) in rows().zip(sums.down.chunks_exact_mut(width.max(1))) {
                let (first, weights) = axis.output(row);
                let pairs = Pairs::new(weights, |tap| {
                    samples::<1>(plane, start + first + tap, x, width).as_flattened()
                });
                // SAFETY: the machine has the instructions; every row has `width` bytes.
                unsafe { luma(pairs.all(), factor, sums) };
            }
            true
        }
        (
            Bytes::Pairs {
                plane,
                last_row,
                x,
                factors,
            },
            [red, green, blue],
        ) => {
            let width = red.width;
            let bytes = |y: usize| chroma_row(plane, y.min(last_row), x, width);
            let lines = [red, green, blue].map(|plane| plane.down.chunks_exact_mut(width.max(1)));
            let [red, green, blue] = lines;
            for (((row, red), green), blue) in rows().zip(red).zip(green).zip(blue) {
                let (first, weights) = axis.output(row);
                let pairs = Pairs::new(weights, |tap| bytes(start + first + tap));
                // SAFETY: the machine has the instructions; every row has two bytes for each sum.
                unsafe { chroma(pairs.all(), factors, [red, green, blue]) };
            }
            true
        }
        _ => false,
    }
}

fn chroma_row<'a>(plane: PlaneRef<'a>, y: usize, x: usize, width: usize) -> &'a [u8] {
    samples::<2>(plane, y, x, width).as_flattened()
}

/// Sums of both halves as one number.
#[inline]
#[target_feature(enable = "avx512f")]
fn whole(high: __m512i, low: __m512i) -> __m512 {
    let half = _mm512_set1_ps(1.0 / (1 << HALF_BITS) as f32);
    let low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), half);
    _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(high), low), half)
}

/// Samples of a row from `at` on as 16 bits about 0, as in convert_rows.rs: of each quarter's 16 bytes the
/// lower eight, and the upper eight.
///
/// # Safety
/// The bytes of `mask` are there, and the machine has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn wide(row: *const u8, at: usize, mask: u64) -> [__m512i; 2] {
    // SAFETY: the caller's.
    let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, row.add(at).cast()) };
    let bytes = _mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN));
    [
        _mm512_unpacklo_epi8(bytes, bytes),
        _mm512_unpackhi_epi8(bytes, bytes),
    ]
}

/// # Safety
/// Every row has as many bytes as there are `sums`, and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn luma(pairs: &[Pair], factor: i16, sums: &mut [f32]) {
    let factor = _mm512_set1_epi16(factor);
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        let (at, mask) = (block * BLOCK, first_lanes(sums.len()));
        let (mut high, mut low) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
        for pair in pairs {
            let (high_weight, low_weight) = (_mm512_set1_epi32(pair.high), _mm512_set1_epi32(pair.low));
            // SAFETY: every row has a byte for each of `sums`.
            let [[a, b], [c, d]] = unsafe { [wide(pair.rows[0], at, mask), wide(pair.rows[1], at, mask)] };
            let [a, b, c, d] = [a, b, c, d].map(|samples| _mm512_mulhi_epi16(samples, factor));
            let parts = [
                _mm512_unpacklo_epi16(a, c),
                _mm512_unpackhi_epi16(a, c),
                _mm512_unpacklo_epi16(b, d),
                _mm512_unpackhi_epi16(b, d),
            ];
            for ((high, low), parts) in high.iter_mut().zip(&mut low).zip(parts) {
                *high = _mm512_dpwssd_epi32(*high, parts, high_weight);
                *low = _mm512_dpwssd_epi32(*low, parts, low_weight);
            }
        }
        // Each has four numbers of every quarter: the quarters are put together.
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| whole(high[i], low[i]));
        let (ab, ab_high) = (
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        );
        let (cd, cd_high) = (
            _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d),
        );
        let quarters = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high),
        ];
        for (sums, numbers) in sums.chunks_mut(16).zip(quarters) {
            // SAFETY: no more numbers than there are are written.
            unsafe { _mm512_mask_storeu_ps(sums.as_mut_ptr(), first_lanes(sums.len()) as u16, numbers) };
        }
    }
}

/// # Safety
/// Every row has two bytes for each of the sums, of which there are equally many, and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn chroma(pairs: &[Pair], factors: Factors, [red, green, blue]: [&mut [f32]; 3]) {
    // U is the lower of a pair's two samples.
    let of = |u: i16, v: i16| _mm512_set1_epi32(both(i32::from(u), i32::from(v)));
    let blue_red = of(factors.blue_from_u, factors.red_from_v);
    let greens = of(factors.green_from_u, factors.green_from_v);
    // Of two vectors that have every other four numbers, the first and the second sixteen in order.
    let front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    let back = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    let sums = red
        .chunks_mut(BLOCK / 2)
        .zip(green.chunks_mut(BLOCK / 2))
        .zip(blue.chunks_mut(BLOCK / 2));
    for (block, ((red, green), blue)) in sums.enumerate() {
        let (at, mask) = (block * BLOCK, first_lanes(2 * red.len()));
        let zero = _mm512_setzero_si512();
        let (mut high, mut low) = ([zero; 4], [zero; 4]);
        let (mut green_high, mut green_low) = ([zero; 2], [zero; 2]);
        for pair in pairs {
            let (high_weight, low_weight) = (_mm512_set1_epi32(pair.high), _mm512_set1_epi32(pair.low));
            // SAFETY: every row has two bytes for each of the sums.
            let [first, second] = unsafe { [wide(pair.rows[0], at, mask), wide(pair.rows[1], at, mask)] };
            // Of both rows: what U gives to blue beside what V gives to red.
            for (half, (a, b)) in first.into_iter().zip(second).enumerate() {
                let (p, q) = (_mm512_mulhi_epi16(a, blue_red), _mm512_mulhi_epi16(b, blue_red));
                let parts = [_mm512_unpacklo_epi16(p, q), _mm512_unpackhi_epi16(p, q)];
                for (i, parts) in parts.into_iter().enumerate() {
                    let (high, low) = (&mut high[2 * half + i], &mut low[2 * half + i]);
                    *high = _mm512_dpwssd_epi32(*high, parts, high_weight);
                    *low = _mm512_dpwssd_epi32(*low, parts, low_weight);
                }
            }
            // What both give to green lies side by side: row by row, with the same weight for each.
            for (samples, shift) in [(first, 0), (second, 16)] {
                let same = |both: i32| _mm512_set1_epi16((both >> shift) as i16);
                let (high_weight, low_weight) = (same(pair.high), same(pair.low));
                for (half, samples) in samples.into_iter().enumerate() {
                    let parts = _mm512_mulhi_epi16(samples, greens);
                    green_high[half] = _mm512_dpwssd_epi32(green_high[half], parts, high_weight);
                    green_low[half] = _mm512_dpwssd_epi32(green_low[half], parts, low_weight);
                }
            }
        }
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| whole(high[i], low[i])); // blue and red by turns
        let blues = [
            _mm512_shuffle_ps::<0b10_00_10_00>(a, b),
            _mm512_shuffle_ps::<0b10_00_10_00>(c, d),
        ];
        let reds = [
            _mm512_shuffle_ps::<0b11_01_11_01>(a, b),
            _mm512_shuffle_ps::<0b11_01_11_01>(c, d),
        ];
        let greens = [0, 1].map(|half| whole(green_high[half], green_low[half]));
        for (sums, [lower, upper]) in [(red, reds), (green, greens), (blue, blues)] {
            for (sums, order) in sums.chunks_mut(16).zip([front, back]) {
                let numbers = _mm512_permutex2var_ps(lower, order, upper);
                // SAFETY: no more numbers than there are are written.
                unsafe { _mm512_mask_storeu_ps(sums.as_mut_ptr(), first_lanes(sums.len()) as u16, numbers) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::kernels::picture::convert::{ColorSpace, Picture, PixelFormat};
    use crate::kernels::picture::planes::ROWS;
    use crate::kernels::picture::resize_tests::{Noise, fenced};
    use crate::kernels::picture::samples::{Lines, Luma, PairedChroma};

    fn plane(width: usize) -> Plane {
        let mut plane = Plane::default();
        plane.fit(width);
        plane.down.fill(f32::NAN);
        plane
    }

    /// Both ways of `lines`, and the largest difference between them.
    fn apart<const PARTS: usize, L: Lines<PARTS>>(
        (down, axis, start, width): (Down, &Axis, usize, usize),
        lines: L,
    ) -> f32 {
        let mut ours: [Plane; PARTS] = std::array::from_fn(|_| plane(width));
        let mut theirs = ours.clone();
        assert!(sum(&down, axis, start, lines.bytes(), &mut ours.each_mut()));
        down.sum_anywhere(axis, start, lines, theirs.each_mut());
        let mut largest = 0f32;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (done, rest) = theirs.down.split_at(down.count * width);
            assert!(rest.iter().all(|number| number.is_nan()));
            for (ours, theirs) in ours.down.iter().zip(done) {
                largest = largest.max((ours - theirs).abs());
                assert!(!ours.is_nan() && !theirs.is_nan());
            }
            assert!(ours.down[done.len()..].iter().all(|number| number.is_nan()));
        }
        largest
    }

    #[test]
    fn sums_are_those_of_the_portable_way_and_no_byte_beside_is_touched() {
        if !is_here() {
            println!("SKIPPED: this processor has no AVX-512 with VNNI");
            return;
        }
        let mut noise = Noise(20_261_128);
        for case in 0..200 {
            let size = Size {
                width_px: 1 + noise.next([20, 300][case % 2]),
                height_px: 1 + noise.next([9, 70, 400][case % 3]),
            };
            let side = 1 + noise.next(48);
            let (width, height) = (size.width_px as usize, size.height_px as usize);
            let stride_bytes = 2 * width + noise.next(20) as usize;
            let low = noise.next(2) * 100;
            // The last row of pairs ends where the buffer does.
            let bytes: Vec<u8> = (0..stride_bytes * (height - 1) + 2 * width)
                .map(|_| (low + noise.next(256 - 2 * low)) as u8)
                .collect();
            let data = fenced(case, || bytes.clone());
            let plane = PlaneRef {
                data: &data,
                stride_bytes,
            };
            let planes = [plane; 2];
            let colors = ColorSpace::RGB;
            let picture = Picture::new(PixelFormat::Nv12, Size::square(1), &planes, colors).unwrap();
            let factors = picture.factors();
            let x = noise.next(size.width_px) as usize;
            let start = noise.next(size.height_px) as usize;
            let axis = Axis::new(size.height_px - start as u32, side);
            let first = noise.next(side) as usize;
            let down = Down {
                first,
                count: (side as usize - first).min(1 + noise.next(ROWS as u32) as usize),
            };
            let most = |down: Down| {
                (down.first..down.first + down.count)
                    .map(|j| axis.output(j).1.len())
                    .max()
            };
            if most(down) > Some(MOST_ROWS) {
                let bytes = Luma::<1, 0> { plane, x, factors };
                let mut sums = super::tests::plane(width - x);
                assert!(!sum(&down, &axis, start, bytes.bytes(), &mut [&mut sums]));
                continue;
            }
            let luma = Luma::<1, 0> { plane, x, factors };
            let far = apart::<1, _>((down, &axis, start, width - x), luma);
            assert!(far < 2e-4, "luma {case}: {far}");
            let last_row = noise.next(size.height_px) as usize;
            let pairs = PairedChroma::<2, 0, 1> {
                plane,
                last_row,
                x,
                factors,
            };
            let far = apart::<3, _>((down, &axis, start, width - x), pairs);
            assert!(far < 2e-4, "chroma {case}: {far}");
        }
    }

    #[test]
    fn a_weight_is_its_two_halves() {
        for weight in [0.0, 1.0, 0.5, 1.0 / 3.0, 256.0 / 1080.0, 1e-4, 0.999_99] {
            let [high, low] = halves(weight);
            let one = f64::from(1 << HALF_BITS);
            let got = (f64::from(high) + f64::from(low) / one) / one;
            assert!((got - f64::from(weight)).abs() < 2e-9, "{weight}: {got}");
            assert!((0..=1 << HALF_BITS).contains(&high) && low.abs() <= 1 << (HALF_BITS - 1));
        }
    }
}
