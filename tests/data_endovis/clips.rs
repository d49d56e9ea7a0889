//! Clips, decoded ahead: in order, bounded, with errors in their place, and gone when dropped.

use crate::support::*;
use masam::data::{ClipConfig, ClipPlace, Dataset, Ends, Loader, LoaderConfig, clips};
use masam::stream::Emit;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(threads: usize, ahead_clips: usize, cache_frames: usize) -> LoaderConfig {
    LoaderConfig {
        threads,
        ahead_clips,
        cache_frames,
    }
}

/// Waits until the workers have done all they may, which is `clips` clips.
fn settle(loader: &Loader, clips: usize) {
    let end = Instant::now() + PATIENCE;
    while loader.waiting() < clips && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(loader.waiting(), clips);
}

#[test]
fn clips_come_in_the_order_they_were_asked_for() {
    let root = releases();
    sequence_18(&root.path().join("miccai_challenge_2018_release_1/seq_1"), 9);
    let data = Dataset::open(root.path()).unwrap();
    let sequences = data.split(&"all".parse().unwrap()).unwrap();
    for (threads, ahead, cache, ends) in [
        (1, 1, 0, Ends::Whole),
        (4, 3, 0, Ends::Repeated(Emit::Ensemble)),
        (3, 8, 6, Ends::Repeated(Emit::Newest)),
    ] {
        let clips_config = ClipConfig {
            clip_frames: 3,
            ends,
            ..ClipConfig::default()
        };
        let mut places = clips_config.places(&sequences).unwrap();
        clips::shuffle(&mut places, 5, 1);
        let loader = Loader::new(&sequences, places.clone(), config(threads, ahead, cache)).unwrap();
        let mut count = 0;
        for (clip, place) in loader.zip(&places) {
            let clip = clip.unwrap();
            let sequence = sequences[place.sequence];
            assert_eq!((&clip.place, &clip.sequence), (place, &sequence.name));
            assert_eq!(clip.frames.len(), 3);
            for (frame, &index) in clip.frames.iter().zip(&place.frames) {
                assert_eq!(frame.image, sequence.image(index).unwrap());
                assert_eq!(
                    frame.labels.as_ref().unwrap().classes,
                    sequence.labels(index).unwrap().unwrap()
                );
            }
            count += 1;
        }
        assert_eq!(count, places.len());
    }
}

#[test]
fn no_more_clips_are_in_memory_than_allowed() {
    let (root, _) = one_sequence(24);
    let data = Dataset::open(root.path()).unwrap();
    let sequences = [&data.sequences[0]];
    let places = ClipConfig::default().places(&sequences).unwrap();
    assert_eq!(places.len(), 20);
    let mut loader = Loader::new(&sequences, places, config(4, 3, 0)).unwrap();
    for taken in 1..=17 {
        settle(&loader, 3);
        assert!(loader.next().unwrap().is_ok());
        assert!(loader.waiting() <= 3);
        assert_eq!(loader.remaining(), 20 - taken);
    }
    settle(&loader, 3);
    assert_eq!(loader.by_ref().count(), 3);
    assert!(loader.next().is_none());
}

#[test]
fn frames_are_in_memory_once() {
    let (root, _) = one_sequence(7);
    let data = Dataset::open(root.path()).unwrap();
    let sequences = [&data.sequences[0]];
    let clips_config = ClipConfig {
        ends: Ends::Repeated(Emit::Centre),
        ..ClipConfig::default()
    };
    let places = clips_config.places(&sequences).unwrap();
    let read = |cache| -> Vec<_> {
        let loader = Loader::new(&sequences, places.clone(), config(1, 2, cache)).unwrap();
        loader.map(Result::unwrap).collect()
    };
    let (shared, alone) = (read(5), read(0));
    assert_eq!(shared[0].place.frames, [0, 0, 0, 1, 2]);
    assert!(
        Arc::ptr_eq(&alone[0].frames[0], &alone[0].frames[2]),
        "repeated in a clip"
    );
    for (index, pair) in shared.windows(2).enumerate() {
        assert!(
            Arc::ptr_eq(&pair[0].frames[4], &pair[1].frames[3]),
            "clip {index}"
        );
    }
    assert!(!Arc::ptr_eq(&alone[0].frames[4], &alone[1].frames[3]));
}

