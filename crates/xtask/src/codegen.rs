//! Generated files: the gRPC code from `federation.proto`, made with protox, so that nobody needs protoc; the JSON Schemas
//! of plans, terms, studies and policies; the OpenAPI document; the page's types of the command tables; the licences of
//! others' libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::dist::{THIRD_PARTY, third_party};
use crate::machine::{cargo, step};

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
    settle(&root.join("crates/protocol/src/grpc/generated.rs"), &code, check)?;
    for (name, text) in hospes_protocol::schema_files() {
        settle(&root.join("crates/protocol").join(name), &text, check)?;
    }
    settle(&root.join(THIRD_PARTY), &third_party(root)?, check)?;
    crate::icons::check(root)?;
    // Only the coordinator itself can make its OpenAPI document, and only the crate with the command tables the page's
    // types; tests of their own compare them.
    if check {
        return Ok(());
    }
    open_api(root)?;
    page_types()
}

/// Writes the types of the command tables for the page, by the test that compares them.
fn page_types() -> Result<()> {
    let test = ["test", "--quiet", "--package", "hospes-ipc", "--test", "ipc", "generated_types_are_current"];
    step("write the page's types", cargo()?.args(test).env("UPDATE_EXPECT", "1"))
}

/// Writes the OpenAPI document of the coordinator, which is built for it.
fn open_api(root: &Path) -> Result<()> {
    let output = cargo()?.args(["run", "--quiet", "--package", "hospes-coordinator", "--", "openapi"]).output()?;
    if !output.status.success() {
        bail!("hospes-coordinator openapi: {}", String::from_utf8_lossy(&output.stderr));
    }
    settle(&root.join("crates/coordinator/openapi.json"), &String::from_utf8(output.stdout)?, false)
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
