//! One clip through the library: five pictures in, a mask for the last one out.
//!
//! ```sh
//! cargo run --release --example one_clip -- weights/demo.safetensors mask.png frame1.png … frame5.png
//! ```

use masam::geometry::Orientation;
use masam::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use masam::kernels::picture::resize_reference::resize_reference;
use masam::runtime::{self, OpenOptions};
use masam::segmenter::{ModelFrame, Plane, Prompt, Request, StreamId, Want};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: one_clip MODEL MASK.png FRAME.png …";
    let (model, mask) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let mut segmenter = runtime::open(model.as_ref(), &OpenOptions::default())?;
    let side = segmenter.spec().side_px;

    let mut frames = Vec::new();
    for path in arguments {
        let picture = image::open(&path)?.to_rgb8();
        let size = masam::geometry::Size::checked(picture.width(), picture.height())?;
        let plane = PlaneRef {
            data: picture.as_raw(),
            stride_bytes: size.width_px as usize * 3,
        };
        let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB)?;
        let mut square = vec![0; side as usize * side as usize * 3];
        resize_reference(&picture, size.rect(), side, Orientation::Upright, &mut square)?;
        frames.push(ModelFrame { rgb: square.into() });
    }
    let last = frames.len().checked_sub(1).ok_or(usage)?;
    let request = Request {
        stream: StreamId(0),
        frames,
        outputs: vec![last],
        want: Want::Labels,
        prompt: Prompt::default(),
        step: None,
    };
    let reply = segmenter
        .segment(&[request], None)
        .pop()
        .ok_or("one request, one reply")??;
    if let Some(Plane::Labels(ids)) = reply.planes.into_iter().next() {
        let classes = segmenter.spec().classes.clone();
        let colors = ids
            .iter()
            .flat_map(|&id| classes.get(id).map_or([0; 3], |c| c.color))
            .collect();
        image::RgbImage::from_raw(side, side, colors)
            .ok_or("a whole square")?
            .save(&mask)?;
        println!(
            "{mask}: {side} x {side} pixels, {} on {}",
            segmenter.spec().model_id,
            segmenter.spec().device
        );
    }
    Ok(())
}
