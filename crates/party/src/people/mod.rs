//! People of the site: who they are, that it is really they, and what their roles let them do.
//!
//! There is no password file: logging in means opening one's own signing key. So nothing that lies in the database can
//! be used to guess a passphrase.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::approval::{Role, Signer};
use hospes_protocol::id::{Digest, PersonId, Timestamp};
use hospes_protocol::sign::{PublicKey, SecretKey};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use zeroize::Zeroizing;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::{KeyError, random, wrapped};
use crate::store::{At as _, from_json, parse};
use crate::view::{Me, Notice, PersonState, PersonView, Phase, SignInRules};

mod proposals;
mod register;
mod sign_in;

pub(crate) use proposals::{ProposedChange, waits};

/// Fewest characters of a passphrase.
pub(crate) const PASSPHRASE_CHARS: usize = 10;

/// A passphrase on its way; erased when dropped, never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
    /// Whether it may be chosen.
    ///
    /// # Errors
    /// [`PartyError::Input`] if it is too short.
    pub fn check(&self) -> Result<(), PartyError> {
        if self.0.chars().count() < PASSPHRASE_CHARS {
            return Err(PartyError::input("passphrase", format!("at least {PASSPHRASE_CHARS} characters are needed")));
        }
        Ok(())
    }
}

impl From<String> for Passphrase {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Somebody who is logged in. It holds for one engine process and ends when nothing was asked with it for a while.
#[derive(Clone)]
pub struct Session {
    token: Zeroizing<String>,
    person: PersonId,
    name: String,
    roles: BTreeSet<Role>,
    looks_on: bool,
}

impl Session {
    /// Who.
    pub fn person(&self) -> PersonId {
        self.person
    }
    /// Their name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether questions with it are asked by a screen that keeps itself up to date, rather than by the person: those do
    /// not keep the session alive on an unattended workstation.
    pub fn looks_on(&mut self, looks_on: bool) {
        self.looks_on = looks_on;
    }
    /// Their roles when they logged in; what counts is what the engine knows at each request.
    pub fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// What the engine keeps of a session.
pub(crate) struct LiveSession {
    person: PersonId,
    pub(crate) last_used: Timestamp,
}

/// Wrong log-ins under names that nobody here has. They have to wait like those under a name that somebody has, or the
/// wait would tell which names those are. Kept in memory, and only so many.
#[derive(Default)]
pub(crate) struct Strangers(HashMap<Digest, (i64, Timestamp)>);

impl Strangers {
    const MOST: usize = 1_000;

    fn key(name: &str) -> Digest {
        Digest::of(name.to_ascii_lowercase().as_bytes())
    }
    fn wait(&self, name: &str, now: Timestamp) -> i64 {
        self.0.get(&Self::key(name)).map_or(0, |(_, until)| until.since(now).max(0))
    }
    /// Counts a failure; the wait that follows.
    fn fail(&mut self, name: &str, now: Timestamp, rules: SignInRules) -> i64 {
        if self.0.len() >= Self::MOST {
            self.0.retain(|_, (_, until)| until.since(now) > 0);
        }
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        let (failures, until) = self.0.entry(Self::key(name)).or_insert((0, now));
        *failures += 1;
        let wait = rules.wait_ms(*failures);
        *until = now.plus_millis(wait);
        wait
    }
}

/// A person who does something, in the role that allows it.
#[derive(Clone, Debug)]
pub(crate) struct Acting {
    pub(crate) person: PersonId,
    pub(crate) role: Option<Role>,
    pub(crate) key: Option<PublicKey>,
}

impl Acting {
    /// As the ledger names them.
    pub(crate) fn actor(&self) -> Actor {
        Actor::person(self.person, self.role, None)
    }
    /// As the ledger names them when they signed.
    pub(crate) fn signing(&self) -> Actor {
        Actor::person(self.person, self.role, self.key)
    }
}

/// A person as the database has them.
pub(crate) struct Person {
    pub(crate) id: PersonId,
    pub(crate) name: String,
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) organisation: Option<String>,
    pub(crate) state: PersonState,
    pub(crate) key: Option<PublicKey>,
    failures: i64,
    locked_until: Timestamp,
    code: Option<String>,
    code_expires: Option<Timestamp>,
}

impl Person {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a person");
        let optional = |column: &'static str| row.try_get::<Option<String>, _>(column).at("read a person");
        Ok(Self {
            id: parse(&text("id")?, "id")?,
            name: text("name")?,
            roles: from_json(&text("roles")?, "roles")?,
            organisation: optional("organisation")?,
            state: from_json(&format!("\"{}\"", text("state")?), "state")?,
            key: optional("key")?.map(|k| parse(&k, "key")).transpose()?,
            failures: row.try_get("failures").at("read a person")?,
            locked_until: Timestamp::from_millis(row.try_get("locked_until").at("read a person")?),
            code: optional("code")?,
            code_expires: row
                .try_get::<Option<i64>, _>("code_expires")
                .at("read a person")?
                .map(Timestamp::from_millis),
        })
    }

