//! One checked door to `gemm`: products of strided float32 matrices.

use candle_core::{Result, bail};
use gemm::Parallelism;

/// A matrix over borrowed floats: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// Rows of `columns` adjacent elements, each `row_stride` after the one before.
    pub fn rows(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Any strides.
    pub fn strided(data: &'a [f32], size: (usize, usize), strides: (usize, usize)) -> Self {
        let ((rows, columns), (row_stride, column_stride)) = (size, strides);
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        } = self;
        Self {
            data,
            rows: columns,
            columns: rows,
            row_stride: column_stride,
            column_stride: row_stride,
        }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.data.len()
    }
}

/// What stands in the output before the product is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing: the output is overwritten.
    Zero,
    /// What it holds.
    Output,
}

/// Threads that one product is split over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The caller's alone, for products inside a parallel task.
    One,
    /// All of the current rayon pool.
    Pool,
}

/// `output (+)= factor * left * right`; `output` holds `left.rows * right.columns` elements row by row.
///
/// # Errors
/// Sizes that do not fit one another or their data.
pub fn product(
    output: &mut [f32],
    start: Start,
    factor: f32,
    left: View<'_>,
    right: View<'_>,
    threads: Threads,
) -> Result<()> {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    if output.len() != m * n || right.rows != k || !left.fits() || !right.fits() {
        bail!(
            "a product of {m}x{k} and {}x{n} into {} elements does not fit",
            right.rows,
            output.len()
        );
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::Pool => Parallelism::Rayon(rayon::current_num_threads()),
    };
    let previous = if start == Start::Output { 1.0f32 } else { 0.0 };
    // SAFETY: every element that the strides reach lies inside its slice (checked above; slices are at most
    // isize::MAX bytes, so the casts hold), and the borrow of `output` is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            output.as_mut_ptr(),
            1,
            n as isize,
            start == Start::Output,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            previous,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_products_equal_the_definition() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 2, 40), (4, 4, 0)] {
            let a: Vec<f32> = (0..m * k * 2).map(|i| (i % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let left = View::strided(&a, (m, k), (2 * k, 2));
            let right = View::rows(&b, n, k, k).transposed();
            let mut got = vec![1.0; m * n];
            product(&mut got, Start::Output, 0.5, left, right, Threads::Pool).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let sum: f32 = (0..k).map(|l| a[i * 2 * k + 2 * l] * b[j * k + l]).sum();
                    assert_eq!(got[i * n + j], 1.0 + 0.5 * sum, "{m} {n} {k} at {i} {j}");
                }
            }
        }
    }

    #[test]
    fn views_beyond_their_data_are_refused() {
        let a = [1.0; 8];
        let mut output = [0.0; 4];
        let (good, long) = (View::rows(&a, 2, 2, 2), View::rows(&a, 2, 2, 7));
        assert!(product(&mut output, Start::Zero, 1.0, good, good, Threads::One).is_ok());
        assert!(product(&mut output, Start::Zero, 1.0, long, good, Threads::One).is_err());
        assert!(product(&mut output[..3], Start::Zero, 1.0, good, good, Threads::One).is_err());
    }
}
