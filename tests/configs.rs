//! The configurations in `configs/`.

use masam::model::Decoder;
use masam::train::{Rule, TrainConfig, Trained};
use std::path::{Path, PathBuf};

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    found.sort();
    found
}

#[test]
fn each_is_read_and_means_something() {
    let found = configs();
    assert!(found.len() >= 4, "{found:?}");
    for path in &found {
        TrainConfig::read(path).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn the_paper_s_recipe_is_the_paper_s() {
    let path = configs()
        .into_iter()
        .find(|path| path.ends_with("endovis2018.toml"))
        .unwrap();
    let config = TrainConfig::read(&path).unwrap();
    assert_eq!(
        (config.trained, config.optimizer.matrices),
        (Trained::FactAndAdapters, Rule::Adamw)
    );
    assert_eq!((config.optimizer.beta_2, config.optimizer.decay), (0.999, 0.1));
    assert_eq!(config.model.config().unwrap().decoder, Decoder::Progressive);
}

#[test]
fn the_second_part_of_the_demo_model_begins_where_the_first_ends() {
    let read = |name: &str| {
        let path = configs().into_iter().find(|path| path.ends_with(name)).unwrap();
        TrainConfig::read(&path).unwrap()
    };
    let (frames, clips) = (read("demo.toml"), read("demo-clips.toml"));
    assert_eq!(frames.model, clips.model);
    let start = clips.start.model.unwrap();
    assert!(
        start.ends_with("runs/demo-frames/model.safetensors"),
        "{}",
        start.display()
    );
    assert_eq!((frames.clips.frames, clips.clips.frames), (1, 5));
}
