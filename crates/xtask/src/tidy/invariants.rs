//! Invariants of ARCHITECTURE.md that the tree itself shows: who may use what, and what a window may do.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;
use syn::visit::Visit;

use super::Findings;

/// The only places that import the gRPC code (I4), besides the crate that holds it.
const GRPC: &[&str] = &["crates/party/src/link", "crates/coordinator/src/serve", "crates/protocol/src/grpc"];
/// What is a function of its arguments only (I5).
const DETERMINISTIC: &[&str] = &["crates/protocol/src", "crates/privacy/src", "crates/ledger/src/tree"];
/// Names that bring time or randomness in by another way than an argument.
const SOURCES: &[&str] = &[
    "SystemTime",
    "Instant",
    "getrandom",
    "OsRng",
    "SysRng",
    "ThreadRng",
    "thread_rng",
    "now_local",
    "now_utc",
    "now_v1",
    "now_v6",
    "now_v7",
    "new_v4",
];
/// The same by two names, one of which means nothing by itself.
const PAIRS: &[[&str; 2]] = &[["rand", "random"], ["rand", "rng"], ["Local", "now"], ["Utc", "now"], ["Zoned", "now"]];
/// Parts of the standard library that reach outside.
const OUTSIDE: &[&str] = &["env", "fs", "net", "os", "process", "thread"];
/// Crates that read files of rows, or train on them (I1), with all that begin with their names and a hyphen; only
/// `hospes-cohort` uses them.
const ROWS: &[&str] =
    &["arrow", "arrow2", "burn", "calamine", "csv", "datafusion", "duckdb", "parquet", "parquet2", "polars"];
/// Who else uses which of them, and reads no rows with it: the log as a table is written, never read.
const ROWLESS: &[(&str, &str)] = &[("hospes-ledger", "csv")];
/// The two commands of a window (I6).
const COMMANDS: [&str; 2] = ["allow-call", "allow-subscribe"];
/// All that a page may load, run and reach: itself, and the two commands.
const CSP: &[(&str, &[&str])] = &[
    ("default-src", &["'none'"]),
    ("script-src", &["'self'"]),
    ("style-src", &["'self'"]),
    ("img-src", &["'self'"]),
    ("font-src", &["'self'"]),
    ("connect-src", &["ipc:", "http://ipc.localhost"]),
    ("base-uri", &["'none'"]),
    ("form-action", &["'none'"]),
    ("frame-ancestors", &["'none'"]),
];
/// Directives that must be there: what they forbid, no other one does.
const CSP_NEEDS: [&str; 4] = ["default-src", "base-uri", "form-action", "frame-ancestors"];

/// Checks one source file that is no test.
pub(crate) fn check(path: &Path, file: &syn::File, findings: &mut Findings) {
    let names = Names::of(file);
    let may_use_grpc = path.starts_with("crates/xtask") || GRPC.iter().any(|folder| path.starts_with(folder));
    if !may_use_grpc && names.0.iter().any(|name| is_grpc(name)) {
        findings.add(path.display(), "only party::link and coordinator::serve use the gRPC code (invariant I4)");
    }
    if DETERMINISTIC.iter().any(|folder| path.starts_with(folder)) {
        for name in names.0.iter().filter(|name| reaches_outside(name)) {
            let what = name.join("::");
            findings
                .add(path.display(), format!("uses {what}; time, randomness and paths are arguments (invariant I5)"));
        }
    }
}

/// Checks what a package uses.
pub(crate) fn check_package(package: &Value, findings: &mut Findings) {
    let name = package["name"].as_str().unwrap_or_default();
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    for used in dependencies.filter_map(|d| d["name"].as_str()).filter(|used| reads_rows(used)) {
        if name != "hospes-cohort" && !ROWLESS.contains(&(name, used)) {
            findings.add(name, format!("uses {used}; only hospes-cohort reads rows (invariant I1)"));
        }
    }
}

fn reads_rows(name: &str) -> bool {
    let is_of = |family: &str| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    ROWS.iter().any(|family| is_of(family))
}

/// Checks what a page in the window may do.
///
/// # Errors
/// If a file is missing or no JSON.
pub(crate) fn check_window(root: &Path, findings: &mut Findings) -> Result<()> {
    let read = |name: &str| -> Result<Value> {
        let text = std::fs::read_to_string(root.join(name)).with_context(|| format!("read {name}"))?;
        serde_json::from_str(&text).with_context(|| format!("read {name} as JSON"))
    };
    for entry in std::fs::read_dir(root.join("capabilities")).context("list the capabilities")? {
        let name = format!("capabilities/{}", entry?.file_name().to_string_lossy());
        for wrong in wrong_permissions(&read(&name)?) {
            findings.add(&name, format!("gives the page '{wrong}' (invariant I6)"));
        }
    }
    for wrong in wrong_settings(&read("tauri.conf.json")?) {
        findings.add("tauri.conf.json", format!("{wrong} (invariant I6)"));
    }
    Ok(())
}

