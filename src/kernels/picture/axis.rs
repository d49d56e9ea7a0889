//! The weights of an area average, or of bilinear enlarging, along one axis.
//!
//! Output `j` of an axis of `length` source samples and `side` outputs is a weighted sum:
//! ```text
//! shrinking   weight of sample i = overlap of [i, i+1) with [j length/side, (j+1) length/side), over length/side
//! enlarging   x = (j + 1/2) length/side - 1/2, between the samples around x, the outermost repeated
//! ```

/// Weights along one axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// First sample of each output.
    first: Vec<u32>,
    /// Where each output's weights begin; one more than outputs.
    begin: Vec<u32>,
    weights: Vec<f32>,
}

impl Axis {
    /// From `length` samples to `side` outputs, both at least 1.
    pub fn new(length: u32, side: u32) -> Self {
        let mut axis = Axis {
            first: Vec::new(),
            begin: vec![0],
            weights: Vec::new(),
        };
        for j in 0..side {
            if length >= side {
                axis.add_area(j, length, side)
            } else {
                axis.add_bilinear(j, length, side)
            }
            axis.begin.push(axis.weights.len() as u32);
        }
        axis
    }

    fn add_area(&mut self, j: u32, length: u32, side: u32) {
        // In units of 1/side of a sample everything is whole.
        let (length, side) = (u64::from(length), u64::from(side));
        let (low, high) = (u64::from(j) * length, u64::from(j + 1) * length);
        let first = low / side;
        self.first.push(first as u32);
        for i in first..=(high - 1) / side {
            let overlap = high.min((i + 1) * side) - low.max(i * side);
            self.weights.push(overlap as f32 / length as f32);
        }
    }

    fn add_bilinear(&mut self, j: u32, length: u32, side: u32) {
        let x = (f64::from(j) + 0.5) * f64::from(length) / f64::from(side) - 0.5;
        let x = x.clamp(0.0, f64::from(length - 1));
        let first = x.floor();
        let part = (x - first) as f32;
        self.first.push(first as u32);
        self.weights.push(1.0 - part);
        if part > 0.0 {
            self.weights.push(part);
        }
    }

    /// The same for samples that two pixels share, counted from the pair of pixel 0: the second of its pair if `start`
    /// is 1. A sample weighs what its pixels weigh together.
    pub fn of_pairs(&self, start: usize) -> Self {
        let mut pairs = Axis {
            first: Vec::with_capacity(self.first.len()),
            begin: vec![0],
            weights: Vec::new(),
        };
        for j in 0..self.first.len() {
            let (first, weights) = self.output(j);
            let first = first + start;
            pairs.first.push((first / 2) as u32);
            let mut pair = None;
            for (pixel, weight) in (first..).zip(weights) {
                match pairs.weights.last_mut() {
                    Some(sum) if pair == Some(pixel / 2) => *sum += weight,
                    _ => pairs.weights.push(*weight),
                }
                pair = Some(pixel / 2);
            }
            pairs.begin.push(pairs.weights.len() as u32);
        }
        pairs
    }

    /// How many samples there are that any output is summed from.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "asked for elsewhere")
    )]
    pub fn samples(&self) -> usize {
        self.first.last().map_or(0, |&first| {
            let [before, end] = [self.begin.len() - 2, self.begin.len() - 1];
            first as usize + (self.begin[end] - self.begin[before]) as usize
        })
    }

    /// The first sample of output `j` and the weights of it and the following.
    #[inline(always)]
    pub fn output(&self, j: usize) -> (usize, &[f32]) {
        (
            self.first[j] as usize,
            &self.weights[self.begin[j] as usize..self.begin[j + 1] as usize],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_weighs_what_its_pixels_weigh() {
        for (length, side) in [(1, 1), (2, 1), (5, 2), (7, 7), (9, 4), (3, 8), (31, 5), (64, 32)] {
            let pixels = Axis::new(length, side);
            for start in [0, 1] {
                let pairs = pixels.of_pairs(start);
                for j in 0..side as usize {
                    let (first, weights) = pixels.output(j);
                    let mut want = vec![0.0; (length as usize + start).div_ceil(2)];
                    for (i, weight) in weights.iter().enumerate() {
                        want[(first + i + start) / 2] += weight;
                    }
                    let (first, weights) = pairs.output(j);
                    let mut got = vec![0.0; want.len()];
                    got[first..first + weights.len()].copy_from_slice(weights);
                    assert_eq!(got, want, "{length} to {side}, output {j}, start {start}");
                    assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                }
            }
        }
    }
}
