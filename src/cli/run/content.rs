//! Tells by its first bytes what a file is, whatever its name says, and what to do with one that holds no video.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A picture that `image` decodes.
    Picture,
    /// Pictures with their times in one file, which `image` decodes: GIF, animated WebP, animated PNG.
    Animation,
    /// What GStreamer may know.
    Stream,
    /// Neither: what it is, and what to do.
    Foreign(String),
}

/// Bytes that are enough to tell.
pub(super) const HEAD_BYTES: usize = 4096;

/// Reads the beginning of a file.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn head_of(file: impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Tells what `head`, the first [`HEAD_BYTES`] of a file or all of a shorter one, belongs to.
pub(super) fn recognize(head: &[u8]) -> Content {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let foreign = |text: &str| Content::Foreign(text.into());
    if head.is_empty() {
        return foreign("the file is empty (0 bytes)");
    }
    if at(0, b"version https://git-lfs") {
        return foreign("a Git LFS pointer, not the file itself; fetch it with `git lfs pull`");
    }
    if let Some(volume) = volume(head) {
        return Content::Foreign(format!(
            "{volume}: volumes are not read; convert its slices to a folder of PNGs"
        ));
    }
    if at(128, b"DICM") || at(0, b"\x02\0\0\0UL") {
        return Content::Foreign(dicom(head));
    }
    if at(0, b"\x1f\x8b") {
        let mut inner = Vec::new();
        // A head alone ends in the middle; what came before that counts.
        let _ = flate2::read::GzDecoder::new(head)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut inner);
        return Content::Foreign(match recognize(&inner) {
            Content::Foreign(text) if !inner.is_empty() => format!("compressed by gzip; inside: {text}"),
            _ => "compressed by gzip; unpack it with `gunzip`".into(),
        });
    }
    if at(0, b"\x93NUMPY") {
        return foreign("a NumPy array; write its pictures to a folder of PNGs");
    }
    if at(0, b"\x89HDF\r\n") {
        return foreign("an HDF5 file; write its pictures to a folder of PNGs");
    }
    if at(8, b"{\"") && head.get(6..8) == Some(&[0, 0]) {
        return foreign("a .safetensors file, not a video; models are given with --model");
    }
    if at(0, b"\x80\x02") || at(0, b"\x80\x04\x95") {
        return foreign("a Python pickle, not a video; weights become a model with `masam convert`");
    }
    if let Ok(format) = image::guess_format(head) {
        use image::ImageFormat as Format;
        return match format {
            Format::Gif => Content::Animation,
            Format::WebP if at(12, b"VP8X") && head.get(20).is_some_and(|flags| flags & 2 != 0) => {
                Content::Animation
            }
            Format::Png if head.windows(4).take(1024).any(|window| window == b"acTL") => Content::Animation,
            Format::Png | Format::Jpeg | Format::Tiff | Format::Bmp | Format::WebP => Content::Picture,
            other => Content::Foreign(format!(
                "a picture of the kind {}, which is not read; convert it to PNG",
                other.extensions_str().first().unwrap_or(&"unknown")
            )),
        };
    }
    if let Some(kind) = infer::get(head) {
        use infer::MatcherType as Kind;
        let name = kind.extension();
        match kind.matcher_type() {
            Kind::Image => {
                return Content::Foreign(format!(
                    "a picture of the kind {name}, which is not read; convert it to PNG"
                ));
            }
            Kind::Archive if name == "pdf" => return foreign("a PDF document, not a video"),
            Kind::Archive => {
                return Content::Foreign(format!(
                    "an archive ({name}); unpack it and give the video or the folder of pictures inside"
                ));
            }
            Kind::Doc | Kind::Book => return Content::Foreign(format!("a document ({name}), not a video")),
            _ => {}
        }
    }
    match text(head) {
        Some(text) => Content::Foreign(text),
        None => Content::Stream,
    }
}

/// The kind of a scan's file.
fn volume(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let size = head.get(..4)?;
    let is = |bytes: u32| size == bytes.to_le_bytes() || size == bytes.to_be_bytes();
    if is(348) && (at(344, b"n+1\0") || at(344, b"ni1\0")) || is(540) && (at(4, b"n+2\0") || at(4, b"ni2\0"))
    {
        return Some("a NIfTI volume");
    }
    if is(348) && head.len() >= 348 {
        return Some("an Analyze volume");
    }
    if at(0, b"NRRD000") {
        return Some("an NRRD volume");
    }
    if at(0, b"ObjectType = Image") || at(0, b"NDims = ") {
        return Some("a MetaImage volume");
    }
    None
}

/// A DICOM file by its transfer syntax (PS3.5, annex A): from 1.2.840.10008.1.2.4.100 on, video is encapsulated.
fn dicom(head: &[u8]) -> String {
    const SYNTAX: &[u8] = b"\x02\0\x10\0UI";
    let uid = head
        .windows(SYNTAX.len())
        .position(|window| window == SYNTAX)
        .and_then(|start| {
            let length = head.get(start + 6..start + 8)?;
            let length = usize::from(u16::from_le_bytes([*length.first()?, *length.get(1)?]));
            head.get(start + 8..start + 8 + length)
        })
        .map(|uid| String::from_utf8_lossy(uid).trim_end_matches('\0').to_owned())
        .unwrap_or_default();
    let number = uid
        .strip_prefix("1.2.840.10008.1.2.4.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match number {
        Some(100..=108) => "DICOM with a video inside, which is not read; take the video out with \
                            `gdcmraw -i IN.dcm -o OUT.mp4` (Debian: libgdcm-tools) and run that"
            .into(),
        _ => "DICOM, which is not read; make pictures of it with `dcmj2pnm --write-png IN.dcm OUT.png` (Debian: dcmtk)"
            .into(),
    }
}

