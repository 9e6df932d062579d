//! `handfast expose`: offers a local program, through the running node or as a leaf of its own.

use std::time::Duration;

use handfast_io::Access;

use crate::cli::ExposeArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Way};
use crate::local_api::line::Line;
use crate::signals::Outcome;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target::{self, Exposure};

/// The node needs nobody else for this.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn run(state: &StateDir, args: &ExposeArgs) -> Result<Exit, Failure> {
    let exposure: Exposure = args.exposure.parse()?;
    let access = target::access(&args.allow)?;
    let known = super::bootstraps(&args.reach.bootstrap)?;

    let signals = super::signals()?;
    let attached = host::attach(state, &known, &args.reach.router)?;
    let way = attached.way(&known);
    match signals.run(move || offer(&way, &exposure, &access)) {
        Outcome::Done(result) => {
            attached.abandon();
            result
        }
        Outcome::Interrupted(_) => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

/// Offers it until the node is gone.
fn offer(way: &Way, exposure: &Exposure, access: &Access) -> Result<Exit, Failure> {
    let mut client = way.connect()?;
    let allow = match access {
        Access::Any => "any".into(),
        Access::Peers(peers) => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let line =
        Line::new("EXPOSE").with("service", exposure.service).with("target", exposure.target).with("allow", allow);
    client.ask(&line, DEADLINE)?;
    let address = format!("{}/{}", client.id, exposure.service);
    talk::note(super::offered(exposure, access));
    talk::note(format!("others     handfast connect {address}"));
    super::announce(&address)?;
    client.wait_closed();
    Err(Failure::new(Exit::Failure, "the node has stopped, and the service with it", "start it again: handfast leaf …"))
}
