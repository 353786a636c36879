//! Figures under masks: from a site's report to the levels that are masked, and from the sums of those of all sites to the
//! report of all together.
//!
//! A value becomes a whole number of a fixed width, which is exact for counts, and for every other sum from 2^-44 up in
//! absolute value; below, it is off by at most 2^-97. Its pieces of 32 bits are added piece by piece, in coordinates in which
//! no sum of them wraps, so that the sum of the whole numbers is exact and has no order. It is rounded once, to the nearest
//! double. What a disclosure rule of one site holds back is not in the sum of all: that site blinds its part, and nobody can
//! read the others' (docs/adr/0037-masked-figures.md).
//!
//! The levels lie as plain mode writes an update: eight bytes with a 1 where an update has its row weight, then four for each
//! entry, little-endian, first which figures are shown, then the figures in order.

use std::collections::BTreeMap;

use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::masks::{FRACTION_BITS, Form};
use hospes_protocol::plan::{Figure, check_figures};
use zeroize::Zeroizing;

use crate::PrivacyError;
use crate::secagg::{Block, Masker};

/// Pieces of a sum.
const PIECES: usize = 6;
/// Pieces in which the sum of all sites' sums has room, with its sign.
const WIDE: usize = PIECES + 2;
/// Absolute value that a sum stays below: 2^95.
const MOST: f64 = 39_614_081_257_132_168_796_771_975_168.0;
/// Values of one piece: 2^32.
const PIECE: f64 = 4_294_967_296.0;
/// Part of the vector that says which figures are shown; that of the row weight comes before it.
const SHOWN_PART: usize = 1;

/// The levels of a site's report, to be masked: of a figure that it holds back, zeros.
///
/// # Errors
/// [`PrivacyError::Report`] if it is not the report that the round asks for; [`PrivacyError::Figure`] names the value that does
/// not fit, and what it must be.
///
/// # Disclosure
/// The report itself: it is masked before it leaves.
pub fn levels(announced: &[Figure], report: &FigureSet) -> Result<Zeroizing<Vec<u8>>, PrivacyError> {
    check_figures(announced, report).map_err(PrivacyError::Report)?;
    let mut bytes = Zeroizing::new(1u64.to_le_bytes().to_vec());
    for figure in announced {
        let shown = u32::from(report.sums.contains_key(&*figure.name));
        bytes.extend_from_slice(&shown.to_le_bytes());
    }
    for figure in announced {
        let form = form(figure)?;
        match report.sums.get(&*figure.name) {
            Some(values) => {
                for (index, value) in values.iter().enumerate() {
                    let pieces = pieces(form, *value).map_err(|rule| PrivacyError::Figure {
                        figure: figure.name.to_string(),
                        index,
                        rule,
                    })?;
                    pieces.iter().for_each(|piece| bytes.extend_from_slice(&piece.to_le_bytes()));
                }
            }
            None => {
                let entries = figure.values.saturating_mul(form.pieces());
                let length = usize::try_from(entries.saturating_mul(4)).unwrap_or(usize::MAX);
                let longer = bytes.len().saturating_add(length);
                bytes.resize(longer, 0);
            }
        }
    }
    Ok(bytes)
}

/// Holds back each figure with a value that masks have no room for, as if a disclosure rule did: whoever chooses the model
/// that is asked about must not learn of one site whether a sum of its rows is above a bound, round for round another one.
///
/// # Disclosure
/// The report, with less in it.
pub fn hold_back(announced: &[Figure], report: &mut FigureSet) {
    for figure in announced {
        let (Some(form), Some(values)) = (Form::of(&figure.name), report.sums.get(&*figure.name)) else { continue };
        if let Some(rule) = values.iter().find_map(|value| pieces(form, *value).err()) {
            report.sums.remove(&*figure.name);
            report.withheld.insert(figure.name.to_string(), rule.to_owned());
        }
    }
}

