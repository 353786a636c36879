//! `devhost --data FOLDER --page FOLDER [--port PORT] [--choose PATH …]`: serves the page for a browser until it is ended,
//! and prints where. The paths are the answers of its dialogs, in order.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use hospes_tests::devhost::Devhost;

#[tokio::main]
async fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another cryptographic provider was installed already"))?;
    let (mut data, mut page, mut port, mut chosen) = (None, None, 0, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--data" => data = Some(PathBuf::from(value)),
            "--page" => page = Some(PathBuf::from(value)),
            "--port" => port = value.parse().context("--port is no port")?,
            "--choose" => chosen.push(PathBuf::from(value)),
            other => bail!("{other} is not known"),
        }
    }
    let (data, page) = (data.context("--data is missing")?, page.context("--page is missing")?);
    let devhost = Devhost::start(&data, &page, hospes_ipc::local::program()?, port).await?;
    for path in chosen {
        devhost.choose(path);
    }
    println!("{}", devhost.url());
    tokio::signal::ctrl_c().await?;
    devhost.page().local().stop().await;
    Ok(())
}
