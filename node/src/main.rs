//! The `handfast` command.
//!
//! `main` reads the command line ([`cli`]), hands over to one file per command ([`commands`]) and turns what comes
//! back into an exit code ([`exit`]). A node in this process is a [`host`]; a node in another one is reached through
//! its local socket ([`local_api`]), and the commands use nothing else, so that all they do is open to any program.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "numbers that tests make small"))]

mod cli;
mod commands;
mod demo;
mod doctor;
mod exit;
mod host;
mod key_file;
mod local_api;
mod redact;
mod report;
mod signals;
mod state_dir;
mod talk;
mod target;

use std::process::ExitCode;

fn main() -> ExitCode {
    let run = || {
        let cli = cli::Cli::read()?;
        talk::start(cli.common.log_format, cli.common.verbose);
        commands::run(cli)
    };
    match run() {
        Ok(exit) => exit.code().into(),
        Err(failure) => {
            talk::failure(&failure);
            failure.exit.code().into()
        }
    }
}
