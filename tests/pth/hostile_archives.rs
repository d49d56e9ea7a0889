//! Files that are no archive of `torch.save`, or one that is damaged or made to harm.
//! Each is refused with a cause that names the place, and none takes memory for what it merely claims.

use crate::archives::{Entry, PLAIN, archive, deflated, dict, pickle, six_floats, stored, text};
use crate::refusal::{assert_cause, error_at, error_of};

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(error_at(&folder.path().join("absent.pth")).contains("No such file"));
    assert!(error_at(folder.path()).contains("is not a regular file"));
}

#[test]
fn other_content_under_the_name_is_told_apart() {
    assert_cause(b"", &["the file is empty"]);
    assert_cause(b"PK", &["neither a file of torch.save", "begin with \"PK\""]);
    assert_cause(
        b"<!DOCTYPE html><title>404</title>",
        &["is a web page", "download"],
    );
    assert_cause(b"\x1b[2Jhello\x07", &["begin with \"\\u{1b}[2Jhello\\u{7}\""]);
    assert_cause(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        &["is a Git LFS pointer"],
    );
    assert_cause(&pickle(&dict(&[])), &["is a bare pickle"]);
    assert_cause(
        b"PK\x03\x04 and then nothing of a zip",
        &["directory cannot be read"],
    );
}

#[test]
fn torchscript_and_other_zips_are_told_apart() {
    let program = [
        stored("net/constants.pkl", b"\x80\x02)."),
        stored("net/data.pkl", b"\x80\x02c__torch__\nNet\n."),
    ];
    assert_cause(&archive(&program), &["is a TorchScript program"]);
    assert_cause(
        &archive(&[stored("folder/letter.txt", b"hello")]),
        &["has no data.pkl"],
    );
    assert_cause(&archive(&[]), &["is an empty zip archive"]);
}

// The archive.

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = PLAIN.checkpoint();
    for len in 0..whole.len() {
        error_of(&whole[..len]);
    }
}

