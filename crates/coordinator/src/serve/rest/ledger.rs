//! The coordinator's audit ledger: checkpoint, consistency, export. It is read by its export only, and that stands in it,
//! too; checkpoints and proofs hold no entry.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt as _;
use hospes_ledger::{Action, Ledger, LedgerError, ObjectKind};
use hospes_protocol::id::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Ask, Id, Operator, Someone};
use super::{Answer, Problem};
use crate::enrol::actor;
use crate::serve::Shared;
use crate::{Error, random};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(checkpoint))
        .routes(routes!(peer_checkpoint))
        .routes(routes!(consistency))
        .routes(routes!(export))
}

/// Between which sizes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Between {
    /// Size that was seen before.
    from: u64,
    /// Size that must begin with it.
    to: u64,
}

/// A consistency proof (RFC 6962 §2.1.2).
#[derive(Serialize, ToSchema)]
struct Consistency {
    /// Size that was seen before.
    from: u64,
    /// Size that begins with it.
    to: u64,
    /// Hashes, hexadecimal.
    proof: Vec<String>,
}

/// A checkpoint of the ledger as it is now, signed by the coordinator's identity key: a C2SP signed note with the
/// cosignatures that it has.
#[utoipa::path(get, path = "/api/v1/ledger/checkpoint", tag = "ledger",
    responses((status = 200, content_type = "text/plain", body = String), (status = 401, body = Problem)))]
async fn checkpoint(State(shared): State<Arc<Shared>>, _: Someone) -> Answer<String> {
    let store = &shared.register.store;
    let mut tx = store.begin("checkpoint").await?;
    Ledger::on(tx.conn()).checkpoint(&shared.home.key, shared.now()).await.map_err(Error::from)?;
    tx.commit().await?;
    let mut connection = store.read().await?;
    let kept = Ledger::on(&mut *connection).own_checkpoint(shared.federation()).await.map_err(Error::from)?;
    Ok(kept.ok_or_else(|| Error::corrupt("checkpoint", "it was not kept"))?.note())
}

/// The newest checkpoint of a site's ledger that the coordinator saw and cosigned: a C2SP signed note. An export of that
/// ledger that does not contain it was cut, rewritten or forked since.
#[utoipa::path(get, path = "/api/v1/ledger/peers/{site}/checkpoint", tag = "ledger", params(("site" = String, Path)),
    responses((status = 200, content_type = "text/plain", body = String), (status = 401, body = Problem),
              (status = 404, body = Problem)))]
async fn peer_checkpoint(State(shared): State<Arc<Shared>>, _: Someone, Id(site): Id<SiteId>) -> Answer<String> {
    let mut connection = shared.register.store.read().await?;
    let seen = Ledger::on(&mut *connection).peer(site).await.map_err(Error::from)?;
    Ok(seen.ok_or_else(|| Problem::not_found(format!("no checkpoint of the ledger of {site} was seen yet")))?.note)
}

/// A proof that the ledger of one size begins with that of a smaller one.
#[utoipa::path(get, path = "/api/v1/ledger/consistency", tag = "ledger", params(Between),
    responses((status = 200, body = Consistency), (status = 401, body = Problem), (status = 422, body = Problem)))]
async fn consistency(
    State(shared): State<Arc<Shared>>,
    _: Someone,
    Ask(Between { from, to }): Ask<Between>,
) -> Answer<Json<Consistency>> {
    let mut connection = shared.register.store.read().await?;
    match Ledger::on(&mut *connection).prove_consistency(from, to).await {
        Ok(proof) => Ok(Json(Consistency { from, to, proof: proof.iter().map(ToString::to_string).collect() })),
        Err(error @ LedgerError::OutOfRange { .. }) => Err(Problem::invalid(error.to_string(), Vec::new())),
        Err(error) => Err(Error::from(error).into()),
    }
}

/// The whole ledger as JSON Lines with proofs, for `hospesctl audit verify`.
#[utoipa::path(get, path = "/api/v1/ledger/export", tag = "ledger",
    responses((status = 200, content_type = "application/jsonl", body = String), (status = 401, body = Problem),
              (status = 403, body = Problem), (status = 409, body = Problem)))]
async fn export(State(shared): State<Arc<Shared>>, Operator(caller): Operator) -> Answer<Response> {
    let place = shared.exports.clone().try_acquire_owned();
    let place =
        place.map_err(|_| Problem::conflict("an export of the ledger is under way; wait until it has ended"))?;
    let register = &shared.register;
    let now = shared.now();
    // The entry about the export comes first, so that nothing goes out that is not in the ledger.
    let mut tx = register.store.begin("audit_export").await?;
    let entry = register.audit.entry(now, actor(&caller), Action::AuditExported);
    let entry = entry.object(ObjectKind::Export, "whole ledger", None);
    register.audit.record(&mut tx, &[entry]).await?;
    tx.commit().await?;
    // Writing the file blocks and may take minutes: it has a thread and a connection of its own, and the answer begins
    // before it ends. An export that breaks off has no end line, and the reader of the answer sees it break off, too.
    let runtime = tokio::runtime::Handle::current();
    let written = tokio::task::spawn_blocking(move || {
        let _place = place;
        runtime.block_on(write(&shared, now))
    });
    let file = async move {
        let file = written.await.unwrap_or(Err(Error::Stopping));
        file.map_err(|error| std::io::Error::other(super::log(&error)))
    };
    let stream = futures::stream::once(file)
        .map_ok(|file| ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10))
        .try_flatten();
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"coordinator-ledger.jsonl\""),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Writes the ledger to a scratch file, so that a slow reader of the answer holds no connection to the database.
async fn write(shared: &Shared, now: Timestamp) -> Result<File, Error> {
    let path = &shared.home.folder;
    let mut writer = BufWriter::new(scratch(shared)?);
    let mut connection = shared.register.store.aside().await?;
    Ledger::on(&mut connection).export(&shared.home.key, now, &mut writer).await?;
    let mut file = writer.into_inner().map_err(|e| Error::file("write", path)(e.into_error()))?;
    file.rewind().map_err(Error::file("read", path))?;
    Ok(file)
}

/// A file without a name in the data folder: gone with its last handle, whatever happens.
fn scratch(shared: &Shared) -> Result<File, Error> {
    let path = shared.home.folder.join(format!("export-{}", data_encoding::HEXLOWER.encode(&random::<12>()?)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file("create", &path))?;
    std::fs::remove_file(&path).map_err(Error::file("delete", &path))?;
    Ok(file)
}
