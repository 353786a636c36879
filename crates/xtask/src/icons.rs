//! The app's icons, drawn from one picture: `icons/mark.svg`.
//!
//! `rsvg-convert` draws them, of the library (librsvg) that building the app needs anyway. A crate that does (resvg) would bring
//! twenty more into every `cargo xtask`, for files that change once in years. Two versions of a library differ in a shade at
//! an edge, so that a check cannot draw them again and compare: `icons/SHA256SUMS` says what was drawn, and from which picture.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

const PICTURE: &str = "mark.svg";
const SUMS: &str = "SHA256SUMS";
/// Pictures by themselves, and their side in pixels.
const PNG: [(&str, u32); 4] = [("32x32.png", 32), ("128x128.png", 128), ("128x128@2x.png", 256), ("icon.png", 512)];
const ICO: &str = "icon.ico";
/// Sides of the pictures in the icon of Windows.
const ICO_SIDES: [u32; 5] = [16, 32, 48, 64, 256];
const ICNS: &str = "icon.icns";
/// Kinds and sides of the pictures in the icon of macOS.
const ICNS_KINDS: [(&[u8; 4], u32); 5] = [(b"icp4", 16), (b"icp5", 32), (b"ic07", 128), (b"ic08", 256), (b"ic09", 512)];

/// Draws all of them anew.
///
/// # Errors
/// If `rsvg-convert` is missing or fails, or a file cannot be written.
pub(crate) fn draw(root: &Path) -> Result<()> {
    let folder = root.join("icons");
    for (name, side) in PNG {
        std::fs::write(folder.join(name), drawn(&folder, side)?)?;
    }
    let small = ICO_SIDES.iter().map(|side| Ok((*side, drawn(&folder, *side)?))).collect::<Result<Vec<_>>>()?;
    std::fs::write(folder.join(ICO), ico(&small)?)?;
    let large =
        ICNS_KINDS.iter().map(|(kind, side)| Ok((*kind, drawn(&folder, *side)?))).collect::<Result<Vec<_>>>()?;
    std::fs::write(folder.join(ICNS), icns(&large)?)?;
    std::fs::write(folder.join(SUMS), sums(&folder)?).context("write what was drawn")
}

/// Whether the icons are those that were drawn last, from the picture as it is.
///
/// # Errors
/// If not, or if a file is missing.
pub(crate) fn check(root: &Path) -> Result<()> {
    let folder = root.join("icons");
    let noted = std::fs::read_to_string(folder.join(SUMS)).context("read icons/SHA256SUMS")?;
    if noted != sums(&folder)? {
        bail!("the icons are not what was drawn from icons/{PICTURE}; run `cargo xtask icons`");
    }
    Ok(())
}

/// Digests of the picture and of what was drawn from it, as `sha256sum` writes and checks them.
fn sums(folder: &Path) -> Result<String> {
    let mut lines = String::new();
    for name in [PICTURE].into_iter().chain(PNG.map(|(name, _)| name)).chain([ICO, ICNS]) {
        let bytes = std::fs::read(folder.join(name)).with_context(|| format!("read icons/{name}"))?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{digest}  {name}");
    }
    Ok(lines)
}

/// The picture with this side in pixels, as PNG.
fn drawn(folder: &Path, side: u32) -> Result<Vec<u8>> {
    let side = side.to_string();
    let mut convert = Command::new("rsvg-convert");
    convert.args(["--width", &side, "--height", &side, "--format", "png"]).arg(folder.join(PICTURE));
    let drawn = convert.output().context("start rsvg-convert (Debian: librsvg2-bin)")?;
    ensure!(drawn.status.success(), "rsvg-convert: {}", String::from_utf8_lossy(&drawn.stderr));
    Ok(drawn.stdout)
}

/// An icon of Windows, with pictures as PNG (since Vista): a head, an entry of 16 bytes for each picture, the pictures.
fn ico(pictures: &[(u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let (head, entry) = (6, 16);
    let mut bytes = [0u16.to_le_bytes(), 1u16.to_le_bytes(), u16::try_from(pictures.len())?.to_le_bytes()].concat();
    let mut at = head + entry * pictures.len();
    for (side, png) in pictures {
        // 0 stands for 256.
        let side = u8::try_from(*side).unwrap_or(0);
        bytes.extend([side, side, 0, 0]);
        bytes.extend([1u16.to_le_bytes(), 32u16.to_le_bytes()].concat());
        bytes.extend(u32::try_from(png.len())?.to_le_bytes());
        bytes.extend(u32::try_from(at)?.to_le_bytes());
        at += png.len();
    }
    bytes.extend(pictures.iter().flat_map(|(_, png)| png));
    Ok(bytes)
}

/// An icon of macOS: a head, and each picture behind its kind and its length with both.
fn icns(pictures: &[(&[u8; 4], Vec<u8>)]) -> Result<Vec<u8>> {
    let head = 8;
    let all: usize = pictures.iter().map(|(_, png)| head + png.len()).sum();
    let mut bytes = b"icns".to_vec();
    bytes.extend(u32::try_from(head + all)?.to_be_bytes());
    for (kind, png) in pictures {
        bytes.extend(*kind);
        bytes.extend(u32::try_from(head + png.len())?.to_be_bytes());
        bytes.extend(png);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The PNGs in a file, in their order.
    fn pictures(bytes: &[u8]) -> Vec<Vec<u8>> {
        let begins = |at: &usize| bytes[*at..].starts_with(b"\x89PNG\r\n\x1a\n");
        let starts: Vec<usize> = (0..bytes.len()).filter(begins).collect();
        // A picture ends with a chunk of its own, which has a checksum of four bytes.
        let end = |from: usize| (from..bytes.len()).find(|at| bytes[*at..].starts_with(b"IEND")).unwrap() + 8;
        starts.into_iter().map(|from| bytes[from..end(from)].to_vec()).collect()
    }

    #[test]
    fn the_icons_of_both_systems_hold_what_was_drawn() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../icons");
        let known = std::fs::read(folder.join(ICO)).unwrap();
        let small: Vec<_> = ICO_SIDES.into_iter().zip(pictures(&known)).collect();
        assert_eq!(ico(&small).unwrap(), known);
        let known = std::fs::read(folder.join(ICNS)).unwrap();
        let large: Vec<_> = ICNS_KINDS.iter().map(|(kind, _)| *kind).zip(pictures(&known)).collect();
        assert_eq!(icns(&large).unwrap(), known);
        for (name, side) in PNG {
            let png = std::fs::read(folder.join(name)).unwrap();
            assert!(large.iter().any(|(_, of)| *of == png), "{name}, {side} pixels, is in no icon");
        }
    }
}
