//! Control messages that come in parts (`docs/protocol.md` §6.5).

use std::collections::VecDeque;

use super::packet::Part;

/// Messages of which not all parts have come. A relay sends one after the other, so there are more only where packets got lost,
/// and then the message comes again by another way; the oldest makes room.
const MOST: usize = 4;

#[derive(Debug)]
struct Whole {
    id: u32,
    bytes: Vec<u8>,
    missing: usize,
}

/// See the module. Holds no more than four messages of a packet's length.
#[derive(Debug, Default)]
pub(crate) struct Parts(VecDeque<Whole>);

impl Parts {
    /// Takes a part of an authentic packet that has not come before; the message, if it was the last.
    pub(crate) fn take(&mut self, part: Part<'_>) -> Option<Vec<u8>> {
        let range = part.range()?;
        let length = usize::from(part.of);
        let at = match self.0.iter().position(|whole| whole.id == part.id && whole.bytes.len() == length) {
            Some(at) => at,
            None => {
                if self.0.len() >= MOST {
                    self.0.pop_front();
                }
                self.0.push_back(Whole { id: part.id, bytes: vec![0; length], missing: length });
                self.0.len() - 1
            }
        };
        let whole = self.0.get_mut(at)?;
        whole.missing = whole.missing.saturating_sub(range.len());
        whole.bytes.get_mut(range)?.copy_from_slice(part.bytes);
        if whole.missing > 0 {
            return None;
        }
        self.0.remove(at).map(|whole| whole.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u32, at: u16, bytes: &[u8]) -> Part<'_> {
        Part { id, at, of: 6, bytes }
    }

    #[test]
    fn parts_make_a_message_in_whatever_order_they_come() {
        let mut parts = Parts::default();
        assert_eq!(parts.take(part(1, 4, b"ef")), None);
        assert_eq!(parts.take(part(2, 0, b"ABC")), None);
        assert_eq!(parts.take(part(1, 0, b"ab")), None);
        assert_eq!(parts.take(part(1, 2, b"cd")).as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(parts.take(part(2, 3, b"DEF")).as_deref(), Some(&b"ABCDEF"[..]));
        assert!(parts.0.is_empty());
    }

    #[test]
    fn what_never_becomes_whole_makes_room_and_what_is_no_part_counts_nothing() {
        let mut parts = Parts::default();
        for id in 0..100 {
            assert_eq!(parts.take(part(id, 0, b"abc")), None);
        }
        assert_eq!(parts.0.len(), MOST);
        assert_eq!(parts.take(part(95, 3, b"def")), None, "its first part is forgotten");
        assert_eq!(parts.take(part(99, 3, b"def")).as_deref(), Some(&b"abcdef"[..]));
        for nothing in [part(98, 6, b""), part(98, 4, b"efg"), Part { of: 1_201, ..part(98, 0, b"abc") }] {
            assert_eq!(parts.take(nothing), None);
        }
        // Of another length it is another message.
        assert_eq!(parts.take(Part { of: 5, ..part(98, 3, b"de") }), None);
        assert_eq!(parts.take(part(98, 3, b"def")).as_deref(), Some(&b"abcdef"[..]));
    }
}
