//! The reader and the rules, tested on small crates that are made up.

use crate::reader::{self, Import, Sources};
use crate::{circles, complaint, listed, rooms};

fn tree(files: &[(&str, &str)]) -> Sources {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn imports(files: &[(&str, &str)]) -> Vec<Import> {
    reader::imports(&tree(files)).expect("it can be read")
}

/// As `from:line to:line`.
fn said(files: &[(&str, &str)]) -> Vec<String> {
    imports(files).iter().map(|import| format!("{}:{} {}:{}", import.from, import.line, import.to, import.at)).collect()
}

fn order(rooms: &[&str]) -> Vec<String> {
    rooms.iter().map(|room| (*room).to_owned()).collect()
}

#[test]
fn uses_and_paths_are_imports() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        ("a.rs", "pub struct A;\npub enum E { One }\npub const N: u8 = 1;\npub fn f() {}"),
        ("b.rs", "use core::time::Duration;\nuse crate::{\n    a::A,\n};\nstruct B(A, Duration);"),
        ("c.rs", "fn c() -> u8 {\n    super::a::N\n}"),
        ("d.rs", "use super::a;\nfn d() {\n    a::f();\n}"),
    ]);
    assert_eq!(found, ["b.rs:3 a.rs:1", "c.rs:2 a.rs:3", "d.rs:3 a.rs:4"]);
}

#[test]
fn types_patterns_and_bounds_are_paths() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\nmod e;"),
        ("a.rs", "pub enum E { One }\npub trait T {}\npub struct S;"),
        ("b.rs", "fn b(e: u8) {\n    if let crate::a::E::One = e {}\n}"),
        ("c.rs", "fn c<X: crate::a::T>(x: X) {}"),
        ("d.rs", "impl crate::a::T for D {}\nstruct D;"),
        ("e.rs", "fn e() {\n    let s = <crate::a::S as Default>::default();\n}"),
    ]);
    assert_eq!(found, ["b.rs:2 a.rs:1", "c.rs:1 a.rs:2", "d.rs:1 a.rs:2", "e.rs:2 a.rs:3"]);
}

#[test]
fn re_exports_lead_to_the_file_that_defines() {
    let found = said(&[
        ("lib.rs", "mod room;\nmod user;\npub use room::Deep as Shown;"),
        ("room/mod.rs", "mod one;\nmod two;\npub(crate) use one::*;\npub use two::Two as Renamed;"),
        ("room/one.rs", "mod deep;\npub use self::deep::Deep;"),
        ("room/one/deep.rs", "\npub struct Deep;"),
        ("room/two.rs", "use super::Deep;\npub struct Two(Deep);"),
        ("user.rs", "use crate::Shown;\nuse crate::room::Renamed;"),
    ]);
    assert_eq!(found, ["room/two.rs:1 room/one/deep.rs:2", "user.rs:1 room/one/deep.rs:2", "user.rs:2 room/two.rs:2"]);
}

#[test]
fn a_folders_face_is_imported_by_nobody_until_it_defines_something() {
    let face = "mod a;\nmod b;\npub use a::A;\npub use b::B;";
    let parts =
        [("lib.rs", "mod room;"), ("room/a.rs", "pub struct A;"), ("room/b.rs", "use super::A;\npub struct B(A);")];
    let found = said(&[parts[0], parts[1], parts[2], ("room/mod.rs", face)]);
    assert_eq!(found, ["room/b.rs:1 room/a.rs:1"]);

    // It says the names that it shows: now it is a file that imports.
    let defines = format!("{face}\npub struct Both(A, B);");
    let found = said(&[parts[0], parts[1], parts[2], ("room/mod.rs", &defines)]);
    assert_eq!(found, ["room/b.rs:1 room/a.rs:1", "room/mod.rs:5 room/a.rs:1", "room/mod.rs:5 room/b.rs:2"]);
}

#[test]
fn a_parents_private_import_is_followed() {
    let found = said(&[
        ("lib.rs", "mod low;\nmod room;"),
        ("low.rs", "pub struct Low;"),
        ("room/mod.rs", "mod child;\nuse crate::low::Low;\nstruct Has(Low);"),
        ("room/child.rs", "use super::Low;"),
    ]);
    assert_eq!(found, ["room/child.rs:1 low.rs:1", "room/mod.rs:2 low.rs:1"]);
}

