//! From the update, or the figures, that a worker left to the file that leaves: block by block, so that memory does not depend
//! on the model's size.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use hospes_privacy::dp::{DiscreteGaussian, Source};
use hospes_privacy::figures::Blinds;
use hospes_privacy::masked;
use hospes_privacy::secagg::{Masked, Masker};
use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::PartyError;
use crate::keys::sealed::sync_folder;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Masks an update into a new file, with room for its head; with `blinds` figures, of which some may be held back; with `noise`
/// an update that gets a draw of it in each entry first. The inner error says why it is none of this round. `slip`: see
/// [`Seam::keystream_slip`](crate::seam::Seam::keystream_slip).
pub(super) fn mask(
    mut masker: Masker,
    mut blinds: Option<Blinds>,
    mut noise: Option<(DiscreteGaussian, Source)>,
    (from, to): (&Path, &Path),
    slip: u64,
) -> Result<Result<Masked, String>, PartyError> {
    let read = |e| PartyError::file("read", from, e);
    let write = |e| PartyError::file("write", to, e);
    let file = match File::open(from) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Err("it is gone".to_owned())),
        Err(e) => return Err(read(e)),
    };
    let mut left = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut masked_file = BufWriter::with_capacity(BUFFER_BYTES, options.open(to).map_err(write)?);
    masked_file.write_all(&[0; masked::HEAD_BYTES]).map_err(write)?;
    let mut bytes = Zeroizing::new(Vec::<u8>::new());
    while let Some(block) = masker.expected() {
        bytes.resize(masked::level_bytes(&block), 0);
        match left.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Err("it is too short".to_owned())),
            Err(e) => return Err(read(e)),
        }
        let mut levels = masked::levels(&block, &bytes);
        if let Some(first) = levels.first_mut().filter(|_| block.part > 0 && block.first == 0) {
            *first ^= slip;
        }
        if let Some((gaussian, source)) = noise.as_mut().filter(|_| block.part > 0) {
            // PRIVACY: this site's part of the noise that the sum has; the row weight, which is a constant then, has none.
            gaussian.add(&mut levels, source);
        }
        // PRIVACY: only what comes out of here goes into the file that leaves.
        let packed = match &mut blinds {
            Some(blinds) => blinds.mask(&mut masker, &block, &mut levels),
            None => masker.block(&mut levels),
        };
        match packed {
            Ok(packed) => masked_file.write_all(&packed).map_err(write)?,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    if left.read(&mut [0]).map_err(read)? != 0 {
        return Ok(Err("it is too long".to_owned()));
    }
    masked_file.flush().map_err(write)?;
    Ok(masker.finish().map_err(|error| error.to_string()))
}

/// Puts the head into a masked file, makes it durable and gives it its name; says its digest and length.
pub(super) fn finish(part: &Path, head: &[u8], to: &Path) -> Result<(Digest, u64), PartyError> {
    let write = |e| PartyError::file("write", part, e);
    let mut file = OpenOptions::new().read(true).write(true).open(part).map_err(write)?;
    file.write_all(head).map_err(write)?;
    file.sync_all().map_err(write)?;
    file.seek(SeekFrom::Start(0)).map_err(write)?;
    let (mut hash, mut bytes, mut length) = (Sha256::new(), vec![0; BUFFER_BYTES], 0u64);
    loop {
        let read = file.read(&mut bytes).map_err(write)?;
        if read == 0 {
            break;
        }
        hash.update(&bytes[..read]);
        length += read as u64;
    }
    std::fs::rename(part, to).map_err(|e| PartyError::file("write", to, e))?;
    let folder = to.parent().unwrap_or_else(|| Path::new("."));
    sync_folder(folder).map_err(|e| PartyError::file("write", folder, e))?;
    Ok((Digest::from_bytes(hash.finalize().into()), length))
}
