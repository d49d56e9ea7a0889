//! Counted operations: what a forward pass has to compute, multiplications and additions counted apart.
//!
//! Only products are counted (they are all but a percent), and only what the output depends on: tokens that pad a
//! partition are no queries and are not projected; as keys and values they are counted, because every query meets
//! them.

use super::config::ModelConfig;

/// Floating-point operations of one clip, by part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Operations {
    /// Patch embedding.
    pub patch_embedding: f64,
    /// qkv and output projections, FacT folded in.
    pub projections: f64,
    /// Scores, relative positions and the weighted sum of values.
    pub attention: f64,
    /// Temporal adapters.
    pub adapters: f64,
    /// MLPs of the image encoder.
    pub mlps: f64,
    /// Neck.
    pub neck: f64,
    /// Two-way transformer, upscaling and class products.
    pub decoder: f64,
}

impl Operations {
    /// The sum.
    pub fn total(&self) -> f64 {
        let encoder = self.patch_embedding + self.projections + self.attention + self.adapters + self.mlps;
        encoder + self.neck + self.decoder
    }
}

/// Floating-point operations of one frame in one block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BlockOperations {
    /// An adapter's way down, which neighbouring frames need as well.
    pub(crate) adapter_down: f64,
    /// Its convolution and its way up.
    pub(crate) adapter_rest: f64,
    /// qkv and output projections.
    pub(crate) projections: f64,
    /// Scores, relative positions and the weighted sum of values.
    pub(crate) attention: f64,
    /// The MLP.
    pub(crate) mlp: f64,
}

fn product(rows: usize, inputs: usize, outputs: usize) -> f64 {
    2.0 * rows as f64 * inputs as f64 * outputs as f64
}

impl ModelConfig {
    /// Operations of a forward pass over `encoded` frames of which `decoded` go through the mask decoder, without
    /// prompts. The configuration has to be valid.
    pub fn operations(&self, encoded: usize, decoded: usize) -> Operations {
        let (e, d) = (encoded as f64, decoded as f64);
        let mut sum = Operations {
            patch_embedding: e * self.patch_operations(),
            neck: e * self.neck_operations(),
            decoder: d * self.decoder_operations(),
            ..Operations::default()
        };
        let adapters = self.adapters_in_block() as f64;
        for block in 0..self.encoder_depth {
            let frame = self.block_operations(block);
            sum.projections += e * frame.projections;
            sum.attention += e * frame.attention;
            sum.mlps += e * frame.mlp;
            sum.adapters += e * adapters * (frame.adapter_down + frame.adapter_rest);
        }
        sum
    }

    /// Of one frame's patches.
    pub(crate) fn patch_operations(&self) -> f64 {
        let inputs = 3 * self.patch_side_px * self.patch_side_px;
        product(self.grid_side().pow(2), inputs, self.encoder_width)
    }

    /// Of one frame's neck.
    pub(crate) fn neck_operations(&self) -> f64 {
        let (tokens, width) = (self.grid_side().pow(2), self.prompt_width);
        product(tokens, self.encoder_width, width) + product(tokens, 9 * width, width)
    }

    /// Of one frame in one block.
    pub(crate) fn block_operations(&self, block: usize) -> BlockOperations {
        let (tokens, width, inner) = (self.grid_side().pow(2), self.encoder_width, self.adapter_width);
        let span = self.span_side(block);
        BlockOperations {
            adapter_down: product(tokens, width, inner),
            adapter_rest: product(tokens, 3 * inner, inner) + product(tokens, inner, width),
            projections: product(tokens, width, 3 * width) + product(tokens, width, width),
            attention: 2.0 * product(tokens, width, span * span) + product(tokens, width, 2 * span),
            mlp: 2.0 * product(tokens, width, self.mlp_ratio * width),
        }
    }

    /// Of one frame's masks.
    pub(crate) fn decoder_operations(&self) -> f64 {
        let (width, grid) = (self.prompt_width, self.grid_side());
        let (image, tokens) = (grid * grid, 1 + self.classes);
        let attention = |queries: usize, keys: usize, inner: usize| {
            2.0 * product(queries, width, inner)
                + 2.0 * product(keys, width, inner)
                + 2.0 * product(queries, inner, keys)
        };
        let layer = attention(tokens, tokens, width)
            + attention(tokens, image, width / 2)
            + attention(image, tokens, width / 2)
            + 2.0 * product(tokens, width, self.decoder_mlp_width);
        let widths = self.upscaling_widths();
        let upscaling: f64 = (widths.windows(2).enumerate())
            .map(|(i, pair)| {
                let skip = if i < self.skips() {
                    product(image, self.encoder_width, pair[1])
                } else {
                    0.0
                };
                product(image << (2 * i), pair[0], 4 * pair[1]) + skip
            })
            .sum();
        let pixel = widths[widths.len() - 1];
        let heads = self.classes as f64 * (2.0 * product(1, width, width) + product(1, width, pixel))
            + 2.0 * product(1, width, width)
            + product(1, width, self.classes);
        self.decoder_depth as f64 * layer
            + attention(tokens, image, width / 2)
            + upscaling
            + heads
            + product(self.decoded_side_px().pow(2), pixel, self.classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vit_b_and_vit_h_cost_what_is_known() {
        // 1.26 and 7.7 TFLOP for five frames at 512 px, counted independently.
        let of = |config: ModelConfig| config.operations(5, 5).total() / 1e12;
        assert!(
            (of(ModelConfig::vit_b()) - 1.26).abs() < 0.03,
            "{}",
            of(ModelConfig::vit_b())
        );
        assert!(
            (of(ModelConfig::vit_h()) - 7.7).abs() < 0.2,
            "{}",
            of(ModelConfig::vit_h())
        );
    }

    #[test]
    fn undecoded_frames_cost_no_decoder() {
        let config = ModelConfig::vit_b();
        let (all, one) = (config.operations(5, 5), config.operations(5, 1));
        assert_eq!(all.total() - all.decoder, one.total() - one.decoder);
        assert!((all.decoder / one.decoder - 5.0).abs() < 1e-9);
    }
}
