//! The model behind an element, from READY on: of its own, or shared with elements of the same `model-instance-id`.

use super::settings::{Mode, Priority as Wish, Settings};
use crate::error::{Error, Result};
use crate::geometry::Roi;
use crate::prompt::FramePrompt;
use crate::segmenter::SegmenterSpec;
use crate::stream::faulty::{FaultPlan, Faulty};
use crate::stream::live::check_emit;
use crate::stream::worker::Stopped;
use crate::stream::{Clock, Emit, LeftThreads, Open, Priority, Supervisor, WorkerConfig};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a forward pass may hold up the way to NULL; after that its thread is left to itself.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// How long at least, where that time has passed since READY: elements of one pipeline stop one after another.
const STOP_AT_LEAST: Duration = Duration::from_millis(20);

/// A model that is open, and the wishes it was opened with.
#[derive(Clone)]
pub(super) struct Session {
    pub supervisor: Arc<Supervisor>,
    /// The settings as they were when the model was opened.
    pub settings: Arc<Settings>,
    pub roi: Roi,
    pub prompt: FramePrompt,
}

/// Monotonic time of this process.
pub(super) fn clock() -> Clock {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begun = *BEGUN.get_or_init(Instant::now);
    Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// What a model was opened with: elements that share one have to agree on it, and a change of it means opening
/// another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opened {
    id: String,
    model: Option<PathBuf>,
    device: String,
    precision: String,
    threads: u32,
    priority: Wish,
    inject_fault: String,
    watchdog_nanos: u64,
}

impl Opened {
    fn with(settings: &Settings) -> Self {
        Self {
            id: settings.model_instance_id.clone(),
            model: settings.model.clone(),
            device: settings.device.clone(),
            precision: settings.precision.clone(),
            threads: settings.threads,
            priority: settings.priority,
            inject_fault: settings.inject_fault.clone(),
            watchdog_nanos: settings.watchdog_nanos,
        }
    }
}

/// Models in use under an id.
static INSTANCES: Mutex<Vec<(Opened, Weak<Supervisor>)>> = Mutex::new(Vec::new());

impl Session {
    /// Checks the settings and opens the model with `injected`, or from its file. `left` counts the threads that
    /// this element has had to leave to themselves.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that no stream could satisfy, else what opening gave.
    pub fn open(settings: Settings, injected: Option<Open>, left: LeftThreads) -> Result<Self> {
        let options = settings.open_options()?;
        let (roi, prompt) = (settings.roi()?, settings.prompt.parse()?);
        let open = match (injected, settings.model.clone()) {
            (Some(open), _) => open,
            (None, Some(path)) => {
                Arc::new(move || crate::runtime::open(&path, &options).map_err(|error| named(error, &path)))
                    as Open
            }
            (None, None) => return Err(Error::config("model", "not set", "it has to name a model file")),
        };
        let open = match settings.inject_fault.as_str() {
            "" => open,
            plan => made_faulty(open, plan.parse()?),
        };
        let supervisor = if settings.model_instance_id.is_empty() {
            Arc::new(start(&settings, open, left)?)
        } else {
            share(&settings, open, left)?
        };
        let session = Self {
            supervisor,
            settings: Arc::new(settings),
            roi,
            prompt,
        };
        match session.checked() {
            Ok(()) => Ok(session),
            Err(error) => {
                session.close(None);
                Err(error)
            }
        }
    }

