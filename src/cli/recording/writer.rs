//! The file of a recording: what a muxer writes, in an order that leaves it playable at every moment.

use super::boxes::{self, Track};
use super::starts::Starts;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes a muxer's bytes where it wants them.
///
/// At its end `mp4mux` first makes the old headers invalid, then writes the new ones. Here the new ones are written
/// and synced first; the 16 bytes that switch to them come last.
pub(super) struct Writer {
    file: Arc<File>,
    path: PathBuf,
    /// Written since the last sync.
    pub(super) dirty: Arc<AtomicBool>,
    /// Where the muxer writes next.
    position: u64,
    /// Length of the file.
    end: u64,
    shifts: Shifts,
    starts: Arc<Starts>,
    movie: Option<Movie>,
}

/// Where in the file the muxer's bytes lie: headers that have grown push away what follows them.
#[derive(Default)]
struct Shifts(Vec<(u64, u64)>);

impl Shifts {
    /// The place in the file of a position of the muxer.
    fn place(&self, position: u64) -> u64 {
        let behind = self.0.partition_point(|(from, _)| *from <= position);
        let shift = behind.checked_sub(1).and_then(|index| self.0.get(index));
        position + shift.map_or(0, |(_, by)| *by)
    }

    /// What lies at `from` and behind it moves `by` further.
    fn push(&mut self, from: u64, by: u64) {
        if by > 0 {
            let before = self.0.last().map_or(0, |(_, by)| *by);
            self.0.push((from, before + by));
        }
    }
}

/// The first `moov` of a fragmented MP4 file.
struct Movie {
    position: u64,
    tracks: Vec<Track>,
    /// Set when the muxer finishes the file: what is to be written behind the new `moov`.
    switch: Option<Vec<(u64, Vec<u8>)>>,
}

impl Writer {
    pub(super) fn new(file: File, path: PathBuf, starts: Arc<Starts>) -> Self {
        Self {
            file: Arc::new(file),
            path,
            dirty: Arc::default(),
            position: 0,
            end: 0,
            shifts: Shifts::default(),
            starts,
            movie: None,
        }
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The next bytes belong here.
    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Writes a buffer of the muxer.
    ///
    /// # Errors
    /// The file cannot be written; what was appended by halves is taken away again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let position = self.position;
        self.position += bytes.len() as u64;
        if boxes::is_box(bytes, b"moov") {
            return self.write_moov(position, bytes);
        }
        if let Some(movie) = &mut self.movie {
            if movie.switch.is_none() && position == movie.position + 4 && bytes.len() == 1 {
                // The muxer spoils the first moov: from here on it finishes. The switch itself hides that moov.
                movie.switch = Some(Vec::new());
                return Ok(());
            }
            if let Some(switch) = movie.switch.as_mut().filter(|_| position < movie.position) {
                switch.push((position, bytes.to_vec()));
                return Ok(());
            }
            if boxes::is_box(bytes, b"moof") {
                let starts = &self.starts;
                // The moov has the times of those that it has samples of.
                let shift = |track: &Track| starts.of_track(track.id).filter(|_| !track.has_samples);
                let place = |position| self.shifts.place(position);
                let moof = boxes::moof(bytes, &movie.tracks, shift, &place);
                return self.put_header(position, bytes, moof);
            }
        }
        self.put(self.shifts.place(position), bytes)
    }

    /// Writes what a header of the muxer has become.
    fn put_header(&mut self, position: u64, bytes: &[u8], new: Option<Vec<u8>>) -> io::Result<()> {
        let place = self.shifts.place(position);
        let new = new.and_then(|new| Some(((new.len() as u64).checked_sub(bytes.len() as u64)?, new)));
        let Some((more, new)) = new else {
            tracing::warn!("{}: times of a header stay as they are", self.path.display());
            return self.put(place, bytes);
        };
        self.shifts.push(position + bytes.len() as u64, more);
        self.put(place, &new)
    }

    fn write_moov(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let tracks = boxes::tracks(bytes).unwrap_or_default();
        let with_samples = tracks.iter().filter(|track| track.has_samples);
        // The muxer counts from the first of these.
        let shift = with_samples
            .filter_map(|track| self.starts.of_track(track.id))
            .min();
        let shift = shift.unwrap_or(0);
        let Some(movie) = self.movie.take() else {
            let growing = boxes::growing(bytes, shift);
            let growing = growing.map(|moov| [moov, boxes::empty_moof(&tracks)].concat());
            self.movie = Some(Movie {
                position,
                tracks,
                switch: None,
            });
            return self.put_header(position, bytes, growing);
        };
        let place = |position| self.shifts.place(position);
        let end = place(position);
        let more = end - position;
        let whole = boxes::whole(bytes, shift, &place);
        let switch = movie.switch.into_iter().flatten();
        let switch = switch.map(|(position, header)| Some((position, boxes::mdat_header(&header, more)?)));
        let (Some(whole), Some(switch)) = (whole, switch.collect::<Option<Vec<_>>>()) else {
            tracing::warn!("{}: stays a file of fragments", self.path.display());
            return Ok(());
        };
        self.put(end, &whole)?;
        for (position, header) in switch {
            self.file.sync_data()?;
            self.put(position, &header)?;
        }
        Ok(())
    }

    /// Writes at a place in the file.
    fn put(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.dirty.store(true, Ordering::Relaxed);
        let result = self.file.write_all_at(bytes, position);
        if result.is_err() && position >= self.end {
            // It was the end of what plays; should this fail as well, a player passes over the rest.
            let _ = self.file.set_len(self.end);
        }
        self.end = self
            .end
            .max(position + if result.is_ok() { bytes.len() as u64 } else { 0 });
        result
    }
}
