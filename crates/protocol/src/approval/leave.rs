//! Leave to use a model on this site's own data.

use super::{Refusal, RefusalCode};
use crate::id::Digest;
use crate::policy::{Policy, Predict};

/// What is said where the policy is as a new site has it.
const OFF: &str = "this site's policy does not allow predictions: models.predict is 'off'";

/// Leave to write what a model gives for each row of one snapshot into a file for this site's own people.
///
/// Nothing leaves the site by it, so that no study asks for it and nobody signs it: the site's policy gives it, which is
/// loosened by two people. Its only constructor is [`LeaveToPredict::under`]. As a [`Permit`](super::Permit), it cannot be
/// written down:
///
/// ```compile_fail,E0451
/// use hospes_protocol::approval::LeaveToPredict;
/// fn forge(snapshot: hospes_protocol::id::Digest) -> LeaveToPredict {
///     LeaveToPredict { snapshot }
/// }
/// ```
///
/// Nor can it be copied, or read from bytes that somebody sent:
///
/// ```compile_fail,E0599
/// use hospes_protocol::approval::LeaveToPredict;
/// fn twice(real: &LeaveToPredict) -> LeaveToPredict {
///     real.clone()
/// }
/// ```
///
/// ```compile_fail,E0277
/// use hospes_protocol::approval::LeaveToPredict;
/// fn read(bytes: &[u8]) -> LeaveToPredict {
///     serde_json::from_slice(bytes).unwrap()
/// }
/// ```
#[derive(Debug)]
pub struct LeaveToPredict {
    snapshot: Digest,
}

impl LeaveToPredict {
    /// Leave under a policy for a snapshot, or the reason why not.
    ///
    /// # Errors
    /// The [`Refusal`] says what the policy forbids.
    pub fn under(policy: &Policy, snapshot: Digest, is_public: bool) -> Result<Self, Refusal> {
        let refuse = |detail: &str| Err(Refusal::new(RefusalCode::Policy, detail));
        match policy.models.predict {
            Predict::Off => return refuse(OFF),
            Predict::Cohort | Predict::Single => {}
        }
        // As for a permit: the rules of that policy are none for other data.
        if policy.is_public_data() && !is_public {
            return refuse("the public-data policy is for datasets tagged public only");
        }
        Ok(Self { snapshot })
    }

    /// The one snapshot it is good for.
    pub fn snapshot(&self) -> Digest {
        self.snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_gives_leave_before_somebody_set_it_so() {
        let snapshot = Digest::of(b"snapshot");
        let code = |policy: &Policy, public| LeaveToPredict::under(policy, snapshot, public).map_err(|r| r.code);
        for mut policy in [Policy::strict(), Policy::datashield(), Policy::public_data()] {
            let refused = LeaveToPredict::under(&policy, snapshot, true).unwrap_err();
            assert_eq!(refused.code, RefusalCode::Policy);
            assert!(refused.detail.contains("models.predict"), "{refused}");
            for predict in [Predict::Cohort, Predict::Single] {
                policy.models.predict = predict;
                assert_eq!(code(&policy, true).unwrap().snapshot(), snapshot);
                assert_eq!(code(&policy, false).is_ok(), !policy.is_public_data());
            }
        }
    }
}
