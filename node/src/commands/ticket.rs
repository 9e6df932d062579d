//! `handfast ticket`: with it others connect to the running node without a lookup.

use std::time::Duration;

use crate::cli::TicketArgs;
use crate::exit::{Exit, Failure};
use crate::local_api::client::Client;
use crate::local_api::line::Line;
use crate::state_dir::StateDir;
use crate::target;

/// The node needs nobody else for this.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn run(state: &StateDir, args: &TicketArgs) -> Result<Exit, Failure> {
    let service = args.service.as_deref().map(target::service_name).transpose()?;
    let mut client = Client::connect_running(state.socket())?;
    let mut line = Line::new("TICKET");
    if let Some(service) = service {
        line = line.with("service", service);
    }
    super::announce(client.ask(&line, DEADLINE)?.need("ticket")?)?;
    Ok(Exit::Ok)
}
