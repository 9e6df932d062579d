//! The program that the README shows is the example that runs.

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let example = include_str!("../examples/echo.rs");
    let begin = example.find("use std::error::Error;").expect("the imports");
    let shown = format!("```rust\n{}```\n", &example[begin..]);
    assert!(include_str!("../../README.md").contains(&shown), "README.md has another text than io/examples/echo.rs");
}
