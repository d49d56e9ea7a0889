//! The pipeline in two forms: as given, and with `capsfilter` in the place of our elements: it passes frames on as they
//! are, of the formats that ours take, so that both forms play the same.

use anyhow::{Context, Result, bail};
use gstreamer as gst;

/// Our elements that pass frames on.
const OURS: [&str; 4] = ["masaminfer", "masamoverlay", "masam", "masammask"];

/// A pipeline with and without our elements, which bear the same names in both.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) with: String,
    pub(super) without: String,
    /// Names of our elements in the order of the description.
    pub(super) names: Vec<String>,
}

impl Pair {
    /// Reads what `gst-launch-1.0` reads, taking `!` between elements as the only separator.
    ///
    /// # Errors
    /// A description without our elements, or with one that makes other frames of them.
    pub(super) fn parse(description: &str) -> Result<Self> {
        let (mut with, mut without, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for part in description.split('!').map(str::trim) {
            let mut words = part.split_whitespace();
            let kind = words.next().unwrap_or_default();
            if !OURS.contains(&kind) {
                with.push(part.to_owned());
                without.push(part.to_owned());
                continue;
            }
            if kind == "masammask" {
                bail!("masammask makes another video: measure up to the element before it");
            }
            let given = words.find_map(|word| word.strip_prefix("name="));
            let name = given.map_or_else(|| format!("masam-latency-{}", names.len()), str::to_owned);
            with.push(match given {
                Some(_) => part.to_owned(),
                None => format!("{part} name={name}"),
            });
            without.push(format!("capsfilter name={name} caps=\"{}\"", caps_of(kind)?));
            names.push(name);
        }
        if names.is_empty() {
            bail!("--pipeline: there is no masaminfer in {description}");
        }
        Ok(Self {
            with: with.join(" ! "),
            without: without.join(" ! "),
            names,
        })
    }
}

/// The formats that an element takes.
fn caps_of(kind: &str) -> Result<gst::Caps> {
    let factory = gst::ElementFactory::find(kind).with_context(|| format!("there is no element {kind}"))?;
    let pads = factory.static_pad_templates();
    let sink = pads.iter().find(|pad| pad.direction() == gst::PadDirection::Sink);
    Ok(sink.with_context(|| format!("{kind} takes no frames"))?.caps())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_replaced_and_named() {
        gst::init().unwrap();
        crate::gst::register().unwrap();
        let pair =
            Pair::parse("videotestsrc ! masaminfer model=a.b name=x ! masamoverlay ! fakesink").unwrap();
        assert_eq!(
            pair.with,
            "videotestsrc ! masaminfer model=a.b name=x ! masamoverlay name=masam-latency-1 ! fakesink"
        );
        let parts: Vec<&str> = pair.without.split(" ! ").collect();
        let [source, infer, overlay, sink] = parts[..] else {
            panic!("{parts:?}")
        };
        assert_eq!((source, sink), ("videotestsrc", "fakesink"));
        for (part, name) in [(infer, "x"), (overlay, "masam-latency-1")] {
            assert!(
                part.starts_with(&format!("capsfilter name={name} caps=\"video/x-raw")),
                "{part}"
            );
            assert!(part.contains("NV12") && !part.contains("ABGR64"), "{part}");
        }
        assert_eq!(pair.names, ["x", "masam-latency-1"]);
        assert!(Pair::parse("videotestsrc ! fakesink").is_err());
        assert!(Pair::parse("videotestsrc ! masaminfer ! masammask ! fakesink").is_err());
    }
}
