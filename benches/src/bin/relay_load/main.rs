//! Drives a real `handfast supernode` over loopback with many pairs of clients that talk through its relay, and says
//! what that costs it; beside it, in the same run, a bare forwarder as the yardstick.
//!
//! The pairs get their channels as real nodes do ([`subject`]); then packets of a fixed size are pumped under the heads
//! of these channels ([`load`]), in two shapes: trains of one pair, each sent as one GSO send, and single packets of
//! all pairs in turn. `relay_load --yardstick` is the bare forwarder ([`yardstick`]), in a process of its own.

mod load;
mod subject;
mod yardstick;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use load::{Measured, Plan};
use subject::Subject;

/// Pumps packets through a handfast relay and measures what they cost it.
#[derive(Parser)]
struct Arguments {
    /// Pairs of clients.
    #[arg(long, default_value_t = 1000)]
    pairs: usize,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often everything is measured; the cheapest is told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sizes of packets, in bytes of UDP payload.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1200])]
    sizes: Vec<usize>,
    /// Packets in a train.
    #[arg(long, default_value_t = 16)]
    train: usize,
    /// Packets on their way at once, at most.
    #[arg(long, default_value_t = 128)]
    window: usize,
    /// The handfast program; else $HANDFAST_BIN, else the one beside this program.
    #[arg(long, env = "HANDFAST_BIN")]
    handfast: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the bare forwarder: prints its address, then forwards.
    #[arg(long)]
    yardstick: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.yardstick { yardstick::run() } else { measure(&arguments) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let handfast = match &arguments.handfast {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("handfast"),
    };
    if !handfast.exists() {
        let text = format!("{} is not there: build it with `cargo build --release -p handfast`", handfast.display());
        return Err(io::Error::other(text));
    }
    eprintln!("setting up {} pairs ...", arguments.pairs);
    let mut subjects = [Subject::handfast(&handfast, arguments.pairs)?, Subject::yardstick(arguments.pairs)?];
    let mut rows = Vec::new();
    for &train in &[arguments.train, 1] {
        for &size in &arguments.sizes {
            let plan =
                Plan { size, train, window: arguments.window, duration: Duration::from_secs_f64(arguments.seconds) };
            let mut best: [Option<Measured>; 2] = [None, None];
            // Interleaved, so that a slow minute of the machine hits both.
            for _ in 0..arguments.rounds.max(1) {
                for (subject, best) in subjects.iter_mut().zip(&mut best) {
                    let measured = load::run(subject, &plan)?;
                    subject.tend()?;
                    if best.as_ref().is_none_or(|best| measured.cpu_per_packet() < best.cpu_per_packet()) {
                        *best = Some(measured);
                    }
                }
            }
            if let [Some(handfast), Some(yardstick)] = best {
                rows.push(Row { train, size, handfast, yardstick });
            }
        }
    }
    if arguments.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        println!("{}", json!({ "schema": "handfast.relay_load/1", "pairs": arguments.pairs, "rows": rows }));
    } else {
        println!("{} pairs; the cheapest of {} rounds of {} s", arguments.pairs, arguments.rounds, arguments.seconds);
        println!(
            "{:<22} {:<10} {:>12} {:>9} {:>7} {:>9} {:>9} {:>12}",
            "shape", "who", "packets/s", "Mbit/s", "loss", "p50 us", "p99 us", "CPU s/Mpkt"
        );
        for row in &rows {
            row.print();
        }
    }
    // A relay that forwards nothing, or loses much at a closed loop's pace, is broken and not slow.
    let broken = rows.iter().any(|row| row.handfast.delivered == 0 || row.handfast.loss() > 0.1);
    if broken { Err(io::Error::other("the relay lost too much")) } else { Ok(()) }
}

struct Row {
    train: usize,
    size: usize,
    handfast: Measured,
    yardstick: Measured,
}

impl Row {
    fn shape(&self) -> String {
        if self.train > 1 {
            format!("trains of {} x {} B", self.train, self.size)
        } else {
            format!("single, {} B", self.size)
        }
    }

    fn ratio(&self) -> f64 {
        self.handfast.cpu_per_packet() / self.yardstick.cpu_per_packet()
    }

    fn print(&self) {
        for (who, m) in [("handfast", &self.handfast), ("yardstick", &self.yardstick)] {
            println!(
                "{:<22} {:<10} {:>12.0} {:>9.1} {:>6.2}% {:>9.0} {:>9.0} {:>12.3}",
                self.shape(),
                who,
                m.packets_per_second(),
                m.packets_per_second() * self.size as f64 * 8.0 / 1e6,
                m.loss() * 100.0,
                m.round_trip(0.5).as_secs_f64() * 1e6,
                m.round_trip(0.99).as_secs_f64() * 1e6,
                m.cpu_per_packet() * 1e6,
            );
        }
        println!("{:<22} {:<10} {:>12.2} x the CPU per packet", self.shape(), "ratio", self.ratio());
    }

    fn json(&self) -> Value {
        let one = |m: &Measured| {
            json!({
                "packets_per_s": m.packets_per_second(),
                "bits_per_s": m.packets_per_second() * self.size as f64 * 8.0,
                "loss": m.loss(),
                "rtt_p50_us": m.round_trip(0.5).as_secs_f64() * 1e6,
                "rtt_p99_us": m.round_trip(0.99).as_secs_f64() * 1e6,
                "cpu_s_per_million": m.cpu_per_packet() * 1e6,
            })
        };
        json!({
            "train": self.train,
            "size": self.size,
            "handfast": one(&self.handfast),
            "yardstick": one(&self.yardstick),
            "cpu_ratio": self.ratio(),
        })
    }
}