fn form(figure: &Figure) -> Result<Form, PrivacyError> {
    let form = Form::of(&figure.name);
    form.ok_or_else(|| PrivacyError::Report(format!("'{}' is no sum that sites could add", figure.name)))
}

/// A value as the pieces of a whole number, the lowest first. The error says what it must be.
fn pieces(form: Form, value: f64) -> Result<Vec<u32>, &'static str> {
    match form {
        Form::Count if (0.0..PIECE).contains(&value) && value.fract() == 0.0 => {
            // A whole number below 2^32.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let count = value as u32;
            Ok(vec![count])
        }
        Form::Count => Err("a count must be a whole number from 0 to 2^32 - 1"),
        Form::Sum if value.abs() < MOST => Ok(fixed(value).to_vec()),
        Form::Sum => Err("a sum must lie between -2^95 and 2^95; scale the features, or what is added"),
    }
}

/// round(value·2^96) + 2^191, ties away from zero.
fn fixed(value: f64) -> [u32; PIECES] {
    // Exact: a power of two, and nothing overflows.
    let whole = libm::scalbn(value, FRACTION_BITS).round();
    let (mut rest, mut pieces) = (whole.abs(), [0u32; PIECES]);
    // What the highest piece counts: 2^160.
    let mut unit = libm::scalbn(1.0, 160);
    for piece in pieces.iter_mut().rev() {
        let high = (rest / unit).floor();
        rest -= high * unit;
        unit /= PIECE;
        // Below 2^32: what was above it has been taken off.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let low = high as u32;
        *piece = low;
    }
    if whole < 0.0 {
        pieces = minus([0; PIECES], pieces);
    }
    // Two's complement with its highest bit turned is the number above -2^191.
    pieces[PIECES - 1] ^= 1 << 31;
    pieces
}

fn minus<const N: usize>(from: [u32; N], other: [u32; N]) -> [u32; N] {
    let mut borrow = false;
    let mut difference = from;
    for (piece, other) in difference.iter_mut().zip(other) {
        let (without, first) = piece.overflowing_sub(other);
        let (without, second) = without.overflowing_sub(u32::from(borrow));
        *piece = without;
        borrow = first || second;
    }
    difference
}

/// The report of so many sites together, from the sums of their levels without that of the row weight. A figure that any of
/// them holds back is withheld, in words that say how many do.
///
/// # Shapes
/// As many sums as there are entries in the round's tensors.
///
/// # Errors
/// [`PrivacyError::Report`] if there are others, or they are no sums of honest levels.
///
/// # Disclosure
/// The aggregate over all sites in the sum, and of what is withheld the number of sites that hold it back.
pub fn report(announced: &[Figure], sites: u32, sums: &[u64]) -> Result<FigureSet, PrivacyError> {
    let short = || PrivacyError::Report("its sums are not those of the round's tensors".to_owned());
    let (shown, mut rest) = sums.split_at_checked(announced.len()).ok_or_else(short)?;
    let mut set = FigureSet { sums: BTreeMap::new(), withheld: BTreeMap::new() };
    for (figure, shown) in announced.iter().zip(shown) {
        let form = form(figure)?;
        let (width, name) = (usize::try_from(form.pieces()).unwrap_or(PIECES), figure.name.to_string());
        let entries = usize::try_from(figure.values).ok().and_then(|values| values.checked_mul(width));
        let (mine, others) = entries.and_then(|entries| rest.split_at_checked(entries)).ok_or_else(short)?;
        rest = others;
        let held = u64::from(sites).checked_sub(*shown);
        match held.ok_or_else(|| PrivacyError::Report(format!("'{name}' is shown by more sites than there are")))? {
            0 => drop(set.sums.insert(name, mine.chunks(width).map(|pieces| value(form, sites, pieces)).collect())),
            // PRIVACY: what is there is random, and nothing is read from it.
            held => drop(set.withheld.insert(name, withheld(held, sites))),
        }
    }
    if rest.is_empty() { Ok(set) } else { Err(short()) }
}

