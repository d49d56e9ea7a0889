//! The loops of planes.rs in AVX-512: numbers turned in registers, pixels packed, and rows of bytes summed two at a time.

mod sum;

pub use sum::sum;

use super::ROWS;
use crate::kernels::simd::first_lanes;
use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_ps, _mm_setr_epi8, _mm512_broadcast_i32x4, _mm512_castps_si512,
    _mm512_castps128_ps512, _mm512_insertf32x4, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_permutexvar_epi32, _mm512_setr_epi32, _mm512_shuffle_epi8, _mm512_shuffle_ps, _mm512_storeu_ps,
    _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

/// Whether this machine has the instructions.
#[inline(always)]
pub fn is_here() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// As [`super::turn`] for columns from the first on, a multiple of 16 of them: how many.
#[inline(always)]
pub fn turn(down: &[f32], turned: &mut [[f32; ROWS]]) -> usize {
    if down.len() < ROWS * turned.len() || !is_here() {
        return 0;
    }
    // SAFETY: the machine has the instructions, and `down` has a number for each of `turned`.
    unsafe { turn_all(down, turned) }
}

/// # Safety
/// The machine has AVX-512F, and `down` is `[ROWS, turned.len()]`.
#[target_feature(enable = "avx512f")]
unsafe fn turn_all(down: &[f32], turned: &mut [[f32; ROWS]]) -> usize {
    let width = turned.len();
    let (blocks, _) = turned.as_chunks_mut::<ROWS>();
    for (block, target) in blocks.iter_mut().enumerate() {
        // SAFETY: a block of columns, which all rows have.
        unsafe { stored(columns(down.as_ptr().add(ROWS * block), width), target) };
    }
    blocks.len() * ROWS
}

/// Sixteen columns of as many rows, `stride` numbers apart.
///
/// # Safety
/// The machine has AVX-512F, and sixteen numbers of each row are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns(rows: *const f32, stride: usize) -> [__m512; ROWS] {
    // SAFETY: the caller's.
    let all = unsafe { [0, 4, 8, 12].map(|x| four(rows.add(x), stride)) };
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = all;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Four columns of sixteen rows, `stride` numbers apart.
///
/// # Safety
/// The machine has AVX-512F, and four numbers of each row are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn four(rows: *const f32, stride: usize) -> [__m512; 4] {
    // Of rows i, i + 4, i + 8 and i + 12, each in a quarter.
    let rows = |i: usize| -> __m512 {
        // SAFETY: four numbers of a row.
        let quarter = |row: usize| unsafe { _mm_loadu_ps(rows.add(row * stride)) };
        let all = _mm512_castps128_ps512(quarter(i));
        let all = _mm512_insertf32x4::<1>(all, quarter(i + 4));
        let all = _mm512_insertf32x4::<2>(all, quarter(i + 8));
        _mm512_insertf32x4::<3>(all, quarter(i + 12))
    };
    let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
    // In each quarter a0 b0 a1 b1, a2 b2 a3 b3, and so on.
    let (ab, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (cd, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    [
        _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
        _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
        _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
        _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
    ]
}

/// As many columns as there is room for.
///
/// # Safety
/// The machine has AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn stored<const COLUMNS: usize>(columns: [__m512; COLUMNS], to: &mut [[f32; ROWS]]) {
    for (to, numbers) in to.iter_mut().zip(columns) {
        // SAFETY: a column has ROWS numbers, as many as are written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), numbers) };
    }
}

/// Pixels of columns from the first on, a multiple of 16 of them, to where they belong in the first lines of `square`, the
/// rows of which are `side` pixels: how many columns.
#[inline(always)]
pub fn write_upright(pixels: &[[u32; ROWS]], square: &mut [[u8; 3]], lines: usize, side: usize) -> usize {
    if !is_here() || lines > ROWS || side < pixels.len() || square.len() < lines * side {
        return 0;
    }
    // SAFETY: the machine has the instructions, and the square a pixel for each row of each column.
    unsafe { upright(pixels, square, lines, side) }
}

/// # Safety
/// The machine has AVX-512F and BW, and `square` is `[lines, side]` or larger, with `side` at least the number of columns.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn upright(pixels: &[[u32; ROWS]], square: &mut [[u8; 3]], lines: usize, side: usize) -> usize {
    let (blocks, _) = pixels.as_chunks::<ROWS>();
    for (block, columns_of) in blocks.iter().enumerate() {
        // SAFETY: sixteen columns of sixteen rows.
        let rows = unsafe { columns(columns_of.as_ptr().cast(), ROWS) };
        for (line, row) in rows.into_iter().take(lines).enumerate() {
            let place = line * side + ROWS * block;
            // SAFETY: sixteen pixels of that line.
            unsafe { pack(_mm512_castps_si512(row), square[place..][..ROWS].as_mut_ptr()) };
        }
    }
    blocks.len() * ROWS
}

