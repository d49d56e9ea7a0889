//! Counted memory: what a forward pass holds at once at the least, so that what cannot fit is refused before it is
//! begun.

use super::config::ModelConfig;

impl ModelConfig {
    /// Bytes of all weights, `value_bytes` each. The configuration has to be valid.
    pub fn weight_bytes(&self, value_bytes: u64) -> u64 {
        (self.parameters() as u64).saturating_mul(value_bytes)
    }

    /// Bytes that a forward pass over `images` frames holds at once at the least, `value_bytes` a value: weights, the
    /// clip, and the larger of a block and the output. The configuration has to be valid.
    ///
    /// A block holds its input beside either qkv and what attention gives, or its MLP's hidden values before and after
    /// their activation. The output is the class products of the decoder's side beside those of the input's side.
    pub fn forward_bytes(&self, images: usize, value_bytes: u64) -> u64 {
        let count = |factors: &[usize]| {
            factors
                .iter()
                .fold(value_bytes, |bytes, &factor| bytes.saturating_mul(factor as u64))
        };
        let tokens = self.grid_side().pow(2);
        let clip = count(&[images, 3, self.image_side_px, self.image_side_px]);
        let block = count(&[
            images,
            tokens,
            self.encoder_width,
            1 + (3 + 1).max(2 * self.mlp_ratio),
        ]);
        let output = count(&[
            images,
            self.classes,
            self.image_side_px.pow(2) + self.decoded_side_px().pow(2),
        ]);
        [self.weight_bytes(value_bytes), clip, block.max(output)]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_clip_of_the_largest_model_needs_tens_of_gigabytes() {
        let config = ModelConfig {
            image_side_px: 2048,
            ..ModelConfig::vit_h()
        };
        let gigabytes = config.forward_bytes(64, 4) as f64 / 1e9;
        // 64 frames of 128 x 128 tokens, 1280 channels, nine times over: 48.3; clip 3.2; weights 2.7.
        assert!((gigabytes - 54.2).abs() < 0.5, "{gigabytes}");
    }
}
