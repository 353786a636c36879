//! The site's policy as it is kept, and which changes loosen it.

use hospes_ledger::{Action, Change, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::memo;
use hospes_protocol::policy::{FourEyes, Policy, Predict, Visibility};
use sqlx::sqlite::SqliteConnection;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::{Acting, Passphrase, ProposedChange, Session, phase};
use crate::store::{Tx, set_setting, setting};
use crate::view::{Notice, Outcome, Phase};

/// The policy in force.
pub(crate) async fn current(conn: &mut SqliteConnection) -> Result<Policy, PartyError> {
    match setting(conn, "policy").await? {
        Some(text) => Ok(memo::parsed(text.as_bytes(), |_| Policy::from_toml(&text))?),
        // There is always one; should it be gone, the strictest holds.
        None => Ok(Policy::strict()),
    }
}

/// Puts a policy in force, within a step.
pub(crate) async fn store(engine: &Engine, tx: &mut Tx, acting: &Acting, policy: &Policy) -> Result<(), PartyError> {
    let before = current(tx.conn()).await?.digest()?;
    let after = policy.digest()?;
    set_setting(tx.conn(), "policy", Some(&policy.to_toml()?)).await?;
    let mut entry = engine.entry(acting.signing(), Action::PolicyChanged);
    entry = entry.object(ObjectKind::Policy, &policy.profile, Some(after));
    entry.change = Some(Change { before: Some(before), after: Some(after) });
    engine.append(tx, &entry).await?;
    Ok(())
}

/// What a new policy allows that the present one does not, each in words; empty if it only tightens.
///
/// A value whose direction is not plain counts as loosening when it differs: asking for a second signature too often is
/// the harmless mistake.
pub(crate) fn loosened(now: &Policy, new: &Policy) -> Vec<String> {
    let mut found = Vec::new();
    let mut lower = |place: &str, before: u64, after: u64| {
        if after < before {
            found.push(format!("{place} from {before} to {after}"));
        }
    };
    let (d, e) = (&now.disclosure, &new.disclosure);
    lower("disclosure.min_subjects", d.min_subjects, e.min_subjects);
    lower("disclosure.min_cell", d.min_cell, e.min_cell);
    lower("disclosure.min_subset", d.min_subset, e.min_subset);
    lower("training.min_parties", now.training.min_parties.into(), new.training.min_parties.into());
    lower("training.min_trusted_peers", now.training.min_trusted_peers.into(), new.training.min_trusted_peers.into());
    let mut higher = |place: &str, before: f64, after: f64| {
        if after > before {
            found.push(format!("{place} from {before} to {after}"));
        }
    };
    let ratio = |r: Option<f64>| r.unwrap_or(f64::INFINITY);
    higher("disclosure.max_param_ratio", ratio(d.max_param_ratio), ratio(e.max_param_ratio));
    #[allow(clippy::cast_precision_loss)] // Levels are tens, not 2^53.
    higher("disclosure.max_levels", d.max_levels as f64, e.max_levels as f64);
    higher("disclosure.levels_density", d.levels_density, e.levels_density);
    higher("disclosure.hist_bins_pct", d.hist_bins_pct, e.hist_bins_pct);
    higher("privacy.epsilon_per_pool", now.privacy.epsilon_per_pool, new.privacy.epsilon_per_pool);
    higher("privacy.delta", now.privacy.delta, new.privacy.delta);
    higher("approval.expires_days", now.approval.expires_days.into(), new.approval.expires_days.into());
    let mut switch = |place: &str, loosens: bool| {
        if loosens {
            found.push(place.to_owned());
        }
    };
    switch(
        "profile 'public-data', whose rules are for public data only",
        new.is_public_data() && !now.is_public_data(),
    );
    let shown = e.min_max == Visibility::Shown && d.min_max == Visibility::Withheld;
    switch("smallest and largest values are shown", shown);
    switch("local views are shown in full", e.local_views != d.local_views && is_full(e.local_views));
    let forced = now.training.force_secure_aggregation && !new.training.force_secure_aggregation;
    switch("secure aggregation is not forced", forced);
    let single = new.training.single_updates && !now.training.single_updates;
    switch("an update of this site may make a model by itself, which other sites can read", single);
    switch("differential privacy is not required", now.privacy.require_dp && !new.privacy.require_dp);
    switch(
        "the privacy officer's opinion is not required",
        now.approval.require_opinion && !new.approval.require_opinion,
    );
    let eyes = now.approval.four_eyes != new.approval.four_eyes && new.approval.four_eyes != FourEyes::TwoPeople;
    switch("the second signature is given in another way", eyes);
    switch("predictions are allowed", rank(new.models.predict) > rank(now.models.predict));
    for kind in new.egress.allow.iter().filter(|k| !now.egress.allow.contains(k)) {
        switch(&format!("'{}' may leave one by one", format!("{kind:?}").to_lowercase()), true);
    }
    for partner in new.bilateral.allow.iter().filter(|p| !now.bilateral.allow.contains(p)) {
        let key = &partner.key.to_string()[..8];
        switch(&format!("two-party studies with '{}' (key {key}…)", partner.organisation), true);
    }
    found
}

fn is_full(views: hospes_protocol::policy::LocalViews) -> bool {
    views == hospes_protocol::policy::LocalViews::Full
}

fn rank(predict: Predict) -> u8 {
    match predict {
        Predict::Off => 0,
        Predict::Cohort => 1,
        Predict::Single => 2,
    }
}

impl Engine {
    pub(crate) async fn policy_text(&mut self, session: Session) -> Result<String, PartyError> {
        self.acting(&session, "see the policy", &[]).await?;
        let mut conn = self.reader().await?;
        Ok(current(&mut conn).await?.to_toml()?)
    }

    pub(crate) async fn set_policy(
        &mut self,
        session: Session,
        toml: String,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let roles = &[Role::Administrator, Role::DataSteward];
        let acting = self.acting(&session, "change the policy", roles).await?;
        let policy = Policy::from_toml(&toml)?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("change the policy").await?;
        let now = current(tx.conn()).await?;
        let loosens = !loosened(&now, &policy).is_empty();
        let outcome = if loosens && phase(tx.conn()).await? == Phase::Operating {
            self.do_or_propose(tx, &acting, &key, ProposedChange::Policy { policy: Box::new(policy) }).await?
        } else {
            store(self, &mut tx, &acting, &policy).await?;
            tx.commit().await?;
            Outcome::Done { code: None }
        };
        self.notify(Notice::Settings);
        self.recheck_work().await?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_loosen_is_named_and_tightening_is_free() {
        let strict = Policy::strict();
        assert!(loosened(&strict, &strict).is_empty());
        let words = loosened(&strict, &Policy::public_data());
        for place in ["min_subjects", "max_param_ratio", "min_parties", "min_trusted_peers", "public-data", "metrics"] {
            assert!(words.iter().any(|w| w.contains(place)), "{place} is missing in {words:?}");
        }
        assert!(loosened(&Policy::public_data(), &strict).is_empty());
        assert!(!loosened(&strict, &Policy::datashield()).is_empty());
    }

    /// Walks over every number and switch of a policy file, so that a new one cannot be forgotten in [`loosened`].
    #[test]
    fn every_value_of_the_file_counts_in_one_direction() {
        let strict = Policy::strict();
        let tree = serde_json::to_value(&strict).unwrap();
        let mut silent = Vec::new();
        visit(&tree, &mut Vec::new(), &mut |path, value| {
            let others: Vec<serde_json::Value> = match value {
                serde_json::Value::Bool(b) => vec![(!b).into()],
                serde_json::Value::Number(n) if n.is_u64() => vec![(n.as_u64().unwrap() + 1).into()],
                serde_json::Value::Number(n) => vec![(n.as_f64().unwrap() * 1.5).into()],
                _ => return,
            };
            for other in others {
                let mut changed = tree.clone();
                *path.iter().fold(&mut changed, |v, k: &String| v.get_mut(k.as_str()).unwrap()) = other;
                let changed: Policy = serde_json::from_value(changed).unwrap();
                if loosened(&strict, &changed).is_empty() && loosened(&changed, &strict).is_empty() {
                    silent.push(path.join("."));
                }
            }
        });
        assert!(silent.is_empty(), "a change of {silent:?} is not noticed");
    }

    fn visit(value: &serde_json::Value, path: &mut Vec<String>, each: &mut dyn FnMut(&[String], &serde_json::Value)) {
        if let serde_json::Value::Object(map) = value {
            for (key, value) in map {
                path.push(key.clone());
                visit(value, path, each);
                path.pop();
            }
        } else {
            each(path, value);
        }
    }
}
