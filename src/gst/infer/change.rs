//! Properties that are set while the element is started.
//!
//! ```text
//! application's thread:  change() -- checked --> State::next
//! thread masam-load:     another model is opened -- checked --> State::next
//! streaming thread:      follow_changes(), before the next frame: the epoch ends, State::next becomes State::session
//! ```
//! What cannot be followed is refused with a warning, and the property keeps its value. The streaming thread waits for
//! nothing: masks of the model in use are shown until the other one is loaded.

use super::imp::{CAT, Infer};
use super::session::Session;
use super::settings::Settings;
use super::state::State;
use crate::error::{Error, Result};
use crate::geometry::{ModelSquare, Roi};
use gst::glib;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Infer {
    /// Stores a property. While the element is started its effect begins with the next frame, or a warning says when.
    pub(super) fn change(&self, name: &str, value: &glib::Value) {
        if self.state().is_none() {
            self.settings().set(name, value);
            return;
        }
        let refused = match name {
            "stats-interval" => None,
            "model" => self.load(value).err(),
            "emit" | "hop" | "frame-stride" | "roi" | "carry" | "prompt" | "max-mask-age" => {
                self.adapt(name, value).err()
            }
            _ => {
                let mut settings = self.settings().clone();
                settings.set(name, value);
                if settings != *self.settings() {
                    gst::element_imp_warning!(
                        self,
                        gst::LibraryError::Settings,
                        ("{name} takes effect at the next start of the element (READY)")
                    );
                }
                None
            }
        };
        match refused {
            Some(error) => self.warn_of_refusal(name, &error),
            None => self.settings().set(name, value),
        }
    }

    fn warn_of_refusal(&self, name: &str, error: &Error) {
        gst::element_imp_warning!(
            self,
            gst::LibraryError::Settings,
            ("the {name} stays as it was: {error}")
        );
    }

    /// Has the next frame shown with another value of one property.
    ///
    /// # Errors
    /// A value that fits neither the model nor the stream under way.
    fn adapt(&self, name: &str, value: &glib::Value) -> Result<()> {
        let session = match &*self.state() {
            Some(state) => state.upcoming().clone(),
            None => return Ok(()),
        };
        let mut settings = Settings::clone(&session.settings);
        settings.set(name, value);
        let session = session.with(settings)?;
        if name == "max-mask-age" {
            if let Some(state) = self.state().as_mut() {
                state.set_max_mask_age(session.settings.max_mask_age_nanos)?;
            }
            return Ok(());
        }
        self.plan(session)
    }

    /// Begins to load another model, on a thread of its own.
    ///
    /// # Errors
    /// No thread to load it on. What comes of the loading is reported later.
    fn load(&self, value: &glib::Value) -> Result<()> {
        let mut settings = match &*self.state() {
            Some(state) => Settings::clone(&state.upcoming().settings),
            None => return Ok(()),
        };
        settings.set("model", value);
        let number = self.loads.fetch_add(1, Ordering::Relaxed) + 1;
        let (element, opener, left) = (self.obj().downgrade(), self.opener(), self.left.clone());
        std::thread::Builder::new()
            .name("masam-load".into())
            .spawn(move || {
                let loaded = Session::open(settings, opener, left);
                match (element.upgrade(), loaded) {
                    (Some(element), loaded) => element.imp().adopt(number, loaded),
                    (None, Ok(session)) => {
                        session.close(None);
                    }
                    (None, Err(_)) => (),
                }
            })?;
        Ok(())
    }

    /// Has the next frame shown with a model that has been loaded, unless another has been asked for since.
    fn adopt(&self, number: u64, loaded: Result<Session>) {
        let is_latest = || self.loads.load(Ordering::Relaxed) == number;
        let planned = loaded.and_then(|loaded| {
            let upcoming = self
                .state()
                .as_ref()
                .map(|state| Settings::clone(&state.upcoming().settings));
            let Some(upcoming) = upcoming.filter(|_| is_latest()) else {
                loaded.close(None);
                return Ok(());
            };
            // Other properties may have been set while it was loaded.
            let settings = Settings {
                model: loaded.settings.model.clone(),
                ..upcoming
            };
            let planned = loaded.with(settings).and_then(|session| self.plan(session));
            if planned.is_err() {
                loaded.close(None);
            }
            planned
        });
        if let Err(error) = planned
            && is_latest()
        {
            let kept = self
                .state()
                .as_ref()
                .map(|state| state.upcoming().settings.model.clone());
            if let Some(kept) = kept {
                self.settings().model = kept;
            }
            self.warn_of_refusal("model", &error);
        }
    }

    /// Has the next frame shown with `session`.
    ///
    /// # Errors
    /// It does not fit the stream under way, or would have a live video wait for its masks.
    fn plan(&self, session: Session) -> Result<()> {
        let stream = match &*self.state() {
            Some(state) => state.check_against_size(&session).map(|()| state.trial())?,
            None => return Ok(()),
        };
        if let Some((format, live_source, live, region)) = stream {
            if live && !session.goes_live(live_source) {
                let bound = "a live stream shows newest or step; others need mode=exact from the start on";
                return Err(Error::config("emit", session.emit(), bound));
            }
            // Made without the lock, to see whether it can be: the one that is used knows its epoch.
            let trial = State::make_stream(&session, format.clone(), live_source, 0)??;
            if session.roi == Roi::Auto {
                let found = ModelSquare {
                    region,
                    ..trial.square
                };
                session.prompt.in_square(format.size, &found)?;
            }
        }
        if let Some(state) = self.state().as_mut() {
            state.next = Some(session);
        }
        Ok(())
    }

    /// Where properties have been changed, ends the epoch, so that no mask rests on two of their values, and goes on with
    /// the new ones.
    pub(super) fn follow_changes(&self) -> std::result::Result<(), gst::FlowError> {
        if self.state().as_ref().is_none_or(|state| state.next.is_none()) {
            return Ok(());
        }
        if self.is_under_way() {
            self.end_epoch()?;
        }
        let (before, now, caps, region) = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            let Some(next) = state.next.take() else {
                return Ok(());
            };
            let before = std::mem::replace(&mut state.session, next);
            let region = state.stream.as_ref().map(|stream| stream.square.region);
            (before, state.session.clone(), state.caps.clone(), region)
        };
        let is_other_model = !Arc::ptr_eq(&before.supervisor, &now.supervisor);
        if is_other_model {
            let spec = now.spec();
            gst::info!(CAT, imp = self, "model {} on {}", spec.model_id, spec.device);
            let preview = self.preview(spec);
            if let Some(state) = self.state().as_mut() {
                state.preview = preview;
            }
            *self.session() = Some(now.clone());
        }
        let only_prompt = Settings {
            prompt: now.settings.prompt.clone(),
            ..Settings::clone(&before.settings)
        } == *now.settings;
        match (region, caps) {
            // The region that was found stays.
            (Some(region), _) if only_prompt && !is_other_model => self.aim(region),
            (_, Some(caps)) => {
                if let Err(message) = self.set_caps(&caps) {
                    self.post_error_message(message);
                    return Err(gst::FlowError::NotNegotiated);
                }
            }
            (_, None) => (),
        }
        if is_other_model {
            // Its last pass may take a while. Without a thread to wait on, its own ends by itself.
            let closing = std::thread::Builder::new().name("masam-close".into());
            let _ = closing.spawn(move || before.close(None));
        }
        Ok(())
    }
}
