//! Pickles that are damaged, foreign or made to harm: the program is refused with its offset, and never run.

use crate::archives::{PLAIN, dict, pickle, text};
use crate::refusal::{assert_cause, error_of, with_pickle};
use masam::checkpoint::pth::PthFile;

#[test]
fn foreign_globals_are_named_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = text(&format!("touch {}", trace.display()));
    let call = [b"cposix\nsystem\n".as_slice(), &command, b"\x85R"].concat();
    assert_cause(
        &with_pickle(&pickle(&call)),
        &["holds no dict of tensors, but an object of posix.system"],
    );
    // By the stack, beside tensors: they are read, and it is not.
    let call = [
        text("builtins"),
        text("exec"),
        b"\x93".to_vec(),
        command,
        b"\x85R".to_vec(),
    ]
    .concat();
    let late = dict(&[(text("weight"), PLAIN.pickled()), (text("then"), call)]);
    std::fs::write(folder.path().join("late.pth"), with_pickle(&pickle(&late))).unwrap();
    let file = PthFile::open(&folder.path().join("late.pth")).unwrap();
    assert_eq!(file.tensors().keys().collect::<Vec<_>>(), ["weight"]);
    let then = ("then".to_owned(), "object of builtins.exec".to_owned());
    assert!(file.skipped().named().contains(&then), "{:?}", file.skipped());
    // Of allowed modules, and with a name that would dirty a terminal.
    for (name, shown) in [
        ("torch\nload\n", "torch.load"),
        (
            "torch.storage\n_load_from_bytes\n",
            "torch.storage._load_from_bytes",
        ),
        ("collections\nUserDict\n", "collections.UserDict"),
        ("torch._utils\nos\n", "torch._utils.os"),
        ("a\x1b[2J\nb\n", "a\\u{1b}[2J.b"),
    ] {
        assert_cause(
            &with_pickle(&pickle(format!("c{name}").as_bytes())),
            &["holds no dict of tensors", shown],
        );
    }
    assert!(!trace.exists());
}

/// What foreign classes and functions leave is a name, whatever the program does with it.
#[test]
fn foreign_objects_take_what_any_object_takes() {
    let class = b"cown\nClass\n".as_slice();
    for made in [
        // Calls, and calls of what a call returned.
        [class, b")R"].concat(),
        [class, b")R)R"].concat(),
        [class, b"NR"].concat(),
        // New objects, with and without named arguments.
        [class, b")\x81"].concat(),
        [class, b")}\x92"].concat(),
        // Attributes, entries, items, members; of a set too.
        [class, b")\x81}b"].concat(),
        [class, b")\x81(K\x01K\x02u"].concat(),
        [class, b")\x81K\x01K\x02s"].concat(),
        [class, b")\x81(K\x01K\x02e"].concat(),
        [class, b")\x81K\x01a"].concat(),
        [class, b")\x81(K\x01\x90"].concat(),
        // Itself inside itself.
        [class, b")\x81q\x07(K\x01h\x07u"].concat(),
        [class, b")\x81q\x07h\x07b"].concat(),
        // A tensor of a class of its own, and a class as `torch.save` named it before PyTorch 1.6.
        [b"(".as_slice(), &text("module"), class, b"NNtQ)\x81"].concat(),
    ] {
        let beside = dict(&[(text("x"), made.clone()), (text("weight"), PLAIN.pickled())]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.pth");
        std::fs::write(&path, with_pickle(&pickle(&beside))).unwrap();
        let file = PthFile::open(&path).unwrap_or_else(|error| panic!("{error}: {made:x?}"));
        assert_eq!(file.tensors().len(), 1);
        assert_eq!(
            file.skipped().named(),
            [("x".into(), "object of own.Class".into())],
            "{made:x?}"
        );
    }
    // Its entries are as good as a dict's: a state dict of a class of its own.
    let entries = [class, b")\x81(", &text("weight"), &PLAIN.pickled(), b"u"].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.pth");
    std::fs::write(&path, with_pickle(&pickle(&entries))).unwrap();
    assert_eq!(PthFile::open(&path).unwrap().tensors().len(), 1);
    // A dictionary as Python 2 wrote it.
    let pairs = [
        b"ccollections\nOrderedDict\n]](".as_slice(),
        &text("weight"),
        &PLAIN.pickled(),
        b"ea\x85R",
    ];
    std::fs::write(&path, with_pickle(&pickle(&pairs.concat()))).unwrap();
    assert_eq!(PthFile::open(&path).unwrap().tensors().len(), 1);
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
        (b"NR", "the stack is empty"),
        (b"N)R", "no global"),
        (b"ctorch\nFloatStorage\n)R", "does not take these 0 arguments"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n)R",
            "does not take these 0 arguments",
        ),
        (
            b"ccollections\nOrderedDict\nNN\x86R",
            "does not take these 2 arguments",
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
    // The same of pairs, of which a dictionary takes any number, and of foreign calls, which look at none.
    let long = [
        b"](".as_slice(),
        &b"N".repeat(1 << 19),
        b"eq\x00ccollections\nOrderedDict\nq\x01",
        &b"h\x01h\x00\x85R".repeat(1 << 20),
    ];
    assert_cause(
        &with_pickle(&pickle(&long.concat())),
        &["more than 4194304 parts"],
    );
    let many = [b"cown\nf\nq\x01".as_slice(), &b"h\x01)R0".repeat(1 << 20)];
    assert_cause(
        &with_pickle(&pickle(&many.concat())),
        &["more than 524288 objects"],
    );
}
