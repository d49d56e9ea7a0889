//! One generated data set in all the ways that people keep theirs: what `masam data check` and `masam eval` say of each.
//!
//! `MASAM_WRITE_TABLE=1` writes benchmarks/labels.md.

use crate::support::*;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, imageops};
use masam::labels::ClassSet;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// What has to become of a data set.
#[derive(Clone, Copy)]
enum Fate {
    /// Read, and scored exactly like the original.
    Same(&'static str),
    /// Read; its frames are stored otherwise, so that scores may differ.
    Read(&'static str),
    /// Refused by `data check` and `eval`, whose messages say this.
    Refused(&'static str),
}

use Fate::{Read, Refused, Same};

type Bend = Box<dyn Fn(&Path) + Sync>;

/// Changes every label picture from its ids.
fn labels(bend: impl Fn(&Path, GrayImage) + Sync + 'static) -> Bend {
    Box::new(move |root| {
        files(root, "labels")
            .iter()
            .for_each(|path| bend(path, ids(path)))
    })
}

/// Changes every label picture.
fn colors(bend: impl Fn(&Path, RgbImage) + Sync + 'static) -> Bend {
    let read = |path: &Path| image::open(path).unwrap().into_rgb8();
    Box::new(move |root| {
        files(root, "labels")
            .iter()
            .for_each(|path| bend(path, read(path)))
    })
}

fn frames(bend: impl Fn(&Path, DynamicImage) + Sync + 'static) -> Bend {
    Box::new(move |root| {
        files(root, "left_frames")
            .iter()
            .for_each(|path| bend(path, image::open(path).unwrap()))
    })
}

/// Rewrites labels.json.
fn table(bend: impl Fn(Vec<Value>) -> Value + Sync + 'static) -> Bend {
    Box::new(move |root| {
        let path = release(root).join("labels.json");
        let entries: Vec<Value> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::write(&path, bend(entries).to_string()).unwrap();
    })
}

fn each(bend: impl Fn(&Value, usize) -> Value + Sync + 'static) -> Bend {
    table(move |entries| {
        entries
            .iter()
            .enumerate()
            .map(|(id, entry)| bend(entry, id))
            .collect()
    })
}

fn both(first: Bend, second: Bend) -> Bend {
    Box::new(move |root| {
        first(root);
        second(root);
    })
}

fn gray16(ids: &GrayImage, value: impl Fn(u8) -> u16) -> DynamicImage {
    let values = ids.as_raw().iter().map(|id| value(*id)).collect();
    ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(ids.width(), ids.height(), values)
        .unwrap()
        .into()
}

fn mapped(ids: &GrayImage, value: impl Fn(u8) -> u8) -> GrayImage {
    GrayImage::from_fn(ids.width(), ids.height(), |x, y| {
        Luma([value(ids.get_pixel(x, y)[0])])
    })
}

fn rgb(ids: &GrayImage, color: impl Fn(u8) -> [u8; 3]) -> RgbImage {
    RgbImage::from_fn(ids.width(), ids.height(), |x, y| {
        Rgb(color(ids.get_pixel(x, y)[0]))
    })
}

fn smaller_and_back<P: image::Pixel<Subpixel = u8> + 'static>(
    picture: &ImageBuffer<P, Vec<u8>>,
) -> ImageBuffer<P, Vec<u8>> {
    let (width, height) = picture.dimensions();
    let small = imageops::resize(picture, width / 2, height / 2, imageops::FilterType::Triangle);
    imageops::resize(&small, width, height, imageops::FilterType::Triangle)
}

fn own_palette() -> Vec<u8> {
    ClassSet::endovis_2018().iter().flat_map(|c| c.color).collect()
}

/// Renames folders of both sequences.
fn rename(pairs: &'static [(&'static str, &'static str)]) -> Bend {
    Box::new(move |root| {
        for sequence in ["seq_1", "seq_2"] {
            for (from, to) in pairs {
                let folder = release(root).join(sequence);
                fs::rename(folder.join(from), folder.join(to)).unwrap();
            }
        }
    })
}

#[rustfmt::skip]
fn all() -> Vec<(&'static str, Bend, Fate)> {
    let two = "alone, but there are 12 classes";
    vec![
        ("as it is", Box::new(|_: &Path| {}), Same("class colors in RGB")),
        ("ids, gray of 8 bits", labels(|p, i| i.save(p).unwrap()), Same("class ids in gray8")),
        ("ids, gray of 16 bits", labels(|p, i| gray16(&i, u16::from).save(p).unwrap()), Same("class ids in gray16")),
        ("ids, gray of 8 bits stretched to 16", labels(|p, i| gray16(&i, |v| u16::from(v) * 257).save(p).unwrap()), Same("class ids in gray16")),
        ("ids, gray of 4 bits", labels(|p, i| save_png(p, &i, 4, None)), Same("class ids in gray4")),
        ("ids, three equal channels", labels(|p, i| rgb(&i, |v| [v; 3]).save(p).unwrap()), Same("class ids in RGB")),
        ("ids, three equal channels and alpha", labels(|p, i| DynamicImage::from(rgb(&i, |v| [v; 3])).into_rgba8().save(p).unwrap()), Same("class ids in RGBA")),
        ("ids, gray and alpha", labels(|p, i| DynamicImage::from(i).into_luma_alpha8().save(p).unwrap()), Same("class ids in gray8 with alpha")),
        ("ids, three equal channels of 16 bits", labels(|p, i| {
            let wide = ImageBuffer::from_fn(i.width(), i.height(), |x, y| Rgb([u16::from(i.get_pixel(x, y)[0]); 3]));
            DynamicImage::ImageRgb16(wide).save(p).unwrap();
        }), Same("class ids in 16-bit RGB")),
        ("ids, palette of Pascal VOC", labels(|p, i| save_png(p, &i, 8, Some(voc()))), Same("class ids in palette")),
        ("ids, palette of grays", labels(|p, i| save_png(p, &i, 8, Some((0..=255).flat_map(|v| [v; 3]).collect()))), Same("class ids in palette")),
        ("colors, palette", labels(|p, i| save_png(p, &i, 8, Some(own_palette()))), Same("class colors in palette")),
        ("colors, palette in another order", labels(|p, i| {
            let palette = own_palette().chunks(3).rev().flatten().copied().collect();
            save_png(p, &mapped(&i, |v| 11 - v), 4, Some(palette));
        }), Same("class colors in palette")),
        ("colors of 16 bits", colors(|p, c| DynamicImage::from(c).into_rgb16().save(p).unwrap()), Same("class colors in 16-bit RGB")),
        ("ids, palette of other colors", labels(|p, i| save_png(p, &i, 8, Some((0..=255).flat_map(|v: u8| [v.wrapping_mul(37), 200, 90]).collect()))), Refused("no pixel has a class's color")),
        ("ids in the red channel", labels(|p, i| rgb(&i, |v| [v, 0, 0]).save(p).unwrap()), Refused("no pixel has a class's color")),
        ("ids in the blue channel", labels(|p, i| rgb(&i, |v| [0, 0, v]).save(p).unwrap()), Refused("no pixel has a class's color")),
        ("0 and 255, gray", labels(|p, i| mapped(&i, |v| u8::from(v > 0) * 255).save(p).unwrap()), Refused(two)),
        ("0 and 255, RGB", labels(|p, i| rgb(&i, |v| [u8::from(v > 0) * 255; 3]).save(p).unwrap()), Refused(two)),
        ("0 and 65535", labels(|p, i| gray16(&i, |v| u16::from(v > 0) * u16::MAX).save(p).unwrap()), Refused(two)),
        ("0 and 1 of one bit", labels(|p, i| save_png(p, &mapped(&i, |v| u8::from(v > 0)), 1, None)), Refused(two)),
        ("colors as blue, green, red", colors(|p, c| RgbImage::from_fn(c.width(), c.height(), |x, y| { let [r, g, b] = c.get_pixel(x, y).0; Rgb([b, g, r]) }).save(p).unwrap()), Refused("in the order blue, green, red")),
        ("colors in JPEG", colors(|p, c| replace(p, "jpg", &c.into())), Refused("changes pixels")),
        ("ids in JPEG", labels(|p, i| replace(p, "jpg", &i.into())), Refused("changes pixels")),
        ("colors resized with interpolation", colors(|p, c| smaller_and_back(&c).save(p).unwrap()), Refused("unknown colors or values")),
        ("ids resized with interpolation", labels(|p, i| smaller_and_back(&i).save(p).unwrap()), Refused("resized with interpolation")),
        ("background white and transparent", labels(|p, i| {
            let set = ClassSet::endovis_2018();
            let color = |v: u8| { let [r, g, b] = set.get(v).unwrap().color; Rgba(if v == 0 { [255, 255, 255, 0] } else { [r, g, b, 255] }) };
            ImageBuffer::from_fn(i.width(), i.height(), |x, y| color(i.get_pixel(x, y)[0])).save(p).unwrap();
        }), Refused("transparent")),
        ("ids times 20", labels(|p, i| mapped(&i, |v| v * 20).save(p).unwrap()), Refused("multiples of 20")),
        ("ids times 20 of 16 bits", labels(|p, i| gray16(&i, |v| u16::from(v) * 20).save(p).unwrap()), Refused("multiples of 20")),
        ("ids of instances", labels(|p, i| gray16(&i, |v| u16::from(v) * 1000 + u16::from(v)).save(p).unwrap()), Refused("multiples of")),
        ("all ignored", labels(|p, i| mapped(&i, |_| 255).save(p).unwrap()), Refused("no pixel has a class")),
        ("all ignored, RGB", labels(|p, i| rgb(&i, |_| [255; 3]).save(p).unwrap()), Refused("no pixel has a class")),
        ("all of one color that is no class's", labels(|p, i| rgb(&i, |_| [255, 0, 255]).save(p).unwrap()), Refused("no pixel has a class")),
        ("one class", labels(|p, i| mapped(&i, |_| 1).save(p).unwrap()), Read("class ids in gray8")),
        ("one sequence of ids, one of colors", Box::new(|root: &Path| files(root, "labels").iter().take(3).for_each(|p| ids(p).save(p).unwrap())), Refused("unknown colors or values")),
        ("one sequence of ids in RGB, one of colors", Box::new(|root: &Path| files(root, "labels").iter().take(3).for_each(|p| rgb(&ids(p), |v| [v; 3]).save(p).unwrap())), Refused("unknown colors or values")),
        ("1 % of an unknown color", colors(|p, mut c| { (0..205).for_each(|at| c.put_pixel(at % 160, at / 160, Rgb([255, 0, 255]))); c.save(p).unwrap(); }), Refused("1.001 %")),
        ("1 % of an unknown id", labels(|p, mut i| { (0..205).for_each(|at| i.put_pixel(at % 160, at / 160, Luma([77]))); i.save(p).unwrap(); }), Refused("1.001 %")),
        ("names of labels end in _mask", Box::new(|root: &Path| files(root, "labels").iter().for_each(|p| { let stem = p.file_stem().unwrap().to_str().unwrap(); fs::rename(p, p.with_file_name(format!("{stem}_mask.png"))).unwrap(); })), Same("class colors in RGB")),
        ("names of labels fit no frame", Box::new(|root: &Path| files(root, "labels").iter().for_each(|p| { let stem = p.file_stem().unwrap().to_str().unwrap(); fs::rename(p, p.with_file_name(format!("x{stem}.png"))).unwrap(); })), Refused("name of a frame")),
        ("folders in capitals", rename(&[("left_frames", "Left_Frames"), ("labels", "Labels")]), Same("class colors in RGB")),
        ("images and annotations", rename(&[("left_frames", "images"), ("labels", "annotations")]), Same("class colors in RGB")),
        ("images and three folders of masks", both(rename(&[("left_frames", "images"), ("labels", "binary_masks")]), Box::new(|root: &Path| for s in ["seq_1", "seq_2"] { for m in ["parts_masks", "type_masks"] { fs::create_dir(release(root).join(s).join(m)).unwrap(); } })), Refused("3 folders of masks")),
        ("no class table, images and masks", both(rename(&[("left_frames", "images"), ("labels", "masks")]), Box::new(|root: &Path| fs::remove_file(release(root).join("labels.json")).unwrap())), Refused("no class table")),
        ("labels.json: #rrggbb", each(|e, id| { let c: Vec<u8> = serde_json::from_value(e["color"].clone()).unwrap(); json!({"name": e["name"], "classid": id, "color": format!("#{:02x}{:02x}{:02x}", c[0], c[1], c[2])}) }), Same("class colors in RGB")),
        ("labels.json: names and colors", table(|list| list.iter().map(|e| (e["name"].as_str().unwrap().to_owned(), e["color"].clone())).collect::<serde_json::Map<_, _>>().into()), Same("class colors in RGB")),
        ("labels.json: fractions", each(|e, id| { let c: Vec<f64> = serde_json::from_value(e["color"].clone()).unwrap(); json!({"name": e["name"], "classid": id, "color": c.iter().map(|v| v / 255.0).collect::<Vec<_>>()}) }), Same("class colors in RGB")),
        ("labels.json: ids from 1", each(|e, id| json!({"name": e["name"], "color": e["color"], "classid": id + 1})), Same("class colors in RGB")),
        ("labels.json: ids from 1, and such labels", both(each(|e, id| json!({"name": e["name"], "color": e["color"], "classid": id + 1})), labels(|p, i| mapped(&i, |v| v + 1).save(p).unwrap())), Same("class ids in gray8")),
        ("labels.json: ids from 1, labels from 0", both(each(|e, id| json!({"name": e["name"], "color": e["color"], "classid": id + 1})), labels(|p, i| i.save(p).unwrap())), Refused("unknown colors or values")),
        ("labels.json: ids times 20, and such labels", both(each(|e, id| json!({"name": e["name"], "color": e["color"], "classid": id * 20})), labels(|p, i| mapped(&i, |v| v * 20).save(p).unwrap())), Same("class ids in gray8")),
        ("labels.json: ids as text", each(|e, id| json!({"name": e["name"], "color": e["color"], "classid": id.to_string()})), Same("class colors in RGB")),
        ("labels.json: 0 and 1 as whole numbers", each(|e, id| { let c: Vec<u8> = serde_json::from_value(e["color"].clone()).unwrap(); json!({"name": e["name"], "classid": id, "color": c.iter().map(|v| v / 128).collect::<Vec<_>>()}) }), Refused("no color has a value above 1")),
        ("no labels.json, ids", both(Box::new(|root: &Path| fs::remove_file(release(root).join("labels.json")).unwrap()), labels(|p, i| i.save(p).unwrap())), Same("in EndoVis 2018's order")),
        ("frames: gray of 16 bits", frames(|p, f| { let gray = f.into_luma8(); gray16(&gray, |v| u16::from(v) * 257).save(p).unwrap(); }), Read("class colors in RGB")),
        ("frames: 12 bits in 16", frames(|p, f| { let gray = f.into_luma8(); gray16(&gray, |v| u16::from(v) * 16 + 3).save(p).unwrap(); }), Refused("largest sample")),
        ("frames: one of zero bytes", Box::new(|root: &Path| fs::write(&files(root, "left_frames")[1], b"").unwrap()), Refused("0 bytes")),
        ("frames: turned by EXIF", frames(|p, f| { replace(p, "jpg", &f); turn(&p.with_extension("jpg"), 6); }), Refused("EXIF orientation 6")),
        ("frames: turned by half by EXIF", frames(|p, f| { replace(p, "jpg", &f); turn(&p.with_extension("jpg"), 3); }), Refused("EXIF orientation 3")),
        ("labels: one of another size", Box::new(|root: &Path| { let path = &files(root, "labels")[1]; image::open(path).unwrap().crop_imm(0, 0, 80, 64).save(path).unwrap(); }), Refused("80x64")),
        ("two frames and labels of another size", Box::new(|root: &Path| for kind in ["labels", "left_frames"] { for path in &files(root, kind)[1..3] { image::open(path).unwrap().resize_exact(80, 64, imageops::FilterType::Nearest).save(path).unwrap(); } }), Read("class colors in RGB")),
    ]
}

struct Row {
    name: &'static str,
    check: i32,
    said: String,
    eval: i32,
    score: Option<f64>,
}

/// The scores of all conventions; names of sequences may differ.
fn overall(report: &Value) -> Value {
    let mut conventions = report["conventions"].clone();
    for convention in conventions.as_object_mut().unwrap().values_mut() {
        convention.as_object_mut().unwrap().remove("sequences");
    }
    conventions
}

fn run(name: &'static str, bend: &Bend, fate: Fate, original: &Value) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    write_base(&root);
    bend(&root);
    let (code, report, err) = check(&root, &[]);
    let (eval_code, scores, eval_err) = eval(&root, &[]);
    let report = report.unwrap_or_default();
    let errors = format!("{} {err}", report["errors"]);
    let read_as = report["labels"]["read_as"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match fate {
        Same(what) | Read(what) => {
            assert_eq!((code, eval_code), (0, 0), "{name}: {errors} {eval_err}");
            assert!(read_as.contains(what), "{name}: {read_as}");
            let scores = scores.as_ref().unwrap();
            if matches!(fate, Same(_)) {
                assert_eq!(overall(scores), overall(original), "{name}");
            }
            assert_eq!(scores["data"]["labels"]["unknown_share"], json!(0.0), "{name}");
        }
        Refused(why) => {
            assert_eq!((code, eval_code), (1, 1), "{name}: {errors} {eval_err}");
            assert!(
                scores.is_none(),
                "{name}: scores of labels that were not understood"
            );
            for said in [&errors, &eval_err] {
                assert!(said.contains(why), "{name}: {said}");
            }
        }
    }
    let first = report["errors"][0].as_str().map(str::to_owned);
    let said = match fate {
        Refused(_) => first.unwrap_or_else(|| err.trim().to_owned()),
        _ => format!("labels read as: {read_as}"),
    };
    Row {
        name,
        check: code,
        said: said.replace(root.to_str().unwrap(), "DATA"),
        eval: eval_code,
        score: scores.and_then(|s| s["conventions"]["challenge-2018"]["miou"].as_f64()),
    }
}

#[test]
fn every_kind_is_read_rightly_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("data"));
    let original = eval(&folder.path().join("data"), &[]).1.unwrap();
    let all = all();
    let next = Mutex::new(0..all.len());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().unwrap().next() else {
                        return;
                    };
                    let (name, bend, fate) = &all[at];
                    let row = run(name, bend, *fate, &original);
                    rows.lock().unwrap().push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(at, _)| *at);
    if std::env::var_os("MASAM_WRITE_TABLE").is_some() {
        let mut text = String::from(
            "# Labels as people have them\n\nOne generated data set (`masam phantom`, 2 sequences of 3 frames, 12 classes), \
             bent in each way; what `masam data check` and `masam eval` with a placeholder model say. Equal scores mean that \
             the labels were read as they were meant. Written by `MASAM_WRITE_TABLE=1 cargo test --release --test labels \
             every_kind`.\n\n| data set | check: status | says | eval: status | mean IoU (challenge-2018), % |\n|---|---|---|---|---|\n",
        );
        for (_, row) in &rows {
            let score = row
                .score
                .map_or("none".into(), |score| format!("{:.3}", score * 100.0));
            text += &format!(
                "| {} | {} | {} | {} | {score} |\n",
                row.name,
                row.check,
                row.said.replace('|', "/"),
                row.eval
            );
        }
        fs::write(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/labels.md"),
            text,
        )
        .unwrap();
    }
}

