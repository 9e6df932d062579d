//! The command line, as clap reads it. Every flag is an environment variable too; the flag wins.
//!
//! Addresses stay text here: [`target`](crate::target) reads them, so that a wrong one is told in its words and not in
//! those of a parser.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use handfast_io::Options;

use crate::exit::Failure;

/// Connects programs under their public keys, through home routers, with no server that anyone must own.
#[derive(Parser, Debug)]
#[command(name = "handfast", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line of this process. Help and version are printed, and end it.
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => mistake(&error.render().to_string()),
        })
    }
}

/// clap's paragraphs as one line, as all our errors are: what is wrong, and its tip if it has one.
fn mistake(text: &str) -> Failure {
    let mut paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let cause = paragraphs.next().unwrap_or_default();
    let tip = paragraphs.find_map(|part| part.strip_prefix("tip: ").map(|tip| format!("{tip}; ")));
    let cause = cause.strip_prefix("error: ").unwrap_or(&cause);
    Failure::usage(cause, format!("{}see: handfast help, or --help behind the command", tip.unwrap_or_default()))
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failure, 2 usage, 3 no node is running, 4 peer unreachable, \
    5 refused by the peer, 6 key problem, 7 degraded (relayed, where direct was asked for; doctor found something), 130 interrupted.\n\
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
    /// Run a node that finds its role by itself: a leaf, and a supernode once the internet is seen to reach it
    Run(RunArgs),
    /// Run a supernode, whatever the network looks like: help others to find each other and relay for them
    Supernode(SupernodeArgs),
    /// Run a leaf, and never anything else
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
    /// Explain what stands between this node and the internet, and what to do about it; exit 7 if it is degraded
    Doctor(DoctorArgs),
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
    #[command(flatten)]
    pub(crate) router: RouterArgs,
}

/// What a node may want of the network around it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RouterArgs {
    /// Ask the router to let the internet in at the UDP port, by PCP, NAT-PMP or UPnP
    #[arg(long, value_name = "on|off", default_value = "on", env = "HANDFAST_PORT_MAP", hide_possible_values = true)]
    port_map: Switch,
    /// Announce this node on the local network, and find others there, by multicast DNS; everybody there sees its hf1…
    #[arg(long, value_name = "on|off", default_value = "on", env = "HANDFAST_LAN", hide_possible_values = true)]
    lan: Switch,
}

impl RouterArgs {
    /// Whether the router is to be asked for a port.
    pub(crate) fn port_map(self) -> bool {
        self.port_map == Switch::On
    }

