//! The command line, as clap reads it. Every flag is an environment variable too; the flag wins.
//!
//! Addresses stay text here: [`target`](crate::target) reads them, so that a wrong one is told in its words and not in
//! those of a parser.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Connects programs under their public keys, through home routers, with no server that anyone must own.
#[derive(Parser, Debug)]
#[command(name = "handfast", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failure, 2 usage, 3 no node is running, 4 peer unreachable, \
    5 refused by the peer, 6 key problem, 7 degraded (relayed, where direct was asked for), 130 interrupted.\n\
    A PEER is hf1…, a supernode's hf1…@HOST:PORT or a ticket hft1…; - reads it from standard input.";

#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Where key, saved state and local socket are [default: $XDG_STATE_HOME/handfast or ~/.local/state/handfast]
    #[arg(long, global = true, value_name = "DIR", env = "HANDFAST_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Say more on standard error; -vv and -vvv say even more. RUST_LOG wins
    #[arg(short, long, global = true, action = ArgAction::Count, env = "HANDFAST_VERBOSE")]
    pub(crate) verbose: u8,
    /// How to write to standard error
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", env = "HANDFAST_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Print this node's address, hf1…; make the key if there is none
    Id,
    /// Run a supernode: help others to find each other and relay for them
    Supernode(SupernodeArgs),
    /// Run a leaf: a node behind a router
    Leaf(LeafArgs),
    /// Offer a local program to others while this command runs
    Expose(ExposeArgs),
    /// Print a ticket of the running node, with which others connect without a lookup
    Ticket(TicketArgs),
    /// Listen locally and carry each connection to a peer's service
    Connect(ConnectArgs),
    /// Carry standard input and output to a peer's service (ssh: ProxyCommand handfast pipe PEER/ssh)
    Pipe(PipeArgs),
    /// Measure the round trip to a peer and say which path it takes
    Ping(PingArgs),
    /// Tell what the running node is and sees
    Status(StatusArgs),
    /// Show it all on this machine: three supernodes, two leaves behind routers, a download that goes direct
    Demo(DemoArgs),
}

/// What every node has.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    /// A supernode to start from (repeatable; in the environment separated by commas)
    #[arg(long, value_name = "hf1…@HOST:PORT", env = "HANDFAST_BOOTSTRAP", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
    /// Offer a local program (repeatable)
    #[arg(long, value_name = "NAME=HOST:PORT", env = "HANDFAST_EXPOSE", value_delimiter = ',')]
    pub(crate) expose: Vec<String>,
    /// Who may use what is exposed: addresses, or "any" (repeatable). Without it nobody may
    #[arg(long, value_name = "hf1…|any", env = "HANDFAST_ALLOW", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SupernodeArgs {
    /// UDP address to bind; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN")]
    pub(crate) listen: String,
    /// Address at which the internet reaches it [default: the listen address]; port 0 means the bound port
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_ADVERTISE", value_delimiter = ',')]
    pub(crate) advertise: Vec<String>,
    /// Most bits per second that it relays for a pair of strangers; 0 is unlimited
    #[arg(long, value_name = "BPS", env = "HANDFAST_RELAY_RATE", default_value_t = 2_000_000)]
    pub(crate) relay_rate: u64,
    /// Most bytes a day that it relays for a pair of strangers; 0 is unlimited
    #[arg(long, value_name = "BYTES", env = "HANDFAST_RELAY_QUOTA", default_value_t = 1 << 30)]
    pub(crate) relay_quota: u64,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LeafArgs {
    /// UDP address to bind [default: any port on all addresses]
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What a command needs that starts a node of its own when none runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReachArgs {
    /// A supernode to start from, if no node is running (repeatable)
    #[arg(long, value_name = "hf1…@HOST:PORT", env = "HANDFAST_BOOTSTRAP", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExposeArgs {
    /// The service and the program behind it
    #[arg(value_name = "NAME=HOST:PORT")]
    pub(crate) exposure: String,
    /// Who may use it: addresses, or "any" (repeatable). Without it nobody may
    #[arg(long, value_name = "hf1…|any", env = "HANDFAST_ALLOW", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TicketArgs {
    /// The service to put into it
    #[arg(value_name = "NAME")]
    pub(crate) service: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// Peer and service, or a ticket
    #[arg(value_name = "PEER/NAME")]
    pub(crate) target: String,
    /// Local TCP address; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_CONNECT_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PipeArgs {
    /// Peer and service, or a ticket
    #[arg(value_name = "PEER/NAME")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct WaitArgs {
    /// Most seconds to wait for the peer
    #[arg(long, value_name = "SECONDS", env = "HANDFAST_TIMEOUT", default_value = "15",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Args, Debug)]
pub(crate) struct PingArgs {
    /// Whom; a service in it is ignored
    #[arg(value_name = "PEER")]
    pub(crate) target: String,
    /// How many pings [default: 4; with --until-direct as many as fit in 30 s]
    #[arg(short = 'c', long, value_name = "N", env = "HANDFAST_COUNT",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop at the first direct answer; exit 7 if all were relayed
    #[arg(long, env = "HANDFAST_UNTIL_DIRECT", value_parser = FalseyValueParser::new())]
    pub(crate) until_direct: bool,
    /// Send them all, but exit 7 unless the last answer was direct
    #[arg(long, env = "HANDFAST_REQUIRE_DIRECT", value_parser = FalseyValueParser::new())]
    pub(crate) require_direct: bool,
    /// One JSON object a line (handfast.ping/1)
    #[arg(long, env = "HANDFAST_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// One JSON object (handfast.status/1)
    #[arg(long, env = "HANDFAST_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Size of the first download
    #[arg(long, value_name = "MIB", env = "HANDFAST_DEMO_SIZE", default_value = "64",
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) size: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_an_environment_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                if matches!(arg.get_id().as_str(), "help" | "version") {
                    continue;
                }
                let env = arg.get_env().and_then(|name| name.to_str());
                assert!(
                    env.is_some_and(|name| name.starts_with("HANDFAST_")),
                    "{} --{}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
