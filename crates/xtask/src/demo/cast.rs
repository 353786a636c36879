//! Who plays in the demo: four hospitals and their people, and what was published about them.

/// A hospital.
pub(crate) struct Hospital {
    /// Name in the federation, name of its folder and of its file in `examples/heart`.
    pub(crate) name: &'static str,
    /// Name of the organisation.
    pub(crate) organisation: &'static str,
    /// Test rows that are used.
    pub(crate) test_rows: u32,
    /// Test accuracy of the model that FLamby trained on this hospital's rows alone; pooled over all test rows.
    pub(crate) published_alone: f64,
    /// Test accuracy of FLamby's FedAvg model on this hospital's test rows.
    pub(crate) published_federated: f64,
}

/// The four hospitals of Fed-Heart-Disease; figures from FLamby (Ogier du Terrail et al., NeurIPS 2022).
pub(crate) const HOSPITALS: [Hospital; 4] = [
    Hospital {
        name: "cleveland",
        organisation: "Cleveland Clinic",
        test_rows: 104,
        published_alone: 0.784,
        published_federated: 0.731,
    },
    Hospital {
        name: "hungary",
        organisation: "Hungarian Institute of Cardiology",
        test_rows: 89,
        published_alone: 0.727,
        published_federated: 0.719,
    },
    Hospital {
        name: "switzerland",
        organisation: "University Hospital Zurich",
        test_rows: 16,
        published_alone: 0.483,
        published_federated: 0.650,
    },
    Hospital {
        name: "long_beach",
        organisation: "V.A. Medical Center Long Beach",
        test_rows: 45,
        published_alone: 0.611,
        published_federated: 0.640,
    },
];

/// FLamby's FedAvg on all test rows: mean and standard deviation over five seeds.
pub(crate) const PUBLISHED_FEDERATED: (f64, f64) = (0.748, 0.027);
/// FLamby's model trained on all rows in one place: the same.
pub(crate) const PUBLISHED_POOLED: (f64, f64) = (0.7953, 0.003);
/// How far a pooled and a local row may lie from the published one.
pub(crate) const TOLERANCE_POOLED: f64 = 0.02;
/// How far a local row may lie from the published one.
pub(crate) const TOLERANCE_ALONE: f64 = 0.03;

/// A person at a hospital.
pub(crate) struct Person {
    /// Name for logging in.
    pub(crate) name: &'static str,
    /// Role, as the command line spells it.
    pub(crate) role: &'static str,
    /// Passphrase.
    pub(crate) passphrase: &'static str,
}

/// The administrator, who is the first person of a site.
pub(crate) const ADMINISTRATOR: Person =
    Person { name: "ida", role: "administrator", passphrase: "ida installs and enrols" };
/// First signature.
pub(crate) const STEWARD: Person =
    Person { name: "stefan", role: "data-steward", passphrase: "stefan keeps the registry" };
/// Second signature.
pub(crate) const APPROVER: Person =
    Person { name: "amara", role: "data-access-approver", passphrase: "amara heads the department" };
/// Opinion before the second signature.
pub(crate) const OFFICER: Person =
    Person { name: "olga", role: "privacy-officer", passphrase: "olga protects the patients" };
/// Reads.
pub(crate) const AUDITOR: Person = Person { name: "aldo", role: "auditor", passphrase: "aldo reads everything" };
