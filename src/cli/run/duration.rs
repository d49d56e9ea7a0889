//! How long to record: `90`, `1.5`, `90s`, `1m30s`, `2h`.

use std::time::Duration;

/// Reads a time; its parts are hours, minutes and seconds in this order.
///
/// # Errors
/// Anything else, and zero.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is above zero: seconds, or 90s, 1m30s, 2h".to_owned();
    let (mut rest, mut seconds) = (text, 0.0);
    for (unit, length) in [('h', 3600.0), ('m', 60.0), ('s', 1.0)] {
        let Some((number, behind)) = rest.split_once(unit) else {
            continue;
        };
        seconds += length * number.parse::<f64>().map_err(|_| wrong())?;
        rest = behind;
    }
    if !rest.is_empty() {
        if rest.len() != text.len() {
            return Err(wrong());
        }
        seconds = rest.parse().map_err(|_| wrong())?;
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration.is_zero() {
        return Err(wrong());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, seconds) in [
            ("90", 90.0),
            ("0.5", 0.5),
            ("90s", 90.0),
            ("1m30s", 90.0),
            ("2h", 7200.0),
            ("1h0.5s", 3600.5),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "0", "-1", "s", "1s30", "30s1m", "5 minutes", "inf", "nan"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
