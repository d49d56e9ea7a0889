//! The bin `masam`: both parts, with their properties.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::bin::Masam;
use stream_support::{Bench, Fake, class_of, gray_frame, init, rgb_caps};

const SIZE: Size = Size {
    width_px: 64,
    height_px: 64,
};

fn masam_with(fake: &Fake) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("masam").build().unwrap();
    let fake = fake.clone();
    element
        .downcast_ref::<Masam>()
        .unwrap()
        .infer()
        .set_segmenter(move || Ok(Box::new(fake.clone())));
    element
}

#[test]
fn properties_reach_the_part_that_has_them() {
    let element = masam_with(&Fake::new());
    let masam = element.downcast_ref::<Masam>().unwrap();
    for part in [
        masam.infer().upcast_ref::<gst::Element>(),
        masam.overlay().upcast_ref(),
    ] {
        let own = part
            .list_properties()
            .iter()
            .filter(|spec| spec.owner_type() == part.type_())
            .cloned()
            .collect::<Vec<_>>();
        assert!(own.len() >= 8);
        for spec in own {
            let outer = element
                .find_property(spec.name())
                .unwrap_or_else(|| panic!("{} is missing", spec.name()));
            assert_eq!(
                (outer.value_type(), outer.flags()),
                (spec.value_type(), spec.flags())
            );
        }
    }
    element.set_property_from_str("emit", "centre");
    element.set_property("hop", 1_u32);
    element.set_property("threads", 3_u32);
    assert_eq!(masam.infer().property::<u32>("threads"), 3);
    element.set_property("opacity", 0.25_f32);
    element.set_property_from_str("style", "both");
    element.set_property("max-mask-age", 7_u64);
    assert_eq!(
        masam
            .infer()
            .property_value("emit")
            .get::<masam::gst::infer::Emit>(),
        Ok(masam::gst::infer::Emit::Center)
    );
    assert_eq!(masam.infer().property::<u64>("max-mask-age"), 7);
    assert_eq!(masam.overlay().property::<f32>("opacity"), 0.25);
    assert_eq!(element.property::<u64>("max-mask-age"), 7);
    // What is set on a part is read from the whole.
    masam.overlay().set_property("legend", false);
    assert!(!element.property::<bool>("legend"));
    assert_eq!(
        element.property::<gst::Structure>("stats").name(),
        "masaminfer-stats"
    );
}

#[test]
fn frames_leave_with_their_masks_drawn() {
    let fake = Fake::new();
    let element = masam_with(&fake);
    element.set_property_from_str("mode", "exact");
    element.set_property("legend", false);
    element.set_property("status", false);
    element.set_property("opacity", 1.0_f32);
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 100, 0)).unwrap();
    bench.push(gray_frame(SIZE, 101, 1)).unwrap();
    bench.end();
    let frames = bench.frames();
    let classes = &fake.spec.classes;
    for (frame, class) in frames.iter().zip([100_u8, 101]) {
        assert_eq!(class_of(frame), Some(class));
        let map = frame.map_readable().unwrap();
        let color = classes.get(class).unwrap().color;
        let middle = (32 * 64 + 32) * 3;
        for (got, want) in map[middle..middle + 3].iter().zip(color) {
            assert!(
                got.abs_diff(want) <= 1,
                "{:?} {color:?}",
                &map[middle..middle + 3]
            );
        }
    }
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_model_that_is_missing_is_an_error_at_ready() {
    init();
    let element = gst::ElementFactory::make("masam")
        .property("model", "/no/such.safetensors")
        .build()
        .unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    assert!(error.error().to_string().contains("/no/such.safetensors"));
    element.set_state(gst::State::Null).unwrap();
    element.set_bus(None);
}
