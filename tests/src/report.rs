//! Results that are kept in the repository: sections of files in `docs/` that tests write and check.
//!
//! A section stands between two comments that name it. With `HANDFAST_MATRIX=write` a test replaces its section;
//! otherwise it reads what was committed and compares the part that must not change unnoticed.

use std::path::PathBuf;

/// Whether results are written rather than checked.
pub fn is_writing() -> bool {
    std::env::var("HANDFAST_MATRIX").is_ok_and(|what| what == "write")
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)
}

/// Where a section's content stands in a text.
fn place(text: &str, name: &str) -> core::ops::Range<usize> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let from = text.find(&begin).unwrap_or_else(|| panic!("no section {name}")) + begin.len();
    from..from + text[from..].find(&end).unwrap_or_else(|| panic!("section {name} has no end"))
}

/// What is committed of a section of `docs/traversal.md`.
pub fn read(name: &str) -> String {
    read_in("traversal.md", name)
}

/// Replaces a section of `docs/traversal.md`.
pub fn write(name: &str, content: &str) {
    write_in("traversal.md", name, content);
}

/// What is committed of a section of a file in `docs/`.
pub fn read_in(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("docs/{file}: {e}"));
    text[place(&text, name)].to_owned()
}

/// Replaces a section of a file in `docs/`.
pub fn write_in(file: &str, name: &str, content: &str) {
    // Tests of one file run at the same time.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock();
    let mut text = std::fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("docs/{file}: {e}"));
    text.replace_range(place(&text, name), content);
    std::fs::write(path(file), text).unwrap_or_else(|e| panic!("docs/{file}: {e}"));
}

/// The cells of a Markdown table's body.
pub fn rows(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(1).map(cells).collect()
}
