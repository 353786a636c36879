//! The loopback host of the page: it lets in only the page that it served.

use std::path::Path;

use anyhow::{Context as _, Result};
use hospes_tests::devhost::Devhost;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a host answered: status, headers and body.
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn code(&self) -> Result<String> {
        let fault: Value = serde_json::from_str(&self.body).with_context(|| self.body.clone())?;
        Ok(fault["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Asks byte by byte: no client adds or mends a header.
async fn ask(host: &str, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    let text = String::from_utf8(text)?;
    let (headers, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = headers.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer { status, headers: headers.to_ascii_lowercase(), body: body.to_owned() })
}

fn post(host: &str, origin: &str, token: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /call HTTP/1.1\r\nHost: {host}\r\n{origin}Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn fetch(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

async fn host(folder: &Path) -> Result<(Devhost, String, String)> {
    let page = folder.join("page");
    std::fs::create_dir_all(&page)?;
    std::fs::write(page.join("devhost.html"), "<title>Hospes</title>")?;
    std::fs::write(folder.join("secret"), "not for the page")?;
    let devhost = Devhost::start(&folder.join("data"), &page, "unused".into(), 0).await?;
    let (address, token) = devhost.url().split_once("/devhost.html#token=").context("another address")?;
    let (name, token) = (address.trim_start_matches("http://").to_owned(), token.to_owned());
    Ok((devhost, name, token))
}

#[tokio::test]
async fn devhost_answers_only_the_page_that_it_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_devhost, host, token) = host(folder.path()).await?;
    let about = json!({ "command": "about", "args": {} });
    let own = format!("Origin: http://{host}\r\n");
    let answer = ask(&host, &post(&host, &own, &token, &about)).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.headers.contains("content-security-policy: default-src 'none'"), "{}", answer.headers);
    assert!(!answer.headers.contains("unsafe-"), "{}", answer.headers);

    let other = format!("http://127.0.0.1:{}", 1);
    let wrong = "0".repeat(token.len());
    for (what, status, request) in [
        ("a foreign origin", 403, post(&host, &format!("Origin: {other}\r\n"), &token, &about)),
        ("no origin", 403, post(&host, "", &token, &about)),
        ("an opaque origin", 403, post(&host, "Origin: null\r\n", &token, &about)),
        ("another name of this machine", 403, post("hospes.example.org", &own, &token, &about)),
        ("a wrong token", 401, post(&host, &own, &wrong, &about)),
        ("no token", 401, post(&host, &own, "", &about)),
        ("events without the token", 401, fetch(&host, "/events?token=")),
        ("a page by another name", 403, fetch("localhost:80", "/devhost.html")),
    ] {
        let answer = ask(&host, &request).await?;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert_eq!(answer.code()?, "denied", "{what}");
    }
    for (request, code) in [
        (json!({ "command": "shell", "args": { "run": "id" } }), "command"),
        (json!({ "command": "survey", "args": { "path": "/etc/shadow" } }), "denied"),
        (json!({ "command": "status", "args": {} }), "not_running"),
        (json!([]), "command"),
    ] {
        let answer = ask(&host, &post(&host, &own, &token, &request)).await?;
        assert_eq!((answer.status, answer.code()?.as_str()), (422, code), "{request}");
    }
    Ok(())
}

#[tokio::test]
async fn devhost_serves_the_page_and_nothing_beside_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_devhost, host, _token) = host(folder.path()).await?;
    let page = ask(&host, &fetch(&host, "/devhost.html")).await?;
    assert_eq!((page.status, page.body.as_str()), (200, "<title>Hospes</title>"));
    assert!(page.headers.contains("content-type: text/html"), "{}", page.headers);
    for path in ["/../secret", "/%2e%2e/secret", "//etc/passwd", "/./../secret", "/", "/devhost.html/.."] {
        let answer = ask(&host, &fetch(&host, path)).await?;
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    Ok(())
}
