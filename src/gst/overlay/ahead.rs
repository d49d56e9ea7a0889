//! Masks that are made before the frame comes that shows them.
//!
//! Tracing a mask takes longer than all else that is done to a frame. `masaminfer` announces each mask of a live stream
//! before any frame carries it. It is traced there and then, by the thread that announces it, and the streaming thread
//! finds it ready. Nothing depends on that: a mask that was not
//! announced, or is asked for with other wishes by then, is traced where it is drawn.

use super::painter::{Foreseen, Painter, Traced};
use super::settings::Settings;
use crate::gst::meta::MaskView;
use crate::kernels::picture::blend_sheet::FrameLayout;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Masks kept ready: frames that wait, in a queue or for `video-delay`, show masks when later ones have been announced.
const READY: usize = 8;

/// The masks of one overlay.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// For the frames of now. Another is put in its place without waiting for those who use it.
    bench: Mutex<Option<Arc<Bench>>>,
    ready: Mutex<Ready>,
}

/// Where masks are made.
#[derive(Debug)]
struct Bench {
    /// Locked by those who announce only, for as long as a mask takes.
    painter: Mutex<Painter>,
}

/// Behind a lock that is held to take and give only.
#[derive(Debug, Default)]
struct Ready {
    masks: VecDeque<Foreseen>,
    spare: Vec<Traced>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    /// Frames of another layout will come, or none.
    pub fn reset(&self, layout: Option<(FrameLayout, &Settings)>) {
        let bench = layout.map(|(layout, settings)| Bench {
            painter: Mutex::new(Painter::new(layout, settings.clone())),
        });
        // Freed without the lock.
        let before = std::mem::replace(&mut *locked(&self.bench), bench.map(Arc::new));
        drop(before);
        *locked(&self.ready) = Ready::default();
    }

