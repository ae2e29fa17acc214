//! Which packet numbers have come (the sliding window of RFC 4303 §3.4.3).

/// So many numbers behind the highest are told apart: five seconds of a talker's packets, one every 20 ms, and of a relay's
/// where frames are bundled. What is further behind is of no use any more.
const WIDTH: u32 = 256;
const WORDS: usize = WIDTH as usize / 64;

/// Which of a sender's last packets have come, as its receiver tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The highest number that has come.
    highest: u32,
    /// By the number modulo the width.
    seen: [u64; WORDS],
}

impl Receipt {
    /// Bytes of one: highest u32 ‖ 4 × u64.
    const LEN: usize = 4 + WORDS * 8;

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (highest, seen) = bytes.split_at_mut(4);
        highest.copy_from_slice(&self.highest.to_be_bytes());
        for (bytes, word) in seen.chunks_exact_mut(8).zip(self.seen) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (highest, words) = bytes.split_first_chunk()?;
        let (words, rest) = words.as_chunks();
        let words: &[[u8; 8]; WORDS] = words.try_into().ok().filter(|_| rest.is_empty())?;
        Some(Self { highest: u32::from_be_bytes(*highest), seen: words.map(u64::from_be_bytes) })
    }

    /// Whether a packet has come; `None` if it may still be on its way.
    pub(super) fn has(&self, number: u32) -> Option<bool> {
        if number > self.highest {
            return None;
        }
        let (word, bit) = place(u64::from(number));
        Some(self.highest - number < WIDTH && self.seen[word] & bit != 0)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Window {
    /// One above the highest number.
    next: u64,
    /// By the number modulo the width.
    seen: [u64; WORDS],
}

impl Window {
    /// Whether this number may still come.
    pub(super) fn is_new(&self, number: u32) -> bool {
        let number = u64::from(number);
        if number >= self.next {
            return true;
        }
        let (word, bit) = place(number);
        self.next - number <= u64::from(WIDTH) && self.seen[word] & bit == 0
    }

    /// It has come. Only of an authentic packet, and after [`Window::is_new`]. Whether numbers before it were passed over for the
    /// first time.
    pub(super) fn record(&mut self, number: u32) -> bool {
        let number = u64::from(number);
        let is_gap = number > self.next;
        if number >= self.next {
            let first = self.next.max((number + 1).saturating_sub(u64::from(WIDTH)));
            for skipped in first..=number {
                let (word, bit) = place(skipped);
                self.seen[word] &= !bit;
            }
            self.next = number + 1;
        }
        let (word, bit) = place(number);
        self.seen[word] |= bit;
        is_gap
    }

    /// Which have come. Before the first it says that number 0 has not.
    pub(super) fn receipt(&self) -> Receipt {
        let highest = u32::try_from(self.next.saturating_sub(1)).unwrap_or(u32::MAX);
        Receipt { highest, seen: self.seen }
    }
}

fn place(number: u64) -> (usize, u64) {
    let place = number % u64::from(WIDTH);
    // Below the number of words.
    ((place / 64) as usize, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn come(window: &mut Window, number: u32) -> bool {
        let is_new = window.is_new(number);
        if is_new {
            window.record(number);
        }
        is_new
    }

    #[test]
    fn each_number_comes_once_and_none_from_before_the_window() {
        let mut window = Window::default();
        assert!(come(&mut window, 3) && come(&mut window, 1) && come(&mut window, 300));
        assert!(!come(&mut window, 3) && !come(&mut window, 1) && !come(&mut window, 300));
        assert!(!come(&mut window, 300 - WIDTH) && come(&mut window, 301 - WIDTH));
        assert!(come(&mut window, u32::MAX) && !come(&mut window, u32::MAX) && !come(&mut window, 301));
    }

    #[test]
    fn a_gap_shows_once_and_a_receipt_says_which_have_come() {
        let mut window = Window::default();
        assert_eq!([0, 1].map(|number| window.receipt().has(number)), [Some(false), None]);
        assert_eq!([0, 1, 4, 5, 3].map(|number| window.record(number)), [false, false, true, false, false]);
        let receipt = window.receipt();
        let has = [0, 1, 2, 3, 4, 5, 6].map(|number| receipt.has(number));
        assert_eq!(has, [Some(true), Some(true), Some(false), Some(true), Some(true), Some(true), None]);
        assert_eq!(Receipt::decode(&receipt.encode()), Some(receipt));
        assert_eq!([0, 35, 37].map(|length| Receipt::decode(&vec![0; length])), [None; 3]);
        window.record(5 + WIDTH);
        let receipt = window.receipt();
        assert_eq!([5, 6, 5 + WIDTH].map(|number| receipt.has(number)), [Some(false), Some(false), Some(true)]);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_of_all_numbers_knows(numbers in prop::collection::vec(0u32..2_000, 1..400)) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), 0);
            for number in numbers {
                let is_recent = seen.is_empty() || number + WIDTH > highest;
                prop_assert_eq!(come(&mut window, number), is_recent && !seen.contains(&number));
                if is_recent {
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }
}
