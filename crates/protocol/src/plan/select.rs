//! How columns come into a model: which a `select` takes, and what may become of a category.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::Feature;
use super::layer::Layer;
use super::model::{Misfit, Placed, Wire};
use super::problem::{MOST, hint};

/// Which columns of the features a `select` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Select {
    /// These, in this order.
    Columns(Vec<String>),
    /// All but these, in the order in which they arrive.
    Except(Vec<String>),
}

impl Select {
    /// The columns that it names.
    pub(super) fn named(&self) -> &[String] {
        let (Self::Columns(named) | Self::Except(named)) = self;
        named
    }

    /// The field in which it names them.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Columns(_) => "select.columns",
            Self::Except(_) => "select.except",
        }
    }

    /// Where the columns that it takes lie among these features, in the order in which it gives them.
    ///
    /// # Errors
    /// The first column that it names and that does not arrive, or stands twice, in words.
    pub fn positions(&self, features: &[Feature]) -> Result<Vec<usize>, String> {
        let named = self.resolve(features, &by_name(features)).map_err(|(_, reason)| reason)?;
        Ok(self.taken(named, features.len()).collect())
    }

    /// Where the columns lie that it names; the first that is wrong by its number in the list.
    fn resolve(&self, features: &[Feature], by_name: &BTreeMap<&str, usize>) -> Result<Vec<usize>, (usize, String)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::with_capacity(self.named().len());
        for (i, name) in self.named().iter().enumerate() {
            let Some(at) = by_name.get(name.as_str()) else {
                let known = hint(name, features.iter().map(|feature| feature.name.as_str()));
                return Err((i, format!("no column '{name}' arrives here{known}")));
            };
            if !seen.insert(name) {
                return Err((i, format!("'{name}' stands twice")));
            }
            found.push(*at);
        }
        Ok(found)
    }

    /// Which of so many columns it takes, given where those lie that it names.
    fn taken(&self, named: Vec<usize>, features: usize) -> impl Iterator<Item = usize> + use<> {
        let (these, left_out) = match self {
            Self::Columns(_) => (named, None),
            Self::Except(_) => (Vec::new(), Some(named.into_iter().collect::<BTreeSet<usize>>())),
        };
        let others = left_out.map(|left_out| (0..features).filter(move |at| !left_out.contains(at)));
        these.into_iter().chain(others.into_iter().flatten())
    }
}

fn by_name(features: &[Feature]) -> BTreeMap<&str, usize> {
    features.iter().enumerate().map(|(at, feature)| (feature.name.as_str(), at)).collect()
}

/// What is wrong with the columns that a model's layers take: one that does not arrive, or stands twice; and a category
/// that comes to another layer than an embedding, or to one without a vector for each of its codes.
pub fn misfits(placed: &[Placed], features: &[Feature]) -> Vec<Misfit> {
    let selects = placed.iter().any(|layer| matches!(layer.layer, Layer::Select(_)));
    let by_name = if selects { by_name(features) } else { BTreeMap::new() };
    let all = Categories::among(0..features.len(), features);
    let mut selected: Vec<Option<Categories>> = Vec::with_capacity(placed.len());
    let mut misfits = Vec::new();
    for (index, layer) in placed.iter().enumerate() {
        if misfits.len() >= MOST {
            break;
        }
        let Layer::Select(select) = &layer.layer else {
            selected.push(None);
            let along = |wire: &Wire| match wire {
                Wire::Features => all,
                Wire::Layer(before) => selected[*before],
                Wire::Image => None,
            };
            let wrong = layer.from.iter().filter_map(along).find_map(|found| found.misfit(&layer.layer, features));
            misfits.extend(wrong.map(|(field, reason)| Misfit { layer: index, field, reason }));
            continue;
        };
        match select.resolve(features, &by_name) {
            Ok(named) => selected.push(Categories::among(select.taken(named, features.len()), features)),
            Err((i, reason)) => {
                selected.push(None);
                misfits.push(Misfit { layer: index, field: format!("{}.{i}", select.field()), reason });
            }
        }
    }
    misfits
}

/// The categories among some columns: where those lie that a layer behind them is judged by.
#[derive(Clone, Copy)]
struct Categories {
    first: usize,
    /// The one with most codes.
    largest: usize,
    /// The first column that is a number.
    number: Option<usize>,
}

impl Categories {
    /// `None` where all are numbers.
    fn among(columns: impl Iterator<Item = usize>, features: &[Feature]) -> Option<Self> {
        let mut number = None;
        let mut found: Option<(usize, usize)> = None;
        for at in columns {
            if features[at].codes.is_none() {
                number = number.or(Some(at));
                continue;
            }
            let (first, largest) = found.unwrap_or((at, at));
            found = Some((first, if features[at].codes > features[largest].codes { at } else { largest }));
        }
        found.map(|(first, largest)| Self { first, largest, number })
    }

    /// Why a layer cannot take these columns, with the field that it is about.
    fn misfit(self, layer: &Layer, features: &[Feature]) -> Option<(String, String)> {
        let name = |at: usize| &features[at].name;
        let category = name(self.first);
        let Layer::Embedding(embedding) = layer else {
            let reason = format!(
                "takes '{category}', which is a category; put a one_hot task before the model, or a select and an embedding \
                 into it"
            );
            return Some((layer.name().to_owned(), reason));
        };
        if let Some(number) = self.number {
            let reason = format!("takes '{}', which is a number, beside the category '{category}'", name(number));
            return Some(("embedding".to_owned(), format!("{reason}; put a select of categories before it")));
        }
        let codes = features[self.largest].codes.unwrap_or_default();
        let reason = format!("is {}, and '{}' has {codes} codes", embedding.codes, name(self.largest));
        (codes > u64::from(embedding.codes)).then(|| ("embedding.codes".to_owned(), reason))
    }
}
