//! The files of the workspace, and what they name. Words are tokens: comments and strings do not count.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{TokenStream, TokenTree};

use crate::step;

/// What is checked: every file git would see, by its ending.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// All text files.
    pub(super) texts: Vec<Source>,
    /// The Rust files among them.
    pub(super) sources: Vec<Source>,
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Relative to the top of the workspace.
    pub(super) path: String,
    /// Its content.
    pub(super) text: String,
}

// === impl Tree ===

impl Tree {
    /// Reads the whole workspace.
    pub(super) fn read() -> Self {
        let root = step::workspace_root();
        let mut tree = Self::default();
        tree.collect(&root, &root);
        tree
    }

    fn collect(&mut self, root: &Path, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    self.collect(root, &path);
                }
                continue;
            }
            let ending = path.extension().unwrap_or_default();
            if !["rs", "toml", "md", "txt"].iter().any(|text| ending == *text) && name != "run" {
                continue;
            }
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
            let source = Source {
                path: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(),
                text,
            };
            if ending == "rs" {
                self.sources.push(source.clone());
            }
            self.texts.push(source);
        }
    }
}

// === impl Source ===

impl Source {
    /// File name without its ending.
    pub(super) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap();
        name.strip_suffix(".rs").unwrap_or(name)
    }

    /// Whether the file lies below `directory`.
    pub(super) fn is_in(&self, directory: &str) -> bool {
        self.path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether the file is part of the enforcer and no test of it (`x/tests.rs`), which may use whatever it needs.
    pub(super) fn is_product(&self) -> bool {
        self.is_in("enforcer/src") && self.stem() != "tests"
    }

    /// Whether the file belongs to a module of the enforcer: `policy` is `policy.rs` and all of `policy/`.
    pub(super) fn is_stage(&self, module: &str) -> bool {
        let path = format!("enforcer/src/{module}");
        self.path == format!("{path}.rs") || self.is_in(&path)
    }

    /// `path:number` of each line that `matches`.
    pub(super) fn lines_with(&self, matches: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.text.split('\n').enumerate().filter(|(_, line)| matches(line));
        lines.map(|(index, _)| format!("{}:{}", self.path, index + 1)).collect()
    }

    /// The file as the compiler reads it.
    pub(super) fn parse(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("cannot parse {}: {error}", self.path))
    }

    /// Every identifier.
    pub(super) fn words(&self) -> BTreeSet<String> {
        flatten(self.tokens())
            .into_iter()
            .filter_map(|token| token.word())
            .collect()
    }

    /// Every identifier outside of inline tests.
    pub(super) fn product_words(&self) -> BTreeSet<String> {
        let tokens = flatten(self.tokens());
        let tests = tokens
            .windows(2)
            .position(|pair| pair[0].is_word("mod") && pair[1].is_word("tests"));
        let has_inline_tests = tests.filter(|start| tokens.get(start + 2).is_some_and(|next| next.is_punct('{')));
        tokens[..has_inline_tests.unwrap_or(tokens.len())]
            .iter()
            .filter_map(Token::word)
            .collect()
    }

    /// Whether `env` occurs other than as the compile-time macro `env!`.
    pub(super) fn names_environment(&self) -> bool {
        let tokens = flatten(self.tokens());
        tokens
            .iter()
            .enumerate()
            .any(|(index, token)| token.is_word("env") && !tokens.get(index + 1).is_some_and(|next| next.is_punct('!')))
    }

    /// Modules of the enforcer the file names: `m` in `crate::m`, `enforcer::m` and `crate::{m, …}`.
    pub(super) fn imported_modules(&self) -> BTreeSet<String> {
        let tokens = flatten(self.tokens());
        let mut modules = BTreeSet::new();
        for (index, window) in tokens.windows(4).enumerate() {
            let [root, first, second, next] = window else { continue };
            if !(root.is_word("crate") || root.is_word("enforcer")) || !first.is_punct(':') || !second.is_punct(':') {
                continue;
            }
            match next.word() {
                Some(module) => _ = modules.insert(module),
                None => modules.extend(group_heads(&tokens[index + 3..])),
            }
        }
        modules
    }

    /// Whether an attribute, also one inside `cfg_attr`, is `name(…)`.
    pub(super) fn has_attribute(&self, name: &str) -> bool {
        let tokens = flatten(self.tokens());
        let mut depth = 0_u32;
        for (index, token) in tokens.iter().enumerate() {
            let opens = token.is_punct('[')
                && (depth > 0 || tokens[..index].iter().rev().take(2).any(|before| before.is_punct('#')));
            depth = if opens { depth + 1 } else { depth };
            depth = if token.is_punct(']') {
                depth.saturating_sub(1)
            } else {
                depth
            };
            let is_called = tokens.get(index + 1).is_some_and(|next| next.is_punct('('));
            if depth > 0 && token.is_word(name) && is_called {
                return true;
            }
        }
        false
    }

    fn tokens(&self) -> TokenStream {
        self.text
            .parse()
            .unwrap_or_else(|error| panic!("cannot tokenize {}: {error}", self.path))
    }
}

