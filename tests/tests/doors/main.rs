//! Doors that stay shut: `core` and `io` are made of rooms, `ARCHITECTURE.md` states their order, and this holds it.
//!
//! A *room* is a file or folder directly in `src`; the sections "The order of rooms in …" list them, bottom first.
//!
//! 1. Every room is listed once, and nothing else is. `lib.rs` is a room, `lib`, only if it defines something.
//! 2. A room imports only from rooms that are listed before it.
//! 3. No file imports, by whatever way round, from one that imports from it; inside a room too.
//!
//! What an import is, `reader.rs` says: in short, a file that names an item imports from the file that *defines* it,
//! however many re-exports are between. `trees.rs` tests that on small crates that are made up.
//!
//! What breaks 2 or 3 today stands in the lists below, as the imports that have to go: all that lead upwards, and so
//! many inside rooms that without them there is no circle. The lists only get shorter: what is new fails, and so does
//! what is listed and does no harm any more. The message names files and lines of everything, and ends with the list as
//! it would have to be.
//!
//! `limits.rs` holds another text to the code, the limits that `PROTOCOL.md` states; `names.rs` the files that texts
//! name; `sizes.rs` holds how long files, and the node, may be.

mod limits;
mod names;
mod reader;
mod sizes;
mod trees;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use reader::{Import, Sources};

/// Imports by file, `from` and `to`.
type Pairs = &'static [(&'static str, &'static str)];

/// Imports of `core` that have to go.
const CORE: Pairs = &[];

/// Imports of `io` that have to go.
const IO: Pairs = &[];

#[test]
fn the_doors_of_core_are_shut() {
    check("core", CORE);
}

#[test]
fn the_doors_of_io_are_shut() {
    check("io", IO);
}

#[test]
fn every_room_is_listed_once() {
    for name in ["core", "io"] {
        let mut listed = order(name);
        listed.sort();
        let rooms: Vec<String> = rooms(&repository(name)).into_iter().collect();
        assert_eq!(listed, rooms, "left: {name} as ARCHITECTURE.md lists it, right: as it is");
    }
}

fn check(name: &str, known: Pairs) {
    let imports = reader::imports(&repository(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    if let Some(complaint) = complaint(&imports, &order(name), known) {
        panic!("{name}: {complaint}");
    }
}

/// The files of a crate of this repository.
fn repository(name: &str) -> Sources {
    reader::sources(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name).join("src"))
}

/// The order that `ARCHITECTURE.md` states for a crate.
fn order(name: &str) -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md")).expect("readable text");
    listed(&text, &format!("## The order of rooms in {name}"))
}

/// The rooms of the ordered list below a heading: an item begins with one, in backticks.
fn listed(text: &str, heading: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "there is no heading: {heading}");
    let mut rooms = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        let Some((number, rest)) = line.split_once(". ") else { continue };
        if number.parse() != Ok(rooms.len() + 1) {
            assert!(number.parse::<usize>().is_err(), "below {heading}, numbers out of order: {line}");
            continue;
        }
        let room = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'));
        let (room, _) = room.unwrap_or_else(|| panic!("below {heading}, no room in backticks at the start: {line}"));
        rooms.push(room.trim_end_matches('/').trim_end_matches(".rs").to_owned());
    }
    assert!(!rooms.is_empty(), "there is no list below {heading}");
    rooms
}

/// The rooms that there are.
fn rooms(sources: &Sources) -> BTreeSet<String> {
    let files = reader::files(sources).unwrap_or_else(|fault| panic!("{fault}"));
    files.iter().filter(|(file, defines)| file.as_str() != "lib.rs" || **defines).map(|(file, _)| room(file)).collect()
}

/// The room that a file is in.
fn room(file: &str) -> String {
    let (first, _) = file.split_once('/').unwrap_or((file, ""));
    first.trim_end_matches(".rs").to_owned()
}

