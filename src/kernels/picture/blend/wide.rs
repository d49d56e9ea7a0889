//! [`blend`](super::blend) in AVX-512: the few pixels that most runs have, and what is left at the end of a longer one, are
//! one masked vector. Every byte is what the portable way gives.

use super::{Blend, EDGE_BITS, EDGE_ONE, PATTERN_BYTES, Pattern, blend_edges};
use crate::kernels::picture::blend_layer::{Edge, Paint};
use crate::kernels::simd::first_lanes;
use std::arch::x86_64::{
    __m512i, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm_setr_epi8, _mm256_loadu_si256,
    _mm256_mask_storeu_epi8, _mm256_maskz_loadu_epi8, _mm256_maskz_loadu_epi64, _mm256_storeu_si256,
    _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi16_epi8,
    _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtusepi32_epi8,
    _mm512_loadu_epi16, _mm512_maskz_loadu_epi64, _mm512_mullo_epi16, _mm512_mullo_epi32,
    _mm512_permutex2var_epi32, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_sub_epi32,
};

/// Bytes of a solid run that are blended at once.
const SOLID_BYTES: usize = 32;

/// Whether this machine has what [`blend`] takes.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// How the components of an edge lie over the bytes of its pixel.
#[derive(Clone, Copy)]
enum Order {
    /// One byte, of this component.
    One(usize),
    /// Two bytes, of these.
    Two(usize, usize),
    /// Four bytes: all components, first to last or last to first, and one that stays.
    Four { is_reversed: bool },
    /// Otherwise.
    Other,
}

impl Order {
    fn of(blend: &Blend<'_>) -> Self {
        let place = |at: usize| blend.pass.taps.get(at).map(|tap| (tap.offset, tap.component));
        match (blend.pass.step_bytes, [place(0), place(1), place(2), place(3)]) {
            (1, [Some((0, component @ 0..3)), None, None, None]) => Self::One(component),
            (2, [Some((0, first @ 0..3)), Some((1, second @ 0..3)), None, None]) => Self::Two(first, second),
            (4, [Some((0, 0)), Some((1, 1)), Some((2, 2)), None]) => Self::Four { is_reversed: false },
            (4, [Some((2, 0)), Some((1, 1)), Some((0, 2)), None]) => Self::Four { is_reversed: true },
            _ => Self::Other,
        }
    }
}

