//! Decides how an age is written: as kubectl writes it, in one unit.

use std::time::Duration;

use jiff::Timestamp;

/// How long ago a moment was.
pub fn age(moment: Option<Timestamp>, now: Timestamp) -> String {
    let Some(moment) = moment else { return "-".to_owned() };
    let seconds = Duration::try_from(now.duration_since(moment)).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_of_one_unit() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let ages = [5, 119, 120, 7199, 7200, 172_799, 172_800].map(|second| age(Some(at(0)), at(second)));
        assert_eq!(ages, ["5s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(age(Some(at(9)), at(5)), "0s", "another machine's clock may be ahead");
        assert_eq!(age(None, at(5)), "-");
    }
}
