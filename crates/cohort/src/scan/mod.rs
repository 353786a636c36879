//! Which columns look like identifiers. What is found is masked unless the steward signs otherwise.

pub(crate) mod patterns;

use serde::{Deserialize, Serialize};

use crate::schema::ColumnKind;
use crate::source::{ColumnSurvey, PatternCounts};
use patterns::Pattern;

/// How strictly the scan looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum ScanProfile {
    /// Names, numbers, addresses, dates finer than a month.
    #[default]
    Default,
    /// 45 CFR 164.514(b)(2): besides, dates finer than a year, ages over 89, geography below the state.
    HipaaSafeHarbor,
}

impl ScanProfile {
    // The signature is the one that serde asks for.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// A column that looks like an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Column.
    pub column: String,
    /// Rule that it met.
    pub rule: Rule,
    /// Why, for the steward; no value of the column.
    pub reason: String,
    /// What could be stored instead, if anything.
    pub instead: Option<String>,
    /// Whether the column is masked unless the steward decides otherwise: every column but the subject key.
    pub masks: bool,
}

/// Rules of the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The column's name.
    Name,
    /// The pattern of its values.
    Pattern,
    /// Nearly every value is another.
    NearlyUnique,
    /// A date, too fine.
    Date,
    /// An age over 89.
    AgeOver89,
    /// A place below the state.
    Geography,
    /// It is the subject key, which is stored as a keyed hash only, or looks like one.
    SubjectKey,
}

/// Parts of names that mean an identifier, with what they mean. A name is cut at `_`, `-`, `.`, spaces, changes of
/// case and before and after digits.
const NAME_PARTS: [(&str, &str); 46] = [
    ("mrn", "medical record number"),
    ("ssn", "social security number"),
    ("nhs", "NHS number"),
    ("nino", "national insurance number"),
    ("dob", "date of birth"),
    ("birthdate", "date of birth"),
    ("birthday", "date of birth"),
    ("geburtsdatum", "date of birth"),
    ("geburtstag", "date of birth"),
    ("email", "e-mail address"),
    ("mail", "e-mail address"),
    ("phone", "telephone number"),
    ("telephone", "telephone number"),
    ("telefon", "telephone number"),
    ("tel", "telephone number"),
    ("mobile", "telephone number"),
    ("fax", "fax number"),
    ("name", "name"),
    ("firstname", "name"),
    ("lastname", "name"),
    ("surname", "name"),
    ("vorname", "name"),
    ("nachname", "name"),
    ("forename", "name"),
    ("address", "address"),
    ("adresse", "address"),
    ("street", "address"),
    ("strasse", "address"),
    ("iban", "account number"),
    ("account", "account number"),
    ("insurance", "insurance number"),
    ("kvnr", "insurance number"),
    ("licence", "licence number"),
    ("license", "licence number"),
    ("passport", "passport number"),
    ("vin", "vehicle number"),
    ("plate", "vehicle number"),
    ("serial", "device number"),
    ("url", "web address"),
    ("ip", "network address"),
    ("photo", "picture of a person"),
    ("comment", "free text"),
    ("notes", "free text"),
    ("remarks", "free text"),
    ("aadhaar", "national identity number"),
    ("cpf", "national identity number"),
];

/// What means an identifier wherever it stands in a name, written as one word.
const NAME_STEMS: [(&str, &str); 8] = [
    ("dateofbirth", "date of birth"),
    ("patientname", "name"),
    ("fullname", "name"),
    ("givenname", "name"),
    ("familyname", "name"),
    ("phonenumber", "telephone number"),
    ("emailaddress", "e-mail address"),
    ("recordnumber", "record number"),
];

/// Parts of names that mean a place below the state.
const PLACE_PARTS: [(&str, bool); 10] = [
    // Whether the default profile masks it too.
    ("zip", true),
    ("zipcode", true),
    ("postcode", true),
    ("postal", true),
    ("plz", true),
    ("city", false),
    ("county", false),
    ("town", false),
    ("village", false),
    ("ort", false),
];

/// Share of the sampled cells from which a pattern counts.
const PATTERN_SHARE: f64 = 0.05;
/// Distinct values per value from which a column counts as nearly unique.
const UNIQUE_RATIO: f64 = 0.9;
/// Fewest values for which uniqueness means anything.
const UNIQUE_ROWS: u64 = 20;

pub(crate) fn scan(
    columns: &[ColumnSurvey],
    patterns: &[&PatternCounts],
    subject: Option<&str>,
    profile: ScanProfile,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (column, counts) in columns.iter().zip(patterns) {
        let finding = |rule, reason: String, instead: Option<&str>| Finding {
            column: column.name.clone(),
            rule,
            reason,
            instead: instead.map(str::to_owned),
            masks: subject != Some(column.name.as_str()),
        };
        if subject == Some(column.name.as_str()) {
            findings.push(finding(Rule::SubjectKey, "tells patients apart; stored as a keyed hash only".into(), None));
            continue;
        }
        if let Some((rule, reason, instead)) = first_rule(column, counts, profile).or_else(|| another_key(column)) {
            findings.push(finding(rule, reason, instead));
        }
    }
    findings
}

