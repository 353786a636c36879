//! The real window: it shows the waiting request, takes two people's signatures and shows the ledger.

use std::path::Path;

use anyhow::Result;
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::window::Window;

/// Files, programs, network, other commands: whatever a page that was taken over would try is refused, and nobody hears
/// of it.
async fn i6_the_page_can_do_nothing_else(window: &Window) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut attempts = window.attempts(listener.local_addr()?.port()).await?;
    // The way in which they are tried works.
    let may = attempts.remove("what it may").unwrap_or_default();
    assert!(may.starts_with("got") && may.contains("phase"), "{may}");
    assert!(attempts.len() > 20, "{attempts:?}");
    let allowed: Vec<_> = attempts.iter().filter(|(_, answer)| !answer.starts_with("refused")).collect();
    assert!(allowed.is_empty(), "the page may: {allowed:?}");
    // Of what is linked into the app, by its permissions and nothing else.
    for name in
        ["choose a file", "notify", "start with the session", "make a window", "close the window", "send an event"]
    {
        let answer = attempts.get(name).map(String::as_str).unwrap_or_default();
        assert!(answer.contains("not allowed"), "{name}: {answer}");
    }
    let none = attempts.get("call an engine's command that is none").map(String::as_str).unwrap_or_default();
    assert!(none.contains("the command cannot be read"), "{none}");
    let heard = listener.accept().map(|_| ()).map_err(|e| e.kind());
    assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock), "the page reached the network");
    // It goes on as before.
    window.shows("Sign in").await
}

#[test]
fn two_people_sign_in_the_window_and_the_ledger_shows_it() -> Result<()> {
    let federation = Federation::hearts("sqlite")?;
    federation.submit(Path::new(&format!("{EXAMPLES}/heart/study.yaml")))?;
    let site = federation.site("cleveland")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let window = Window::open(&site.data).await?;
        window.shows("Sign in").await?;
        i6_the_page_can_do_nothing_else(&window).await?;
        for (person, reads, button, then) in [
            ("Stefan", "one, if the first signer", "Sign as data steward", "Waits for the second signature"),
            ("Anna", "Digest of the approval", "Sign as data-access approver", "Approved"),
        ] {
            let passphrase = site.passphrase(person)?;
            window.type_into("name", person).await?;
            window.type_into("passphrase", &passphrase).await?;
            window.press("Sign in").await?;
            window.follow("Requests").await?;
            window.follow("Heart disease risk from routine findings").await?;
            window.shows("The coordinator can read this site's update").await?;
            window.shows("not stated").await?;
            window.turn_to("Setting").await?;
            window.shows(reads).await?;
            if person == "Stefan" {
                window.answer_all("Yes").await?;
            }
            window.type_into("signing", &passphrase).await?;
            window.press(button).await?;
            window.shows(then).await?;
            if let Some(folder) = std::env::var_os("HOSPES_PICTURES") {
                std::fs::write(Path::new(&folder).join(format!("review-{person}.png")), window.picture().await?)?;
            }
            window.press("Sign out").await?;
        }
        // A wrong passphrase is refused in words.
        window.type_into("name", "Petra").await?;
        window.type_into("passphrase", "not the passphrase").await?;
        window.press("Sign in").await?;
        window.shows("name or passphrase is wrong").await?;
        window.type_into("passphrase", &site.passphrase("Petra")?).await?;
        window.press("Sign in").await?;
        window.follow("Audit log").await?;
        window.shows("Anna").await?;
        window.press("Verify the whole log").await?;
        window.shows("intact").await?;
        if let Some(folder) = std::env::var_os("HOSPES_PICTURES") {
            std::fs::write(Path::new(&folder).join("audit.png"), window.picture().await?)?;
        }
        window.close().await
    })
}
