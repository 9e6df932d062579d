//! Files that texts name: there they are.
//!
//! A name is what stands in backticks and ends in `.rs`. It may be given from the repository's root, or beside a folder
//! or file that the same line names (a line is a paragraph or a row of a table), or within `core/src` or `io/src`; a
//! `*` in it stands for anything but a `/`. Lines of code blocks are not read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The texts that are held to it.
const TEXTS: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "PROTOCOL.md", "README.md"];

#[test]
fn files_that_texts_name_exist() {
    let tree = tree();
    let mut faults = Vec::new();
    for name in TEXTS {
        let text = fs::read_to_string(Path::new(ROOT).join(name)).expect("readable text");
        faults.extend(missing(&text, &tree).into_iter().map(|fault| format!("{name}:{fault}")));
    }
    assert!(faults.is_empty(), "there is no such file:\n{}", faults.join("\n"));
}

/// All files of the repository, from its root, but what is built or hidden.
fn tree() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).expect("a readable folder") {
            let entry = entry.expect("a readable folder");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let path = format!("{folder}{name}");
            if !entry.file_type().expect("a type").is_dir() {
                files.insert(path);
            } else if !name.starts_with('.') && name != "target" {
                folders.push(format!("{path}/"));
            }
        }
    }
    files
}

/// The names in a text, each with its line, that are no file of this tree.
fn missing(text: &str, tree: &BTreeSet<String>) -> Vec<String> {
    let mut is_code = false;
    let mut missing = Vec::new();
    for (number, line) in text.lines().enumerate() {
        is_code ^= line.starts_with("```");
        if is_code {
            continue;
        }
        let spans: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let mut bases: Vec<String> = ["", "core/src/", "io/src/"].map(str::to_owned).into();
        let named: Vec<String> = spans.iter().flat_map(|span| folders(span, &bases, tree)).collect();
        bases.extend(named);
        let is_there = |span: &str| bases.iter().any(|base| tree.iter().any(|file| is(&format!("{base}{span}"), file)));
        let names = spans
            .iter()
            .filter(|span| Path::new(span).extension().is_some_and(|end| end == "rs") && !span.contains(' '));
        missing.extend(names.filter(|name| !is_there(name)).map(|name| format!("{}: {name}", number + 1)));
    }
    missing
}

/// The folders that a name may mean, or those of the files that it may mean.
fn folders(span: &str, bases: &[String], tree: &BTreeSet<String>) -> Vec<String> {
    if span.is_empty() {
        return Vec::new();
    }
    let folder = |base: &String| {
        let path = format!("{base}{}", span.trim_end_matches('/'));
        if tree.contains(&path) {
            return path.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
        }
        let folder = format!("{path}/");
        tree.iter().any(|file| file.starts_with(&folder)).then_some(folder)
    };
    bases.iter().filter_map(folder).collect()
}

/// Whether a name, in which a `*` may stand for anything within a folder, is that of this file.
fn is(name: &str, file: &str) -> bool {
    let Some((start, end)) = name.split_once('*') else { return name == file };
    let middle = file.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    middle.is_some_and(|middle| !middle.contains('/'))
}

#[test]
fn names_are_looked_for_where_the_line_says() {
    let tree: BTreeSet<String> =
        ["core/src/a.rs", "core/src/room/mod.rs", "core/src/room/b.rs", "io/src/room/c.rs", "tests/tests/net_a.rs"]
            .map(str::to_owned)
            .into();
    let missing = |text: &str| missing(text, &tree);
    assert!(missing("`core/src/a.rs`, `a.rs`, `room/b.rs`, and `tests/tests/net*.rs`").is_empty());
    assert!(missing("| `room/` | this (`b.rs`), and in io that (`c.rs`) |").is_empty());
    assert!(missing("`core/src/room/mod.rs`; more in `b.rs` beside it").is_empty());
    assert!(missing("```sh\n`gone.rs`\n```").is_empty());
    assert_eq!(missing("first\n`core/src/room/a.rs`, `b.rs`"), ["2: core/src/room/a.rs", "2: b.rs"]);
    assert_eq!(missing("`tests/*.rs`"), ["1: tests/*.rs"], "a star is no folder");
}
