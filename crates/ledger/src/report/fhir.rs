//! FHIR AuditEvent, R4B and R5, one resource a line (NDJSON).
//!
//! Each entry is one event of our own profile (`fhir/StructureDefinition-hospes-audit-event-*.json`): approvals here are
//! about datasets, so that the patient-level profiles of IHE BALP cannot be kept. A last event says of which log this is.

use std::io::{self, Write};

use hospes_protocol::id::Digest;
use serde_json::{Map, Value, json};

use super::codes::{self, Code};
use super::table::program;
use super::{Head, Log, ReportError, field, plain, spoken};
use crate::entry::{Actor, Object, ObjectKind};
use crate::leaf::{Field, Record};
use crate::verify::Proven;

/// Where our own code systems and profiles have their names.
pub(super) const BASE: &str = "https://github.com/hospes/hospes/fhir";
/// Says that a value is not here, and why.
const ABSENT: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";

/// Version of FHIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 4.3.0.
    R4b,
    /// 5.0.0.
    R5,
}

impl Version {
    fn profile(self) -> String {
        let suffix = if self == Self::R4b { "r4b" } else { "r5" };
        format!("{BASE}/StructureDefinition/hospes-audit-event-{suffix}")
    }
}

pub(super) fn write(
    log: &mut Log<'_>,
    head: &Head<'_>,
    version: Version,
    out: &mut dyn Write,
) -> Result<(), ReportError> {
    let events = Events { version, head };
    log.each(&mut |proven| line(out, &events.event(&proven)))?;
    line(out, &events.closing())?;
    Ok(())
}

/// Writes one resource.
pub(super) fn line(out: &mut dyn Write, resource: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, resource)?;
    out.write_all(b"\n")
}

/// A reference by identifier: nothing here lies on a FHIR server.
pub(super) fn reference(kind: Option<&str>, system: &str, value: &str, display: Option<String>) -> Value {
    let mut reference = Map::new();
    if let Some(kind) = kind {
        reference.insert("type".into(), kind.into());
    }
    reference.insert("identifier".into(), json!({ "system": system, "value": value }));
    if let Some(display) = display.filter(|d| !d.is_empty()) {
        reference.insert("display".into(), display.into());
    }
    Value::Object(reference)
}

/// A document or payload by its SHA-256.
pub(super) fn by_digest(digest: &Digest, display: Option<String>) -> Value {
    reference(None, "urn:ietf:rfc:3986", &format!("urn:sha256:{digest}"), display)
}

/// Names of ids of one kind.
pub(super) fn naming(kind: &str) -> String {
    format!("{BASE}/NamingSystem/{kind}")
}

fn coding(code: Code) -> Value {
    json!({ "system": code.system, "code": code.code, "display": code.display })
}

fn own(system: &str, code: &str) -> Value {
    json!({ "system": format!("{BASE}/CodeSystem/{system}"), "code": code, "display": spoken(code) })
}

fn concept(codings: Vec<Value>) -> Value {
    json!({ "coding": codings })
}

fn erased(words: Option<String>) -> Value {
    let words = words.unwrap_or_else(|| "not in the entry".to_owned());
    json!({ "extension": [{ "url": ABSENT, "valueCode": "masked" }], "display": words })
}

/// Puts a value where there is one.
fn put(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}

struct Events<'h> {
    version: Version,
    head: &'h Head<'h>,
}

