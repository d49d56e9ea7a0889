//! CVAT for images 1.1: `annotations.xml` with polygons, boxes, ellipses and masks.
//!
//! Background is class 0, the labels follow in the order of the task. Shapes are painted in the order of their `z_order`,
//! then of the file.

use super::shape::Shape;
use super::{ExportClass, ExportFrame, MAX_EXPORT_BYTES, numbered};
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use crate::labels::parse_color;
use roxmltree::{Document, Node};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn read(path: &Path) -> Result<(Vec<ExportClass>, Vec<ExportFrame>)> {
    let text = regular_file::read_text(path, MAX_EXPORT_BYTES)?;
    let document = Document::parse(&text).map_err(|cause| Error::file(path, cause))?;
    let fail = |cause: String| Error::file(path, cause);
    let root = document.root_element();
    if root.tag_name().name() != "annotations" {
        return Err(fail(
            "no export of CVAT (expected the element `annotations`)".into(),
        ));
    }
    if root.children().any(|node| node.has_tag_name("track")) {
        return Err(fail(
            "an export of \"CVAT for video\" (expected \"CVAT for images 1.1\")".into(),
        ));
    }
    let label = |node: Node<'_, '_>| {
        let text = |name: &str| {
            node.children()
                .find(|n| n.has_tag_name(name))
                .and_then(|n| n.text())
        };
        let name = text("name")?.trim().to_owned();
        let color = text("color").and_then(|color| parse_color(color.trim()));
        Some(ExportClass { name, color })
    };
    let labels: Vec<ExportClass> = root
        .descendants()
        .filter(|node| node.has_tag_name("label") && node.parent().is_some_and(|p| p.has_tag_name("labels")))
        .filter_map(label)
        .collect();
    if labels.is_empty() {
        return Err(fail("no labels are listed in `meta`".into()));
    }
    let names: Vec<String> = labels.iter().map(|class| class.name.clone()).collect();
    let (classes, ids) = numbered(labels);
    let class_of: BTreeMap<String, u8> = names.into_iter().zip(ids).collect();
    let mut frames = Vec::new();
    for image in root.children().filter(|node| node.has_tag_name("image")) {
        let file = attribute(image, "name").map_err(&fail)?.to_owned();
        let mut objects: Vec<(i64, u8, Shape)> = Vec::new();
        for node in image
            .children()
            .filter(|node| node.is_element() && !node.has_tag_name("tag"))
        {
            let named = |cause: String| fail(format!("{file}: {}: {cause}", node.tag_name().name()));
            let label = attribute(node, "label").map_err(named)?;
            let class = *class_of
                .get(label)
                .ok_or_else(|| named(format!("the label {label} is not listed")))?;
            let order = node
                .attribute("z_order")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            objects.push((order, class, shape(node).map_err(named)?));
        }
        objects.sort_by_key(|(order, ..)| *order);
        frames.push(ExportFrame {
            part: image.attribute("subset").unwrap_or_default().to_owned(),
            width_px: number(image, "width").map_err(&fail)? as u32,
            height_px: number(image, "height").map_err(&fail)? as u32,
            file,
            objects: objects
                .into_iter()
                .map(|(_, class, shape)| (class, shape))
                .collect(),
        });
    }
    let parts: Vec<&str> = frames.iter().map(|frame| frame.part.as_str()).collect();
    if parts.windows(2).all(|pair| pair.first() == pair.last()) {
        frames.iter_mut().for_each(|frame| frame.part.clear());
    }
    Ok((classes, frames))
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, String> {
    node.attribute(name).ok_or_else(|| format!("no attribute {name}"))
}

fn number(node: Node<'_, '_>, name: &str) -> Result<f64, String> {
    let text = attribute(node, name)?;
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("invalid {name} {text:?} (expected a number)"))
}

fn shape(node: Node<'_, '_>) -> Result<Shape, String> {
    let degrees = || match node.attribute("rotation") {
        Some(_) => number(node, "rotation"),
        None => Ok(0.0),
    };
    match node.tag_name().name() {
        "polygon" => {
            let points = attribute(node, "points")?;
            let point = |text: &str| {
                let (x, y) = text.split_once(',')?;
                Some((x.trim().parse().ok()?, y.trim().parse().ok()?))
            };
            let corners: Option<Vec<(f64, f64)>> = points.split(';').map(point).collect();
            let corners = corners.filter(|corners| corners.len() >= 3);
            corners
                .map(|corners| Shape::Polygons(vec![corners]))
                .ok_or_else(|| format!("invalid points {points:?}"))
        }
        "box" => {
            let sides = [
                number(node, "xtl")?,
                number(node, "ytl")?,
                number(node, "xbr")?,
                number(node, "ybr")?,
            ];
            Ok(Shape::rectangle(sides, degrees()?))
        }
        "ellipse" => {
            let center = (number(node, "cx")?, number(node, "cy")?);
            Ok(Shape::ellipse(
                center,
                (number(node, "rx")?, number(node, "ry")?),
                degrees()?,
            ))
        }
        "mask" => {
            let rle = attribute(node, "rle")?;
            let runs: Option<Vec<u64>> = rle.split(',').map(|text| text.trim().parse().ok()).collect();
            let runs = runs.ok_or_else(|| "invalid rle (expected numbers)".to_owned())?;
            // Sides of pictures are whole numbers of pixels.
            let side = |name| number(node, name).map(|value| value as u32);
            let size = (side("width")?, side("height")?);
            let all = runs.iter().try_fold(0_u64, |all, run| all.checked_add(*run));
            if all.is_none_or(|all| all > u64::from(size.0) * u64::from(size.1)) {
                return Err(format!("its rle is longer than {}x{} pixels", size.0, size.1));
            }
            Ok(Shape::Runs {
                left: side("left")?,
                top: side("top")?,
                size,
                is_by_column: false,
                runs,
            })
        }
        other => Err(format!(
            "{other} is no area (expected polygon, box, ellipse or mask)"
        )),
    }
}
