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

/// Marks of everything that a request names, people and organisations first.
pub(super) async fn marks(conn: &mut SqliteConnection, case: &Case) -> Result<Vec<NameMark>, PartyError> {
    let people = people::all(conn).await?;
    let mut known = names::known(conn, &people).await?;
    let peers = case.peers();
    peers.iter().for_each(|peer| known.add_all([peer.name.as_str(), peer.organisation.as_str()]));
    let mut marks = known.marks(who(case));
    marks.extend(known.marks(
        peers.iter().flat_map(|p| [(NameOf::Site, p.name.as_str()), (NameOf::Organisation, p.organisation.as_str())]),
    ));

    let mut titles = Known::default();
    let approved = approved_here(conn).await?;
    titles.add_all(approved.iter().map(|offered| offered.study.terms.title.as_str()));
    marks.extend(titles.mark(NameOf::Study, &case.offered.study.terms.title));

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

/// Whoever the request names besides the other sites.
fn who(case: &Case) -> Vec<(NameOf, &str)> {
    let terms = &case.offered.study.terms;
    let requester = &terms.requester;
    let mut names = vec![
        (NameOf::Person, requester.name.as_str()),
        (NameOf::Organisation, requester.organisation.as_str()),
        (NameOf::Federation, case.membership.name.as_str()),
    ];
    names.extend(requester.vouched_by.iter().map(|name| (NameOf::Person, name.as_str())));
    names.extend(terms.controllers.iter().map(|c| (NameOf::Organisation, c.organisation.as_str())));
    names.extend(terms.recipients.iter().map(|name| (NameOf::Organisation, name.as_str())));
    names
}
