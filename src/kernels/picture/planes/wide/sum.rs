//! Rows of bytes down the columns, two at a time, and the sums turned: [`Plane::turned`] at once.
//!
//! The parts of a sample are whole numbers of 16 bits, and a weight is two of them: `w = (high + low / 2^14) / 2^14`. One
//! instruction multiplies the parts of two rows with their weights and adds both to a sum of 32 bits; the sums of high
//! and low halves are put together at the end, to what float32 can hold.
//!
//! ```text
//! byte b of a row         wide(b) = b' b' with b' = b ^ 128     (unpacked with itself)
//! rows 2k and 2k + 1      [p0 q0 p1 q1 …] dot [wp wq wp wq …]   (unpacked with each other)
//! ```
//! A block of columns is summed for all rows of the square that are made at once: a pair of rows that two of them share is
//! unpacked once, and what has been summed is turned while it lies in the first cache. Unpacking goes by quarters of a
//! vector, so that neighbours lie in four vectors until they are turned.

use super::{four, stored};
use crate::kernels::picture::axis::Axis;
use crate::kernels::picture::convert_rows::Factors;
use crate::kernels::picture::planes::{Down, Plane, ROWS};
use crate::kernels::picture::samples::{Bytes, samples};
use crate::kernels::simd::first_lanes;
use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32,
    _mm512_madd_epi16, _mm512_mask_blend_epi16, _mm512_maskz_loadu_epi8, _mm512_mul_ps, _mm512_mulhi_epi16,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16,
    _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_xor_si512,
};

/// Rows of a picture that one row of the square is summed from at most: more, and sums of 32 bits might not hold them.
const MOST_ROWS: usize = 64;

/// Largest factor of a matrix for which they do, 4 in 8 bits of fraction. Those of standards stay below 2.2; a matrix of
/// hardly any green has others.
const MOST_FACTOR: u16 = 1024;

/// Pairs of rows that are summed at most for [`ROWS`] rows of the square.
const MOST_PAIRS: usize = 256;

/// Bytes that are read at once.
const BLOCK: usize = 64;

/// The upper 16 bits of each 32.
const UPPER: u32 = 0xaaaa_aaaa;

/// Bits of each half of a weight.
const HALF_BITS: i32 = 14;

fn is_here() -> bool {
    super::is_here() && is_x86_feature_detected!("avx512vnni")
}

/// Two rows and what they weigh, both halves: the first row's in the lower 16 bits.
#[derive(Clone, Copy)]
struct Pair {
    rows: [*const u8; 2],
    high: i32,
    low: i32,
}

/// The pairs of some rows of the square, one after the other.
struct Pairs {
    pairs: [Pair; MOST_PAIRS],
    /// Where those of each row end.
    ends: [usize; ROWS],
    count: usize,
}

fn halves(weight: f32) -> [i32; 2] {
    let one = (1 << HALF_BITS) as f32;
    // Rounded by hand: without an instruction for it, that is a call. Weights are not negative, halves of halves may be.
    let high = (weight * one + 0.5) as i32;
    let low = (weight * one - high as f32) * one;
    [high, (low + (one + 0.5)) as i32 - (1 << HALF_BITS)]
}

/// Both of two numbers of 16 bits in 32.
fn both(first: i32, second: i32) -> i32 {
    first & 0xffff | second << 16
}

impl Pairs {
    /// `row` gives the bytes of a row by its distance from the first. `None` where there are too many.
    ///
    /// Pairs begin with even rows, so that rows of the square have theirs in common. A row that is in none of its
    /// pair's sum has no weight there; the last row of all may have to be its own second.
    fn new<'a>(down: &Down, axis: &Axis, row: impl Fn(usize) -> &'a [u8]) -> Option<Self> {
        let nothing = Pair {
            rows: [std::ptr::null(); 2],
            high: 0,
            low: 0,
        };
        let mut all = Self {
            pairs: [nothing; MOST_PAIRS],
            ends: [0; ROWS],
            count: down.count,
        };
        let (end, mut used) = (axis.samples(), 0);
        for (ends, output) in all.ends.iter_mut().zip(down.first..down.first + down.count) {
            let (first, weights) = axis.output(output);
            if weights.len() > MOST_ROWS {
                return None;
            }
            let weight = |at: usize| {
                let weight = at.checked_sub(first).and_then(|tap| weights.get(tap));
                halves(weight.copied().unwrap_or(0.0))
            };
            for at in (first / 2 * 2..first + weights.len()).step_by(2) {
                let [[high, low], [second_high, second_low]] = [weight(at), weight(at + 1)];
                let second = if at + 1 < end { at + 1 } else { at };
                *all.pairs.get_mut(used)? = Pair {
                    rows: [row(at).as_ptr(), row(second).as_ptr()],
                    high: both(high, second_high),
                    low: both(low, second_low),
                };
                used += 1;
            }
            *ends = used;
        }
        Some(all)
    }

    /// The pairs of each row of the square.
    fn rows(&self) -> impl Iterator<Item = &[Pair]> {
        let mut begin = 0;
        self.ends.iter().take(self.count).map(move |&end| {
            let pairs = &self.pairs[begin..end];
            begin = end;
            pairs
        })
    }
}