/// Permissions of a capability that a page must not have.
fn wrong_permissions(capability: &Value) -> Vec<String> {
    let permissions = capability["permissions"].as_array().into_iter().flatten();
    permissions.filter(|p| p.as_str().is_none_or(|p| !COMMANDS.contains(&p))).map(ToString::to_string).collect()
}

/// Settings that would let a page do more.
fn wrong_settings(settings: &Value) -> Vec<&'static str> {
    let security = &settings["app"]["security"];
    let csp = security["csp"].as_str().unwrap_or_default();
    let rules = [
        (settings["app"]["withGlobalTauri"] == false, "app.withGlobalTauri must be false"),
        (security["assetProtocol"]["enable"] == false, "app.security.assetProtocol.enable must be false"),
        (is_tight(csp), "app.security.csp lets the page reach or run too much"),
        (security["capabilities"].is_array(), "app.security.capabilities must name the capabilities"),
    ];
    rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| *rule).collect()
}

/// Whether a content security policy allows nothing but what is listed.
fn is_tight(csp: &str) -> bool {
    let directives: Vec<Vec<&str>> = csp.split(';').map(|directive| directive.split_whitespace().collect()).collect();
    let listed = |directive: &Vec<&str>| {
        let [name, sources @ ..] = directive.as_slice() else { return false };
        CSP.iter().any(|(known, allowed)| known == name && sources.iter().all(|source| allowed.contains(source)))
    };
    let is_there = |name: &&str| directives.iter().any(|directive| directive.first() == Some(name));
    directives.iter().all(listed) && CSP_NEEDS.iter().all(is_there)
}

fn is_grpc(name: &[String]) -> bool {
    match name {
        [first, second, ..] => first == "tonic" || (first == "hospes_protocol" && second == "grpc"),
        _ => false,
    }
}

fn reaches_outside(name: &[String]) -> bool {
    let from_std = matches!(name, [first, second, ..] if first == "std" && OUTSIDE.contains(&second.as_str()));
    let pair = |two: &[String]| PAIRS.iter().any(|pair| two.iter().eq(pair));
    from_std || name.iter().any(|part| SOURCES.contains(&part.as_str())) || name.windows(2).any(pair)
}

/// Every path that a source names, tests aside: `std::fs::File` is `["std", "fs", "File"]`.
#[derive(Default)]
struct Names(BTreeSet<Vec<String>>);

impl Names {
    fn of(file: &syn::File) -> Self {
        let mut names = Self::default();
        names.visit_file(file);
        names
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => drop(self.0.insert(with(&name.ident))),
            syn::UseTree::Rename(name) => drop(self.0.insert(with(&name.ident))),
            syn::UseTree::Glob(_) => drop(self.0.insert(before.to_vec())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
        }
    }

