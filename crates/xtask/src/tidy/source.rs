//! Rules for Rust sources, read from the syntax tree.

use std::path::Path;

use syn::spanned::Spanned as _;
use syn::visit::Visit;

use super::{Findings, invariants};

/// Longest function in lines, its signature counted.
const FUNCTION_LINES: usize = 85;
/// Folders whose public functions say what their return value tells about patients.
const DISCLOSING: &[&str] = &["crates/cohort/src", "crates/privacy/src"];
/// Checks one source file.
pub(crate) fn check(path: &Path, text: &str, findings: &mut Findings) {
    if path.ends_with("generated.rs") {
        return;
    }
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return findings.add(path.display(), format!("cannot be parsed: {error}")),
    };
    let is_test = is_test(path);
    if !is_test {
        invariants::check(path, &file, findings);
    }
    let is_public = is_of_a_library(path);
    Walk { path, findings, is_test, is_public, in_trait_impl: false }.visit_file(&file);
}

/// Whether a file holds only tests or benchmarks.
fn is_test(path: &Path) -> bool {
    let is_in_folder = path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches");
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    is_in_folder || stem == "tests" || stem.ends_with("_tests")
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

pub(super) fn is_cfg_test(attribute: &syn::Attribute) -> bool {
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
    fn i1_public_functions_owe_their_sections() {
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
}
