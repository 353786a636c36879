//! A released model as a file of its own, with its card beside it. The copy is made outside the engine's loop and checked
//! while it is made, and the entry about it is written before the files get their names.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use hospes_ledger::{Action, ObjectKind, Purpose};
use hospes_protocol::id::{Digest, JobId};
use hospes_protocol::text::in_bytes;
use sha2::{Digest as _, Sha256};

use super::Job;
use super::card::Card;
use crate::audit::Because as _;
use crate::datasets::VIEWERS;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::new_file::{Part, free};
use crate::people::Session;
use crate::requests;
use crate::view::ModelExport;

/// What is hashed before a model's bytes, as `canon::digest("model", 1, …)` does.
const MODEL_PREFIX: &[u8] = b"hospes/model/v1\0";

/// An export that is under way.
pub(crate) struct ExportingModel {
    session: Session,
    job: JobId,
    purpose: Purpose,
    model: Digest,
    source: PathBuf,
    card: Vec<u8>,
    path: PathBuf,
    card_path: PathBuf,
}

/// Files that are written and have no names yet.
pub(crate) struct WrittenModel {
    session: Session,
    job: JobId,
    purpose: Purpose,
    path: PathBuf,
    card_path: PathBuf,
    file: Part,
    card: Part,
    export: ModelExport,
}

impl Engine {
    /// Finds what is to be copied.
    pub(crate) async fn begin_model_export(
        &mut self,
        session: Session,
        job: JobId,
        path: PathBuf,
        card_path: PathBuf,
    ) -> Result<ExportingModel, PartyError> {
        let acting = self.inside(&session, "export a model", VIEWERS).await?;
        self.held_to(&acting, Action::ModelExported, self.managed.check_export()).await?;
        free(&path)?;
        free(&card_path)?;
        let mut conn = self.reader().await?;
        let found = Job::read(&mut conn, job).await?;
        let model = found.released_model()?;
        let study = requests::study(&mut conn, found.study).await?.study.digest();
        drop(conn);
        let source = self.model_path(found.federation, model);
        let card = std::fs::read(self.card_path(job)).ok().filter(|_| source.exists());
        let card = card.filter(|bytes| Card::read(bytes, &found, Some(model), study).is_ok());
        let missing = "the model is not here yet; fetch it first, together with its card";
        let card = card.ok_or_else(|| PartyError::state(missing))?;
        Ok(ExportingModel { session, job, purpose: found.purpose(), model, source, card, path, card_path })
    }

    /// Enters the export in the log, and then gives the files their names.
    pub(crate) async fn finish_model_export(&mut self, written: WrittenModel) -> Result<ModelExport, PartyError> {
        let WrittenModel { session, job, purpose, path, card_path, file, card, export } = written;
        let acting = self.inside(&session, "export a model", VIEWERS).await?;
        let entry = self
            .entry(acting.actor(), Action::ModelExported)
            .object(ObjectKind::Model, export.model.short(), Some(export.model))
            .object(ObjectKind::Job, job, None)
            .object(ObjectKind::Export, "card", Some(export.card))
            .purpose(purpose)
            .because(format!("a file of {}, SHA-256 {}, with its card", in_bytes(export.bytes), export.digest));
        self.name_entered("export a model", entry, vec![(card, &card_path), (file, &path)]).await?;
        Ok(export)
    }
}

impl ExportingModel {
    /// Makes the files, beside their places and under other names.
    pub(crate) fn write(self) -> Result<WrittenModel, PartyError> {
        let Self { session, job, purpose, model, source, card, path, card_path } = self;
        let fail = |source| PartyError::file("write", &path, source);
        let file = Part::create(&path).map_err(fail)?;
        let mut from = File::open(&source).map_err(|error| PartyError::file("read", &source, error))?;
        let (found, digest, bytes) = copied(&mut from, &mut file.file()).map_err(fail)?;
        check(found, model, &source)?;
        file.file().sync_all().map_err(fail)?;
        let fail = |source| PartyError::file("write", &card_path, source);
        let beside = Part::create(&card_path).map_err(fail)?;
        beside.file().write_all(&card).and_then(|()| beside.file().sync_all()).map_err(fail)?;
        let export = ModelExport { model, bytes, digest, card: Digest::of(&card) };
        Ok(WrittenModel { session, job, purpose, path, card_path, file, card: beside, export })
    }
}

/// Refuses the file of a model that is not what came.
pub(super) fn check_model(path: &Path, model: Digest) -> Result<(), PartyError> {
    let fail = |error| PartyError::file("read", path, error);
    let (found, ..) = copied(&mut File::open(path).map_err(fail)?, &mut io::sink()).map_err(fail)?;
    check(found, model, path)
}

fn check(found: Digest, model: Digest, path: &Path) -> Result<(), PartyError> {
    if found == model {
        return Ok(());
    }
    // The next one who asks gets it anew.
    let _ = std::fs::remove_file(path);
    let words = "the model in this site's folder was changed since it came, and is deleted; fetch it again";
    Err(PartyError::state(words))
}

/// Copies a file; its digest as a model, that of its bytes alone, and their number.
pub(super) fn copied(from: &mut File, to: &mut impl Write) -> io::Result<(Digest, Digest, u64)> {
    let (mut as_model, mut plain) = (Sha256::new(), Sha256::new());
    as_model.update(MODEL_PREFIX);
    let mut block = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            let of = |hash: Sha256| Digest::from_bytes(hash.finalize().into());
            return Ok((of(as_model), of(plain), bytes));
        }
        let part = &block[..read];
        as_model.update(part);
        plain.update(part);
        to.write_all(part)?;
        bytes += read as u64;
    }
}