    /// What may be paths in the tokens of a macro, which are no syntax yet: names with `::` between them, also before and
    /// within braces, as in a `use`.
    fn tokens(&mut self, before: &[String], tokens: TokenStream) {
        // A name goes on with the path where exactly two colons stand before it; at the beginning those before the braces.
        const JOINED: u32 = 2;
        let (mut path, mut colons) = (before.to_vec(), JOINED);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != JOINED {
                        self.0.insert(std::mem::replace(&mut path, before.to_vec()));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    let within = if colons == JOINED { path.clone() } else { before.to_vec() };
                    self.tokens(&within, group.stream());
                    self.0.insert(std::mem::replace(&mut path, before.to_vec()));
                    colons = JOINED;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.0.insert(std::mem::replace(&mut path, before.to_vec()));
                    colons = JOINED;
                }
            }
        }
        self.0.insert(path);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(super::source::is_cfg_test) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(&[], called.tokens.clone());
        syn::visit::visit_macro(self, called);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    /// What is found in a source that pretends to lie at `path`.
    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(Path::new(path), &syn::parse_file(text).unwrap(), &mut findings);
        findings.0
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// What is found against an invariant in the sources of this repository.
    fn in_the_tree(invariant: &str) -> Vec<String> {
        let mut findings = Findings::default();
        super::super::files(&root(), &mut findings).unwrap();
        findings.0.into_iter().filter(|found| found.contains(invariant)).collect()
    }

    #[test]
    fn the_tree_is_what_is_looked_at() {
        let files = super::super::tracked(&root()).unwrap();
        for path in ["crates/party/src/rounds/mod.rs", "crates/privacy/src/lib.rs", "ui/src/ipc/tauri.ts"] {
            assert!(files.iter().any(|file| file == Path::new(path)), "{path}");
        }
    }

    #[test]
    fn i1_only_the_cohort_uses_what_reads_rows() {
        let mut findings = Findings::default();
        let package =
            |name: &str| json!({ "name": name, "dependencies": [{ "name": "parquet" }, { "name": "serde" }] });
        check_package(&package("hospes-cohort"), &mut findings);
        assert_eq!(findings.0, Vec::<String>::new());
        check_package(&package("hospes-party"), &mut findings);
        assert_eq!(findings.0, ["hospes-party: uses parquet; only hospes-cohort reads rows (invariant I1)"]);
        for used in ["arrow-ipc", "burn", "burn-ndarray", "csv", "csv-core", "datafusion", "polars", "polars-lazy"] {
            assert!(reads_rows(used), "{used}");
        }
        assert!(!["csvlint", "burnt", "serde"].into_iter().any(reads_rows));
        let metadata = super::super::edges::metadata(&root(), &["--no-deps", "--offline"]).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        assert!(packages.iter().any(|package| package["name"] == "hospes-cohort"));
        let mut findings = Findings::default();
        packages.iter().for_each(|package| check_package(package, &mut findings));
        assert_eq!(findings.0, Vec::<String>::new());
    }

    #[test]
    fn i4_the_grpc_code_is_imported_in_two_places_only() {
        let ways = [
            "use hospes_protocol::grpc;",
            "use hospes_protocol::{id::SiteId, grpc::{self, convert}};",
            "fn f() { hospes_protocol::grpc::convert::site_frame(x); }",
            "use tonic::Status;",
            "fn f() { assert!(matches!(x, tonic::Code::Ok)); }",
            "make! { use hospes_protocol::{id::SiteId, grpc::convert}; }",
        ];
        for uses in ways {
            assert!(found("crates/party/src/rounds/mod.rs", uses)[0].contains("I4"), "{uses}");
            assert_eq!(found("crates/party/src/link/session.rs", uses), Vec::<String>::new());
            assert_eq!(found("crates/coordinator/src/serve/grpc.rs", uses), Vec::<String>::new());
        }
        for other in ["use hospes_protocol::id::SiteId;", "fn f() { vec![hospes_protocol::id::SiteId, grpc::x]; }"] {
            assert_eq!(found("crates/party/src/rounds/mod.rs", other), Vec::<String>::new());
        }
        assert_eq!(in_the_tree("invariant I4"), Vec::<String>::new());
    }

    #[test]
    fn i5_what_is_deterministic_names_no_clock_no_randomness_and_no_files() {
        let ways = [
            "use std::time::SystemTime;",
            "use std::{collections::BTreeMap, fs};",
            "fn f() -> u64 { std::env::args().count() as u64 }",
            "fn f() { getrandom::fill(&mut [0; 4]).unwrap(); }",
            "fn f() -> u8 { rand::random() }",
            "use rand::{rng, Rng as _};",
            "fn f() { chrono::Utc::now(); }",
            "fn f() { uuid::Uuid::now_v7(); }",
            "fn f() { println!(\"{:?}\", std::time::Instant::now()); }",
            "fn f() -> u8 { first!(x, ::std::env::args()) }",
            "macro_rules! now { ($x:ident) => { $x.at(Utc::now()) }; }",
        ];
        for uses in ways {
            assert!(found("crates/privacy/src/sum.rs", uses)[0].contains("I5"), "{uses}");
            assert_eq!(found("crates/party/src/engine.rs", uses), Vec::<String>::new());
        }
        let test = "#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(found("crates/privacy/src/sum.rs", test), Vec::<String>::new());
        let seeded = "use rand::Rng; fn f(rng: &mut impl Rng, now: i64) { assert!(rng.next() > now, \"{}\", random); }";
        assert_eq!(found("crates/privacy/src/sum.rs", seeded), Vec::<String>::new());
        assert_eq!(in_the_tree("invariant I5"), Vec::<String>::new());
    }

    #[test]
    fn i6_a_page_has_two_commands_and_reaches_nothing() {
        let capability =
            json!({ "permissions": ["allow-call", "allow-subscribe", "fs:default", { "identifier": "x" }] });
        assert_eq!(wrong_permissions(&capability).len(), 2);
        let sealed =
            "default-src 'none'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        let mut settings = json!({ "app": { "withGlobalTauri": false, "security": {
            "csp": sealed, "capabilities": ["main"], "assetProtocol": { "enable": false } } } });
        assert_eq!(wrong_settings(&settings), Vec::<&str>::new());
        for open in [
            "connect-src *",
            "connect-src ws:",
            "connect-src ipc: http://evil.example",
            "img-src https:",
            "script-src 'self' 'unsafe-eval'",
            "frame-src *",
            "worker-src blob:",
        ] {
            assert!(!is_tight(&format!("{sealed}; {open}")), "{open}");
        }
        for gone in ["default-src 'none'; ", "base-uri 'none'; ", "form-action 'none'; "] {
            assert!(!is_tight(&sealed.replace(gone, "")), "{gone}");
        }
        assert!(is_tight(&format!("{sealed}; connect-src ipc: http://ipc.localhost")) && !is_tight(""));
        settings["app"]["security"]["csp"] = json!(format!("{sealed}; connect-src http://evil.example"));
        settings["app"]["withGlobalTauri"] = json!(true);
        assert_eq!(wrong_settings(&settings).len(), 2);
        let mut findings = Findings::default();
        check_window(&root(), &mut findings).unwrap();
        assert_eq!(findings.0, Vec::<String>::new());
    }
}
