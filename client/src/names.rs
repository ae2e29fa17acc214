//! Names that look alike: display names are what their owners claim, so two people who can be taken for each other
//! must be told apart by something else.
//!
//! Looking alike is decided by the skeletons of UTS #39 (<https://www.unicode.org/reports/tr39/>), with three changes
//! on the side of caution: case, blanks and the accents of Latin, Greek and Cyrillic don't count. A skeleton is for
//! comparing only and never shown.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization;

/// The accents of European scripts. Those of other scripts are letters in all but name.
const ACCENTS: std::ops::RangeInclusive<char> = '\u{300}'..='\u{36F}';

/// A name reduced to what it looks like after its case was folded.
pub fn skeleton(name: &str) -> String {
    prototype(&fold(name))
}

/// How a name looks. Two skeletons, since folding the case both finds likeness (`BOB`, `bob`) and hides it (`Ian` is
/// written like `lan`, but not when both are in small letters).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    folded: String,
    written: String,
}

impl Look {
    /// The look of a name.
    pub fn of(name: &str) -> Self {
        Self { folded: skeleton(name), written: prototype(&fold(&prototype(name))) }
    }

    /// Whether the one can be taken for the other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.folded == other.folded || self.written == other.written
    }
}

/// Everybody of a kind by the look of their names.
#[derive(Clone, Debug)]
pub struct Looks<K> {
    folded: BTreeMap<String, BTreeSet<K>>,
    written: BTreeMap<String, BTreeSet<K>>,
}

impl<K> Default for Looks<K> {
    fn default() -> Self {
        Self { folded: BTreeMap::new(), written: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Looks<K> {
    /// Adds somebody.
    pub fn insert(&mut self, who: K, look: &Look) {
        self.folded.entry(look.folded.clone()).or_default().insert(who);
        self.written.entry(look.written.clone()).or_default().insert(who);
    }

    /// Takes somebody out, who was added under this look.
    pub fn remove(&mut self, who: K, look: &Look) {
        for (map, key) in [(&mut self.folded, &look.folded), (&mut self.written, &look.written)] {
            if let Some(people) = map.get_mut(key) {
                people.remove(&who);
                if people.is_empty() {
                    map.remove(key);
                }
            }
        }
    }

    /// The first in order who looks like this, `but` excepted.
    pub fn first_like(&self, look: &Look, but: Option<K>) -> Option<K> {
        let maps = [self.folded.get(&look.folded), self.written.get(&look.written)];
        maps.into_iter().flatten().filter_map(|people| people.iter().find(|who| Some(**who) != but)).min().copied()
    }
}

/// For everybody who can be taken for somebody else: the first in order who that may be.
pub fn look_alikes<'a, K: Ord + Copy>(names: impl IntoIterator<Item = (K, &'a str)>) -> BTreeMap<K, K> {
    let mut looks = Looks::default();
    let everybody: Vec<(K, Look)> = names.into_iter().map(|(who, name)| (who, Look::of(name))).collect();
    for (who, look) in &everybody {
        looks.insert(*who, look);
    }
    everybody.iter().filter_map(|(who, look)| Some((*who, looks.first_like(look, Some(*who))?))).collect()
}

/// The first in order of those who can be taken for somebody of this name.
pub fn first_like<'a, K: Ord + Copy>(name: &str, names: impl IntoIterator<Item = (K, &'a str)>) -> Option<K> {
    let look = Look::of(name);
    names.into_iter().filter(|(_, other)| Look::of(other).is_like(&look)).map(|(who, _)| who).min()
}

/// Compatible forms become one, then case goes. By capitals to small letters, so that ß and ſ become what their
/// capitals are; letter by letter, so that no neighbour matters.
fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

fn prototype(text: &str) -> String {
    unicode_security::skeleton(text).filter(|c| !c.is_whitespace() && !ACCENTS.contains(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(a: &str, b: &str) -> bool {
        Look::of(a).is_like(&Look::of(b))
    }

    #[test]
    fn names_that_can_be_taken_for_each_other_look_alike() {
        for (a, b) in [
            ("Bob", "Bob"),
            ("Bob", "BOB"),
            ("Bob", "B0b"),
            ("Bob", "Вob"),    // Cyrillic Ve
            ("BOB", "ВОВ"),    // all Cyrillic
            ("Bob", "Ｂｏｂ"), // full width
            ("Bob", "𝐁𝐨𝐛"),    // mathematical
            ("Bob", "Boḅ"),    // a dot below
            ("Ian", "lan"),    // capital i, small L
            ("IAN", "Ian"),
            ("Ian Smith", "lan smith"),
            ("Barney", "Bamey"), // rn, m
            ("BARNEY", "Bamey"),
            ("Ann Lee", "AnnLee"),
            ("Zoë", "Zoe"),
            ("Strauß", "STRAUSS"),
            ("paypal", "раураl"), // Cyrillic
        ] {
            assert!(alike(a, b) && alike(b, a), "{a} {b}: {:?} {:?}", Look::of(a), Look::of(b));
        }
    }

    #[test]
    fn names_that_differ_do_not_look_alike() {
        for (a, b) in [("Bob", "Rob"), ("Neil", "Nell"), ("Kai", "Kal"), ("Ann", "Anna"), ("राम", "रमी"), ("李", "王")]
        {
            assert!(!alike(a, b), "{a} {b}: {:?} {:?}", Look::of(a), Look::of(b));
        }
    }

    #[test]
    fn everybody_in_doubt_is_told_with_the_first_other_of_that_look() {
        let roster = [(0, "Ada"), (1, "Bob"), (3, "Ada Lovelace"), (4, "B0b"), (9, "bob")];
        assert_eq!(look_alikes(roster), BTreeMap::from([(1, 4), (4, 1), (9, 1)]));
        assert_eq!(look_alikes([(0, "Ada"), (1, "Bob")]), BTreeMap::new());
    }

    #[test]
    fn a_name_is_compared_with_everybody_who_is_there() {
        let roster = [(0, "Ada"), (7, "Вob"), (2, "Bob")];
        assert_eq!(first_like("BOB", roster), Some(2));
        assert_eq!(first_like("ADA", roster), Some(0));
        assert_eq!(first_like("Carl", roster), None);
    }

    #[test]
    fn somebody_who_is_taken_out_is_not_found_any_more() {
        let mut looks = Looks::default();
        looks.insert(1, &Look::of("Bob"));
        looks.insert(2, &Look::of("bob"));
        assert_eq!(looks.first_like(&Look::of("B0B"), None), Some(1));
        assert_eq!(looks.first_like(&Look::of("Bob"), Some(1)), Some(2));
        looks.remove(1, &Look::of("Bob"));
        looks.remove(2, &Look::of("bob"));
        assert_eq!(looks.first_like(&Look::of("Bob"), None), None);
        assert!(looks.folded.is_empty() && looks.written.is_empty());
    }

    #[test]
    fn a_skeleton_is_the_same_for_a_name_and_its_capitals() {
        assert_eq!(skeleton("Ann Lee"), skeleton("ANN LEE"));
        assert_ne!(skeleton("Ann"), skeleton("Anne"));
    }
}
