//! `PROTOCOL.md` section 19 against the constants of `core`.
//!
//! Each row of its table has numbers in the second column and in the last one the constants that they come from, in
//! backticks and in the same order; a number with ` s` or ` ms` behind it is a time. Most of these constants are
//! private, and should be, so they are read from the source: `NAME` where there is one of that name, otherwise
//! `module::NAME`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use syn::visit::{self, Visit};

use crate::reader::{self, Sources};

#[test]
fn the_limits_that_the_protocol_states_are_those_of_the_code() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../PROTOCOL.md")).expect("readable text");
    let constants = Constants::read(&crate::repository("core"));
    let faults = faults(&rows(&text, "## 19 Limits"), &constants);
    assert!(faults.is_empty(), "PROTOCOL.md, section 19:\n{}", faults.join("\n"));
}

/// What a constant comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Number(u128),
    Time(Duration),
}

/// A row of the table: its first cell, its numbers and its constants.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    what: String,
    numbers: Vec<Value>,
    constants: Vec<String>,
}

/// The rows of the table below a heading.
fn rows(text: &str, heading: &str) -> Vec<Row> {
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "there is no heading: {heading}");
    let table: Vec<&str> =
        lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|')).collect();
    assert!(table.len() > 2, "there is no table below {heading}");
    let row = |line: &&str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, number, .., constants] = cells[..] else { panic!("too few cells: {line}") };
        let constants = constants.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Row { what: what.to_owned(), numbers: numbers(number), constants }
    };
    table[2..].iter().map(row).collect()
}

/// The numbers in a text, with a space before each three digits.
fn numbers(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut words = text.split([' ', '\u{a0}']).peekable();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    while let Some(word) = words.next() {
        let mut digits = word.trim_end_matches([',', ';']).to_owned();
        if !is_number(&digits) {
            continue;
        }
        let mut ended = word.len() > digits.len();
        while let Some(more) = words.peek().filter(|_| !ended) {
            let bare = more.trim_end_matches([',', ';']);
            if bare.len() != 3 || !is_number(bare) {
                break;
            }
            ended = more.len() > bare.len();
            digits.push_str(bare);
            words.next();
        }
        let number: u64 = digits.parse().expect("digits");
        let unit = words.peek().filter(|_| !ended).map_or("", |word| word.trim_end_matches([',', ';']));
        found.push(match unit {
            "s" => Value::Time(Duration::from_secs(number)),
            "ms" => Value::Time(Duration::from_millis(number)),
            _ => Value::Number(number.into()),
        });
    }
    found
}

/// What is wrong with the rows, one line each.
fn faults(rows: &[Row], constants: &Constants) -> Vec<String> {
    let mut faults = Vec::new();
    for Row { what, numbers, constants: named } in rows {
        if numbers.is_empty() || numbers.len() != named.len() {
            faults.push(format!("{what}: {} numbers and {} constants", numbers.len(), named.len()));
            continue;
        }
        for (number, name) in numbers.iter().zip(named) {
            match constants.value(name) {
                Ok(value) if value == *number => {}
                Ok(value) => faults.push(format!("{what}: {number:?} is stated, {name} is {value:?}")),
                Err(fault) => faults.push(format!("{what}: {fault}")),
            }
        }
    }
    faults
}

/// All constants of a crate, by module and name, such as `node::peer::PEERS_MAX`.
struct Constants(BTreeMap<String, syn::Expr>);

impl Constants {
    fn read(sources: &Sources) -> Self {
        let mut constants = Self(BTreeMap::new());
        for file in reader::files(sources).unwrap_or_else(|fault| panic!("{fault}")).into_keys() {
            let parsed = syn::parse_file(&sources[&file]).unwrap_or_else(|error| panic!("{file}: {error}"));
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            Finder { module, constants: &mut constants }.visit_file(&parsed);
        }
        constants
    }

    /// The one constant that is meant by a name, which may have modules before it.
    fn find(&self, name: &str) -> Result<&str, String> {
        let suffix = format!("::{name}");
        let mut found = self.0.keys().filter(|full| *full == name || full.ends_with(&suffix));
        match (found.next(), found.next()) {
            (None, _) => Err(format!("there is no constant {name}")),
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => Err(format!("{name} may be {one} or {other}")),
        }
    }

    fn value(&self, name: &str) -> Result<Value, String> {
        let full = self.find(name)?;
        self.evaluate(full, &self.0[full]).map_err(|fault| format!("{full}: {fault}"))
    }

