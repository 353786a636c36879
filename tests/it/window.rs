//! The real window: it shows the waiting request, takes two people's signatures and shows the ledger.

use std::path::Path;

use anyhow::Result;
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::window::Window;

#[test]
fn two_people_sign_in_the_window_and_the_ledger_shows_it() -> Result<()> {
    let federation = Federation::hearts("sqlite")?;
    federation.submit(Path::new(&format!("{EXAMPLES}/heart/study.yaml")))?;
    let site = federation.site("cleveland")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let window = Window::open(&site.data).await?;
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
