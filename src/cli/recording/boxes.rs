//! The headers of an MP4 file (ISO/IEC 14496-12).
//!
//! `mp4mux` counts the times of a fragmented file from the first sample of each track: a track that starts late would
//! play too early until the file is finished, and a file whose first sample is not at zero always would. An edit list
//! with an empty edit, or a later decode time of the fragments, puts them right. Its fragments of several tracks also
//! lack sizes and durations of some samples (GStreamer 1.22).
//!
//! Headers may grow by this. `place` says where in the file lies what the muxer has put at a position.

/// A box: its type and what is in it.
struct Box4<'a> {
    kind: [u8; 4],
    whole: &'a [u8],
    content: &'a [u8],
}

/// Whether `bytes` are exactly one box of this type.
pub(super) fn is_box(bytes: &[u8], kind: &[u8; 4]) -> bool {
    u32::try_from(bytes.len()).ok() == u32_at(bytes, 0) && bytes.get(4..8) == Some(kind)
}

/// The boxes that lie one after the other in `bytes`; none where sizes contradict each other.
fn children(mut bytes: &[u8]) -> Option<Vec<Box4<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let kind = bytes.get(4..8)?.try_into().ok()?;
        let (whole, rest) = bytes.split_at_checked(size)?;
        let content = whole.get(8..)?;
        found.push(Box4 { kind, whole, content });
        bytes = rest;
    }
    Some(found)
}

/// What is in the first box at the end of `path`, from box to box.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| {
        let found = children(bytes)?.into_iter().find(|b| b.kind == **kind)?;
        Some(found.content)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Adds to a big-endian number of 32 bits, or of 64 bits where the box has version 1.
fn add_at(bytes: &mut [u8], version: u8, at: [usize; 2], more: u64) -> Option<()> {
    if version == 0 {
        let field: &mut [u8; 4] = bytes.get_mut(at[0]..at[0] + 4)?.try_into().ok()?;
        let sum = u64::from(u32::from_be_bytes(*field)).checked_add(more)?;
        *field = u32::try_from(sum).ok()?.to_be_bytes();
    } else {
        let field: &mut [u8; 8] = bytes.get_mut(at[1]..at[1] + 8)?.try_into().ok()?;
        *field = u64::from_be_bytes(*field).checked_add(more)?.to_be_bytes();
    }
    Some(())
}

fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    // A header has a few thousand bytes for each minute.
    let size = u32::try_from(content.len() + 8).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..], kind, content].concat()
}

/// Nanoseconds in units of a timescale, rounded.
fn scaled(nanos: u64, timescale: u32) -> u64 {
    let units = (u128::from(nanos) * u128::from(timescale) + 500_000_000) / 1_000_000_000;
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// A track as its `trak` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    /// From 1, in the order of the muxer's pads.
    pub(super) id: u32,
    /// Units of its times in a second.
    pub(super) timescale: u32,
    /// Whether the `moov` itself lists samples of it.
    pub(super) has_samples: bool,
}

/// The tracks of a `moov`; none where it cannot be read.
pub(super) fn tracks(moov: &[u8]) -> Option<Vec<Track>> {
    let traks = children(find(moov, &[b"moov"])?)?;
    traks.iter().filter(|b| &b.kind == b"trak").map(track).collect()
}

fn track(trak: &Box4<'_>) -> Option<Track> {
    let tkhd = find(trak.content, &[b"tkhd"])?;
    let mdhd = find(trak.content, &[b"mdia", b"mdhd"])?;
    let stsz = find(trak.content, &[b"mdia", b"minf", b"stbl", b"stsz"])?;
    Some(Track {
        id: u32_at(tkhd, if *tkhd.first()? == 0 { 12 } else { 20 })?,
        timescale: u32_at(mdhd, if *mdhd.first()? == 0 { 12 } else { 20 })?,
        has_samples: u32_at(stsz, 8)? > 0,
    })
}

