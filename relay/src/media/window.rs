//! Which packet numbers have come (the sliding window of RFC 4303 §3.4.3).

/// So many numbers behind the highest are told apart: five seconds of a talker's packets, one every 20 ms, and of a relay's
/// where frames are bundled. What is further behind is of no use any more.
const WIDTH: u32 = 256;
const WORDS: usize = WIDTH as usize / 64;

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

    /// It has come. Only of an authentic packet, and after [`Window::is_new`].
    pub(super) fn record(&mut self, number: u32) {
        let number = u64::from(number);
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
