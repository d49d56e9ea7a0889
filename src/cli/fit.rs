//! `masamfit`: frames of any size, format and color as one stream that every player shows alike.
//!
//! The output is I420 with even sides, so that an H.264 encoder writes High 4:2:0. Its size and pixel aspect are those
//! of the first frame; an odd side gets a copy of its last column or row. Range, matrix, transfer and primaries of
//! YUV are kept; RGB becomes BT.709 of limited range. Frames that come later in another size are scaled into the
//! first, with black bars where the aspect differs, and a warning. The element exists in the program alone.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

glib::wrapper! {
    /// The element `masamfit`.
    pub struct Fit(ObjectSubclass<imp::Fit>)
        @extends gstreamer_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// Makes the element known to this process. May be called again.
///
/// # Errors
/// GStreamer refused it.
pub(super) fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, "masamfit", gst::Rank::NONE, Fit::static_type())
}

/// Name of the application message that says something about the output in its field `text`.
pub(super) const NOTE: &str = "masam-note";

/// Posts a line for the user on an element's bus.
pub(super) fn note(element: &impl IsA<gst::Element>, text: &str) {
    let structure = gst::Structure::builder(NOTE).field("text", text).build();
    // An element without a bus is in no pipeline: there is nobody to tell.
    let _ = element.post_message(gst::message::Application::new(structure));
}

mod imp {
    use super::note;
    use gst::subclass::prelude::*;
    use gst_base::subclass::BaseTransformMode;
    use gst_base::subclass::prelude::*;
    use gst_video::subclass::prelude::*;
    use gst_video::{
        VideoColorMatrix as Matrix, VideoColorPrimaries as Primaries, VideoColorRange as Range,
        VideoColorimetry, VideoFormat, VideoFrameRef, VideoInfo, VideoTransferFunction as Transfer,
    };
    use gstreamer as gst;
    use gstreamer::glib;
    use gstreamer::prelude::*;
    use gstreamer_base as gst_base;
    use gstreamer_video as gst_video;
    use gstreamer_video::prelude::*;
    use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

    /// `masamfit`.
    #[derive(Default)]
    pub struct Fit {
        /// The encoder writes no color description: everything is brought to BT.601 of limited range.
        bt601: Mutex<bool>,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        /// Input and output of the first frame; every later one becomes the same output.
        first: Option<(VideoInfo, VideoInfo)>,
        /// That frame has come: caps may change before it, when a tag says how the picture lies.
        begun: bool,
        /// Absent where frames pass untouched.
        converter: Option<gst_video::VideoConverter>,
        /// The picture is as large as the first one.
        same: bool,
        /// Size of the picture within the output where it is smaller by an odd column or row.
        odd: Option<(usize, usize)>,
        warned: bool,
    }

    impl Fit {
        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn bt601(&self) -> MutexGuard<'_, bool> {
            self.bt601.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Color of the output for an input of `info`.
        fn color_of(&self, info: &VideoInfo) -> VideoColorimetry {
            let from = info.colorimetry();
            let rgb = info.is_rgb() || from.matrix() == Matrix::Rgb;
            let known = |primaries| match primaries {
                Primaries::Unknown => Primaries::Bt709,
                known => known,
            };
            match (rgb, *self.bt601()) {
                (_, true) => VideoColorimetry::new(
                    Range::Range16_235,
                    Matrix::Bt601,
                    if rgb { Transfer::Bt709 } else { from.transfer() },
                    known(from.primaries()),
                ),
                (true, false) => VideoColorimetry::new(
                    Range::Range16_235,
                    Matrix::Bt709,
                    Transfer::Bt709,
                    known(from.primaries()),
                ),
                (false, false) => from,
            }
        }