/// A token with the brackets of groups as tokens of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Word(String),
    Punct(char),
    Literal,
}

// === impl Token ===

impl Token {
    fn word(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(word.clone()),
            Self::Punct(_) | Self::Literal => None,
        }
    }

    fn is_word(&self, expected: &str) -> bool {
        matches!(self, Self::Word(word) if word == expected)
    }

    fn is_punct(&self, expected: char) -> bool {
        *self == Self::Punct(expected)
    }
}

fn flatten(tokens: TokenStream) -> Vec<Token> {
    let mut flat = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(word) => flat.push(Token::Word(word.to_string())),
            TokenTree::Punct(punct) => flat.push(Token::Punct(punct.as_char())),
            TokenTree::Literal(_) => flat.push(Token::Literal),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ('(', ')'),
                    proc_macro2::Delimiter::Brace => ('{', '}'),
                    proc_macro2::Delimiter::Bracket => ('[', ']'),
                    proc_macro2::Delimiter::None => (' ', ' '),
                };
                flat.push(Token::Punct(open));
                flat.extend(flatten(group.stream()));
                flat.push(Token::Punct(close));
            }
        }
    }
    flat
}

/// The first word of each entry of a `{…}` group, nested groups left out.
fn group_heads(tokens: &[Token]) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_i32;
    let mut at_start = false;
    for token in tokens {
        match token {
            Token::Punct('{') => {
                depth += 1;
                at_start = depth == 1;
            }
            Token::Punct('}') => depth -= 1,
            Token::Punct(',') if depth == 1 => at_start = true,
            Token::Word(word) if at_start && depth == 1 => {
                heads.push(word.clone());
                at_start = false;
            }
            Token::Word(_) | Token::Punct(_) | Token::Literal => {}
        }
        if depth <= 0 {
            break;
        }
    }
    heads
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::{audit::Audit, policy::{self, bpf}};\nfn f() { enforcer::host::g(); crate::upstream::h() }";
    let source = Source {
        path: "enforcer/src/x.rs".to_owned(),
        text: text.to_owned(),
    };
    let modules: Vec<_> = source.imported_modules().into_iter().collect();
    assert_eq!(modules, ["audit", "host", "policy", "upstream"]);
}

#[test]
fn attributes_are_told_from_calls() {
    let has = |text: &str| {
        Source {
            path: String::new(),
            text: text.to_owned(),
        }
        .has_attribute("allow")
    };
    assert!(has("#[allow(dead_code)] fn f() {}") && has("#![cfg_attr(test, allow(unused))]"));
    assert!(!has("fn f() { allow(1); let x = [allow(2)]; } // #[allow(x)]"));
}

#[test]
fn the_environment_is_told_from_the_macro() {
    let names = |text: &str| {
        Source {
            path: String::new(),
            text: text.to_owned(),
        }
        .names_environment()
    };
    assert!(names("use std::{env, fs};") && names("fn f() { std::env::var(\"A\"); }"));
    assert!(!names("const V: &str = env!(\"CARGO_PKG_VERSION\");"));
}
