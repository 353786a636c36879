//! Adding and changing people. While the site is being set up an administrator does it alone; afterwards everything that
//! could weaken the four eyes needs a second person's signature.

use std::collections::BTreeSet;

use data_encoding::BASE32_NOPAD;
use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::id::{Digest, PersonId};
use hospes_protocol::look::are_alike;
use hospes_protocol::text::{name_key, shown};
use sqlx::sqlite::SqliteConnection;
use zeroize::Zeroizing;

use super::proposals::SECOND;
use super::{Acting, Passphrase, Person, ProposedChange, Session, all, by_id, by_name, phase, seconders};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::{random, wrapped};
use crate::store::{At as _, Tx, to_json};
use crate::view::{NewPerson, Notice, Outcome, PersonChange, PersonState, PersonView, Phase};

/// Why somebody stays an administrator.
pub(super) const LAST_ADMINISTRATOR: &str = "this is the last administrator; make another one first";

/// How long a one-time code is good, in milliseconds: a week.
const CODE_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// Refuses roles that would let somebody decide what they supervise (GDPR Art. 38(6)), and powers of outsiders.
pub(super) fn check_roles(roles: &BTreeSet<Role>, external: bool) -> Result<(), PartyError> {
    let wrong = |reason: &str| Err(PartyError::input("roles", reason));
    let only = |allowed: &[Role]| roles.iter().all(|r| allowed.contains(r));
    if roles.is_empty() {
        return wrong("at least one role is needed");
    }
    if roles.contains(&Role::PrivacyOfficer) && !only(&[Role::PrivacyOfficer, Role::Auditor]) {
        return wrong("a privacy officer must not decide what they supervise: no other role but auditor goes with it");
    }
    if external && !only(&[Role::DataAccessApprover]) {
        return wrong("a person of another organisation can only give the second signature");
    }
    Ok(())
}

/// Refuses a name that looks like somebody's, or is theirs but for case, blanks and signs: nobody could tell their signatures
/// apart.
fn check_look(name: &str, people: &[Person]) -> Result<(), PartyError> {
    let key = name_key(name);
    let is_same = |known: &str| !key.is_empty() && name_key(known) == key;
    let like = people.iter().find(|person| is_same(&person.name) || are_alike(name, &person.name));
    let Some(like) = like else { return Ok(()) };
    let like = shown(&like.name, 100);
    Err(PartyError::input(
        "name",
        format!("it looks like '{like}', who is here already; take one that looks different"),
    ))
}

/// A one-time code for a person, and what is kept of it.
fn new_code() -> Result<(String, String), PartyError> {
    let code = BASE32_NOPAD.encode(&random::<10>()?).to_ascii_lowercase();
    let kept = Digest::of(code.as_bytes()).to_string();
    Ok((code, kept))
}

impl Engine {
    pub(crate) async fn set_up(
        &mut self,
        name: String,
        passphrase: Passphrase,
        account: Option<u32>,
    ) -> Result<PersonId, PartyError> {
        check_name(&name)?;
        passphrase.check()?;
        let person = PersonId::new(self.now(), random()?);
        let (key, wrapped) = self.new_key(person, passphrase).await?;
        let mut tx = self.store.begin("add the first person").await?;
        if phase(tx.conn()).await? != Phase::Empty {
            return Err(PartyError::state(
                "somebody has set this site up already; its administrator adds people, who come in with the code that \
                 they are handed",
            ));
        }
        let roles = BTreeSet::from([Role::Administrator]);
        sqlx::query("INSERT INTO persons (id, name, roles, state, key, at) VALUES (?1, ?2, ?3, 'active', ?4, ?5)")
            .bind(person.to_string())
            .bind(&name)
            .bind(to_json(&roles))
            .bind(key.to_string())
            .bind(self.now().as_millis())
            .execute(tx.conn())
            .await
            .at("add the first person")?;
        let actor = Actor::person(person, Some(Role::Administrator), None);
        let mut entry = self.entry(actor.clone(), Action::PersonAdded).object(ObjectKind::Person, person, None);
        // Nobody had vouched for whoever this is: the machine says at least from where they came.
        entry.reason = account.map(|account| {
            format!("first person of this site, by the socket for staff, account {account} of the machine")
        });
        self.append(&mut tx, &entry).await?;
        let entry = self.entry(actor, Action::KeyMade).object(ObjectKind::Key, key, None);
        self.append(&mut tx, &entry).await?;
        // A key without a person does no harm; a person without a key could never log in.
        self.vault.keep(&wrapped::name(person), wrapped).await?;
        tx.commit().await?;
        self.notify(Notice::People);
        Ok(person)
    }

