//! Curves of a run as one page of HTML: pictures inside, no script, nothing from the network.

use std::fmt::Write;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Its colour.
    pub color: [u8; 3],
    /// Step and value, steps ascending; a value that is no number interrupts the line.
    pub points: Vec<(f64, f64)>,
}

/// Lines over the same steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What stands above it.
    pub title: String,
    /// Smallest and largest value shown; by default those of the curves.
    pub range: Option<[f64; 2]>,
    /// Its lines.
    pub curves: Vec<Curve>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// Longer curves are drawn as the means of that many stretches, with a pale band from smallest to largest.
const STRETCHES: usize = 380;

/// The page.
pub fn page(title: &str, charts: &[Chart]) -> String {
    let title = escaped(title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\n\
         :root {{ color-scheme: light dark; }}\n\
         body {{ font: 15px/1.4 system-ui, sans-serif; max-width: 800px; margin: 24px auto; padding: 0 12px; }}\n\
         svg {{ width: 100%; height: auto; }} text {{ font-size: 12px; fill: currentColor; }}\n\
         .grid {{ stroke: currentColor; opacity: .15; }} path {{ fill: none; stroke-width: 1.6; }}\n\
         .band {{ stroke: none; opacity: .2; }} .key {{ margin-right: 14px; white-space: nowrap; }}\n\
         .key i {{ display: inline-block; width: 12px; height: 12px; margin-right: 5px; border-radius: 2px; }}\n\
         </style></head><body>\n<h1>{title}</h1>\n"
    );
    for chart in charts {
        html += &chart.figure();
    }
    html + "</body></html>\n"
}

impl Chart {
    fn figure(&self) -> String {
        let mut html = format!("<h2>{}</h2>\n<p>", escaped(&self.title));
        for curve in &self.curves {
            let last = curve.points.iter().rev().find(|(_, value)| value.is_finite());
            let value = last.map_or(String::new(), |(_, value)| format!(": {}", short(*value)));
            // Writing to a String cannot fail.
            let _ = write!(
                html,
                "<span class=\"key\"><i style=\"background:{}\"></i>{}{value}</span>",
                color(curve.color),
                escaped(&curve.name)
            );
        }
        html += "</p>\n";
        let Some(frame) = Frame::around(self) else {
            return html + "<p>no values yet</p>\n";
        };
        let _ = writeln!(html, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for value in ticks(frame.low, frame.high) {
            let y = frame.y(value);
            let _ = writeln!(
                html,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                short(value)
            );
        }
        for step in ticks(frame.first, frame.last) {
            let (x, bottom) = (frame.x(step), HEIGHT - BOTTOM);
            let _ = writeln!(
                html,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 8.0,
                short(step)
            );
        }
        for curve in &self.curves {
            html += &frame.paths(curve);
        }
        html + "</svg>\n"
    }
}

/// The part of the plane that a chart shows.
struct Frame {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn around(chart: &Chart) -> Option<Self> {
        let points = || {
            chart
                .curves
                .iter()
                .flat_map(|c| &c.points)
                .filter(|(_, value)| value.is_finite())
        };
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold(None, |bounds: Option<[f64; 2]>, value| {
                Some(bounds.map_or([value; 2], |[low, high]| [low.min(value), high.max(value)]))
            })
        };
        let ([first, last], [low, high]) = (bounds(|p| p.0)?, chart.range.or_else(|| bounds(|p| p.1))?);
        let apart = |low: f64, high: f64| {
            if high > low {
                high
            } else {
                low + low.abs().max(1e-9)
            }
        };
        Some(Self {
            first,
            last: apart(first, last),
            low,
            high: apart(low, high),
        })
    }

    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn paths(&self, curve: &Curve) -> String {
        let length = curve.points.len().div_ceil(STRETCHES).max(1);
        let (mut line, mut upper, mut lower) = (String::new(), String::new(), Vec::new());
        let mut broken = true;
        for points in curve.points.chunks(length) {
            let Some(stretch) = Stretch::of(points) else {
                broken = true;
                continue;
            };
            let x = self.x(stretch.step);
            let _ = write!(
                line,
                "{}{x:.1} {:.1}",
                if broken { 'M' } else { 'L' },
                self.y(stretch.mean)
            );
            let _ = write!(
                upper,
                "{}{x:.1} {:.1}",
                if upper.is_empty() { 'M' } else { 'L' },
                self.y(stretch.high)
            );
            lower.push(format!("L{x:.1} {:.1}", self.y(stretch.low)));
            broken = stretch.broken;
        }
        let color = color(curve.color);
        let mut paths = String::new();
        if length > 1 {
            lower.reverse();
            let _ = writeln!(
                paths,
                "<path class=\"band\" style=\"fill:{color}\" d=\"{upper}{}Z\"/>",
                lower.concat()
            );
        }
        let _ = writeln!(paths, "<path stroke=\"{color}\" d=\"{line}\"/>");
        paths
    }
}