    pub(crate) fn view(self) -> PersonView {
        PersonView {
            id: self.id,
            name: self.name,
            roles: self.roles,
            organisation: self.organisation,
            state: self.state,
            key: self.key,
        }
    }

    pub(crate) fn can_act(&self) -> bool {
        self.state == PersonState::Active
    }
}

/// Everybody, by name.
pub(crate) async fn all(conn: &mut SqliteConnection) -> Result<Vec<Person>, PartyError> {
    let rows = sqlx::query("SELECT * FROM persons ORDER BY name").fetch_all(conn).await.at("read people")?;
    rows.iter().map(Person::from_row).collect()
}

pub(crate) async fn by_id(conn: &mut SqliteConnection, id: PersonId) -> Result<Person, PartyError> {
    let row = sqlx::query("SELECT * FROM persons WHERE id = ?1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .at("read a person")?;
    Person::from_row(&row.ok_or_else(|| PartyError::NotFound(format!("person {id}")))?)
}

async fn by_name(conn: &mut SqliteConnection, name: &str) -> Result<Option<Person>, PartyError> {
    let row = sqlx::query("SELECT * FROM persons WHERE name = ?1").bind(name).fetch_optional(conn).await;
    row.at("read a person")?.as_ref().map(Person::from_row).transpose()
}

/// Name of a person, for people.
pub(crate) async fn name_of(conn: &mut SqliteConnection, id: PersonId) -> Result<String, PartyError> {
    Ok(by_id(conn, id).await?.name)
}

/// People whose signatures count, for permits.
pub(crate) async fn signers(conn: &mut SqliteConnection) -> Result<Vec<Signer>, PartyError> {
    let people = all(conn).await?;
    let signer = |p: Person| {
        let enabled = p.can_act();
        let external = p.organisation.is_some();
        Some(Signer { person: p.id, key: p.key?, roles: p.roles, external, enabled })
    };
    Ok(people.into_iter().filter_map(signer).collect())
}

/// How far the site is set up.
pub(crate) async fn phase(conn: &mut SqliteConnection) -> Result<Phase, PartyError> {
    if crate::store::setting(conn, "operating").await?.is_some() {
        return Ok(Phase::Operating);
    }
    let people: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM persons").fetch_one(conn).await.at("count people")?;
    Ok(if people == 0 { Phase::Empty } else { Phase::SetUp })
}

/// People who can act and hold a key.
pub(crate) async fn key_holders(conn: &mut SqliteConnection) -> Result<u32, PartyError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM persons WHERE state = 'active' AND key IS NOT NULL")
        .fetch_one(conn)
        .await
        .at("count people")?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// People of this organisation who could second a change of what is the site's own.
pub(crate) async fn seconders(conn: &mut SqliteConnection) -> Result<Vec<PersonId>, PartyError> {
    let able = |p: &Person| {
        let acts = p.organisation.is_none() && p.can_act() && p.key.is_some();
        acts && p.roles.iter().any(|r| proposals::SECOND.contains(r))
    };
    Ok(all(conn).await?.into_iter().filter(able).map(|p| p.id).collect())
}

impl Engine {
    /// Who asks, if their session holds and one of the roles is theirs. A refusal is audited.
    pub(crate) async fn acting(
        &mut self,
        session: &Session,
        action: &'static str,
        needs: &[Role],
    ) -> Result<Acting, PartyError> {
        let now = self.now();
        let idle = self.sign_in.idle_ms();
        let live = self.sessions.get_mut(session.token.as_str());
        let live = live.filter(|l| now.since(l.last_used) <= idle && now.since(l.last_used) >= -idle);
        let Some(live) = live else {
            return Err(self.end_session(&session.token).await);
        };
        if !session.looks_on {
            live.last_used = now;
        }
        let person = live.person;
        let mut conn = self.reader().await?;
        let person = by_id(&mut conn, person).await?;
        drop(conn);
        if !person.can_act() {
            return Err(self.end_session(&session.token).await);
        }
        let role = needs.iter().copied().find(|r| person.roles.contains(r));
        if role.is_none() && !needs.is_empty() {
            return Err(self.deny(person.id, action, needs.to_vec()).await?);
        }
        Ok(Acting { person: person.id, role, key: person.key })
    }

    /// As [`Engine::acting`], for what is the site's own: a person of another organisation reads the requests that they
    /// are to sign, signs them or turns them down, and looks after their own passphrase.
    pub(crate) async fn inside(
        &mut self,
        session: &Session,
        action: &'static str,
        needs: &[Role],
    ) -> Result<Acting, PartyError> {
        let acting = self.acting(session, action, needs).await?;
        if self.is_outsider(acting.person).await? {
            return Err(self.deny(acting.person, action, roles_inside(needs)).await?);
        }
        Ok(acting)
    }

    /// As [`Engine::inside`], at the end of work that a person asked for: it may have lasted longer than their session, and
    /// what they may do now counts.
    pub(crate) async fn inside_still(
        &self,
        person: PersonId,
        action: &'static str,
        needs: &[Role],
    ) -> Result<Acting, PartyError> {
        let mut conn = self.reader().await?;
        let person = by_id(&mut conn, person).await?;
        drop(conn);
        let role = needs.iter().copied().find(|r| person.roles.contains(r));
        if role.is_none() || !person.can_act() || person.organisation.is_some() {
            return Err(self.deny(person.id, action, needs.to_vec()).await?);
        }
        Ok(Acting { person: person.id, role, key: person.key })
    }

    /// Whether somebody belongs to another organisation.
    async fn is_outsider(&self, person: PersonId) -> Result<bool, PartyError> {
        let mut conn = self.reader().await?;
        Ok(by_id(&mut conn, person).await?.organisation.is_some())
    }

    /// Enters that somebody's roles do not allow something.
    async fn deny(&self, person: PersonId, action: &'static str, needs: Vec<Role>) -> Result<PartyError, PartyError> {
        let denied = PartyError::Denied { action, needs };
        let entry = self.entry(Actor::person(person, None, None), Action::RoleRefused).refused(&denied);
        self.record("refuse a role", &entry).await?;
        Ok(denied)
    }

    async fn end_session(&mut self, token: &str) -> PartyError {
        if let Some(live) = self.sessions.remove(token) {
            let entry = self.entry(Actor::person(live.person, None, None), Action::Logout);
            if let Err(e) = self.record("end a session", &entry).await {
                return e;
            }
        }
        PartyError::NoSession
    }

    /// Opens a person's signing key. Wrong passphrases cost time, more and more of it, and are audited.
    pub(crate) async fn unlock(&mut self, person: PersonId, passphrase: Passphrase) -> Result<SecretKey, PartyError> {
        let now = self.now();
        let mut conn = self.reader().await?;
        let person = by_id(&mut conn, person).await?;
        drop(conn);
        if now < person.locked_until {
            return Err(PartyError::LogIn { retry_in_ms: person.locked_until.since(now) });
        }
        let opened = match (person.can_act(), self.vault.find(&wrapped::name(person.id)).await?) {
            (true, Some(bytes)) => {
                let id = person.id;
                tokio::task::spawn_blocking(move || wrapped::unwrap(&bytes, id, &passphrase))
                    .await
                    .map_err(|_| PartyError::Stopped)?
            }
            _ => {
                self.waste_time(passphrase).await?;
                Err(KeyError::WrongPassphrase { what: "the signing key".into() })
            }
        };
        match opened {
            Ok(key) if Some(key.public()) == person.key => {
                if person.failures > 0 {
                    self.set_failures(person.id, 0, Timestamp::from_millis(0), None).await?;
                }
                Ok(key)
            }
            Ok(_) => Err(KeyError::Damaged { what: "a signing key".into() }.into()),
            Err(KeyError::WrongPassphrase { .. }) => {
                let failures = person.failures + 1;
                let wait = self.sign_in.wait_ms(failures);
                let actor = Actor::person(person.id, None, None);
                let entry = self.entry(actor, Action::LoginFailed).refused("wrong passphrase");
                self.set_failures(person.id, failures, now.plus_millis(wait), Some(entry)).await?;
                Err(PartyError::LogIn { retry_in_ms: wait })
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn set_failures(
        &mut self,
        person: PersonId,
        failures: i64,
        until: Timestamp,
        entry: Option<hospes_ledger::Entry>,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("count failures").await?;
        sqlx::query("UPDATE persons SET failures = ?2, locked_until = ?3 WHERE id = ?1")
            .bind(person.to_string())
            .bind(failures)
            .bind(until.as_millis())
            .execute(tx.conn())
            .await
            .at("count failures")?;
        if let Some(entry) = entry {
            self.append(&mut tx, &entry).await?;
        }
        tx.commit().await
    }

    /// An unknown name must cost what a wrong passphrase costs, or names could be found out by timing.
    async fn waste_time(&self, passphrase: Passphrase) -> Result<(), PartyError> {
        let cost = self.config.kdf;
        let derived = tokio::task::spawn_blocking(move || cost.derive(&passphrase, &[0; 16]).map(drop)).await;
        derived.map_err(|_| PartyError::Stopped)?.map_err(PartyError::from)
    }

    pub(crate) async fn log_in(&mut self, name: String, passphrase: Passphrase) -> Result<Session, PartyError> {
        let mut conn = self.reader().await?;
        let person = by_name(&mut conn, &name).await?;
        drop(conn);
        let Some(person) = person else {
            let now = self.now();
            let mut retry_in_ms = self.strangers.wait(&name, now);
            if retry_in_ms == 0 {
                self.waste_time(passphrase).await?;
                let entry = self.entry(Actor::Engine, Action::LoginFailed).refused("unknown name");
                self.record("refuse a log-in", &entry).await?;
                retry_in_ms = self.strangers.fail(&name, now, self.sign_in);
            }
            return Err(PartyError::LogIn { retry_in_ms });
        };
        drop(self.unlock(person.id, passphrase).await?);
        let token = Zeroizing::new(data_encoding::HEXLOWER.encode(&random::<32>()?));
        let entry = self.entry(Actor::person(person.id, None, None), Action::LoginSucceeded);
        self.record("log in", &entry).await?;
        let live = LiveSession { person: person.id, last_used: self.now() };
        self.sessions.insert(token.to_string(), live);
        Ok(Session { token, person: person.id, name: person.name, roles: person.roles, looks_on: false })
    }

    pub(crate) async fn whoami(&mut self, session: Session) -> Result<Me, PartyError> {
        let acting = self.acting(&session, "see who one is", &[]).await?;
        let idle = self.sign_in.idle_ms();
        let last_used = self.sessions.get(session.token.as_str()).map_or(self.now(), |live| live.last_used);
        let mut conn = self.reader().await?;
        let Person { id, name, roles, organisation, .. } = by_id(&mut conn, acting.person).await?;
        Ok(Me { id, name, roles, organisation, ends: last_used.plus_millis(idle) })
    }

    pub(crate) async fn log_out(&mut self, session: Session) -> Result<(), PartyError> {
        match self.end_session(&session.token).await {
            PartyError::NoSession => Ok(()),
            other => Err(other),
        }
    }

    /// Sessions that nobody used for a while end by themselves, so that the ledger shows when.
    pub(crate) async fn expire_sessions(&mut self) -> Result<(), PartyError> {
        let (now, idle) = (self.now(), self.sign_in.idle_ms());
        let old = |l: &LiveSession| now.since(l.last_used) > idle;
        let tokens: Vec<String> = self.sessions.iter().filter(|(_, l)| old(l)).map(|(t, _)| t.clone()).collect();
        for token in tokens {
            match self.end_session(&token).await {
                PartyError::NoSession => {}
                other => return Err(other),
            }
        }
        Ok(())
    }

    pub(crate) async fn people(&mut self, session: Session) -> Result<Vec<PersonView>, PartyError> {
        let acting = self.acting(&session, "see people", &[]).await?;
        let outsider = self.is_outsider(acting.person).await?;
        let mut conn = self.reader().await?;
        let people = all(&mut conn).await?.into_iter();
        // The names of the staff are not for a person of another organisation, who finds themselves here.
        Ok(people.filter(|p| !outsider || p.id == acting.person).map(Person::view).collect())
    }

    pub(crate) async fn change_passphrase(
        &mut self,
        session: Session,
        old: Passphrase,
        new: Passphrase,
    ) -> Result<(), PartyError> {
        let acting = self.acting(&session, "change one's passphrase", &[]).await?;
        new.check()?;
        let key = self.unlock(acting.person, old).await?;
        let (person, cost) = (acting.person, self.config.kdf);
        let wrapped = tokio::task::spawn_blocking(move || wrapped::wrap(&key, person, &new, cost))
            .await
            .map_err(|_| PartyError::Stopped)??;
        // Entered first: a passphrase changed without an entry is worse than an entry whose change did not happen.
        let entry = self.entry(acting.actor(), Action::PersonChanged).object(ObjectKind::Key, person, None);
        self.record("change a passphrase", &entry).await?;
        self.vault.keep(&wrapped::name(person), Zeroizing::new(wrapped)).await?;
        self.notify(Notice::People);
        Ok(())
    }
}

/// Which of these roles, or of all where any will do, a person of another organisation cannot have.
fn roles_inside(needs: &[Role]) -> Vec<Role> {
    let all = [Role::Administrator, Role::DataSteward, Role::PrivacyOfficer, Role::Auditor];
    all.into_iter().filter(|r| needs.is_empty() || needs.contains(r)).collect()
}
