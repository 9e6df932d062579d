//! What is run, as a command line says it.

use core::fmt::Write;
use core::time::Duration;
use std::path::PathBuf;

use handfast_core::Config;

use super::chance::Life;

/// What routers forget after, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bindings {
    /// The same everywhere.
    All(u64),
    /// As in `docs/keepalive.md`: a beat every 51 s in the mean.
    Mix,
}

/// What is run.
#[derive(Clone, PartialEq, Debug)]
pub struct Args {
    /// How many supernodes.
    pub supernodes: usize,
    /// How many leaves, online at a time.
    pub leaves: usize,
    /// How many hours are measured.
    pub hours: f64,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Which of the scenarios; all of them if empty.
    pub scenario: Option<String>,
    /// How many supernodes of a hundred lie, where a scenario has liars.
    pub liars: f64,
    /// Supernodes in one /24.
    pub per_prefix: usize,
    /// Most supernodes that one knows.
    pub table_max: usize,
    /// What routers forget after.
    pub bindings: Bindings,
    /// How long a leaf stays.
    pub session: Duration,
    /// How often a leaf calls another one in a day.
    pub calls_a_day: f64,
    /// How long a supernode lives.
    pub life: Life,
    /// All leaves of the first start come within so long.
    pub ramp: Option<Duration>,
    /// For how many nodes the costs are extrapolated.
    pub extrapolate: Vec<f64>,
    /// Where the report is written as JSON.
    pub json: Option<PathBuf>,
    /// The folder for plots.
    pub plots: Option<PathBuf>,
    /// Whether progress is told.
    pub progress: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            supernodes: 10,
            leaves: 1_000,
            hours: 1.0,
            seed: 1,
            scenario: None,
            liars: 5.0,
            per_prefix: 1,
            table_max: Config::leaf().table_max,
            bindings: Bindings::All(120),
            session: Duration::from_secs(3 * 3600),
            calls_a_day: 20.0,
            life: Life { median: Duration::from_secs(2 * 3600), inverse_shape: 1 },
            ramp: None,
            extrapolate: Vec::new(),
            json: None,
            plots: None,
            progress: false,
        }
    }
}

/// What the command line may say.
pub const USAGE: &str = "\
scale: the network at a size, on real nodes in virtual time

  --supernodes S        how many supernodes (10)
  --leaves L            how many leaves are online at a time (1000)
  --hours H             how many virtual hours are measured (1)
  --seed N              of everything that is drawn (1)
  --scenario NAME       one of the scenarios, or `all` (all but idle-million)
  --liars PERCENT       supernodes that lie, in the scenario with liars (5)
  --per-prefix N        supernodes in one /24 (1)
  --table-max N         most supernodes that one knows (1024)
  --bindings SECONDS|mix  what routers forget after (120); mix: as in docs/keepalive.md, a beat every 51 s
  --session-hours H     mean session of a leaf (3); 0: for ever
  --calls-a-day N       calls of a leaf (20)
  --life-hours H        median life of a supernode (2); 0: for ever
  --life-spread N       1: without memory; 2, 3: Weibull of shape 1/N (1)
  --ramp SECONDS        all leaves of the beginning start within so long
  --extrapolate N,N     what a central server, and supernodes, carry for so many nodes, from measured costs
  --json FILE           the report as JSON
  --plots DIR           load over supernodes and over time, as SVG
";

