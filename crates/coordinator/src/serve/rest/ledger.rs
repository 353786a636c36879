//! The coordinator's audit ledger: checkpoint, consistency, export. Reading and exporting it stand in it, too.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hospes_ledger::{Action, Ledger, LedgerError, ObjectKind};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Ask, Operator, Someone};
use super::{Answer, Problem};
use crate::enrol::actor;
use crate::serve::Shared;
use crate::{Error, random};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(checkpoint)).routes(routes!(consistency)).routes(routes!(export))
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
              (status = 403, body = Problem)))]
async fn export(State(shared): State<Arc<Shared>>, Operator(caller): Operator) -> Answer<Response> {
    let register = &shared.register;
    let now = shared.now();
    // The entry about the export comes first, so that nothing goes out that is not in the ledger.
    let mut tx = register.store.begin("audit_export").await?;
    let entry = register.audit.entry(now, actor(&caller), Action::AuditExported);
    let entry = entry.object(ObjectKind::Export, "whole ledger", None);
    register.audit.record(&mut tx, &[entry]).await?;
    tx.commit().await?;
    let mut writer = BufWriter::new(scratch(&shared)?);
    let mut connection = register.store.read().await?;
    let exported = Ledger::on(&mut *connection).export(&shared.home.key, now, &mut writer).await;
    let exported = exported.map_err(Error::from)?;
    drop(connection);
    let path = shared.home.folder.clone();
    let mut file = writer.into_inner().map_err(|e| Error::file("write", &path)(e.into_error()))?;
    file.rewind().map_err(Error::file("read", &path))?;
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl".to_owned()),
        (header::CONTENT_LENGTH, exported.bytes.to_string()),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"coordinator-ledger.jsonl\"".to_owned()),
    ];
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10);
    Ok((headers, Body::from_stream(stream)).into_response())
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
