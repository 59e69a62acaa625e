use sha2::{Digest, Sha256};

use crate::points::cut;
use crate::sink::hex;

/// The longest key that MLflow takes.
const BYTES_MAX: usize = 250;

/// A key that MLflow takes. One that it would refuse, by its characters or its length, is mapped to another one, with a
/// part of the hash of what it was, so that two different ones stay different.
pub(super) fn key(text: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !text.is_empty() && text.len() <= BYTES_MAX && text.chars().all(is_allowed) && !text.starts_with('.') {
        return text.to_owned();
    }
    let hash = hex(&Sha256::digest(text)[..4]);
    let kept: String = text.chars().take(BYTES_MAX).map(|c| if is_allowed(c) { c } else { '_' }).collect();
    let kept = cut(kept.trim_start_matches('.'), BYTES_MAX - hash.len() - 1);
    format!("{kept}-{hash}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_keys_stay_as_they_are() {
        for good in ["loss", "schedule.lr", "model.dim", "a-b_c.9", &"x".repeat(250)] {
            assert_eq!(key(good), good);
        }
        let long = "x".repeat(1 << 20);
        assert_eq!(key(&long).len(), BYTES_MAX);
        for bad in ["", "..", "../../etc", "a b", "a/b", "ä", "\0", "\u{202e}", &long] {
            assert_ne!(key(bad), bad);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_mapped_to_what_mlflow_takes(text in any::<String>(), other in any::<String>()) {
            let mapped = key(&text);
            prop_assert!(!mapped.is_empty() && mapped.len() <= BYTES_MAX && !mapped.starts_with('.'));
            prop_assert!(mapped.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)), "{}", mapped);
            prop_assert_eq!(mapped == key(&other), text == other);
            prop_assert_eq!(key(&mapped), mapped);
        }
    }
}
