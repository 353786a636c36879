//! Rules for Rust sources, read from the syntax tree.

use std::path::Path;

use syn::spanned::Spanned as _;
use syn::visit::Visit;

use super::Findings;

/// Longest function in lines, its signature counted.
const FUNCTION_LINES: usize = 85;
/// Folders whose public functions say what their return value tells about patients.
const DISCLOSING: &[&str] = &["crates/cohort/src", "crates/privacy/src"];
/// The only places that import the gRPC code (invariant I4), besides the crate that holds it.
const GRPC: &[&str] = &["crates/party/src/link", "crates/coordinator/src/serve", "crates/protocol/src/grpc"];

/// Checks one source file.
pub(crate) fn check(path: &Path, text: &str, findings: &mut Findings) {
    if path.ends_with("generated.rs") {
        return;
    }
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return findings.add(path.display(), format!("cannot be parsed: {error}")),
    };
    let is_test = path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches");
    let uses_grpc = uses_grpc(&file);
    let may_use_grpc = is_test
        || path.starts_with("crates/xtask")
        || path.starts_with("tests")
        || GRPC.iter().any(|folder| path.starts_with(folder));
    if uses_grpc && !may_use_grpc {
        findings.add(path.display(), "only party::link and coordinator::serve use the gRPC code (invariant I4)");
    }
    let is_public = is_of_a_library(path);
    Walk { path, findings, is_test, is_public, in_trait_impl: false }.visit_file(&file);
}

/// Whether a source names the gRPC code or what it is made with, in whatever way it is written.
fn uses_grpc(file: &syn::File) -> bool {
    #[derive(Default)]
    struct Found(bool);
    impl<'ast> Visit<'ast> for Found {
        fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
            let text = quote::ToTokens::to_token_stream(&item.tree).to_string();
            let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let ours = words.first() == Some(&"hospes_protocol") && words.contains(&"grpc");
            self.0 |= ours || words.first() == Some(&"tonic");
        }
        fn visit_path(&mut self, path: &'ast syn::Path) {
            let mut names = path.segments.iter().map(|segment| segment.ident.to_string());
            let (first, second) = (names.next(), names.next());
            let ours = first.as_deref() == Some("hospes_protocol") && second.as_deref() == Some("grpc");
            self.0 |= ours || (first.as_deref() == Some("tonic") && second.is_some());
            syn::visit::visit_path(self, path);
        }
    }
    let mut found = Found::default();
    found.visit_file(file);
    found.0
}

/// Whether what is public in this file can be used by another crate; nothing of a mere program can.
fn is_of_a_library(path: &Path) -> bool {
    path.ancestors().any(|folder| folder.ends_with("src") && folder.join("lib.rs").exists())
}

struct Walk<'a> {
    path: &'a Path,
    findings: &'a mut Findings,
    is_test: bool,
    /// Whether every module on the way here is public as far as the syntax tells.
    is_public: bool,
    in_trait_impl: bool,
}