    async fn new_key(
        &self,
        person: PersonId,
        passphrase: Passphrase,
    ) -> Result<(hospes_protocol::sign::PublicKey, Zeroizing<Vec<u8>>), PartyError> {
        let cost = self.config.kdf;
        let (key, wrapped) = tokio::task::spawn_blocking(move || wrapped::generate(person, &passphrase, cost))
            .await
            .map_err(|_| PartyError::Stopped)??;
        Ok((key.public(), Zeroizing::new(wrapped)))
    }

    pub(crate) async fn activate(
        &mut self,
        name: String,
        code: String,
        passphrase: Passphrase,
    ) -> Result<PersonView, PartyError> {
        passphrase.check()?;
        let now = self.now();
        let mut conn = self.reader().await?;
        let person = by_name(&mut conn, &name).await?;
        drop(conn);
        let typed = Digest::of(code.trim().to_ascii_lowercase().as_bytes()).to_string();
        let fits = |p: &super::Person| {
            p.state == PersonState::Invited
                && p.code_expires.is_some_and(|e| now < e)
                && p.code.as_deref() == Some(typed.as_str())
        };
        let Some(person) = person.filter(fits) else {
            let entry = self.entry(Actor::Engine, Action::LoginFailed).refused("wrong, used or expired one-time code");
            self.record("refuse a code", &entry).await?;
            return Err(PartyError::LogIn { retry_in_ms: 0 });
        };
        let (key, wrapped) = self.new_key(person.id, passphrase).await?;
        let mut tx = self.store.begin("activate a person").await?;
        let replaced: bool = sqlx::query_scalar("SELECT replacing FROM persons WHERE id = ?1")
            .bind(person.id.to_string())
            .fetch_one(tx.conn())
            .await
            .at("activate a person")?;
        sqlx::query(
            "UPDATE persons SET state = ?2, key = ?3, code = NULL, code_expires = NULL, failures = 0, locked_until = 0
             WHERE id = ?1",
        )
        .bind(person.id.to_string())
        .bind(if replaced { "key_unconfirmed" } else { "active" })
        .bind(key.to_string())
        .execute(tx.conn())
        .await
        .at("activate a person")?;
        let actor = Actor::person(person.id, None, Some(key));
        let entry = self.entry(actor, Action::KeyMade).object(ObjectKind::Key, key, None);
        self.append(&mut tx, &entry).await?;
        self.vault.keep(&wrapped::name(person.id), wrapped).await?;
        let person = by_id(tx.conn(), person.id).await?.view();
        tx.commit().await?;
        self.notify(Notice::People);
        Ok(person)
    }

    pub(crate) async fn add_person(
        &mut self,
        session: Session,
        person: NewPerson,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let acting = self.acting(&session, "add a person", &[Role::Administrator]).await?;
        check_name(&person.name)?;
        check_roles(&person.roles, person.organisation.is_some())?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("add a person").await?;
        if by_name(tx.conn(), &person.name).await?.is_some() {
            return Err(PartyError::input("name", "somebody has this name already"));
        }
        check_look(&person.name, &all(tx.conn()).await?)?;
        let change = ProposedChange::AddPerson { person };
        self.do_or_propose(tx, &acting, &key, change).await
    }

