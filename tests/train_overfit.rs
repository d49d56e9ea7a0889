//! A tiny model learns two clips by heart.

mod train_support;

use candle_core::DType;
use masam::train::Trainer;
use masam::train::batches::Recipe;
use train_support::{cpu, tiny, two_clips};

#[test]
fn two_clips_are_learnt_by_heart() {
    let config = tiny();
    let footage = two_clips();
    let mut trainer = Trainer::new(&config, &cpu(DType::F32)).unwrap();
    let recipe = Recipe::new(&config, trainer.card().preprocessing.normalisation);
    let began = std::time::Instant::now();
    let mut score = 0.0;
    let mut losses = Vec::new();
    // About a quarter of it is needed; the rest is for other processors' rounding.
    for step in 0..400 {
        let found = trainer.step(&[recipe.batch(&footage, step, 0).unwrap()]).unwrap();
        assert!(!found.skipped, "{found:?}");
        losses.push(found.loss);
        if step % 20 == 19 {
            score = trainer.validate(&footage, 1).unwrap().mean_iou().unwrap();
            println!(
                "step {step}: mean IoU {score:.3}, loss {:.4}, {:?}",
                found.loss,
                began.elapsed()
            );
            if score >= 0.95 {
                break;
            }
        }
    }
    assert!(score >= 0.95, "mean IoU {score}, losses {losses:?}");
    assert!(losses[0] > 4.0 * losses[losses.len() - 1], "{losses:?}");
}
