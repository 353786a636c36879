//! The site's privacy ledger.

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{PoolStudy, PoolView};

use super::Asking;
use crate::output;

/// `privacy`
pub(crate) async fn privacy(asking: &mut Asking) -> Result<()> {
    let all: Vec<PoolView> = asking.ask(&Call::Privacy {}).await?;
    asking.answer(&all, |all| {
        if all.is_empty() {
            output::say("No dataset is registered, so that nobody has a privacy budget yet.");
        }
        all.iter().for_each(tell);
    })
}

fn tell(pool: &PoolView) {
    let datasets = match pool.datasets.as_slice() {
        [] => "removed datasets".to_owned(),
        names => names.join(", "),
    };
    let account = &pool.account;
    output::say(&format!("{datasets}: {} patients", pool.patients));
    output::say(&format!(
        "  Epsilon {:.3} of at most {} is spent ({:.0} % of the budget), at delta {}, over all studies and federations.",
        account.spent,
        account.epsilon,
        account.share * 100.0,
        account.delta
    ));
    if account.unprotected > 0 {
        let count = account.unprotected;
        output::say(&format!("  No bound holds: {count} releases had no differential privacy."));
    }
    if let Some(since) = account.lost {
        let since = output::moment(since);
        output::say(&format!("  No bound holds: what left after the backup of {since} is not known here."));
    }
    if !pool.studies.is_empty() {
        let head = ["Study", "Federation", "From", "Until", "With noise", "Epsilon", "(Renyi)", "Without noise"];
        output::table(&head, pool.studies.iter().map(row));
    }
}

fn row(study: &PoolStudy) -> Vec<String> {
    let number = |epsilon: Option<f64>| epsilon.map_or("-".to_owned(), |epsilon| format!("{epsilon:.3}"));
    vec![
        study.title.clone(),
        study.federation_name.clone(),
        output::moment(study.first),
        output::moment(study.last),
        study.bounded.to_string(),
        number(study.epsilon),
        number(study.renyi),
        study.unprotected.to_string(),
    ]
}
