//! What `masam latency` prints.

use super::tally::{EDGES_MS, Quantiles, Tally, histogram, median, millis};
use serde_json::{Value, json};
use std::fmt::Write;

/// All runs, and what each pair of them shows.
pub(super) struct Report {
    pipeline: String,
    without: Tally,
    with: Tally,
    /// Delay with our elements less the delay without, of each pair, in milliseconds: p50, p95 and p99.
    added_ms: [Vec<f64>; 3],
    /// p99 of the jitter of each pair, without and with.
    jitter_ms: [Vec<f64>; 2],
}

impl Report {
    pub(super) fn new(pipeline: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            without: Tally::default(),
            with: Tally::default(),
            added_ms: Default::default(),
            jitter_ms: Default::default(),
        }
    }

    /// Adds a pair of runs.
    pub(super) fn add(&mut self, without: &Tally, with: &Tally) {
        if let (Some(a), Some(b)) = (Quantiles::of(&without.delays), Quantiles::of(&with.delays)) {
            for (values, (a, b)) in
                self.added_ms
                    .iter_mut()
                    .zip([(a.p50, b.p50), (a.p95, b.p95), (a.p99, b.p99)])
            {
                values.push((b as f64 - a as f64) / 1e6);
            }
        }
        for (values, tally) in self.jitter_ms.iter_mut().zip([without, with]) {
            values.extend(Quantiles::of(&tally.jitter()).map(|q| millis(q.p99)));
        }
        self.without.add(without);
        self.with.add(with);
    }

    /// Smallest and largest of what masks claim of their age beyond what it is, in milliseconds.
    fn claims_ms(&self) -> Option<[f64; 2]> {
        let (least, most) = (self.with.claims.iter().min()?, self.with.claims.iter().max()?);
        Some([*least as f64 / 1e6, *most as f64 / 1e6])
    }

    pub(super) fn json(&self) -> Value {
        let side = |tally: &Tally| {
            json!({
                "frames": tally.frames,
                "frames_unread": tally.unread,
                "delay_ms": Quantiles::of(&tally.delays).map(Quantiles::json),
                "histogram": histogram(&tally.delays),
            })
        };
        let added = |index: usize| self.added_ms.get(index).and_then(|values| median(values));
        let jitter = |index: usize| self.jitter_ms.get(index).and_then(|values| median(values));
        json!({
            "what": "masam latency",
            "version": env!("CARGO_PKG_VERSION"),
            "pipeline": self.pipeline,
            "frames": self.with.caps,
            "without": side(&self.without),
            "with": side(&self.with),
            "histogram_edges_ms": EDGES_MS,
            "pairs": self.added_ms[0].len(),
            "added_ms": { "p50": added(0), "p95": added(1), "p99": added(2) },
            "jitter_p99_ms": { "without": jitter(0), "with": jitter(1) },
            "masks": {
                "frames": self.with.masked,
                "unread": self.with.masks_unread,
                "age_ms": Quantiles::of(&self.with.ages).map(Quantiles::json),
                "histogram": histogram(&self.with.ages),
                "claimed_minus_true_ms": self.claims_ms(),
            },
            "forward_ms": self.with.forward.map(|(p50, p99)| json!({ "p50": millis(p50), "p99": millis(p99) })),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.pipeline, self.with.caps);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:22}{:>8}{:>10}{:>10}{:>10}{:>10}",
            "ms", "frames", "p50", "p95", "p99", "max"
        );
        for (name, values) in [
            ("delay without", &self.without.delays),
            ("delay with", &self.with.delays),
            ("true mask age", &self.with.ages),
        ] {
            let _ = match Quantiles::of(values) {
                Some(q) => {
                    let [p50, p95, p99, max] = [q.p50, q.p95, q.p99, q.max].map(millis);
                    writeln!(
                        text,
                        "{name:22}{:>8}{p50:>10.3}{p95:>10.3}{p99:>10.3}{max:>10.3}",
                        values.len()
                    )
                }
                None => writeln!(text, "{name:22}{:>8}", 0),
            };
        }
        if let [Some(p50), Some(p95), Some(p99)] = [0, 1, 2].map(|i| median(&self.added_ms[i])) {
            let _ = writeln!(
                text,
                "{:22}{:>8}{p50:>10.3}{p95:>10.3}{p99:>10.3}",
                "added, median of pairs",
                self.added_ms[0].len()
            );
        }
        if let [Some(without), Some(with)] = [0, 1].map(|i| median(&self.jitter_ms[i])) {
            let _ = writeln!(
                text,
                "jitter at the sink, p99, median of pairs: {without:.3} ms without, {with:.3} ms with"
            );
        }
        if let Some((p50, p99)) = self.with.forward {
            let _ = writeln!(
                text,
                "forward pass: p50 {:.1} ms, p99 {:.1} ms",
                millis(p50),
                millis(p99)
            );
        }
        let _ = writeln!(
            text,
            "masks on {} of {} frames; unread: {} frames without, {} with, {} masks",
            self.with.masked, self.with.frames, self.without.unread, self.with.unread, self.with.masks_unread
        );
        if let Some([least, most]) = self.claims_ms() {
            let _ = writeln!(
                text,
                "age a mask claims less its true age: {least:.3} to {most:.3} ms"
            );
        }
        let _ = writeln!(
            text,
            "\n{:>12}{:>16}{:>12}{:>12}",
            "ms", "delay without", "delay with", "mask age"
        );
        let columns = [&self.without.delays, &self.with.delays, &self.with.ages].map(|v| histogram(v));
        for (bar, edge) in EDGES_MS.iter().enumerate() {
            let counts = columns.each_ref().map(|column| column[bar]);
            if counts.iter().any(|&count| count > 0) {
                let edge = match EDGES_MS.get(bar + 1) {
                    Some(next) => format!("{edge} - {next}"),
                    None => format!("{edge} and more"),
                };
                let [without, with, age] = counts;
                let _ = writeln!(text, "{edge:>12}{without:>16}{with:>12}{age:>12}");
            }
        }
        text
    }
}
