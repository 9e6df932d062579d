//! A real `miniupnpd` on a router of the laboratory: hosts in its LAN may ask for ports by PCP, NAT-PMP or UPnP.
//!
//! `miniupnpd` maps nothing on a router whose address is reserved, as those of the public segment are. So the router
//! gets one more address, of 45.45.0.0/16, to which the public segment is told the way, and what leaves is translated
//! to it. Which protocols are spoken, who may use them, and which address is claimed, says a [`Setup`].
//!
//! This needs the program `miniupnpd` (Debian package miniupnpd-nftables, which starts no service).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::{Process, wait_for};
use super::tools::{ip_in, nft_table, run};
use super::{Host, Lab, Router};

/// How long the program may take to start.
const START: Duration = Duration::from_secs(20);

/// How a [`Miniupnpd`] is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// PCP is answered.
    pub pcp: bool,
    /// NAT-PMP is answered.
    pub nat_pmp: bool,
    /// UPnP is answered.
    pub upnp: bool,
    /// Everything that is asked for is refused.
    pub deny: bool,
    /// The longest promise, in seconds.
    pub lifetime_max_s: u32,
    /// The address claimed in place of the true one.
    pub claim: Option<Ipv4Addr>,
    /// The router picks a random outer port for each destination.
    pub hard: bool,
}

impl Setup {
    /// All three protocols, on a router that keeps ports.
    pub const ALL: Self =
        Self { pcp: true, nat_pmp: true, upnp: true, deny: false, lifetime_max_s: 86_400, claim: None, hard: false };
    /// None of the protocols: something to start from.
    pub const NONE: Self = Self { pcp: false, nat_pmp: false, upnp: false, ..Self::ALL };
}

/// The program, running on a router.
pub struct Miniupnpd {
    namespace: String,
    logs: PathBuf,
    config: PathBuf,
    setup: Setup,
    process: Process,
    /// The router's address for the internet.
    pub address: Ipv4Addr,
}

impl Miniupnpd {
    /// Starts it on `router`; `publics` learn the way to the router's public address.
    pub fn start(lab: &Lab, router: &Router, publics: &[Host], setup: Setup) -> Self {
        let namespace = router.namespace.clone();
        let [.., number, _] = router.address.octets();
        let address = Ipv4Addr::new(45, 45, number, 1);
        ip_in(&namespace, &format!("addr add {address}/32 dev wan"));
        for host in publics {
            ip_in(&host.namespace, "route replace 45.45.0.0/16 dev eth0");
        }
        ip_in(&namespace, "route replace 45.45.0.0/16 dev wan");
        let config = lab.dir().join(format!("miniupnpd-{number}.conf"));
        let logs = lab.dir().to_owned();
        load_rules(&namespace, address, &setup);
        let process = spawn(&namespace, &logs, &config, address, &setup);
        Self { namespace, logs, config, setup, process, address }
    }

    /// Another router learns the way, too.
    pub fn reachable_from(&self, other: &Router) {
        ip_in(&other.namespace, "route replace 45.45.0.0/16 dev wan");
    }

    /// Gives a host in the LAN the IPv6 address `2001:db8:2:ROUTER::2` and a way out through the router.
    pub fn give_ipv6(router: &Router, host: &Host) -> Ipv6Addr {
        let [.., number, _] = router.address.octets();
        let address = |net, host| Ipv6Addr::new(0x2001, 0xdb8, net, u16::from(number), 0, 0, 0, host);
        for (namespace, device, address) in [
            (&router.namespace, "wan", address(1, 1)),
            (&router.namespace, "lan", address(2, 1)),
            (&host.namespace, "eth0", address(2, 2)),
        ] {
            ip_in(namespace, &format!("addr add {address}/64 dev {device} nodad"));
        }
        ip_in(&router.namespace, "addr add fe80::1/64 dev lan nodad");
        ip_in(&host.namespace, "-6 route replace default via fe80::1 dev eth0");
        address(2, 2)
    }

    /// UDP ports that are mapped, as the kernel sees it.
    pub fn mapped(&self) -> Vec<u16> {
        self.ports("pre", "dnat")
    }

    /// UDP ports of IPv6 hosts that the firewall lets in, as the kernel sees it.
    pub fn pinholes(&self) -> Vec<u16> {
        // A destination of 128 bits in the IPv6 header.
        self.ports("allow", "@nh,192,128")
    }