/// As [`Down::sum`] of `bytes`, the sums turned; `false` where this machine or these bytes are none for it, and nothing has
/// been done.
pub fn sum<const PARTS: usize>(
    down: &Down,
    axis: &Axis,
    start: usize,
    bytes: Bytes<'_>,
    planes: &mut [&mut Plane; PARTS],
) -> bool {
    if !is_here() || down.count > ROWS {
        return false;
    }
    match (bytes, planes.as_mut_slice()) {
        (Bytes::Luma { plane, x, factor }, [sums]) => {
            let width = sums.turned.len();
            let row = |at: usize| samples::<1>(plane, start + at, x, width).as_flattened();
            let Some(pairs) = Pairs::new(down, axis, row) else {
                return false;
            };
            // SAFETY: the machine has the instructions; every row has `width` bytes.
            unsafe { luma(&pairs, factor, &mut sums.turned) };
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
            let width = red.turned.len();
            let is_large = |factor: i16| factor.unsigned_abs() > MOST_FACTOR;
            let others = [
                factors.red_from_v,
                factors.green_from_u,
                factors.green_from_v,
                factors.blue_from_u,
            ];
            if green.turned.len() != width || blue.turned.len() != width || others.into_iter().any(is_large) {
                return false;
            }
            let row = |at: usize| samples::<2>(plane, (start + at).min(last_row), x, width).as_flattened();
            let Some(pairs) = Pairs::new(down, axis, row) else {
                return false;
            };
            let sums = [&mut red.turned[..], &mut green.turned, &mut blue.turned];
            // SAFETY: the machine has the instructions; every row has two bytes for each sum, and there are equally many.
            unsafe { chroma(&pairs, factors, sums) };
        }
        _ => return false,
    }
    for plane in planes {
        plane.is_turned = true;
    }
    true
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
/// lower eight, and the upper eight. What comes after the next block is asked for.
///
/// # Safety
/// The bytes of `mask` are there, and the machine has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn wide(row: *const u8, at: usize, mask: u64) -> [__m512i; 2] {
    // SAFETY: the caller's; asking for memory is no access to it.
    let bytes = unsafe {
        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(at + 2 * BLOCK).cast());
        _mm512_maskz_loadu_epi8(mask, row.add(at).cast())
    };
    let bytes = _mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN));
    [
        _mm512_unpacklo_epi8(bytes, bytes),
        _mm512_unpackhi_epi8(bytes, bytes),
    ]
}

/// # Safety
/// Every row has as many bytes as there are `sums`, and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn luma(pairs: &Pairs, factor: i16, sums: &mut [[f32; ROWS]]) {
    let factor = _mm512_set1_epi16(factor);
    let mut summed = [[0.0; BLOCK]; ROWS];
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        let (at, mask) = (block * BLOCK, first_lanes(sums.len()));
        let (mut known, mut parts) = ([std::ptr::null(); 2], [_mm512_setzero_si512(); 4]);
        for (pairs, summed) in pairs.rows().zip(&mut summed) {
            let (mut high, mut low) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
            for pair in pairs {
                if pair.rows != known {
                    // SAFETY: every row has a byte for each of `sums`.
                    let rows = unsafe { [wide(pair.rows[0], at, mask), wide(pair.rows[1], at, mask)] };
                    let [[a, b], [c, d]] = rows.map(|row| row.map(|part| _mm512_mulhi_epi16(part, factor)));
                    parts = [
                        _mm512_unpacklo_epi16(a, c),
                        _mm512_unpackhi_epi16(a, c),
                        _mm512_unpacklo_epi16(b, d),
                        _mm512_unpackhi_epi16(b, d),
                    ];
                    known = pair.rows;
                }
                let (high_weight, low_weight) = (_mm512_set1_epi32(pair.high), _mm512_set1_epi32(pair.low));
                for ((high, low), parts) in high.iter_mut().zip(&mut low).zip(parts) {
                    *high = _mm512_dpwssd_epi32(*high, parts, high_weight);
                    *low = _mm512_dpwssd_epi32(*low, parts, low_weight);
                }
            }
            let numbers = [0, 1, 2, 3].map(|i| whole(high[i], low[i]));
            // SAFETY: four vectors are as many numbers as `summed` has.
            unsafe { write(summed, numbers) };
        }
        for (place, sums) in sums.chunks_mut(4).enumerate() {
            // Of each quarter, four neighbours lie in each vector.
            let at = 16 * (place % 4) + 4 * (place / 4);
            // SAFETY: four numbers of each row are there.
            unsafe { stored(four(summed.as_ptr().cast::<f32>().add(at), BLOCK), sums) };
        }
    }
}