    /// The same model under other settings; `None` when they ask for another model.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn renewed(&self, settings: Settings) -> Result<Option<Self>> {
        let asks_for = |settings: &Settings| (Opened::with(settings), priority(settings));
        if asks_for(&self.settings) != asks_for(&settings) {
            return Ok(None);
        }
        self.with(settings).map(Some)
    }

    /// The same model under `settings`, of which those that belong to a model have to be as they are.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn with(&self, settings: Settings) -> Result<Self> {
        let (roi, prompt) = (settings.roi()?, settings.prompt.parse()?);
        let session = Self {
            supervisor: Arc::clone(&self.supervisor),
            settings: Arc::new(settings),
            roi,
            prompt,
        };
        session.checked().map(|()| session)
    }

    /// Whether frames of a source that is live or not are shown live.
    pub fn goes_live(&self, live_source: bool) -> bool {
        match self.settings.mode {
            Mode::Live => true,
            Mode::Exact => false,
            Mode::Auto => live_source && check_emit(self.emit()).is_ok(),
        }
    }

    /// The output that is shown.
    pub fn emit(&self) -> Emit {
        self.settings.emit.of(self.spec().temporal)
    }

    /// Settings that no stream could satisfy are refused before the first frame.
    fn checked(&self) -> Result<()> {
        if self.settings.mode == Mode::Live {
            check_emit(self.emit())?;
        }
        self.settings.window(self.spec(), None).map(|_| ())
    }

    /// What the model wants and gives.
    pub fn spec(&self) -> &SegmenterSpec {
        self.supervisor.spec()
    }

    /// Ends the worker unless other elements use it. A pass under way has had `waited` to end by now. Whether its thread
    /// had to be left to itself.
    pub fn close(self, waited: Option<Duration>) -> bool {
        // Only the last of those that share it gets hold of it.
        Arc::into_inner(self.supervisor).is_some_and(|supervisor| {
            let within = match (waited, supervisor.pace(clock()()).busy_nanos) {
                (Some(waited), Some(_)) => STOP_WITHIN.saturating_sub(waited).max(STOP_AT_LEAST),
                // Without a pass under way it ends by itself.
                _ => STOP_WITHIN,
            };
            supervisor.stop(within) == Stopped::Detached
        })
    }
}

/// What `open` gives, failing as `plan` says.
fn made_faulty(open: Open, plan: FaultPlan) -> Open {
    let passes = Arc::new(AtomicU64::new(0));
    Arc::new(move || {
        let model = open()?;
        Ok(Box::new(Faulty::new(model, plan, Arc::clone(&passes))))
    })
}

/// Files are named in their own errors; other errors get the path in front.
fn named(error: Error, path: &std::path::Path) -> Error {
    match error {
        Error::File { .. } => error,
        other => Error::file(path, other),
    }
}

fn priority(settings: &Settings) -> Priority {
    match settings.priority.into() {
        // No frame is to be shown in time. A video that joins later may be live.
        Priority::Low if settings.mode == Mode::Exact && settings.model_instance_id.is_empty() => {
            Priority::Normal
        }
        priority => priority,
    }
}

fn start(settings: &Settings, open: Open, left: LeftThreads) -> Result<Supervisor> {
    let priority = priority(settings);
    let config = WorkerConfig {
        name: "masam-infer".into(),
        clock: clock(),
        priority,
    };
    Supervisor::start(config, open, settings.watchdog_nanos, left)
}

/// The model that is open under this id, or a new one. Elements that start together wait for each other here, so that
/// it is opened once.
fn share(settings: &Settings, open: Open, left: LeftThreads) -> Result<Arc<Supervisor>> {
    let wanted = Opened::with(settings);
    let mut instances = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
    instances.retain(|(_, supervisor)| supervisor.strong_count() > 0);
    if let Some((shared, supervisor)) = instances.iter().find(|(shared, _)| shared.id == wanted.id)
        && let Some(supervisor) = supervisor.upgrade()
    {
        if *shared == wanted {
            return Ok(supervisor);
        }
        let bound = format!("another element uses that id with {shared:?}, and this one has {wanted:?}");
        drop(instances);
        Session {
            supervisor,
            settings: Arc::new(settings.clone()),
            roi: Roi::None,
            prompt: FramePrompt::default(),
        }
        .close(None);
        return Err(Error::config("model-instance-id", &wanted.id, bound));
    }
    let supervisor = Arc::new(start(settings, open, left)?);
    instances.push((wanted, Arc::downgrade(&supervisor)));
    Ok(supervisor)
}
