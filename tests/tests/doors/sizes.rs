//! Rooms that stay small enough to be read: no file of `core` or `io` is longer than one can hold in mind, and the node
//! stays a composition.

use crate::reader::Sources;
use crate::repository;

/// Most lines of one file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Most lines of `core/src/node/`, of which a sixth are the public calls with their documentation. `ARCHITECTURE.md`
/// says what they are.
const NODE_LINES_MAX: usize = 3_050;
/// Most fields of `Node`: the machines, the report and the clock.
const NODE_FIELDS_MAX: usize = 13;

/// How many lines go before the tests of a file; none of those that are tests altogether.
fn lines_of(name: &str, text: &str) -> usize {
    if name.ends_with("tests.rs") || name.contains("/tests/") {
        return 0;
    }
    let tests = text
        .lines()
        .zip(text.lines().skip(1))
        .position(|(attribute, item)| attribute == "#[cfg(test)]" && item.starts_with("mod ") && item.ends_with('{'));
    tests.unwrap_or_else(|| text.lines().count())
}

/// The files that are too long, with their lengths.
fn too_long(sources: &Sources) -> Vec<String> {
    let lengths = sources.iter().map(|(name, text)| (name, lines_of(name, text)));
    lengths.filter(|(_, n)| *n > FILE_LINES_MAX).map(|(name, n)| format!("{name}: {n} lines")).collect()
}

/// How many fields a struct of this source has.
fn fields_of(text: &str, name: &str) -> usize {
    let body = text.lines().skip_while(|line| *line != format!("pub struct {name} {{")).skip(1);
    body.take_while(|line| *line != "}").filter(|line| !line.trim().starts_with("//") && line.contains(": ")).count()
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    for name in ["core", "io"] {
        let found = too_long(&repository(name));
        assert!(found.is_empty(), "{name}, above {FILE_LINES_MAX}: {found:?}; what would be rooms of their own in it?");
    }
}

#[test]
fn the_node_is_a_composition() {
    let sources = repository("core");
    let of_node = sources.iter().filter(|(name, _)| name.starts_with("node/"));
    let lines: usize = of_node.map(|(name, text)| lines_of(name, text)).sum();
    assert!(lines > 0, "core/src/node/ is somewhere else");
    assert!(lines <= NODE_LINES_MAX, "core/src/node/ has {lines} lines: what is decided there belongs into a room");
    let fields = fields_of(&sources["node/mod.rs"], "Node");
    assert!((1..=NODE_FIELDS_MAX).contains(&fields), "Node has {fields} fields: which two are one room?");
}

#[test]
fn lengths_are_counted_without_tests_and_fields_without_comments() {
    let text = "use a;\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
    assert_eq!((lines_of("a.rs", text), lines_of("a_tests.rs", text), lines_of("b/tests/a.rs", text)), (3, 0, 0));
    assert_eq!(lines_of("a.rs", "#[cfg(test)]\nmod tests;\nfn f() {}\n"), 3);
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    let sources = Sources::from([("a.rs".to_owned(), long), ("b.rs".to_owned(), text.to_owned())]);
    assert_eq!(too_long(&sources), ["a.rs: 601 lines"]);
    let text = "pub struct A {\n    b: u8,\n}\npub struct Node {\n    /// One: it.\n    a: A,\n\n    pub b: A,\n}\n";
    assert_eq!(fields_of(text, "Node"), 2);
}