/// Vectors one after the other.
///
/// # Safety
/// The machine has AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write<const VECTORS: usize>(to: &mut [f32], vectors: [__m512; VECTORS]) {
    for (to, vector) in to.chunks_exact_mut(16).zip(vectors) {
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) };
    }
}

/// # Safety
/// Every row has two bytes for each of the sums, of which there are equally many, and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn chroma(pairs: &Pairs, factors: Factors, [red, green, blue]: [&mut [[f32; ROWS]]; 3]) {
    // U is the lower of a pair's two samples.
    let of = |u: i16, v: i16| _mm512_set1_epi32(both(i32::from(u), i32::from(v)));
    let blue_red = of(factors.blue_from_u, factors.red_from_v);
    let greens = of(factors.green_from_u, factors.green_from_v);
    let one = _mm512_set1_epi16(1);
    let mut summed = [[[0.0; BLOCK / 2]; ROWS]; 3];
    let sums = red
        .chunks_mut(BLOCK / 2)
        .zip(green.chunks_mut(BLOCK / 2))
        .zip(blue.chunks_mut(BLOCK / 2));
    for (block, ((red, green), blue)) in sums.enumerate() {
        let (at, mask) = (block * BLOCK, first_lanes(2 * red.len()));
        let zero = _mm512_setzero_si512();
        let mut known = [std::ptr::null(); 2];
        // Of both rows: what U gives to blue beside what V gives to red, and what both together give to green.
        let (mut parts, mut green_parts) = ([zero; 4], [zero; 2]);
        for (row, pairs) in pairs.rows().enumerate() {
            let (mut high, mut low) = ([zero; 4], [zero; 4]);
            let (mut green_high, mut green_low) = ([zero; 2], [zero; 2]);
            for pair in pairs {
                if pair.rows != known {
                    // SAFETY: every row has two bytes for each of the sums.
                    let rows = unsafe { [wide(pair.rows[0], at, mask), wide(pair.rows[1], at, mask)] };
                    let [[a, b], [c, d]] = rows.map(|row| row.map(|part| _mm512_mulhi_epi16(part, blue_red)));
                    parts = [
                        _mm512_unpacklo_epi16(a, c),
                        _mm512_unpackhi_epi16(a, c),
                        _mm512_unpacklo_epi16(b, d),
                        _mm512_unpackhi_epi16(b, d),
                    ];
                    let [first, second] = rows
                        .map(|row| row.map(|part| _mm512_madd_epi16(_mm512_mulhi_epi16(part, greens), one)));
                    green_parts = [0, 1].map(|half| {
                        let second = _mm512_slli_epi32::<16>(second[half]);
                        _mm512_mask_blend_epi16(UPPER, first[half], second)
                    });
                    known = pair.rows;
                }
                let (high_weight, low_weight) = (_mm512_set1_epi32(pair.high), _mm512_set1_epi32(pair.low));
                for ((high, low), parts) in high.iter_mut().zip(&mut low).zip(parts) {
                    *high = _mm512_dpwssd_epi32(*high, parts, high_weight);
                    *low = _mm512_dpwssd_epi32(*low, parts, low_weight);
                }
                for (half, parts) in green_parts.into_iter().enumerate() {
                    green_high[half] = _mm512_dpwssd_epi32(green_high[half], parts, high_weight);
                    green_low[half] = _mm512_dpwssd_epi32(green_low[half], parts, low_weight);
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
            for (summed, numbers) in summed.iter_mut().zip([reds, greens, blues]) {
                // SAFETY: the machine has the instructions.
                unsafe { write(&mut summed[row], numbers) };
            }
        }
        for (summed, sums) in summed.iter().zip([red, green, blue]) {
            for (place, sums) in sums.chunks_mut(4).enumerate() {
                // Of each half of a quarter, four neighbours lie in each vector.
                let at = 16 * (place % 2) + 4 * (place / 2);
                // SAFETY: four numbers of each row are there.
                unsafe { stored(four(summed.as_ptr().cast::<f32>().add(at), BLOCK / 2), sums) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Orientation, Size};
    use crate::kernels::picture::convert::{ColorSpace, Matrix, Picture, PixelFormat, PlaneRef, Range};
    use crate::kernels::picture::planes::turn;
    use crate::kernels::picture::resize::AreaResizer;
    use crate::kernels::picture::resize_tests::{Noise, fenced};
    use crate::kernels::picture::samples::{Lines, Luma, PairedChroma};

    fn plane(width: usize) -> Plane {
        let mut plane = Plane::default();
        plane.fit(width);
        plane.down.fill(f32::NAN);
        plane.turned.fill([f32::NAN; ROWS]);
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
        for (ours, theirs) in ours.iter().zip(&mut theirs) {
            let rest = &theirs.down[down.count * width..];
            assert!(ours.is_turned && rest.iter().all(|number| number.is_nan()));
            turn(&theirs.down, &mut theirs.turned, 0);
            for (ours, theirs) in ours.turned.iter().zip(&theirs.turned) {
                for (ours, theirs) in ours.iter().zip(theirs).take(down.count) {
                    largest = largest.max((ours - theirs).abs());
                    assert!(!ours.is_nan() && !theirs.is_nan());
                }
            }
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
        let (mut taken, mut many, mut refused) = (0, 0, [0; 2]);
        for case in 0..240 {
            let size = Size {
                width_px: 1 + noise.next([20, 300][case % 2]),
                height_px: 1 + noise.next([9, 70, 400, 1000][case % 4]),
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
            // Tall ones as a whole, so that there are many pairs of rows.
            let is_whole = case % 4 == 3;
            let start = if is_whole {
                0
            } else {
                noise.next(size.height_px) as usize
            };
            let axis = Axis::new(size.height_px - start as u32, side);
            let first = if is_whole { 0 } else { noise.next(side) as usize };
            let most = if is_whole {
                ROWS
            } else {
                1 + noise.next(ROWS as u32) as usize
            };
            let down = Down {
                first,
                count: (side as usize - first).min(most),
            };
            // Rows of each sum, and pairs of all of them, which begin with even rows.
            let taps = (down.first..down.first + down.count).map(|j| axis.output(j));
            let rows = taps.clone().map(|(_, weights)| weights.len()).max();
            let pairs: usize = taps
                .map(|(first, weights)| (first + weights.len()).div_ceil(2) - first / 2)
                .sum();
            if rows > Some(64) || pairs > 256 {
                refused[usize::from(rows <= Some(64))] += 1;
                let bytes = Luma::<1, 0> { plane, x, factors };
                let mut sums = super::tests::plane(width - x);
                assert!(!sum(&down, &axis, start, bytes.bytes(), &mut [&mut sums]));
                continue;
            }
            taken += 1;
            many += usize::from(pairs > 160);
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
        assert!(
            taken > 100 && many > 5 && refused.iter().all(|count| *count > 5),
            "{taken} {many} {refused:?}"
        );
    }

    #[test]
    fn as_many_pairs_as_there_is_room_for_are_taken_and_no_more() {
        if !is_here() {
            println!("SKIPPED: this processor has no AVX-512 with VNNI");
            return;
        }
        let data: Vec<u8> = (0..600u32).map(|row| (row * 7 % 251) as u8).collect();
        let plane = PlaneRef {
            data: &data,
            stride_bytes: 1,
        };
        let colors = ColorSpace::RGB;
        let planes = [plane; 2];
        let picture = Picture::new(PixelFormat::Nv12, Size::square(1), &planes, colors).unwrap();
        // Sixteen rows of the square, each of 32 rows: sixteen pairs, 256 in all; then of 34.
        for (height, is_taken) in [(512, true), (544, false)] {
            let axis = Axis::new(height, 16);
            let down = Down {
                first: 0,
                count: ROWS,
            };
            let luma = Luma::<1, 0> {
                plane,
                x: 0,
                factors: picture.factors(),
            };
            match is_taken {
                true => assert!(apart::<1, _>((down, &axis, 0, 1), luma) < 2e-4),
                false => {
                    let mut sums = super::tests::plane(1);
                    assert!(!sum(&down, &axis, 0, luma.bytes(), &mut [&mut sums]));
                }
            }
        }
    }

    #[test]
    fn a_matrix_of_hardly_any_green_does_not_overflow() {
        // Sums of 61 rows whose weights' lower halves have one sign, and green from V by a factor of 24.
        let rows = 61;
        let luma = vec![128u8; 8 * 2 * rows];
        let chroma = [96, 0, 0, 86, 255, 255, 255, 57].repeat(rows);
        let planes = [&luma, &chroma].map(|data| PlaneRef {
            data,
            stride_bytes: 8,
        });
        let size = Size {
            width_px: 8,
            height_px: 2 * rows as u32,
        };
        let colors = ColorSpace {
            matrix: Matrix { kr: 0.5, kb: 0.48 },
            range: Range::Limited,
        };
        let picture = Picture::new(PixelFormat::Nv12, size, &planes, colors).unwrap();
        let mut square = vec![0; 3];
        let mut resizer = AreaResizer::new(size, 1).unwrap();
        let (all, orientation) = (size.rect(), Orientation::Upright);
        resizer.resize(&picture, all, orientation, &mut square).unwrap();
        assert_eq!(square, [96, 235, 156]);
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
