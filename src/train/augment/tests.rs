//! Each change against a naive one, and labels against their pictures.

use super::*;

const SIDE: usize = 48;

/// Bright where the label is 1.
fn clip() -> Vec<Labelled> {
    (0..3)
        .map(|shift| {
            let labels: Vec<u8> = (0..SIDE * SIDE)
                .map(|i| u8::from((i % SIDE) > 10 + shift && (i % SIDE) < 30 && i / SIDE > 20))
                .collect();
            let rgb: Vec<u8> = labels.iter().flat_map(|&id| [40 + id * 160; 3]).collect();
            Labelled {
                frame: ModelFrame { rgb: rgb.into() },
                labels: labels.into(),
            }
        })
        .collect()
}

#[test]
fn labels_follow_their_pictures() {
    let config = AugmentConfig {
        gamma: [1.0, 1.0],
        erase: false,
        contrast: [1.0, 1.0],
        brightness: [1.0, 1.0],
        sharpness: [1.0, 1.0],
        posterise_bits: 8,
        ..AugmentConfig::default()
    };
    let mut moved = 0;
    for seed in 0..200 {
        let change = config.draw(&mut Random::new(seed));
        moved += usize::from(change.map != Affine::SAME);
        for frame in change.apply(&clip(), SIDE) {
            let pixels = frame.frame.rgb.chunks_exact(3).map(|p| p[0]);
            let wrong = pixels
                .zip(frame.labels.iter())
                .filter(|&(value, &id)| id != IGNORED && (value > 120) != (id == 1))
                .count();
            assert!(wrong < 40, "seed {seed}: {wrong} pixels differ, {change:?}");
        }
    }
    assert!(moved > 120, "{moved} of 200 clips move");
}

#[test]
fn the_way_back_is_the_inverse() {
    for seed in 0..100 {
        let map = AugmentConfig::default().draw(&mut Random::new(seed)).map;
        let round = map.then(map.inverse()).0;
        for (got, wanted) in round.iter().zip(Affine::SAME.0) {
            assert!((got - wanted).abs() < 1e-4, "seed {seed}: {round:?}");
        }
    }
}

#[test]
fn quarter_turns_lose_nothing() {
    let mut change = Change {
        map: Affine([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]),
        ..Change::default()
    };
    let clip = clip();
    let turned = change.apply(&clip, SIDE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let from = (SIDE - 1 - x) * SIDE + y;
            assert_eq!(turned[0].labels[y * SIDE + x], clip[0].labels[from]);
            assert_eq!(
                turned[0].frame.rgb[(y * SIDE + x) * 3],
                clip[0].frame.rgb[from * 3]
            );
        }
    }
    change.map = Affine::SAME;
    assert_eq!(change.apply(&clip, SIDE)[2].frame.rgb, clip[2].frame.rgb);
}

#[test]
fn the_same_seed_gives_the_same_clip() {
    let config = AugmentConfig {
        tint: 0.2,
        ..AugmentConfig::default()
    };
    let run = |seed| config.draw(&mut Random::new(seed)).apply(&clip(), SIDE);
    let (a, b, c) = (run(3), run(3), run(4));
    assert!(
        a.iter()
            .zip(&b)
            .all(|(a, b)| a.frame.rgb == b.frame.rgb && a.labels == b.labels)
    );
    assert!(a.iter().zip(&c).any(|(a, c)| a.frame.rgb != c.frame.rgb));
}

#[test]
fn no_change_is_no_change() {
    let change = AugmentConfig::none().draw(&mut Random::new(1));
    let (before, after) = (clip(), change.apply(&clip(), SIDE));
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(a, b)| a.frame.rgb == b.frame.rgb && a.labels == b.labels)
    );
}

/// A point of the source for a point of the result, both from -1 to 1.
type Back = Box<dyn Fn(f64, f64) -> (f64, f64)>;