    pub(crate) async fn change_person(
        &mut self,
        session: Session,
        person: PersonId,
        change: PersonChange,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let recovers = change == PersonChange::NewKey && self.needs_recovery(&session, person).await?;
        let acting = match recovers {
            true => self.inside(&session, "begin with a new key for the only administrator", SECOND).await?,
            false => self.acting(&session, "change a person", &[Role::Administrator]).await?,
        };
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("change a person").await?;
        let before = by_id(tx.conn(), person).await?;
        if recovers {
            return self.do_or_propose(tx, &acting, &key, ProposedChange::Recover { person }).await;
        }
        let removes_admin = match &change {
            PersonChange::Roles(roles) => !roles.contains(&Role::Administrator),
            PersonChange::Disable | PersonChange::NewKey => true,
            PersonChange::Enable => false,
        };
        if removes_admin && self.is_last_administrator(&mut tx, person).await? {
            return Err(PartyError::state(LAST_ADMINISTRATOR));
        }
        match change {
            PersonChange::Disable => self.disable(tx, &acting, person).await,
            PersonChange::Roles(roles) => {
                check_roles(&roles, before.organisation.is_some())?;
                self.do_or_propose(tx, &acting, &key, ProposedChange::Roles { person, roles }).await
            }
            PersonChange::Enable => {
                if before.state != PersonState::Disabled {
                    return Err(PartyError::state("the person is not disabled"));
                }
                self.do_or_propose(tx, &acting, &key, ProposedChange::Enable { person }).await
            }
            PersonChange::NewKey => self.start_replacement(tx, &acting, &key, person).await,
        }
    }

