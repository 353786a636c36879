//! Files between two accounts: what somebody hands over to another account's engine with a command, and takes from it.
//!
//! Such an engine can read no file of the caller's, and must read and write none that the caller names: it would lend its
//! rights to whoever asks. So a command that names files has a *bundle*, a folder of the engine's own. Before the command,
//! files are given into it piece by piece; the command names them as they are called there; what it writes is taken from
//! there when it is done, and not before, since the audit log comes first. Then the bundle goes, and at the latest with the
//! connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64;
use hospes_party::Part;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fault::{Fault, FaultCode};
use crate::named::Named;
use crate::router::Router;
use crate::socket::Client;
use crate::table::Call;

/// Longest piece of a file in one request.
const PIECE_BYTES: usize = 1 << 20;
/// Most pieces of a bundle: that many small files, or so many MiB.
const PIECES: u32 = 1 << 18;
/// Most bundles of a connection at a time.
const BUNDLES: usize = 16;
/// Folders within each other in a folder that is handed over.
const DEPTH: usize = 16;
/// Bytes of a name, with the folders before it.
const NAME_BYTES: usize = 1_024;
/// Space that stays free on the engine's disk, which must be able to write its audit log.
const RESERVE_BYTES: u64 = 1 << 30;

/// What goes over the connection besides commands.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Parcel {
    /// The next piece of a file.
    Give {
        /// Which bundle; a new number makes one.
        bundle: u64,
        /// What the file is called in it.
        name: String,
        /// Bytes, in base64.
        piece: String,
    },
    /// Asks for a piece of a file that a command wrote; an empty one is its end.
    Take {
        /// Which bundle.
        bundle: u64,
        /// What the command called it.
        name: String,
        /// Bytes before the piece.
        at: u64,
    },
    /// The bundle is not needed any more.
    End {
        /// Which.
        bundle: u64,
    },
}

/// The bundles of one connection.
pub(crate) struct Handed {
    folder: PathBuf,
    bundles: Mutex<HashMap<u64, Bundle>>,
}

struct Bundle {
    folder: Arc<Folder>,
    pieces: u32,
    /// Files of a command that was carried out.
    written: Vec<PathBuf>,
}

/// The folder of a bundle. It goes with the last who needs it: what is still being written when a bundle ends would make
/// it anew, and nobody would take it away.
struct Folder(PathBuf);

/// The files of a command while it is carried out.
#[derive(Default)]
pub(crate) struct Placed {
    /// Those that it writes, as it calls them.
    written: Vec<PathBuf>,
    /// Where they lie.
    folder: Option<Arc<Folder>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            // The next start sweeps it.
            tracing::warn!(%error, "files that were handed over cannot be removed");
        }
    }
}

