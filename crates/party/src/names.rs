//! Names that people may take for others: those that look like a name that is known here, and those that mix scripts.
//! Which do is in [`hospes_protocol::look`].

use std::collections::HashMap;

use futures::FutureExt as _;
use hospes_protocol::look::{letter, looks, strange_letters};
use hospes_protocol::text::{name_key, shown};
use sqlx::sqlite::SqliteConnection;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::people::{self, Person, Session};
use crate::view::{NameMark, NameOf};
use crate::{memberships, requests};

/// Marks that are shown at a time; the first ones, which are of people and organisations, matter most.
pub(crate) const MARKS: usize = 100;
/// Characters of a name in a mark.
const NAME_CHARS: usize = 200;
/// Letters that are named in a mark.
const LETTERS: usize = 8;

/// Names that are known, by what they look like: of each look two that are not the same, each with its key. One of them is
/// another than the name that is asked about. More would change no answer, and a roster or a plan of ten thousand names that
/// all look the same would take minutes.
#[derive(Default)]
pub(crate) struct Known(HashMap<String, Vec<(String, String)>>);

/// Names that are kept of each look.
const OF_A_LOOK: usize = 2;

impl Known {
    pub(crate) fn add(&mut self, name: &str) {
        let name = beginning(name);
        let key = name_key(name);
        for look in looks(name).into_iter().filter(|look| !look.is_empty()) {
            let same = self.0.entry(look).or_default();
            if same.len() < OF_A_LOOK && same.iter().all(|(known, _)| *known != key) {
                same.push((key.clone(), name.to_owned()));
            }
        }
    }

    pub(crate) fn add_all<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        names.into_iter().for_each(|name| self.add(name));
    }

    /// A known name that this one is taken for, although it has other letters.
    pub(crate) fn like(&self, name: &str) -> Option<&str> {
        let key = name_key(name);
        let mut found = looks(name).into_iter().filter_map(|look| self.0.get(&look)).flatten();
        found.find(|(known, _)| *known != key).map(|(_, known)| known.as_str())
    }

    /// What to know of a name, if anything.
    pub(crate) fn mark(&self, of: NameOf, name: &str) -> Option<NameMark> {
        let whole = name;
        let name = beginning(name);
        let like = self.like(name);
        let letters = match like {
            Some(known) => others(name, known),
            None => strange_letters(name),
        };
        let letters: Vec<String> = letters.into_iter().take(LETTERS).map(letter).collect();
        let is_marked = like.is_some() || !letters.is_empty();
        let like = like.map(|known| shown(known, NAME_CHARS));
        is_marked.then(|| NameMark { of, name: shown(whole, NAME_CHARS), like, letters })
    }

    /// The marks of many names, each once.
    pub(crate) fn marks<'n>(&self, names: impl IntoIterator<Item = (NameOf, &'n str)>) -> Vec<NameMark> {
        let mut marks: Vec<NameMark> = Vec::new();
        for (of, name) in names {
            if marks.len() == MARKS {
                break;
            }
            marks.extend(self.mark(of, name).filter(|mark| !marks.contains(mark)));
        }
        marks
    }
}

/// As much of a name as is shown. A longer one is refused by its length; the time that it takes must not grow with it.
fn beginning(name: &str) -> &str {
    let end = name.char_indices().nth(NAME_CHARS).map_or(name.len(), |(end, _)| end);
    name.get(..end).unwrap_or(name)
}

/// Letters of a name that another one has not. Their case does not count: the one strange letter must not be the last of many.
/// Where the same letters stand in other places, it is those that differ.
fn others(name: &str, known: &str) -> Vec<char> {
    let small = |text: &str| -> String { text.chars().flat_map(char::to_lowercase).collect() };
    let (has, letters) = (small(known), || name.chars().filter(|c| c.is_alphanumeric()));
    let new = once(letters().filter(|c| !c.to_lowercase().all(|lower| has.contains(lower))));
    if new.is_empty() {
        let beside = known.chars().filter(|c| c.is_alphanumeric());
        once(letters().zip(beside).filter_map(|(c, known)| (c != known).then_some(c)))
    } else {
        new
    }
}

/// Each letter once, in the order in which they come.
fn once(letters: impl Iterator<Item = char>) -> Vec<char> {
    let mut found: Vec<char> = Vec::new();
    for c in letters {
        if !found.contains(&c) {
            found.push(c);
        }
    }
    found
}

/// Names of people and organisations that this site knows: these people, its federations with their members, and those whose
/// studies it approved.
pub(crate) async fn known(conn: &mut SqliteConnection, people: &[Person]) -> Result<Known, PartyError> {
    let mut known = Known::default();
    for person in people {
        known.add(&person.name);
        known.add_all(person.organisation.as_deref());
    }
    for membership in memberships::all(conn).await? {
        known.add_all([membership.name.as_str(), membership.site_name.as_str()]);
        let members = &membership.roster.document.members;
        known.add_all(members.iter().flat_map(|m| [m.name.as_str(), m.organisation.as_str()]));
    }
    for offered in requests::approved_here(conn).await? {
        let requester = &offered.study.terms.requester;
        known.add_all([requester.name.as_str(), requester.organisation.as_str()]);
    }
    Ok(known)
}