impl Walk<'_> {
    fn size(&mut self, signature: &syn::Signature, span: proc_macro2::Span) {
        let lines = span.end().line + 1 - span.start().line;
        // Tests may be long: a story told in one place.
        if !self.is_test && lines > FUNCTION_LINES {
            let place = format!("{}:{}", self.path.display(), span.start().line);
            self.findings.add(place, format!("{} has {lines} lines, more than {FUNCTION_LINES}", signature.ident));
        }
    }

    fn documentation(
        &mut self,
        visibility: &syn::Visibility,
        signature: &syn::Signature,
        attributes: &[syn::Attribute],
    ) {
        let is_public = self.is_public && matches!(visibility, syn::Visibility::Public(_));
        if self.is_test || self.in_trait_impl || !is_public {
            return;
        }
        let documentation = documentation(attributes);
        let mut owes = |section: &str| {
            if !documentation.contains(section) {
                let place = format!("{}:{}", self.path.display(), signature.ident.span().start().line);
                self.findings.add(place, format!("{} owes a '{section}' section", signature.ident));
            }
        };
        if returns_result(signature) {
            owes("# Errors");
        }
        if DISCLOSING.iter().any(|folder| self.path.starts_with(folder)) && !is_plain(signature) {
            owes("# Disclosure");
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let (was_test, was_public) = (self.is_test, self.is_public);
        self.is_test |= module.attrs.iter().any(is_cfg_test);
        self.is_public &= matches!(module.vis, syn::Visibility::Public(_));
        syn::visit::visit_item_mod(self, module);
        (self.is_test, self.is_public) = (was_test, was_public);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let was = self.in_trait_impl;
        self.in_trait_impl = block.trait_.is_some();
        syn::visit::visit_item_impl(self, block);
        self.in_trait_impl = was;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.size(&item.sig, item.span());
        self.documentation(&item.vis, &item.sig, &item.attrs);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.size(&item.sig, item.span());
        self.documentation(&item.vis, &item.sig, &item.attrs);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg") && quote::ToTokens::to_token_stream(attribute).to_string().contains("test")
}

fn documentation(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) => Some(text.value()),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn returns_result(signature: &syn::Signature) -> bool {
    let syn::ReturnType::Type(_, kind) = &signature.output else { return false };
    let syn::Type::Path(path) = &**kind else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Result")
}

/// A constructor from, or a view of, what the caller has already: nothing about patients.
fn is_plain(signature: &syn::Signature) -> bool {
    let takes_only_self = signature.inputs.len() == 1 && signature.receiver().is_some();
    takes_only_self || signature.inputs.is_empty() || signature.ident == "new"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a source that pretends to lie at `path`.
    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(Path::new(path), text, &mut findings);
        findings.0
    }

    /// A file of a crate that is a library.
    fn library(file: &str) -> String {
        format!("{}/../protocol/src/{file}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn public_functions_owe_their_sections() {
        let bare = "/// Reads.\npub fn read() -> Result<(), E> { Ok(()) }";
        assert!(found(&library("a.rs"), bare)[0].ends_with("read owes a '# Errors' section"));
        let told = "/// Reads.\n///\n/// # Errors\n/// Always.\npub fn read() -> Result<(), E> { Ok(()) }";
        assert_eq!(found(&library("a.rs"), told), Vec::<String>::new());
        let hidden = "mod inner { pub fn read() -> Result<(), E> { Ok(()) } }";
        assert_eq!(found(&library("a.rs"), hidden), Vec::<String>::new());
    }

    #[test]
    fn long_functions_are_found_and_long_tests_are_not() {
        let body = "    let _ = 1;\n".repeat(FUNCTION_LINES);
        assert!(found("a.rs", &format!("fn long() {{\n{body}}}"))[0].contains("long has 87 lines"));
        let test = format!("#[cfg(test)]\nmod tests {{\n#[test]\nfn long() {{\n{body}}}\n}}");
        assert_eq!(found("a.rs", &test), Vec::<String>::new());
    }

    #[test]
    fn the_grpc_code_is_imported_in_two_places_only() {
        let ways = [
            "use hospes_protocol::grpc;",
            "use hospes_protocol::{id::SiteId, grpc::{self, convert}};",
            "fn f() { hospes_protocol::grpc::convert::site_frame(x); }",
            "use tonic::Status;",
        ];
        for uses in ways {
            assert!(found("crates/party/src/rounds/mod.rs", uses)[0].contains("I4"), "{uses}");
            assert_eq!(found("crates/party/src/link/session.rs", uses), Vec::<String>::new());
            assert_eq!(found("crates/coordinator/src/serve/grpc.rs", uses), Vec::<String>::new());
        }
        assert_eq!(found("crates/party/src/rounds/mod.rs", "use hospes_protocol::id::SiteId;"), Vec::<String>::new());
    }
}
