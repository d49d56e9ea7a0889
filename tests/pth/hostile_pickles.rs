//! Pickles that are damaged, foreign or made to harm: the program is refused with its offset, and never run.

use crate::archives::{PLAIN, dict, fixture, pickle, text};
use crate::refusal::{assert_cause, error_at, error_of, with_pickle};

#[test]
fn foreign_globals_are_named_and_not_run() {
    let cause = error_at(&fixture("foreign.pth"));
    assert!(cause.contains("the global argparse.Namespace is not"), "{cause}");
    assert!(cause.contains("pickle offset"), "{cause}");

    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = text(&format!("touch {}", trace.display()));
    let call = [b"cposix\nsystem\n".as_slice(), &command, b"\x85R"].concat();
    assert_cause(
        &with_pickle(&pickle(&call)),
        &["pickle offset 2: the global posix.system"],
    );
    // By the stack, and after tensors.
    let call = [
        text("builtins"),
        text("exec"),
        b"\x93".to_vec(),
        command,
        b"\x85R".to_vec(),
    ]
    .concat();
    let late = dict(&[(text("weight"), PLAIN.pickled()), (text("then"), call)]);
    assert_cause(&with_pickle(&pickle(&late)), &["the global builtins.exec"]);
    // Of allowed modules, and with a name that would dirty a terminal.
    for name in [
        "torch\nload\n",
        "torch.storage\n_load_from_bytes\n",
        "collections\nUserDict\n",
        "torch._utils\nos\n",
    ] {
        assert_cause(
            &with_pickle(&pickle(format!("c{name}").as_bytes())),
            &["the global ", "nothing of it was run"],
        );
    }
    assert_cause(
        &with_pickle(&pickle(b"ca\x1b[2J\nb\n")),
        &["the global a\\u{1b}[2J.b"],
    );
    assert!(!trace.exists());
}

#[test]
fn a_pickle_cut_anywhere_is_refused() {
    let whole = pickle(&dict(&[(text("weight"), PLAIN.pickled())]));
    for len in 0..whole.len() {
        assert_cause(&with_pickle(&whole[..len]), &["pickle offset"]);
    }
    assert_cause(
        &with_pickle(&[whole.as_slice(), b"more"].concat()),
        &["4 bytes follow the STOP"],
    );
}

#[test]
fn programs_out_of_order_are_refused() {
    let cases: [(&[u8], &str); 27] = [
        (b"", "the stack is empty"),
        (b"0", "the stack is empty"),
        (b"2", "the stack is empty"),
        (b"h\x07", "memo 7 was never set"),
        (b"j\xff\xff\xff\xff", "memo 4294967295 was never set"),
        (b"q\x00", "the stack is empty"),
        (b"u", "no MARK is open"),
        (b"}(Nu", "a key without its value"),
        (b"](NNu", "no dict"),
        (b"}Na", "no list"),
        (b"N(0", "the stack is empty"),
        (b"N(N\x86", "the stack is empty"),
        (b"NN", "an unfinished object"),
        (b"(N", "an unfinished object"),
        (b"NR", "a tuple is needed"),
        (b"N)R", "no global"),
        (b"ctorch\nFloatStorage\n)R", "does not take these 0 arguments"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n)R",
            "does not take these 0 arguments",
        ),
        (
            b"ccollections\nOrderedDict\nN\x85R",
            "does not take these 1 arguments",
        ),
        (b"NNb", "takes none"),
        (b"NQ", "a tuple is needed"),
        (b"(NNNNNtQ", "no storage"),
        (b"NN\x93", "text is needed"),
        (b"X\x02\x00\x00\x00\xff\xfe", "not UTF-8"),
        (
            b"X\xff\xff\xff\x7fa",
            "2147483647 bytes are needed, but 2 are left",
        ),
        (
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa",
            "18446744073709551615 bytes are needed",
        ),
        (b"\x8b\xff\xff\xff\xff", "4294967295 bytes are needed"),
    ];
    for (program, cause) in cases {
        assert_cause(&with_pickle(&pickle(program)), &["pickle offset", cause]);
    }
    assert_cause(&with_pickle(b"\x80\x09."), &["pickle offset 0: protocol 9"]);
    assert_cause(&with_pickle(&pickle(b"I7\n")), &["pickle offset 2: opcode 0x49"]);
    assert_cause(
        &with_pickle(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff."),
        &["a frame of 18446744073709551615"],
    );
    assert_cause(
        &with_pickle(&pickle(&[b"c".as_slice(), &[b'a'; 300]].concat())),
        &["does not end within 200"],
    );
}

#[test]
fn programs_that_grow_without_end_are_refused() {
    let many = |program: &[u8], times: usize| with_pickle(&pickle(&program.repeat(times)));
    assert_cause(
        &many(b"(", 1000),
        &["pickle offset 202: objects nest deeper than 200"],
    );
    assert_cause(
        &with_pickle(&pickle(&[b")".as_slice(), &b"\x85".repeat(1000)].concat())),
        &["nest deeper than 200"],
    );
    // The bound itself is allowed: an empty tuple and 199 around it.
    let tuples = |around: usize| with_pickle(&pickle(&[b")".as_slice(), &b"\x85".repeat(around)].concat()));
    assert_cause(&tuples(199), &["holds no dict of tensors, but a tuple of 1"]);
    assert_cause(&tuples(200), &["pickle offset 202: objects nest deeper than 200"]);
    let filled = [b"(".as_slice(), &b"N".repeat(1_000_000), b"e"].concat();
    let list = [b"]".as_slice(), &filled.repeat(5)].concat();
    assert_cause(
        &with_pickle(&pickle(&list)),
        &["the objects hold more than 4194304 parts"],
    );
    assert_cause(&many(b"N", 2 << 20), &["more than 1048576 values on the stack"]);
    assert_cause(&many(b"]0", 1 << 20), &["more than 524288 objects"]);
    let memo: Vec<u8> = (0..2u32 << 20)
        .flat_map(|index| [b"r".as_slice(), &index.to_le_bytes()].concat())
        .collect();
    assert_cause(
        &with_pickle(&pickle(&[b"N", memo.as_slice()].concat())),
        &["more than 1048576 values in the memo"],
    );
    // A list of lists of the same list: cheap to write, endless to walk.
    let doubled = [b"]q\x00".as_slice(), &b"(h\x00h\x00tq\x00".repeat(190)].concat();
    error_of(&with_pickle(&pickle(&doubled)));
    // A list that holds itself, and a dict that does.
    assert_cause(
        &with_pickle(&pickle(b"]q\x00h\x00a")),
        &["holds no dict of tensors, but a list of 1"],
    );
    let own = [b"}q\x00".as_slice(), &text("model"), b"h\x00s"].concat();
    assert_cause(
        &with_pickle(&pickle(&own)),
        &["holds no tensors", "model (dict of 1)"],
    );
    // A long tuple walked again and again.
    let long = [
        b"(".as_slice(),
        &b"N".repeat(1 << 19),
        b"tq\x00c__builtin__\nset\nq\x01",
        &b"h\x01h\x00R".repeat(1 << 20),
    ];
    assert_cause(
        &with_pickle(&pickle(&long.concat())),
        &["524288 arguments, but at most 16 are read"],
    );
}
