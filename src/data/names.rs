//! Names of files: their order, and the numbers in them.

/// Sorts runs of digits by value, so that `frame2` comes before `frame10`: each run becomes its length without
/// leading zeros, then its digits. Equal keys mean equal names.
pub fn natural_key(name: &str) -> Vec<(u8, usize, String)> {
    let mut key: Vec<(u8, usize, String)> = Vec::new();
    for character in name.chars() {
        let digit = character.is_ascii_digit();
        match key.last_mut() {
            Some((kind, _, text)) if (*kind == 1) == digit => text.push(character),
            _ => key.push((u8::from(digit), 0, character.to_string())),
        }
    }
    for (kind, length, text) in &mut key {
        if *kind == 1 {
            let digits = text.trim_start_matches('0').to_owned();
            (*length, *text) = (digits.len(), digits);
        }
    }
    key.push((0, 0, name.to_owned()));
    key
}

/// The number at the end of `name`: 12 for `seq_12`, none where it does not end in digits that fit.
pub fn trailing_number(name: &str) -> Option<u32> {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.get(text.len()..)?.parse().ok()
}

/// The number that follows the last `word` in `name`, with or without `_` between: 42 for `seq_1_frame042` and `frame`.
pub fn number_after(name: &str, word: &str) -> Option<u32> {
    let rest = name.get(name.rfind(word)? + word.len()..)?;
    let digits = rest.trim_start_matches('_');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Places in `names` where the number at the end is farther from the one before than is usual in them: 2 for
/// `f1 f2 f4 f5`. None where names do not end in numbers that rise.
pub fn gaps(names: &[&str]) -> Vec<usize> {
    let numbers: Option<Vec<u32>> = names.iter().map(|name| trailing_number(name)).collect();
    let steps: Option<Vec<u32>> = numbers.and_then(|numbers| {
        let step = |pair: &[u32]| pair.last()?.checked_sub(*pair.first()?).filter(|step| *step > 0);
        numbers.windows(2).map(step).collect()
    });
    let steps = steps.unwrap_or_default();
    let count = |wanted: u32| steps.iter().filter(|step| **step == wanted).count();
    let usual = steps
        .iter()
        .copied()
        .max_by_key(|&step| (count(step), std::cmp::Reverse(step)));
    let gap = |(at, step): (usize, &u32)| usual.is_some_and(|usual| *step > usual).then_some(at + 1);
    steps.iter().enumerate().filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let mut names = [
            "frame10.png",
            "frame2.png",
            "frame02b.png",
            "a.png",
            "frame1.png",
            "frame002.png",
        ];
        names.sort_by_cached_key(|n| natural_key(n));
        assert_eq!(
            names,
            [
                "a.png",
                "frame1.png",
                "frame002.png",
                "frame2.png",
                "frame02b.png",
                "frame10.png"
            ]
        );
    }

    #[test]
    fn gaps_are_where_numbers_jump() {
        assert_eq!(gaps(&["f1", "f2", "f4", "f5", "f9"]), [2, 4]);
        assert_eq!(gaps(&["f000", "f030", "f060", "f120"]), [3]);
        for whole in [
            &["f7", "f8", "f9"][..],
            &["f0", "f30"],
            &["f3"],
            &[],
            &["a", "b"],
            &["f2", "f1", "f9"],
        ] {
            assert!(gaps(whole).is_empty(), "{whole:?}");
        }
    }

    #[test]
    fn numbers_are_read_where_they_stand() {
        assert_eq!(trailing_number("seq_12"), Some(12));
        assert_eq!(trailing_number("frame042"), Some(42));
        assert_eq!(trailing_number("seq"), None);
        assert_eq!(trailing_number("seq_99999999999"), None);
        assert_eq!(number_after("seq_1_frame042", "frame"), Some(42));
        assert_eq!(number_after("seq_1_frame042", "seq"), Some(1));
        assert_eq!(number_after("repairs_seq_16_frame_7", "frame"), Some(7));
        assert_eq!(number_after("seq_frame", "seq"), None);
        assert_eq!(number_after("", "seq"), None);
    }
}
