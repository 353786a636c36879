//! What needs a second person's signature once the site is in operation: adding people and roles, replacing keys,
//! loosening the policy, going on after a restored backup.

use std::collections::BTreeSet;

use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::{Digest, PersonId, Timestamp};
use hospes_protocol::policy::Policy;
use hospes_protocol::sign::{PublicKey, SecretKey};
use hospes_protocol::words;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::register::{LAST_ADMINISTRATOR, check_roles, is_only_administrator};
use super::{Acting, Passphrase, Session, by_id, name_of, phase, roles_inside, seconders};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::wrapped;
use crate::store::{At as _, Tx, parse, to_json};
use crate::view::{NewPerson, Notice, Outcome, PersonState, Phase, ProposalView, Words};

/// What is proposed; the document that both people sign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proposal {
    at: Timestamp,
    by: PersonId,
    change: ProposedChange,
}

impl Document for Proposal {
    const KIND: &'static str = "proposal";
    const VERSION: u32 = 1;
}

/// A change that needs two signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ProposedChange {
    /// A person joins.
    AddPerson {
        /// Who.
        person: NewPerson,
    },
    /// A person's roles become these.
    Roles {
        /// Who.
        person: PersonId,
        /// Roles.
        roles: BTreeSet<Role>,
    },
    /// A disabled person can act again.
    Enable {
        /// Who.
        person: PersonId,
    },
    /// The only administrator forgot the passphrase: nobody else could begin with a new key.
    Recover {
        /// Who.
        person: PersonId,
    },
    /// A person who forgot the passphrase made a new key.
    ReplaceKey {
        /// Who.
        person: PersonId,
    },
    /// Entries of the audit log are erased after so many months.
    AuditRetention {
        /// Months; `None` keeps them for good.
        months: Option<u32>,
    },
    /// The site goes on after a backup was restored.
    Restored {
        /// SHA-256 of the backup.
        backup: Digest,
        /// When it was made.
        made: Timestamp,
    },
    /// The policy becomes this one.
    Policy {
        /// The policy.
        policy: Box<Policy>,
    },
}

impl ProposedChange {
    /// Whom it concerns; they may not give the second signature.
    fn person(&self) -> Option<PersonId> {
        match self {
            Self::Roles { person, .. }
            | Self::Enable { person }
            | Self::Recover { person }
            | Self::ReplaceKey { person } => Some(*person),
            Self::AddPerson { .. } | Self::AuditRetention { .. } | Self::Restored { .. } | Self::Policy { .. } => None,
        }
    }
}

/// The second signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposalAnswer {
    proposal: Digest,
    by: PersonId,
    at: Timestamp,
    agree: bool,
    /// The new key that is confirmed, for a replacement.
    key: Option<PublicKey>,
}

impl Document for ProposalAnswer {
    const KIND: &'static str = "proposal-answer";
    const VERSION: u32 = 1;
}

/// Roles of which one is needed for a second signature. Privacy officers and auditors only watch; people of another
/// organisation sign approvals, and nothing else but what [`for_outsiders`] finds.
pub(super) const SECOND: &[Role] = &[Role::DataAccessApprover, Role::DataSteward, Role::Administrator];

impl Engine {
    /// Does it at once while the site is set up; otherwise keeps it for a second person.
    pub(crate) async fn do_or_propose(
        &mut self,
        mut tx: Tx,
        acting: &Acting,
        key: &SecretKey,
        change: ProposedChange,
    ) -> Result<Outcome, PartyError> {
        let outcome = if phase(tx.conn()).await? == Phase::Operating {
            Outcome::Proposed(self.write_proposal(&mut tx, acting, key, change).await?)
        } else {
            Outcome::Done { code: self.carry_out(&mut tx, acting, key, change).await? }
        };
        tx.commit().await?;
        self.notify(Notice::People);
        self.notify(Notice::Settings);
        Ok(outcome)
    }