#[test]
fn a_module_and_a_function_may_share_a_name() {
    let found = said(&[
        ("lib.rs", "mod room;\nmod user;"),
        ("room/mod.rs", "mod gather;\npub use gather::gather;"),
        ("room/gather.rs", "pub fn gather() {}"),
        ("user.rs", "use crate::room::gather;\nfn f() {\n    gather();\n}"),
    ]);
    assert_eq!(found, ["user.rs:1 room/gather.rs:1"]);
}

#[test]
fn names_that_a_glob_brought_in_count_where_they_are_said() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;"),
        ("a.rs", "pub use crate::b::B;\npub struct A;"),
        ("b.rs", "pub struct B;"),
        ("c.rs", "use crate::a::*;\nfn c() {\n    let b = B;\n}"),
    ]);
    assert_eq!(found, ["c.rs:3 b.rs:1"]);
}

#[test]
fn globs_that_show_one_another_come_to_an_end() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "pub use crate::b::*;\npub struct A;"),
        ("b.rs", "pub use crate::a::*;\nfn b(a: A, x: Nowhere) {}"),
    ]);
    assert_eq!(found, ["b.rs:2 a.rs:2"]);
}

#[test]
fn paths_in_macros_count_and_members_do_not() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        ("a.rs", "pub fn f() -> u8 { 1 }\npub const N: u8 = 1;"),
        ("b.rs", "fn b() {\n    assert_eq!(1, crate::a::f());\n}"),
        ("c.rs", "macro_rules! twice {\n    ($x:expr) => {\n        $x * $crate::a::N\n    };\n}"),
        ("d.rs", "pub use crate::a::f;\nfn d(x: X) {\n    println!(\"{}\", x.f());\n}"),
    ]);
    assert_eq!(found, ["b.rs:2 a.rs:1", "c.rs:3 a.rs:2"]);
}

#[test]
fn a_macro_of_another_file_is_an_import() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "macro_rules! leaf {\n    () => {};\n}\npub(crate) use leaf;"),
        ("b.rs", "fn b() {\n    crate::a::leaf!();\n}"),
    ]);
    assert_eq!(found, ["b.rs:2 a.rs:1"]);
}

#[test]
fn what_is_for_tests_is_not_read() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod only;"),
        ("a.rs", "pub struct A;"),
        (
            "b.rs",
            "#[cfg(test)]\nuse crate::a::A;\n#[cfg(all(test, unix))]\nmod tests {\n    use crate::a::A;\n}\n\
             struct B {\n    #[cfg(test)]\n    a: crate::a::A,\n}\nimpl B {\n    #[cfg(test)]\n    fn f(a: crate::a::A) {}\n}",
        ),
        ("only.rs", "use crate::a::A; this is not even Rust"),
    ]);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn what_is_for_one_system_is_read() {
    let found = said(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "pub struct A;"),
        ("b.rs", "#[cfg(unix)]\nmod inner {\n    use super::super::a::A;\n    fn f() { use crate::a::A; }\n}"),
    ]);
    assert_eq!(found, ["b.rs:3 a.rs:1"]);
}

#[test]
fn what_is_not_understood_is_an_error() {
    let fault = |files: &[(&str, &str)]| reader::imports(&tree(files)).expect_err("it cannot be read");
    assert_eq!(fault(&[("lib.rs", "mod gone;")]), "lib.rs: mod gone has no file");
    assert!(fault(&[("lib.rs", "mod a;"), ("a.rs", "fn {")]).starts_with("a.rs: "));
    let moved = [("lib.rs", "#[path = \"b.rs\"]\nmod a;"), ("a.rs", "")];
    assert_eq!(fault(&moved), "lib.rs: `#[path]` of mod a is not understood");
}

#[test]
fn the_crate_root_is_a_room_when_it_defines_something() {
    let root = "mod a;\npub use a::A;";
    let sources = tree(&[("lib.rs", root), ("a.rs", "pub struct A;")]);
    assert_eq!(rooms(&sources).into_iter().collect::<Vec<_>>(), ["a"]);
    let sources = tree(&[("lib.rs", &format!("{root}\npub struct Options;")), ("a.rs", "pub struct A;")]);
    assert_eq!(rooms(&sources).into_iter().collect::<Vec<_>>(), ["a", "lib"]);
}

