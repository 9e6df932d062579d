//! `handfast status`: what the running node is and sees.

use crate::cli::StatusArgs;
use crate::exit::{Exit, Failure};
use crate::local_api::client::Client;
use crate::state_dir::StateDir;

pub(super) fn run(state: &StateDir, args: &StatusArgs) -> Result<Exit, Failure> {
    let (json, report) = Client::connect_running(state.socket())?.status()?;
    // The JSON as the node sent it: a newer node may say more than this command knows.
    super::announce(&if args.json { json } else { report.to_text() })?;
    Ok(Exit::Ok)
}
