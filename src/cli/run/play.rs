//! Playing a pipeline to its end, with a progress bar, and ending it properly whatever comes.

use super::counts::{Frames, is_refusal, running_time};
use super::input::BROKEN;
use super::output::WINDOW;
use super::riddle::plain;
use super::silence::{Noticed, OVER_AFTER, SAID_AFTER, Silence};
use crate::cli::fit::NOTE;
use crate::cli::video::{SILENCE, describe_warning, has_stopped};
use anyhow::{Context, Result, anyhow};
use gstreamer as gst;
use gstreamer::prelude::*;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Longest wait for the muxer to finish a file after an error or a signal.
const FINISH: Duration = Duration::from_secs(20);
/// Signals that come within this time are one wish: `timeout` sends two at once.
const ONE_WISH: Duration = Duration::from_secs(2);
/// Longest wait for the muxer after a second wish to end.
const HURRY: Duration = Duration::from_secs(3);
/// Longest wait for sound and the like to reach the place where the video ends.
const SIDE_STREAMS: Duration = Duration::from_secs(1);

/// There is no room for what is recorded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DiskFull(String);

/// How a pipeline came to its end.
pub(super) struct Played {
    /// What went wrong first.
    pub(super) outcome: Result<()>,
    /// The end of the stream has reached every sink: what was written is whole.
    pub(super) finished: bool,
    /// The input stopped without an end.
    pub(super) silent: bool,
}

/// Plays one pipeline once.
pub(super) struct Player<'a> {
    pipeline: &'a gst::Pipeline,
    bus: gst::Bus,
    frames: &'a Frames,
    /// Number of frames, where it is known beforehand.
    all: Option<u64>,
    /// Elements before ours.
    reader: Vec<gst::Element>,
    bar: ProgressBar,
    outcome: Result<()>,
    silence: Silence,
    /// Whether an input that is silent for long has come to its end, as a file has and a camera has not.
    can_end: bool,
    silent: bool,
    /// Warnings, without their numbers, and how often each has come.
    warnings: BTreeMap<String, u64>,
    /// What GStreamer has no element for.
    missing: Option<String>,
    /// None while playing; afterwards until when the muxer may take to finish.
    finishing: Option<Instant>,
    /// When the first signal came.
    signalled: Option<Instant>,
    /// The user does not want to wait for the muxer.
    hurried: bool,
}

impl<'a> Player<'a> {
    /// For a pipeline with our elements in it; `all` frames, where that is known. `can_end` says whether an input that
    /// gives nothing for long has ended.
    pub(super) fn new(
        pipeline: &'a gst::Pipeline,
        frames: &'a Frames,
        all: Option<u64>,
        can_end: bool,
    ) -> Result<Self> {
        let infer = pipeline.by_name("infer").context("no element infer")?;
        let behind = downstream(&infer);
        let elements = pipeline.iterate_elements().into_iter().flatten();
        let sink = infer.static_pad("sink").context("no sink pad of infer")?;
        Ok(Self {
            silence: Silence::before(&sink)?,
            can_end,
            silent: false,
            warnings: BTreeMap::new(),
            missing: None,
            bus: pipeline.bus().context("a pipeline has a bus")?,
            reader: elements.filter(|element| !behind.contains(element)).collect(),
            bar: ProgressBar::new(0).with_style(ProgressStyle::with_template(
                "{bar:32} {percent:>3} % {msg}, {eta} left",
            )?),
            pipeline,
            frames,
            all,
            outcome: Ok(()),
            finishing: None,
            signalled: None,
            hurried: false,
        })
    }

    /// Plays to the end, to an error or to a signal; in each case what was written is finished.
    pub(super) async fn play(mut self) -> Played {
        let finished = match self.run().await {
            Ok(finished) => finished,
            Err(error) => {
                self.outcome = self.outcome.and(Err(error));
                false
            }
        };
        for (warning, times) in self.warnings.iter().filter(|(_, times)| **times > 1) {
            self.say(&format!("masam: {} more times: {warning}", times - 1));
        }
        self.bar.finish_and_clear();
        Played {
            outcome: self.outcome,
            finished,
            silent: self.silent,
        }
    }