#[test]
fn the_order_is_read_from_an_ordered_list() {
    let text = "## Before\n\n1. `x`\n\n## Rooms\n\nBottom first.\n\n1. `a`: what `x` is\n2. `b/`\n   more of it\n\n## After\n\n1. `y`\n";
    assert_eq!(listed(text, "## Rooms"), ["a", "b"]);
}

/// Two rooms, the second with two files.
const HOUSE: [(&str, &str); 4] = [
    ("lib.rs", "mod low;\nmod high;"),
    ("low.rs", "pub struct Low;"),
    ("high/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::Two;"),
    ("high/two.rs", "use crate::low::Low;\npub struct Two(Low);"),
];

#[test]
fn a_house_in_order_has_no_complaint() {
    let found =
        imports(&[HOUSE[0], HOUSE[1], HOUSE[2], HOUSE[3], ("high/one.rs", "use super::Two;\npub struct One(Two);")]);
    assert_eq!(found.len(), 2);
    assert_eq!(complaint(&found, &order(&["low", "high"]), &[]), None);
}

#[test]
fn an_import_from_above_is_named_with_both_lines() {
    let low = ("low.rs", "\nuse crate::high::Two;\npub struct Low;\nfn low(two: Two) {}");
    let found = imports(&[HOUSE[0], low, HOUSE[2], HOUSE[3], ("high/one.rs", "pub struct One;")]);
    let rooms = order(&["low", "high"]);
    let text = complaint(&found, &rooms, &[]).expect("it is not in order");
    let line = "new: low.rs:2 `crate::high::Two` (room 1) imports from high/two.rs:2 (room 2)";
    assert!(text.contains(line), "{text}");
    // Admitted, it is none; listed twice or in vain, there is something to say again.
    assert_eq!(complaint(&found, &rooms, &[("low.rs", "high/two.rs")]), None);
    assert!(complaint(&found, &rooms, &[("low.rs", "high/two.rs"), ("low.rs", "high/two.rs")]).is_some());
    let text = complaint(&found, &rooms, &[("low.rs", "high/one.rs"), ("low.rs", "high/two.rs")]).expect("in vain");
    assert!(text.contains("listed, and does no harm any more: low.rs from high/one.rs"), "{text}");
}

#[test]
fn a_circle_inside_a_room_is_named_with_all_lines() {
    let one = ("high/one.rs", "use super::Two;\npub struct One(Box<Two>);");
    let two = ("high/two.rs", "use crate::low::Low;\nuse super::One;\npub struct Two(Low, One);");
    let found = imports(&[HOUSE[0], HOUSE[1], HOUSE[2], two, one]);
    let rooms = order(&["low", "high"]);
    let text = complaint(&found, &rooms, &[]).expect("it is not in order");
    assert!(text.contains("new: high/one.rs:1 `super::Two` → high/two.rs:2 `super::One` → high/one.rs"), "{text}");
    assert_eq!(text.matches("new: ").count(), 1, "{text}");
    // Either way of opening it will do, and one is enough.
    assert_eq!(complaint(&found, &rooms, &[("high/one.rs", "high/two.rs")]), None);
    assert_eq!(complaint(&found, &rooms, &[("high/two.rs", "high/one.rs")]), None);
    let both = &[("high/one.rs", "high/two.rs"), ("high/two.rs", "high/one.rs")];
    assert!(complaint(&found, &rooms, both).expect("one too many").contains("does no harm"));
}

#[test]
fn a_long_circle_is_found_once() {
    let found = imports(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        ("a.rs", "use crate::b::B;\npub struct A(B);"),
        ("b.rs", "use crate::c::C;\npub struct B(C);"),
        ("c.rs", "use crate::a::A;\npub struct C(Box<A>);"),
        ("d.rs", "use crate::a::A;\npub struct D(A);"),
    ]);
    let found: Vec<&Import> = found.iter().collect();
    let circles: Vec<Vec<&str>> =
        circles(&found).iter().map(|circle| circle.iter().map(|import| import.from.as_str()).collect()).collect();
    assert_eq!(circles, [["a.rs", "b.rs", "c.rs"]]);
}

#[test]
fn a_room_that_is_not_listed_is_out_of_order() {
    let found = imports(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", "pub struct A;"), ("b.rs", "use crate::a::A;")]);
    assert_eq!(complaint(&found, &order(&["a", "b"]), &[]), None);
    assert!(complaint(&found, &order(&["b"]), &[]).expect("a is not listed").contains("a.rs:1 (not listed)"));
}