/// The `moov` of a file that grows by fragments, all its tracks later by `shift_nanos`. The duration of what has come
/// so far is taken out. None where the `moov` cannot be read.
pub(super) fn growing(moov: &[u8], shift_nanos: u64) -> Option<Vec<u8>> {
    let content = find(moov, &[b"moov"])?;
    let shift = scaled(shift_nanos, movie_timescale(content)?);
    let mut parts = Vec::new();
    for part in children(content)? {
        match &part.kind {
            b"trak" => parts.extend(trak_later(&part, shift, true, &|offset| offset)?),
            b"mvex" => {
                let inner = children(part.content)?.into_iter();
                let kept = inner.flat_map(|b| match &b.kind {
                    b"mehd" => boxed(b"free", b.content),
                    _ => b.whole.to_vec(),
                });
                parts.extend(boxed(b"mvex", &kept.collect::<Vec<_>>()));
            }
            _ => parts.extend(part.whole),
        }
    }
    Some(boxed(b"moov", &parts))
}

/// A `moof` at time zero without a sample. GStreamer's reader takes the first fragment's time for the file's beginning
/// and would leave out what the `moov` has.
pub(super) fn empty_moof(tracks: &[Track]) -> Vec<u8> {
    let numbers = |kind: &[u8; 4], numbers: [u32; 2]| boxed(kind, &numbers.map(u32::to_be_bytes).concat());
    let traf = |track: &Track| {
        let tfhd = numbers(b"tfhd", [EMPTY_FRAGMENT, track.id]);
        boxed(b"traf", &[tfhd, numbers(b"tfdt", [0, 0])].concat())
    };
    let trafs: Vec<u8> = tracks.iter().flat_map(traf).collect();
    boxed(b"moof", &[numbers(b"mfhd", [0, 0]), trafs].concat())
}

/// The `moov` of a whole file, all its tracks later by `shift_nanos`; none where it cannot be read.
pub(super) fn whole(moov: &[u8], shift_nanos: u64, place: &dyn Fn(u64) -> u64) -> Option<Vec<u8>> {
    let content = find(moov, &[b"moov"])?;
    let shift = scaled(shift_nanos, movie_timescale(content)?);
    let mut parts = Vec::new();
    for part in children(content)? {
        match &part.kind {
            b"mvhd" => {
                let mut mvhd = part.whole.to_vec();
                let version = *part.content.first()?;
                add_at(&mut mvhd, version, [8 + 16, 8 + 24], shift)?;
                parts.extend(mvhd);
            }
            b"trak" => parts.extend(trak_later(&part, shift, false, place)?),
            _ => parts.extend(part.whole),
        }
    }
    Some(boxed(b"moov", &parts))
}

fn movie_timescale(moov: &[u8]) -> Option<u32> {
    let mvhd = find(moov, &[b"mvhd"])?;
    u32_at(mvhd, if *mvhd.first()? == 0 { 12 } else { 20 })
}

/// A `trak` that starts `shift` units of the movie later.
fn trak_later(trak: &Box4<'_>, shift: u64, growing: bool, place: &dyn Fn(u64) -> u64) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for part in children(trak.content)? {
        match &part.kind {
            b"tkhd" => {
                let mut tkhd = part.whole.to_vec();
                add_at(&mut tkhd, *part.content.first()?, [8 + 20, 8 + 28], shift)?;
                parts.extend(tkhd);
            }
            b"edts" => parts.extend(boxed(b"edts", &elst_later(part.content, shift, growing)?)),
            b"mdia" => parts.extend(placed(&part, &[b"minf", b"stbl"], place)?),
            _ => parts.extend(part.whole),
        }
    }
    Some(boxed(b"trak", &parts))
}

/// A box with the chunk offsets in it, at the end of `path`, put where the chunks lie.
fn placed(outer: &Box4<'_>, path: &[&[u8; 4]], place: &dyn Fn(u64) -> u64) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for part in children(outer.content)? {
        match (path.split_first(), &part.kind) {
            (Some((next, path)), kind) if kind == *next => parts.extend(placed(&part, path, place)?),
            (None, b"stco") => {
                let mut stco = part.whole.to_vec();
                for field in stco.get_mut(16..)?.chunks_exact_mut(4) {
                    let field: &mut [u8; 4] = field.try_into().ok()?;
                    let offset = place(u64::from(u32::from_be_bytes(*field)));
                    *field = u32::try_from(offset).ok()?.to_be_bytes();
                }
                parts.extend(stco);
            }
            (None, b"co64") => {
                let mut co64 = part.whole.to_vec();
                for field in co64.get_mut(16..)?.chunks_exact_mut(8) {
                    let field: &mut [u8; 8] = field.try_into().ok()?;
                    *field = place(u64::from_be_bytes(*field)).to_be_bytes();
                }
                parts.extend(co64);
            }
            _ => parts.extend(part.whole),
        }
    }
    Some(boxed(&outer.kind, &parts))
}

