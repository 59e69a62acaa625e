use std::fmt;

/// A hash as it was reported, in the least memory: checkpoints have two each, and a sweep leaves behind tens of
/// thousands of them.
#[derive(Clone, PartialEq)]
pub(super) enum Digest {
    /// 64 small hexadecimal digits.
    Bits([u8; 32]),
    /// Anything else. It is kept as it is: whether it is the hash of something, others find out.
    Text(Box<str>),
}

impl From<String> for Digest {
    fn from(text: String) -> Self {
        let digits = text.as_bytes();
        let mut bits = [0; 32];
        if digits.len() != 2 * bits.len() {
            return Self::Text(text.into());
        }
        for (byte, pair) in bits.iter_mut().zip(digits.chunks_exact(2)) {
            match (value(pair[0]), value(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Self::Text(text.into()),
            }
        }
        Self::Bits(bits)
    }
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => bits.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        let hash = "0123456789abcdef".repeat(4);
        assert!(matches!(Digest::from(hash.clone()), Digest::Bits(_)));
        for text in
            [hash.clone(), hash.to_uppercase(), hash.replace('0', "g"), hash.replace("01", "\u{e9}"), "b".into()]
        {
            assert_eq!(Digest::from(text.clone()).to_string(), text);
        }
    }
}
