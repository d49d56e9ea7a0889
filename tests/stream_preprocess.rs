//! The reference's frame preparation against tensors made with scipy: those that are part of the program, and others
//! from the folder that `MASAM_GOLDENS` names.

use masam::geometry::{Orientation, Size};
use masam::golden::FIXTURES;
use masam::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use masam::kernels::picture::resize_reference::{resize_reference, zoom_labels};
use safetensors::SafeTensors;

#[test]
fn the_reference_resize_equals_scipys() {
    let fixture = FIXTURES.iter().find(|f| f.name == "preprocess").unwrap();
    check(fixture.bytes);
}

#[test]
fn the_reference_resize_equals_scipys_on_other_frames() {
    let folder = std::env::var_os("MASAM_GOLDENS").map(std::path::PathBuf::from);
    let Some(bytes) = folder.and_then(|f| std::fs::read(f.join("preprocess.safetensors")).ok()) else {
        eprintln!("SKIPPED: MASAM_GOLDENS does not name a folder with preprocess.safetensors");
        return;
    };
    check(&bytes);
}

fn check(bytes: &[u8]) {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let frames = file.tensor("frames").unwrap();
    let (count, height, width) = (frames.shape()[0], frames.shape()[1], frames.shape()[2]);
    let side = file.tensor("resized").unwrap().shape()[1];
    let size = Size {
        width_px: width as u32,
        height_px: height as u32,
    };
    let square_bytes = side * side * 3;
    let mut far = 0_usize;
    for (name, orientation) in [
        ("resized", Orientation::Upright),
        ("turned", Orientation::Transposed),
    ] {
        let wanted = file.tensor(name).unwrap();
        for frame in 0..count {
            let data = &frames.data()[frame * height * width * 3..][..height * width * 3];
            let plane = PlaneRef {
                data,
                stride_bytes: width * 3,
            };
            let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
            let mut square = vec![0; square_bytes];
            resize_reference(&picture, size.rect(), side as u32, orientation, &mut square).unwrap();
            for (got, want) in square.iter().zip(&wanted.data()[frame * square_bytes..]) {
                assert!(got.abs_diff(*want) <= 1, "{name} {frame}: {got} {want}");
                far += usize::from(got != want);
            }
        }
    }
    println!("{far} bytes of {} differ by one level", count * square_bytes * 2);
    let (ids, wanted) = (file.tensor("ids").unwrap(), file.tensor("labels").unwrap());
    for frame in 0..count {
        let zoomed = zoom_labels(
            &ids.data()[frame * height * width..][..height * width],
            size,
            side as u32,
        );
        assert_eq!(zoomed, wanted.data()[frame * side * side..][..side * side]);
    }
}
