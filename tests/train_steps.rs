//! Single steps: what must not move does not, poison is skipped, odd labels are survived, states are whole or absent.

mod train_support;

use candle_core::{DType, Device, Tensor};
use masam::checkpoint::Weights;
use masam::train::batches::{Batch, Recipe};
use masam::train::gradients::Kept;
use masam::train::{Rule, Trained, Trainer};
use train_support::{CLASSES, SIDE, cpu, tiny, two_clips};

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Names of the weights that differ in any bit.
fn moved(before: &Weights, after: &Weights) -> Vec<String> {
    let differs = |name: &String, x: &Tensor| values(x) != values(after.get(name).unwrap());
    let moved = before.iter().filter(|(name, x)| differs(name, x));
    moved.map(|(name, _)| name.clone()).collect()
}

fn trainer(config: &masam::train::TrainConfig) -> (Trainer, Recipe) {
    let trainer = Trainer::new(config, &cpu(DType::F32)).unwrap();
    let recipe = Recipe::new(config, trainer.card().preprocessing.normalisation);
    (trainer, recipe)
}

#[test]
fn frozen_weights_do_not_move() {
    let footage = two_clips();
    for trained in [
        Trained::FactAndAdapters,
        Trained::Fact,
        Trained::Adapters,
        Trained::Decoder,
        Trained::Full,
    ] {
        let (mut trainer, recipe) = trainer(&masam::train::TrainConfig { trained, ..tiny() });
        let before = trainer.parameters().weights().unwrap();
        for step in 0..3 {
            trainer.step(&[recipe.batch(&footage, step, 0).unwrap()]).unwrap();
        }
        let moved = moved(&before, &trainer.parameters().weights().unwrap());
        for name in &moved {
            assert!(trained.includes(name), "{trained:?}: {name} moves");
        }
        let has = |part: &str| moved.iter().any(|name| name.contains(part));
        assert!(has("mask_decoder"), "{trained:?}");
        assert_eq!(
            has("fact_"),
            !matches!(trained, Trained::Adapters | Trained::Decoder),
            "{trained:?}"
        );
        assert_eq!(
            has("adapter_"),
            !matches!(trained, Trained::Fact | Trained::Decoder),
            "{trained:?}"
        );
        assert_eq!(
            has("mlp.lin1") && has("patch_embed"),
            trained == Trained::Full,
            "{trained:?}"
        );
    }
}

#[test]
fn poison_is_skipped_and_then_refused() {
    let mut config = tiny();
    config.guard.bad_steps = 3;
    let footage = two_clips();
    let (mut trainer, recipe) = trainer(&config);
    let batch = |step| recipe.batch(&footage, step, 0).unwrap();
    let poisoned = || {
        let mut clips = values(&batch(0).clips);
        clips[7] = f32::NAN;
        Batch {
            clips: Tensor::from_vec(clips, (2, 3, 3, SIDE, SIDE), &Device::Cpu).unwrap(),
            labels: batch(0).labels,
        }
    };
    assert!(!trainer.step(&[batch(0)]).unwrap().skipped);
    let before = trainer.parameters().weights().unwrap();
    let bad = trainer.step(&[poisoned()]).unwrap();
    assert!(
        bad.skipped && bad.loss.is_nan() && bad.gradient_norm.is_nan(),
        "{bad:?}"
    );
    // One good part does not save a step with a bad one.
    assert!(trainer.step(&[batch(1), poisoned()]).unwrap().skipped);
    assert_eq!(
        moved(&before, &trainer.parameters().weights().unwrap()),
        Vec::<String>::new()
    );
    let good = trainer.step(&[batch(2)]).unwrap();
    assert!(
        !good.skipped && good.rate == 0.25 * config.schedule.rate,
        "{good:?}"
    );
    assert!(trainer.progress().rate_factor > 0.25, "the rate comes back");
    assert!(!moved(&before, &trainer.parameters().weights().unwrap()).is_empty());
    assert!(trainer.step(&[poisoned()]).unwrap().skipped && trainer.step(&[poisoned()]).unwrap().skipped);
    let error = trainer.step(&[poisoned()]).unwrap_err().to_string();
    assert!(error.contains("no number for 3 steps in a row"), "{error}");
    assert_eq!(trainer.progress().skipped, 5);
    let weights = trainer.parameters().weights().unwrap();
    weights.check_finite().unwrap();
}

