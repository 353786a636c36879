//! Databases that are known here, and queries whose rows are registered.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::link::{Outcome, Step};
use hospes_party::view::{AskedQuery, DatabaseTest, DatabaseView, NewDatabase};
use hospes_protocol::id::DatabaseId;
use serde_json::Value;

use super::{Asking, one_of};
use crate::arguments::{DatabaseCommand, Rows};
use crate::{output, secret};

/// Port of PostgreSQL.
const PORT: u16 = 5432;

/// `database …`
pub(crate) async fn database(asking: &mut Asking, command: DatabaseCommand) -> Result<()> {
    match command {
        DatabaseCommand::List => {
            let all: Vec<DatabaseView> = asking.ask(&Call::Databases {}).await?;
            asking.answer(&all, |all| {
                let row = |d: &DatabaseView| {
                    let place = format!("{}:{}", d.host, d.port);
                    let proof = if d.unverified { "not checked" } else { "checked" };
                    let seconds = d.timeout_s.to_string();
                    vec![d.name.clone(), place, d.database.clone(), d.user.clone(), proof.to_owned(), seconds]
                };
                let head = ["Name", "Host", "Database", "Role", "Certificate", "Seconds"];
                output::table(&head, all.iter().map(row));
            })
        }
        DatabaseCommand::Test { name } => {
            let database = known(asking, &name).await?.id;
            let steps: Vec<Step> = asking.ask(&Call::TestDatabase { database }).await?;
            asking.answer(&steps, |steps| tell(steps))?;
            failed(&steps)
        }
        DatabaseCommand::Forget { name } => {
            let database = known(asking, &name).await?.id;
            let answer: Value = asking.ask(&Call::ForgetDatabase { database }).await?;
            asking.answer(&answer, |_| output::say(&format!("'{name}' and its password are forgotten.")))
        }
    }
}

async fn known(asking: &mut Asking, name: &str) -> Result<DatabaseView> {
    let all: Vec<DatabaseView> = asking.ask(&Call::Databases {}).await?;
    let found = one_of("database", name, &all, |d| vec![d.name.clone(), d.id.to_string()])?;
    Ok(found.clone())
}

/// What is read: a file, a query in a file of SQLite, or one in a database on a server, which is connected where it is not
/// known yet.
pub(super) async fn source(
    asking: &mut Asking,
    file: Option<PathBuf>,
    rows: Rows,
) -> Result<(PathBuf, Option<AskedQuery>)> {
    let text = match &rows.query {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("read the query in {}", path.display()))?)
        }
        None => None,
    };
    match (file, &rows.sql, text) {
        (Some(file), None, text) => {
            let query = text.map(|text| AskedQuery { database: None, text });
            Ok((super::data::absolute(file)?, query))
        }
        (None, Some(named), Some(text)) => {
            let database = Some(server(asking, named, &rows).await?);
            Ok((PathBuf::new(), Some(AskedQuery { database, text })))
        }
        _ => bail!(Fault::new(FaultCode::Input, "name a file, or a database with --sql and a query with --query")),
    }
}

/// The database that is meant; a new one is tested, and kept with its password.
async fn server(asking: &mut Asking, named: &str, rows: &Rows) -> Result<DatabaseId> {
    if !named.contains("://") {
        return Ok(known(asking, named).await?.id);
    }
    let mut new = read_url(named).map_err(|words| Fault::new(FaultCode::Input, words))?;
    let all: Vec<DatabaseView> = asking.ask(&Call::Databases {}).await?;
    let port = new.port.unwrap_or(PORT);
    let same = all.iter().find(|d| {
        (d.host.as_str(), d.port, d.database.as_str(), d.user.as_str())
            == (new.host.as_str(), port, new.database.as_str(), new.user.as_str())
    });
    let says_nothing_new = rows.ca.is_none() && rows.timeout.is_none() && rows.db_password_file.is_none();
    if let Some(same) = same {
        if says_nothing_new && same.unverified == new.unverified {
            return Ok(same.id);
        }
        new.name.clone_from(&same.name);
    }
    new.extra_ca = rows.ca.clone().map(super::data::absolute).transpose()?;
    new.timeout_s = rows.timeout;
    let prompt = format!("Password of {} in {}: ", new.user, new.name);
    let password = secret::of_person(rows.db_password_file.as_deref(), &prompt)?;
    let test: DatabaseTest = asking.ask(&Call::AddDatabase { database: new, password }).await?;
    if !asking.json {
        tell(&test.steps);
    }
    failed(&test.steps)?;
    let kept = test.known.context("the database was tested and not kept")?;
    Ok(kept.id)
}

