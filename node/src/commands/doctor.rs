//! `handfast doctor`: what stands between this node and the internet, what it means, what to do.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::DoctorArgs;
use crate::doctor::{Diagnosis, is_examined};
use crate::exit::{Exit, Failure};
use crate::host::{self, Way};
use crate::redact::redact;
use crate::signals::Outcome;
use crate::state_dir::StateDir;
use crate::talk;

/// How often the node is asked whether it has finished its examination.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(state: &StateDir, args: &DoctorArgs) -> Result<Exit, Failure> {
    let known = super::bootstraps(&args.reach.bootstrap)?;
    let (form, patience) =
        (Form { json: args.json, redact: args.redact, asked: state.asked() }, Duration::from_secs(args.timeout));

    let signals = super::signals()?;
    let attached = host::attach(state, &known, &args.reach.router)?;
    let way = attached.way(&known);
    match signals.run(move || examine(&way, &form, patience)) {
        Outcome::Done(result) => {
            attached.finish(&signals, None);
            result
        }
        Outcome::Interrupted(_) => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

/// How the diagnosis is told.
#[derive(Clone)]
struct Form {
    json: bool,
    redact: bool,
    /// Where it is noted that the question was asked.
    asked: PathBuf,
}

fn examine(way: &Way, form: &Form, patience: Duration) -> Result<Exit, Failure> {
    let since = Instant::now();
    // A node without any home is a finding, not a failure.
    let mut client = way.connect_even_lost()?;
    let mut told = false;
    let status = loop {
        let (_, status) = client.status()?;
        if is_examined(&status) || since.elapsed() >= patience {
            break status;
        }
        if !told && since.elapsed() > Duration::from_secs(1) {
            told = true;
            talk::note("examining the network; this takes some seconds");
        }
        thread::sleep(LOOK_EVERY);
    };
    let diagnosis = Diagnosis::of(status);
    let text = if form.json {
        serde_json::to_string(&diagnosis)
            .map_err(|error| Failure::bare(Exit::Failure, format!("cannot write JSON: {error}")))?
    } else {
        format!("{}\ndetails: handfast doctor --json    share safely: handfast doctor --redact", diagnosis.to_text())
    };
    let text = if form.redact { redact(&text) } else { text };
    super::announce(&text)?;
    // To a person, and once. Where that cannot be noted it is asked again: no harm done.
    if let Some(question) = diagnosis.question().filter(|_| !form.json && !form.redact && !form.asked.exists()) {
        talk::note(question);
        let _ = fs::write(&form.asked, "volunteer\n");
    }
    Ok(if diagnosis.degraded { Exit::Degraded } else { Exit::Ok })
}
