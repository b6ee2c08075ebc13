//! How long files and functions are, and which functions are tests.

use proc_macro2::Span;
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, Signature, TraitItemFn,
    visit::{self, Visit},
};

use super::source::Source;

/// A function with a body.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    /// From the signature to the closing brace.
    pub(super) lines: usize,
    /// Marked by `#[test]` or an attribute that ends so.
    pub(super) is_test: bool,
    /// Its body with white space made equal.
    pub(super) body: String,
}

/// All lines but those of inline test modules.
pub(super) fn product_lines(source: &Source) -> usize {
    let tests: usize = source.parse().items.iter().filter_map(inline_tests).sum();
    source.text.lines().count() - tests
}

fn inline_tests(item: &Item) -> Option<usize> {
    let Item::Mod(module) = item else { return None };
    let is_test = module.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    });
    let (brace, _) = module.content.as_ref()?;
    is_test.then(|| lines(module.mod_token.span, brace.span.close()))
}

/// Every function of a file, in its order.
pub(super) fn functions(source: &Source) -> Vec<Function> {
    let mut collector = Collector::default();
    collector.visit_file(&source.parse());
    collector.functions
}

fn lines(from: Span, to: Span) -> usize {
    to.end().line - from.start().line + 1
}

#[derive(Default)]
struct Collector {
    functions: Vec<Function>,
}

// === impl Collector ===

impl Collector {
    fn add(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        let is_test = |attribute: &Attribute| {
            attribute
                .path()
                .segments
                .last()
                .is_some_and(|segment| segment.ident == "test")
        };
        let text = block.brace_token.span.join().source_text().unwrap_or_default();
        self.functions.push(Function {
            name: signature.ident.to_string(),
            lines: lines(signature.fn_token.span, block.brace_token.span.close()),
            is_test: attributes.iter().any(is_test),
            body: text.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.add(&function.attrs, &function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.add(&function.attrs, &function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.attrs, &function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[test]
fn files_and_functions_are_measured_without_their_tests() {
    let text = "//! A.\nfn one() {\n    two();\n}\n\n#[cfg(test)]\nmod tests {\n    #[tokio::test]\n    async fn x() {\n        a( );\n    }\n}\n";
    let source = Source {
        path: "a.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(product_lines(&source), 6);
    let found: Vec<_> = functions(&source)
        .into_iter()
        .map(|one| (one.name, one.lines, one.is_test))
        .collect();
    assert_eq!(found, [("one".to_owned(), 3, false), ("x".to_owned(), 3, true)]);
    assert_eq!(functions(&source).last().unwrap().body, "{ a( ); }");
}
