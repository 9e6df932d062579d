//! The network at a size: many real nodes in virtual time, what they carry, and what happens to them.
//!
//! [`run`] takes [`Args`] and gives a [`Report`]. Each of the [`scenarios`] builds a
//! [`Crowd`](crowd::Crowd) of supernodes and leaves on a lean [`World`](crate::World), lets its owners do what
//! [`Doings`](crowd::Doings) say (sessions, [`calls`], lives drawn by [`chance`]), and compares with its bounds what
//! the [`meter`] read at the supernodes' network cards and what came of the calls. [`costs`] measures one thing at a
//! time and multiplies.
//!
//! Nothing here looks into a node: what is known of the overlay is its events, `Node::status`, and bytes on the wire.
//! So it measures the next overlay as it measures this one. The same arguments give the same report, byte for byte;
//! progress, time and memory go to stderr.

pub mod args;
pub mod calls;
pub mod chance;
pub mod costs;
pub mod crowd;
pub mod meter;
pub mod plot;
pub mod report;
pub mod scenarios;

pub use args::{Args, Bindings};
use report::Report;
use scenarios::ALL;

use self::report::number;

/// Runs what is asked for.
///
/// # Errors
/// If there is no scenario of that name.
pub fn run(args: &Args) -> Result<Report, String> {
    let wanted = |s: &&scenarios::Scenario| match &args.scenario {
        Some(name) => s.name == name,
        None => s.by_default,
    };
    let chosen: Vec<_> = ALL.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
        return Err(format!("there is no such scenario; there are {}", names.join(", ")));
    }
    let mut report = Report { command: args.line(), model: model(args), outcomes: Vec::new() };
    for scenario in chosen {
        let began = std::time::Instant::now();
        if args.progress {
            eprintln!("{}: {}", scenario.name, scenario.what);
        }
        report.outcomes.push(scenario.run(args));
        if args.progress {
            eprintln!(
                "{}: done in {:.1} s, {} MiB",
                scenario.name,
                began.elapsed().as_secs_f64(),
                crowd::resident_mib()
            );
        }
    }
    Ok(report)
}

/// What is assumed of the world, in words.
fn model(args: &Args) -> Vec<String> {
    let bindings = match args.bindings {
        Bindings::All(secs) => format!("all forget an idle binding after {secs} s"),
        Bindings::Mix => "they forget as in docs/keepalive.md: a beat every 51 s in the mean".to_owned(),
    };
    let hours = |time: core::time::Duration| number(time.as_secs_f64() / 3600.0);
    let shape = 1.0 / f64::from(args.life.inverse_shape);
    vec![
        format!(
            "Prefix plan: {} supernodes in {} /24s, {} in each; every leaf's router in a /24 of its own.",
            args.supernodes,
            args.supernodes.div_ceil(args.per_prefix),
            args.per_prefix
        ),
        format!("Routers: port-restricted (RFC 4787: EI/APD), no hairpinning; {bindings}."),
        format!(
            "Leaves stay for {} h in the mean (exponential), half of them go without a word, and start again after 60 s in \
             the mean with what they saved, told of 3 supernodes that are up.",
            hours(args.session)
        ),
        format!(
            "Each calls {} times a day (Poisson): a `ping` of a random leaf that is at home and that it has no link to, \
             which is closed after a minute. It succeeded if the answer came: lookup, introduction and link went over the \
             network.",
            number(args.calls_a_day)
        ),
        format!(
            "Supernodes, where they die, live {} h in the median (Weibull, shape {}), end without a word, and another one \
             with another key comes at once at another address.",
            hours(args.life.median),
            number(shape)
        ),
        "The wire loses nothing; 40 ms there and back between any two. Bytes are at IP level (IPv4 and UDP headers \
         included), counted at supernodes, in and out. A supernode is counted while it is up."
            .to_owned(),
    ]
}