fn tell(steps: &[Step]) {
    for step in steps {
        let mark = match step.outcome {
            Outcome::Good => "good",
            Outcome::Notice => "look at it",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "not tested",
        };
        output::say(&format!("{}: {mark}. {}", step.test, step.finding));
    }
}

fn failed(steps: &[Step]) -> Result<()> {
    match steps.iter().find(|step| step.outcome == Outcome::Failed) {
        Some(step) => bail!(Fault::new(FaultCode::Data, step.finding.clone())),
        None => Ok(()),
    }
}

/// Reads `postgres://ROLE@HOST[:PORT]/DATABASE[?sslmode=…]`.
fn read_url(url: &str) -> Result<NewDatabase, String> {
    const FORM: &str = "a database is written as postgres://ROLE@HOST:PORT/DATABASE";
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| format!("{FORM}; a file of SQLite is named as it is"))?;
    let (place, settings) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, place) = place.rsplit_once('@').ok_or_else(|| format!("{FORM}; the role is missing"))?;
    if user.contains(':') {
        return Err(
            "the password does not belong into the URL, which others can read while the command runs; leave it \
                    out, and it is asked for (or name a file with --db-password-file)"
                .to_owned(),
        );
    }
    let (host, database) = place.split_once('/').ok_or_else(|| format!("{FORM}; the database is missing"))?;
    let (host, port) = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let wrong_port = |_| format!("{FORM}; the port is no number from 1 to 65535");
    let port = port.map(str::parse::<u16>).transpose().map_err(wrong_port)?;
    let mut unverified = false;
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        unverified = match setting {
            "sslmode=verify-full" => false,
            "sslmode=disable" | "sslmode=allow" | "sslmode=prefer" => true,
            "sslmode=require" | "sslmode=verify-ca" => {
                return Err(
                    "with this sslmode another server could take the place of yours unnoticed; leave it out, and \
                            the server has to prove its name (verify-full)"
                        .to_owned(),
                );
            }
            _ => return Err(format!("'{setting}' is nothing that can be set here; sslmode is")),
        };
    }
    let (user, host, database) = (decoded(user)?, decoded(host)?, decoded(database)?);
    let name = format!("{database} on {host}");
    Ok(NewDatabase { name, host, port, database, user, unverified, extra_ca: None, timeout_s: None })
}

/// A part of a URL as it is meant.
fn decoded(part: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.ok_or_else(|| format!("'{part}' has a % that two hexadecimal digits do not follow"))?);
    }
    String::from_utf8(bytes).map_err(|_| format!("'{part}' is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_all_but_the_password() {
        let read = read_url("postgres://re%40der@db.clinic.example:6432/clinic").unwrap();
        assert_eq!((read.user.as_str(), read.host.as_str(), read.port), ("re@der", "db.clinic.example", Some(6432)));
        assert_eq!((read.database.as_str(), read.unverified), ("clinic", false));
        assert_eq!(read.name, "clinic on db.clinic.example");
        let local = read_url("postgresql://reader@[::1]:5433/clinic?sslmode=prefer").unwrap();
        assert_eq!((local.host.as_str(), local.port, local.unverified), ("::1", Some(5433), true));
        assert_eq!(read_url("postgres://reader@db/clinic").unwrap().port, None);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (url, says) in [
            ("postgres://reader:hush@db/clinic", "does not belong into the URL"),
            ("mysql://reader@db/clinic", "is written as postgres://"),
            ("postgres://db/clinic", "the role is missing"),
            ("postgres://reader@db", "the database is missing"),
            ("postgres://reader@db:x/clinic", "the port is no number"),
            ("postgres://reader@db/clinic?sslmode=require", "take the place of yours"),
            ("postgres://reader@db/clinic?options=x", "nothing that can be set"),
            ("postgres://re%4@db/clinic", "hexadecimal digits"),
        ] {
            let words = read_url(url).unwrap_err();
            assert!(words.contains(says), "{url}: {words}");
            assert!(!words.contains("hush"), "{words}");
        }
    }
}