        /// Output of the first frame, whose caps are `from`.
        fn output_of(&self, from: &VideoInfo) -> Result<VideoInfo, glib::BoolError> {
            let even = |side: u32| side + side % 2;
            let color = self.color_of(from);
            let mut builder = VideoInfo::builder(VideoFormat::I420, even(from.width()), even(from.height()))
                .par(from.par())
                .fps(from.fps())
                .interlace_mode(from.interlace_mode())
                .colorimetry(&color);
            if from.format_info().w_sub().get(1) == Some(&1) && from.format_info().h_sub().get(1) == Some(&1)
            {
                builder = builder.chroma_site(from.chroma_site());
            }
            if from.interlace_mode() != gst_video::VideoInterlaceMode::Progressive {
                builder = builder.field_order(from.field_order());
            }
            builder.build()
        }

        /// The output's caps for an input of `from`: those of the first frame, whose rate stays too, because a muxer
        /// refuses others in mid-stream.
        fn caps_for(&self, from: &VideoInfo) -> Result<gst::Caps, glib::BoolError> {
            let state = self.state();
            match &state.first {
                Some((_, output)) if state.begun => output.to_caps(),
                _ => self.output_of(from)?.to_caps(),
            }
        }
    }

    /// Where the picture lies in an output of another shape, in pixels: x, y, width, height.
    fn place(from: &VideoInfo, to: &VideoInfo) -> (i32, i32, i32, i32) {
        let aspect = |info: &VideoInfo| {
            let par = info.par();
            f64::from(info.width()) * f64::from(par.numer())
                / (f64::from(info.height()) * f64::from(par.denom()))
        };
        let (width, height) = (f64::from(to.width()), f64::from(to.height()));
        let relative = aspect(from) / aspect(to);
        // Chroma has half the samples: everything lies on even pixels.
        let even = |value: f64| ((value / 2.0).round() as i32).max(1) * 2;
        let (w, h) = match relative >= 1.0 {
            true => (to.width() as i32, even(height / relative).min(to.height() as i32)),
            false => (even(width * relative).min(to.width() as i32), to.height() as i32),
        };
        let margin = |all: u32, part: i32| (all as i32 - part) / 4 * 2;
        (margin(to.width(), w), margin(to.height(), h), w, h)
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Fit {
        const NAME: &'static str = "MasamFit";
        type Type = super::Fit;
        type ParentType = gst_video::VideoFilter;
    }

    impl ObjectImpl for Fit {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
                vec![
                    glib::ParamSpecBoolean::builder("bt601")
                        .nick("BT.601")
                        .blurb("Bring every picture to BT.601 of limited range, for encoders without a color description")
                        .build(),
                ]
            });
            PROPERTIES.as_ref()
        }

        fn set_property(&self, _id: usize, value: &glib::Value, _spec: &glib::ParamSpec) {
            if let Ok(value) = value.get() {
                *self.bt601() = value;
            }
        }

        fn property(&self, _id: usize, _spec: &glib::ParamSpec) -> glib::Value {
            self.bt601().to_value()
        }
    }

    impl GstObjectImpl for Fit {}

    impl ElementImpl for Fit {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "One size and color",
                    "Filter/Converter/Video",
                    "Brings frames to 4:2:0, even sides, the first frame's size and a color that is described",
                    "masam",
                )
            });
            Some(&*METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                use gst::{PadDirection, PadPresence};
                let template = |name, direction, formats: &[VideoFormat]| {
                    let caps = gst_video::VideoCapsBuilder::new()
                        .format_list(formats.iter().copied())
                        .build();
                    gst::PadTemplate::new(name, direction, PadPresence::Always, &caps)
                };
                let any: Vec<VideoFormat> = VideoFormat::iter_raw().collect();
                [
                    template("sink", PadDirection::Sink, &any),
                    template("src", PadDirection::Src, &[VideoFormat::I420]),
                ]
                .into_iter()
                .flatten()
                .collect()
            });
            TEMPLATES.as_ref()
        }
    }

    impl BaseTransformImpl for Fit {
        const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = true;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        fn stop(&self) -> Result<(), gst::ErrorMessage> {
            *self.state() = State::default();
            Ok(())
        }

        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let sides = gst_video::VideoCapsBuilder::new();
            let mut result = if direction == gst::PadDirection::Src {
                sides.format_list(VideoFormat::iter_raw()).build()
            } else if caps.is_fixed() {
                let info = VideoInfo::from_caps(caps).ok()?;
                self.caps_for(&info).ok()?
            } else {
                sides.format(VideoFormat::I420).build()
            };
            if let Some(filter) = filter {
                result = filter.intersect_with_mode(&result, gst::CapsIntersectMode::First);
            }
            Some(result)
        }

        fn before_transform(&self, _frame: &gst::BufferRef) {
            self.state().begun = true;
        }
    }

    impl VideoFilterImpl for Fit {
        fn set_info(
            &self,
            _in_caps: &gst::Caps,
            from: &VideoInfo,
            _out_caps: &gst::Caps,
            to: &VideoInfo,
        ) -> Result<(), gst::LoggableError> {
            let mut state = self.state();
            let known = state.first.as_ref().map(|(first, _)| first.colorimetry());
            if !state.begun {
                state.first = None;
            }
            let news = known != Some(from.colorimetry());
            let high_range = match (news, from.colorimetry().transfer()) {
                (true, Transfer::Smpte2084) => Some("PQ"),
                (true, Transfer::AribStdB67) => Some("HLG"),
                _ => None,
            };
            let (first, _) = state
                .first
                .get_or_insert_with(|| (from.clone(), to.clone()))
                .clone();
            let sides = |info: &VideoInfo| (info.width(), info.height(), info.par());
            let same = sides(&first) == sides(from);
            let (x, y, width, height) = match same {
                true => (0, 0, from.width() as i32, from.height() as i32),
                false => place(from, to),
            };
            state.same = same;
            state.odd = (same && (from.width(), from.height()) != (to.width(), to.height()))
                .then_some((from.width() as usize, from.height() as usize));
            let mut config = gst_video::VideoConverterConfig::new();
            config.set_dest_x(x);
            config.set_dest_y(y);
            config.set_dest_width(Some(width));
            config.set_dest_height(Some(height));
            config.set_fill_border(true);
            config.set_border_argb(0xff00_0000);
            let said = (!same && !state.warned).then(|| {
                state.warned = true;
                format!(
                    "the picture changes from {}x{} to {}x{} in mid-stream: it is scaled to {}x{}, with black bars \
                     where the aspect differs",
                    first.width(),
                    first.height(),
                    from.width(),
                    from.height(),
                    to.width(),
                    to.height()
                )
            });
            // The converter changes neither rate nor fields; both are only words here.
            let from = VideoInfo::builder_from_info(from)
                .fps(to.fps())
                .interlace_mode(to.interlace_mode())
                .build()?;
            state.converter = Some(gst_video::VideoConverter::new(&from, to, Some(config))?);
            drop(state);
            let high_range = high_range.map(|curve| {
                format!(
                    "the picture is HDR ({curve}) and stays so, in 8 bits and with its tags; it is not converted to \
                     SDR, and looks pale on players without HDR"
                )
            });
            for said in [high_range, said].into_iter().flatten() {
                note(&*self.obj(), &said);
            }
            Ok(())
        }

        fn transform_frame(
            &self,
            from: &VideoFrameRef<&gst::BufferRef>,
            to: &mut VideoFrameRef<&mut gst::BufferRef>,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let state = self.state();
            let format = from.format_info();
            let packed =
                format.is_rgb() && format.n_planes() == 1 && format.depth().iter().all(|&bits| bits == 8);
            if state.same && packed {
                yuv_from_rgb(from, to).ok_or(gst::FlowError::Error)?;
                return Ok(gst::FlowSuccess::Ok);
            }
            let converter = state.converter.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
            converter.frame_ref(from, to);
            if let Some((width, height)) = state.odd {
                copy_last_luma(to, width, height).ok_or(gst::FlowError::Error)?;
            }
            Ok(gst::FlowSuccess::Ok)
        }
    }

    /// Converts 8-bit RGB to I420 of limited range, rounded; GStreamer cuts off, which adds up to four levels of blue.
    /// The last column and row serve where the output is larger by one. `None` for planes that are too short.
    ///
    /// Y = kr R + (1 - kr - kb) G + kb B, Cb = (B - Y) / (2 - 2 kb), Cr = (R - Y) / (2 - 2 kr) with the constants of
    /// BT.709 or BT.601, in 1/65536.
    fn yuv_from_rgb(
        from: &VideoFrameRef<&gst::BufferRef>,
        to: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Option<()> {
        let (kr, kb) = match to.info().colorimetry().matrix() {
            Matrix::Bt601 => (0.299, 0.114),
            _ => (0.2126, 0.0722),
        };
        let fixed = |value: f64| (value * 65536.0 / 255.0).round() as i32;
        let luma = [219.0 * kr, 219.0 * (1.0 - kr - kb), 219.0 * kb].map(fixed);
        let chroma = |own: f64, weights: [f64; 3]| {
            let scale = 224.0 / (2.0 - 2.0 * own);
            weights.map(|weight| fixed(scale * weight))
        };
        let blue = chroma(kb, [-kr, kr + kb - 1.0, 1.0 - kb]);
        let red = chroma(kr, [1.0 - kr, kr + kb - 1.0, -kb]);
        let dot = |weights: [i32; 3], rgb: [i32; 3]| {
            weights[0] * rgb[0] + weights[1] * rgb[1] + weights[2] * rgb[2]
        };

        let (width, height) = (from.width() as usize, from.height() as usize);
        let input = from.plane_data(0).ok()?;
        let input_stride = usize::try_from(*from.plane_stride().first()?).ok()?;
        let format = from.format_info();
        let (step, offsets) = (*format.pixel_stride().first()? as usize, format.poffset());
        let [r, g, b] = [offsets.first()?, offsets.get(1)?, offsets.get(2)?].map(|&offset| offset as usize);
        let row = |y: usize| input.get(y.min(height - 1) * input_stride..);
        let pixel = |row: &[u8], x: usize| -> Option<[i32; 3]> {
            let bytes = row.get(x.min(width - 1) * step..)?.get(..step)?;
            Some([
                i32::from(*bytes.get(r)?),
                i32::from(*bytes.get(g)?),
                i32::from(*bytes.get(b)?),
            ])
        };
        let (whole_width, whole_height) = (to.width() as usize, to.height() as usize);
        let strides: Vec<usize> = to
            .plane_stride()
            .iter()
            .map(|&stride| stride.max(1) as usize)
            .collect();
        let rows = |y: usize| Some((row(y)?, row(y + 1)?));
        for (y, line) in to
            .plane_data_mut(0)
            .ok()?
            .chunks_mut(*strides.first()?)
            .take(whole_height)
            .enumerate()
        {
            let source = row(y)?;
            for (x, sample) in line.get_mut(..whole_width)?.iter_mut().enumerate() {
                *sample = ((dot(luma, pixel(source, x)?) + (16 << 16) + (1 << 15)) >> 16) as u8;
            }
        }
        for (plane, weights) in [(1, blue), (2, red)] {
            let stride = *strides.get(plane as usize)?;
            for (y, line) in to
                .plane_data_mut(plane)
                .ok()?
                .chunks_mut(stride)
                .take(whole_height / 2)
                .enumerate()
            {
                let (above, below) = rows(2 * y)?;
                for (x, sample) in line.get_mut(..whole_width / 2)?.iter_mut().enumerate() {
                    // Between two rows, and beside the left of two columns as MPEG-2 has it.
                    let (one, two) = (pixel(above, 2 * x)?, pixel(below, 2 * x)?);
                    let sum = [one[0] + two[0], one[1] + two[1], one[2] + two[2]];
                    *sample = ((dot(weights, sum) + (256 << 16) + (1 << 16)) >> 17) as u8;
                }
            }
        }
        Some(())
    }

    /// Fills the column right of `width` and the row below `height` with copies of their neighbors. Chroma needs
    /// none: its last sample serves two pixels anyway.
    fn copy_last_luma(
        frame: &mut VideoFrameRef<&mut gst::BufferRef>,
        width: usize,
        height: usize,
    ) -> Option<()> {
        let (whole_width, whole_height) = (frame.width() as usize, frame.height() as usize);
        let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
        let luma = frame.plane_data_mut(0).ok()?;
        if whole_width > width {
            for row in luma.chunks_mut(stride).take(height) {
                let last = *row.get(width.checked_sub(1)?)?;
                *row.get_mut(width)? = last;
            }
        }
        if whole_height > height {
            let start = height.checked_sub(1)? * stride;
            luma.get(start + whole_width..)?; // both rows are there
            luma.get(..start + stride + whole_width)?;
            luma.copy_within(start..start + whole_width, start + stride);
        }
        Some(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Caps and the first pixel (Y, U, V) of what comes out for a flat frame of `caps`.
        fn fitted(caps: &str) -> (VideoInfo, [u8; 3]) {
            gst::init().unwrap();
            super::super::register().unwrap();
            let pipeline = gst::parse::launch(&format!(
                "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xffb14030 ! video/x-raw,width=33,\
                 height=17,{caps} ! masamfit ! fakesink name=out enable-last-sample=true"
            ))
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            let ends = [gst::MessageType::Eos, gst::MessageType::Error];
            let message = pipeline
                .bus()
                .unwrap()
                .timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends);
            assert_eq!(message.unwrap().type_(), gst::MessageType::Eos, "{caps}");
            let sample = pipeline
                .by_name("out")
                .unwrap()
                .property::<gst::Sample>("last-sample");
            pipeline.set_state(gst::State::Null).unwrap();
            let info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            let frame = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
            assert_eq!(
                (info.width(), info.height(), info.format()),
                (34, 18, VideoFormat::I420)
            );
            let last = frame.plane_stride()[0] as usize * 17 + 33;
            assert_eq!(
                frame.plane_data(0).unwrap()[last],
                frame.plane_data(0).unwrap()[0],
                "{caps}: the added edge"
            );
            let pixel = [0, 1, 2].map(|plane| frame.plane_data(plane).unwrap()[0]);
            (info, pixel)
        }

        #[test]
        fn yuv_keeps_its_color_and_rgb_becomes_bt709() {
            // (177, 64, 48) by the matrix of BT.709. videotestsrc writes the same numbers whatever the range.
            for (caps, pixel) in [
                ("format=I420,colorimetry=1:3:5:1", [91, 110, 178]),
                ("format=I420,colorimetry=bt709", [91, 110, 178]),
                ("format=Y444,colorimetry=1:3:5:1", [91, 110, 178]),
                ("format=I420_10LE,colorimetry=bt709", [91, 110, 178]),
                ("format=RGB", [91, 110, 178]),
                ("format=BGRA", [91, 110, 178]),
            ] {
                let (info, found) = fitted(caps);
                for (wanted, found) in pixel.into_iter().zip(found) {
                    assert!(found.abs_diff(wanted) <= 1, "{caps}: {found} for {wanted}");
                }
                let wanted = caps
                    .split_once("colorimetry=")
                    .map_or("bt709", |(_, color)| color);
                assert_eq!(info.colorimetry(), wanted.parse().unwrap(), "{caps}");
            }
            for color in ["bt601", "bt2020", "bt2100-pq", "bt2100-hlg"] {
                let (info, _) = fitted(&format!("format=I420_10LE,colorimetry={color}"));
                assert_eq!(info.colorimetry(), color.parse().unwrap());
            }
        }

        #[test]
        fn another_shape_is_centered() {
            gst::init().unwrap();
            let info = |w, h, par: (i32, i32)| {
                VideoInfo::builder(VideoFormat::I420, w, h)
                    .par(gst::Fraction::new(par.0, par.1))
                    .build()
                    .unwrap()
            };
            let to = info(640, 480, (1, 1));
            assert_eq!(place(&info(320, 240, (1, 1)), &to), (0, 0, 640, 480));
            assert_eq!(place(&info(1280, 720, (1, 1)), &to), (0, 60, 640, 360));
            assert_eq!(place(&info(240, 320, (1, 1)), &to), (140, 0, 360, 480));
            // 1440x1080 of 4:3 pixels is 16:9.
            assert_eq!(place(&info(1440, 1080, (4, 3)), &to), (0, 60, 640, 360));
            assert_eq!(place(&info(4000, 2, (1, 1)), &to), (0, 238, 640, 2));
        }
    }
}
