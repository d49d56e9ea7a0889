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