/// What a text is; `None` where it is none, or one that GStreamer plays.
fn text(head: &[u8]) -> Option<String> {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a letter.
        Err(error) if error.error_len().is_none() && head.len() == HEAD_BYTES => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    if valid.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let start = valid.trim_start_matches('\u{feff}').trim_start();
    let lower = start
        .get(..start.len().min(1024))
        .unwrap_or(start)
        .to_ascii_lowercase();
    if lower.starts_with("#extm3u") || lower.contains("<mpd") || lower.starts_with("v=0") {
        return None; // playlists and session descriptions
    }
    if lower.contains("<html") || lower.starts_with("<!doctype html") {
        return Some("a web page (HTML): the download gave a page instead of the file".into());
    }
    let line: String = start
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(40)
        .collect();
    Some(format!("a text file, not a video (it begins with {line:?})"))
}

/// Why a container cannot be read at all, where its own structure says so: an MP4 without its index, for example.
pub(super) fn why_unreadable(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let (mut place, mut data) = (0u64, false);
    // Boxes of ISO 14496-12, 4.2: size, type, and a long size where the first is 1.
    loop {
        let mut header = [0u8; 16];
        file.seek(SeekFrom::Start(place)).ok()?;
        let got = file.read(&mut header).ok()?;
        if got < 8 {
            break;
        }
        let kind = header.get(4..8)?;
        let known: [&[u8]; 8] = [
            b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"pnot",
        ];
        if !known.contains(&kind) || (place == 0 && kind == b"free") {
            return None;
        }
        let size = match u32::from_be_bytes(header.get(..4)?.try_into().ok()?) {
            0 => length.saturating_sub(place),
            1 => u64::from_be_bytes(header.get(8..16)?.try_into().ok()?),
            size => u64::from(size),
        };
        if kind == b"moov" && place.checked_add(size)? <= length {
            return None;
        }
        data |= kind == b"mdat";
        place = place.checked_add(size.max(8))?;
        if place >= length {
            break;
        }
    }
    data.then(|| {
        "its index (moov) is missing: the recording or the copy was cut off, or it is still being written. Copy it \
         again; where there is no better copy, `untrunc` rebuilds the index with an intact file of the same camera"
            .into()
    })
}

/// Whether an MP4 or MOV file has a timecode track, which GStreamer's demuxer passes over.
pub(super) fn has_timecode(path: &Path) -> bool {
    /// Of the beginning and the end, where the index lies.
    const SEARCHED: u64 = 4 << 20;
    let search = || -> std::io::Result<bool> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let mut head = [0u8; 12];
        file.read_exact(&mut head)?;
        if head.get(4..8) != Some(b"ftyp") && head.get(4..8) != Some(b"moov") {
            return Ok(false);
        }
        for start in [0, length.saturating_sub(SEARCHED)] {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(start))?;
            Read::by_ref(&mut file).take(SEARCHED).read_to_end(&mut bytes)?;
            // hdlr: version and flags, the component's type, its kind
            if bytes
                .windows(20)
                .any(|box_| box_.starts_with(b"hdlr") && box_.get(12..16) == Some(b"tmcd"))
            {
                return Ok(true);
            }
        }
        Ok(false)
    };
    search().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(head: &[u8]) -> String {
        match recognize(head) {
            Content::Foreign(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn foreign_files_are_named() {
        assert!(says(b"").contains("empty"));
        assert!(
            says(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n").contains("git lfs pull")
        );
        assert!(says(b"<!DOCTYPE html>\n<html><body>login</body></html>").contains("web page"));
        assert!(says("naïve notes\n".repeat(400).as_bytes()).contains("naïve notes"));
        let mut nifti = vec![0u8; 352];
        nifti[..4].copy_from_slice(&348i32.to_le_bytes());
        nifti[344..348].copy_from_slice(b"n+1\0");
        assert!(says(&nifti).contains("NIfTI"));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packed, &nifti).unwrap();
        assert!(says(&packed.finish().unwrap()).contains("NIfTI"));
        let mut tar = vec![0u8; 512];
        tar[..5].copy_from_slice(b"a.png");
        tar[257..263].copy_from_slice(b"ustar\0");
        assert!(says(&tar).contains("archive (tar)"));
        assert!(says(b"PK\x03\x04\x14\0\0\0\0\0").contains("archive (zip)"));
        assert!(says(b"%PDF-1.7\n").contains("PDF"));
        let mut dicom = vec![0u8; 128];
        dicom.extend_from_slice(b"DICM\x02\0\x10\0UI\x18\x001.2.840.10008.1.2.4.102\0");
        assert!(says(&dicom).contains("gdcmraw"));
        let mut still = vec![0u8; 128];
        still.extend_from_slice(b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0");
        assert!(says(&still).contains("dcmj2pnm"));
    }

    #[test]
    fn streams_and_pictures_are_left_to_their_readers() {
        assert_eq!(recognize(b"\0\0\0\x20ftypisom\0\0\x02\0"), Content::Stream);
        assert_eq!(recognize(b"#EXTM3U\n#EXTINF:10,\na.ts\n"), Content::Stream);
        assert_eq!(
            recognize(b"YUV4MPEG2 W2 H2 F25:1\nFRAME\n\x80\x80\x80\x80\x80\x80"),
            Content::Stream
        );
        assert_eq!(recognize(b"GIF89a\x01\0\x01\0"), Content::Animation);
        assert_eq!(recognize(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"), Content::Picture);
    }
}
