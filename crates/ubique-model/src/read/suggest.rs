//! "Did you mean": the nearest known word.

/// Words longer than this are not compared: the matrix would grow with the square of outside input.
const MAX_COMPARED_CHARS: usize = 64;

/// So many characters of a longer word make it recognisable.
const MIN_BEGINNING: usize = 3;

/// The candidate nearest to `word`, when it is near enough to be a slip of the fingers.
/// or the beginning of a longer one.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = allowed(word);
    let begins = |candidate: &str| word.len() >= MIN_BEGINNING && candidate.starts_with(word);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let near = distance(word, candidate, allowed);
            Some((near.or_else(|| begins(candidate).then_some(allowed + 1))?, candidate))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// How many slips a word of this length may hold and still be recognised.
pub(crate) fn allowed(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    }
}

/// Edit distance with transpositions of neighbours, ignoring case and `_` for `-`; `None` above `limit`.
pub(crate) fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let fold = |text: &str| -> Vec<char> {
        text.chars().flat_map(char::to_lowercase).map(|c| if c == '_' { '-' } else { c }).collect()
    };
    let (a, b) = (fold(a), fold(b));
    if a.len().abs_diff(b.len()) > limit || a.len() > MAX_COMPARED_CHARS || b.len() > MAX_COMPARED_CHARS {
        return None;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    // A word of which every letter changed is another word.
    let found = last[b.len()];
    (found <= limit && found < b.len().max(1)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("timeout", "timeout", 3), Some(0));
        assert_eq!(distance("tiemout", "timeout", 3), Some(1));
        assert_eq!(distance("hold_time", "hold-time", 3), Some(0));
        assert_eq!(distance("adress", "address", 3), Some(1));
        assert_eq!(distance("location", "med", 3), None);
        assert_eq!(distance("abc", "xyz", 3), None);
        assert_eq!(distance("", "", 3), Some(0));
    }

    #[test]
    fn nearest_word() {
        assert_eq!(nearest("tiemout", ["every", "timeout", "fall"]), Some("timeout"));
        assert_eq!(nearest("Every", ["every", "timeout"]), Some("every"));
        assert_eq!(nearest("password", ["password-file"]), Some("password-file"));
        assert_eq!(nearest("bandwidth", ["password-file"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), ["every"]), None);
    }
}