#[test]
fn unknown_pixels_are_accepted_by_name_and_stand_in_every_report() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    write_base(&root);
    for path in files(&root, "labels") {
        let mut picture = image::open(&path).unwrap().into_rgb8();
        (0..205).for_each(|at| picture.put_pixel(at % 160, at / 160, Rgb([255, 0, 255])));
        picture.save(path).unwrap();
    }
    let accept = "--accept-unknown-labels";
    let (code, report, _) = check(&root, &[accept]);
    let labels = &report.unwrap()["labels"];
    let share = 205.0 / (160.0 * 128.0);
    assert_eq!(
        (code, &labels["unknown_share"], &labels["accepted"]),
        (0, &json!(share), &json!(true))
    );
    let html = folder.path().join("report.html");
    let (code, scores, err) = eval(&root, &[accept, "--html", text(&html)]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(scores.unwrap()["data"]["labels"]["unknown_share"], json!(share));
    assert!(
        fs::read_to_string(html)
            .unwrap()
            .contains("1.001 % of their pixels are unknown (accepted, ignored)")
    );
    let (_, said, _) = masam(&[
        "eval",
        "-m",
        text(&model()),
        "--data",
        text(&root),
        accept,
        "--limit",
        "1",
    ]);
    assert!(said.contains("1.001 % of their pixels are unknown"), "{said}");
    // Training refuses, and with the option says the share and keeps it.
    let config = folder.path().join("run.toml");
    let text_of = |further: &str| {
        format!(
            "name = \"run\"\ntrained = \"decoder\"\npreprocessing = \"live\"\n[model]\npreset = \"demo\"\nimage_side_px = 64\n\
             [data]\nfolder = \"data\"\n{further}\n[clips]\nframes = 1\nbatch = 1\n[schedule]\nsteps = 1\nwarm_up = 0\n"
        )
    };
    fs::write(&config, text_of("")).unwrap();
    let run = folder.path().join("run");
    let train = |further: &[&str]| masam(&[&["train", text(&config), "-o", text(&run)], further].concat());
    let (code, _, err) = train(&[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("1.001 % of their pixels have unknown colors"),
        "{err}"
    );
    let (code, _, err) = train(&[accept]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("1.001 % of their pixels are unknown"), "{err}");
    assert!(
        fs::read_to_string(run.join("labels.json"))
            .unwrap()
            .contains("\"accepted\": true")
    );
    let card = masam(&["inspect", text(&run.join("model.safetensors"))]).1;
    assert!(card.contains("1.001 %"), "{card}");
    fs::write(&config, text_of("accept_unknown_labels = true")).unwrap();
    fs::remove_dir_all(&run).unwrap();
    assert_eq!(train(&[]).0, 0);
}