/// The rows of a column, the last first, to the end of `line`, before its last `skipped` pixels.
///
/// `false` where this machine or the line is none for it, and nothing has been done.
#[inline(always)]
pub fn write_reversed(column: &[u32; ROWS], line: &mut [[u8; 3]], skipped: usize) -> bool {
    let Some(first) = line.len().checked_sub(skipped + ROWS) else {
        return false;
    };
    if !is_here() {
        return false;
    }
    // SAFETY: the machine has the instructions; sixteen pixels are there.
    unsafe { reversed(column, &mut line[first..][..ROWS]) };
    true
}

/// # Safety
/// The machine has AVX-512F and BW, and `line` sixteen pixels.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn reversed(column: &[u32; ROWS], line: &mut [[u8; 3]]) {
    let order = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    // SAFETY: a column has sixteen rows, and the line as many pixels.
    unsafe {
        let pixels = _mm512_loadu_si512(column.as_ptr().cast());
        pack(_mm512_permutexvar_epi32(order, pixels), line.as_mut_ptr());
    }
}

/// Three bytes of each of sixteen pixels.
///
/// # Safety
/// The machine has AVX-512F and BW, and sixteen pixels are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack(pixels: __m512i, to: *mut [u8; 3]) {
    let bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
    ));
    let quarters = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    let packed = _mm512_permutexvar_epi32(quarters, _mm512_shuffle_epi8(pixels, bytes));
    // SAFETY: 48 bytes are written.
    unsafe { _mm512_mask_storeu_epi8(to.cast(), first_lanes(3 * ROWS), packed) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::picture::resize_tests::Noise;

    /// Pixel `row` of column `column`, all of them different.
    fn pixel(column: usize, row: usize) -> u32 {
        let number = (column * ROWS + row) as u32;
        number.wrapping_mul(40_503) & 0x00ff_ffff | 0xee00_0000
    }

    fn bytes(pixel: u32) -> [u8; 3] {
        let [a, b, c, _] = pixel.to_le_bytes();
        [a, b, c]
    }

    const NOBODY: [u8; 3] = [1, 2, 3];

    #[test]
    fn columns_become_lines_and_nothing_beside_them() {
        if !is_here() {
            println!("SKIPPED: this processor has no AVX-512");
            return;
        }
        let mut noise = Noise(28);
        for _ in 0..300 {
            let width = noise.next(140) as usize;
            let (lines, side) = (noise.next(17) as usize, width + noise.next(9) as usize);
            let pixels: Vec<[u32; ROWS]> = (0..width)
                .map(|column| std::array::from_fn(|row| pixel(column, row)))
                .collect();
            let mut square = vec![NOBODY; lines * side + 5];
            let done = write_upright(&pixels, &mut square, lines, side);
            assert_eq!(done, width / ROWS * ROWS);
            for (at, got) in square.iter().enumerate() {
                let (line, column) = (at / side.max(1), at % side.max(1));
                let wanted = match line < lines && column < done {
                    true => bytes(pixel(column, line)),
                    false => NOBODY,
                };
                assert_eq!(
                    *got, wanted,
                    "line {line} of {lines}, column {column} of {width}, {side}"
                );
            }
            // One pixel too few, and a line too many.
            let short = (lines * side).saturating_sub(1);
            assert!(lines * side == 0 || write_upright(&pixels, &mut square[..short], lines, side) == 0);
            assert!(width < ROWS || write_upright(&pixels, &mut square, lines, width - 1) == 0);
        }
        let square = &mut vec![NOBODY; 17 * 16];
        assert_eq!(write_upright(&[[0; ROWS]; 16], square, 17, 16), 0);
    }

    #[test]
    fn a_column_ends_where_its_line_does() {
        if !is_here() {
            println!("SKIPPED: this processor has no AVX-512");
            return;
        }
        for length in 0..40 {
            for skipped in 0..30 {
                let column = std::array::from_fn(|row| pixel(3, row));
                let mut line = vec![NOBODY; length];
                let is_done = write_reversed(&column, &mut line, skipped);
                assert_eq!(is_done, length >= skipped + ROWS);
                for (at, got) in line.iter().enumerate() {
                    let row = length.checked_sub(skipped + 1 + at);
                    let wanted = match row.filter(|row| is_done && *row < ROWS) {
                        Some(row) => bytes(pixel(3, row)),
                        None => NOBODY,
                    };
                    assert_eq!(*got, wanted, "{at} of {length}, {skipped} skipped");
                }
            }
        }
    }
}
