//! The committed OpenAPI document is the one that the handlers make.

use hospes_coordinator::serve::rest;

#[test]
fn the_committed_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == rest::openapi(),
        "crates/coordinator/openapi.json is out of date; make it anew: hospes-coordinator openapi"
    );
}

#[test]
fn every_path_but_the_signs_of_life_needs_a_token_and_says_how_it_fails() {
    let document: serde_json::Value = serde_json::from_str(&rest::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["security"], serde_json::json!([{ "token": [] }]));
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string() || operation["description"].is_string(), "{place}: no words");
            if path.starts_with("/api/") {
                assert!(operation["security"].is_null(), "{place}: open to everybody");
                assert!(operation["responses"]["401"].is_object(), "{place}: 401 is not described");
            }
        }
    }
}