#[test]
fn labels_of_one_class_or_none_are_survived() {
    let footage = two_clips();
    let (mut trainer, recipe) = trainer(&tiny());
    let filled = |id: u8| Batch {
        clips: recipe.batch(&footage, 0, 0).unwrap().clips,
        labels: Tensor::full(id, (6, SIDE, SIDE), &Device::Cpu).unwrap(),
    };
    for class in 0..CLASSES as u8 {
        let step = trainer.step(&[filled(class)]).unwrap();
        assert!(
            !step.skipped && step.loss.is_finite() && step.gradient_norm > 0.0,
            "{class}: {step:?}"
        );
    }
    let before = trainer.parameters().weights().unwrap();
    assert!(
        trainer.step(&[filled(255)]).unwrap().skipped,
        "nothing to learn from"
    );
    assert_eq!(
        moved(&before, &trainer.parameters().weights().unwrap()),
        Vec::<String>::new()
    );
    let error = trainer.step(&[filled(CLASSES as u8)]).unwrap_err().to_string();
    assert!(error.contains("3 is no class of 3"), "{error}");
}

#[test]
fn a_state_goes_on_bit_for_bit() {
    for matrices in [Rule::Adamw, Rule::Muon] {
        goes_on(matrices);
    }
}

/// A run in one piece against one that is broken off and goes on with its batches side by side.
fn goes_on(matrices: Rule) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut config = tiny();
    config.augment = Default::default();
    config.clips.stride = [1, 2];
    config.clips.accumulate = 2;
    config.optimizer.matrices = matrices;
    let footage = two_clips();
    let (mut whole, recipe) = trainer(&config);
    let run = |trainer: &mut Trainer, steps: std::ops::Range<u64>| -> Vec<(f64, f64)> {
        let parts = |step| [0, 1].map(|part| recipe.batch(&footage, step, part).unwrap());
        steps
            .map(|step| trainer.step(&parts(step)).unwrap())
            .map(|s| (s.loss, s.gradient_norm))
            .collect()
    };
    let losses = run(&mut whole, 0..6);
    let (mut first, _) = trainer(&config);
    assert_eq!(run(&mut first, 0..3), losses[..3]);
    first.save(&path).unwrap();
    drop(first);
    let mut side_by_side = config.clone();
    side_by_side.clips.at_once = 2;
    let mut second = Trainer::resume(&side_by_side, &path, &cpu(DType::F32)).unwrap();
    assert_eq!(second.progress().step, 3);
    assert_eq!(run(&mut second, 3..6), losses[3..]);
    let (whole, second) = (
        whole.parameters().weights().unwrap(),
        second.parameters().weights().unwrap(),
    );
    assert_eq!(moved(&whole, &second), Vec::<String>::new());

    let mut other = config.clone();
    other.optimizer.decay = 0.0;
    let error = Trainer::resume(&other, &path, &cpu(DType::F32))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("state.safetensors") && error.contains("another"),
        "{error}"
    );
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Trainer::resume(&config, &path, &cpu(DType::F32))
            .unwrap_err()
            .to_string();
        assert!(error.contains("state.safetensors"), "{length}: {error}");
    }
}

#[test]
fn a_model_is_taken_over_where_it_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (first, _) = trainer(&tiny());
    first
        .model_file("two clips", "2026-01-01")
        .unwrap()
        .write(&path, Default::default())
        .unwrap();
    let mut config = tiny();
    config.seed = 2;
    config.model.classes = Some(CLASSES + 1);
    config.start.model = Some(path);
    let (second, _) = trainer(&config);
    let moved = moved(
        &first.parameters().weights().unwrap(),
        &second.parameters().weights().unwrap(),
    );
    assert!(
        !moved.is_empty(),
        "tokens of another number of classes are drawn anew"
    );
    for name in &moved {
        assert!(
            name.contains("token") || name.contains("iou_prediction_head"),
            "{name}"
        );
    }
    assert_eq!(second.card().provenance.sources[0].file, "model.safetensors");
}

#[test]
fn sixteen_bits_learn_the_same() {
    let footage = two_clips();
    let run = |dtype, kept| -> Result<Vec<f64>, masam::Error> {
        let mut config = tiny();
        config.clips.kept = kept;
        let mut trainer = Trainer::new(&config, &cpu(dtype))?;
        let recipe = Recipe::new(&config, trainer.card().preprocessing.normalisation);
        let losses = (0..8).map(|step| Ok(trainer.step(&[recipe.batch(&footage, step, 0)?])?.loss));
        let losses = losses.collect::<Result<Vec<f64>, masam::Error>>()?;
        println!("{dtype:?}, scale {}: {losses:?}", trainer.progress().loss_scale);
        Ok(losses)
    };
    let wanted = run(DType::F32, Kept::Everything).unwrap();
    for (dtype, bound) in [(DType::F16, 0.01), (DType::BF16, 0.05)] {
        let got = run(dtype, Kept::BlockInputs).unwrap();
        let good: Vec<f64> = got.into_iter().filter(|loss| loss.is_finite()).collect();
        assert!(good.len() >= 5, "{dtype:?}: {good:?}");
        for (got, wanted) in good.iter().zip(&wanted) {
            assert!(
                (got - wanted).abs() < bound * wanted,
                "{dtype:?}: {good:?} for {wanted:?}"
            );
        }
    }
}