    pub(super) async fn write_proposal(
        &self,
        tx: &mut Tx,
        acting: &Acting,
        key: &SecretKey,
        change: ProposedChange,
    ) -> Result<ProposalView, PartyError> {
        let at = self.now();
        let document = Canonical::new(Proposal { at, by: acting.person, change })?;
        let digest = document.digest();
        sqlx::query(
            "INSERT INTO proposals (id, document, by_person, signature, at, state) VALUES (?1, ?2, ?3, ?4, ?5, 'open')",
        )
        .bind(digest.to_string())
        .bind(document.bytes())
        .bind(acting.person.to_string())
        .bind(key.sign(&digest).to_string())
        .bind(at.as_millis())
        .execute(tx.conn())
        .await
        .at("propose a change")?;
        let entry = self
            .entry(acting.signing(), Action::SettingsChanged)
            .object(ObjectKind::Settings, "proposal", Some(digest))
            .because("proposed; a second signature is needed");
        self.append(tx, &entry).await?;
        self.proposal_view(tx, &document).await
    }

    async fn proposal_view(&self, tx: &mut Tx, document: &Canonical<Proposal>) -> Result<ProposalView, PartyError> {
        let mut needs_words = false;
        let words = match &document.change {
            ProposedChange::AddPerson { person } => format!("add {} as {}", person.name, list(&person.roles)),
            ProposedChange::Roles { person, roles } => {
                format!("give {} the roles {}", name_of(tx.conn(), *person).await?, list(roles))
            }
            ProposedChange::Enable { person } => {
                let confirmed =
                    if is_unconfirmed(tx, *person).await? { "; their new key is still to be confirmed" } else { "" };
                format!("let {} act again{confirmed}", name_of(tx.conn(), *person).await?)
            }
            ProposedChange::Recover { person } => format!(
                "give {}, the only administrator, a new key: the present one is destroyed at once, and a third person \
                 confirms the next",
                name_of(tx.conn(), *person).await?
            ),
            ProposedChange::ReplaceKey { person } => {
                let person = by_id(tx.conn(), *person).await?;
                needs_words = true;
                match person.key {
                    Some(key) => format!(
                        "accept the new key of {}, if they read you these words of it: {}",
                        person.name,
                        words::of_key(&key)
                    ),
                    None => format!("accept the new key of {}, who has not made it yet", person.name),
                }
            }
            ProposedChange::AuditRetention { months } => crate::audit::retention::words(*months),
            ProposedChange::Restored { made, .. } => crate::restored::words(*made),
            ProposedChange::Policy { policy } => {
                let now = crate::requests::policy::current(tx.conn()).await?;
                format!("loosen the policy: {}", crate::requests::policy::loosened(&now, policy).join("; "))
            }
        };
        let by = name_of(tx.conn(), document.by).await?;
        Ok(ProposalView { id: document.digest(), at: document.at, by, words, needs_words })
    }

    pub(crate) async fn proposals(&mut self, session: Session) -> Result<Vec<ProposalView>, PartyError> {
        let acting = self.acting(&session, "see proposals", &[]).await?;
        let outsider = self.is_outsider(acting.person).await?;
        let mut tx = self.store.begin("read proposals").await?;
        let documents = if outsider { for_outsiders(&mut tx).await? } else { open(&mut tx).await? };
        let mut views = Vec::new();
        for document in documents {
            views.push(self.proposal_view(&mut tx, &document).await?);
        }
        Ok(views)
    }

