//! Pictures of a video to masks: shows them to a model in their order and saves the mask of the last one.
//!
//! ```sh
//! cargo run --release --example one_clip -- weights/demo.safetensors mask.png frame1.png … frame5.png
//! ```

use masam::{Predictor, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: one_clip MODEL MASK.png FRAME.png …";
    let (model, output) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let mut predictor = Predictor::open(model)?;
    let mut last = None;
    for path in arguments {
        let frame = image::open(&path)?.to_rgb8();
        last = predictor.push(&frame)?;
    }
    let mask = last.ok_or(usage)?;
    mask.colors().save(&output)?;
    let (width, height) = mask.ids.dimensions();
    let spec = predictor.spec();
    println!(
        "{output}: {width} x {height} pixels, {} on {}",
        spec.model_id, spec.device
    );
    Ok(())
}
