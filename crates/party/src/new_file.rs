//! New files where a person wants them: written under another name beside their place, and named when they are whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hospes_ledger::Entry;
use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::error::PartyError;

/// Refuses a name that is taken: an export never stands in the place of another file.
pub(crate) fn free(path: &Path) -> Result<(), PartyError> {
    match path.symlink_metadata() {
        Ok(_) => Err(PartyError::file("make the new file", path, io::ErrorKind::AlreadyExists.into())),
        Err(_) => Ok(()),
    }
}

/// A file under another name beside its place; gone if it is not kept.
pub struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Makes it; nobody else can read it.
    ///
    /// # Errors
    /// If the place has no name, or its folder cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(name);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Self { path, file })
    }

    /// What is to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies, for a process of its own that writes it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, which must still be free.
    ///
    /// # Errors
    /// If there is something of that name, or the folder cannot be written.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        // A link fails where there is something already, whoever made it a moment ago.
        match std::fs::hard_link(&self.path, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Sticks and shares know no links.
            Err(_) if path.symlink_metadata().is_err() => std::fs::rename(&self.path, path)?,
            Err(error) => return Err(error),
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        crate::keys::sealed::sync_folder(folder.unwrap_or(Path::new(".")))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Engine {
    /// Gives files their names, once the log has the entry about them: all of them, or none.
    ///
    /// # Errors
    /// If one has no name to be had, or it cannot be entered.
    pub(crate) async fn name_entered(
        &self,
        step: &'static str,
        entry: Entry,
        files: Vec<(Part, &Path)>,
    ) -> Result<(), PartyError> {
        for (_, path) in &files {
            free(path)?;
        }
        self.record(step, &entry).await?;
        if let Err(error) = named(files) {
            // The log says that there are such files; it must also say that there are none after all.
            let none = Entry { at: self.now(), ..entry }.failed("a file could not get its name");
            self.record(step, &none).await?;
            return Err(error);
        }
        Ok(())
    }
}

fn named(files: Vec<(Part, &Path)>) -> Result<(), PartyError> {
    let mut done: Vec<&Path> = Vec::new();
    for (part, path) in files {
        if let Err(error) = part.keep(path) {
            for other in done {
                // It was named a moment ago, and says nothing without the rest.
                let _ = std::fs::remove_file(other);
            }
            return Err(PartyError::file("write", path, error));
        }
        done.push(path);
    }
    Ok(())
}

/// Hashes and counts what is written.
pub(crate) struct Hashing<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, hash: Sha256::new(), bytes: 0 }
    }

    /// SHA-256 and length of what was written.
    pub(crate) fn ended(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hash.finalize().into()), self.bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
