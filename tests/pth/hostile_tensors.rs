//! Tensors that do not fit their storage, and checkpoints that hold none.

use crate::archives::{PLAIN, Tensor, checkpoint, dict, fixture, int, ints, pickle, text};
use crate::refusal::{assert_cause, error_at, with_pickle};
use masam::checkpoint::pth::PthFile;

#[test]
fn tensors_past_their_storage_are_refused() {
    let cases: [(Tensor, &str); 15] = [
        (
            Tensor { key: "1", ..PLAIN },
            "its storage archive/data/1 is not in the archive",
        ),
        (
            Tensor { key: "../0", ..PLAIN },
            "its storage archive/data/../0 is not in the archive",
        ),
        (
            Tensor { len: 7, ..PLAIN },
            "has 24 bytes, but 7 elements are claimed",
        ),
        (
            Tensor {
                len: i64::MAX,
                ..PLAIN
            },
            "has 24 bytes, but 9223372036854775807 elements",
        ),
        (Tensor { offset: 1, ..PLAIN }, "reaches past the 6 elements"),
        (
            Tensor {
                offset: i64::MAX,
                ..PLAIN
            },
            "reaches past",
        ),
        (
            Tensor {
                shape: &[3, 3],
                ..PLAIN
            },
            "reaches past",
        ),
        (
            Tensor {
                strides: &[4, 1],
                ..PLAIN
            },
            "reaches past",
        ),
        (
            Tensor {
                strides: &[i64::MAX, i64::MAX],
                ..PLAIN
            },
            "reaches past",
        ),
        (
            Tensor {
                shape: &[1 << 40, 3],
                ..PLAIN
            },
            "reaches past",
        ),
        (
            Tensor {
                shape: &[1 << 62, 1 << 62],
                ..PLAIN
            },
            "is too large",
        ),
        (
            Tensor {
                shape: &[1 << 62, 1 << 62],
                strides: &[0, 0],
                ..PLAIN
            },
            "is too large",
        ),
        (
            Tensor {
                shape: &[0, i64::MAX],
                ..PLAIN
            },
            "is too large",
        ),
        // One element, a terabyte of times.
        (
            Tensor {
                shape: &[1 << 40],
                strides: &[0],
                ..PLAIN
            },
            "its tensors come to 4398046511104 bytes",
        ),
        (
            Tensor {
                shape: &[1 << 20, 1 << 20],
                strides: &[0, 0],
                ..PLAIN
            },
            "its tensors come to 4398046511104 bytes",
        ),
    ];
    for (tensor, cause) in cases {
        let named = if cause.starts_with("its tensors") {
            ""
        } else {
            "tensor weight: "
        };
        assert_cause(&tensor.checkpoint(), &[named, cause]);
    }
    for (tensor, cause) in [
        (Tensor { len: -1, ..PLAIN }, "a storage of -1 elements"),
        (Tensor { offset: -1, ..PLAIN }, "offset is -1"),
        (
            Tensor {
                shape: &[-2, 3],
                ..PLAIN
            },
            "shape has the entry -2",
        ),
        (
            Tensor {
                strides: &[-3, 1],
                ..PLAIN
            },
            "strides has the entry -3",
        ),
        (
            Tensor {
                strides: &[1],
                ..PLAIN
            },
            "2 axes but 1 strides",
        ),
        (
            Tensor {
                shape: &[1; 65],
                strides: &[1; 65],
                ..PLAIN
            },
            "65 axes, but at most 64",
        ),
    ] {
        assert_cause(&tensor.checkpoint(), &["pickle offset", cause]);
    }
}

#[test]
fn many_tensors_over_one_storage_are_refused() {
    // A megabyte a hundred times over is within the bound, a thousand times is not.
    let storage = vec![0u8; 1 << 20];
    let whole = Tensor {
        len: 1 << 18,
        shape: &[1 << 18],
        strides: &[1],
        ..PLAIN
    }
    .pickled();
    let times = |count: usize| {
        let entries: Vec<_> = (0..count)
            .map(|index| (text(&index.to_string()), whole.clone()))
            .collect();
        checkpoint(&pickle(&dict(&entries)), &[&storage])
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ties.pth");
    std::fs::write(&path, times(90)).unwrap();
    assert_eq!(PthFile::open(&path).unwrap().tensors().len(), 90);
    assert_cause(
        &times(1000),
        &["its tensors come to 1048576000 bytes, but the archive holds"],
    );
}

#[test]
fn checkpoints_without_a_state_dict_list_their_keys() {
    let cause = error_at(&fixture("no_tensors.pth"));
    assert_eq!(
        cause,
        "holds no tensors; its keys are: epoch (int), optimizer (dict of 2)"
    );
    let cause = error_at(&fixture("lone_tensor.pth"));
    assert!(
        cause.contains("holds no dict of tensors, but a tensor of float32"),
        "{cause}"
    );
    assert_cause(&with_pickle(&pickle(&dict(&[]))), &["its keys are: none"]);
    let one = || dict(&[(text("weight"), PLAIN.pickled())]);
    let two = dict(&[(text("g"), one()), (text("d"), one())]);
    assert_cause(
        &with_pickle(&pickle(&two)),
        &["several dicts of tensors", "g (dict of 1), d (dict of 1)"],
    );
    let numbered = dict(&[(int(0), PLAIN.pickled())]);
    assert_cause(
        &with_pickle(&pickle(&numbered)),
        &["its keys are: 0 (tensor of float32)"],
    );
    let many: Vec<_> = (0..100)
        .map(|index| (text(&format!("key_{index}")), ints(&[index])))
        .collect();
    assert_cause(
        &with_pickle(&pickle(&dict(&many))),
        &["key_11 (tuple of 1) and 88 more"],
    );
}

#[test]
fn odd_names_of_tensors_are_refused() {
    let twice = dict(&[
        (text("weight"), PLAIN.pickled()),
        (text("weight"), PLAIN.pickled()),
    ]);
    assert_cause(&with_pickle(&pickle(&twice)), &["tensor weight: is there twice"]);
    let long = dict(&[(text(&"w".repeat(2000)), PLAIN.pickled())]);
    assert_cause(&with_pickle(&pickle(&long)), &["its name has 2000 bytes"]);
}