    fn evaluate(&self, place: &str, expression: &syn::Expr) -> Result<Value, String> {
        match expression {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => {
                number.base10_parse().map(Value::Number).map_err(|error| error.to_string())
            }
            syn::Expr::Paren(inner) => self.evaluate(place, &inner.expr),
            syn::Expr::Cast(inner) => self.evaluate(place, &inner.expr),
            syn::Expr::Binary(binary) => {
                let (left, right) = (self.number(place, &binary.left)?, self.number(place, &binary.right)?);
                let result = match binary.op {
                    syn::BinOp::Add(_) => left.checked_add(right),
                    syn::BinOp::Sub(_) => left.checked_sub(right),
                    syn::BinOp::Mul(_) => left.checked_mul(right),
                    syn::BinOp::Div(_) => left.checked_div(right),
                    syn::BinOp::Shl(_) => u32::try_from(right).ok().and_then(|bits| left.checked_shl(bits)),
                    _ => None,
                };
                result.map(Value::Number).ok_or_else(|| "a calculation that is not understood".to_owned())
            }
            syn::Expr::Path(path) => {
                let name = words(&path.path);
                // What is beside it comes before what has the same name elsewhere.
                let module = place.rsplit_once("::").map_or("", |(module, _)| module);
                let beside = format!("{module}::{name}");
                self.value(if self.0.contains_key(&beside) { &beside } else { &name })
            }
            syn::Expr::Call(call) if call.args.len() == 1 => {
                let syn::Expr::Path(function) = &*call.func else { return Err("not understood".to_owned()) };
                let number = u64::try_from(self.number(place, &call.args[0])?).map_err(|error| error.to_string())?;
                match words(&function.path).as_str() {
                    "Duration::from_secs" => Ok(Value::Time(Duration::from_secs(number))),
                    "Duration::from_millis" => Ok(Value::Time(Duration::from_millis(number))),
                    "Duration::from_micros" => Ok(Value::Time(Duration::from_micros(number))),
                    other => Err(format!("a call of {other} is not understood")),
                }
            }
            _ => Err("an expression that is not understood".to_owned()),
        }
    }

    fn number(&self, place: &str, expression: &syn::Expr) -> Result<u128, String> {
        match self.evaluate(place, expression)? {
            Value::Number(number) => Ok(number),
            Value::Time(_) => Err("a time where a number is meant".to_owned()),
        }
    }
}

fn words(path: &syn::Path) -> String {
    let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    names.join("::")
}

/// Finds the constants of one file.
struct Finder<'a> {
    module: String,
    constants: &'a mut Constants,
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if !reader::is_test(&item.attrs) {
            self.constants.0.insert(format!("{}::{}", self.module, item.ident), (*item.expr).clone());
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !reader::is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    /// What a function has for itself is no limit.
    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

fn made_up() -> Constants {
    let files = [
        ("lib.rs", "mod a;\nmod room;"),
        (
            "a.rs",
            "use core::time::Duration;\nconst SHIFTED: usize = 1 << 16;\npub const LEN: u32 = 64 * 1024 + (HALF as u32);\n\
             const HALF: u8 = 1_0 / 2;\nconst AGE: Duration = Duration::from_secs(6 * 10);\nconst TWICE: u8 = 1;\n\
             const ODD: u8 = f(1);\n#[cfg(test)]\nmod tests { const SHIFTED: u8 = 2; }",
        ),
        (
            "room/mod.rs",
            "const TWICE: u8 = 2;\nconst OF_BOTH: u8 = TWICE + crate::a::HALF;\nfn f() { const LEN: u8 = 3; }",
        ),
    ];
    Constants::read(&files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

#[test]
fn constants_are_worked_out() {
    let constants = made_up();
    assert_eq!(constants.value("SHIFTED"), Ok(Value::Number(65_536)));
    assert_eq!(constants.value("LEN"), Ok(Value::Number(65_541)));
    assert_eq!(constants.value("AGE"), Ok(Value::Time(Duration::from_secs(60))));
    assert_eq!(constants.value("room::TWICE"), Ok(Value::Number(2)));
    assert_eq!(constants.value("ODD"), Err("a::ODD: a call of f is not understood".to_owned()));
    assert_eq!(constants.value("TWICE"), Err("TWICE may be a::TWICE or room::TWICE".to_owned()));
    assert_eq!(constants.value("WICE"), Err("there is no constant WICE".to_owned()));
}

#[test]
fn rows_are_read_and_compared() {
    let text = "## Limits\n\n| what | number | at it | constant |\n| --- | --- | --- | --- |\n\
                | right | 65 536, 60 s of age | dropped | `SHIFTED`, `AGE` |\n\
                | wrong | 65 535; above 2 not | dropped | `SHIFTED`, `room::TWICE` |\n\
                | another kind | 60 | dropped | `AGE` |\n\
                | gone | 60 | dropped | `NEVER` |\n\
                | unnamed | 7 | dropped | |\n\n## Next\n";
    let rows = rows(text, "## Limits");
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0].numbers, [Value::Number(65_536), Value::Time(Duration::from_secs(60))]);
    assert_eq!(
        faults(&rows, &made_up()),
        [
            "wrong: Number(65535) is stated, SHIFTED is Number(65536)",
            "another kind: Number(60) is stated, AGE is Time(60s)",
            "gone: there is no constant NEVER",
            "unnamed: 1 numbers and 0 constants",
        ]
    );
}

#[test]
fn numbers_are_found_in_words() {
    let number = |number| Value::Number(number);
    assert_eq!(numbers("1 250 000 of a stream, 8 000 000 of a link"), [number(1_250_000), number(8_000_000)]);
    assert_eq!(
        numbers("1 024, 300 ms, 12 in 10 s"),
        [number(1_024), Value::Time(Duration::from_millis(300)), number(12), Value::Time(Duration::from_secs(10)),]
    );
    assert_eq!(numbers("40 a second"), [number(40)]);
    assert_eq!(numbers("none"), []);
}
