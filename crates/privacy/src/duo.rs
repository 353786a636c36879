//! Matching a dataset's terms of use with a request (GA4GH Data Use Ontology). DUO is no validated compliance tool; a
//! match replaces nobody's judgement, and the user interface says so.
//!
//! Permissions: a dataset matches when its term equals or is an ancestor of the request's, never the reverse, with
//! DS ⊂ HMB ⊂ GRU. Everything that the rules cannot decide *needs a person*.

use std::collections::BTreeSet;
use std::fmt;

use hospes_protocol::id::Timestamp;
use hospes_protocol::study::Terms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const NRES: u32 = 4;
const HMB: u32 = 6;
const DS: u32 = 7;
const POA: u32 = 11;
const RS: u32 = 12;
const NMDS: u32 = 15;
const GSO: u32 = 16;
const NPUNCU: u32 = 18;
const PUB: u32 = 19;
const COL: u32 = 20;
const IRB: u32 = 21;
const GS: u32 = 22;
const MOR: u32 = 24;
const TS: u32 = 25;
const US: u32 = 26;
const PS: u32 = 27;
const IS: u32 = 28;
const RTN: u32 = 29;
const GRU: u32 = 42;
const CC: u32 = 43;
const NPOA: u32 = 44;
const NPU: u32 = 45;
const NCU: u32 = 46;

/// Modifiers that a person has to weigh, with what they ask for.
const OBLIGATIONS: &[(u32, &str, &str)] = &[
    (RS, "RS", "use is limited to research of a certain type"),
    (GSO, "GSO", "use is limited to genetic studies"),
    (PUB, "PUB", "results must be published"),
    (COL, "COL", "the requester must collaborate with the data's investigators"),
    (IRB, "IRB", "an ethics approval must be shown"),
    (GS, "GS", "use is limited to a region"),
    (MOR, "MOR", "results must not be published before a date"),
    (TS, "TS", "use is limited in time"),
    (US, "US", "use is limited to approved users"),
    (PS, "PS", "use is limited to an approved project"),
    (IS, "IS", "use is limited to an approved institution"),
    (RTN, "RTN", "derived data must be returned"),
    (CC, "CC", "use is allowed for clinical care"),
];

/// Terms of use of a dataset, as the steward tagged it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataUse {
    /// DUO terms, such as `DUO:0000042`.
    pub terms: Vec<String>,
    /// Disease (a MONDO id) that DS is about.
    pub disease: Option<String>,
    /// Until when use is allowed, for TS.
    pub until: Option<Timestamp>,
}

/// A request, as far as DUO knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// DUO terms of the request, one of them a permission.
    pub terms: Vec<String>,
    /// Disease (a MONDO id), for DS.
    pub disease: Option<String>,
    /// Whether methods are developed rather than a question answered; `None` if it is not stated.
    pub methods: Option<bool>,
    /// Whether the use is commercial.
    pub commercial: bool,
    /// Whether the requester is for profit; `None` if it is not stated.
    pub for_profit: Option<bool>,
}

impl DataUse {
    /// Reads the tags of a dataset: DUO terms, of which TS (`DUO:0000025=2027-12-31`) may say the last day of use, and
    /// the MONDO id of the disease that they are about.
    ///
    /// # Disclosure
    /// Only what the tags say.
    ///
    /// # Errors
    /// Which tag is none, in words.
    pub fn read(tags: &[String]) -> Result<Self, String> {
        let mut read = Self::default();
        for tag in tags {
            let wrong = || {
                let tag: String = tag.chars().take(40).collect();
                format!(
                    "'{tag}' is no term of use: expected such as DUO:0000042, MONDO:0005267, or DUO:0000025=2027-12-31 \
                     for the last day of use"
                )
            };
            let (term, last_day) = tag.split_once('=').map_or((tag.as_str(), None), |(term, day)| (term, Some(day)));
            match (number(term), term.strip_prefix("MONDO:"), last_day) {
                (Some(TS), _, Some(day)) => {
                    let end = Timestamp::end_of_day(day).ok_or_else(wrong)?;
                    read.until = Some(read.until.map_or(end, |until| until.min(end)));
                    read.terms.push(term.to_owned());
                }
                (Some(_), _, None) => read.terms.push(term.to_owned()),
                (None, Some(id), None) if is_id(id) && read.disease.is_none() => read.disease = Some(term.to_owned()),
                _ => return Err(wrong()),
            }
        }
        Ok(read)
    }
}

