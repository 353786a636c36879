//! Matching a dataset's terms of use with a request's, after the GA4GH Data Use Ontology (DUO).
//!
//! A dataset matches when its permission equals or is an ancestor of the request's; never the reverse. What DUO cannot
//! decide from codes alone needs a person. DUO is no validated compliance tool.

use hospes_protocol::study::Terms;

use crate::error::PartyError;

const NRES: &str = "DUO:0000004";
const GRU: &str = "DUO:0000042";
const HMB: &str = "DUO:0000006";
const DS: &str = "DUO:0000007";
const POA: &str = "DUO:0000011";
const NPOA: &str = "DUO:0000044";
const NMDS: &str = "DUO:0000015";
const NPUNCU: &str = "DUO:0000018";
const NPU: &str = "DUO:0000045";
const NCU: &str = "DUO:0000046";

/// Modifiers that are obligations or context, in words; a person decides whether they are met (`data/duo/duo.csv`).
const OBLIGATIONS: &[(&str, &str)] = &[
    ("DUO:0000012", "limited to studies of a certain research type (RS)"),
    ("DUO:0000016", "genetic studies only (GSO)"),
    ("DUO:0000019", "results must be published (PUB)"),
    ("DUO:0000020", "collaboration with the primary investigators is required (COL)"),
    ("DUO:0000021", "ethics approval must be shown (IRB)"),
    ("DUO:0000022", "limited to a geographic region (GS)"),
    ("DUO:0000024", "no publication before a date (MOR)"),
    ("DUO:0000025", "limited in time (TS): the approval must not expire later"),
    ("DUO:0000026", "limited to approved users (US)"),
    ("DUO:0000027", "limited to an approved project (PS)"),
    ("DUO:0000028", "limited to an approved institution (IS)"),
    ("DUO:0000029", "derived data must be returned (RTN)"),
    ("DUO:0000043", "clinical care is allowed (CC)"),
];

/// What a comparison of terms led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    /// Result.
    pub(crate) verdict: DuoVerdict,
    /// Why, and which obligations the signer takes on.
    pub(crate) words: Vec<String>,
}

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DuoVerdict {
    /// The dataset's terms allow the request.
    Match,
    /// Codes cannot decide it.
    NeedsAPerson,
    /// The dataset's terms forbid the request.
    NoMatch,
}

/// A term in its normal spelling: `NPOA` is spelled with eight digits in some OWL files, and some write `DUO_`.
fn normal(term: &str) -> String {
    let term = term.trim().to_ascii_uppercase().replace('_', ":");
    match term.strip_prefix("DUO:") {
        Some(digits) if digits.len() > 7 => format!("DUO:{:0>7}", digits.trim_start_matches('0')),
        _ => term,
    }
}

/// Checks the terms of a dataset: Data Use Ontology, and MONDO ids of diseases beside a disease-specific permission.
pub(crate) fn check_terms(terms: &[String]) -> Result<(), PartyError> {
    for term in terms {
        let term = normal(term);
        let digits = term.strip_prefix("DUO:").or_else(|| term.strip_prefix("MONDO:"));
        if !digits.is_some_and(|d| d.len() == 7 && d.bytes().all(|b| b.is_ascii_digit())) {
            return Err(PartyError::input("terms of use", "expected terms such as DUO:0000042 or MONDO:0005267"));
        }
    }
    Ok(())
}

/// Rank of a permission: a dataset's allows a request's of the same or a higher rank (DS ⊂ HMB ⊂ GRU ⊂ NRES).
fn rank(term: &str) -> Option<u8> {
    [NRES, GRU, HMB, DS].iter().position(|t| *t == term).and_then(|i| u8::try_from(i).ok())
}

/// Compares a dataset's terms with a request.
pub(crate) fn compare(dataset: &[String], request: &Terms) -> Match {
    let dataset: Vec<String> = dataset.iter().map(|t| normal(t)).collect();
    let asked: Vec<String> = request.duo.iter().map(|t| normal(t)).collect();
    let has = |term: &str| dataset.iter().any(|t| t == term);
    let asks = |term: &str| asked.iter().any(|t| t == term);
    let mut words = Vec::new();
    let mut verdict = DuoVerdict::Match;
    let mut note = |v: DuoVerdict, text: String| {
        verdict = verdict.max(v);
        words.push(text);
    };
    if dataset.is_empty() {
        note(DuoVerdict::NeedsAPerson, "the dataset carries no terms of use".into());
    } else if asked.is_empty() {
        note(DuoVerdict::NeedsAPerson, "the request states no terms of use".into());
    } else {
        let (v, text) = permission(&dataset, &asked, request);
        note(v, text);
    }
    if (asks(POA) && !has(POA) && !has(NRES)) || (asks(POA) && has(NPOA)) {
        note(DuoVerdict::NoMatch, "research on population origins is not allowed".into());
    }
    let commercial = request.commercial && [NPU, NCU, NPUNCU].iter().any(|t| has(t));
    if commercial {
        note(DuoVerdict::NoMatch, "the use is commercial; the dataset allows non-commercial use only".into());
    } else if [NPU, NPUNCU].iter().any(|t| has(t)) {
        note(DuoVerdict::NeedsAPerson, "only for not-for-profit organisations: is the requester one?".into());
    }
    if has(NMDS) && !asks(DS) {
        note(DuoVerdict::NeedsAPerson, "no general methods research (NMDS): is this study about methods?".into());
    }
    for (term, text) in OBLIGATIONS.iter().filter(|(term, _)| has(term)) {
        let v = if *term == "DUO:0000043" { DuoVerdict::Match } else { DuoVerdict::NeedsAPerson };
        note(v, (*text).to_owned());
    }
    Match { verdict, words }
}