/// The media time that stands for an empty edit.
const EMPTY: u32 = u32::MAX;
const NORMAL_RATE: u32 = 0x1_0000;

/// The `elst` in `edts` with an empty edit in front that is `shift` longer. Where the file grows, what follows it is as
/// long as it can be: zero, which the standard has for this, makes FFmpeg leave out the samples of the `moov`.
fn elst_later(edts: &[u8], shift: u64, growing: bool) -> Option<Vec<u8>> {
    let elst = find(edts, &[b"elst"])?;
    if *elst.first()? != 0 {
        return None; // 64 bits; mp4mux does not write them.
    }
    let mut gap = shift;
    let mut entries = Vec::new();
    for entry in elst.get(8..)?.chunks_exact(12) {
        let (duration, media_time) = (u32_at(entry, 0)?, u32_at(entry, 4)?);
        if media_time == EMPTY {
            gap += u64::from(duration);
        } else {
            entries.push([
                if growing { u32::MAX } else { duration },
                media_time,
                u32_at(entry, 8)?,
            ]);
        }
    }
    if gap > 0 {
        entries.insert(0, [u32::try_from(gap).ok()?, EMPTY, NORMAL_RATE]);
    }
    let numbers = [0, u32::try_from(entries.len()).ok()?].into_iter();
    let content: Vec<u8> = numbers
        .chain(entries.into_iter().flatten())
        .flat_map(u32::to_be_bytes)
        .collect();
    Some(boxed(b"elst", &content))
}

/// The header of an `mdat`, 16 bytes as `mp4mux` writes them, for `more` bytes more. None where it is another.
pub(super) fn mdat_header(header: &[u8], more: u64) -> Option<[u8; 16]> {
    let header: &[u8; 16] = header.try_into().ok()?;
    let size = match (header.get(4..8)?, header.get(12..)?) {
        (b"free", b"mdat") => u64::from(u32_at(header, 8)?) + 8,
        (b"mdat", _) => u64::from_be_bytes(header.get(8..)?.try_into().ok()?),
        _ => return None,
    };
    let mut larger = *b"\0\0\0\x01mdat\0\0\0\0\0\0\0\0";
    larger.get_mut(8..)?.copy_from_slice(&(size + more).to_be_bytes());
    Some(larger)
}

/// A `moof` whose fragments are later, each by what `shift_nanos` says of its track (None leaves it), and that says
/// the size and the duration of each sample. Returns None where the `moof` cannot be read.
pub(super) fn moof(
    moof: &[u8],
    tracks: &[Track],
    shift_nanos: impl Fn(&Track) -> Option<u64>,
    place: &dyn Fn(u64) -> u64,
) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for part in children(find(moof, &[b"moof"])?)? {
        if &part.kind != b"traf" {
            parts.extend(part.whole);
            continue;
        }
        let id = u32_at(find(part.content, &[b"tfhd"])?, 4)?;
        let track = tracks.iter().find(|track| track.id == id);
        let shift = track.and_then(|track| Some(scaled(shift_nanos(track)?, track.timescale)));
        let inner = children(part.content)?;
        let mut traf = Vec::new();
        for box4 in &inner {
            match &box4.kind {
                b"tfhd" => traf.extend(tfhd(box4.content, &inner, place)?),
                b"tfdt" => {
                    let mut tfdt = box4.whole.to_vec();
                    add_at(&mut tfdt, *box4.content.first()?, [12, 12], shift.unwrap_or(0))?;
                    traf.extend(tfdt);
                }
                _ => traf.extend(box4.whole),
            }
        }
        parts.extend(boxed(b"traf", &traf));
    }
    Some(boxed(b"moof", &parts))
}

