//! People of the site.

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{NewPerson, Outcome, PersonChange, PersonState, PersonView, ProposalView};
use serde_json::Value;

use super::{Asking, one_of};
use crate::arguments::User;
use crate::{output, secret};

/// `user …`
pub(crate) async fn user(asking: &mut Asking, command: User) -> Result<()> {
    match command {
        User::List => {
            let people: Vec<PersonView> = asking.ask(&Call::People {}).await?;
            asking.answer(&people, |people| list(people))
        }
        User::Add { name, roles, organisation } => {
            let person = NewPerson { name, roles: roles.into_iter().map(Into::into).collect(), organisation };
            // Logging in comes first, so that its passphrase can serve where a file answers.
            let _: Vec<PersonView> = asking.ask(&Call::People {}).await?;
            let passphrase = asking.sign()?;
            let outcome: Outcome = asking.ask(&Call::AddPerson { person, passphrase }).await?;
            tell(asking, &outcome)
        }
        User::Activate { name, code } => {
            let prompt = format!("New passphrase of {name}: ");
            let passphrase = secret::new_of_person(asking.passphrase_file.as_deref(), &prompt)?;
            let person = Call::Activate { name, code, passphrase };
            let activated: PersonView = asking.connection.call(&person).await?;
            asking.answer(&activated, |activated| {
                output::say("Your signing key is made. Only your passphrase opens it.");
                if let (PersonState::KeyUnconfirmed, Some(key)) = (activated.state, &activated.key) {
                    output::say("It counts when a second person has confirmed it. Read them these words of it:");
                    output::say(&hospes_protocol::words::of_key(key));
                }
            })
        }
        User::Disable { name } => change(asking, &name, PersonChange::Disable).await,
        User::Enable { name } => change(asking, &name, PersonChange::Enable).await,
        User::Roles { name, roles } => {
            change(asking, &name, PersonChange::Roles(roles.into_iter().map(Into::into).collect())).await
        }
        User::NewKey { name } => change(asking, &name, PersonChange::NewKey).await,
        User::Passphrase { new_file } => {
            let _: Vec<PersonView> = asking.ask(&Call::People {}).await?;
            let old = asking.sign()?;
            let new = secret::new_of_person(new_file.as_deref(), "Your new passphrase: ")?;
            let answer: Value = asking.ask(&Call::ChangePassphrase { old, new }).await?;
            asking.answer(&answer, |_| output::say("Your passphrase is changed; your signing key is the same."))
        }
        User::Proposals => {
            let proposals: Vec<ProposalView> = asking.ask(&Call::Proposals {}).await?;
            asking.answer(&proposals, |proposals| {
                output::table(
                    &["Proposal", "When", "By", "What"],
                    proposals.iter().map(|p| vec![p.id.short(), output::moment(p.at), p.by.clone(), p.words.clone()]),
                );
            })
        }
        User::Answer { proposal, decline, words } => {
            let proposals: Vec<ProposalView> = asking.ask(&Call::Proposals {}).await?;
            let proposal = one_of("proposal", &proposal, &proposals, |p| vec![p.id.to_string()])?;
            let words = match words {
                None if proposal.needs_words && !decline => Some(secret::line(&format!(
                    "{} proposes: {}.\nThe twelve words, as the key's owner reads them to you: ",
                    output::visible(&proposal.by),
                    output::visible(&proposal.words)
                ))?),
                words => words,
            };
            let passphrase = asking.sign()?;
            let call = Call::AnswerProposal { proposal: proposal.id, agree: !decline, words, passphrase };
            let outcome: Outcome = asking.ask(&call).await?;
            tell(asking, &outcome)
        }
    }
}

async fn change(asking: &mut Asking, name: &str, change: PersonChange) -> Result<()> {
    let people: Vec<PersonView> = asking.ask(&Call::People {}).await?;
    let id = one_of("person", name, &people, |p| vec![p.name.clone()])?.id;
    let passphrase = asking.sign()?;
    let outcome: Outcome = asking.ask(&Call::ChangePerson { id, change, passphrase }).await?;
    tell(asking, &outcome)
}

/// What became of something that may need a second person.
pub(crate) fn tell(asking: &Asking, outcome: &Outcome) -> Result<()> {
    asking.answer(outcome, |outcome| match outcome {
        Outcome::Done { code: Some(code) } => {
            output::say(&format!("Done. Hand over this one-time code, it is shown only now: {code}"));
        }
        Outcome::Done { code: None } => output::say("Done."),
        Outcome::Proposed(proposal) => output::say(&format!(
            "This needs a second person: hospes-site user answer {} (as somebody else).",
            proposal.id.short()
        )),
    })
}

fn list(people: &[PersonView]) {
    let state = |state: PersonState| match state {
        PersonState::Invited => "has not chosen a passphrase yet",
        PersonState::Active => "active",
        PersonState::Disabled => "disabled",
        PersonState::KeyUnconfirmed => "new key waits for confirmation",
    };
    output::table(
        &["Name", "Roles", "State"],
        people.iter().map(|p| {
            let roles: Vec<String> = p.roles.iter().map(ToString::to_string).collect();
            vec![p.name.clone(), roles.join(", "), state(p.state).into()]
        }),
    );
}