impl Handed {
    /// Bundles are folders in this one.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, bundles: Mutex::new(HashMap::new()) }
    }

    /// An empty place for bundles: what lies there is left from a process that is gone.
    pub(crate) fn sweep(folder: &Path) -> std::io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(folder)
    }

    /// Takes a file in, or gives one out. Without a way to an engine there is no site yet: whoever might set it up may hand
    /// a backup over instead, and the disk keeps its reserve.
    pub(crate) async fn answer(&self, parcel: Parcel, router: Option<&Router>) -> Result<Value, Fault> {
        match parcel {
            Parcel::Give { bundle, name, piece } => {
                let is_new = !self.bundles().contains_key(&bundle);
                // Whoever is nobody here fills no disk, nor goes on with what they began before there was a site.
                if let Some(router) = router.filter(|router| is_new || !router.is_entered()) {
                    router.require_person().await?;
                }
                let piece = BASE64.decode(piece.as_bytes()).ok().filter(|piece| piece.len() <= PIECE_BYTES);
                let piece = piece.ok_or_else(|| Fault::new(FaultCode::Command, "a piece of a file cannot be read"))?;
                self.take_in(bundle, &name, piece).await?;
                Ok(Value::Null)
            }
            Parcel::Take { bundle, name, at } => {
                let piece = self.give_out(bundle, Path::new(&name), at).await?;
                Ok(Value::String(BASE64.encode(&piece)))
            }
            Parcel::End { bundle } => {
                self.end(bundle).await;
                Ok(Value::Null)
            }
        }
    }

    async fn take_in(&self, number: u64, name: &str, piece: Vec<u8>) -> Result<(), Fault> {
        let (folder, place) = {
            let mut bundles = self.bundles();
            let bundle = self.bundle(&mut bundles, number)?;
            bundle.pieces = bundle.pieces.saturating_add(1);
            if bundle.pieces > PIECES {
                let words = format!("more than {PIECES} files, or MiB, are not handed over with one command");
                return Err(Fault::new(FaultCode::Input, words));
            }
            (bundle.folder.clone(), bundle.place(Path::new(name))?)
        };
        let root = self.folder.clone();
        in_background(move || {
            let added = append(&root, &place, &piece);
            drop(folder);
            added
        })
        .await
    }

    async fn give_out(&self, number: u64, name: &Path, at: u64) -> Result<Vec<u8>, Fault> {
        let place = {
            let bundles = self.bundles();
            let bundle = bundles.get(&number).filter(|bundle| bundle.written.iter().any(|written| written == name));
            let words = "no command that was carried out wrote this file";
            bundle.ok_or_else(|| Fault::new(FaultCode::Denied, words))?.place(name)?
        };
        in_background(move || piece_of(&place, at).map_err(|e| failed("read", &place, &e))).await
    }

    /// Puts the places of files where a command names them.
    pub(crate) fn put_into(&self, number: Option<u64>, call: &mut Call) -> Result<Placed, Fault> {
        let files = call.files();
        if files.is_empty() {
            return Ok(Placed::default());
        }
        let words = "on the socket for staff, files are handed over and not named";
        let number = number.ok_or_else(|| Fault::new(FaultCode::Denied, words))?;
        let mut bundles = self.bundles();
        let bundle = self.bundle(&mut bundles, number)?;
        let mut written = Vec::new();
        for named in files {
            let path = match named {
                Named::Opened(path, _) => path,
                Named::New(path, _) => {
                    written.push(path.clone());
                    path
                }
            };
            *path = bundle.place(path)?;
        }
        Ok(Placed { written, folder: Some(bundle.folder.clone()) })
    }

    /// What a command wrote that went well can be taken; of any other command nothing is kept.
    pub(crate) async fn carried_out(&self, number: u64, placed: Placed, went_well: bool) {
        let Placed { written, folder } = placed;
        drop(folder);
        if !went_well || written.is_empty() {
            return self.end(number).await;
        }
        if let Some(bundle) = self.bundles().get_mut(&number) {
            bundle.written = written;
        }
    }

    /// Lets a bundle go.
    pub(crate) async fn end(&self, number: u64) {
        let bundle = self.bundles().remove(&number);
        // A folder of images takes a while; whether it went is in the log.
        let _ = tokio::task::spawn_blocking(move || drop(bundle)).await;
    }

    /// Lets everything go: who logs in next handed over none of it.
    pub(crate) fn forget(&self) {
        self.bundles().clear();
    }

    fn bundle<'a>(&self, bundles: &'a mut HashMap<u64, Bundle>, number: u64) -> Result<&'a mut Bundle, Fault> {
        let is_full = bundles.len() >= BUNDLES;
        match bundles.entry(number) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(_) if is_full => {
                Err(Fault::new(FaultCode::State, "too many files are handed over at a time; wait for some of them"))
            }
            Entry::Vacant(free) => Ok(free.insert(Bundle::make(&self.folder)?)),
        }
    }

    fn bundles(&self) -> MutexGuard<'_, HashMap<u64, Bundle>> {
        // Nothing that could be half done happens while it is held.
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bundle {
    fn make(root: &Path) -> Result<Self, Fault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| Fault::new(FaultCode::Store, e.to_string()))?;
        let folder = root.join(data_encoding::HEXLOWER.encode(&random));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|e| failed("make", &folder, &e))?;
        Ok(Self { folder: Arc::new(Folder(folder)), pieces: 0, written: Vec::new() })
    }

    /// Where a file of the bundle lies; a name that leads out of it is refused.
    fn place(&self, name: &Path) -> Result<PathBuf, Fault> {
        let parts: Vec<Component<'_>> = name.components().collect();
        let is_within = (1..=DEPTH).contains(&parts.len()) && parts.iter().all(|p| matches!(p, Component::Normal(_)));
        if !is_within || name.as_os_str().len() > NAME_BYTES {
            let words = "on the socket for staff, files are handed over and not named";
            return Err(Fault::new(FaultCode::Denied, words));
        }
        Ok(self.folder.0.join(name))
    }
}