impl Args {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { progress: true, ..Self::default() };
        let mut words = words.into_iter();
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
            args.set(&name, &value).ok_or_else(|| format!("not understood: {name} {value}"))?;
        }
        if args.supernodes == 0 || args.per_prefix == 0 || args.per_prefix > 250 {
            return Err("there has to be a supernode, and 1 to 250 in a /24".to_owned());
        }
        Ok(args)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let hours = || value.parse::<f64>().ok().filter(|h| (0.0..=1e5).contains(h));
        let duration = || hours().map(|h| Duration::from_secs_f64(h * 3600.0));
        match name {
            "--supernodes" => self.supernodes = value.parse().ok()?,
            "--leaves" => self.leaves = value.parse().ok()?,
            "--hours" => self.hours = hours()?,
            "--seed" => self.seed = value.parse().ok()?,
            "--scenario" => self.scenario = (value != "all").then(|| value.to_owned()),
            "--liars" => self.liars = value.parse().ok().filter(|p| (0.0..=100.0).contains(p))?,
            "--per-prefix" => self.per_prefix = value.parse().ok()?,
            "--table-max" => self.table_max = value.parse().ok().filter(|n| *n >= 64)?,
            "--bindings" if value == "mix" => self.bindings = Bindings::Mix,
            "--bindings" => self.bindings = Bindings::All(value.parse().ok()?),
            "--session-hours" => self.session = duration()?,
            "--calls-a-day" => self.calls_a_day = value.parse().ok().filter(|n| (0.0..=1e6).contains(n))?,
            "--life-hours" => self.life.median = duration()?,
            "--life-spread" => self.life.inverse_shape = value.parse().ok().filter(|n| (1..=4).contains(n))?,
            "--ramp" => self.ramp = Some(Duration::from_secs(value.parse().ok()?)),
            "--extrapolate" => self.extrapolate = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?,
            "--json" => self.json = Some(value.into()),
            "--plots" => self.plots = Some(value.into()),
            _ => return None,
        }
        Some(())
    }

    /// How long is measured.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.hours * 3600.0)
    }

    /// This long where an hour is measured, and shorter where less is.
    pub(crate) fn scaled(&self, at_an_hour: Duration) -> Duration {
        at_an_hour.mul_f64(self.hours.min(1.0)).max(Duration::from_secs(60).min(at_an_hour))
    }

    /// Within how long the leaves of the beginning start: so that each supernode takes ten registrations a second.
    pub(crate) fn ramp(&self) -> Duration {
        let gentle = Duration::from_secs_f64(self.leaves as f64 / 5.0 / self.supernodes as f64);
        self.ramp.unwrap_or(gentle.max(Duration::from_secs(60)))
    }

    /// What decides the report, in one line: it is the command that makes it again.
    pub fn line(&self) -> String {
        let mut out = format!(
            "scale --supernodes {} --leaves {} --hours {} --seed {}",
            self.supernodes, self.leaves, self.hours, self.seed
        );
        let standard = Self::default();
        let mut add = |name: &str, value: String| {
            let _ = write!(out, " --{name} {value}");
        };
        if let Some(name) = &self.scenario {
            add("scenario", name.clone());
        }
        if (self.liars - standard.liars).abs() > f64::EPSILON {
            add("liars", self.liars.to_string());
        }
        if self.per_prefix != standard.per_prefix {
            add("per-prefix", self.per_prefix.to_string());
        }
        if self.table_max != standard.table_max {
            add("table-max", self.table_max.to_string());
        }
        match self.bindings {
            Bindings::All(120) => {}
            Bindings::All(secs) => add("bindings", secs.to_string()),
            Bindings::Mix => add("bindings", "mix".to_owned()),
        }
        if self.session != standard.session {
            add("session-hours", (self.session.as_secs_f64() / 3600.0).to_string());
        }
        if (self.calls_a_day - standard.calls_a_day).abs() > f64::EPSILON {
            add("calls-a-day", self.calls_a_day.to_string());
        }
        if self.life.median != standard.life.median {
            add("life-hours", (self.life.median.as_secs_f64() / 3600.0).to_string());
        }
        if self.life.inverse_shape != standard.life.inverse_shape {
            add("life-spread", self.life.inverse_shape.to_string());
        }
        if let Some(ramp) = self.ramp {
            add("ramp", ramp.as_secs().to_string());
        }
        if !self.extrapolate.is_empty() {
            add("extrapolate", self.extrapolate.iter().map(|n| format!("{n:e}")).collect::<Vec<_>>().join(","));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().skip(1).map(str::to_owned))
    }

    #[test]
    fn the_line_in_a_report_is_the_command_that_makes_it() {
        for line in [
            "scale --supernodes 60 --leaves 20000 --hours 1 --seed 7",
            "scale --supernodes 6 --leaves 60 --hours 0.25 --seed 7 --scenario churn --liars 10 --per-prefix 2 \
             --table-max 64 --bindings mix --session-hours 0.5 --calls-a-day 100 --life-hours 1 --life-spread 2 --ramp 10 \
             --extrapolate 1e8,1e9",
        ] {
            assert_eq!(parse(line).expect("understood").line(), line);
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for line in ["scale --supernodes", "scale --leaves many", "scale --supernodes 0", "scale --sybils 3"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