    /// Makes the mask of `view` for frames that will carry it; not while another is being made.
    pub fn announce(&self, view: &MaskView<'_>, settings: &Settings) {
        let Some(bench) = locked(&self.bench).clone() else {
            return;
        };
        let Ok(mut painter) = bench.painter.try_lock() else {
            return;
        };
        let painter = &mut *painter;
        if painter.frame() != view.frame {
            return;
        }
        painter.set_settings(settings);
        if !painter.foresee(view) {
            return;
        }
        let spare = locked(&self.ready).spare.pop().unwrap_or_default();
        let Some(made) = painter.foreseen(spare) else {
            return;
        };
        // Frames of another layout may be coming by now.
        let now = locked(&self.bench);
        if !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &bench)) {
            return;
        }
        let mut ready = locked(&self.ready);
        ready.masks.push_back(made);
        while ready.masks.len() > READY {
            let oldest = ready.masks.pop_front().map(Foreseen::into_spare);
            ready.spare.extend(oldest);
        }
    }

    /// Gives the mask of `view` to `painter`, if it is ready; those announced before it are not needed any more.
    pub fn give(&self, view: &MaskView<'_>, painter: &mut Painter) -> bool {
        let mut ready = locked(&self.ready);
        let Some(at) = ready.masks.iter_mut().position(|made| painter.adopt(view, made)) else {
            return false;
        };
        for _ in 0..=at {
            let used = ready.masks.pop_front().map(Foreseen::into_spare);
            ready.spare.extend(used);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::gst::meta::MaskMeta;
    use crate::gst::overlay::layout::layout_of;
    use crate::labels::ClassSet;
    use gstreamer as gst;
    use gstreamer_video as gst_video;

    const FRAME: Size = Size {
        width_px: 64,
        height_px: 48,
    };

    fn layout(size: Size) -> FrameLayout {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, size.width_px, size.height_px);
        layout_of(&info.build().unwrap()).unwrap()
    }

    /// A mask whose left `columns` are of class 1.
    fn meta(columns: usize) -> MaskMeta {
        let plane: Vec<u8> = (0..64).map(|at| u8::from(at % 8 < columns)).collect();
        MaskMeta {
            epoch: 3,
            running_time_nanos: Some(5),
            age_nanos: 0,
            frame: FRAME,
            region: FRAME.rect(),
            mask: Size::square(8),
            classes: ClassSet::endovis_2018(),
            plane: gst::glib::Bytes::from_owned(plane),
            model_id: "m".into(),
            carried: false,
            untrained: false,
            confidence: None,
            status: None,
        }
    }

    /// One of many masks.
    fn numbered(number: usize) -> MaskMeta {
        let mut plane = vec![1; 64];
        plane[number] = 0;
        MaskMeta {
            plane: gst::glib::Bytes::from_owned(plane),
            ..meta(1)
        }
    }

    /// The luma of a frame with the mask of `meta`.
    fn drawn(painter: &mut Painter, meta: &MaskMeta, ahead: Option<&Ahead>) -> Vec<u8> {
        let structure = meta.to_structure();
        let view = MaskView::read(&structure).unwrap();
        painter.prepare(&view, 0, ahead);
        let mut luma = vec![90; FRAME.area()];
        painter.draw(0, &mut luma, FRAME.width_px as usize);
        luma
    }

    fn announce(ahead: &Ahead, meta: &MaskMeta, settings: &Settings) {
        let structure = meta.to_structure();
        ahead.announce(&MaskView::read(&structure).unwrap(), settings);
    }

    fn waiting(ahead: &Ahead) -> usize {
        locked(&ahead.ready).masks.len()
    }

    #[test]
    fn an_announced_mask_is_taken_and_looks_the_same() {
        let settings = Settings {
            status: false,
            ..Settings::default()
        };
        let (layout, ahead) = (layout(FRAME), Ahead::default());
        ahead.reset(Some((layout, &settings)));
        let mut painter = Painter::new(layout, settings.clone());
        let mut alone = Painter::new(layout, settings.clone());
        for columns in [3, 5, 5, 2, 7, 1] {
            announce(&ahead, &meta(columns), &settings);
            assert_eq!(waiting(&ahead), 1);
            // The frame's own plane lies elsewhere; the second frame with it needs nothing more.
            let shown = meta(columns);
            let wanted = drawn(&mut alone, &shown, None);
            assert!(wanted.iter().any(|&byte| byte != 90));
            assert_eq!(drawn(&mut painter, &shown, Some(&ahead)), wanted);
            assert_eq!(waiting(&ahead), 0, "{columns}: it was traced again");
            assert_eq!(drawn(&mut painter, &shown, Some(&ahead)), wanted);
        }
    }

    #[test]
    fn masks_that_no_frame_showed_give_way() {
        let settings = Settings::default();
        let (layout, ahead) = (layout(FRAME), Ahead::default());
        ahead.reset(Some((layout, &settings)));
        for columns in 0..=READY {
            announce(&ahead, &numbered(columns), &settings);
        }
        assert_eq!(waiting(&ahead), READY);
        let mut painter = Painter::new(layout, settings);
        // Too old, so made anew; the newest, so that none is left.
        drawn(&mut painter, &numbered(0), Some(&ahead));
        assert_eq!(waiting(&ahead), READY);
        drawn(&mut painter, &numbered(READY), Some(&ahead));
        assert_eq!(waiting(&ahead), 0);
    }

    /// The memory of a mask that was made under other wishes is no mask.
    #[test]
    fn what_is_announced_again_under_other_wishes_is_made_again() {
        let (first, second) = (
            Settings::default(),
            Settings {
                opacity: 0.9,
                ..Settings::default()
            },
        );
        let (layout, ahead) = (layout(FRAME), Ahead::default());
        ahead.reset(Some((layout, &first)));
        let plane = meta(3);
        announce(&ahead, &plane, &first);
        // It gives way to others, and its memory is used again.
        for number in 0..=READY {
            announce(&ahead, &numbered(number), &second);
        }
        for _ in 0..3 {
            announce(&ahead, &plane, &second);
            let mut painter = Painter::new(layout, second.clone());
            let wanted = drawn(&mut Painter::new(layout, second.clone()), &plane, None);
            assert_eq!(drawn(&mut painter, &plane, Some(&ahead)), wanted);
        }
    }

    #[test]
    fn a_mask_foreseen_otherwise_is_not_taken() {
        let (layout_here, settings) = (layout(FRAME), Settings::default());
        let other = Settings {
            opacity: 0.9,
            ..settings.clone()
        };
        for (announced, of) in [(&settings, meta(4)), (&other, meta(3)), (&settings, meta(3))] {
            let ahead = Ahead::default();
            ahead.reset(Some((layout_here, announced)));
            announce(&ahead, &of, announced);
            let expected = usize::from(of.plane != meta(3).plane || announced == &other);
            let mut painter = Painter::new(layout_here, settings.clone());
            let found = drawn(&mut painter, &meta(3), Some(&ahead));
            assert_eq!(waiting(&ahead), expected);
            assert_eq!(
                found,
                drawn(&mut Painter::new(layout_here, settings.clone()), &meta(3), None)
            );
        }
        // Frames of another size, and none.
        let ahead = Ahead::default();
        announce(&ahead, &meta(3), &settings);
        assert_eq!(waiting(&ahead), 0);
        ahead.reset(Some((layout(Size::square(32)), &settings)));
        announce(&ahead, &meta(3), &settings);
        assert_eq!(waiting(&ahead), 0);
    }
}
