//! Codes of other standards for what the log calls by its own names.
//!
//! Sources: the FHIR packages `hl7.fhir.r4b.core` 4.3.0 and `hl7.fhir.r5.core` 5.0.0 (CC0). The tests compare every code
//! here with the lists of these packages in `fhir/bindings.json`.

use crate::entry::{Action, ObjectKind, Outcome};

/// Code system of DICOM's audit events.
pub(super) const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// Code system of record lifecycle events.
pub(super) const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle";
/// Code system of the roles of objects in an event.
pub(super) const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
/// Code system of the kinds of sources of an event.
pub(super) const SOURCE_TYPE: &str = "http://terminology.hl7.org/CodeSystem/security-source-type";
/// Code system of the kinds of objects in an event (R4B).
pub(super) const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
/// Code system of an event's outcome in R5.
pub(super) const ISSUE_SEVERITY: &str = "http://hl7.org/fhir/issue-severity";
/// Code system of reasons for an act; purposes of use are among them.
pub(super) const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";

/// A code with the system that it is of and its display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) system: &'static str,
    pub(super) code: &'static str,
    pub(super) display: &'static str,
}

const fn dcm(code: &'static str, display: &'static str) -> Code {
    Code { system: DCM, code, display }
}

const fn lifecycle(code: &'static str, display: &'static str) -> Code {
    Code { system: LIFECYCLE, code, display }
}

const ACTIVITY: Code = dcm("110100", "Application Activity");
const LOG_USED: Code = dcm("110101", "Audit Log Used");
const EXPORT: Code = dcm("110106", "Export");
const IMPORT: Code = dcm("110107", "Import");
const NETWORK: Code = dcm("110108", "Network Entry");
const QUERY: Code = dcm("110112", "Query");
/// The code that IHE BALP takes for decisions of authorisation.
const SECURITY: Code = dcm("110113", "Security Alert");
const LOGIN: Code = dcm("110114", "User Authentication");

/// How the standards name an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    /// FHIR `type` (R4B), `category` (R5).
    pub(super) kind: Code,
    /// A more exact code besides our own, where DICOM has one.
    pub(super) subtype: Option<Code>,
    /// FHIR `action`: create, read, update, delete or execute.
    pub(super) act: &'static str,
}

/// Receiver of data.
pub(super) const DESTINATION: Code = dcm("110152", "Destination Role ID");
/// The program.
pub(super) const APPLICATION: Code = dcm("110150", "Application");

/// The codes of an action.
pub(super) fn mapping(action: Action) -> Mapping {
    use Action as A;
    let (kind, subtype, act) = match action {
        A::EngineStarted => (ACTIVITY, Some(dcm("110120", "Application Start")), "E"),
        A::EngineStopped => (ACTIVITY, Some(dcm("110121", "Application Stop")), "E"),
        A::LoginSucceeded | A::LoginFailed => (LOGIN, Some(dcm("110122", "Login")), "E"),
        A::Logout => (LOGIN, Some(dcm("110123", "Logout")), "E"),
        A::PersonAdded | A::KeyMade | A::TokenMade => (SECURITY, Some(USER), "C"),
        A::PersonChanged | A::KeyReplaced => (SECURITY, Some(USER), "U"),
        A::TokenRevoked => (SECURITY, Some(USER), "D"),
        A::RolesChanged => (SECURITY, Some(dcm("110136", "Security Roles Changed")), "U"),
        A::RoleRefused => (SECURITY, Some(dcm("110132", "Use of Restricted Function")), "E"),
        A::SetupEnded | A::PolicyChanged | A::PeerVerified | A::PeerVouched => (SECURITY, Some(CONFIGURATION), "U"),
        A::CertificateIssued | A::CertificateRenewed => (SECURITY, Some(CONFIGURATION), "C"),
        A::CertificateRevoked | A::PeerRevoked => (SECURITY, Some(CONFIGURATION), "D"),
        A::SettingsChanged | A::UpdateInstalled => (SECURITY, Some(dcm("110131", "Software Configuration")), "U"),
        A::InvitationMade => (SECURITY, Some(NETWORK_CONFIGURATION), "C"),
        A::InvitationWithdrawn => (SECURITY, Some(NETWORK_CONFIGURATION), "D"),
        A::SiteSuspended | A::SiteResumed | A::SiteRevoked | A::RosterChanged => {
            (SECURITY, Some(NETWORK_CONFIGURATION), "U")
        }
        A::PeerRefused | A::WitnessFirst | A::DatabaseTried => {
            (SECURITY, Some(dcm("110126", "Node Authentication")), "E")
        }
        A::Enrolled => (NETWORK, Some(dcm("110124", "Attach")), "C"),
        A::FederationLeft => (NETWORK, Some(dcm("110125", "Detach")), "D"),
        A::DatasetRegistered => (IMPORT, None, "C"),
        A::DatabaseQueried => (QUERY, None, "E"),
        A::DatasetChanged | A::OptOutsChanged => {
            (lifecycle("amend", "Amend (Update) Record Lifecycle Event"), None, "U")
        }
        A::DatasetRemoved | A::AuditErased => {
            (lifecycle("destroy", "Destroy/Delete Record Lifecycle Event"), None, "D")
        }
        A::StudySubmitted | A::StudyOffered | A::RequestReceived | A::DecisionReceived => (SECURITY, None, "C"),
        A::OpinionGiven | A::ApprovalSigned | A::ApprovalCountersigned | A::PermitMinted | A::SumAgreed => {
            (SECURITY, None, "C")
        }
        A::RequestRefused | A::PermitRefused | A::WitnessFailed | A::WitnessLate | A::ClockAnomaly => {
            (SECURITY, None, "E")
        }
        A::ApprovalSuspended | A::ApprovalResumed => (SECURITY, None, "U"),
        A::ApprovalRevoked | A::ApprovalExpired | A::ApprovalSuperseded | A::StudyWithdrawn => (SECURITY, None, "D"),
        A::DryRun | A::ModelEvaluated | A::ModelUsed => (QUERY, None, "E"),
        A::JobStarted | A::JobEnded | A::JobCancelled | A::RoundOpened | A::RoundClosed | A::ControlSummary => {
            (ACTIVITY, None, "E")
        }
        A::TrainingStarted | A::TrainingFinished | A::TrainingFailed => (ACTIVITY, None, "E"),
        A::TrainingPaused | A::TrainingResumed | A::TrainingCancelled => (ACTIVITY, None, "E"),
        A::UpdatePrepared | A::UpdateLeaving | A::UpdateSent | A::UpdateReceipt | A::UpdateWithdrawn => {
            (EXPORT, None, "R")
        }
        A::ModelPublished | A::ModelExported | A::ResultsReleased => (EXPORT, None, "R"),
        A::UploadReceived | A::ModelReceived => (IMPORT, None, "C"),
        A::UploadRefused => (IMPORT, None, "E"),
        A::AuditViewed | A::AuditExported => (LOG_USED, None, "R"),
        A::BreakGlass => (SECURITY, Some(dcm("110127", "Emergency Override Started")), "E"),
        A::BreakGlassEnded => (SECURITY, Some(dcm("110138", "Emergency Override Stopped")), "E"),
        A::BackupMade => (lifecycle("archive", "Archive Record Lifecycle Event"), None, "C"),
        A::BackupRestored => (lifecycle("restore", "Restore Record Lifecycle Event"), None, "U"),
    };
    Mapping { kind, subtype, act }
}

