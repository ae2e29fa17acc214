//! What became of the places that have been played: for each of the last 128 whether its frame was there, and the
//! counts of those that were not.

/// How many passed places are remembered.
const REMEMBERED: u64 = 128;

/// What a place was when its time came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Its frame was there.
    Filled,
    /// Its frame was not there, though the talker has sent later ones.
    Lost,
    /// Its frame was not there; nobody knows yet whether it was sent.
    Unknown,
    /// Its frame was not there, and the talker was muted before: it may have stopped sending.
    Quiet,
}

/// The record. Bit 0 is the place that passed last.
#[derive(Default)]
pub(super) struct Places {
    filled: u128,
    missed: u128,
    /// The last so many places are [`Place::Unknown`]; they are in `missed` and not yet in `lost`.
    unknown: u64,
    /// Places whose frame did not come, as far as is known.
    pub lost: u64,
    /// Frames that came after their place had passed.
    pub late: u64,
}

impl Places {
    /// A place passes.
    pub fn pass(&mut self, place: Place) {
        self.filled = self.filled << 1 | u128::from(place == Place::Filled);
        self.missed = self.missed << 1 | u128::from(matches!(place, Place::Lost | Place::Unknown));
        if place == Place::Unknown {
            self.unknown += 1;
        } else {
            self.on_sent_later();
            self.lost += u64::from(place == Place::Lost);
        }
    }

    /// The talker has gone on: what is missing before was lost.
    pub fn on_sent_later(&mut self) {
        self.lost += self.unknown;
        self.unknown = 0;
    }

    /// Whether the frame of the place `behind` the last one was there.
    pub fn is_filled(&self, behind: u64) -> bool {
        behind < REMEMBERED && self.filled >> behind & 1 == 1
    }

    /// The frame of the place `behind` the last one comes after all. Then it was late, not lost.
    pub fn on_late(&mut self, behind: u64) {
        self.late += 1;
        if behind >= REMEMBERED {
            return;
        }
        let bit = 1_u128 << behind;
        if behind < self.unknown {
            // Those before it are lost for sure; those after it are still unknown.
            self.lost += self.unknown - behind - 1;
            self.unknown = behind;
        } else if self.missed & bit != 0 {
            self.lost -= 1;
        }
        self.missed &= !bit;
        self.filled |= bit;
    }

    /// The next place is `ahead` further than it would be; nothing was played in between.
    pub fn skip_ahead(&mut self, ahead: u64) {
        self.on_sent_later();
        let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.filled = self.filled.checked_shl(shift).unwrap_or(0);
        self.missed = self.missed.checked_shl(shift).unwrap_or(0);
    }

    /// Takes back so much of [`Self::skip_ahead`].
    pub fn step_back(&mut self, back: u64) {
        let shift = u32::try_from(back).unwrap_or(u32::MAX);
        self.filled = self.filled.checked_shr(shift).unwrap_or(0);
        self.missed = self.missed.checked_shr(shift).unwrap_or(0);
    }

    /// The places have nothing to do with those before any more.
    pub fn forget(&mut self) {
        self.on_sent_later();
        (self.filled, self.missed) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(places: &[Place]) -> Places {
        let mut all = Places::default();
        places.iter().for_each(|place| all.pass(*place));
        all
    }

    #[test]
    fn a_gap_at_the_end_counts_as_lost_only_once_the_talker_has_gone_on() {
        let mut places = after(&[Place::Filled, Place::Unknown, Place::Unknown]);
        assert_eq!(places.lost, 0);
        places.on_sent_later();
        assert_eq!(places.lost, 2);
        places.pass(Place::Filled);
        assert_eq!((places.lost, places.late), (2, 0));
    }

    #[test]
    fn a_lost_frame_that_comes_after_all_was_late() {
        let mut places = after(&[Place::Filled, Place::Lost, Place::Lost, Place::Filled]);
        assert!(!places.is_filled(2) && places.is_filled(3));
        places.on_late(2);
        assert_eq!((places.lost, places.late), (1, 1));
        assert!(places.is_filled(2), "a second copy is a duplicate");
    }

    #[test]
    fn a_late_frame_proves_what_is_missing_before_it_and_nothing_after_it() {
        let mut places = after(&[Place::Filled, Place::Unknown, Place::Unknown, Place::Unknown, Place::Unknown]);
        places.on_late(1);
        assert_eq!((places.lost, places.late), (2, 1));
        places.on_late(0);
        assert_eq!((places.lost, places.late), (2, 2));
        places.on_late(3);
        assert_eq!((places.lost, places.late), (1, 3));
    }

    #[test]
    fn gaps_of_a_muted_talker_are_not_lost() {
        let mut places = after(&[Place::Filled, Place::Quiet, Place::Quiet]);
        places.on_sent_later();
        assert_eq!(places.lost, 0);
        places.on_late(0);
        assert_eq!((places.lost, places.late), (0, 1));
    }

    #[test]
    fn moving_the_next_place_keeps_the_others_where_they_were() {
        let mut places = after(&[Place::Filled, Place::Lost]);
        places.skip_ahead(10);
        assert!(places.is_filled(11) && !places.is_filled(1));
        places.step_back(4);
        assert!(places.is_filled(7));
        places.on_late(6);
        assert_eq!((places.lost, places.late), (0, 1));
        places.skip_ahead(u64::MAX);
        assert!((0..200).all(|behind| !places.is_filled(behind)));
    }
}
