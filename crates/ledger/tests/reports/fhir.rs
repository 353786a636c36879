//! FHIR resources against the schemas, required elements and codes of HL7's own packages (`fhir/`, with their source).

use std::collections::BTreeMap;

use boon::{Compiler, Schemas};
use hospes_ledger::report::Format;
use hospes_ledger::{Action, Actor, Engine, Entry, Outcome};
use serde_json::Value;

use crate::fixture::{T0, annex, at, export, made, story};

const BINDINGS: &str = include_str!("../../fhir/bindings.json");
const OWN: &str = "https://github.com/hospes/hospes/fhir/";

fn schema(version: &str) -> Value {
    let text = match version {
        "r4b" => include_str!("../../fhir/schema-r4b.json"),
        _ => include_str!("../../fhir/schema-r5.json"),
    };
    serde_json::from_str(text).unwrap()
}

/// Every action with every outcome, besides what happens at the hospital; some of it erased.
fn everything() -> Vec<u8> {
    let mut entries = story();
    let mut minutes = 100;
    for action in Action::ALL {
        for outcome in [Outcome::Success, Outcome::Refused, Outcome::Failed] {
            minutes += 1;
            let mut entry = Entry::new(at(minutes), Actor::Engine, *action, Engine::new("hospes-site 0.1.0"));
            entry.outcome = outcome;
            entries.push(entry);
        }
    }
    export(&entries, Some(T0 + 15 * 60_000))
}

fn resources(format: Format, export: &[u8]) -> Vec<Value> {
    made(format, export, &annex()).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Panics with the first thing in a resource that its standard does not allow.
fn check(version: &str, resources: &[Value]) {
    let bindings: Value = serde_json::from_str(BINDINGS).unwrap();
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    compiler.add_resource("fhir.json", schema(version)).unwrap();
    let index = compiler.compile("fhir.json", &mut schemas).unwrap();
    for resource in resources {
        if let Err(error) = schemas.validate(resource, index) {
            panic!("{error:#}\n{resource:#}");
        }
        let kind = resource["resourceType"].as_str().unwrap();
        for path in bindings["required"][version][kind].as_array().unwrap() {
            let path: Vec<&str> = path.as_str().unwrap().split('.').skip(1).collect();
            assert!(has(resource, &path), "{path:?} is missing in {resource:#}");
        }
        codings(resource, &mut |coding| check_coding(coding, &bindings["codes"]));
        ids_are_fhir_ids(resource);
    }
}

/// Whether a required element is there wherever its parent is; the absence of a simple value may be explained.
fn has(value: &Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    if let Value::Array(list) = value {
        return list.iter().all(|item| has(item, path));
    }
    if *name == "value[x]" {
        return value.as_object().unwrap().keys().any(|key| key.starts_with("value"));
    }
    match (value.get(name), rest) {
        (Some(child), rest) => has(child, rest),
        (None, []) => value.get(format!("_{name}")).is_some(),
        // A required element of something optional that is not there.
        (None, _) => true,
    }
}

fn codings(value: &Value, each: &mut dyn FnMut(&Value)) {
    match value {
        Value::Object(map) => {
            if map.contains_key("system") && map.contains_key("code") {
                each(value);
            }
            map.values().for_each(|value| codings(value, each));
        }
        Value::Array(list) => list.iter().for_each(|value| codings(value, each)),
        _ => {}
    }
}

fn check_coding(coding: &Value, codes: &Value) {
    let (system, code) = (coding["system"].as_str().unwrap(), coding["code"].as_str().unwrap());
    if system.starts_with(OWN) {
        return;
    }
    if system == "http://terminology.hl7.org/CodeSystem/v3-ActReason" {
        // The requester's own word, as its document states it.
        return;
    }
    assert_eq!(codes[system][code], coding["display"], "{coding}");
}

fn ids_are_fhir_ids(resource: &Value) {
    let id = resource["id"].as_str().unwrap();
    assert!(id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)), "{id}");
}

#[test]
fn audit_events_of_r4b_keep_its_schema_cardinalities_and_codes() {
    let bindings: Value = serde_json::from_str(BINDINGS).unwrap();
    let events = resources(Format::FhirR4b, &everything());
    // The erasure's own entry, and the export itself.
    assert_eq!(events.len(), story().len() + 3 * Action::ALL.len() + 2);
    check("r4b", &events);
    let known = |system: &str, code: &Value| !bindings["codes"][system][code.as_str().unwrap()].is_null();
    for event in &events {
        // The lists that R4B binds as required.
        assert!(event.get("action").is_none_or(|code| known("http://hl7.org/fhir/audit-event-action", code)));
        assert!(event.get("outcome").is_none_or(|code| known("http://hl7.org/fhir/audit-event-outcome", code)));
        // And those of type and subtype, which only our own codes and lifecycle events extend.
        for (element, list) in [("type", "type"), ("subtype", "subtype")] {
            codings(&event[element], &mut |coding| {
                let system = coding["system"].as_str().unwrap();
                if system == "http://dicom.nema.org/resources/ontology/DCM" {
                    assert!(bindings[list][system].as_array().unwrap().contains(&coding["code"]), "{coding}");
                }
            });
        }
    }
}

