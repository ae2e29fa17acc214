//! Ban statements that a host has been given: whom it lets nobody in as (`docs/protocol.md` §10.8).

use std::collections::BTreeMap;

use conclave_protocol::conference::{Conference, Person};
use conclave_protocol::evidence::ban::Ban;
use conclave_protocol::moderator::{Moderator, ModeratorId};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::time::UnixMillis;

use super::{Running, start_now};
use crate::report::Report;

/// A host's ban statements, and whose word counts.
#[derive(Default)]
pub struct Bans {
    statements: Vec<Ban>,
    /// Besides the meeting's moderators and the operator's.
    issuers: Vec<Moderator>,
    checked: BTreeMap<ModeratorId, String>,
    /// By identity: who says so, and until when.
    standing: BTreeMap<PublicKey, Standing>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Standing {
    by: String,
    until: Option<UnixMillis>,
}

impl Bans {
    /// Statements of which none is believed yet, and moderators whose word counts in any case.
    pub fn new(statements: Vec<Ban>, issuers: Vec<Moderator>) -> Self {
        Self { statements, issuers, ..Self::default() }
    }

    /// Believes what these moderators have signed, too; each statement is checked once.
    fn trust<'a>(&mut self, moderators: impl Iterator<Item = &'a Moderator>) {
        for moderator in moderators {
            let (id, name) = (moderator.id(), moderator.name.as_str().to_owned());
            if self.statements.is_empty() || self.checked.insert(id, name.clone()).is_some() {
                continue;
            }
            let signed = self.statements.iter().filter(|ban| ban.moderator == id && ban.verify(moderator).is_ok());
            for ban in signed {
                let terms = ban.terms;
                let standing = self.standing.get(&terms.identity);
                if standing.is_none_or(|standing| outlasts(terms.until, standing.until)) {
                    self.standing.insert(terms.identity, Standing { by: name.clone(), until: terms.until });
                }
            }
        }
    }

    /// Lets the conference know whom to keep out, with the moderators that it names by now.
    pub(super) fn apply(&mut self, conference: &mut Conference) {
        if self.statements.is_empty() {
            return;
        }
        let issuers = std::mem::take(&mut self.issuers);
        let named = conference.moderators().iter().chain(conference.operator_moderator());
        self.trust(issuers.iter().chain(named));
        self.issuers = issuers;
        conference.set_bans(self.standing.iter().map(|(identity, ban)| (*identity, ban.until)).collect());
    }

    fn holds(&self, identity: &PublicKey, now: UnixMillis) -> Option<&Standing> {
        self.standing.get(identity).filter(|ban| ban.until.is_none_or(|until| now <= until))
    }

    /// Whether an identity is to be kept out now.
    pub(super) fn is_banned(&self, identity: &PublicKey) -> bool {
        self.holds(identity, start_now().wall).is_some()
    }
}

/// Whether a ban that ends then ends later than another.
fn outlasts(until: Option<UnixMillis>, other: Option<UnixMillis>) -> bool {
    other.is_some_and(|other| until.is_none_or(|until| until > other))
}

impl Running {
    /// Somebody knocked and was turned down for a ban.
    pub(super) fn report_banned(&self, person: &Person) {
        let standing = self.bans.standing.get(&person.identity);
        self.reports.send(Report::Banned {
            name: person.name.as_str().to_owned(),
            safety_number: person.safety_number.as_str().to_owned(),
            by: standing.map(|standing| standing.by.clone()).unwrap_or_default(),
            until: standing.and_then(|standing| standing.until).map(|until| until.0),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_protocol::evidence::ban::Terms;
    use conclave_protocol::evidence::category::Category;
    use conclave_protocol::identity::DisplayName;
    use conclave_protocol::moderator::ModeratorKey;

    fn key(seed: u8) -> ModeratorKey {
        ModeratorKey::from_seeds(DisplayName::parse("Mo").expect("a name"), &[seed; 64])
    }

    fn ban(identity: u8, until: Option<u64>, by: &ModeratorKey) -> Ban {
        let (identity, issued) = (PublicKey([identity; 32]), UnixMillis(1));
        Terms { identity, issued, category: Category::Spam, until: until.map(UnixMillis) }.sign(by)
    }

    #[test]
    fn only_what_a_trusted_moderator_signed_is_believed_and_of_two_the_longer_ban() {
        let (ours, other) = (key(1), key(2));
        let statements =
            vec![ban(7, Some(50), &ours), ban(7, None, &ours), ban(7, Some(90), &ours), ban(8, Some(50), &other)];
        let mut bans = Bans::new(statements, Vec::new());
        bans.trust(std::iter::once(ours.public()));
        let held = |bans: &Bans, identity: u8, now| bans.holds(&PublicKey([identity; 32]), UnixMillis(now)).is_some();
        assert!(held(&bans, 7, u64::MAX));
        assert!(!held(&bans, 8, 10));
        bans.trust([ours.public(), other.public()].into_iter());
        assert!(held(&bans, 8, 50) && !held(&bans, 8, 51));
    }
}