/// Adds a piece to a file in a bundle.
fn append(root: &Path, place: &Path, piece: &[u8]) -> Result<(), Fault> {
    let free = rustix::fs::statvfs(root).map_err(|e| failed("ask about", root, &e.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < RESERVE_BYTES.saturating_add(piece.len() as u64) {
        let words = format!("the service's disk would have less than {} MiB free", RESERVE_BYTES >> 20);
        return Err(Fault::new(FaultCode::DiskFull, words));
    }
    let wrong = |error: std::io::Error| failed("write", place, &error);
    if let Some(folder) = place.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    let file = std::fs::File::options().append(true).create(true).mode(0o600).open(place);
    file.and_then(|mut file| file.write_all(piece)).map_err(wrong)
}

fn piece_of(place: &Path, at: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(place)?;
    file.seek(SeekFrom::Start(at))?;
    let mut piece = Vec::new();
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(Fault::new(FaultCode::NotRunning, "the engine is ending")))
}

/// A fault about a file by its own name: where it lies is not for a page.
fn failed(step: &str, place: &Path, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => FaultCode::DiskFull,
        _ => FaultCode::Store,
    };
    Fault::new(code, format!("cannot {step} {}: {error}", own_name(place)))
}

fn own_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A command with its bundle.
#[derive(Serialize)]
struct WithBundle<'a> {
    call: &'a Call,
    bundle: u64,
}

#[derive(Serialize)]
struct Sent<'a> {
    files: &'a Parcel,
}

impl Client {
    /// Carries a command out. Files that it names are this process's own: an engine of another account is handed those
    /// that are to be read, and what it writes is written here, under this account.
    ///
    /// # Errors
    /// As [`Client::request`], and what the file system says of the files.
    pub async fn carry_out(&self, mut call: Call) -> Result<Value, Fault> {
        if !self.hands_over || call.files().is_empty() {
            return self.request(&call).await;
        }
        let bundle = self.number();
        let answer = Box::pin(self.with_files(call, bundle)).await;
        // The engine keeps nothing of it, however it went; a connection that broke has taken it along.
        let _ = self.send(&Parcel::End { bundle }).await;
        answer
    }

    async fn with_files(&self, mut call: Call, bundle: u64) -> Result<Value, Fault> {
        let mut parts = Vec::new();
        for named in call.files() {
            match named {
                Named::Opened(path, _) => *path = self.hand_over(bundle, path).await?,
                Named::New(path, _) => {
                    if path.symlink_metadata().is_ok() {
                        let words = format!("{} is there already, and is not replaced", own_name(path));
                        return Err(Fault::new(FaultCode::Input, words));
                    }
                    // Before anything is done that the log tells of: where nothing can be written, nothing is.
                    let part = Part::create(path).map_err(|e| failed("write", path, &e))?;
                    let name = PathBuf::from(own_name(path));
                    parts.push((part, std::mem::replace(path, name)));
                }
            }
        }
        let answer = self.ask(&WithBundle { call: &call, bundle }).await?;
        for (part, place) in &parts {
            self.take(bundle, part, place).await?;
        }
        for (part, place) in parts {
            part.keep(&place).map_err(|e| failed("write", &place, &e))?;
        }
        Ok(answer)
    }