    pub(crate) async fn answer_proposal(
        &mut self,
        session: Session,
        proposal: Digest,
        agree: bool,
        words: Option<String>,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let action = "give the second signature to a change";
        let acting = self.acting(&session, action, SECOND).await?;
        if self.is_outsider(acting.person).await? {
            let mut tx = self.store.begin("look for a proposal").await?;
            let theirs = for_outsiders(&mut tx).await?.iter().any(|d| d.digest() == proposal);
            drop(tx);
            if !theirs {
                return Err(self.deny(acting.person, action, roles_inside(SECOND)).await?);
            }
        }
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("answer a proposal").await?;
        let document = open(&mut tx).await?.into_iter().find(|d| d.digest() == proposal);
        let document = document.ok_or_else(|| PartyError::NotFound("such open proposal".into()))?;
        let concerned = document.change.person();
        if document.by == acting.person || concerned == Some(acting.person) {
            return Err(PartyError::state(
                "the second signature must come from somebody who neither proposed it nor is concerned",
            ));
        }
        let new_key = match &document.change {
            ProposedChange::ReplaceKey { person } if agree => Some(confirmed(&mut tx, *person, words).await?),
            _ => None,
        };
        let at = self.now();
        let answer = Canonical::new(ProposalAnswer { proposal, by: acting.person, at, agree, key: new_key })?;
        sqlx::query("UPDATE proposals SET state = ?2, answered_by = ?3, answer = ?4, answered_at = ?5 WHERE id = ?1")
            .bind(proposal.to_string())
            .bind(if agree { "done" } else { "declined" })
            .bind(acting.person.to_string())
            .bind(key.sign(&answer.digest()).to_string())
            .bind(at.as_millis())
            .execute(tx.conn())
            .await
            .at("answer a proposal")?;
        let entry = self.entry(acting.signing(), Action::SettingsChanged).object(
            ObjectKind::Settings,
            "proposal",
            Some(proposal),
        );
        let entry = if agree { entry.because("second signature given") } else { entry.refused("turned down") };
        self.append(&mut tx, &entry).await?;
        let code = match agree {
            true => self.carry_out(&mut tx, &acting, &key, document.change.clone()).await?,
            false => None,
        };
        tx.commit().await?;
        if let (true, ProposedChange::Recover { person }) = (agree, &document.change) {
            // After the commit: from here on nobody accepts the old key, whether it could be erased or not.
            self.vault.destroy(&wrapped::name(*person)).await?;
        }
        if let (true, ProposedChange::Restored { .. }) = (agree, &document.change) {
            self.open_links().await?;
        }
        for notice in [Notice::People, Notice::Settings, Notice::Requests] {
            self.notify(notice);
        }
        // The change is durable: what the policy does not allow now, or what a lost signature carried, stops.
        self.recheck_work().await?;
        Ok(Outcome::Done { code })
    }

