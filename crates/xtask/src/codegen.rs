//! Generated files: the gRPC code from `federation.proto`. Made with protox, so that nobody needs protoc.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes the generated files, or with `check` only says whether they are current.
///
/// # Errors
/// If the schema does not compile, a file cannot be written, or `check` found an old one.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let proto = root.join("crates/protocol/proto");
    let descriptors = protox::compile(["federation.proto"], [&proto]).context("compile federation.proto")?;
    let out = tempfile::tempdir().context("make a temporary folder")?;
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".hospes.federation.v1.Chunk.data")
        .compile_fds(descriptors)
        .context("generate the gRPC code")?;
    let code = std::fs::read_to_string(out.path().join("hospes.federation.v1.rs"))?;
    settle(&root.join("crates/protocol/src/grpc/generated.rs"), &code, check)
}

/// Writes `text` to `path`, or with `check` demands that it stands there already.
fn settle(path: &PathBuf, text: &str, check: bool) -> Result<()> {
    let current = std::fs::read_to_string(path).unwrap_or_default();
    if current == text {
        return Ok(());
    }
    if check {
        bail!("{} is not current; run `cargo xtask codegen`", path.display());
    }
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