const USER: Code = dcm("110137", "User security Attributes Changed");
const CONFIGURATION: Code = dcm("110129", "Security Configuration");
const NETWORK_CONFIGURATION: Code = dcm("110128", "Network Configuration");

/// The action of the line that ends a report.
pub(super) const LOG_EXPORT: Code = LOG_USED;

/// FHIR R4B `outcome`. 12 (the system is no longer available) never happens to what can still write a log.
pub(super) fn outcome_r4b(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "0",
        Outcome::Refused => "4",
        Outcome::Failed => "8",
    }
}

/// FHIR R5 `outcome.code`. A refusal is no success of what was asked; our own code beside it tells the two apart.
pub(super) fn outcome_r5(outcome: Outcome) -> Code {
    let (code, display) = match outcome {
        Outcome::Success => ("success", "Operation Successful"),
        Outcome::Refused | Outcome::Failed => ("error", "Error"),
    };
    Code { system: ISSUE_SEVERITY, code, display }
}

/// FHIR R5 `severity`, and the severity of a syslog line and of CEF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Severity {
    pub(super) fhir: &'static str,
    pub(super) syslog: u8,
    pub(super) cef: u8,
}

/// How much an entry should alarm its readers.
pub(super) fn severity(action: Option<Action>, outcome: Option<Outcome>) -> Severity {
    use Action as A;
    let (fhir, syslog, cef) = match (action, outcome) {
        (Some(A::WitnessFailed | A::BreakGlass), _) => ("alert", 1, 10),
        (Some(A::WitnessLate | A::ClockAnomaly | A::BackupRestored), _) => ("warning", 4, 7),
        (Some(A::LoginFailed | A::RoleRefused | A::PeerRefused | A::PeerRevoked), _) => ("warning", 4, 6),
        (_, Some(Outcome::Failed)) => ("error", 3, 6),
        (_, Some(Outcome::Refused)) => ("warning", 4, 5),
        (Some(A::UpdateSent | A::ModelExported | A::ResultsReleased | A::AuditExported | A::AuditErased), _) => {
            ("notice", 5, 3)
        }
        _ => ("informational", 6, 1),
    };
    Severity { fhir, syslog, cef }
}

/// Role of an object in an event.
pub(super) fn object_role(kind: ObjectKind) -> Code {
    let (code, display) = match kind {
        ObjectKind::Dataset | ObjectKind::Snapshot => ("4", "Domain Resource"),
        ObjectKind::Study | ObjectKind::Plan | ObjectKind::Job | ObjectKind::Round => ("20", "Job"),
        ObjectKind::Person => ("11", "Security User Entity"),
        ObjectKind::Site | ObjectKind::Federation => ("16", "Data Destination"),
        ObjectKind::Update | ObjectKind::Figures | ObjectKind::Model | ObjectKind::Export | ObjectKind::Receipt => {
            ("3", "Report")
        }
        _ => ("13", "Security Resource"),
    };
    Code { system: OBJECT_ROLE, code, display }
}

/// Kind of an object (R4B).
pub(super) fn entity_type(kind: ObjectKind) -> Code {
    let (code, display) = match kind {
        ObjectKind::Person => ("1", "Person"),
        ObjectKind::Site | ObjectKind::Federation => ("3", "Organization"),
        _ => ("2", "System Object"),
    };
    Code { system: ENTITY_TYPE, code, display }
}
