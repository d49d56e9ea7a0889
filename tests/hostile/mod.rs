//! What is done with input from outside, whatever it holds: shared by the seeded test and by the targets of `fuzz/`.
//! Nothing here may panic, hang or take much memory; errors are fine.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use masam::checkpoint::pth::PthFile;
use masam::checkpoint::{Checkpoint, ModelFile, Selection, source};
use masam::data::class_table;
use masam::geometry::{ModelSquare, Orientation, Rect, Size};
use masam::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef, RgbRow};
use masam::labels::{ClassSet, parse_color};
use masam::prompt::FramePrompt;
use masam::runtime::{DeviceChoice, PrecisionChoice};
use masam::segmenter::Resize;
use masam::stream::faulty::FaultPlan;
use masam::stream::{Emit, Squarer};
use std::path::Path;

#[path = "../pth/archives.rs"]
mod archives;

/// Property strings: palettes, class lists, regions, prompts, devices, modes.
pub fn strings(text: &str) {
    let classes = ClassSet::endovis_2018();
    let _ = classes.id_of(text);
    let _ = parse_color(text);
    if let Ok(ids) = classes.ids_of(text) {
        assert!(ids.iter().all(|&id| usize::from(id) < classes.len()));
    }
    if let Ok(colored) = classes.recolored(text) {
        assert_eq!(colored.len(), classes.len());
    }
    let frame = Size {
        width_px: 640,
        height_px: 480,
    };
    if let Ok(region) = Rect::parse(text) {
        let _ = region.fits(frame);
    }
    if let Ok(prompt) = text.parse::<FramePrompt>() {
        let square = ModelSquare {
            region: frame.rect(),
            side_px: 256,
            orientation: Orientation::Transposed,
            alignment: Resize::Area.alignment(),
        };
        let _ = prompt.in_square(frame, &square);
        assert_eq!(prompt.to_string().parse::<FramePrompt>().unwrap(), prompt);
    }
    let _ = text.parse::<DeviceChoice>();
    let _ = text.parse::<PrecisionChoice>();
    let _ = text.parse::<Emit>();
    let _ = text.parse::<FaultPlan>();
}

/// A picture as a buffer describes it: format, size, region, strides and offsets out of the first bytes, pixels out of
/// the rest.
pub fn geometry(bytes: &[u8]) {
    let Some((head, pixels)) = bytes.split_at_checked(20) else {
        return;
    };
    let number = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let format = PixelFormat::ALL[usize::from(head[0]) % PixelFormat::ALL.len()];
    // Mostly small, now and then enormous.
    let side = |at: usize| {
        if head[1] & 1 == 0 {
            number(at) % 80
        } else {
            number(at) << 8
        }
    };
    let size = Size {
        width_px: side(2),
        height_px: side(4),
    };
    let region = Rect {
        x_px: number(6) % 90,
        y_px: number(8) % 90,
        width_px: number(10) % 90,
        height_px: number(12) % 90,
    };
    // Mostly no byte more than the last row takes, so that reading past it shows.
    let cut = |data, stride_bytes: usize, plane: usize| -> &[u8] {
        let data: &[u8] = data;
        let (row_bytes, rows) = format.plane_bytes(plane, size);
        let needed = rows
            .saturating_sub(1)
            .saturating_mul(stride_bytes)
            .saturating_add(row_bytes);
        if head[1] & 32 == 0 && plane < format.planes() {
            data.get(..needed).unwrap_or(data)
        } else {
            data
        }
    };
    let planes: Vec<PlaneRef> = (0..3)
        .map(|plane| {
            let offset = usize::from(head[14 + plane]) * 3;
            let stride_bytes = match head[1] & 2 {
                0 => usize::from(head[17 + plane]),
                _ => usize::MAX / (1 + usize::from(head[17 + plane])),
            };
            PlaneRef {
                data: cut(pixels.get(offset..).unwrap_or_default(), stride_bytes, plane),
                stride_bytes,
            }
        })
        .collect();
    let given = planes.get(..usize::from(head[1] >> 2) % 4).unwrap_or_default();
    let Ok(picture) = Picture::new(format, size, given, ColorSpace::RGB) else {
        return;
    };
    let mut row = RgbRow::default();
    picture.read_row(size.height_px - 1, 0, size.width_px, &mut row);
    for resize in [Resize::Area, Resize::Reference] {
        let mut squarer = Squarer::new(16, resize, Orientation::Transposed);
        let fits = region.fits(size);
        assert_eq!(
            squarer.square(&picture, region).is_ok(),
            fits,
            "{format:?} {size:?} {region:?}"
        );
        let field = picture.field(head[1] & 16 != 0);
        let last = field.size().height_px - 1;
        field.read_row(last, 0, size.width_px, &mut row);
        let _ = squarer.square(&field, region);
        let _ = squarer.square(&field, field.size().rect());
    }
}

/// `labels.json`.
pub fn class_table(bytes: &[u8], path: &Path) {
    std::fs::write(path, bytes).expect("a place for the file");
    let _ = class_table::read(path);
    let _ = class_table::union(&[path.to_owned()]);
}

/// A model file. Bytes that begin with a brace are a header up to their last brace and then the weights: the header's
/// length is put in front, which mutations seldom get right.
pub fn model_file(bytes: &[u8], path: &Path) {
    let end = bytes.iter().rposition(|&byte| byte == b'}');
    let file = match end.filter(|_| bytes.starts_with(b"{")) {
        Some(end) => [&(end as u64 + 1).to_le_bytes(), bytes].concat(),
        None => bytes.to_vec(),
    };
    std::fs::write(path, file).expect("a place for the file");
    let _ = ModelFile::read_card(path);
    let _ = ModelFile::read(path);
    let _ = source::read(path);
}

/// Lengths of the storages of tests/fixtures/pth/views.pth.
const STORAGES_BYTES: [usize; 8] = [96, 8, 160, 96, 48, 4, 12, 16];

/// A checkpoint of PyTorch's. Bytes that begin as a pickle are the `data.pkl` of an archive that is in order, but for those
/// of the format before PyTorch 1.6, which are the file.
pub fn pth(bytes: &[u8], path: &Path) {
    let file = match bytes.starts_with(b"\x80") && bytes.get(2) != Some(&0x8a) {
        true => archives::checkpoint(bytes, &STORAGES_BYTES.map(|length| &[0; 160][..length])),
        false => bytes.to_vec(),
    };
    std::fs::write(path, file).expect("a place for the file");
    for selection in [Selection::Ema, Selection::Key("model".into())] {
        let _ = Checkpoint::open(path, &selection).map(|checkpoint| checkpoint.kind());
    }
    let Ok(file) = PthFile::open(path) else { return };
    let small = file
        .tensors()
        .iter()
        .filter(|(_, info)| info.elem_count() <= 1 << 16);
    for (name, _) in small.take(8) {
        let _ = file.read(name);
    }
}
