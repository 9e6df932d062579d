//! `handfast leaf`: a node behind a router, registered at its homes.

use std::time::Duration;

use handfast_io::Options;

use super::Wishes;
use crate::cli::LeafArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Host};
use crate::signals::Signals;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target;

/// After this long without a home, the user is told what to look at.
const COMPLAIN_AFTER: Duration = Duration::from_secs(5);
/// How often the wait for a home looks for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(state: &StateDir, args: &LeafArgs) -> Result<Exit, Failure> {
    let wishes = Wishes::read(&args.node)?;
    let listen = args.listen.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    host::needs_someone(state, &wishes.bootstrap, &args.node.router)?;
    let is_alone = !host::knows_someone(state, &wishes.bootstrap);

    let signals = super::signals()?;
    let host = Host::start(state, wishes.plan(args.volunteer.apply(Options::leaf()), listen, &args.node.router))?;
    let _offers = wishes.offer(host.server())?;
    if is_alone {
        talk::warn(
            "no supernode is known: only nodes on this local network can be reached. --bootstrap hf1…@HOST:PORT names one",
        );
    } else if !wait_for_home(&host, &signals, &wishes) {
        host.close();
        return Ok(Exit::Ok);
    }
    super::announce(&host.endpoint().id().to_string())?;
    Ok(super::serve(host, &signals))
}

/// Waits as long as it takes; false if a signal came first.
pub(super) fn wait_for_home(host: &Host, signals: &Signals, wishes: &Wishes) -> bool {
    let mut waited = Duration::ZERO;
    while host.endpoint().wait_ready(LOOK_EVERY).is_err() {
        if signals.wait_timeout(Duration::ZERO) {
            return false;
        }
        waited += LOOK_EVERY;
        if waited == COMPLAIN_AFTER {
            talk::warn(format!(
                "no home answers yet ({}); check that the supernode is running, its address, and that UDP gets out \
                 of this network. Trying on",
                host::places(&wishes.bootstrap),
            ));
        }
    }
    true
}
