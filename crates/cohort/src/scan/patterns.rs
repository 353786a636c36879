//! Patterns of values that are identifiers, tested without a regular-expression engine.

/// A pattern of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Email,
    Url,
    Ssn,
    Ip,
    Uuid,
    Phone,
    Iban,
    NhsNumber,
}

impl Pattern {
    pub(crate) const ALL: [Self; 8] =
        [Self::Email, Self::Url, Self::Ssn, Self::Ip, Self::Uuid, Self::Phone, Self::Iban, Self::NhsNumber];

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Email => "e-mail addresses",
            Self::Url => "web addresses",
            Self::Ssn => "social security numbers",
            Self::Ip => "network addresses",
            Self::Uuid => "universally unique identifiers",
            Self::Phone => "telephone numbers",
            Self::Iban => "account numbers (IBAN)",
            Self::NhsNumber => "NHS numbers (check digit fits)",
        }
    }

    /// Whether chance alone gives the pattern to some values of innocent columns.
    pub(crate) const fn needs_majority(self) -> bool {
        matches!(self, Self::NhsNumber)
    }
}

/// The patterns that a trimmed cell has.
pub(crate) fn matching(cell: &str) -> impl Iterator<Item = Pattern> {
    let found = if cell.len() < 7 || cell.len() > 254 {
        // Shorter than the shortest network address; most cells leave here.
        [None; 8]
    } else {
        Pattern::ALL.map(|p| has(p, cell).then_some(p))
    };
    found.into_iter().flatten()
}

fn has(pattern: Pattern, cell: &str) -> bool {
    match pattern {
        Pattern::Email => is_email(cell),
        Pattern::Url => cell.contains("://") || cell.starts_with("www."),
        Pattern::Ssn => groups(cell, '-') == Some(vec![3, 2, 4]),
        Pattern::Ip => is_ip(cell),
        Pattern::Uuid => is_uuid(cell),
        Pattern::Phone => is_phone(cell),
        Pattern::Iban => is_iban(cell),
        Pattern::NhsNumber => is_nhs_number(cell),
    }
}

fn is_email(cell: &str) -> bool {
    let Some((user, host)) = cell.split_once('@') else { return false };
    !user.is_empty() && !cell.contains(' ') && host.split('.').count() >= 2 && host.split('.').all(|p| !p.is_empty())
}

/// Lengths of the groups of digits, if there is nothing else between the separators.
fn groups(cell: &str, separator: char) -> Option<Vec<usize>> {
    cell.split(separator).map(|g| (!g.is_empty() && g.bytes().all(|b| b.is_ascii_digit())).then_some(g.len())).collect()
}

fn is_ip(cell: &str) -> bool {
    cell.parse::<std::net::IpAddr>().is_ok()
}

fn is_uuid(cell: &str) -> bool {
    cell.len() == 36
        && cell.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// International (`+` and 8 to 15 digits, E.164) or grouped as in North America.
fn is_phone(cell: &str) -> bool {
    let digits = cell.bytes().filter(u8::is_ascii_digit).count();
    let marks_only = cell.bytes().all(|b| b.is_ascii_digit() || b"+-() ./".contains(&b));
    let grouped = cell.contains('(') && cell.contains(')') || groups(cell, '-') == Some(vec![3, 3, 4]);
    marks_only && (8..=15).contains(&digits) && (cell.starts_with('+') || (grouped && digits >= 10))
}

/// ISO 13616, with its check digits.
fn is_iban(cell: &str) -> bool {
    let compact: Vec<u8> = cell.bytes().filter(|b| *b != b' ').collect();
    let shape = (15..=34).contains(&compact.len())
        && compact.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && compact[..2].iter().all(u8::is_ascii_uppercase)
        && compact[2..4].iter().all(u8::is_ascii_digit);
    if !shape {
        return false;
    }
    let rotated = compact[4..].iter().chain(&compact[..4]);
    let remainder = rotated.fold(0u32, |r, b| match b {
        b'0'..=b'9' => (r * 10 + u32::from(b - b'0')) % 97,
        _ => (r * 100 + u32::from(b - b'A') + 10) % 97,
    });
    remainder == 1
}

/// Ten digits, the last a check digit modulo 11.
fn is_nhs_number(cell: &str) -> bool {
    let digits: Vec<u32> = cell.bytes().filter(|b| *b != b' ').map(|b| u32::from(b.wrapping_sub(b'0'))).collect();
    if digits.len() != 10 || digits.iter().any(|d| *d > 9) {
        return false;
    }
    let sum: u32 = digits[..9].iter().zip((2..=10).rev()).map(|(d, w)| d * w).sum();
    let check = (11 - sum % 11) % 11;
    check < 10 && check == digits[9]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say_and_nothing_near() {
        let one = |cell: &str| matching(cell).collect::<Vec<_>>();
        assert_eq!(one("jane.doe@example.org"), [Pattern::Email]);
        assert_eq!(one("https://example.org/x"), [Pattern::Url]);
        assert_eq!(one("078-05-1120"), [Pattern::Ssn]);
        assert_eq!(one("192.168.1.10"), [Pattern::Ip]);
        assert_eq!(one("123e4567-e89b-12d3-a456-426614174000"), [Pattern::Uuid]);
        assert_eq!(one("+44 20 7946 0958"), [Pattern::Phone]);
        assert_eq!(one("(555) 010-1234"), [Pattern::Phone]);
        assert_eq!(one("GB82 WEST 1234 5698 7654 32"), [Pattern::Iban]);
        assert_eq!(one("943 476 5919"), [Pattern::NhsNumber]);
        for innocent in ["943 476 5918", "2024-05-31", "GB83 WEST 1234 5698 7654 32", "120/80 mmHg", "12345.678", "a@b"]
        {
            assert_eq!(one(innocent), [], "{innocent}");
        }
    }
}