impl Handle {
    /// Names of people, federations and their members that may be taken for others.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn name_marks(&self, session: &Session) -> Result<Vec<NameMark>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.name_marks(s).boxed()).await
    }
}

impl Engine {
    /// Marks of the names of people, federations and their members.
    async fn name_marks(&mut self, session: Session) -> Result<Vec<NameMark>, PartyError> {
        let acting = self.acting(&session, "see marks of names", &[]).await?;
        let mut conn = self.reader().await?;
        let mut people = people::all(&mut conn).await?;
        if people.iter().any(|p| p.id == acting.person && p.organisation.is_some()) {
            // The names of the staff are not for a person of another organisation.
            people.retain(|p| p.id == acting.person);
        }
        let known = known(&mut conn, &people).await?;
        let memberships = memberships::all(&mut conn).await?;
        drop(conn);
        let members = || memberships.iter().flat_map(|m| &m.roster.document.members);
        let people = people.iter().flat_map(|p| {
            let organisation = p.organisation.as_deref().map(|name| (NameOf::Organisation, name));
            std::iter::once((NameOf::Person, p.name.as_str())).chain(organisation)
        });
        let federations = memberships.iter().map(|m| (NameOf::Federation, m.name.as_str()));
        let members =
            members().flat_map(|m| [(NameOf::Site, m.name.as_str()), (NameOf::Organisation, m.organisation.as_str())]);
        Ok(known.marks(people.chain(federations).chain(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_marked_with_the_known_one_and_the_letters_that_give_it_away() {
        let mut known = Known::default();
        known.add_all(["Cleveland", "Anna"]);
        let mark = known.mark(NameOf::Site, "\u{421}leveland").unwrap();
        assert_eq!((mark.like.as_deref(), mark.letters.len()), (Some("Cleveland"), 1));
        assert_eq!(mark.letters[0], "\u{421} (U+0421)");
        assert!(mark.words().starts_with("the site '\u{421}leveland' looks like 'Cleveland', but has other letters: "));
        // Nobody is known whom it looks like, but it mixes scripts all the same.
        let mark = known.mark(NameOf::Column, "\u{445}yz").unwrap();
        assert_eq!((mark.like, mark.letters.len()), (None, 1));
        assert_eq!(known.mark(NameOf::Person, "anna"), None, "the name itself");
        assert_eq!(known.mark(NameOf::Person, "Hanna"), None);
    }

    #[test]
    fn the_letter_that_differs_is_named_whatever_the_case_of_the_others_and_wherever_it_stands() {
        let letters = |known: &str, name: &str| {
            let mut names = Known::default();
            names.add(known);
            names.mark(NameOf::Organisation, name).map(|mark| mark.letters)
        };
        let found = letters("UNIVERSITY HOSPITAL", "University Hospit\u{430}l").unwrap();
        assert_eq!(found, ["\u{430} (U+0430)"]);
        // I and l have changed places, and each of them is in the known name.
        let found = letters("Illinois I", "IIIinois l").unwrap();
        assert!(!found.is_empty());
    }

    #[test]
    fn thousands_of_names_that_look_the_same_take_no_longer_than_others() {
        // Of one look and one key, which is the worst case: the names differ by punctuation alone.
        let coded = |zero: &str, one: &str| -> Vec<String> {
            (0..10_000).map(|n| format!("a{n:014b}").replace('0', zero).replace('1', one)).collect()
        };
        let names = coded(".", "-");
        let mut known = Known::default();
        known.add_all(names.iter().map(String::as_str));
        assert!(known.marks(names.iter().map(|name| (NameOf::Column, name.as_str()))).is_empty());
        assert!(known.0.values().all(|same| same.len() <= OF_A_LOOK));
        // Of one look, and each of another key.
        let names = coded("l", "I");
        known.add_all(names.iter().map(String::as_str));
        assert!(known.0.values().all(|same| same.len() <= OF_A_LOOK));
        assert!(names.iter().all(|name| known.like(name).is_some_and(|like| name_key(like) != name_key(name))));
    }

    #[test]
    fn marks_are_shown_once_and_only_so_many() {
        let mut known = Known::default();
        known.add("Cleveland");
        let names: Vec<String> = (0..2 * MARKS).map(|n| format!("\u{445}y{n}")).collect();
        let twice = names.iter().chain(&names).map(|name| (NameOf::Column, name.as_str()));
        let marks = known.marks(twice.clone());
        assert_eq!(marks.len(), MARKS);
        let first = known.marks(twice.take(3));
        assert_eq!(first, marks[..3]);
        let doubled = [(NameOf::Site, "CIeveland"), (NameOf::Site, "CIeveland")];
        assert_eq!(known.marks(doubled).len(), 1);
    }
}