#[test]
fn an_error_stands_in_the_place_of_its_clip() {
    let (root, folder) = one_sequence(12);
    write(folder.join("labels/frame006.png"), b"broken");
    let data = Dataset::open(root.path()).unwrap();
    let sequences = [&data.sequences[0]];
    let clips_config = ClipConfig {
        clip_frames: 2,
        ..ClipConfig::default()
    };
    let places = clips_config.places(&sequences).unwrap();
    let loader = Loader::new(&sequences, places, config(3, 4, 4)).unwrap();
    let outcome: Vec<bool> = loader
        .map(|clip| match clip {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("labels/frame006.png"), "{error}");
                false
            }
        })
        .collect();
    let expected: Vec<bool> = (0..11).map(|start| start != 5 && start != 6).collect();
    assert_eq!(outcome, expected);
}

#[test]
fn unlabelled_frames_can_be_left_out() {
    let (root, folder) = one_sequence(6);
    std::fs::remove_file(folder.join("labels/frame002.png")).unwrap();
    let data = Dataset::open(root.path()).unwrap();
    let sequences = [&data.sequences[0]];
    let mut clips_config = ClipConfig {
        clip_frames: 2,
        labelled_only: true,
        ..ClipConfig::default()
    };
    let starts: Vec<usize> = clips_config
        .places(&sequences)
        .unwrap()
        .iter()
        .map(|p| p.frames[0])
        .collect();
    assert_eq!(starts, [0, 3, 4]);
    clips_config.clip_frames = 5;
    let message = clips_config.places(&sequences).unwrap_err().to_string();
    assert!(message.contains("clip_frames is 5"), "{message}");
}

#[test]
fn dropping_the_loader_stops_its_threads() {
    let (root, _) = one_sequence(60);
    let data = Dataset::open(root.path()).unwrap();
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let sequences = [&data.sequences[0]];
        let places = ClipConfig::default().places(&sequences).unwrap();
        for taken in 0..30 {
            let mut loader = Loader::new(&sequences, places.clone(), config(4, 3, 3)).unwrap();
            // At once, in the middle, and with everything waiting for the consumer.
            assert_eq!(
                loader.by_ref().take(taken % 3).filter(Result::is_ok).count(),
                taken % 3
            );
            if taken % 2 == 0 {
                settle(&loader, 3);
            }
            drop(loader);
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("a worker did not stop");
}

#[test]
fn impossible_settings_are_refused() {
    let (root, _) = one_sequence(5);
    let data = Dataset::open(root.path()).unwrap();
    let sequences = [&data.sequences[0]];
    let places = ClipConfig::default().places(&sequences).unwrap();
    let refused =
        |places: Vec<ClipPlace>, config| Loader::new(&sequences, places, config).err().unwrap().to_string();
    let message = refused(places.clone(), config(0, 0, 0));
    assert!(
        message.contains("threads is 0") && message.contains("ahead_clips is 0"),
        "{message}"
    );
    assert!(refused(places.clone(), config(65, 1, 0)).contains("1 to 64"));
    let mut far = places.clone();
    far[0].frames[4] = 5;
    assert!(refused(far, config(1, 1, 0)).contains("5 frames"));
    let mut far = places;
    far[0].sequence = 1;
    assert!(refused(far, config(1, 1, 0)).contains("1 sequences"));
    assert_eq!(
        Loader::new(&sequences, Vec::new(), config(2, 2, 0))
            .unwrap()
            .count(),
        0
    );
}