#[test]
fn audit_events_of_r5_keep_its_schema_cardinalities_and_codes() {
    let bindings: Value = serde_json::from_str(BINDINGS).unwrap();
    let events = resources(Format::FhirR5, &everything());
    check("r5", &events);
    let severities = &bindings["codes"]["http://hl7.org/fhir/audit-event-severity"];
    for event in &events {
        assert!(event.get("severity").is_none_or(|code| !severities[code.as_str().unwrap()].is_null()), "{event}");
    }
}

#[test]
fn an_update_that_left_is_an_export_with_receiver_bytes_digest_and_approval() {
    let export = export(&story(), None);
    for format in [Format::FhirR4b, Format::FhirR5] {
        let events = resources(format, &export);
        let sent = events.iter().find(|e| e.to_string().contains("\"update_sent\"")).unwrap().to_string();
        for part in ["110106", "110152", "urn:sha256:", "1000", "urn:uuid:", "Heart network", "\"sequence\""] {
            assert!(sent.contains(part), "{format}: {part} is missing in {sent}");
        }
        let signed = events.iter().find(|e| e.to_string().contains("\"approval_signed\"")).unwrap().to_string();
        for part in ["110113", "data_steward", "Anna Weber"] {
            assert!(signed.contains(part), "{format}: {part} is missing in {signed}");
        }
        let ids: std::collections::BTreeSet<&str> = events.iter().map(|e| e["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), events.len());
    }
}

#[test]
fn permissions_keep_their_schema_and_say_what_holds_now() {
    let bindings: Value = serde_json::from_str(BINDINGS).unwrap();
    let mut entries = story();
    let refused = crate::fixture::study(9);
    let purpose = hospes_ledger::Purpose { study: Some(refused.id), ..Default::default() };
    for action in [Action::RequestReceived, Action::RequestRefused] {
        let entry =
            Entry::new(at(200), Actor::peer(crate::fixture::federation()), action, Engine::new("hospes-site 0.1.0"));
        entries.push(entry.purpose(purpose));
    }
    let permissions = resources(Format::FhirPermission, &export(&entries, None));
    check("r5", &permissions);
    let states: BTreeMap<&str, &str> =
        permissions.iter().map(|p| (p["id"].as_str().unwrap(), p["status"].as_str().unwrap())).collect();
    let first = annex().approvals[0].id.to_string();
    let second = annex().approvals[1].id.to_string();
    assert_eq!(states[first.as_str()], "rejected", "it was revoked");
    assert_eq!(states[second.as_str()], "active");
    assert_eq!(states[format!("refused-{}", refused.id).as_str()], "rejected");
    for permission in &permissions {
        for (element, system) in [
            ("status", "http://hl7.org/fhir/permission-status"),
            ("combining", "http://hl7.org/fhir/permission-rule-combining"),
        ] {
            let code = permission[element].as_str().unwrap();
            assert!(!bindings["codes"][system][code].is_null(), "{element} {code}");
        }
        let rule = permission["rule"][0]["type"].as_str().unwrap();
        assert!(!bindings["codes"]["http://hl7.org/fhir/consent-provision-type"][rule].is_null());
    }
    let held = permissions.iter().find(|p| p["id"] == second.as_str()).unwrap();
    assert_eq!(held["validity"]["end"], at(100_000).to_string());
    assert_eq!(held["date"].as_array().unwrap().len(), 2);
}

#[test]
fn our_code_systems_hold_every_action_and_outcome() {
    let read = |text: &str| -> Vec<String> {
        let system: Value = serde_json::from_str(text).unwrap();
        let concepts = system["concept"].as_array().unwrap();
        assert_eq!(system["count"], concepts.len());
        concepts.iter().map(|c| c["code"].as_str().unwrap().to_owned()).collect()
    };
    let actions: Vec<String> = Action::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(read(include_str!("../../fhir/CodeSystem-audit-action.json")), actions);
    assert_eq!(read(include_str!("../../fhir/CodeSystem-audit-outcome.json")), ["success", "refused", "failed"]);
}

/// The profile's own rules, said here in Rust: its FHIRPath needs an engine that this repository does not have.
#[test]
fn every_entry_keeps_the_rules_of_our_profile() {
    let profiles = [
        include_str!("../../fhir/StructureDefinition-hospes-audit-event-r4b.json"),
        include_str!("../../fhir/StructureDefinition-hospes-audit-event-r5.json"),
    ];
    for (format, profile) in [Format::FhirR4b, Format::FhirR5].into_iter().zip(profiles) {
        let profile: Value = serde_json::from_str(profile).unwrap();
        let events = resources(format, &everything());
        let (closing, events) = events.split_last().unwrap();
        assert!(closing.get("meta").is_none());
        for event in events {
            assert_eq!(event["meta"]["profile"][0], profile["url"]);
            let sequences = |entity: &&Value| {
                entity["detail"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|detail| detail["type"] == "sequence" || detail["type"]["text"] == "sequence")
            };
            let entries: Vec<&Value> = event["entity"].as_array().unwrap().iter().filter(sequences).collect();
            assert_eq!(entries.len(), 1, "{event:#}");
            let leaf = entries[0]["what"]["identifier"]["value"].as_str().unwrap();
            assert!(leaf.starts_with("urn:sha256:") && leaf.len() == 11 + 64);
            assert!(event.get("patient").is_none());
            assert!(!event["source"]["observer"]["identifier"]["value"].as_str().unwrap().is_empty());
        }
    }
}