    async fn disable(&mut self, mut tx: Tx, acting: &Acting, person: PersonId) -> Result<Outcome, PartyError> {
        sqlx::query("UPDATE persons SET state = 'disabled', code = NULL WHERE id = ?1")
            .bind(person.to_string())
            .execute(tx.conn())
            .await
            .at("change a person")?;
        let entry = self
            .entry(acting.signing(), Action::PersonChanged)
            .object(ObjectKind::Person, person, None)
            .because("disabled");
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::People);
        self.notify(Notice::Requests);
        // What rests on this person's signature stops.
        self.recheck_work().await?;
        Ok(Outcome::Done { code: None })
    }

    /// A forgotten passphrase: the old key is destroyed at once, the new one counts when a second person confirmed it.
    async fn start_replacement(
        &mut self,
        mut tx: Tx,
        acting: &Acting,
        key: &hospes_protocol::sign::SecretKey,
        person: PersonId,
    ) -> Result<Outcome, PartyError> {
        let code = self.begin_replacement(&mut tx, acting, key, person).await?;
        tx.commit().await?;
        // After the commit: from here on nobody accepts the old key, whether it could be erased or not.
        self.vault.destroy(&wrapped::name(person)).await?;
        self.notify(Notice::People);
        self.notify(Notice::Requests);
        // What rests on the old key's signature stops.
        self.recheck_work().await?;
        Ok(Outcome::Done { code: Some(code) })
    }

    /// Hands out a code for a new key, which in operation a third person confirms. The caller destroys the old one.
    pub(super) async fn begin_replacement(
        &self,
        tx: &mut Tx,
        acting: &Acting,
        key: &hospes_protocol::sign::SecretKey,
        person: PersonId,
    ) -> Result<String, PartyError> {
        let (code, kept) = new_code()?;
        let operating = phase(tx.conn()).await? == Phase::Operating;
        if operating {
            let confirms = |p: &PersonId| *p != acting.person && *p != person;
            if !seconders(tx.conn()).await?.iter().any(confirms) {
                return Err(PartyError::state(
                    "nobody could confirm the new key: that takes a third person of this organisation, who is an \
                     administrator, data steward or data-access approver; nothing was changed. Add one first",
                ));
            }
            self.close_replacements(tx, person).await?;
        }
        self.hand_out_code(tx, person, &kept, operating).await?;
        if operating {
            self.write_proposal(tx, acting, key, ProposedChange::ReplaceKey { person }).await?;
        }
        let entry = self.entry(acting.signing(), Action::KeyReplaced).object(ObjectKind::Person, person, None);
        self.append(tx, &entry).await?;
        Ok(code)
    }

    async fn hand_out_code(
        &self,
        tx: &mut Tx,
        person: PersonId,
        kept: &str,
        replacing: bool,
    ) -> Result<(), PartyError> {
        sqlx::query(
            "UPDATE persons SET state = 'invited', key = NULL, code = ?2, code_expires = ?3, replacing = ?4
             WHERE id = ?1",
        )
        .bind(person.to_string())
        .bind(kept)
        .bind(self.now().plus_millis(CODE_MS).as_millis())
        .bind(replacing)
        .execute(tx.conn())
        .await
        .at("hand out a code")?;
        Ok(())
    }

    /// Whether only other people's signatures can give this person a new key: the only administrator, in operation.
    async fn needs_recovery(&self, session: &Session, person: PersonId) -> Result<bool, PartyError> {
        let mut conn = self.reader().await?;
        let operating = phase(&mut conn).await? == Phase::Operating;
        Ok(operating && session.person() != person && is_only_administrator(&mut conn, person).await?)
    }

    pub(super) async fn is_last_administrator(&self, tx: &mut Tx, person: PersonId) -> Result<bool, PartyError> {
        let people = all(tx.conn()).await?;
        let others = people.iter().any(|p| p.id != person && p.can_act() && p.roles.contains(&Role::Administrator));
        let this = people.iter().any(|p| p.id == person && p.can_act() && p.roles.contains(&Role::Administrator));
        Ok(this && !others)
    }

    /// Makes a person who has been decided on; returns the code for them.
    pub(super) async fn insert_person(
        &self,
        tx: &mut Tx,
        actor: Actor,
        person: NewPerson,
    ) -> Result<Option<String>, PartyError> {
        // As when it was proposed: somebody who looks like them may have joined since.
        check_look(&person.name, &all(tx.conn()).await?)?;
        let (code, kept) = new_code()?;
        let id = PersonId::new(self.now(), random()?);
        sqlx::query(
            "INSERT INTO persons (id, name, roles, organisation, state, code, code_expires, at)
             VALUES (?1, ?2, ?3, ?4, 'invited', ?5, ?6, ?7)",
        )
        .bind(id.to_string())
        .bind(&person.name)
        .bind(to_json(&person.roles))
        .bind(&person.organisation)
        .bind(kept)
        .bind(self.now().plus_millis(CODE_MS).as_millis())
        .bind(self.now().as_millis())
        .execute(tx.conn())
        .await
        .at("add a person")?;
        let entry = self.entry(actor, Action::PersonAdded).object(ObjectKind::Person, id, None);
        self.append(tx, &entry).await?;
        Ok(Some(code))
    }
}

/// Whether nobody else could act as an administrator, and this person is one, with a key or waiting for the next.
pub(super) async fn is_only_administrator(conn: &mut SqliteConnection, person: PersonId) -> Result<bool, PartyError> {
    let people = all(conn).await?;
    let is_admin = |p: &super::Person| p.roles.contains(&Role::Administrator);
    let others = people.iter().any(|p| p.id != person && p.can_act() && is_admin(p));
    let this = people.iter().any(|p| p.id == person && p.state != PersonState::Disabled && is_admin(p));
    Ok(this && !others)
}

fn check_name(name: &str) -> Result<(), PartyError> {
    hospes_protocol::text::check_name(name).map_err(|reason| PartyError::input("name", reason))
}