/// Why there is no sum of a figure.
fn withheld(held: u64, sites: u32) -> String {
    format!("withheld by a disclosure rule of {held} of {sites} sites, or for a value too large to be masked")
}

/// A value of the sum over so many sites, to the nearest double.
fn value(form: Form, sites: u32, sums: &[u64]) -> f64 {
    let mut number = joined(sums);
    if form == Form::Count {
        return nearest(&number, 0);
    }
    // Each site's number stands 2^191 too high.
    let above = u64::from(sites) << 31;
    let mut offset = [0u32; WIDE];
    (offset[PIECES - 1], offset[PIECES]) = halves(above);
    number = minus(number, offset);
    if number[WIDE - 1] >> 31 == 1 {
        return -nearest(&minus([0; WIDE], number), -FRACTION_BITS);
    }
    nearest(&number, -FRACTION_BITS)
}

/// Σ sums[i]·2^(32·i).
fn joined(sums: &[u64]) -> [u32; WIDE] {
    let mut number = [0u32; WIDE];
    let mut carry = 0u64;
    for (place, piece) in number.iter_mut().enumerate() {
        // Coordinates have at most 63 bits.
        let sum = sums.get(place).copied().unwrap_or_default() + carry;
        let (low, high) = halves(sum);
        *piece = low;
        carry = u64::from(high);
    }
    number
}

/// The lower and the higher half of a number.
fn halves(number: u64) -> (u32, u32) {
    #[allow(clippy::cast_possible_truncation)]
    let low = number as u32;
    #[allow(clippy::cast_possible_truncation)]
    let high = (number >> 32) as u32;
    (low, high)
}

/// The double that is nearest to `number`·2^`exponent`, of two the even one.
fn nearest(number: &[u32; WIDE], exponent: i32) -> f64 {
    let Some(top) = number.iter().rposition(|piece| *piece != 0) else { return 0.0 };
    // Four pieces have at least 97 bits, of which a double takes 53: of those below, it matters only whether there are any.
    let lowest = top.saturating_sub(3);
    let window = number[lowest..=top].iter().rev().fold(0u128, |sum, piece| (sum << 32) | u128::from(*piece));
    let more = number[..lowest].iter().any(|piece| *piece != 0);
    let places = i32::try_from(32 * lowest).unwrap_or_default();
    libm::scalbn((window | u128::from(more)) as f64, places + exponent)
}

/// Which figures of a vector a site holds back, as the vector's first part says. It goes through the vector with its masker.
#[derive(Debug, Default)]
pub struct Blinds {
    shown: Vec<bool>,
}

impl Blinds {
    /// Masks the levels of the next block, or random numbers in their place where the figure is held back.
    ///
    /// # Errors
    /// As [`Masker::block`] and [`Masker::blinded`].
    ///
    /// # Disclosure
    /// Masked values.
    pub fn mask(&mut self, masker: &mut Masker, block: &Block, levels: &mut [u64]) -> Result<Vec<u8>, PrivacyError> {
        if block.part == SHOWN_PART {
            self.shown.extend(levels.iter().map(|level| *level == 1));
        }
        // PRIVACY: of a sum over fewer sites than agreed to it nobody learns anything.
        let figure = block.part.checked_sub(SHOWN_PART + 1);
        if figure.is_some_and(|figure| self.shown.get(figure) != Some(&true)) {
            return masker.blinded();
        }
        masker.block(levels)
    }
}

#[cfg(test)]
mod tests {
    use hospes_protocol::plan::figure;
    use hospes_protocol::policy::EgressKind;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    fn announced() -> Vec<Figure> {
        let of = |name: &'static str, values| Figure { name: name.into(), values, kind: EgressKind::Metrics };
        vec![of(figure::N, 1), of(figure::SCORE, 3), of(figure::CONFUSION, 2)]
    }