    fn ports(&self, chain: &str, of: &str) -> Vec<u16> {
        let list = ["netns", "exec", &self.namespace, "nft", "-n", "list", "chain", "inet", "miniupnpd", chain];
        let output = Command::new("ip").args(list).output().expect("nft starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let port = |line: &str| line.split_once("dport ")?.1.split_whitespace().next()?.parse().ok();
        text.lines().filter(|line| line.contains(of)).filter_map(port).collect()
    }

    /// Waits until exactly these ports are mapped.
    #[track_caller]
    pub fn wait_mapped(&self, ports: &[u16], limit: Duration) {
        let found = wait_for(limit, || (self.mapped() == ports).then_some(()));
        assert!(found.is_some(), "mapped are {:?}, not {ports:?}. It said:\n{}", self.mapped(), self.log());
    }

    /// The router is switched off and on: mappings and bindings are gone.
    pub fn reboot(&mut self) {
        self.process.kill();
        load_rules(&self.namespace, self.address, &self.setup);
        run(Command::new("ip").args(["netns", "exec", &self.namespace, "conntrack", "-F"]));
        self.process = spawn(&self.namespace, &self.logs, &self.config, self.address, &self.setup);
    }

    /// What it has said since it started last; nothing, if it denies.
    pub fn log(&self) -> String {
        self.process.stderr() + &self.process.stdout()
    }
}

fn load_rules(namespace: &str, address: Ipv4Addr, setup: &Setup) {
    let random = if setup.hard { " fully-random" } else { "" };
    // The first byte of a request is its protocol's version.
    let closed = |open: bool, version: u8| {
        let drop = format!("iifname \"lan\" udp dport 5351 @th,64,8 {version} drop\n");
        if open { String::new() } else { drop }
    };
    let rules = format!(
        "chain pre {{ type nat hook prerouting priority -110; }}\n\
         chain post {{ type nat hook postrouting priority 80; }}\n\
         chain allow {{ }}\n\
         chain out {{ type nat hook postrouting priority 90;\n\
           oifname \"wan\" snat ip to {address}{random}\n\
         }}\n\
         chain closed {{ type filter hook input priority -10;\n{}{}}}",
        closed(setup.nat_pmp, 0),
        // With neither, nobody listens, and the kernel says so.
        closed(setup.pcp || !setup.nat_pmp, 2),
    );
    nft_table(namespace, "miniupnpd", &rules);
}

fn spawn(
    namespace: &str,
    logs: &std::path::Path,
    config: &std::path::Path,
    address: Ipv4Addr,
    setup: &Setup,
) -> Process {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let permission =
        if setup.deny { "deny 0-65535 0.0.0.0/0 0-65535" } else { "allow 1024-65535 0.0.0.0/0 1024-65535" };
    let text = format!(
        "ext_ifname=wan\n\
         ext_ip={}\n\
         listening_ip=lan\n\
         enable_natpmp={}\n\
         enable_upnp={}\n\
         min_lifetime=5\n\
         max_lifetime={}\n\
         secure_mode=yes\n\
         system_uptime=no\n\
         upnp_table_name=miniupnpd\n\
         upnp_nat_table_name=miniupnpd\n\
         upnp_forward_chain=allow\n\
         upnp_nat_chain=pre\n\
         upnp_nat_postrouting_chain=post\n\
         uuid=00000000-0000-0000-0000-000000000001\n\
         {permission}\n",
        setup.claim.unwrap_or(address),
        yes(setup.pcp || setup.nat_pmp),
        yes(setup.upnp),
        setup.lifetime_max_s,
    );
    fs::write(config, text).expect("a configuration");
    let mut command = Command::new("ip");
    // Without a syslog it writes to the console, line by line and slowly: there is none in its mount namespace. Where
    // everything is denied, it looks through all ports for each request, and would write a line about each of them.
    let script = "mount --bind /dev/null /dev/console; exec miniupnpd $2 -f \"$0\" -P \"$1\"";
    let pid_file = config.with_extension("pid");
    let foreground = if setup.deny { "" } else { "-d" };
    command.args(["netns", "exec", namespace, "sh", "-c", script]).args([config, &pid_file]).arg(foreground);
    let mut process = Process::spawn(logs, "miniupnpd", &mut command);
    if setup.deny {
        // It goes to the background when it listens.
        let started = wait_for(START, || (!process.is_running() && pid_file.exists()).then_some(()));
        assert!(started.is_some(), "miniupnpd (Debian package miniupnpd-nftables) does not start");
        return process;
    }
    let ready = if setup.pcp || setup.nat_pmp { "Listening for NAT-PMP/PCP" } else { "HTTP listening" };
    let started = wait_for(START, || {
        let said = process.stderr() + &process.stdout();
        (said.contains(ready) || !process.is_running()).then_some(said)
    });
    let said = started.unwrap_or_default();
    assert!(said.contains(ready), "miniupnpd (Debian package miniupnpd-nftables) does not start: {said}");
    process
}
