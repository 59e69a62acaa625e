//! How two processes make sure that they mean the same group.

/// First bytes of a hello. An answer begins differently, since a process that dials a port of its own host on which
/// nobody listens may be connected to itself.
const HELLO_MAGIC: [u8; 8] = *b"PHLXring";
const ANSWER_MAGIC: [u8; 8] = *b"PHLXback";

/// Changes with anything that travels on these connections.
const VERSION: u32 = 2;

/// Most bytes of a group's name; a trial's id is shorter.
pub(super) const MAX_GROUP_BYTES: usize = 255;

/// Bytes of a hello before the group's name: magic, version, world, from, to (u32 each), generation (u64), length of
/// the name (u8).
const HELLO_HEAD_BYTES: usize = 8 + 4 * 4 + 8 + 1;

/// Most bytes of a hello.
pub(super) const MAX_HELLO_BYTES: usize = HELLO_HEAD_BYTES + MAX_GROUP_BYTES;

/// Bytes of an answer: magic, verdict (u32), generation (u64).
pub(super) const ANSWER_BYTES: usize = 8 + 4 + 8;

/// What the dialling side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) group: Vec<u8>,
    pub(super) generation: u64,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) world: u32,
}

/// What became of the bytes of a hello so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// More must come.
    Incomplete,
    /// No peer of ours.
    Garbage,
    /// All of it.
    Hello(Hello),
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = HELLO_MAGIC.to_vec();
        for number in [VERSION, self.world, self.from, self.to] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.generation.to_le_bytes());
        bytes.push(u8::try_from(self.group.len()).expect("the group's name was checked before connecting"));
        bytes.extend(&self.group);
        bytes
    }

    /// Reads what came so far. A dialler sends nothing after its hello until it has the answer.
    pub(super) fn decode(bytes: &[u8]) -> Heard {
        let known = bytes.len().min(HELLO_MAGIC.len());
        if bytes[..known] != HELLO_MAGIC[..known] {
            return Heard::Garbage;
        }
        let Some((head, group)) = bytes.split_first_chunk::<HELLO_HEAD_BYTES>() else { return Heard::Incomplete };
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::from(head[HELLO_HEAD_BYTES - 1]);
        if number(8) != VERSION || group.len() > length {
            return Heard::Garbage;
        }
        if group.len() < length {
            return Heard::Incomplete;
        }
        Heard::Hello(Hello {
            group: group.to_vec(),
            generation: u64::from(number(24)) | u64::from(number(28)) << 32,
            from: number(16),
            to: number(20),
            world: number(12),
        })
    }
}

/// What the listening side makes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Verdict {
    /// The connection is the link between the two ranks.
    Accepted = 0,
    /// The listener forms another group at the moment; try again.
    OtherGroup = 1,
    /// The listener has gone on to a newer generation.
    Older = 2,
    /// Same group and generation, but the two do not agree on the members, or the rank is there already.
    Contradiction = 3,
}

pub(super) fn encode_answer(verdict: Verdict, generation: u64) -> [u8; ANSWER_BYTES] {
    let mut answer = [0; ANSWER_BYTES];
    answer[..8].copy_from_slice(&ANSWER_MAGIC);
    answer[8..12].copy_from_slice(&(verdict as u32).to_le_bytes());
    answer[12..].copy_from_slice(&generation.to_le_bytes());
    answer
}

/// The verdict, and the generation of the listening side; `None` if it is no answer of ours.
pub(super) fn decode_answer(answer: &[u8; ANSWER_BYTES]) -> Option<(Verdict, u64)> {
    let (magic, rest) = answer.split_first_chunk()?;
    let (verdict, rest) = rest.split_first_chunk()?;
    let verdict = match (*magic == ANSWER_MAGIC).then(|| u32::from_le_bytes(*verdict))? {
        0 => Verdict::Accepted,
        1 => Verdict::OtherGroup,
        2 => Verdict::Older,
        3 => Verdict::Contradiction,
        _ => return None,
    };
    Some((verdict, u64::from_le_bytes(*rest.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_way_in_any_pieces() {
        let hello = Hello { group: b"digits/0".to_vec(), generation: 1 << 40, from: 3, to: 1, world: 4 };
        let bytes = hello.encode();
        assert!(bytes.len() <= MAX_HELLO_BYTES);
        for length in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..length]), Heard::Incomplete, "{length} bytes");
        }
        assert_eq!(Hello::decode(&bytes), Heard::Hello(hello));
        assert_eq!(Hello::decode(&[&bytes[..], b"x"].concat()), Heard::Garbage);
    }

    #[test]
    fn an_answer_survives_the_way_and_is_no_hello() {
        for verdict in [Verdict::Accepted, Verdict::OtherGroup, Verdict::Older, Verdict::Contradiction] {
            let answer = encode_answer(verdict, 7);
            assert_eq!(decode_answer(&answer), Some((verdict, 7)));
            assert_eq!(Hello::decode(&answer), Heard::Garbage);
        }
        assert_eq!(decode_answer(&[9; ANSWER_BYTES]), None);
    }
}
