//! Pictures from disk, with a bound on what a header may claim before anything is decoded.

use super::names::natural_key;
use crate::error::{Error, Result};
use crate::geometry::Size;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use std::path::{Path, PathBuf};

/// Largest decoded picture in bytes: 8192 x 8192 RGBA. EndoVis has 6 MB. A file of a few bytes can claim any size.
pub const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Suffixes of pictures that are read, in lower case.
pub const SUFFIXES: [&str; 8] = ["png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "gif"];

/// Whether `path` is named like a picture.
pub fn is_picture(path: &Path) -> bool {
    path.extension()
        .is_some_and(|s| SUFFIXES.contains(&s.to_string_lossy().to_ascii_lowercase().as_str()))
}

/// What [`list`] found in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Pictures, `frame2.png` before `frame10.png`.
    pub pictures: Vec<PathBuf>,
    /// `._*` files, which macOS leaves beside the real ones; they end in `.png` and are none.
    pub sidecars: usize,
}

/// Pictures in a folder; hidden files and everything that is not a file are left out.
///
/// # Errors
/// A folder that cannot be read.
pub fn list(folder: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder).map_err(|cause| Error::file(folder, cause))? {
        let path = entry.map_err(|cause| Error::file(folder, cause))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("._") {
            listing.sidecars += 1;
        } else if !name.starts_with('.') && is_picture(&path) && path.is_file() {
            listing.pictures.push(path);
        }
    }
    let key = |path: &PathBuf| natural_key(&path.file_name().unwrap_or_default().to_string_lossy());
    listing.pictures.sort_by_cached_key(key);
    Ok(listing)
}

/// Opens a picture and checks the size its header claims.
fn decoder(path: &Path) -> Result<(impl ImageDecoder, Size)> {
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|cause| Error::file(path, cause))?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|cause| Error::file(path, cause))?;
    let (width_px, height_px) = decoder.dimensions();
    let size = Size::checked(width_px, height_px).map_err(|cause| {
        Error::file(
            path,
            format!("the picture claims {width_px}x{height_px}: {cause}"),
        )
    })?;
    if decoder.total_bytes() > MAX_DECODED_BYTES {
        let cause = format!(
            "the picture claims {width_px}x{height_px}, {} bytes when decoded; at most {MAX_DECODED_BYTES} are read",
            decoder.total_bytes()
        );
        return Err(Error::file(path, cause));
    }
    Ok((decoder, size))
}

/// The size in a picture's header; nothing is decoded.
///
/// # Errors
/// A file that cannot be read, is no picture, or claims more than [`MAX_DECODED_BYTES`].
pub fn size(path: &Path) -> Result<Size> {
    Ok(decoder(path)?.1)
}

/// Decodes a picture in whatever channels it has.
///
/// # Errors
/// As [`size`], and a picture that is cut short or broken.
pub fn read(path: &Path) -> Result<DynamicImage> {
    let (decoder, _) = decoder(path)?;
    DynamicImage::from_decoder(decoder).map_err(|cause| Error::file(path, cause))
}

/// Decodes a photo as RGB the way up that its EXIF data say, as viewers show it; alpha is dropped, gray is repeated.
///
/// # Errors
/// As [`read`].
pub fn read_upright(path: &Path) -> Result<RgbImage> {
    let (mut decoder, _) = decoder(path)?;
    // A picture whose EXIF data are broken is shown as it lies.
    let orientation = decoder
        .orientation()
        .unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|cause| Error::file(path, cause))?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Decodes a picture as RGB; alpha is dropped, grey is repeated.
///
/// # Errors
/// As [`read`].
pub fn read_rgb(path: &Path) -> Result<RgbImage> {
    Ok(read(path)?.into_rgb8())
}

/// Refuses a picture that EXIF marks as turned: nothing says whether its labels were drawn on the stored or on the
/// turned picture.
///
/// # Errors
/// As [`size`], an empty file, and a picture that is marked as turned.
pub(super) fn upright(path: &Path) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Err(Error::file(path, "the file is empty: it has 0 bytes"));
    }
    let (mut decoder, _) = decoder(path)?;
    let orientation = decoder.orientation().map_err(|cause| Error::file(path, cause))?;
    if orientation == image::metadata::Orientation::NoTransforms {
        return Ok(());
    }
    let cause = format!(
        "invalid EXIF orientation {} (expected 1): nothing says whether labels belong to the stored or the turned \
         picture. Write frames and labels upright, for example with `mogrify -auto-orient`",
        orientation.to_exif()
    );
    Err(Error::file(path, cause))
}

/// Width and height of a decoded picture.
pub fn size_of<P: image::Pixel, C: std::ops::Deref<Target = [P::Subpixel]>>(
    picture: &image::ImageBuffer<P, C>,
) -> Size {
    Size {
        width_px: picture.width(),
        height_px: picture.height(),
    }
}
