//! The site's policy as it is kept, and which changes loosen it.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::{Action, Change, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::memo;
use hospes_protocol::policy::{FourEyes, Policy, Predict, Visibility};
use hospes_protocol::text::shown;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::{Acting, Passphrase, ProposedChange, Session, phase};
use crate::store::{At as _, Tx, parse, set_setting, setting};
use crate::view::{EndedApproval, Notice, Outcome, Phase, PolicyChange, PolicyEffect, PolicyPreview};

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
    // Here, because a proposal may be older than what the IT set.
    engine.managed.check_policy(policy)?;
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
    // Where it is not said, it follows from the number of sites: to say it, or to say it no more, may be less.
    let fewer = match (now.training.colluding, new.training.colluding) {
        (Some(before), Some(after)) => after < before,
        (before, after) => before != after,
    };
    switch("fewer sites count as those that may collude with the coordinator", fewer);
    let single = new.training.single_updates && !now.training.single_updates;
    switch("an update of this site may make a model by itself, which other sites can read", single);
    switch("differential privacy is not required", now.privacy.require_dp && !new.privacy.require_dp);
    switch(
        "the privacy officer's opinion is not required",
        now.approval.require_opinion && !new.approval.require_opinion,
    );
    let snapshots = now.approval.snapshots_only && !new.approval.snapshots_only;
    switch("an approval may be for later versions of a dataset too", snapshots);
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
    if now.is_public_data() && !new.is_public_data() {
        // The present one lets nobody use a patient's row, whatever its values are: what the new one lets them do with
        // patients' rows is new.
        let new_for_patients = loosened(&Policy::strict(), new);
        found.extend(new_for_patients.into_iter().map(|what| format!("for patients' data, unlike 'strict': {what}")));
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

/// Approvals on their way or in force: each names the policy that it was given under, and ends with it.
async fn open_approvals(conn: &mut SqliteConnection) -> Result<Vec<EndedApproval>, PartyError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT study, (SELECT COUNT(*) FROM jobs WHERE jobs.study = approvals.study AND jobs.state = 'running')
         FROM approvals WHERE state IN ('partly_approved', 'active', 'suspended') GROUP BY study ORDER BY MAX(at) DESC",
    )
    .fetch_all(&mut *conn)
    .await
    .at("read approvals")?;
    let mut found = Vec::with_capacity(rows.len());
    for (id, running) in rows {
        let study = parse(&id, "study")?;
        let title = shown(&super::study(conn, study).await?.study.terms.title, 200);
        found.push(EndedApproval { study, title, running: u32::try_from(running).unwrap_or(u32::MAX) });
    }
    Ok(found)
}

impl Engine {
    pub(crate) async fn policy_text(&mut self, session: Session) -> Result<String, PartyError> {
        self.acting(&session, "see the policy", &[]).await?;
        let mut conn = self.reader().await?;
        Ok(current(&mut conn).await?.to_toml()?)
    }