    /// Whether the end of the stream has reached every sink.
    async fn run(&mut self) -> Result<bool> {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        if let Err(error) = self.pipeline.set_state(gst::State::Playing) {
            let first = self.bus.pop_filtered(&[gst::MessageType::Error]);
            return Err(match first.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Error(e)) => anyhow!(plain(e, None)),
                _ => error.into(),
            });
        }
        let started = Instant::now();
        // Since when nothing is read any more, as long as nothing has been read at all.
        let mut stopped: Option<Instant> = None;
        loop {
            let signalled = tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                _ = terminated.recv() => true,
                _ = hung_up.recv() => true,
                _ = tick.tick() => false,
            };
            if signalled {
                self.end_by_user()?;
            }
            if self.frames.enough.load(Ordering::Relaxed) && self.finishing.is_none() {
                self.finish()?;
            }
            if let Some(finished) = self.listen()? {
                return Ok(finished);
            }
            let silent = self.frames.read.load(Ordering::Relaxed) == 0 && has_stopped(&self.reader);
            stopped = silent.then(|| stopped.unwrap_or_else(Instant::now));
            if stopped.is_some_and(|since| since.elapsed() >= SILENCE) {
                return Err(anyhow!("GStreamer finds no video in it"));
            }
            self.notice_silence()?;
            if self.finishing.is_some_and(|until| Instant::now() >= until) {
                if self.hurried {
                    return Err(anyhow!("ended before the file was finished"));
                }
                return Err(anyhow!("the end did not come through in {} s", FINISH.as_secs()));
            }
            self.show(started);
        }
    }

    /// What a signal means: the first ends the stream, one soon behind it means the same, a later one does not wait.
    fn end_by_user(&mut self) -> Result<()> {
        tracing::info!("asked to end by a signal");
        let first = *self.signalled.get_or_insert_with(Instant::now);
        if self.finishing.is_none() {
            self.say("finishing the file");
            self.finish()?;
        } else if first.elapsed() >= ONE_WISH && !self.hurried {
            self.say("ending with what has been written");
            self.hurried = true;
            self.finishing = self.finishing.map(|until| until.min(Instant::now() + HURRY));
        }
        Ok(())
    }

    /// Reads the bus; tells whether the end has come, and how.
    fn listen(&mut self) -> Result<Option<bool>> {
        while let Some(message) = self.bus.pop() {
            self.frames.log.message(&message);
            let trouble = match message.view() {
                gst::MessageView::Eos(_) => return Ok(Some(true)),
                gst::MessageView::Error(error) => {
                    if error.src().is_some_and(|src| src.name() == "sink") {
                        // What cannot be written cannot be finished either.
                        let full = error.error().matches(gst::ResourceError::NoSpaceLeft);
                        let text = error.error().to_string();
                        let trouble = if full {
                            DiskFull(text).into()
                        } else {
                            anyhow!(text)
                        };
                        self.outcome = std::mem::replace(&mut self.outcome, Ok(())).and(Err(trouble));
                        return Ok(Some(false));
                    }
                    if self.is_closed_window(error) {
                        self.say("the window was closed: finishing the file");
                        if self.finishing.is_none() {
                            self.finish()?;
                        }
                        continue;
                    }
                    anyhow!(plain(error, self.missing.as_deref()))
                }
                gst::MessageView::Warning(warning) if is_refusal(&message) => anyhow!("{}", warning.error()),
                gst::MessageView::Warning(warning) => {
                    self.warn(&describe_warning(warning));
                    continue;
                }
                gst::MessageView::Element(message) => {
                    let missing = message.structure().filter(|s| s.name() == "missing-plugin");
                    if let Some(name) = missing.and_then(|s| s.get::<String>("name").ok()) {
                        self.missing.get_or_insert(name);
                    }
                    continue;
                }
                gst::MessageView::Application(message) => {
                    let text = message.structure().filter(|s| s.name() == NOTE);
                    if let Some(text) = text.and_then(|s| s.get::<String>("text").ok()) {
                        self.say(&format!("masam: {text}"));
                    }
                    let cause = message.structure().filter(|s| s.name() == BROKEN);
                    if let Some(cause) = cause.and_then(|s| s.get::<String>("cause").ok())
                        && self.outcome.is_ok()
                    {
                        self.outcome = Err(anyhow!(cause)); // The end of the stream comes behind it by itself.
                    }
                    continue;
                }
                _ => continue,
            };
            if self.outcome.is_ok() {
                self.outcome = Err(trouble);
            }
            if self.frames.written.load(Ordering::Relaxed) == 0 {
                return Ok(Some(false));
            }
            if self.finishing.is_none() {
                // An error takes back the wish to play of a pipeline that has not begun to; its sinks would wait for
                // that for ever.
                let _ = self.pipeline.set_state(gst::State::Playing); // fails again where it failed before
                self.finish()?;
            }
        }
        Ok(None)
    }

    /// Whether the window beside a recording has gone.
    fn is_closed_window(&self, error: &gst::message::Error) -> bool {
        let window = self
            .pipeline
            .by_name(WINDOW)
            .filter(|_| self.pipeline.by_name("mux").is_some());
        let shown = self.frames.written.load(Ordering::Relaxed) > 0;
        shown && window.is_some_and(|window| error.src().is_some_and(|src| src.has_as_ancestor(&window)))
    }

    /// Prints a warning; the same again, apart from its numbers, is counted.
    fn warn(&mut self, warning: &str) {
        let mut key = String::new();
        for letter in warning.chars() {
            match letter.is_ascii_digit() {
                true if key.ends_with('#') => {}
                true => key.push('#'),
                false => key.push(letter),
            }
        }
        let times = self.warnings.entry(key).or_default();
        *times += 1;
        if *times == 1 {
            self.say(&format!("masam: {warning}"));
        }
    }

    /// Says that no frames come, and ends an input that has ended without saying so.
    fn notice_silence(&mut self) -> Result<()> {
        if self.finishing.is_some() {
            return Ok(());
        }
        let read = self.frames.read.load(Ordering::Relaxed);
        let seconds = |time: Duration| time.as_secs();
        match self.silence.look(read) {
            Noticed::Silent if self.can_end => self.say(&format!(
                "masam: no frame for {} s (after {read}); after {} s that counts as the end",
                seconds(SAID_AFTER),
                seconds(OVER_AFTER)
            )),
            Noticed::Silent => self.say(&format!(
                "masam: no frame for {} s (after {read})",
                seconds(SAID_AFTER)
            )),
            Noticed::Over if self.can_end => {
                self.silent = true;
                if self.outcome.is_ok() {
                    let over = seconds(OVER_AFTER);
                    self.outcome = Err(anyhow!(
                        "the input stopped without an end: no frame for {over} s after {read}"
                    ));
                }
                if read == 0 {
                    return Err(anyhow!("no frame came"));
                }
                self.finish()?;
            }
            Noticed::Over | Noticed::Nothing => {}
        }
        Ok(())
    }

    /// Ends the stream: behind the input where frames have come, because a decoder that is cut off gives the frames
    /// it has with holes between them, and players then leave out the last; from the source where none have.
    fn finish(&mut self) -> Result<()> {
        self.finishing = Some(Instant::now() + FINISH);
        let infer = self.pipeline.by_name("infer").context("no element infer")?;
        let pad = infer.static_pad("sink").context("no sink pad of infer")?;
        let (pipeline, begun) = (
            self.pipeline.clone(),
            self.frames.read.load(Ordering::Relaxed) > 0,
        );
        let side_pads = match begun {
            true => self.side_pads(&infer),
            false => Vec::new(),
        };
        let end = self.frames.read_until_nanos.load(Ordering::Relaxed);
        // Without waiting: the pad may be busy with its last frame, the source with reading.
        std::thread::Builder::new()
            .name("masam-finish".into())
            .spawn(move || match begun {
                true => pad.send_event(gst::event::Eos::new()),
                false => pipeline.send_event(gst::event::Eos::new()),
            })?;
        for pad in side_pads {
            let (reached, arrival) = std::sync::mpsc::channel();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let due = info.buffer().and_then(|buffer| running_time(pad, buffer));
                if due.is_none_or(|due| due < end) {
                    return gst::PadProbeReturn::Ok;
                }
                let _ = reached.send(()); // nobody waits any more
                gst::PadProbeReturn::Handled
            });
            std::thread::Builder::new()
                .name("masam-finish-side".into())
                .spawn(move || {
                    // It may also have ended, or its source may have vanished.
                    let _ = arrival.recv_timeout(SIDE_STREAMS);
                    pad.send_event(gst::event::Eos::new());
                })?;
        }
        Ok(())
    }

    /// The muxer's pads that do not get our video: sound and the like.
    fn side_pads(&self, infer: &gst::Element) -> Vec<gst::Pad> {
        let behind = downstream(infer);
        let ours = |pad: &gst::Pad| {
            let peer = pad.peer().and_then(|peer| peer.parent_element());
            peer.is_none_or(|peer| behind.contains(&peer))
        };
        let mux = self.pipeline.by_name("mux");
        let pads = mux.map(|mux| mux.sink_pads()).unwrap_or_default();
        pads.into_iter().filter(|pad| !ours(pad)).collect()
    }

    /// By time where the source knows its length, by frames where they are counted, else without an end.
    fn show(&self, started: Instant) {
        let Self { bar, frames, .. } = self;
        let written = frames.written.load(Ordering::Relaxed);
        match (self.all, self.pipeline.query_duration::<gst::ClockTime>()) {
            (Some(all), _) => {
                bar.set_length(all);
                bar.set_position(written);
            }
            (None, duration) => {
                bar.set_length(duration.map_or(0, gst::ClockTime::nseconds));
                bar.set_position(frames.position_nanos.load(Ordering::Relaxed));
            }
        }
        let rate = written as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{rate:.1} frames/s"));
    }

    /// Prints a line above the bar, also where there is no terminal to draw a bar on.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            say!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

/// An element and all behind it.
fn downstream(first: &gst::Element) -> Vec<gst::Element> {
    let mut found = vec![first.clone()];
    let mut next = 0;
    while let Some(element) = found.get(next).cloned() {
        next += 1;
        for pad in element.src_pads() {
            let peer = pad.peer().and_then(|peer| peer.parent_element());
            if let Some(peer) = peer.filter(|peer| !found.contains(peer)) {
                found.push(peer);
            }
        }
    }
    found
}