fn permission(dataset: &[String], asked: &[String], request: &Terms) -> (DuoVerdict, String) {
    let of = |terms: &[String]| terms.iter().find_map(|t| rank(t));
    match (of(dataset), of(asked)) {
        (None, _) if dataset.iter().any(|t| t == POA) => match asked.iter().any(|t| t == POA) {
            true => (DuoVerdict::Match, "research on population origins is what the dataset is for".into()),
            false => (DuoVerdict::NoMatch, "the dataset is for research on population origins only".into()),
        },
        (None, _) => (DuoVerdict::NeedsAPerson, "the dataset states no permission".into()),
        (_, None) => (DuoVerdict::NeedsAPerson, "the request states no kind of research".into()),
        (Some(3), Some(3)) => {
            let disease = request.disease.as_deref().map(normal);
            match disease {
                Some(disease) if dataset.contains(&disease) => {
                    (DuoVerdict::Match, format!("the dataset is for research on {disease}"))
                }
                // Whether one disease is a kind of the other is known to MONDO's hierarchy, which is not at hand.
                Some(disease) => (
                    DuoVerdict::NeedsAPerson,
                    format!("the request is about {disease}; is it a kind of the dataset's disease?"),
                ),
                None => (DuoVerdict::NeedsAPerson, "the request names no disease".into()),
            }
        }
        (Some(d), Some(a)) if d <= a => (DuoVerdict::Match, "the dataset's permission covers the request's".into()),
        (Some(_), Some(_)) => (DuoVerdict::NoMatch, "the request is broader than the dataset's permission".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(duo: &[&str], disease: Option<&str>, commercial: bool) -> Terms {
        Terms {
            duo: duo.iter().map(|t| (*t).to_owned()).collect(),
            disease: disease.map(str::to_owned),
            commercial,
            ..Terms::default()
        }
    }

    fn verdict(dataset: &[&str], terms: &Terms) -> DuoVerdict {
        compare(&dataset.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), terms).verdict
    }

    #[test]
    fn ancestors_match_descendants_and_never_the_reverse() {
        use DuoVerdict::{Match, NeedsAPerson, NoMatch};
        let heart = "MONDO:0005267";
        for (dataset, asked, expected) in [
            (vec![GRU], vec![HMB], Match),
            (vec![HMB], vec![GRU], NoMatch),
            (vec![NRES], vec![GRU], Match),
            (vec![HMB], vec![DS], Match),
            (vec![DS, heart], vec![HMB], NoMatch),
            (vec![POA], vec![HMB], NoMatch),
            (vec![POA], vec![POA], Match),
            (vec![], vec![HMB], NeedsAPerson),
            (vec![GRU], vec![], NeedsAPerson),
            (vec!["duo_0000042"], vec![HMB], Match),
        ] {
            assert_eq!(verdict(&dataset, &request(&asked, None, false)), expected, "{dataset:?} {asked:?}");
        }
        assert_eq!(verdict(&[DS, heart], &request(&[DS], Some(heart), false)), Match);
        assert_eq!(verdict(&[DS, heart], &request(&[DS], Some("MONDO:0004994"), false)), NeedsAPerson);
    }

    #[test]
    fn commercial_use_and_population_origins_are_refused_where_forbidden() {
        let commercial = request(&[HMB], None, true);
        for term in [NPU, NCU, NPUNCU] {
            assert_eq!(verdict(&[GRU, term], &commercial), DuoVerdict::NoMatch);
        }
        assert_eq!(verdict(&[GRU], &commercial), DuoVerdict::Match);
        assert_eq!(verdict(&[GRU, "DUO:00000044"], &request(&[GRU, POA], None, false)), DuoVerdict::NoMatch);
        assert_eq!(verdict(&[GRU, "DUO:0000021"], &request(&[HMB], None, false)), DuoVerdict::NeedsAPerson);
    }

    #[test]
    fn terms_have_a_form() {
        assert!(check_terms(&["DUO:0000042".into(), "MONDO:0005267".into()]).is_ok());
        assert!(check_terms(&["general research".into()]).is_err());
    }
}