impl Events<'_> {
    fn r5(&self) -> bool {
        self.version == Version::R5
    }

    fn event(&self, proven: &Proven) -> Value {
        let record = &proven.record;
        let leaf = proven.leaf.to_string();
        let mut event = self.begin(&format!("{}-{}", record.sequence, leaf.get(..16).unwrap_or_default()));
        event.insert("meta".into(), json!({ "profile": [self.version.profile()] }));
        self.kind(&mut event, record);
        match record.when {
            Some(when) if self.r5() => {
                event.insert("occurredDateTime".into(), when.at.to_string().into());
                event.insert("recorded".into(), when.at.to_string().into());
            }
            Some(when) => drop(event.insert("recorded".into(), when.at.to_string().into())),
            None => {
                let absent = json!({ "extension": [{ "url": ABSENT, "valueCode": "masked" }] });
                event.insert("_recorded".into(), absent);
            }
        }
        self.outcome(&mut event, record);
        self.purpose(&mut event, record);
        let mut agents = vec![self.agent(record.actor.as_ref(), record, Field::Actor, true)];
        if record.on_behalf.is_some() || record.erased_words(Field::OnBehalf).is_some() {
            agents.push(self.agent(record.on_behalf.as_ref(), record, Field::OnBehalf, false));
        }
        if let Some(egress) = &record.egress {
            agents.push(json!({
                "type": concept(vec![coding(codes::DESTINATION)]),
                "who": reference(Some("Organization"), &naming("site"), &plain(&egress.to), self.site(&egress.to)),
                "requestor": false,
            }));
        }
        event.insert("agent".into(), agents.into());
        event.insert("source".into(), self.source());
        let mut entities: Vec<Value> = record.objects.iter().map(|object| self.object(object)).collect();
        if let Some(egress) = &record.egress {
            let details =
                vec![("bytes".to_owned(), egress.bytes.to_string()), ("sent to".to_owned(), plain(&egress.to))];
            let what = by_digest(&egress.digest, Some("what left".into()));
            entities.push(self.entity(what, ObjectKind::Export, "what left", details));
        }
        entities.push(self.entry(proven, &leaf));
        event.insert("entity".into(), entities.into());
        Value::Object(event)
    }

    fn begin(&self, id: &str) -> Map<String, Value> {
        let mut event = Map::new();
        event.insert("resourceType".into(), "AuditEvent".into());
        event.insert("id".into(), id.into());
        event
    }

    /// What was done: type and subtype, or category and code.
    fn kind(&self, event: &mut Map<String, Value>, record: &Record) {
        let Some(action) = record.action else {
            let words = record.erased_words(Field::Action);
            if self.r5() {
                let absent = json!([{ "url": ABSENT, "valueCode": "masked" }]);
                event.insert("code".into(), json!({ "extension": absent, "text": words.unwrap_or_default() }));
            } else {
                event.insert("type".into(), erased(words));
            }
            return;
        };
        let mapping = codes::mapping(action);
        let codings: Vec<Value> =
            [own("audit-action", action.as_str())].into_iter().chain(mapping.subtype.map(coding)).collect();
        if self.r5() {
            event.insert("category".into(), json!([concept(vec![coding(mapping.kind)])]));
            event.insert("code".into(), concept(codings));
        } else {
            event.insert("type".into(), coding(mapping.kind));
            event.insert("subtype".into(), codings.into());
        }
        event.insert("action".into(), mapping.act.into());
        if self.r5() {
            event.insert("severity".into(), codes::severity(Some(action), record.outcome).fhir.into());
        }
    }

    fn outcome(&self, event: &mut Map<String, Value>, record: &Record) {
        let reason = field(record, Field::Reason, record.reason.as_deref().map(plain));
        let reason = Some(reason).filter(|r| !r.is_empty());
        let Some(outcome) = record.outcome else {
            if let (false, Some(words)) = (self.r5(), record.erased_words(Field::Outcome)) {
                event.insert("outcomeDesc".into(), words.into());
            }
            return;
        };
        if !self.r5() {
            event.insert("outcome".into(), codes::outcome_r4b(outcome).into());
            put(event, "outcomeDesc", reason.map(Value::from));
            return;
        }
        let mut detail = Map::new();
        detail.insert("coding".into(), json!([own("audit-outcome", outcome.as_str())]));
        put(&mut detail, "text", reason.map(Value::from));
        let code = coding(codes::outcome_r5(outcome));
        event.insert("outcome".into(), json!({ "code": code, "detail": [detail] }));
    }

    /// For what: the approval, and the purpose of use where the study's document, which the log has by digest, states one.
    fn purpose(&self, event: &mut Map<String, Value>, record: &Record) {
        let study = record.purpose.study.and_then(|id| self.head.words.study(id));
        let mut purposes = Vec::new();
        if let Some(study) = study {
            let mut purpose = Map::new();
            let code = study.terms.purpose_of_use.as_deref().filter(|code| is_code(code));
            put(&mut purpose, "coding", code.map(|c| json!([{ "system": codes::ACT_REASON, "code": c }])));
            purpose.insert("text".into(), plain(&study.terms.title).into());
            purposes.push(Value::Object(purpose));
        }
        if self.r5() {
            let system = naming("approval");
            purposes.extend(record.purpose.approval.map(|approval| {
                json!({ "coding": [{ "system": system, "code": approval.to_string() }], "text": "approval of this site" })
            }));
        }
        if !purposes.is_empty() {
            event.insert(if self.r5() { "authorization" } else { "purposeOfEvent" }.into(), purposes.into());
        }
    }

    fn site(&self, id: &str) -> Option<String> {
        id.parse().ok().and_then(|id| self.head.words.site(id))
    }

    fn agent(&self, actor: Option<&Actor>, record: &Record, place: Field, requestor: bool) -> Value {
        let mut agent = Map::new();
        let origin = self.head.origin();
        match actor {
            None => drop(agent.insert("who".into(), erased(record.erased_words(place)))),
            Some(Actor::Engine) => {
                agent.insert("type".into(), concept(vec![coding(codes::APPLICATION)]));
                let who = reference(Some("Device"), &naming("site"), &origin, Some("the engine".into()));
                agent.insert("who".into(), who);
            }
            Some(Actor::Peer { organisation, node }) => {
                let name = self.head.words.site(*node).or_else(|| organisation.as_deref().map(plain));
                let who = reference(Some("Organization"), &naming("site"), &node.to_string(), name);
                agent.insert("who".into(), who);
            }
            Some(Actor::Person { id, key, role }) => {
                let roles = role.as_deref().map(|role| json!([concept(vec![own("role", &plain(role))])]));
                put(&mut agent, "role", roles);
                let name = self.head.words.person(*id);
                agent.insert("who".into(), reference(Some("Practitioner"), &naming("person"), &id.to_string(), name));
                if !self.r5() {
                    put(&mut agent, "altId", key.map(|key| key.to_string().into()));
                }
            }
        }
        agent.insert("requestor".into(), requestor.into());
        if requestor && let Some(approval) = record.purpose.approval {
            agent.insert("policy".into(), json!([format!("urn:uuid:{approval}")]));
        }
        Value::Object(agent)
    }

    fn source(&self) -> Value {
        let kind = Code { system: codes::SOURCE_TYPE, code: "4", display: "Application Server" };
        let origin = self.head.origin();
        let name = self.site(&origin);
        let observer = reference(Some("Device"), &naming("site"), &origin, name);
        if self.r5() {
            json!({ "observer": observer, "type": [concept(vec![coding(kind)])] })
        } else {
            json!({ "site": origin, "observer": observer, "type": [coding(kind)] })
        }
    }

    fn object(&self, object: &Object) -> Value {
        let id = plain(&object.id);
        let name = match object.kind {
            ObjectKind::Dataset => self.head.words.dataset(&object.id),
            ObjectKind::Person => object.id.parse().ok().and_then(|id| self.head.words.person(id)),
            ObjectKind::Site | ObjectKind::Federation => self.site(&object.id),
            _ => None,
        };
        let display = format!("{} {}", spoken(object.kind.as_str()), name.as_deref().unwrap_or(&id));
        let what = match &object.digest {
            Some(digest) => by_digest(digest, Some(display.clone())),
            None => reference(None, &naming(object.kind.as_str()), &id, Some(display.clone())),
        };
        let details = vec![("kind".to_owned(), object.kind.to_string()), ("id".to_owned(), id)];
        self.entity(what, object.kind, &display, details)
    }

    fn entity(&self, what: Value, kind: ObjectKind, name: &str, details: Vec<(String, String)>) -> Value {
        let mut entity = Map::new();
        entity.insert("what".into(), what);
        let role = coding(codes::object_role(kind));
        if self.r5() {
            entity.insert("role".into(), concept(vec![role]));
        } else {
            entity.insert("type".into(), coding(codes::entity_type(kind)));
            entity.insert("role".into(), role);
            entity.insert("name".into(), name.into());
        }
        let details: Vec<Value> = details
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| match self.version {
                Version::R4b => json!({ "type": name, "valueString": value }),
                Version::R5 => json!({ "type": { "text": name }, "valueString": value }),
            })
            .collect();
        entity.insert("detail".into(), details.into());
        Value::Object(entity)
    }

    /// The entry itself: its place, and the hash of its leaf, by which it is found in the native export.
    fn entry(&self, proven: &Proven, leaf: &str) -> Value {
        let record = &proven.record;
        let mut details = vec![("sequence".to_owned(), record.sequence.to_string())];
        let mut detail = |name: &str, value: Option<String>| details.extend(value.map(|v| (name.to_owned(), v)));
        detail("order", record.when.map(|w| w.order.to_string()));
        detail("study", record.purpose.study.map(|id| id.to_string()));
        detail("job", record.purpose.job.map(|id| id.to_string()));
        detail("approval", record.purpose.approval.map(|id| id.to_string()));
        if let Some(Actor::Person { key: Some(key), .. }) = &record.actor {
            detail("signing key", Some(key.to_string()));
        }
        detail("before", record.change.and_then(|c| c.before).map(|d| format!("sha256:{d}")));
        detail("after", record.change.and_then(|c| c.after).map(|d| format!("sha256:{d}")));
        detail("program", record.engine.as_ref().map(program));
        detail("answers", record.answers.map(|a| format!("{}#{}", a.origin, a.entry)));
        for (erased, rule) in &record.erased {
            detail(erased.as_str(), Some(format!("erased under rule {rule}")));
        }
        let name = format!("entry {} of the audit log of {}", record.sequence, self.head.origin());
        let what = reference(None, "urn:ietf:rfc:3986", &format!("urn:sha256:{leaf}"), Some(name.clone()));
        self.entity(what, ObjectKind::Entries, &name, details)
    }

    /// The event of the export itself: of which log, which entries, under which checkpoint.
    fn closing(&self) -> Value {
        let root = self.head.root();
        let mut event = self.begin(&format!("export-{}-{}", self.head.report.size, root.get(..16).unwrap_or_default()));
        let codings = vec![own("audit-action", "audit_exported")];
        if self.r5() {
            event.insert("category".into(), json!([concept(vec![coding(codes::LOG_EXPORT)])]));
            event.insert("code".into(), concept(codings));
        } else {
            event.insert("type".into(), coding(codes::LOG_EXPORT));
            event.insert("subtype".into(), codings.into());
        }
        event.insert("action".into(), "R".into());
        event.insert("recorded".into(), self.head.made().to_string().into());
        let who = reference(Some("Device"), &naming("site"), &self.head.origin(), None);
        let agent = json!([{ "type": concept(vec![coding(codes::APPLICATION)]), "who": who, "requestor": true }]);
        event.insert("agent".into(), agent);
        event.insert("source".into(), self.source());
        let details = vec![
            ("range".to_owned(), self.head.range()),
            ("checkpoint".to_owned(), self.head.report.note.clone().unwrap_or_default().trim_end().to_owned()),
            ("how to verify".to_owned(), self.head.how().to_owned()),
        ];
        let name = format!("checkpoint of {} entries", self.head.report.size);
        let what = reference(None, "urn:ietf:rfc:3986", &format!("urn:sha256:{root}"), Some(name.clone()));
        event.insert("entity".into(), json!([self.entity(what, ObjectKind::Checkpoint, &name, details)]));
        Value::Object(event)
    }
}

/// Whether a text may stand as a code of HL7's reasons. It was written by the requester.
pub(super) fn is_code(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_uppercase())
}
