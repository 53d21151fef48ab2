//! Source files as tokens, so that text in comments and strings does not count as code.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};

pub struct Source {
    /// Path below the crate's root, with `/`.
    pub name: String,
    pub text: String,
    /// All tokens except those of test-only items.
    pub code: Vec<Token>,
    /// All functions with a body, including those of tests.
    pub functions: Vec<Function>,
}

/// One identifier, punctuation character, literal or bracket. `::` is two tokens.
#[derive(Clone)]
pub struct Token {
    pub text: String,
    line: usize,
}

/// The name of a function and the number of its lines, from `fn` to the closing brace.
#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub lines: usize,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let parsed: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut all, mut code) = (Vec::new(), Vec::new());
        flatten(parsed.clone(), &mut all);
        flatten(without_tests(parsed), &mut code);
        let functions = functions(&all);
        Self { name: name.to_owned(), text: text.to_owned(), code, functions }
    }

    /// The modules from the crate's root to this file: `log/disk.rs` is `log`, `disk`.
    pub fn module(&self) -> Vec<String> {
        if ["lib.rs", "main.rs"].contains(&self.name.as_str()) {
            return vec![];
        }
        let path = self.name.trim_end_matches(".rs");
        path.strip_suffix("/mod").unwrap_or(path).split('/').map(str::to_owned).collect()
    }

    /// The modules that production code declares as files: `mod name;`.
    pub fn children(&self) -> Vec<String> {
        let declares = |tokens: &&[Token]| tokens[0].text == "mod" && tokens[2].text == ";";
        self.code.windows(3).filter(declares).map(|tokens| tokens[1].text.clone()).collect()
    }

    /// The number of fields of a struct, or `None` if production code has no such struct.
    pub fn fields_of(&self, name: &str) -> Option<usize> {
        let is_start =
            |tokens: &[Token]| ["struct", name, "{"].iter().zip(tokens).all(|(a, b)| *a == b.text);
        let start = self.code.windows(3).position(is_start)?;
        let body = &self.code[start..=start + body_end(&self.code[start..])?];
        let is_colon = |token: &Token| token.text == ":";
        let ends_name = |tokens: &&[Token]| {
            is_name(&tokens[0].text) && is_colon(&tokens[1]) && !is_colon(&tokens[2])
        };
        Some(body.windows(3).filter(ends_name).count())
    }

    /// Whether production code has this identifier.
    pub fn has(&self, name: &str) -> bool {
        self.code.iter().any(|token| token.text == name)
    }
}

/// Reads every `.rs` file of a crate, in the order of their names. `root` is the folder of the
/// crate's `main.rs` or `lib.rs`.
pub fn read_crate(root: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the crate is readable") {
            let path = entry.expect("the crate is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push(Source::new(&name, &fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    remove_test_files(&mut found);
    found
}

/// Empties `code` of test-only files: those that no production code declares with `mod`.
pub fn remove_test_files(sources: &mut [Source]) {
    let mut declared = BTreeSet::from([vec![]]);
    for source in sources.iter() {
        for child in source.children() {
            declared.insert([source.module(), vec![child]].concat());
        }
    }
    for source in sources {
        let module = source.module();
        if !(0..=module.len()).all(|length| declared.contains(&module[..length])) {
            source.code.clear();
        }
    }
}

pub fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Removes each test-only item, field and statement, at every depth.
fn without_tests(trees: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut trees = trees.into_iter().peekable();
    while let Some(tree) = trees.next() {
        if is_punct(&tree, '#') && trees.peek().is_some_and(is_cfg_test) {
            // An item ends at its body, or at `;`. A field ends at `,`.
            trees.find(|tree| is_body(tree) || is_punct(tree, ';') || is_punct(tree, ','));
        } else if let TokenTree::Group(group) = &tree {
            kept.push(Group::new(group.delimiter(), without_tests(group.stream())).into());
        } else {
            kept.push(tree);
        }
    }
    kept.into_iter().collect()
}

/// Whether an attribute excludes its item from release builds.
fn is_cfg_test(attribute: &TokenTree) -> bool {
    let text = attribute.to_string().replace(' ', "");
    ["[cfg(test)]", "[cfg(any(test,feature=\"simulation\"))]"].contains(&text.as_str())
}

fn is_punct(tree: &TokenTree, character: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_body(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn flatten(trees: TokenStream, tokens: &mut Vec<Token>) {
    let token = |text: &str, span: Span| Token { text: text.to_owned(), line: span.start().line };
    for tree in trees {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(token(open, group.span_open()));
                flatten(group.stream(), tokens);
                tokens.push(token(close, group.span_close()));
            }
            tree => tokens.push(token(&tree.to_string(), tree.span())),
        }
    }
}

fn functions(tokens: &[Token]) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, pair) in tokens.windows(2).enumerate() {
        if pair[0].text != "fn" || !is_name(&pair[1].text) {
            continue;
        }
        if let Some(end) = body_end(&tokens[start..]) {
            let lines = tokens[start + end].line - pair[0].line + 1;
            found.push(Function { name: pair[1].text.clone(), lines });
        }
    }
    found
}

/// Returns the index of the closing brace of the function at the start of `tokens`. `None` if the
/// function has no body.
fn body_end(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    let mut in_body = false;
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            ";" if depth == 0 => return None,
            "(" | "[" | "{" => {
                in_body |= depth == 0 && token.text == "{";
                depth += 1;
            }
            ")" | "]" | "}" => {
                depth -= 1;
                if depth == 0 && in_body {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}
