//! Runs the network at a size and says what it carries: see [`handfast_tests::scale`].
//!
//! `cargo run --release -p handfast-tests --bin scale -- --supernodes 60 --leaves 20000 --hours 1 --seed 1`

use std::process::ExitCode;

use handfast_tests::scale::{self, Args, args::USAGE, plot};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Args::parse(words).and_then(|args| report(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn report(args: &Args) -> Result<(), String> {
    let report = scale::run(args)?;
    print!("{}", report.text());
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if let Some(folder) = &args.plots {
        for name in plot::write(&report, folder)? {
            eprintln!("{}", folder.join(name).display());
        }
    }
    Ok(())
}
