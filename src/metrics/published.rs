//! What others have published on EndoVis 2018's test set, for the eye to compare with.
//!
//! The rows are those of the table in MA-SAM's paper (arXiv 2309.08842), which takes the first three from the challenge
//! itself (arXiv 2001.11190). Papers differ in how they average and at which size they score, so a row compares with
//! one of our [conventions](super::Convention) only as far as its authors say what they did.

/// One method's scores, in percent.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PublishedRow {
    /// Short name and source.
    pub method: &'static str,
    /// Mean IoU over the whole test set.
    pub mean_iou: f64,
    /// Mean IoU of test sequences 1 to 4.
    pub sequence_iou: [f64; 4],
    /// Mean Dice over the test set, where it was published.
    pub dice: Option<f64>,
}

const fn row(method: &'static str, mean_iou: f64, sequence_iou: [f64; 4], dice: Option<f64>) -> PublishedRow {
    PublishedRow {
        method,
        mean_iou,
        sequence_iou,
        dice,
    }
}

/// EndoVis 2018, the released test sequences 1 to 4.
pub const ENDOVIS_2018_TEST: [PublishedRow; 8] = [
    row("NCT (Shvets 2018)", 58.5, [65.8, 55.5, 76.5, 36.2], None),
    row("UNC (Ren 2020)", 60.7, [63.3, 57.8, 81.4, 37.3], None),
    row("OTH (Chen 2018)", 62.1, [69.1, 57.5, 82.9, 39.0], None),
    row(
        "Noisy-LSTM (Wang 2021)",
        60.4,
        [67.0, 56.3, 81.8, 36.4],
        Some(69.1),
    ),
    row("STswinCL (Jin 2022)", 63.6, [67.0, 63.4, 83.7, 40.3], Some(72.0)),
    row(
        "nnU-Net (Isensee 2021)",
        58.7,
        [65.7, 57.5, 81.3, 30.4],
        Some(67.1),
    ),
    row("SAMed_h (Zhang 2023)", 66.5, [68.7, 60.7, 84.3, 52.3], Some(74.7)),
    row("MA-SAM", 69.2, [73.4, 64.5, 85.4, 53.4], Some(77.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The test sequences are of equal length, so the whole is their mean up to rounding: catches a mistyped digit.
    /// One published row does not agree with itself.
    #[test]
    fn rows_agree_with_themselves() {
        for row in ENDOVIS_2018_TEST {
            let mean = row.sequence_iou.iter().sum::<f64>() / 4.0;
            let apart = if row.method.starts_with("UNC") { 0.76 } else { 0.11 };
            assert!((mean - row.mean_iou).abs() < apart, "{}: {mean}", row.method);
        }
    }
}