    fn set(n: f64, score: [f64; 3], confusion: [f64; 2]) -> FigureSet {
        let sums = [(figure::N, vec![n]), (figure::SCORE, score.to_vec()), (figure::CONFUSION, confusion.to_vec())];
        let sums = sums.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
        FigureSet { sums, withheld: BTreeMap::new() }
    }

    fn without(mut set: FigureSet, name: &str) -> FigureSet {
        set.sums.remove(name);
        set.withheld.insert(name.to_owned(), "a rule".to_owned());
        set
    }

    /// The sums of the levels of these reports, as unmasking gives them.
    fn added(reports: &[FigureSet]) -> Vec<u64> {
        let of = |report| -> Vec<u64> {
            let bytes = levels(&announced(), report).unwrap();
            assert_eq!(bytes[..8], 1u64.to_le_bytes());
            bytes[8..].as_chunks::<4>().0.iter().map(|level| u64::from(u32::from_le_bytes(*level))).collect()
        };
        let mut sums = of(&reports[0]);
        for report in &reports[1..] {
            sums.iter_mut().zip(of(report)).for_each(|(sum, level)| *sum += level);
        }
        sums
    }

    /// value·2^96, to the nearest whole number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2^53")]
    fn quantised(value: f64) -> BigInt {
        let whole = libm::scalbn(value, FRACTION_BITS).round();
        let (mut number, mut rest) = (BigInt::from(0), whole.abs());
        for place in (0..4i32).rev() {
            let unit = libm::scalbn(1.0, 53 * place);
            let high = (rest / unit).floor();
            rest -= high * unit;
            number = (number << 53) + BigInt::from(high as u64);
        }
        if whole < 0.0 { -number } else { number }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place_and_what_it_must_be() {
        let wrong = |set: FigureSet| levels(&announced(), &set).unwrap_err().to_string();
        let ok = set(4_294_967_295.0, [3e28, -3e28, 0.0], [0.0, 1.0]);
        assert_eq!(levels(&announced(), &ok).unwrap().len(), 8 + 4 * (3 + 1 + 18 + 2));
        for n in [-1.0, 0.5, 4_294_967_296.0] {
            let words = wrong(set(n, [0.0; 3], [0.0; 2]));
            assert!(words.contains("value 0 of the figure 'n'") && words.contains("2^32 - 1"), "{words}");
        }
        for value in [MOST, -MOST, f64::MAX] {
            let words = wrong(set(1.0, [0.0, 0.0, value], [0.0; 2]));
            assert!(words.contains("value 2 of the figure 'score'") && words.contains("2^95"), "{words}");
        }
        assert!(wrong(set(1.0, [f64::NAN, 0.0, 0.0], [0.0; 2])).contains("NaN"));
        let mut short = set(1.0, [0.0; 3], [0.0; 2]);
        short.sums.remove(figure::SCORE);
        assert!(wrong(short).contains("'score' is missing"));
        let unknown = [Figure { name: "categories".into(), values: 1, kind: EgressKind::Metrics }];
        let named = FigureSet { sums: [("categories".to_owned(), vec![1.0])].into(), withheld: BTreeMap::new() };
        assert!(levels(&unknown, &named).unwrap_err().to_string().contains("no sum that sites could add"));
    }

    #[test]
    fn what_one_site_holds_back_is_in_no_report_and_the_rest_is() {
        let (one, other) = (set(12.0, [0.5; 3], [5.0, 7.0]), set(20.0, [1.5; 3], [10.0, 10.0]));
        let all =
            report(&announced(), 3, &added(&[one.clone(), other.clone(), without(other, figure::SCORE)])).unwrap();
        assert!(all.withheld[figure::SCORE].starts_with("withheld by a disclosure rule of 1 of 3 sites"));
        assert_eq!(
            (all.sums[figure::N].as_slice(), all.sums[figure::CONFUSION].as_slice()),
            (&[52.0][..], &[25.0, 27.0][..])
        );
        assert!(!all.sums.contains_key(figure::SCORE));
        let sums = added(&[one.clone(), one]);
        assert!(report(&announced(), 1, &sums).unwrap_err().to_string().contains("more sites"));
        assert!(report(&announced(), 2, &sums[1..]).is_err());
        assert!(report(&announced(), 2, &[&sums[..], &[0]].concat()).is_err());
    }

    /// Attack: coefficients at which the sum of one site, and of no other, has no room.
    #[test]
    fn what_has_no_room_is_held_back_as_by_a_rule() {
        let ok = set(12.0, [0.5; 3], [5.0, 7.0]);
        for value in [MOST, -MOST, f64::INFINITY, f64::NAN] {
            let mut large = set(12.0, [0.5, value, 0.5], [5.0, 7.0]);
            hold_back(&announced(), &mut large);
            assert_eq!(large.sums.keys().collect::<Vec<_>>(), ["confusion", "n"]);
            let all = report(&announced(), 2, &added(&[ok.clone(), large])).unwrap();
            assert!(all.withheld[figure::SCORE].contains("1 of 2 sites") && all.sums[figure::N] == [24.0], "{all:?}");
        }
        let mut same = ok.clone();
        hold_back(&announced(), &mut same);
        assert_eq!(same, ok);
    }

    fn sums_of_rows() -> impl Strategy<Value = f64> {
        prop_oneof![
            -1e6f64..1e6,
            (-300i32..95, -1.0f64..1.0).prop_map(|(exponent, part)| libm::scalbn(part, exponent)),
            Just(0.0),
            Just(-0.0),
            Just(f64::MIN_POSITIVE),
            Just(-MOST * (1.0 - f64::EPSILON)),
        ]
    }

    proptest! {
        #[test]
        fn the_sum_is_exactly_that_of_the_quantised_values_and_rounded_once(
            values in prop::collection::vec((0u32..1 << 20, sums_of_rows()), 1..130)
        ) {
            let of = |(n, value): &(u32, f64)| set(f64::from(*n), [*value, 1.0, -*value], [0.0; 2]);
            let sets: Vec<FigureSet> = values.iter().map(of).collect();
            let sites = u32::try_from(sets.len()).unwrap();
            let found = report(&announced(), sites, &added(&sets)).unwrap();
            let exact: BigInt = values.iter().map(|(_, value)| quantised(*value)).sum();
            let score = &found.sums[figure::SCORE];
            let off = |candidate: f64| {
                let there = quantised(candidate);
                if there > exact { &there - &exact } else { &exact - &there }
            };
            // Above 2^-44 neighbours are multiples of 2^-96 too.
            if score[0].abs() > 1e-12 {
                for neighbour in [score[0].next_up(), score[0].next_down()] {
                    prop_assert!(off(score[0]) <= off(neighbour), "{} {neighbour}", score[0]);
                }
            }
            prop_assert_eq!(score[2], -score[0]);
            prop_assert_eq!(score[1], f64::from(sites));
            let rows: u64 = values.iter().map(|(n, _)| u64::from(*n)).sum();
            prop_assert_eq!(found.sums[figure::N][0], rows as f64);
        }

        #[test]
        fn one_site_alone_comes_back_as_it_was_where_it_is_not_tiny(value in sums_of_rows()) {
            let found = report(&announced(), 1, &added(&[set(7.0, [value; 3], [0.0; 2])])).unwrap();
            let back = found.sums[figure::SCORE][0];
            // 2^-44 and 2^-97.
            if value.abs() >= libm::scalbn(1.0, -44) {
                prop_assert_eq!(back, value);
            }
            prop_assert!((back - value).abs() <= libm::scalbn(1.0, -97));
        }
    }
}
