//! Whose signatures an approval has, and whether they suffice.

use std::collections::BTreeSet;

use super::{Approval, ApprovalSignature, Refusal, RefusalCode, Role, Signer};
use crate::id::PersonId;
use crate::policy::FourEyes;

impl Signer {
    /// Whether this person is a privacy officer, who gives opinions and signs nothing (GDPR Art. 38(6)).
    pub fn is_privacy_officer(&self) -> bool {
        self.roles.contains(&Role::PrivacyOfficer)
    }
}

impl Approval {
    /// Whether the signatures that the mode asks for are there, each by an enabled person who holds the role.
    ///
    /// One signature that does not count spoils all: nothing is approved by ignoring what is wrong.
    ///
    /// # Errors
    /// A [`Refusal`] with [`RefusalCode::Signatures`].
    pub fn check_signatures(&self, signers: &[Signer]) -> Result<(), Refusal> {
        let mut stewards = BTreeSet::new();
        let mut approvers = BTreeSet::new();
        for signature in &self.signatures {
            let signer = self.check_signature(signature, signers)?;
            // One key that two people have is one person who can sign as both: the key counts, not the name.
            match signature.role {
                Role::DataSteward => stewards.insert(signer.key),
                _ => approvers.insert(signer.key),
            };
        }
        if stewards.is_empty() {
            return refuse("the data steward has not signed");
        }
        if self.document.four_eyes == FourEyes::Delayed {
            return Ok(());
        }
        if approvers.is_empty() {
            return refuse("the second signature is missing");
        }
        if stewards.union(&approvers).count() < 2 {
            return refuse("both signatures are by one person");
        }
        Ok(())
    }

    fn check_signature<'s>(&self, signature: &ApprovalSignature, signers: &'s [Signer]) -> Result<&'s Signer, Refusal> {
        let person = signature.person;
        let signer = find(signers, person)?;
        if !matches!(signature.role, Role::DataSteward | Role::DataAccessApprover) {
            return refuse(format!(
                "{person} signed as {}, and that is no signature under an approval",
                signature.role
            ));
        }
        if !signer.enabled || !signer.roles.contains(&signature.role) {
            return refuse(format!("{person} may not sign as {}", signature.role));
        }
        if signer.is_privacy_officer() {
            return refuse(format!("{person} is a privacy officer and must not decide what they supervise"));
        }
        if !signature.holds(self.document.digest(), &signer.key) {
            return refuse("a signature does not fit the approval; the approval or the signature was altered");
        }
        let wants_external =
            self.document.four_eyes == FourEyes::External && signature.role == Role::DataAccessApprover;
        match (wants_external, signer.external) {
            (true, false) => refuse("the second signature must come from another organisation"),
            (false, true) => {
                refuse(format!("{person} belongs to another organisation and cannot sign as {}", signature.role))
            }
            _ => Ok(signer),
        }
    }
}

/// The one entry of a person; two entries could carry two keys.
fn find(signers: &[Signer], person: PersonId) -> Result<&Signer, Refusal> {
    let mut entries = signers.iter().filter(|s| s.person == person);
    match (entries.next(), entries.next()) {
        (Some(signer), None) => Ok(signer),
        (None, _) => refuse(format!("a signature is by {person}, who is not known here")),
        (Some(_), Some(_)) => refuse(format!("{person} stands twice in the register of people")),
    }
}

fn refuse<T>(detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::Signatures, detail))
}