impl Request {
    /// The request that a study's terms state. They do not state whether the requester is for profit, nor whether
    /// methods are developed; the person who reviews knows.
    ///
    /// # Disclosure
    /// Only what the terms say.
    pub fn from_terms(terms: &Terms) -> Self {
        Self {
            terms: terms.duo.clone(),
            disease: terms.disease.clone(),
            methods: None,
            commercial: terms.commercial,
            for_profit: None,
        }
    }
}

/// Whether a dataset's terms fit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// They do.
    Match,
    /// The rules cannot tell, or there are obligations.
    NeedsAPerson,
    /// They do not.
    NoMatch,
}

/// Result of a matching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matching {
    /// Whether they fit.
    pub fit: Fit,
    /// Why not, or what a person has to decide.
    pub reasons: Vec<String>,
    /// Obligations, shown to the signer and stored with the approval.
    pub obligations: Vec<String>,
    /// An approval must not last longer (TS).
    pub expires_by: Option<Timestamp>,
}

impl Matching {
    fn say(&mut self, fit: Fit, reason: impl fmt::Display) {
        self.fit = self.fit.max(fit);
        self.reasons.push(reason.to_string());
    }
}

/// Number of a DUO term. Some ontology files write eight digits (`DUO:00000044`); zeros in front do not count.
fn number(term: &str) -> Option<u32> {
    let digits = term.trim().strip_prefix("DUO:")?;
    is_id(digits).then(|| digits.parse().ok()).flatten()
}

