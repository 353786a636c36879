//! What is wrong with a plan, with its place and a remedy.

use std::fmt;

use crate::text;

/// One thing wrong with a plan: the place, what is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Place, such as `tasks.scale.inputs.data`.
    pub place: String,
    /// What is wrong, and a remedy where one is known.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.place, self.reason) }
    }
}

/// A plan that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

/// Words among which a near one is looked for.
const KNOWN: usize = 1_000;

/// More problems than this help nobody.
pub(super) const MOST: usize = 100;

impl Problems {
    /// Notes a problem; the same one twice counts once.
    pub(super) fn add(&mut self, place: impl Into<String>, reason: impl Into<String>) {
        let problem = Problem { place: text::shown(&place.into(), 300), reason: text::shown(&reason.into(), 600) };
        if self.0.len() < MOST && !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Notes a problem unless `good`.
    pub(super) fn require(&mut self, good: bool, place: impl Into<String>, reason: impl Into<String>) {
        if !good {
            self.add(place, reason);
        }
    }

    /// Whether nothing more is noted, so that nothing more need be looked for.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_result(self) -> Result<(), PlanError> {
        if self.0.is_empty() { Ok(()) } else { Err(PlanError { problems: self.0 }) }
    }
}

/// `, did you mean 'split'?`, where one of `known` is near; else the known words, if they are few.
pub(super) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = nearest(word, &known) {
        return format!(", did you mean '{near}'?");
    }
    match known.len() {
        0 => String::new(),
        1..=10 => format!("; there is {}", list(&known)),
        _ => String::new(),
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // The distance is quadratic in the length, and is taken for every word known; neither may cost more than a person
    // would ever need.
    if word.chars().count() > crate::limits::NAME_CHARS || known.len() > KNOWN {
        return None;
    }
    let far = (word.chars().count() / 3).max(1);
    let lower = word.to_lowercase();
    known
        .iter()
        .filter(|k| k.len() <= 4 * crate::limits::NAME_CHARS)
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, k)| k)
}

/// `'a', 'b'` in their order.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", ")
}
