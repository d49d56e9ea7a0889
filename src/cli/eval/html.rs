//! The report as one HTML file that needs nothing beside it: pictures are inside, curves are SVG, no script runs.

use super::evaluation::SequenceScores;
use super::pictures::Shown;
use super::report::{Report, Table, percent};
use crate::metrics::Convention;
use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use std::fmt::Write;

/// Quality of the pictures, 1 to 100.
const JPEG_QUALITY: u8 = 85;

/// Size of a curve and its margin.
const CURVE_PX: (f64, f64) = (720.0, 140.0);
const MARGIN_PX: f64 = 34.0;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1500px;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid \
#ddd}td:first-child,th:first-child{text-align:left}figure{margin:0 0 1.2em}figure img{width:32.5%;margin-right:.3%}\
.warn{background:#fff3cd;padding:.6em 1em}.swatch{display:inline-block;width:.9em;height:.9em;margin-right:.5em;\
border:1px solid #888}svg text{font:11px sans-serif;fill:#555}";

/// Writes the whole report.
///
/// # Errors
/// A picture that cannot be encoded.
pub(super) fn html(report: &Report, shown: &[Shown]) -> Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>masam eval</title>\
         <style>{STYLE}</style></head><body>\n<h1>Evaluation</h1>\n"
    );
    if report.spec.untrained {
        page += "<p class=\"warn\">The weights are placeholders: these numbers say nothing about the method.</p>\n";
    }
    page += "<p>Research software, not a medical device.</p>\n<ul>\n";
    for line in report.conditions() {
        page += &format!("<li>{}</li>\n", escaped(&line));
    }
    page += "</ul>\n<h2>Scores</h2>\n";
    for table in report.tables() {
        page += &table_html(&table, report);
    }
    page += "<h3>What the names mean</h3>\n<dl>\n";
    for convention in Convention::ALL {
        let what = escaped(convention.describe());
        page += &format!("<dt><b>{convention}</b></dt><dd>{what}</dd>\n");
    }
    page += "</dl>\n<h2>IoU over time</h2>\n<p>Each frame's mean over the classes in its ground truth.</p>\n";
    for sequence in &report.sequences {
        page += &format!("<h3>{}</h3>\n{}\n", escaped(&sequence.name), curve(sequence));
    }
    page += "<h2>Frames</h2>\n<p>Input, ground truth, prediction. ";
    for class in report.classes().iter().skip(1) {
        page += &format!("{}{} ", swatch(class.color), escaped(&class.name));
    }
    page += "</p>\n";
    for frame in shown {
        let title = format!(
            "{}: {} {}, IoU {} %",
            frame.kind,
            frame.sequence,
            frame.frame,
            percent(Some(frame.iou))
        );
        page += "<figure>";
        for (picture, what) in frame.pictures.iter().zip(["input", "ground truth", "prediction"]) {
            page += &format!("<img alt=\"{what}\" src=\"{}\">", data_url(picture)?);
        }
        page += &format!("<figcaption>{}</figcaption></figure>\n", escaped(&title));
    }
    page += "</body></html>\n";
    Ok(page)
}

fn table_html(table: &Table, report: &Report) -> String {
    let mut html = format!("<h3>{}</h3>\n<table><tr><th></th>", escaped(&table.title));
    for column in &table.columns {
        html += &format!("<th>{}</th>", escaped(column));
    }
    html += "</tr>\n";
    for (name, values) in &table.rows {
        let class = report.classes().iter().find(|class| class.name == *name);
        let mark = class.map_or(String::new(), |class| swatch(class.color));
        html += &format!("<tr><td>{mark}{}</td>", escaped(name));
        for value in values {
            html += &format!("<td>{}</td>", percent(*value));
        }
        html += "</tr>\n";
    }
    html + "</table>\n"
}

fn swatch([red, green, blue]: [u8; 3]) -> String {
    format!("<span class=\"swatch\" style=\"background:#{red:02x}{green:02x}{blue:02x}\"></span>")
}

/// A sequence's score over its frames; frames without a score leave a gap.
fn curve(sequence: &SequenceScores) -> String {
    let (width, height) = CURVE_PX;
    let last = sequence.frames.saturating_sub(1).max(1) as f64;
    let x = |index: usize| MARGIN_PX + (width - 2.0 * MARGIN_PX) * index as f64 / last;
    let y = |iou: f64| height - 20.0 - (height - 30.0) * iou;
    let mut svg =
        format!("<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for share in [0.0, 0.5, 1.0] {
        let (left, right, at) = (MARGIN_PX, width - MARGIN_PX, y(share));
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"2\" y=\"{:.1}\">{:.0} %</text>",
            at + 4.0,
            share * 100.0
        );
    }
    let mut piece: Vec<String> = Vec::new();
    let mut before = None;
    let mut draw = |piece: &mut Vec<String>| {
        let points = std::mem::take(piece);
        match points.as_slice() {
            [] => (),
            [point] => {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ = write!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"1.5\" fill=\"#0a62a8\"/>");
            }
            points => {
                let points = points.join(" ");
                let _ = write!(
                    svg,
                    "<polyline fill=\"none\" stroke=\"#0a62a8\" stroke-width=\"1.5\" points=\"{points}\"/>"
                );
            }
        }
    };
    for (&index, counts) in sequence.scored.iter().zip(&sequence.native) {
        let Some(iou) = counts.mean_iou() else { continue };
        if before.is_some_and(|before| before + 1 != index) {
            draw(&mut piece);
        }
        piece.push(format!("{:.1},{:.1}", x(index), y(iou)));
        before = Some(index);
    }
    draw(&mut piece);
    let _ = write!(
        svg,
        "<text x=\"{MARGIN_PX}\" y=\"{0:.1}\">frame 0</text>\
         <text x=\"{1:.1}\" y=\"{0:.1}\" text-anchor=\"end\">{2}</text></svg>",
        height - 4.0,
        width - MARGIN_PX,
        sequence.frames.saturating_sub(1)
    );
    svg
}

fn data_url(picture: &RgbImage) -> Result<String> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(picture)?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

/// Text as HTML: names come from folders.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::FrameCounts;

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(
            escaped("<b>\"a\" & b</b>"),
            "&lt;b&gt;&quot;a&quot; &amp; b&lt;/b&gt;"
        );
    }

    #[test]
    fn frames_without_a_score_leave_a_gap() {
        let right = FrameCounts::of(&[0, 1], &[0, 1], 2).unwrap();
        let sequence = SequenceScores {
            frames: 6,
            scored: vec![0, 1, 4],
            native: vec![right; 3],
            ..SequenceScores::default()
        };
        let svg = curve(&sequence);
        assert_eq!(svg.matches("<polyline").count(), 1, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert!(svg.ends_with("</svg>"));
    }
}