/// Neighbouring points as one.
struct Stretch {
    step: f64,
    mean: f64,
    low: f64,
    high: f64,
    /// A value among them is no number.
    broken: bool,
}

impl Stretch {
    fn of(points: &[(f64, f64)]) -> Option<Self> {
        let values: Vec<f64> = points
            .iter()
            .map(|p| p.1)
            .filter(|value| value.is_finite())
            .collect();
        let count = values.len() as f64;
        (!values.is_empty()).then(|| Self {
            step: points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64,
            mean: values.iter().sum::<f64>() / count,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            broken: values.len() < points.len(),
        })
    }
}

/// Three to seven round numbers between two bounds.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = libm::ceil(low / step - 1e-9) as i64;
    let last = libm::floor(high / step + 1e-9) as i64;
    (first..=last).map(|n| n as f64 * step).collect()
}

/// At most four digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 1000.0 || libm::floor(value) == value {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn color([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: Vec<(f64, f64)>) -> Curve {
        Curve {
            name: "loss <1>".into(),
            color: [255, 0, 16],
            points,
        }
    }

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a & b".into(),
            range: None,
            curves: vec![curve(points)],
        }
    }

    #[test]
    fn corners_of_the_data_are_corners_of_the_frame() {
        let html = page("run", &[chart(vec![(0.0, 1.0), (10.0, 3.0)])]);
        assert!(
            html.contains("<path stroke=\"#ff0010\" d=\"M64.0 272.0L748.0 10.0\"/>"),
            "{html}"
        );
        assert!(
            html.contains("loss &lt;1&gt;: 3<") && html.contains("a &amp; b"),
            "{html}"
        );
        assert!(
            !html.contains("<script") && !html.contains("http"),
            "nothing from elsewhere"
        );
    }

    #[test]
    fn a_value_that_is_no_number_breaks_the_line() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 2.0)];
        let html = page("run", &[chart(points)]);
        let line = html.split("stroke=\"#ff0010\" d=\"").nth(1).unwrap();
        assert_eq!(line.split('"').next().unwrap().matches('M').count(), 2, "{line}");
        assert!(page("run", &[chart(vec![(0.0, f64::NAN)])]).contains("no values yet"));
        assert!(
            page("run", &[chart(vec![(3.0, 0.5)])]).contains("<svg"),
            "one point alone"
        );
    }

    #[test]
    fn long_curves_are_drawn_short() {
        let points: Vec<_> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let html = page("run", &[chart(points)]);
        assert!(
            html.contains("class=\"band\"") && html.len() < 40_000,
            "{} bytes",
            html.len()
        );
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(0.0, 1000.0), [0.0, 500.0, 1000.0]);
        assert_eq!(ticks(3.0, 11.0), [4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            [short(0.25), short(1200.0), short(8e-5), short(0.0)],
            ["0.25", "1200", "8.00e-5", "0"]
        );
    }
}
