//! Names of a request that may be taken for others: for those of people and organisations that are known here, for those of
//! earlier studies, or for each other.

use hospes_protocol::plan;
use sqlx::sqlite::SqliteConnection;

use super::approved_here;
use super::sign::Case;
use crate::error::PartyError;
use crate::names::{self, Known, MARKS};
use crate::people;
use crate::view::{NameMark, NameOf};

/// Marks of everything that a request names. What matters most comes first, so that a long list cannot crowd it out: who
/// asks, the study, the other sites, whoever else is named, and the columns.
pub(super) async fn marks(conn: &mut SqliteConnection, case: &Case) -> Result<Vec<NameMark>, PartyError> {
    let people = people::all(conn).await?;
    let mut known = names::known(conn, &people).await?;
    let peers = case.peers();
    let of_peers = || {
        peers.iter().flat_map(|p| [(NameOf::Site, p.name.as_str()), (NameOf::Organisation, p.organisation.as_str())])
    };
    known.add_all(of_peers().map(|(_, name)| name));

    let mut titles = Known::default();
    let approved = approved_here(conn).await?;
    titles.add_all(approved.iter().map(|offered| offered.study.terms.title.as_str()));

    let mut marks = known.marks(asking(case));
    marks.extend(titles.mark(NameOf::Study, &case.offered.study.terms.title));
    for mark in known.marks(of_peers().chain(named(case))) {
        // The requester's organisation may be a controller, too.
        if !marks.contains(&mark) {
            marks.push(mark);
        }
    }

    let mut columns = Known::default();
    let needed = plan::columns_read(&case.offered.study.plan);
    let here = case.datasets.iter().enumerate().filter(|(at, _)| case.chosen.is_none_or(|chosen| chosen == *at));
    for (_, dataset) in here {
        columns.add_all(dataset.columns().iter().map(String::as_str));
    }
    columns.add_all(needed.iter().map(String::as_str));
    marks.extend(columns.marks(needed.iter().map(|column| (NameOf::Column, column.as_str()))));
    marks.truncate(MARKS);
    Ok(marks)
}

/// Whoever asks, and by which federation.
fn asking(case: &Case) -> Vec<(NameOf, &str)> {
    let requester = &case.offered.study.terms.requester;
    let mut names = vec![
        (NameOf::Person, requester.name.as_str()),
        (NameOf::Organisation, requester.organisation.as_str()),
        (NameOf::Federation, case.membership.name.as_str()),
    ];
    names.extend(requester.vouched_by.iter().map(|name| (NameOf::Person, name.as_str())));
    names
}

/// Organisations that the request names besides.
fn named(case: &Case) -> impl Iterator<Item = (NameOf, &str)> {
    let terms = &case.offered.study.terms;
    let controllers = terms.controllers.iter().map(|c| c.organisation.as_str());
    let recipients = terms.recipients.iter().map(String::as_str);
    controllers.chain(recipients).map(|name| (NameOf::Organisation, name))
}