/// Flags of `tfhd` and `trun`, and the fields that they announce.
const BASE_DATA_OFFSET: u32 = 0x1;
const DESCRIPTION_INDEX: u32 = 0x2;
const EMPTY_FRAGMENT: u32 = 0x1_0000;
const DEFAULT_DURATION: u32 = 0x8;
const DEFAULT_SIZE: u32 = 0x10;
const DATA_OFFSET: u32 = 0x1;
const FIRST_FLAGS: u32 = 0x4;
const DURATIONS: u32 = 0x100;
const SIZES: u32 = 0x200;

/// The `tfhd` before these `trun`s. The muxer gives up its default size and duration when a sample differs, although
/// a `trun` that it begins later and whose only sample does not differ rests on them: they are the first sample's.
fn tfhd(tfhd: &[u8], truns: &[Box4<'_>], place: &dyn Fn(u64) -> u64) -> Option<Vec<u8>> {
    let mut flags = u32_at(tfhd, 0)?;
    let mut rest = tfhd.get(8..)?.iter().copied();
    let mut fields = Vec::new();
    for (flag, length) in [(BASE_DATA_OFFSET, 8), (DESCRIPTION_INDEX, 4)] {
        if flags & flag != 0 {
            fields.extend(rest.by_ref().take(length));
        }
    }
    let truns = truns.iter().filter(|b| &b.kind == b"trun").map(|b| b.content);
    let first = truns.clone().next().unwrap_or_default();
    let mut sample = 8;
    for (flag, length) in [(DATA_OFFSET, 4), (FIRST_FLAGS, 4)] {
        if u32_at(first, 0).is_some_and(|flags| flags & flag != 0) {
            sample += length;
        }
    }
    for (default, listed) in [(DEFAULT_DURATION, DURATIONS), (DEFAULT_SIZE, SIZES)] {
        let says = |trun: &[u8]| u32_at(trun, 0).is_some_and(|flags| flags & listed != 0);
        if flags & default != 0 {
            fields.extend(rest.by_ref().take(4));
        } else if says(first) && !truns.clone().all(says) {
            flags |= default;
            fields.extend(u32_at(first, sample)?.to_be_bytes());
        }
        if says(first) {
            sample += 4;
        }
    }
    fields.extend(rest);
    if flags & BASE_DATA_OFFSET != 0 {
        let base: &mut [u8; 8] = fields.first_chunk_mut()?;
        *base = place(u64::from_be_bytes(*base)).to_be_bytes();
    }
    let content = [&flags.to_be_bytes()[..], tfhd.get(4..8)?, &fields].concat();
    Some(boxed(b"tfhd", &content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(kind: &[u8; 4], numbers: &[u32]) -> Vec<u8> {
        let content: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        boxed(kind, &content)
    }

    /// A `trak` of 30 units a second, with samples at this offset.
    fn trak(id: u32, elst: &[u32], offset: u32) -> Vec<u8> {
        let stbl = [full(b"stsz", &[0, 0, 1, 9]), full(b"stco", &[0, 1, offset])].concat();
        let mdhd = full(b"mdhd", &[0, 0, 0, 30, 15, 0]);
        let mdia = [mdhd, boxed(b"minf", &boxed(b"stbl", &stbl))].concat();
        let tkhd = full(b"tkhd", &[0, 0, 0, id, 0, 50]);
        let edts = boxed(
            b"edts",
            &full(b"elst", &[&[0, elst.len() as u32 / 3], elst].concat()),
        );
        boxed(b"trak", &[tkhd, edts, boxed(b"mdia", &mdia)].concat())
    }

    /// A `moov` of 100 units a second.
    fn moov(traks: &[Vec<u8>]) -> Vec<u8> {
        let mvhd = full(b"mvhd", &[0, 0, 0, 100, 50]);
        let mvex = boxed(b"mvex", &full(b"mehd", &[0, 50]));
        boxed(b"moov", &[mvhd, traks.concat(), mvex].concat())
    }

    #[test]
    fn a_late_start_is_an_empty_edit() {
        let early = moov(&[
            trak(1, &[50, 0, 0x1_0000], 7),
            trak(2, &[20, EMPTY, 0x1_0000, 50, 3, 0x1_0000], 8),
        ]);
        assert_eq!(
            tracks(&early).unwrap(),
            [1, 2].map(|id| Track {
                id,
                timescale: 30,
                has_samples: true
            })
        );
        let late = whole(&early, 1_500_000_000, &|offset| offset + 12).unwrap();
        let expected = [
            trak(1, &[150, EMPTY, 0x1_0000, 50, 0, 0x1_0000], 19),
            trak(2, &[170, EMPTY, 0x1_0000, 50, 3, 0x1_0000], 20),
        ];
        let elsts = |moov: &[u8]| -> Vec<Vec<u8>> {
            let traks = children(find(moov, &[b"moov"]).unwrap()).unwrap();
            let traks = traks.into_iter().filter(|b| &b.kind == b"trak");
            traks
                .flat_map(|b| {
                    let stco = find(b.content, &[b"mdia", b"minf", b"stbl", b"stco"]).unwrap();
                    [
                        find(b.content, &[b"edts", b"elst"]).unwrap().to_vec(),
                        stco.to_vec(),
                    ]
                })
                .collect()
        };
        assert_eq!(elsts(&late), elsts(&moov(&expected)));
        let mvhd = find(&late, &[b"moov", b"mvhd"]).unwrap();
        assert_eq!(u32_at(mvhd, 16), Some(200));
        let growing = growing(&early, 0).unwrap();
        assert_eq!(growing.len(), early.len());
        assert!(find(&growing, &[b"moov", b"mvex", b"mehd"]).is_none());
        let elst = find(&growing, &[b"moov", b"trak", b"edts", b"elst"]).unwrap();
        assert_eq!(u32_at(elst, 8), Some(u32::MAX));
    }

    #[test]
    fn a_fragment_says_the_size_of_each_sample() {
        // Two samples, 5 and 6 bytes long, then one of 5 that rests on a default that is not there.
        let truns = [
            full(b"trun", &[DATA_OFFSET | DURATIONS | SIZES, 2, 100, 10, 5, 10, 6]),
            full(b"trun", &[DATA_OFFSET, 1, 200]),
        ];
        let traf = |tfhd: &[u32], tfdt: u32| {
            let tfhd = full(b"tfhd", tfhd);
            boxed(
                b"traf",
                &[tfhd, full(b"tfdt", &[0, tfdt]), truns.concat()].concat(),
            )
        };
        let fragment = boxed(b"moof", &traf(&[BASE_DATA_OFFSET | 0x20, 2, 0, 1000, 0xc0], 4));
        let track = Track {
            id: 2,
            timescale: 30,
            has_samples: false,
        };
        let fixed = moof(&fragment, &[track], |_| Some(2_000_000_000), &|offset| offset + 8).unwrap();
        let flags = BASE_DATA_OFFSET | DEFAULT_DURATION | DEFAULT_SIZE | 0x20;
        let expected = traf(&[flags, 2, 0, 1008, 10, 5, 0xc0], 64);
        assert_eq!(fixed, boxed(b"moof", &expected));
        // One that says everything stays as it is.
        assert_eq!(moof(&fixed, &[], |_| None, &|offset| offset).unwrap(), fixed);
    }

    #[test]
    fn what_is_no_box_is_left_alone() {
        let random = [0, 0, 0, 9, b'm', b'o', b'o', b'v', 1];
        assert!(is_box(&random, b"moov") && !is_box(&random, b"moof"));
        assert_eq!(tracks(&random), None);
        assert_eq!(growing(&random, 0), None);
        assert_eq!(moof(&random, &[], |_| None, &|offset| offset), None);
        assert!(!is_box(&random[..8], b"moov"));
        for size in [0, 7, u32::MAX] {
            assert!(children(&full(b"free", &[size])[8..]).is_none());
        }
        let header = *b"\0\0\0\x08free\0\0\0\x10mdat";
        let larger = *b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x1c";
        assert_eq!(mdat_header(&header, 4), Some(larger));
        assert_eq!(mdat_header(&larger, 0), Some(larger));
        assert_eq!(mdat_header(&header[..8], 4), None);
    }
}