#[test]
fn a_flipped_byte_of_a_storage_is_found() {
    let mut bytes = PLAIN.checkpoint();
    let at = bytes
        .windows(24)
        .position(|window| window == six_floats())
        .unwrap();
    bytes[at + 13] ^= 4;
    assert_cause(
        &bytes,
        &["tensor weight: entry archive/data/0: damaged", "checksum"],
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let with = |name: &str| {
        archive(&[
            stored("archive/data.pkl", &pickle(&dict(&[]))),
            stored(name, b"x"),
        ])
    };
    assert_cause(&with("archive/data.pkl"), &["two entries of one name"]);
    for name in [
        "archive/../../etc/passwd",
        "archive/./x",
        "archive//x",
        "archive/..\\x",
        "archive/\0x",
        "/etc/passwd",
    ] {
        assert_cause(&with(name), &["has a path that leads out of its folder"]);
    }
    assert_cause(&with("../x"), &["entry ../x has a path that leads out"]);
    assert_cause(
        &with("other/data/0"),
        &["entry other/data/0 lies outside the top folder archive"],
    );
    assert_cause(&with("loose"), &["entry loose lies in no folder"]);
    assert_cause(
        &with(&format!("archive/{}", "x".repeat(600))),
        &["a name of 608 bytes"],
    );
    let raw = Entry {
        name: b"archive/\xff".to_vec(),
        ..stored("", b"")
    };
    assert_cause(&archive(&[raw]), &["not UTF-8"]);
}

#[test]
fn entries_that_lie_about_their_size_are_refused() {
    let program = pickle(&dict(&[(text("weight"), PLAIN.pickled())]));
    let with = |entry: Entry| archive(&[stored("archive/data.pkl", &program), entry]);
    let plain = || stored("archive/data/0", &six_floats());
    assert_cause(
        &with(Entry {
            size: 1 << 40,
            ..plain()
        }),
        &["data/0 is stored in 24 bytes, but claims 1099511627776"],
    );
    assert_cause(
        &with(Entry {
            size: 1 << 40,
            packed_size: 1 << 40,
            ..plain()
        }),
        &["the entries take", "but the file has"],
    );
    let offset = Some(1 << 30);
    assert_cause(&with(Entry { offset, ..plain() }), &["archive/data/0"]);
    assert_cause(&with(Entry { flags: 1, ..plain() }), &["data/0 is encrypted"]);
    assert_cause(
        &with(Entry {
            method: 12,
            ..plain()
        }),
        &["data/0 is compressed by", "not read"],
    );
    assert_cause(&with(Entry { crc: 7, ..plain() }), &["data/0: damaged"]);

    // Two entries over the same bytes: a small file that stands for a large one.
    let whole = with(plain());
    let at = whole
        .windows(14)
        .position(|window| window == b"archive/data/0")
        .unwrap() as u64
        - 30;
    let mut entries = vec![stored("archive/data.pkl", &program), plain()];
    entries.extend((1..100).map(|key| Entry {
        packed: Vec::new(),
        offset: Some(at),
        packed_size: 60_000,
        size: 60_000,
        ..stored(&format!("archive/data/{key}"), b"")
    }));
    assert_cause(&archive(&entries), &["the entries take 59", "but the file has"]);
}

#[test]
fn zip_bombs_are_refused() {
    let program = pickle(&dict(&[(text("weight"), PLAIN.pickled())]));
    let with = |entry: Entry| archive(&[stored("archive/data.pkl", &program), entry]);
    let zeros = vec![0u8; 1 << 20];
    // Claims more than deflate can do.
    let bomb = || deflated("archive/data/0", &zeros);
    assert_cause(
        &with(Entry {
            size: 1 << 50,
            ..bomb()
        }),
        &["data/0 claims 1125899906842624 bytes", "can hold"],
    );
    // Claims less than there is: the tensor fits, and the rest must not be unpacked.
    assert_cause(
        &with(Entry { size: 24, ..bomb() }),
        &["tensor weight: entry archive/data/0: damaged", "larger"],
    );
    // Claims more than there is.
    let short = Entry {
        size: 24,
        ..deflated("archive/data/0", &six_floats()[..20])
    };
    assert_cause(&with(short), &["tensor weight: entry archive/data/0"]);
    // True claims, each possible, together too much.
    let mut entries = vec![stored("archive/data.pkl", &program)];
    entries.extend((0..80).map(|key| Entry {
        name: format!("archive/data/{key}").into_bytes(),
        ..bomb()
    }));
    assert_cause(
        &archive(&entries),
        &["the deflated entries claim 83886080 bytes, but at most"],
    );
    // The pickle itself.
    let large = deflated(
        "archive/data.pkl",
        &[b"\x80\x02".as_slice(), &vec![b'N'; 17 << 20]].concat(),
    );
    assert_cause(
        &archive(&[large]),
        &["its pickle has 17825794 bytes, but at most 16777216 are read"],
    );
}

#[test]
fn an_end_record_that_claims_many_entries_is_refused() {
    let mut bytes = PLAIN.checkpoint();
    let end = bytes.len() - 22;
    let mut record = b"PK\x06\x06".to_vec();
    record.extend(44u64.to_le_bytes());
    record.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for field in [1u64 << 40, 1 << 40, 1 << 50, 0] {
        record.extend(field.to_le_bytes());
    }
    record.extend(b"PK\x06\x07\0\0\0\0");
    record.extend((end as u64).to_le_bytes());
    record.extend(1u32.to_le_bytes());
    bytes.splice(end..end, record);
    let counts = bytes.len() - 22 + 8;
    bytes[counts..counts + 12].fill(0xff);
    assert_cause(
        &bytes,
        &["claims 1099511627776 entries, but at most 65536 are read"],
    );
}

#[test]
fn other_versions_and_byte_orders_are_refused() {
    let program = pickle(&dict(&[(text("weight"), PLAIN.pickled())]));
    let with = |name: &str, content: &[u8]| {
        archive(&[
            stored("a/data.pkl", &program),
            stored("a/data/0", &six_floats()),
            stored(name, content),
        ])
    };
    assert_cause(&with("a/byteorder", b"big"), &["big-endian"]);
    assert_cause(&with("a/byteorder", b"middle"), &["its byteorder is \"middle\""]);
    assert_cause(
        &with("a/byteorder", &[b'x'; 100]),
        &["a/byteorder has 100 bytes, but at most 16"],
    );
    assert_cause(
        &with("a/version", b"11\n"),
        &["its version is \"11\\n\", but 1 to 10 are read"],
    );
    assert_cause(&with("a/version", b"three"), &["its version is \"three\""]);
}