/// As [`super::blend`].
///
/// # Safety
/// The machine has what [`is_here`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn blend(blend: Blend<'_>) {
    let order = Order::of(&blend);
    let step = blend.pass.step_bytes;
    let lines = blend.bytes.chunks_mut(blend.stride_bytes.max(1));
    for (row, line) in lines.take(blend.layer.rows()).enumerate() {
        for run in blend.layer.row(row) {
            let start = run.start_px as usize * step;
            let end = (run.end_px as usize * step).min(line.len());
            let Some(target) = line.get_mut(start..end) else {
                break;
            };
            match run.paint {
                Paint::Solid(ink) => {
                    if let Some(pattern) = blend.patterns.0.get(usize::from(ink)) {
                        // SAFETY: as for this function.
                        unsafe { solid(target, pattern) };
                    }
                }
                Paint::Edges(first) => {
                    let all = blend.layer.edges_from(first);
                    let whole = (target.len() / step).min(all.len());
                    let (pixels, rest) = target.split_at_mut(whole * step);
                    let (edges, others) = all.split_at(whole);
                    // SAFETY: as for this function; `pixels` has `step` bytes for each of `edges`.
                    unsafe {
                        match order {
                            Order::One(component) => one(pixels, edges, component),
                            Order::Two(first, second) => two(pixels, edges, [first, second]),
                            Order::Four { is_reversed } => four(pixels, edges, is_reversed),
                            Order::Other => blend_edges(pixels, edges, blend.pass),
                        }
                    }
                    if !rest.is_empty() {
                        blend_edges(rest, others, blend.pass);
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`blend`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn solid(target: &mut [u8], pattern: &Pattern) {
    for target in target.chunks_mut(PATTERN_BYTES) {
        let mix = |bytes, at: usize| {
            // SAFETY: a pattern has PATTERN_BYTES numbers, a multiple of SOLID_BYTES, and `at` is one below that.
            let (keep, add) = unsafe {
                (
                    _mm512_loadu_epi16(pattern.keep.as_ptr().add(at).cast()),
                    _mm512_loadu_epi16(pattern.add.as_ptr().add(at).cast()),
                )
            };
            let product = _mm512_mullo_epi16(_mm512_cvtepu8_epi16(bytes), keep);
            _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(_mm512_add_epi16(product, add)))
        };
        let (blocks, rest) = target.as_chunks_mut::<SOLID_BYTES>();
        let done = blocks.len() * SOLID_BYTES;
        for (block, at) in blocks.iter_mut().zip((0..).step_by(SOLID_BYTES)) {
            let place = block.as_mut_ptr().cast();
            // SAFETY: a block has as many bytes as are read and written.
            unsafe { _mm256_storeu_si256(place, mix(_mm256_loadu_si256(place), at)) };
        }
        if !rest.is_empty() {
            let (mask, place) = (first_lanes(rest.len()) as u32, rest.as_mut_ptr().cast());
            // SAFETY: no more bytes than there are are read and written.
            unsafe {
                let bytes = _mm256_maskz_loadu_epi8(mask, place);
                _mm256_mask_storeu_epi8(place, mask, mix(bytes, done));
            }
        }
    }
}

/// Sixteen bytes with an edge's component over each: all numbers are 32 bits wide.
#[inline]
#[target_feature(enable = "avx512f")]
fn over(bytes: __m512i, alpha: __m512i, color: __m512i) -> __m512i {
    let keep = _mm512_sub_epi32(_mm512_set1_epi32(EDGE_ONE as i32), alpha);
    let color = _mm512_slli_epi32::<{ EDGE_BITS - 8 }>(color);
    let sum = _mm512_add_epi32(_mm512_mullo_epi32(bytes, keep), color);
    _mm512_srli_epi32::<EDGE_BITS>(_mm512_add_epi32(sum, _mm512_set1_epi32(1 << (EDGE_BITS - 1))))
}

/// Reads the first of 16 bytes from `place`, and writes those of them that `written` has.
///
/// # Safety
/// As [`blend`]; all bytes of `read` and `written` are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn lay(place: *mut u8, read: u16, written: u16, alpha: __m512i, color: __m512i) {
    // SAFETY: the caller's.
    unsafe {
        let bytes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(read, place.cast()));
        let mixed = _mm512_cvtusepi32_epi8(over(bytes, alpha, color));
        _mm_mask_storeu_epi8(place.cast(), written, mixed);
    }
}

/// Pixels of one byte, sixteen at a time.
///
/// # Safety
/// As [`blend`]; there is a byte for each edge.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn one(pixels: &mut [u8], edges: &[Edge], component: usize) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let low = _mm512_set1_epi32(0xffff);
    for (pixels, edges) in pixels.chunks_mut(16).zip(edges.chunks(16)) {
        let mask = first_lanes(edges.len()) as u16;
        let from: *const i64 = edges.as_ptr().cast();
        // SAFETY: an edge is 64 bits, and no more of them than there are are read.
        let (a, b) = unsafe {
            (
                _mm512_maskz_loadu_epi64(mask as u8, from),
                _mm512_maskz_loadu_epi64((mask >> 8) as u8, from.wrapping_add(8)),
            )
        };
        // Of each edge coverage and first component, and the other two.
        let (near, far) = (
            _mm512_permutex2var_epi32(a, even, b),
            _mm512_permutex2var_epi32(a, odd, b),
        );
        let color = match component {
            0 => _mm512_srli_epi32::<16>(near),
            1 => _mm512_and_si512(far, low),
            _ => _mm512_srli_epi32::<16>(far),
        };
        // SAFETY: there is a byte for each edge.
        unsafe {
            lay(
                pixels.as_mut_ptr(),
                mask,
                mask,
                _mm512_and_si512(near, low),
                color,
            )
        };
    }
}

/// Pixels of two bytes, eight at a time.
///
/// # Safety
/// As [`blend`]; there are two bytes for each edge.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn two(pixels: &mut [u8], edges: &[Edge], components: [usize; 2]) {
    // Of each edge, 8 bytes, the 16 bits from the first and from the second place on, each as 32 bits.
    let pairs = |first: i8, second: i8| {
        _mm512_broadcast_i32x4(_mm_setr_epi8(
            first,
            first + 1,
            -1,
            -1,
            second,
            second + 1,
            -1,
            -1,
            first + 8,
            first + 9,
            -1,
            -1,
            second + 8,
            second + 9,
            -1,
            -1,
        ))
    };
    let [first_at, second_at] = components.map(|component| 2 + 2 * component as i8);
    let (alphas, colors) = (pairs(0, 0), pairs(first_at, second_at));
    for (pixels, edges) in pixels.chunks_mut(16).zip(edges.chunks(8)) {
        // SAFETY: an edge is 64 bits, and no more of them than there are are read.
        let edge = unsafe { _mm512_maskz_loadu_epi64(first_lanes(edges.len()) as u8, edges.as_ptr().cast()) };
        let mask = first_lanes(2 * edges.len()) as u16;
        let (alpha, color) = (
            _mm512_shuffle_epi8(edge, alphas),
            _mm512_shuffle_epi8(edge, colors),
        );
        // SAFETY: there are two bytes for each edge.
        unsafe { lay(pixels.as_mut_ptr(), mask, mask, alpha, color) };
    }
}