    async fn send(&self, parcel: &Parcel) -> Result<Value, Fault> {
        self.ask(&Sent { files: parcel }).await
    }

    /// Hands a file or a folder over; what it is called in the bundle.
    async fn hand_over(&self, bundle: u64, path: &Path) -> Result<PathBuf, Fault> {
        let (from, name) = (path.to_owned(), own_name(path));
        let to = name.clone();
        for (place, name) in in_background(move || files_of(&from, &to)).await? {
            let wrong = |error: std::io::Error| {
                let words = format!("{} cannot be read under your account: {error}", own_name(&place));
                Fault::new(FaultCode::Data, words)
            };
            let mut file = tokio::fs::File::open(&place).await.map_err(wrong)?;
            let mut bytes = vec![0; PIECE_BYTES];
            let mut is_first = true;
            loop {
                let length = file.read(&mut bytes).await.map_err(wrong)?;
                // An empty file is one empty piece.
                if length > 0 || is_first {
                    let piece = BASE64.encode(&bytes[..length]);
                    self.send(&Parcel::Give { bundle, name: name.clone(), piece }).await?;
                }
                if length == 0 {
                    break;
                }
                is_first = false;
            }
        }
        Ok(PathBuf::from(name))
    }

    /// Takes a file that a command wrote.
    async fn take(&self, bundle: u64, part: &Part, place: &Path) -> Result<(), Fault> {
        let wrong = |error: std::io::Error| failed("write", place, &error);
        let mut file = tokio::fs::File::from_std(part.file().try_clone().map_err(wrong)?);
        let mut at = 0;
        loop {
            let piece = self.send(&Parcel::Take { bundle, name: own_name(place), at }).await?;
            let piece = piece.as_str().and_then(|piece| BASE64.decode(piece.as_bytes()).ok());
            let other = || Fault::new(FaultCode::Command, "the party answered in another way");
            let piece = piece.ok_or_else(other)?;
            if piece.is_empty() {
                break;
            }
            file.write_all(&piece).await.map_err(wrong)?;
            at += piece.len() as u64;
        }
        // Alone, `sync_all` would keep to itself that the last piece could not be written.
        file.flush().await.map_err(wrong)?;
        file.sync_all().await.map_err(wrong)
    }
}

/// What is handed over of a file or folder, and what each is called then.
fn files_of(path: &Path, name: &str) -> Result<Vec<(PathBuf, String)>, Fault> {
    let wrong = |words: String| Fault::new(FaultCode::Data, words);
    let unreadable = |error: std::io::Error| wrong(format!("{name} cannot be read under your account: {error}"));
    if name.is_empty() {
        return Err(wrong("this names no file; choose one, or a folder of images".to_owned()));
    }
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if found.is_file() {
        return Ok(vec![(path.to_owned(), name.to_owned())]);
    }
    if !found.is_dir() {
        return Err(wrong(format!("{name} is neither a file nor a folder")));
    }
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), name.to_owned(), 1)];
    while let Some((folder, above, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            // Written otherwise, two of them could become one file.
            let Ok(own) = entry.file_name().into_string() else {
                let words = format!("a file in {above} has a name that is no text (UTF-8); rename it, or take it away");
                return Err(wrong(words));
            };
            let name = format!("{above}/{own}");
            // A link is no file here, whatever it leads to.
            if kind.is_dir() && depth < DEPTH - 1 {
                folders.push((entry.path(), name, depth + 1));
            } else if kind.is_file() {
                files.push((entry.path(), name));
            }
        }
        if files.len() > PIECES as usize {
            return Err(wrong(format!("{name} has more than {PIECES} files; choose the folder of the images alone")));
        }
    }
    Ok(files)
}
