//! The video of a camera: its frames, pictures of the phantom, lie ready and come when their time has come. A test picture
//! that is drawn on the same processor would not do: the time for that strays more than all we add.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use masam::data::phantom::{PhantomConfig, Sequence};
use masam::geometry::Size;
use std::sync::Arc;

/// Frames a second.
pub const FPS: u64 = 30;

/// Different pictures, shown forth and back.
const PICTURES: usize = 12;

/// A camera's pictures, NV12, as they lie in memory.
pub struct Pictures {
    info: gst_video::VideoInfo,
    pictures: Vec<Vec<u8>>,
}

impl Pictures {
    /// Some seconds' work for 1920x1080.
    pub fn new(size: Size) -> Self {
        let config = PhantomConfig {
            size,
            frames: PICTURES,
            ..PhantomConfig::default()
        };
        let sequence = Sequence::new(&config, 0).unwrap();
        let info = |format| {
            let info = gst_video::VideoInfo::builder(format, size.width_px, size.height_px);
            info.fps(gst::Fraction::new(FPS as i32, 1)).build().unwrap()
        };
        let (rgb, nv12) = (
            info(gst_video::VideoFormat::Rgb),
            info(gst_video::VideoFormat::Nv12),
        );
        let converter = gst_video::VideoConverter::new(&rgb, &nv12, None).unwrap();
        let picture = |index| {
            let drawn = gst::Buffer::from_slice(sequence.render(index).rgb);
            let drawn = gst_video::VideoFrame::from_buffer_readable(drawn, &rgb).unwrap();
            let picture = gst::Buffer::with_size(nv12.size()).unwrap();
            let mut picture = gst_video::VideoFrame::from_buffer_writable(picture, &nv12).unwrap();
            converter.frame(&drawn, &mut picture);
            picture.into_buffer().map_readable().unwrap().to_vec()
        };
        Self {
            pictures: (0..PICTURES).map(picture).collect(),
            info: nv12,
        }
    }

    /// Frame `n` of the video.
    fn picture(&self, n: u64) -> &[u8] {
        let at = n as usize % (2 * PICTURES - 2);
        &self.pictures[at.min(2 * PICTURES - 2 - at)]
    }
}

/// Has `source` give `frames` frames, each when its time has come by the pipeline's clock, in a buffer of a pool.
pub fn shoot(source: &gst_app::AppSrc, pictures: &Arc<Pictures>, frames: u64) {
    source.set_caps(Some(&pictures.info.to_caps().unwrap()));
    let pool = gst::BufferPool::new();
    let mut config = pool.config();
    config.set_params(
        Some(&pictures.info.to_caps().unwrap()),
        pictures.info.size() as u32,
        4,
        0,
    );
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let (pictures, mut frame) = (Arc::clone(pictures), 0);
    let give = move |source: &gst_app::AppSrc, _| {
        if frame == frames {
            source.end_of_stream().unwrap();
            return;
        }
        let time = gst::ClockTime::SECOND * frame / FPS;
        let (Some(clock), Some(begun)) = (source.clock(), source.base_time()) else {
            return;
        };
        // Too late is as good: the next one is due.
        let _ = clock.new_single_shot_id(begun + time).wait();
        let mut buffer = pool.acquire_buffer(None).unwrap();
        let writable = buffer.get_mut().unwrap();
        writable
            .map_writable()
            .unwrap()
            .copy_from_slice(pictures.picture(frame));
        writable.set_pts(time);
        writable.set_duration(gst::ClockTime::SECOND / FPS);
        frame += 1;
        // Refused where the pipeline is stopping.
        let _ = source.push_buffer(buffer);
    };
    source.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(give).build());
}