/// Names of columns that tell patients apart, the likeliest first.
pub(crate) const SUBJECT_NAMES: [&str; 10] =
    ["subject_id", "subjectid", "subject", "patient_id", "patientid", "patient", "pseudonym", "person_id", "pid", "id"];

fn another_key(column: &ColumnSurvey) -> Option<Hit> {
    SUBJECT_NAMES.contains(&column.name.to_ascii_lowercase().as_str()).then(|| {
        (Rule::SubjectKey, "the name suggests that it tells patients apart, and another column was chosen".into(), None)
    })
}

type Hit = (Rule, String, Option<&'static str>);

fn first_rule(column: &ColumnSurvey, counts: &PatternCounts, profile: ScanProfile) -> Option<Hit> {
    let strict = profile == ScanProfile::HipaaSafeHarbor;
    let parts = name_parts(&column.name);
    // `post_code` is written as two words too, and `dateofbirth` as one.
    let has = |wanted: &str| {
        parts.iter().any(|p| p == wanted) || parts.windows(2).any(|pair| wanted == pair[0].clone() + &pair[1])
    };
    let squeezed = parts.concat();
    if let Some((_, what)) = NAME_STEMS.iter().find(|(stem, _)| squeezed.contains(stem)) {
        return Some((Rule::Name, format!("the name suggests: {what}"), None));
    }
    if let Some((_, what)) = NAME_PARTS.iter().find(|(part, _)| has(part)) {
        let instead = (*what == "date of birth").then_some("age in years");
        return Some((Rule::Name, format!("the name suggests: {what}"), instead));
    }
    if has("birth") || (has("patient") || has("subject") || has("record")) && (has("id") || has("no") || has("number"))
    {
        return Some((Rule::Name, "the name suggests: date of birth or record number".into(), None));
    }
    if PLACE_PARTS.iter().any(|(part, always)| (*always || strict) && has(part)) {
        return Some((
            Rule::Geography,
            "the name suggests a place below the state".into(),
            Some("first three digits, or the state"),
        ));
    }
    if let Some(pattern) = frequent_pattern(counts, column) {
        return Some((Rule::Pattern, format!("values look like: {}", pattern.words()), None));
    }
    if column.has_days || (strict && column.has_dates) {
        return Some((Rule::Date, "a date finer than allowed".into(), Some("age, or days since an index date")));
    }
    if strict && has("age") && column.number.is_some_and(|n| n.max > 89.0) {
        return Some((Rule::AgeOver89, "ages over 89".into(), Some("one class for 90 and above")));
    }
    nearly_unique(column)
}

fn nearly_unique(column: &ColumnSurvey) -> Option<Hit> {
    if column.present < UNIQUE_ROWS || column.distinct.ratio(column.present) < UNIQUE_RATIO {
        return None;
    }
    match (column.kind, column.number) {
        (ColumnKind::Text | ColumnKind::Category, _) => {
            Some((Rule::NearlyUnique, "nearly every value is another, so a value points at a person".into(), None))
        }
        // Measurements are nearly unique too; whole numbers of five digits and more are record numbers more often.
        (ColumnKind::Number, Some(n)) if n.whole && n.min >= 10_000.0 => {
            Some((Rule::NearlyUnique, "nearly every value is another whole number, like a record number".into(), None))
        }
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss)]
fn frequent_pattern(counts: &PatternCounts, column: &ColumnSurvey) -> Option<Pattern> {
    Pattern::ALL.into_iter().find(|p| {
        let share = counts.hits[*p as usize] as f64 / counts.sampled.max(1) as f64;
        let needed = if p.needs_majority() { 0.8 } else { PATTERN_SHARE };
        // A count of ten digits is no NHS number because its check digit happens to fit: one in eleven does.
        share >= needed && !(p.needs_majority() && column.present < 5)
    })
}

/// `PatientName_2` → patient, name, 2; `zip5` → zip, 5.
fn name_parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous = ' ';
    for c in name.chars() {
        let digits = c.is_alphanumeric() && previous.is_alphanumeric() && c.is_numeric() != previous.is_numeric();
        let boundary = !c.is_alphanumeric() || (c.is_uppercase() && previous.is_lowercase()) || digits;
        if boundary {
            parts.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(last) = parts.last_mut()
        {
            last.extend(c.to_lowercase());
        }
        previous = c;
    }
    parts.retain(|p| !p.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_separators_and_case() {
        assert_eq!(name_parts("PatientName_2"), ["patient", "name", "2"]);
        assert_eq!(name_parts("date-of birth"), ["date", "of", "birth"]);
        assert_eq!(name_parts("zip5"), ["zip", "5"]);
        // Whole parts only: neither is a telephone nor an address of a network.
        assert_eq!(name_parts("telomere_length"), ["telomere", "length"]);
    }
}