/// What there is to say against these imports, or nothing: they break the rules exactly where it is known.
fn complaint(imports: &[Import], order: &[String], known: Pairs) -> Option<String> {
    let mut text = String::new();
    let is_known = |import: &&Import| known.contains(&(import.from.as_str(), import.to.as_str()));
    let (upwards, level): (Vec<&Import>, Vec<&Import>) = imports.iter().partition(|import| is_upward(import, order));
    let (admitted, rest): (Vec<&Import>, Vec<&Import>) = level.iter().copied().partition(is_known);

    for import in upwards.iter().copied().filter(|import| !is_known(import)) {
        say(&mut text, &format!("\nnew: {}", describe(import, order)));
    }
    for circle in circles(&rest) {
        say(&mut text, &format!("\nnew: {}", round(&circle)));
    }
    for pair in known {
        let own = |import: &&&Import| (import.from.as_str(), import.to.as_str()) == *pair;
        let closes = |import: &&Import| way(&rest, &import.to, &import.from).is_some();
        if !upwards.iter().any(|import| own(&import)) && !admitted.iter().filter(own).any(closes) {
            say(&mut text, &format!("\nlisted, and does no harm any more: {} from {}", pair.0, pair.1));
        }
    }
    if !known.is_sorted_by(|one, next| one < next) {
        say(&mut text, "\nthe list is not in order, or has a pair twice");
    }
    if text.is_empty() {
        return None;
    }

    say(&mut text, "\n\nall imports upwards:");
    for import in &upwards {
        say(&mut text, &format!("\n  {}", describe(import, order)));
    }
    say(&mut text, "\nall circles inside rooms:");
    for circle in circles(&level) {
        say(&mut text, &format!("\n  {}", round(&circle)));
    }
    let mut pairs: Vec<&Import> = upwards.into_iter().chain(closing(level)).collect();
    pairs.sort();
    say(&mut text, "\nas it would have to be listed:\n");
    for import in pairs {
        say(&mut text, &format!("    ({:?}, {:?}),\n", import.from, import.to));
    }
    Some(text)
}

fn say(text: &mut String, words: &str) {
    text.push_str(words);
}

/// Whether it is from a room that is not before its own. Unlisted rooms are before nothing and after nothing.
fn is_upward(import: &Import, order: &[String]) -> bool {
    let place = |file: &str| order.iter().position(|name| *name == room(file));
    let (from, to) = (place(&import.from), place(&import.to));
    room(&import.from) != room(&import.to) && (from.is_none() || to.is_none() || from < to)
}

fn describe(import: &Import, order: &[String]) -> String {
    let place = |file: &str| match order.iter().position(|name| *name == room(file)) {
        Some(place) => format!("room {}", place + 1),
        None => "not listed".to_owned(),
    };
    let (from, to) = (place(&import.from), place(&import.to));
    format!("{} ({from}) imports from {}:{} ({to})", step(import), import.to, import.at)
}

/// For every import that lies on a circle the shortest that it lies on; each circle once, from its first file on.
fn circles<'a>(imports: &[&'a Import]) -> BTreeSet<Vec<&'a Import>> {
    let closed = |import: &&'a Import| {
        let mut circle = vec![*import];
        circle.extend(way(imports, &import.to, &import.from)?);
        let first = circle.iter().enumerate().min_by_key(|(_, import)| &import.from).map_or(0, |(at, _)| at);
        circle.rotate_left(first);
        Some(circle)
    };
    imports.iter().filter_map(closed).collect()
}

/// Imports without which no circle is left: again and again the one that most circles have.
fn closing(mut imports: Vec<&Import>) -> Vec<&Import> {
    let mut taken = Vec::new();
    loop {
        let mut counts: BTreeMap<&Import, usize> = BTreeMap::new();
        for import in circles(&imports).into_iter().flatten() {
            *counts.entry(import).or_default() += 1;
        }
        let Some((worst, _)) = counts.into_iter().rev().max_by_key(|(_, count)| *count) else { return taken };
        imports.retain(|import| *import != worst);
        taken.push(worst);
    }
}

/// The shortest way from one file to another along imports.
fn way<'a>(imports: &[&'a Import], start: &str, end: &str) -> Option<Vec<&'a Import>> {
    let mut reached: BTreeMap<&str, &'a Import> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        if file == end {
            let mut way = Vec::new();
            let mut at = end;
            while at != start {
                way.push(reached[at]);
                at = &reached[at].from;
            }
            way.reverse();
            return Some(way);
        }
        for import in imports.iter().filter(|import| import.from == file) {
            if import.to != start && !reached.contains_key(import.to.as_str()) {
                reached.insert(&import.to, import);
                next.push_back(&import.to);
            }
        }
    }
    None
}

fn step(import: &Import) -> String {
    format!("{}:{} `{}`", import.from, import.line, import.path)
}

fn round(circle: &[&Import]) -> String {
    let steps: Vec<String> = circle.iter().copied().map(step).collect();
    format!("{} → {}", steps.join(" → "), circle[0].from)
}
