//! Replays the committed inputs of the fuzz targets: whatever a fuzzer once found stays found.

use std::fs;
use std::path::Path;

#[test]
fn committed_corpus_replays() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
    for (name, target) in handfast_fuzz::TARGETS {
        // No input at all, too.
        target(b"");
        let entries = fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            let data = fs::read(&path).expect("a readable file");
            // Printed when the target panics.
            eprintln!("{}", path.display());
            target(&data);
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_a_program() {
    let programs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets"));
    let mut found: Vec<String> = fs::read_dir(programs)
        .expect("the programs")
        .map(|entry| entry.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    let named: Vec<&str> = handfast_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, named);
}
