//! `handfast id`: this node's address. Needs no running node and no network.

use crate::exit::{Exit, Failure};
use crate::host;
use crate::state_dir::StateDir;

pub(super) fn run(state: &StateDir) -> Result<Exit, Failure> {
    super::announce(&host::load_key(state)?.peer_id().to_string())?;
    Ok(Exit::Ok)
}