    /// Closes proposals of a new key for somebody; only the newest replacement is ever confirmed.
    pub(super) async fn close_replacements(&self, tx: &mut Tx, person: PersonId) -> Result<(), PartyError> {
        for document in open(tx).await? {
            if matches!(document.change, ProposedChange::ReplaceKey { person: of } if of == person) {
                sqlx::query("UPDATE proposals SET state = 'replaced' WHERE id = ?1")
                    .bind(document.digest().to_string())
                    .execute(tx.conn())
                    .await
                    .at("replace a key")?;
            }
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        tx: &mut Tx,
        acting: &Acting,
        key: &SecretKey,
        change: ProposedChange,
    ) -> Result<Option<String>, PartyError> {
        let update = |sql: &'static str| sqlx::query(sql);
        match change {
            ProposedChange::AddPerson { person } => return self.insert_person(tx, acting.signing(), person).await,
            ProposedChange::Policy { policy } => crate::requests::policy::store(self, tx, acting, &policy).await?,
            ProposedChange::Restored { backup, .. } => crate::restored::confirm(self, tx, acting, backup).await?,
            ProposedChange::AuditRetention { months } => {
                crate::audit::retention::store(self, tx, acting, months).await?;
            }
            ProposedChange::Roles { person, roles } => {
                // As when it was proposed: others may have been disabled since.
                check_roles(&roles, by_id(tx.conn(), person).await?.organisation.is_some())?;
                if !roles.contains(&Role::Administrator) && self.is_last_administrator(tx, person).await? {
                    return Err(PartyError::state(LAST_ADMINISTRATOR));
                }
                let query = update("UPDATE persons SET roles = ?2 WHERE id = ?1");
                query.bind(person.to_string()).bind(to_json(&roles)).execute(tx.conn()).await.at("change roles")?;
                let entry = self.entry(acting.signing(), Action::RolesChanged);
                self.append(tx, &entry.object(ObjectKind::Person, person, None).because(list(&roles))).await?;
            }
            ProposedChange::Enable { person } => {
                // A key that nobody confirmed yet is confirmed by its twelve words and by nothing else.
                let query = update(
                    "UPDATE persons SET state = CASE replacing WHEN 0 THEN 'active' ELSE 'key_unconfirmed' END
                     WHERE id = ?1 AND key IS NOT NULL",
                );
                let done = query.bind(person.to_string()).execute(tx.conn()).await.at("enable a person")?;
                if done.rows_affected() == 0 {
                    return Err(PartyError::state("the person never had a key; give them a new one instead"));
                }
                let entry = self.entry(acting.signing(), Action::PersonChanged);
                self.append(tx, &entry.object(ObjectKind::Person, person, None).because("enabled")).await?;
            }
            ProposedChange::Recover { person } => {
                if !is_only_administrator(tx.conn(), person).await? {
                    return Err(PartyError::state("there is another administrator now, who can begin with a new key"));
                }
                return Ok(Some(self.begin_replacement(tx, acting, key, person).await?));
            }
            ProposedChange::ReplaceKey { person } => {
                if by_id(tx.conn(), person).await?.state != PersonState::KeyUnconfirmed {
                    return Err(PartyError::state("the person has not made the new key yet"));
                }
                let query = update("UPDATE persons SET state = 'active', replacing = 0 WHERE id = ?1");
                query.bind(person.to_string()).execute(tx.conn()).await.at("confirm a key")?;
                let entry = self.entry(acting.signing(), Action::KeyReplaced);
                self.append(tx, &entry.object(ObjectKind::Person, person, None).because("confirmed")).await?;
            }
        }
        Ok(None)
    }
}

/// Whether the person's key, or the next one, is a replacement that nobody confirmed yet.
async fn is_unconfirmed(tx: &mut Tx, person: PersonId) -> Result<bool, PartyError> {
    let query = sqlx::query_scalar("SELECT replacing FROM persons WHERE id = ?1").bind(person.to_string());
    query.fetch_one(tx.conn()).await.at("read a person")
}

/// The new key of a person, if the words are of it: whoever agrees says which key they agree to.
async fn confirmed(tx: &mut Tx, person: PersonId, words: Option<String>) -> Result<PublicKey, PartyError> {
    let key = by_id(tx.conn(), person).await?.key;
    let key = key.ok_or_else(|| PartyError::state("the person has not made the new key yet"))?;
    let words =
        words.ok_or_else(|| PartyError::input("words", "give the twelve words that the key's owner reads you"))?;
    match words::compare(&words, &Digest::of(key.as_bytes())) {
        words::Comparison::Same => Ok(key),
        words::Comparison::Different => Err(PartyError::Fingerprint(Words::Different)),
        words::Comparison::Mistyped => Err(PartyError::Fingerprint(Words::Mistyped)),
    }
}

/// Whether a change waits for its second signature.
pub(crate) async fn waits(tx: &mut Tx, change: &ProposedChange) -> Result<bool, PartyError> {
    Ok(open(tx).await?.iter().any(|document| document.change == *change))
}

/// Open proposals whose first signature still holds.
async fn open(tx: &mut Tx) -> Result<Vec<Canonical<Proposal>>, PartyError> {
    let rows = sqlx::query("SELECT document, signature, by_person FROM proposals WHERE state = 'open' ORDER BY at")
        .fetch_all(tx.conn())
        .await
        .at("read proposals")?;
    let mut documents = Vec::new();
    for row in rows {
        let bytes: Vec<u8> = row.try_get("document").at("read proposals")?;
        let signature: String = row.try_get("signature").at("read proposals")?;
        let document: Canonical<Proposal> = Canonical::parse(&bytes)?;
        let by = by_id(tx.conn(), document.by).await?;
        let signature = parse(&signature, "signature")?;
        if by.can_act() && by.key.is_some_and(|k| k.verifies(&document.digest(), &signature)) {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Open proposals that a person of another organisation may second: a person of this organisation joins one who is the
/// only one here that could. Otherwise a site with a single person of its own could never change anything again.
async fn for_outsiders(tx: &mut Tx) -> Result<Vec<Canonical<Proposal>>, PartyError> {
    let inside = seconders(tx.conn()).await?;
    let mut documents = open(tx).await?;
    documents.retain(|document| match &document.change {
        ProposedChange::AddPerson { person } => {
            person.organisation.is_none() && inside.iter().all(|p| *p == document.by)
        }
        _ => false,
    });
    Ok(documents)
}

fn list(roles: &BTreeSet<Role>) -> String {
    roles.iter().map(Role::to_string).collect::<Vec<_>>().join(", ")
}