    /// Whether the local network is to know of this node.
    pub(crate) fn lan(self) -> bool {
        self.lan == Switch::On
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Switch {
    On,
    Off,
}

#[derive(Args, Debug)]
pub(crate) struct SupernodeArgs {
    /// UDP address to bind, one for IPv4 and one for IPv6 (repeatable); port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN", value_delimiter = ',', required = true)]
    pub(crate) listen: Vec<String>,
    /// TCP address to take links at beside the port of --listen, for networks that let no UDP out: 0.0.0.0:443, say
    /// (repeatable)
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN_TCP", value_delimiter = ',')]
    pub(crate) listen_tcp: Vec<String>,
    /// Address at which the internet reaches it [default: the listen address]; port 0 means the bound port
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_ADVERTISE", value_delimiter = ',')]
    pub(crate) advertise: Vec<String>,
    #[command(flatten)]
    pub(crate) duty: DutyArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// How much a supernode does for others.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DutyArgs {
    /// Most bits per second to relay in all; 500k, 20M or 1G will do, 0 is unlimited [default: 20M for a node that
    /// became a supernode by itself, else unlimited]
    #[arg(long, value_name = "BPS", env = "HANDFAST_RATE", value_parser = amount)]
    rate: Option<u64>,
    /// Most bytes to relay in 30 days in all; 200G or 1T will do, 0 is unlimited [default: 200G for a node that became
    /// a supernode by itself, else unlimited]
    #[arg(long, value_name = "BYTES", env = "HANDFAST_QUOTA", value_parser = amount)]
    quota: Option<u64>,
    /// Most bits per second to relay for a pair of peers, both ways together; 0 is unlimited [default: 2M]
    #[arg(long, value_name = "BPS", env = "HANDFAST_RELAY_RATE", value_parser = amount)]
    relay_rate: Option<u64>,
    /// Most bytes a day to relay for a pair of peers, both ways together; 0 is unlimited [default: 1 GiB]
    #[arg(long, value_name = "BYTES", env = "HANDFAST_RELAY_QUOTA", value_parser = amount)]
    relay_quota: Option<u64>,
}

impl DutyArgs {
    /// Enters what was said; the rest stays as it is.
    pub(crate) fn apply(self, options: Options) -> Options {
        let enter = |options, said: Option<u64>, limit: fn(Options, u64) -> Options| match said {
            Some(said) => limit(options, said),
            None => options,
        };
        let options = enter(options, self.rate, Options::total_rate_bps);
        let options = enter(options, self.quota, Options::total_quota_bytes);
        let options = enter(options, self.relay_rate, Options::pair_rate_bps);
        enter(options, self.relay_quota, Options::pair_quota_bytes)
    }
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// What the node is to others; auto: a leaf, and a supernode once the internet is seen to reach it
    #[arg(
        long,
        value_name = "auto|leaf|supernode",
        default_value = "auto",
        env = "HANDFAST_ROLE",
        hide_possible_values = true
    )]
    pub(crate) role: RoleChoice,
    /// UDP address to bind (repeatable) [default: port 7441 on all addresses, any port where that is taken]
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// TCP address to take links at beside the ports of --listen, while it serves others (repeatable)
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN_TCP", value_delimiter = ',')]
    pub(crate) listen_tcp: Vec<String>,
    /// With --role supernode: address at which the internet reaches it
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_ADVERTISE", value_delimiter = ',')]
    pub(crate) advertise: Vec<String>,
    #[command(flatten)]
    pub(crate) duty: DutyArgs,
    #[command(flatten)]
    pub(crate) volunteer: VolunteerArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What a leaf does for strangers.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct VolunteerArgs {
    /// Relay for strangers who cannot reach each other, while this node is a leaf and its router can be punched: at most
    /// 1 Mbit/s and 1 GB a day. They learn this node's address, and may use nothing of it
    #[arg(long, env = "HANDFAST_VOLUNTEER", value_parser = FalseyValueParser::new())]
    volunteer: bool,
    /// Most bits per second to relay as a volunteer in all; 0 is unlimited [default: 1M]
    #[arg(long, value_name = "BPS", env = "HANDFAST_VOLUNTEER_RATE", value_parser = amount)]
    volunteer_rate: Option<u64>,
    /// Most bytes a day to relay as a volunteer in all; 0 is unlimited [default: 1G]
    #[arg(long, value_name = "BYTES", env = "HANDFAST_VOLUNTEER_QUOTA", value_parser = amount)]
    volunteer_quota: Option<u64>,
}

impl VolunteerArgs {
    /// Enters what was said.
    pub(crate) fn apply(self, options: Options) -> Options {
        let options = options.volunteer(self.volunteer);
        let options = self.volunteer_rate.into_iter().fold(options, Options::volunteer_rate_bps);
        self.volunteer_quota.into_iter().fold(options, Options::volunteer_quota_bytes)
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RoleChoice {
    Auto,
    Leaf,
    Supernode,
}

#[derive(Args, Debug)]
pub(crate) struct LeafArgs {
    /// UDP address to bind [default: any port on all addresses]
    #[arg(long, value_name = "HOST:PORT", env = "HANDFAST_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    #[command(flatten)]
    pub(crate) volunteer: VolunteerArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What a command needs that starts a node of its own when none runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReachArgs {
    /// A supernode to start from, if no node is running (repeatable)
    #[arg(long, value_name = "hf1…@HOST:PORT", env = "HANDFAST_BOOTSTRAP", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
    #[command(flatten)]
    pub(crate) router: RouterArgs,
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
pub(crate) struct DoctorArgs {
    /// One JSON object (handfast.doctor/1)
    #[arg(long, env = "HANDFAST_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Replace addresses and ids by names, so that the text can be shown to strangers
    #[arg(long, env = "HANDFAST_REDACT", value_parser = FalseyValueParser::new())]
    pub(crate) redact: bool,
    /// Most seconds to wait until the network is examined
    #[arg(long, value_name = "SECONDS", env = "HANDFAST_TIMEOUT", default_value = "30",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Size of the first download
    #[arg(long, value_name = "MIB", env = "HANDFAST_DEMO_SIZE", default_value = "64",
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) size: u64,
}

/// Reads a number that may end in a decimal prefix: `500k`, `2M`, `1G`, `1T`.
fn amount(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        Some((at, 'T')) => (&text[..at], 1_000_000_000_000),
        _ => (text, 1),
    };
    // Not `parse` alone: it would take a sign.
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| "write a whole number, for example 500k, 2M or 1G; 0 is unlimited".into())
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
    fn mistakes_are_one_line_with_a_next_step() {
        let told = |args: &[&str]| {
            let words = std::iter::once(&"handfast").chain(args);
            let failure = mistake(&Cli::try_parse_from(words).unwrap_err().render().to_string());
            assert_eq!(failure.exit.code(), 2);
            failure.to_string()
        };
        let cases: [(&[&str], &str); 5] = [
            (&["frob"], "unrecognized subcommand 'frob'"),
            (&["stauts"], "'status'"),
            (&["supernode"], "not provided: --listen <HOST:PORT>"),
            (&["status", "--jsn"], "'--json'"),
            (&["supernode", "--listen", "x", "--relay-rate", "fast"], "a whole number"),
        ];
        for (args, part) in cases {
            let text = told(args);
            assert!(!text.contains('\n') && text.contains(part) && text.contains("--help"), "{text}");
        }
    }

    #[test]
    fn amounts_have_decimal_prefixes() {
        let good = ["0", "1500", "500k", "2M", "1G", "7K", "1T"].map(|text| amount(text).unwrap());
        assert_eq!(good, [0, 1_500, 500_000, 2_000_000, 1_000_000_000, 7_000, 1_000_000_000_000]);
        for text in ["", "k", "-1", "+1", "1.5M", "1m", "2 M", "99999999999G", "18446744073709551616", "1ä"] {
            amount(text).unwrap_err();
        }
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