/// Pixels of four bytes, four at a time. The last byte of each stays.
///
/// # Safety
/// As [`blend`]; there are four bytes for each edge.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn four(pixels: &mut [u8], edges: &[Edge], is_reversed: bool) {
    for (pixels, edges) in pixels.chunks_mut(16).zip(edges.chunks(4)) {
        // SAFETY: an edge is 64 bits, and no more of them than there are are read.
        let edge = unsafe { _mm256_maskz_loadu_epi64(first_lanes(edges.len()) as u8, edges.as_ptr().cast()) };
        // Coverage and three components of each.
        let edge = _mm512_cvtepu16_epi32(edge);
        let color = match is_reversed {
            false => _mm512_shuffle_epi32::<0b11_11_10_01>(edge),
            true => _mm512_shuffle_epi32::<0b11_01_10_11>(edge),
        };
        let alpha = _mm512_shuffle_epi32::<0>(edge);
        let mask = first_lanes(4 * edges.len()) as u16;
        // SAFETY: there are four bytes for each edge.
        unsafe {
            lay(
                pixels.as_mut_ptr(),
                mask,
                mask & 0b0111_0111_0111_0111,
                alpha,
                color,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Pass, Patterns};
    use super::*;
    use crate::kernels::picture::blend_layer::{Ink, Layer};
    use crate::kernels::picture::resize_tests::{Noise, fenced};
    use crate::kernels::simd::dispatch;

    /// Rows of runs of all lengths, of edges and of two inks.
    fn layer(noise: &mut Noise, width_px: u32, rows: usize) -> Layer {
        let mut layer = Layer::default();
        let ink = |alpha: f32, color: [f32; 3]| Ink { alpha, color };
        layer.start(
            width_px,
            [ink(0.4, [250.0, 20.0, 90.0]), ink(1.0, [0.0, 255.0, 128.0])],
        );
        for _ in 0..rows {
            let mut x_px = noise.next(9);
            while x_px < width_px {
                let longest = [3, 20, 90, 500][noise.next(4) as usize];
                let length = (1 + noise.next(longest)).min(width_px - x_px);
                match noise.next(3) {
                    0 => layer.solid(x_px, x_px + length, noise.next(2) as u8),
                    _ => layer.edges(
                        x_px,
                        (0..length).map(|_| Edge {
                            alpha: [1, 32_768, 1 + noise.next(32_768) as u16][noise.next(3) as usize],
                            color: [(); 3].map(|()| noise.next(65_281) as u16),
                        }),
                    ),
                }
                x_px += length + noise.next(2) * noise.next(30);
            }
            layer.end_row();
        }
        layer
    }

    #[test]
    fn every_byte_is_that_of_the_portable_way_and_none_beside_is_touched() {
        if !is_here() {
            println!("SKIPPED: this processor has no AVX-512");
            return;
        }
        let mut noise = Noise(20_261_127);
        let formats = [
            Pass::GRAY,
            Pass::RGB,
            Pass::BGR,
            Pass::RGBX,
            Pass::BGRX,
            Pass::I420,
            Pass::NV12,
            Pass::YUY2,
            Pass::UYVY,
        ];
        let mut changed = 0;
        for case in 0..120 {
            let width_px = 1 + noise.next([40, 700][case % 2]);
            let layer = layer(&mut noise, width_px, 9);
            for pass in formats.into_iter().flatten() {
                let row = width_px as usize * pass.step_bytes;
                // A stride below a row cuts runs, and pixels.
                let stride_bytes = (row + noise.next(9) as usize)
                    .saturating_sub(noise.next(9) as usize)
                    .max(1);
                let bytes: Vec<u8> = (0..stride_bytes * 9 - noise.next(stride_bytes as u32) as usize)
                    .map(|_| noise.next(256) as u8)
                    .collect();
                let (mut ours, mut portable) = fenced(case, || (bytes.clone(), bytes.clone()));
                let layer = fenced(case, || layer.clone());
                let patterns = Patterns::new(&layer, *pass);
                let blend_of = |bytes| Blend {
                    bytes,
                    stride_bytes,
                    layer: &layer,
                    pass: *pass,
                    patterns: &patterns,
                };
                dispatch(blend_of(&mut portable));
                // SAFETY: looked at above.
                unsafe { blend(blend_of(&mut ours)) };
                assert!(
                    ours == portable,
                    "{pass:?}, {width_px} px, stride {stride_bytes}, case {case}"
                );
                changed += usize::from(ours != bytes);
            }
        }
        assert!(changed > 1000, "{changed}");
    }
}