#[test]
fn each_movement_equals_a_naive_one() {
    let (sin, cos) = 0.2f64.sin_cos();
    let map = |rows: [f32; 6]| Change {
        map: Affine(rows),
        ..Change::default()
    };
    let mut shear_x = Change::default();
    shear_x.shear(0.3, 0.0);
    let mut shear_y = Change::default();
    shear_y.shear(0.0, -0.2);
    let kinds: [(&str, Change, Back); 6] = [
        (
            "shear x",
            shear_x,
            Box::new(|u, v| (u - f64::from(0.3f32) * v, v)),
        ),
        (
            "shear y",
            shear_y,
            Box::new(|u, v| (u, v + f64::from(0.2f32) * u)),
        ),
        (
            "scale",
            map([1.2, 0.0, 0.0, 0.0, 1.2, 0.0]),
            Box::new(|u, v| (u / f64::from(1.2f32), v / f64::from(1.2f32))),
        ),
        (
            "shift",
            map([1.0, 0.0, 0.3, 0.0, 1.0, -0.1]),
            Box::new(|u, v| (u - f64::from(0.3f32), v + f64::from(0.1f32))),
        ),
        (
            "rotation",
            map([cos as f32, -sin as f32, 0.0, sin as f32, cos as f32, 0.0]),
            Box::new(move |u, v| (cos * u + sin * v, cos * v - sin * u)),
        ),
        (
            "mirror",
            Change {
                map: Affine::MIRROR,
                ..Change::default()
            },
            Box::new(|u, v| (-u, v)),
        ),
    ];
    let clip = clip();
    let pixel = |x: i64, y: i64| {
        let inside = |i: i64| i.clamp(0, SIDE as i64 - 1) as usize;
        f64::from(clip[1].frame.rgb[(inside(y) * SIDE + inside(x)) * 3])
    };
    for (kind, change, back) in kinds {
        let found = &change.apply(&clip, SIDE)[1];
        let half = SIDE as f64 / 2.0;
        let mut outside = 0;
        for (i, (label, rgb)) in found
            .labels
            .iter()
            .zip(found.frame.rgb.chunks_exact(3))
            .enumerate()
        {
            let of = |i: usize| (i as f64 + 0.5) / half - 1.0;
            let (u, v) = back(of(i % SIDE), of(i / SIDE));
            let (x, y) = ((u + 1.0) * half - 0.5, (v + 1.0) * half - 0.5);
            let away = |x: f64| (x + 0.5).abs().min((x - SIDE as f64 + 0.5).abs());
            if away(x) < 1e-3 || away(y) < 1e-3 {
                continue; // on the very edge, where rounding decides
            }
            let within = |x: f64| x > -0.5 && x < SIDE as f64 - 0.5;
            if !(within(x) && within(y)) {
                assert_eq!((*label, rgb), (IGNORED, &[0, 0, 0][..]), "{kind}, pixel {i}");
                outside += 1;
                continue;
            }
            let (fx, fy) = (x - x.floor(), y - y.floor());
            let (x0, y0) = (x.floor() as i64, y.floor() as i64);
            let upper = pixel(x0, y0) * (1.0 - fx) + pixel(x0 + 1, y0) * fx;
            let lower = pixel(x0, y0 + 1) * (1.0 - fx) + pixel(x0 + 1, y0 + 1) * fx;
            let wanted = upper * (1.0 - fy) + lower * fy;
            assert!(
                (f64::from(rgb[0]) - wanted).abs() < 0.6,
                "{kind}, pixel {i}: {} for {wanted}",
                rgb[0]
            );
            if (fx - 0.5).abs() > 1e-3 && (fy - 0.5).abs() > 1e-3 {
                let nearest = y.round() as usize * SIDE + x.round() as usize;
                assert_eq!(*label, clip[1].labels[nearest], "{kind}, pixel {i}");
            }
        }
        assert_eq!(
            outside > 0,
            !["scale", "mirror"].contains(&kind),
            "{kind}: {outside} pixels from outside"
        );
    }
}

#[test]
fn each_change_of_colours_equals_a_naive_one() {
    let bytes: Vec<u8> = (0..SIDE * SIDE * 3).map(|i| (i * 7 % 256) as u8).collect();
    let frame = Labelled {
        frame: ModelFrame {
            rgb: bytes.clone().into(),
        },
        labels: vec![1; SIDE * SIDE].into(),
    };
    let sampled: Vec<f64> = bytes.iter().step_by(37).map(|b| f64::from(*b) / 255.0).collect();
    let mean = sampled.iter().sum::<f64>() / sampled.len() as f64;
    let byte = |value: f64| (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
    type Naive = Box<dyn Fn(f64) -> f64>;
    let same = Change::default;
    let kinds: [(&str, Change, Naive); 4] = [
        (
            "gamma",
            Change { gamma: 2.2, ..same() },
            Box::new(|v| v.powf(f64::from(2.2f32))),
        ),
        (
            "contrast",
            Change {
                contrast: 1.3,
                ..same()
            },
            Box::new(move |v| mean + (v - mean) * f64::from(1.3f32)),
        ),
        (
            "brightness",
            Change {
                brightness: 0.7,
                ..same()
            },
            Box::new(|v| v * f64::from(0.7f32)),
        ),
        (
            "bits",
            Change { bits: 4, ..same() },
            Box::new(|v| f64::from((v * 255.0).round() as u8 / 16 * 16) / 255.0),
        ),
    ];
    for (kind, change, naive) in kinds {
        let found = &change.apply(std::slice::from_ref(&frame), SIDE)[0];
        assert_eq!(found.labels, frame.labels, "{kind}");
        for (before, after) in bytes.iter().zip(found.frame.rgb.iter()) {
            let wanted = byte(naive(f64::from(*before) / 255.0));
            assert!(after.abs_diff(wanted) <= 1, "{kind}: {after} for {wanted}");
        }
    }
    let change = Change {
        erased: Some(([0.25, 0.5, 0.25, 0.125], 9)),
        ..same()
    };
    let found = &change.apply(std::slice::from_ref(&frame), SIDE)[0];
    for (i, (pixel, before)) in found
        .frame
        .rgb
        .chunks_exact(3)
        .zip(bytes.chunks_exact(3))
        .enumerate()
    {
        let inside = (12..24).contains(&(i % SIDE)) && (24..30).contains(&(i / SIDE));
        assert_eq!(pixel, if inside { &[9; 3][..] } else { before }, "pixel {i}");
    }
    let found = &Change {
        sharpness: 0.0,
        ..same()
    }
    .apply(std::slice::from_ref(&frame), SIDE)[0];
    let at = |x: usize, y: usize| f64::from(bytes[(y * SIDE + x) * 3]);
    for (x, y) in [(1, 1), (20, 31), (SIDE - 2, SIDE - 2)] {
        let around: f64 = (0..9).map(|k| at(x + k % 3 - 1, y + k / 3 - 1)).sum();
        let wanted = (around + 4.0 * at(x, y)) / 13.0;
        let got = f64::from(found.frame.rgb[(y * SIDE + x) * 3]);
        assert!(
            (got - wanted).abs() <= 0.51,
            "sharpness at {x}, {y}: {got} for {wanted}"
        );
    }
    assert_eq!(found.frame.rgb[..3], bytes[..3], "the edge stays");
}
