//! How the label is read, and how codes of categories are spelled.

use std::fmt;

use super::Label;

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    operator: Operator,
    value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

// Two characters before one, so that ">=" is not read as ">".
const OPERATORS: [(&str, Operator); 6] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

impl Comparison {
    /// Whether a value fulfils it; NaN never does.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Greater => value > self.value,
            Operator::GreaterOrEqual => value >= self.value,
            Operator::Less => value < self.value,
            Operator::LessOrEqual => value <= self.value,
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value && !value.is_nan(),
        }
    }
}

impl std::str::FromStr for Comparison {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no comparison with a number; write for example \"> 0\" or \"== 1\"");
        let text_in = text.trim();
        let (operator, number) = OPERATORS
            .iter()
            .find_map(|(sign, operator)| text_in.strip_prefix(sign).map(|rest| (*operator, rest)))
            .ok_or_else(wrong)?;
        let value: f64 = number.trim().parse().map_err(|_| wrong())?;
        if value.is_finite() { Ok(Self { operator, value }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, o)| *o == self.operator).map_or("", |(sign, _)| sign);
        write!(f, "{sign} {}", self.value)
    }
}

/// How the values of a label are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LabelKind {
    /// Yes where the comparison holds.
    YesNo(Comparison),
    /// One of so many classes.
    Classes(usize),
    /// A number.
    Number,
    /// A time, with an event where the comparison holds.
    Survival(Comparison),
}

impl Label {
    /// How its values are read.
    ///
    /// # Errors
    /// What is wrong with it, in words. A plan that passed [`super::check`] has none.
    pub fn kind(&self) -> Result<LabelKind, String> {
        let comparison = self.positive.as_deref().map(str::parse::<Comparison>).transpose()?;
        match (comparison, self.classes.len(), &self.time) {
            (Some(event), 0, Some(_)) => Ok(LabelKind::Survival(event)),
            (None, _, Some(_)) => Err("with a time, 'positive' says which values are an event".to_owned()),
            (Some(positive), 0, None) => Ok(LabelKind::YesNo(positive)),
            (None, 0, None) => Ok(LabelKind::Number),
            (None, 1, None) => Err("one class is nothing to tell apart; name two or more".to_owned()),
            (None, classes, None) => Ok(LabelKind::Classes(classes)),
            (Some(_), _, _) => Err("has 'classes' and 'positive'; only one of them can be".to_owned()),
        }
    }

    /// The columns that it is read from.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.column).chain(&self.time)
    }
}

impl LabelKind {
    /// Outputs of a model that predicts it.
    #[must_use]
    pub fn outputs(self) -> u64 {
        match self {
            Self::Classes(classes) => classes as u64,
            Self::YesNo(_) | Self::Number | Self::Survival(_) => 1,
        }
    }

    /// In words, for errors.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::YesNo(_) => "yes or no",
            Self::Classes(_) => "one of several classes",
            Self::Number => "a number",
            Self::Survival(_) => "a time to an event",
        }
    }
}

/// A code of a category as it is compared: without blanks at its ends, and `1.0` as `1`, because programs that write
/// missing values as NaN write whole numbers with a point.
#[must_use]
pub fn code(text: &str) -> &str {
    let text = text.trim();
    match text.split_once('.') {
        Some((whole, zeros))
            if !zeros.is_empty()
                && zeros.bytes().all(|b| b == b'0')
                && !whole.trim_start_matches(['-', '+']).is_empty()
                && whole.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit()) =>
        {
            whole
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_compares_and_nan_is_never_positive() {
        let holds = |text: &str| [-1.0, 0.0, 1.0].map(|v| text.parse::<Comparison>().unwrap().holds(v));
        assert_eq!(holds("> 0"), [false, false, true]);
        assert_eq!(holds(">=0"), [false, true, true]);
        assert_eq!(holds(" < 0.0 "), [true, false, false]);
        assert_eq!(holds("<= 0"), [true, true, false]);
        assert_eq!(holds("== 1"), [false, false, true]);
        assert_eq!(holds("!= 1"), [true, true, false]);
        for operator in [">", ">=", "<", "<=", "==", "!="] {
            assert!(!format!("{operator} 0").parse::<Comparison>().unwrap().holds(f64::NAN));
        }
        for wrong in ["", "0", "= 0", "> x", "> nan", "> inf", "> 0 or 1 == 1", "=> 1", "> 1e999"] {
            assert!(wrong.parse::<Comparison>().is_err(), "{wrong}");
        }
        assert_eq!("!=-2.5".parse::<Comparison>().unwrap().to_string(), "!= -2.5");
    }

    #[test]
    fn codes_have_one_spelling() {
        assert_eq!(
            [code(" 1.0 "), code("1"), code("-3.00"), code("1.5"), code("a.0"), code(".0"), code("1.")],
            ["1", "1", "-3", "1.5", "a.0", ".0", "1."]
        );
    }
}
