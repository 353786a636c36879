//! What can go wrong between a site and its coordinator, in words for the people at the site.

use std::fmt;
use std::io;

use hospes_protocol::enrol::InvitationError;
use hospes_protocol::id::Timestamp;
use hospes_protocol::limits;

use super::tls;

/// Why a coordinator could not be reached, or not be believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Not an address that a coordinator can have.
    #[error("'{url}' is not the address of a coordinator: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The proxy's address or settings cannot be used.
    #[error("the proxy setting cannot be used: {0}")]
    ProxySetting(String),
    /// A name has no address.
    #[error("the name '{host}' cannot be resolved: {reason}")]
    Resolve {
        /// Host.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// No TCP connection.
    #[error("no connection to {what} {host}:{port}: {reason}")]
    Connect {
        /// *the coordinator* or *the proxy*.
        what: &'static str,
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// What the operating system says.
        reason: String,
    },
    /// The proxy wants credentials, or others than those given.
    #[error("the proxy {proxy} asks for a user name and password, or does not take those given")]
    ProxyCredentials {
        /// Proxy.
        proxy: String,
    },
    /// The proxy does not let the connection through.
    #[error("the proxy {proxy} does not let a connection to {host}:{port} through: {reason}")]
    ProxyRefused {
        /// Proxy.
        proxy: String,
        /// Coordinator.
        host: String,
        /// Port.
        port: u16,
        /// What it answered.
        reason: String,
    },
    /// Somebody on the way opens the encryption.
    #[error(
        "somebody on the way opens the encrypted connection: the certificate shown for {host} was issued by '{issuer}', \
         not by the federation's CA"
    )]
    Intercepted {
        /// Coordinator.
        host: String,
        /// Issuer of the certificate that was shown.
        issuer: String,
    },
    /// The coordinator's certificate is not believed, for another reason.
    #[error("the certificate of {host} is not accepted: {reason}")]
    Certificate {
        /// Coordinator.
        host: String,
        /// Why.
        reason: String,
    },
    /// The coordinator does not take this site's certificate.
    #[error("the coordinator does not accept this site's certificate: {0}")]
    ClientCertificate(String),
    /// The site's certificate, key or the federation's CA cannot be used.
    #[error("this site's {what} cannot be used: {reason}")]
    Material {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// TLS or HTTP went wrong.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A step took too long.
    #[error("{step} did not answer within {seconds} s")]
    TimedOut {
        /// Which step.
        step: &'static str,
        /// How long it was given.
        seconds: u64,
    },
    /// The clocks differ too much for approvals and deadlines to mean anything.
    #[error("{}", skew(*.0))]
    Clock(
        /// Site minus coordinator, in milliseconds.
        i64,
    ),
    /// Not the coordinator known from enrolment.
    #[error("this is not the coordinator that the site enrolled with: {0}")]
    Identity(&'static str),
    /// The two sides speak no common version, or the other breaks the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The coordinator refused, in its own words.
    #[error("the coordinator refuses: {0}")]
    Refused(String),
    /// The coordinator shut this site out for good.
    #[error("the coordinator has shut this site out: {0}")]
    Revoked(String),
    /// The invitation cannot be read.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// The invitation is past its time.
    #[error("the invitation was good until {0}; ask the operator for a new one")]
    InvitationExpired(Timestamp),
    /// The words typed are not those of the coordinator in the invitation.
    #[error(
        "the words typed are those of another coordinator than the one in the invitation; do not enrol, and call the \
         operator on a number that you know"
    )]
    WordsDiffer,
    /// The words typed are no fingerprint.
    #[error("those are not the twelve words of a fingerprint; one was misheard or mistyped, or one is missing")]
    WordsMistyped,
    /// The answer to enrolment or renewal is not what was asked for.
    #[error("the coordinator's answer cannot be used: {0}")]
    Answer(String),
}