fn is_id(digits: &str) -> bool {
    (7..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn numbers(terms: &[String], whose: &str, matching: &mut Matching) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for term in terms {
        match number(term) {
            Some(number) => {
                found.insert(number);
            }
            None => {
                let term: String = term.chars().take(40).collect();
                matching.say(Fit::NeedsAPerson, format_args!("{whose} has '{term}', which is no DUO term"));
            }
        }
    }
    found
}

/// Matches a dataset's terms of use with a request.
///
/// # Disclosure
/// A function of the dataset's tags and the request; nothing of its rows.
pub fn matching(dataset: &DataUse, request: &Request) -> Matching {
    let mut result = Matching { fit: Fit::Match, reasons: Vec::new(), obligations: Vec::new(), expires_by: None };
    let allowed = numbers(&dataset.terms, "the dataset", &mut result);
    let asked = numbers(&request.terms, "the request", &mut result);
    permissions(dataset, request, &allowed, &asked, &mut result);
    modifiers(dataset, request, &allowed, &asked, &mut result);
    obligations(dataset, &allowed, &mut result);
    result
}

const PERMISSIONS: [u32; 5] = [NRES, GRU, HMB, DS, POA];

fn permissions(
    dataset: &DataUse,
    request: &Request,
    allowed: &BTreeSet<u32>,
    asked: &BTreeSet<u32>,
    result: &mut Matching,
) {
    let of = |set: &BTreeSet<u32>| PERMISSIONS.into_iter().filter(|p| set.contains(p)).collect::<Vec<_>>();
    let (have, wanted) = (of(allowed), of(asked));
    if have.is_empty() {
        return result.say(Fit::NeedsAPerson, "the dataset has no DUO permission");
    }
    if wanted.is_empty() {
        return result.say(Fit::NeedsAPerson, "the request has no DUO permission");
    }
    for asked in wanted {
        let fits = have.iter().map(|have| permission(*have, asked, dataset, request));
        let best = fits.min().unwrap_or(Fit::NoMatch);
        match best {
            Fit::Match => {}
            Fit::NeedsAPerson => {
                let words = format_args!(
                    "whether {} is allowed here needs a person: {}",
                    name(asked),
                    disease_words(dataset, request)
                );
                result.say(Fit::NeedsAPerson, words);
            }
            Fit::NoMatch => {
                let have: Vec<&str> = have.iter().map(|h| name(*h)).collect();
                let words = format_args!("{} is asked for, the dataset allows {}", name(asked), have.join(", "));
                result.say(Fit::NoMatch, words);
            }
        }
    }
}

/// Whether one permission of a dataset covers one that is asked for.
fn permission(have: u32, asked: u32, dataset: &DataUse, request: &Request) -> Fit {
    match (have, asked) {
        (NRES, _) | (GRU, GRU | HMB | DS) | (HMB, HMB | DS) | (POA, POA) => Fit::Match,
        (DS, DS) => match (&dataset.disease, &request.disease) {
            (Some(have), Some(asked)) if have.trim() == asked.trim() => Fit::Match,
            // Without a hierarchy of diseases nobody can tell whether one is a kind of the other.
            _ => Fit::NeedsAPerson,
        },
        // General research is for any purpose, but the ontology does not put ancestry research below it.
        (GRU, POA) => Fit::NeedsAPerson,
        _ => Fit::NoMatch,
    }
}

fn disease_words(dataset: &DataUse, request: &Request) -> String {
    let words = |disease: &Option<String>| {
        disease.as_deref().map_or_else(|| "not stated".to_owned(), |d| d.chars().take(40).collect())
    };
    format!("the dataset's disease is {}, the request's {}", words(&dataset.disease), words(&request.disease))
}

fn modifiers(
    dataset: &DataUse,
    request: &Request,
    allowed: &BTreeSet<u32>,
    asked: &BTreeSet<u32>,
    result: &mut Matching,
) {
    let has = |term| allowed.contains(&term);
    if has(NPOA) && asked.contains(&POA) {
        result.say(Fit::NoMatch, "ancestry research is prohibited (NPOA)");
    }
    if has(NMDS) && !(has(DS) && permission(DS, DS, dataset, request) == Fit::Match) {
        match request.methods {
            Some(true) => {
                result.say(Fit::NoMatch, "methods research is allowed for the dataset's own disease only (NMDS)");
            }
            Some(false) => {}
            None => result.say(
                Fit::NeedsAPerson,
                "whether methods are developed is not stated; the dataset allows that for its own disease only (NMDS)",
            ),
        }
    }
    if request.commercial && (has(NPU) || has(NCU) || has(NPUNCU)) {
        result.say(Fit::NoMatch, "commercial use is not allowed (NPU, NCU or NPUNCU)");
    }
    if has(NPU) || has(NPUNCU) {
        match request.for_profit {
            Some(true) => result.say(Fit::NoMatch, "a requester for profit is not allowed (NPU or NPUNCU)"),
            Some(false) => {}
            None => result.say(Fit::NeedsAPerson, "whether the requester is for profit is not stated (NPU or NPUNCU)"),
        }
    }
    let known = |term: &u32| {
        PERMISSIONS.contains(term)
            || [NMDS, NPU, NCU, NPUNCU, NPOA].contains(term)
            || OBLIGATIONS.iter().any(|(number, ..)| number == term)
    };
    for term in allowed.iter().filter(|term| !known(term)) {
        result.say(Fit::NeedsAPerson, format_args!("the dataset has DUO:{term:07}, which this version does not know"));
    }
}

fn obligations(dataset: &DataUse, allowed: &BTreeSet<u32>, result: &mut Matching) {
    for (number, short, words) in OBLIGATIONS {
        if allowed.contains(number) {
            result.fit = result.fit.max(Fit::NeedsAPerson);
            result.obligations.push(format!("{short}: {words}"));
        }
    }
    if allowed.contains(&TS) {
        result.expires_by = dataset.until;
        match dataset.until {
            Some(until) => result.obligations.push(format!("TS: an approval ends at {until} at the latest")),
            None => result.say(Fit::NeedsAPerson, "use is limited in time (TS), and the last day is not stated"),
        }
    }
}

fn name(permission: u32) -> &'static str {
    match permission {
        NRES => "any use (NRES)",
        GRU => "general research (GRU)",
        HMB => "health research (HMB)",
        DS => "research on one disease (DS)",
        POA => "ancestry research (POA)",
        _ => "another use",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(terms: &[u32]) -> DataUse {
        let terms = terms.iter().map(|n| format!("DUO:{n:07}")).collect();
        DataUse { terms, disease: Some("MONDO:0005010".into()), until: None }
    }

    fn request(terms: &[u32]) -> Request {
        let stated = Some(false);
        Request { terms: dataset(terms).terms, methods: stated, for_profit: stated, ..Request::default() }
    }

    fn fit(have: &[u32], asked: &[u32]) -> Fit {
        matching(&dataset(have), &request(asked)).fit
    }

    #[test]
    fn a_dataset_matches_its_own_term_and_those_below_and_never_those_above() {
        use Fit::{Match, NeedsAPerson, NoMatch};
        let rows = [
            (NRES, [Match, Match, Match, Match, Match]),
            (GRU, [NoMatch, Match, Match, Match, NeedsAPerson]),
            (HMB, [NoMatch, NoMatch, Match, Match, NoMatch]),
            (DS, [NoMatch, NoMatch, NoMatch, NeedsAPerson, NoMatch]),
            (POA, [NoMatch, NoMatch, NoMatch, NoMatch, Match]),
        ];
        for (have, fits) in rows {
            for (asked, wanted) in PERMISSIONS.iter().zip(fits) {
                assert_eq!(fit(&[have], &[*asked]), wanted, "{have} asked {asked}");
            }
        }
    }

    #[test]
    fn a_disease_matches_on_the_equal_id_only() {
        let asked = |disease: Option<&str>| Request { disease: disease.map(Into::into), ..request(&[DS]) };
        assert_eq!(matching(&dataset(&[DS]), &asked(Some("MONDO:0005010"))).fit, Fit::Match);
        let other = matching(&dataset(&[DS]), &asked(Some("MONDO:0004995")));
        assert_eq!(other.fit, Fit::NeedsAPerson);
        assert!(other.reasons[0].contains("MONDO:0004995"));
        assert_eq!(matching(&dataset(&[DS]), &asked(None)).fit, Fit::NeedsAPerson);
        let untagged = DataUse { disease: None, ..dataset(&[DS]) };
        assert_eq!(matching(&untagged, &asked(None)).fit, Fit::NeedsAPerson);
    }

    #[test]
    fn methods_commercial_use_profit_and_ancestry_are_refused_by_their_modifiers() {
        let methods = Request { methods: Some(true), ..request(&[HMB]) };
        assert_eq!(matching(&dataset(&[GRU]), &methods).fit, Fit::Match);
        assert_eq!(matching(&dataset(&[GRU, NMDS]), &methods).fit, Fit::NoMatch);
        let unstated = Request { methods: None, ..request(&[HMB]) };
        assert_eq!(matching(&dataset(&[GRU]), &unstated).fit, Fit::Match);
        let asks = matching(&dataset(&[GRU, NMDS]), &unstated);
        assert!(asks.fit == Fit::NeedsAPerson && asks.reasons[0].contains("NMDS"), "{asks:?}");
        assert_eq!(matching(&dataset(&[GRU, NMDS]), &request(&[HMB])).fit, Fit::Match);
        let disease = Request { methods: Some(true), disease: Some("MONDO:0005010".into()), ..request(&[DS]) };
        assert_eq!(matching(&dataset(&[DS, NMDS]), &disease).fit, Fit::Match);
        let commercial = Request { commercial: true, ..request(&[HMB]) };
        let profit = Request { for_profit: Some(true), ..request(&[HMB]) };
        let unstated = Request { for_profit: None, ..request(&[HMB]) };
        for (term, on_commercial, on_profit, on_unstated) in [
            (NPU, Fit::NoMatch, Fit::NoMatch, Fit::NeedsAPerson),
            (NCU, Fit::NoMatch, Fit::Match, Fit::Match),
            (NPUNCU, Fit::NoMatch, Fit::NoMatch, Fit::NeedsAPerson),
        ] {
            assert_eq!(matching(&dataset(&[HMB, term]), &commercial).fit, on_commercial);
            assert_eq!(matching(&dataset(&[HMB, term]), &profit).fit, on_profit);
            assert_eq!(matching(&dataset(&[HMB, term]), &unstated).fit, on_unstated);
            assert_eq!(fit(&[HMB, term], &[HMB]), Fit::Match);
        }
        assert_eq!(fit(&[NRES, NPOA], &[POA]), Fit::NoMatch);
        assert_eq!(fit(&[GRU, NPOA], &[HMB]), Fit::Match);
    }

    #[test]
    fn obligations_need_a_person_and_a_time_limit_caps_the_expiry() {
        for (number, short, _) in OBLIGATIONS {
            let mut dataset = dataset(&[HMB, *number]);
            dataset.until = Some(Timestamp::from_millis(1));
            let result = matching(&dataset, &request(&[HMB]));
            assert_eq!(result.fit, Fit::NeedsAPerson);
            assert!(result.obligations[0].starts_with(short));
            assert_eq!(result.expires_by.is_some(), *number == TS);
        }
        assert_eq!(matching(&dataset(&[HMB, TS]), &request(&[HMB])).reasons.len(), 1);
    }

    #[test]
    fn what_is_not_stated_or_not_known_needs_a_person() {
        assert_eq!(fit(&[], &[HMB]), Fit::NeedsAPerson);
        assert_eq!(fit(&[HMB], &[]), Fit::NeedsAPerson);
        assert_eq!(fit(&[HMB, 999], &[HMB]), Fit::NeedsAPerson);
        for odd in ["HMB", "DUO:6", "DUO:000000006", "DUO:000000x", "DUO:+000006"] {
            let dataset = DataUse { terms: vec!["DUO:0000006".into(), odd.into()], ..DataUse::default() };
            assert_eq!(matching(&dataset, &request(&[HMB])).fit, Fit::NeedsAPerson, "{odd}");
        }
    }

    #[test]
    fn tags_are_read_with_the_disease_and_the_last_day_or_named_as_wrong() {
        let read = |tags: &[&str]| DataUse::read(&tags.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let tags = ["DUO:0000007", "MONDO:0005267", "DUO:0000025=2027-12-31", "DUO:00000025=2027-06-30"];
        let used = read(&tags).unwrap();
        assert_eq!(used.terms, ["DUO:0000007", "DUO:0000025", "DUO:00000025"]);
        assert_eq!(used.disease.as_deref(), Some("MONDO:0005267"));
        assert_eq!(used.until, Timestamp::end_of_day("2027-06-30"));
        let result = matching(&used, &request(&[DS]));
        assert_eq!(result.expires_by, used.until);
        assert!(result.obligations.iter().any(|o| o.contains("2027-07-01T00:00")), "{result:?}");
        assert_eq!(read(&["DUO:0000025"]).unwrap().until, None);
        for wrong in ["DUO:25", "MONDO:1", "GRU", "DUO:0000025=2027-02-30", "DUO:0000042=2027-12-31", "MONDO:0005267=1"]
        {
            assert!(read(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
        assert!(read(&["MONDO:0005267", "MONDO:0005010"]).is_err(), "the second disease would be ignored");
    }

    #[test]
    fn eight_digits_are_read_as_seven() {
        let dataset = DataUse { terms: vec!["DUO:0000042".into(), "DUO:00000044".into()], ..DataUse::default() };
        assert_eq!(matching(&dataset, &request(&[POA])).fit, Fit::NoMatch);
    }

    /// A request is never better off against a dataset with one more restriction.
    #[test]
    fn a_further_modifier_never_widens_what_is_allowed() {
        let modifiers: Vec<u32> = OBLIGATIONS.iter().map(|(n, ..)| *n).chain([NMDS, NPU, NCU, NPUNCU, NPOA]).collect();
        for have in PERMISSIONS {
            for asked in PERMISSIONS {
                for modifier in &modifiers {
                    assert!(fit(&[have, *modifier], &[asked]) >= fit(&[have], &[asked]));
                }
            }
        }
    }
}
