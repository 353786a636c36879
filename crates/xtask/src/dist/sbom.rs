//! The bill of materials: CycloneDX 1.6 (<https://cyclonedx.org/docs/1.6/json/>), the same bytes for the same commit.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::shipped::{Library, Shipped};
use super::{Release, hex};

/// The bill of materials of all programs together.
pub(super) fn cyclonedx(shipped: &Shipped, release: &Release) -> Value {
    let product = format!("hospes@{}", release.version);
    let components: Vec<Value> = shipped.libraries.values().map(component).collect();
    let mut dependencies =
        vec![json!({ "ref": product, "dependsOn": shipped.programs.iter().map(|(_, p)| p).collect::<Vec<_>>() })];
    for library in shipped.libraries.values() {
        dependencies.push(json!({ "ref": library.purl, "dependsOn": library.needs }));
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&components, release),
        "version": 1,
        "metadata": {
            "timestamp": timestamp(release.epoch),
            "component": {
                "bom-ref": product,
                "type": "application",
                "name": "hospes",
                "version": release.version,
                "licenses": [{ "license": { "id": "Apache-2.0" } }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(library: &Library) -> Value {
    let mut value = json!({
        "bom-ref": library.purl,
        "type": "library",
        "name": library.name,
        "version": library.version,
        "purl": library.purl,
    });
    if !library.description.is_empty() {
        value["description"] = json!(library.description);
    }
    if !library.licence.is_empty() {
        value["licenses"] = json!([{ "expression": library.licence }]);
    }
    if let Some((algorithm, digest)) = &library.digest {
        value["hashes"] = json!([{ "alg": algorithm, "content": digest }]);
    }
    if !library.repository.is_empty() {
        value["externalReferences"] = json!([{ "type": "vcs", "url": library.repository }]);
    }
    value
}

/// A UUID of what is listed (RFC 9562, version 8), because a random one would differ from build to build.
fn serial(components: &[Value], release: &Release) -> String {
    let mut hash = Sha256::new();
    hash.update(release.version.as_bytes());
    for component in components {
        hash.update(component.to_string().as_bytes());
    }
    let mut bytes = hash.finalize();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes[..16]);
    format!("urn:uuid:{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// RFC 3339, UTC. Days to a date: Howard Hinnant, `civil_from_days`.
fn timestamp(epoch: u64) -> String {
    let (days, second) = (epoch / 86_400, epoch % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn every_reference_leads_to_a_component_and_the_same_input_gives_the_same_bill() {
        let library = |name: &str, needs: &[&str]| Library {
            purl: format!("pkg:cargo/{name}@1.0.0"),
            name: name.into(),
            version: "1.0.0".into(),
            licence: "MIT".into(),
            description: String::new(),
            repository: String::new(),
            authors: Vec::new(),
            digest: None,
            folder: "/".into(),
            is_ours: false,
            needs: needs.iter().map(|n| format!("pkg:cargo/{n}@1.0.0")).collect::<BTreeSet<_>>(),
        };
        let libraries = [library("hospes", &["a"]), library("a", &[])];
        let libraries: BTreeMap<_, _> = libraries.into_iter().map(|l| (l.purl.clone(), l)).collect();
        let shipped = Shipped { libraries, programs: vec![("hospes", "pkg:cargo/hospes@1.0.0".into())] };
        let release = Release { version: "1.0.0".into(), epoch: 0, is_dev: true };
        let bill = cyclonedx(&shipped, &release);
        let known: BTreeSet<&str> =
            bill["components"].as_array().into_iter().flatten().filter_map(|c| c["bom-ref"].as_str()).collect();
        assert_eq!(known.len(), 2);
        for edge in bill["dependencies"].as_array().into_iter().flatten() {
            for to in edge["dependsOn"].as_array().into_iter().flatten() {
                assert!(known.contains(to.as_str().unwrap_or_default()), "{to}");
            }
        }
        assert_eq!(bill, cyclonedx(&shipped, &release));
        let serial = bill["serialNumber"].as_str().unwrap_or_default();
        assert_eq!((serial.len(), &serial[23..24]), (45, "8"));
    }
}