impl LinkError {
    /// Whether trying again cannot help before somebody at the site or the operator did something.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Revoked(_))
    }

    /// As an error of a handshake that was not finished: until then nobody has proven who they are, and one packet of
    /// anybody on the way could say anything, so that nothing said is final.
    pub(super) fn unproven(self) -> Self {
        match self {
            Self::Revoked(said) => Self::ClientCertificate(said),
            other => other,
        }
    }

    /// Whether trying again soon is pointless: the longest pause then follows.
    pub fn is_slow(&self) -> bool {
        matches!(
            self,
            Self::Clock(_) | Self::Identity(_) | Self::Material { .. } | Self::ClientCertificate(_) | Self::Url { .. }
        )
    }

    /// One sentence to pass on to the hospital's IT department, where it is theirs to mend.
    pub fn request(&self) -> Option<String> {
        Some(match self {
            Self::Resolve { host, .. } => format!("Please make the name {host} resolvable from this machine."),
            Self::Connect { what: "the proxy", host, port, .. } => {
                format!("Please allow this machine to reach the proxy {host} on TCP port {port}, or tell us another.")
            }
            Self::Connect { host, port, .. } => format!(
                "Please allow outbound TCP from this machine to {host}, port {port}, or tell us which proxy to use."
            ),
            Self::ProxyCredentials { proxy } => {
                format!(
                    "Please give us a user name and password for the proxy {proxy}, or exempt this machine from them."
                )
            }
            Self::ProxyRefused { proxy, host, port, .. } => {
                format!("Please allow CONNECT to {host}:{port} on the proxy {proxy}.")
            }
            Self::Intercepted { host, issuer } => format!(
                "Please exempt {host} from TLS inspection (now done by '{issuer}'): both sides prove themselves with \
                 certificates, which inspection breaks."
            ),
            Self::Clock(_) => "Please switch on time synchronisation (NTP) on this machine.".to_owned(),
            Self::TimedOut { step, .. } => {
                format!(
                    "Please check whether a firewall silently drops connections of this machine ({step} does not answer)."
                )
            }
            Self::Broken(_) => {
                "Please check whether a firewall or proxy cuts long-lived HTTP/2 connections of this machine."
                    .to_owned()
            }
            Self::Material { what: tls::FILE, .. } => {
                "Please give us the certificates of the network's own authorities as a file in PEM form.".to_owned()
            }
            Self::ProxySetting(_) => "Please tell us the address of the proxy as http://host:port.".to_owned(),
            _ => return None,
        })
    }
}

fn skew(ms: i64) -> String {
    // Rounded, each to its own unit.
    let minutes = (ms.unsigned_abs() + 30_000) / 60_000;
    let how = if minutes >= 47 * 60 {
        format!("{} days", (minutes + 12 * 60) / (24 * 60))
    } else if minutes >= 120 {
        format!("{} hours", (minutes + 30) / 60)
    } else {
        format!("{minutes} minutes")
    };
    let side = if ms > 0 { "ahead of" } else { "behind" };
    format!(
        "this machine's clock is {how} {side} the coordinator's; more than {} minutes is not accepted, set the clock",
        limits::CLOCK_SKEW_MS / 60_000
    )
}

/// Carries a [`LinkError`] through layers that only know [`io::Error`] or a certificate error.
#[derive(Debug, Clone)]
pub(super) struct Carried(pub(super) LinkError);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Carried {}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        Self::other(Carried(error))
    }
}

/// Finds the [`LinkError`] that other layers wrapped, or describes the chain of sources.
pub(super) fn of_chain(error: &(dyn std::error::Error + 'static)) -> LinkError {
    let mut next = Some(error);
    let mut words: Vec<String> = Vec::new();
    while let Some(error) = next {
        if let Some(Carried(inner)) = error.downcast_ref::<Carried>() {
            return inner.clone();
        }
        if let Some(known) = error.downcast_ref::<rustls::Error>().and_then(of_tls) {
            return known;
        }
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof) {
            return LinkError::Broken("the coordinator, or something on the way to it, cut it".to_owned());
        }
        let text = error.to_string();
        if words.last().is_none_or(|last| !last.contains(&text)) {
            words.push(text);
        }
        // `io::Error` hides what it wraps from `source`.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    LinkError::Broken(words.join(": "))
}

/// What a TLS error means, if it means something in particular.
fn of_tls(error: &rustls::Error) -> Option<LinkError> {
    use rustls::AlertDescription as Alert;
    Some(match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<Carried>()?.0.clone()
        }
        rustls::Error::AlertReceived(Alert::CertificateRevoked) => {
            LinkError::Revoked("its certificate was revoked".to_owned())
        }
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            LinkError::ClientCertificate("it has expired, or one of the two clocks is wrong".to_owned())
        }
        rustls::Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            LinkError::ClientCertificate("it comes from another federation's CA".to_owned())
        }
        rustls::Error::AlertReceived(
            Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        ) => LinkError::ClientCertificate("it is not a certificate that this coordinator takes".to_owned()),
        _ => return None,
    })
}
