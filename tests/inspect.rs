//! What `gst-inspect-1.0` shows of each element: names, descriptions, a launch line that works, and properties that
//! say what they are.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use std::path::Path;
use std::process::Command;

/// Elements, and the debug category of each.
const ELEMENTS: [(&str, &str); 4] = [
    ("masaminfer", "masaminfer"),
    ("masamoverlay", "masamoverlay"),
    ("masammask", "masammask"),
    ("masam", "masambin"),
];

fn factory(name: &str) -> gst::ElementFactory {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    gst::ElementFactory::find(name).unwrap_or_else(|| panic!("{name} is not registered"))
}

#[test]
fn elements_say_what_they_are() {
    for (name, _) in ELEMENTS {
        let factory = factory(name);
        let said = |key: &str| {
            factory
                .metadata(key)
                .unwrap_or_else(|| panic!("{name} has no {key}"))
                .to_owned()
        };
        let (long, klass, description, author) = (
            said("long-name"),
            said("klass"),
            said("description"),
            said("author"),
        );
        assert!(long.len() > 8 && !long.ends_with('.'), "{name}: {long}");
        assert!(klass.split('/').any(|part| part == "Video"), "{name}: {klass}");
        let first = klass.split('/').next().unwrap();
        assert!(["Filter", "Converter"].contains(&first), "{name}: {klass}");
        assert!(
            description.len() > 30 && description != long,
            "{name}: {description}"
        );
        assert!(
            description.contains("not a medical device"),
            "{name}: {description}"
        );
        assert!(!author.is_empty());
        // Autopluggers must not take them by themselves.
        assert_eq!(factory.rank(), gst::Rank::NONE, "{name}");
    }
}

/// The launch line plays as it is written, with stand-ins for the file, the model and the screen.
#[test]
fn the_launch_lines_play() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("in.mkv");
    let play = |line: &str| {
        let pipeline = gst::parse::launch(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        pipeline
            .set_state(gst::State::Playing)
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let patience = gst::ClockTime::from_seconds(120);
        let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &ends);
        pipeline.set_state(gst::State::Null).unwrap();
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Eos(_)) => {}
            Some(gst::MessageView::Error(e)) => panic!("{line}: {} {:?}", e.error(), e.debug()),
            _ => panic!("{line}: it does not end"),
        }
    };
    for (name, _) in ELEMENTS {
        let factory = factory(name);
        if !video.exists() {
            play(&format!(
                "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48 ! x264enc ! matroskamux \
                 ! filesink location={}",
                video.display()
            ));
        }
        let line = factory
            .metadata("example")
            .unwrap_or_else(|| panic!("{name} shows no launch line"));
        let line = line
            .strip_prefix("gst-launch-1.0 ")
            .expect("a line for gst-launch-1.0");
        assert!(line.contains(&format!("! {name} ")), "{name}: {line}");
        let stand_ins = [
            ("in.mp4", video.to_str().unwrap()),
            (
                "demo.safetensors",
                concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors"),
            ),
            ("autovideosink", "fakesink"),
        ];
        let line = stand_ins.iter().fold(line.to_owned(), |line, (from, to)| {
            assert!(line.contains(from), "{name}: {line}");
            line.replace(from, to)
        });
        play(&line);
    }
}

#[test]
fn properties_have_names_descriptions_and_defaults() {
    for (name, _) in ELEMENTS {
        let element = factory(name).create().build().unwrap();
        let own: Vec<glib::ParamSpec> = element
            .list_properties()
            .iter()
            .filter(|spec| spec.owner_type() == element.type_())
            .cloned()
            .collect();
        assert!(own.len() >= if name == "masammask" { 1 } else { 8 }, "{name}");
        for spec in own {
            let what = format!("{name} {}", spec.name());
            let (nick, blurb) = (spec.nick(), spec.blurb().unwrap_or_default());
            assert!(!nick.is_empty() && nick != spec.name(), "{what}: nick {nick:?}");
            assert!(blurb.len() > 15 && blurb != nick, "{what}: blurb {blurb:?}");
            assert!(!blurb.ends_with('.'), "{what}: {blurb}");
            if !spec.flags().contains(glib::ParamFlags::WRITABLE) {
                continue;
            }
            // An element fresh from the factory has what is announced.
            let (now, announced) = (element.property_value(spec.name()), spec.default_value());
            let text = |value: &glib::Value| value.serialize().ok();
            assert_eq!(text(&now), text(announced), "{what}");
            // And it takes that back.
            element.set_property_from_value(spec.name(), &now);
            let documented = gst::PARAM_FLAG_MUTABLE_READY.bits() | gst::PARAM_FLAG_MUTABLE_PLAYING.bits();
            assert!(
                spec.flags().bits() & documented != 0,
                "{what}: when may it be changed?"
            );
        }
    }
}

#[test]
fn each_element_has_a_debug_category_from_the_start() {
    for (name, category) in ELEMENTS {
        factory(name);
        let found =
            gst::DebugCategory::get(category).unwrap_or_else(|| panic!("{name}: no category {category}"));
        assert!(found.name().starts_with("masam"));
        assert!(found.description().is_some_and(|text| text.len() > 8), "{name}");
    }
}

/// The tool itself, on the plugin as it is installed.
#[test]
fn gst_inspect_prints_it() {
    let plugins = Path::new(env!("CARGO_BIN_EXE_masam")).parent().unwrap();
    assert!(
        plugins.join("libmasam.so").exists(),
        "build the plugin first: make plugin"
    );
    let inspect = |arguments: &[&str]| {
        let output = Command::new("gst-inspect-1.0")
            .args(arguments)
            .env("GST_PLUGIN_PATH", plugins)
            .env(
                "GST_REGISTRY",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/registry.bin"),
            )
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (name, _) in ELEMENTS {
        let said = inspect(&[name]);
        for part in [
            "Rank                     none",
            "Long-name",
            "Klass",
            "Description",
            "Author",
            "Example                  gst-launch-1.0 ",
            "Apache 2.0",
            "Element Properties",
        ] {
            assert!(said.contains(part), "{name}: no {part:?} in {said}");
        }
    }
    assert!(inspect(&["masaminfer"]).contains("box=x0,y0,x1,y1"));
    let plugin = inspect(&["--plugin", "masam"]);
    assert!(plugin.contains("4 elements"), "{plugin}");
}