    /// What a policy would do that nobody has set yet.
    pub(crate) async fn policy_preview(&mut self, session: Session, toml: String) -> Result<PolicyPreview, PartyError> {
        self.acting(&session, "see what a policy would change", &[]).await?;
        let new = Policy::from_toml(&toml)?;
        let mut conn = self.reader().await?;
        let now = current(&mut conn).await?;
        let loosens = loosened(&now, &new);
        let ends = if now.digest()? == new.digest()? { Vec::new() } else { open_approvals(&mut conn).await? };
        Ok(PolicyPreview {
            changes: changes(&now, &new),
            below: self.managed.below(&new),
            needs_second_signature: !loosens.is_empty() && phase(&mut conn).await? == Phase::Operating,
            loosens,
            ends,
        })
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
        self.held_to(&acting, Action::PolicyChanged, self.managed.check_policy(&policy)).await?;
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

/// What differs between two policies, value by value, and what each difference does by itself.
fn changes(now: &Policy, new: &Policy) -> Vec<PolicyChange> {
    let (Ok(before), Ok(after)) = (serde_json::to_value(now), serde_json::to_value(new)) else { return Vec::new() };
    let (before, after) = (values(&before), values(&after));
    let places: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = places.into_iter().filter(|place| before.get(*place) != after.get(*place));
    let words = |value: Option<&Value>| value.filter(|v| !v.is_null()).map(written);
    differs
        .map(|place| PolicyChange {
            place: place.clone(),
            before: words(before.get(place)),
            after: words(after.get(place)),
            effect: effect(now, new, place, after.get(place)),
        })
        .collect()
}

/// What one changed value does, all others being as they are.
fn effect(now: &Policy, new: &Policy, place: &str, value: Option<&Value>) -> PolicyEffect {
    if place == "profile" && now.is_public_data() && !new.is_public_data() {
        // Alone it would be the name of rules for patients on values that are for public data: what counts is all of it.
        return if loosened(now, new).is_empty() { PolicyEffect::Tightens } else { PolicyEffect::Loosens };
    }
    let changed = || {
        let mut tree = serde_json::to_value(now).ok()?;
        let (parents, leaf) = place.rsplit_once('.').unwrap_or(("", place));
        let parent = parents.split('.').filter(|part| !part.is_empty()).try_fold(&mut tree, |v, k| v.get_mut(k))?;
        match value {
            Some(value) => drop(parent.as_object_mut()?.insert(leaf.to_owned(), value.clone())),
            None => drop(parent.as_object_mut()?.remove(leaf)),
        }
        serde_json::from_value::<Policy>(tree).ok()
    };
    match changed() {
        Some(changed) if !loosened(now, &changed).is_empty() => PolicyEffect::Loosens,
        Some(changed) if !loosened(&changed, now).is_empty() => PolicyEffect::Tightens,
        _ => PolicyEffect::Neither,
    }
}

/// A value as a policy file has it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.values().map(written).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Every value of a policy by its place in the file.
fn values(policy: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), policy)];
    while let Some((place, value)) = open.pop() {
        match value {
            Value::Object(fields) => {
                let inside = |key: &String| if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                open.extend(fields.iter().map(|(key, value)| (inside(key), value)));
            }
            value => drop(found.insert(place, value.clone())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use hospes_protocol::policy::Disclosure;

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
        let mut snapshots = strict.clone();
        snapshots.approval.snapshots_only = true;
        assert_eq!(loosened(&snapshots, &strict), ["an approval may be for later versions of a dataset too"]);
        assert!(loosened(&strict, &snapshots).is_empty());
        assert!(!loosened(&strict, &Policy::datashield()).is_empty());
    }

    #[test]
    fn leaving_the_public_data_profile_counts_against_strict() {
        let public = Policy::public_data();
        let ours = Policy {
            profile: "ours".into(),
            disclosure: Disclosure { min_subjects: 3, min_cell: 3, min_subset: 3, ..public.disclosure.clone() },
            ..public.clone()
        };
        assert_eq!(Policy::from_toml(&ours.to_toml().unwrap()).unwrap(), ours);
        let words = loosened(&public, &ours);
        for place in
            ["min_subjects", "max_param_ratio", "min_parties", "min_trusted_peers", "secure aggregation", "metrics"]
        {
            assert!(words.iter().any(|w| w.contains(place)), "{place} is missing in {words:?}");
        }
        assert!(loosened(&public, &Policy::strict()).is_empty());
        let of = |new: &Policy| changes(&public, new).into_iter().find(|c| c.place == "profile").unwrap().effect;
        assert_eq!((of(&ours), of(&Policy::strict())), (PolicyEffect::Loosens, PolicyEffect::Tightens));
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

    #[test]
    fn each_changed_value_is_named_with_what_it_does() {
        let strict = Policy::strict();
        assert_eq!(changes(&strict, &strict), []);
        let mut new = strict.clone();
        new.disclosure.min_cell = 3;
        new.disclosure.max_param_ratio = None;
        new.training.min_parties = 5;
        new.training.single_updates = true;
        new.profile = "ours".into();
        let found: Vec<_> =
            changes(&strict, &new).into_iter().map(|c| (c.place, c.before, c.after, c.effect)).collect();
        let line = |place: &str, before: Option<&str>, after: Option<&str>, effect| {
            (place.to_owned(), before.map(str::to_owned), after.map(str::to_owned), effect)
        };
        use PolicyEffect::{Loosens, Neither, Tightens};
        assert_eq!(
            found,
            [
                line("disclosure.max_param_ratio", Some("0.33"), None, Loosens),
                line("disclosure.min_cell", Some("10"), Some("3"), Loosens),
                line("profile", Some("strict"), Some("ours"), Neither),
                line("training.min_parties", Some("3"), Some("5"), Tightens),
                line("training.single_updates", None, Some("true"), Loosens),
            ]
        );
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
