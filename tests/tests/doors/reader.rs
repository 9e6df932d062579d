//! Which file of a crate imports from which: read from the source, as the compiler would resolve it.
//!
//! Handed a crate's files, it parses them, follows `mod` from `lib.rs`, and gives back [`Import`]s, one for each pair
//! of files of which one names something that the other *defines*. The rule, in full:
//!
//! - What counts is where an item stands. `use super::X` and `crate::room::X` are followed through every re-export
//!   (`pub use`, `pub(crate) use`, a parent's private `use`, globs) to the file with `struct X`, `fn X` or the like.
//!   So a `mod.rs` that only declares and re-exports is its folder's face: nobody imports *it*. One that defines
//!   something is a file like any other for whoever names that.
//! - A private `use` is an import, whether or not the name is used. A `pub use` is not: it shows what is there, and
//!   counts only when the file's own code says the name.
//! - A path in code counts as `use` does: `crate::a::X`, `super::X`, `a::X` where `a` is a module in scope, and names
//!   that a glob brought in. So do paths in the arguments of macros and in the bodies of `macro_rules!`.
//! - To name a module (`use crate::wire;`) is no import; to name something in it is.
//! - Only the first item on a path counts: `Node::new` is an import of the file with `Node`, whichever file has the
//!   `impl` with `new`. Methods that are called on values are not seen at all; a file without the type's name in it
//!   cannot have made much of it.
//! - What is under `#[cfg(test)]`, modules and their files, functions, fields, is not read. Nor are doc comments: a
//!   link is not an import.
//!
//! Paths into other crates resolve to nothing and are passed over. What the reader does not understand, such as a `mod`
//! without its file, is an error and never a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A crate's source: texts by path below `src`, with `/` between.
pub(crate) type Sources = BTreeMap<String, String>;

/// One file names something that another defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The file that names it.
    pub(crate) from: String,
    /// The file that defines it.
    pub(crate) to: String,
    /// The first line in `from` that does so.
    pub(crate) line: usize,
    /// The line in `to` that defines it.
    pub(crate) at: usize,
    /// The path as resolved from there, such as `crate::node::SocketId`.
    pub(crate) path: String,
}

/// All `.rs` files below `root`.
pub(crate) fn sources(root: &Path) -> Sources {
    let mut found = Sources::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).expect("readable text"));
            }
        }
    }
    found
}

/// Which file imports from which, in order of their names; or what could not be read.
pub(crate) fn imports(sources: &Sources) -> Result<Vec<Import>, String> {
    let program = Program::read(sources)?;
    let mut found: BTreeMap<(&str, &str), Import> = BTreeMap::new();
    for mention in &program.mentions {
        let from = program.modules[mention.module].file.as_str();
        for target in program.resolve(mention.module, &mention.path, &mut Vec::new()) {
            let Target::Item(definer, at) = target else { continue };
            let to = program.modules[definer].file.as_str();
            if from == to {
                continue;
            }
            let import = Import {
                from: from.to_owned(),
                to: to.to_owned(),
                line: mention.line,
                at,
                path: mention.path.join("::"),
            };
            found
                .entry((from, to))
                .and_modify(|known| {
                    if import.line < known.line {
                        *known = import.clone();
                    }
                })
                .or_insert(import);
        }
    }
    Ok(found.into_values().collect())
}

/// The files that are not for tests only, each with whether it defines anything: if not, it is the face of its folder.
pub(crate) fn files(sources: &Sources) -> Result<BTreeMap<String, bool>, String> {
    let mut files = BTreeMap::new();
    for module in Program::read(sources)?.modules {
        *files.entry(module.file).or_default() |= module.defines;
    }
    Ok(files)
}

/// A module: a file, or a `mod … {}` in one.
struct Module {
    file: String,
    /// Folder that the files of its children are in, with a `/` at the end, or empty.
    folder: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names that are defined here, with the line.
    items: BTreeMap<String, usize>,
    /// Whether anything stands here beside `mod` and `use`: an `impl` has no name.
    defines: bool,
    uses: Vec<Use>,
}

/// One name that a `use` brings into scope. Without a name: all of them, by `*`.
struct Use {
    name: Option<String>,
    path: Vec<String>,
}

/// A path that somewhere is said.
struct Mention {
    module: usize,
    line: usize,
    path: Vec<String>,
}

/// What a path can lead to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// Something that this module defines, at this line of its file.
    Item(usize, usize),
    Module(usize),
}

struct Program {
    modules: Vec<Module>,
    mentions: Vec<Mention>,
}

impl Program {
    fn read(sources: &Sources) -> Result<Self, String> {
        let root = Module::new("lib.rs".to_owned(), String::new(), None);
        let mut program = Self { modules: vec![root], mentions: Vec::new() };
        let mut unread = vec![0];
        while let Some(module) = unread.pop() {
            let name = program.modules[module].file.clone();
            let text = sources.get(&name).ok_or_else(|| format!("there is no {name}"))?;
            let file = syn::parse_file(text).map_err(|error| format!("{name}: {error}"))?;
            let mut reader = FileReader {
                program: &mut program,
                sources,
                module,
                depth: 0,
                declared: Vec::new(),
                faults: Vec::new(),
            };
            reader.visit_file(&file);
            if let Some(fault) = reader.faults.pop() {
                return Err(format!("{name}: {fault}"));
            }
            unread.append(&mut reader.declared);
        }
        Ok(program)
    }

    /// What `path`, said in module `at`, leads to. `followed` are the `use`s being followed: none is entered twice.
    fn resolve(&self, at: usize, path: &[String], followed: &mut Vec<(usize, usize)>) -> BTreeSet<Target> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        let starts = match first.as_str() {
            "crate" => BTreeSet::from([Target::Module(0)]),
            "self" => BTreeSet::from([Target::Module(at)]),
            "super" => self.modules[at].parent.map(Target::Module).into_iter().collect(),
            name => self.lookup(at, name, followed),
        };
        starts.into_iter().flat_map(|start| self.walk(start, rest, followed)).collect()
    }

    fn walk(&self, start: Target, rest: &[String], followed: &mut Vec<(usize, usize)>) -> BTreeSet<Target> {
        match (start, rest.split_first()) {
            // Variants, associated functions and the like stand with their item.
            (Target::Item(..), _) | (_, None) => BTreeSet::from([start]),
            (Target::Module(module), Some((first, rest))) => {
                let starts = match first.as_str() {
                    "super" => self.modules[module].parent.map(Target::Module).into_iter().collect(),
                    name => self.lookup(module, name, followed),
                };
                starts.into_iter().flat_map(|start| self.walk(start, rest, followed)).collect()
            }
        }
    }

    /// What `name` is in module `at`: a module and a function can share one, so there may be several.
    fn lookup(&self, at: usize, name: &str, followed: &mut Vec<(usize, usize)>) -> BTreeSet<Target> {
        let module = &self.modules[at];
        let mut found: BTreeSet<Target> = module.children.get(name).copied().map(Target::Module).into_iter().collect();
        found.extend(module.items.get(name).map(|line| Target::Item(at, *line)));
        found.extend(self.follow(at, followed, |import| (import.name.as_deref() == Some(name)).then(Vec::new)));
        if found.is_empty() {
            found = self.follow(at, followed, |import| import.name.is_none().then(|| vec![name.to_owned()]));
        }
        found
    }

    /// What the `use`s of module `at` lead to for which `rest` says with what the path goes on.
    fn follow(
        &self,
        at: usize,
        followed: &mut Vec<(usize, usize)>,
        rest: impl Fn(&Use) -> Option<Vec<String>>,
    ) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        for (index, import) in self.modules[at].uses.iter().enumerate() {
            let Some(rest) = rest(import) else { continue };
            if followed.contains(&(at, index)) {
                continue;
            }
            followed.push((at, index));
            for target in self.resolve(at, &import.path, followed) {
                match target {
                    Target::Module(_) => found.extend(self.walk(target, &rest, followed)),
                    // The variants of an enum, by a glob: their names are not known here.
                    Target::Item(..) if !rest.is_empty() => {}
                    Target::Item(..) => {
                        found.insert(target);
                    }
                }
            }
            followed.pop();
        }
        found
    }
}

impl Module {
    fn new(file: String, folder: String, parent: Option<usize>) -> Self {
        let (children, items, uses) = Default::default();
        Self { file, folder, parent, children, items, defines: false, uses }
    }
}

/// Reads one file into the program.
struct FileReader<'a> {
    program: &'a mut Program,
    sources: &'a Sources,
    /// The module being read: the file's, or one that is written out in it.
    module: usize,
    /// How many function bodies deep: what is defined in one cannot be named from outside.
    depth: usize,
    /// Modules whose files are still to be read.
    declared: Vec<usize>,
    faults: Vec<String>,
}

impl FileReader<'_> {
    fn define(&mut self, name: &syn::Ident) {
        if self.depth == 0 {
            self.program.modules[self.module].items.entry(plain(name)).or_insert(name.span().start().line);
        }
    }

    fn mention(&mut self, line: usize, path: Vec<String>) {
        self.program.mentions.push(Mention { module: self.module, line, path });
    }

    /// Takes in every name of a `use`, each with its own line.
    fn bring(&mut self, tree: &syn::UseTree, before: &[String], is_private: bool) {
        let mut path = before.to_vec();
        let (name, span) = match tree {
            syn::UseTree::Path(part) => {
                path.push(plain(&part.ident));
                return self.bring(&part.tree, &path, is_private);
            }
            syn::UseTree::Group(group) => {
                for part in &group.items {
                    self.bring(part, before, is_private);
                }
                return;
            }
            syn::UseTree::Name(name) if name.ident == "self" => (path.last().cloned(), name.ident.span()),
            syn::UseTree::Name(name) => {
                path.push(plain(&name.ident));
                (path.last().cloned(), name.ident.span())
            }
            syn::UseTree::Rename(name) => {
                if name.ident != "self" {
                    path.push(plain(&name.ident));
                }
                (Some(plain(&name.rename)), name.rename.span())
            }
            // What it is for shows where the names are said.
            syn::UseTree::Glob(_) => {
                self.program.modules[self.module].uses.push(Use { name: None, path });
                return;
            }
        };
        if is_private {
            self.mention(span.start().line, path.clone());
        }
        self.program.modules[self.module].uses.push(Use { name, path });
    }

    /// Finds paths in what only a macro understands.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        let mut after_dot = false;
        for token in tokens {
            let is_member = std::mem::replace(&mut after_dot, false);
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                // A field or method of a value.
                TokenTree::Ident(_) if is_member => {}
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.said(line, &mut path);
                        line = ident.span().start().line;
                    }
                    path.push(plain(&ident));
                    colons = 0;
                }
                other => {
                    self.said(line, &mut path);
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.scan(group.stream()),
                        TokenTree::Punct(punct) => after_dot = punct.as_char() == '.',
                        _ => {}
                    }
                }
            }
        }
        self.said(line, &mut path);
    }

    fn said(&mut self, line: usize, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.mention(line, std::mem::take(path));
        }
    }

    fn declare(&mut self, item: &syn::ItemMod) {
        let name = plain(&item.ident);
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            self.faults.push(format!("`#[path]` of mod {name} is not understood"));
        }
        let parent = &self.program.modules[self.module];
        let folder = format!("{}{name}/", parent.folder);
        let files = [format!("{}{name}.rs", parent.folder), format!("{folder}mod.rs")];
        let file = match (&item.content, files.into_iter().find(|file| self.sources.contains_key(file))) {
            (Some(_), _) => parent.file.clone(),
            (None, Some(file)) => file,
            (None, None) => {
                self.faults.push(format!("mod {name} has no file"));
                return;
            }
        };
        let index = self.program.modules.len();
        self.program.modules.push(Module::new(file, folder, Some(self.module)));
        self.program.modules[self.module].children.insert(name, index);
        if let Some((_, items)) = &item.content {
            let outer = std::mem::replace(&mut self.module, index);
            for item in items {
                self.visit_item(item);
            }
            self.module = outer;
        } else {
            self.declared.push(index);
        }
    }
}

impl<'ast> Visit<'ast> for FileReader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name): (&[syn::Attribute], _) = match item {
            syn::Item::Const(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            syn::Item::Impl(item) => (&item.attrs, None),
            syn::Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            syn::Item::Mod(item) => (&item.attrs, None),
            syn::Item::Static(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Type(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Union(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Use(item) => (&item.attrs, None),
            _ => {
                self.faults.push("an item of a kind that is not understood".to_owned());
                return;
            }
        };
        if is_test(attributes) {
            return;
        }
        if let Some(name) = name {
            self.define(name);
        }
        match item {
            syn::Item::Mod(item) => self.declare(item),
            syn::Item::Use(item) if item.leading_colon.is_some() => {}
            syn::Item::Use(item) => {
                let is_private = matches!(item.vis, syn::Visibility::Inherited);
                self.bring(&item.tree, &[], is_private);
            }
            other => {
                self.program.modules[self.module].defines = true;
                visit::visit_item(self, other);
            }
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.depth += 1;
        visit::visit_block(self, block);
        self.depth -= 1;
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[syn::Attribute] = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_test(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_test(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let attributes: &[syn::Attribute] = match statement {
            syn::Stmt::Local(local) => &local.attrs,
            syn::Stmt::Macro(mac) => &mac.attrs,
            syn::Stmt::Expr(syn::Expr::Block(block), _) => &block.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
            self.mention(path.segments[0].ident.span().start().line, names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.visit_path(&mac.path);
        self.scan(mac.tokens.clone());
    }

    /// `pub(super)` names no item.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    /// Nor do attributes, but for `with = "crate::…"` and its like: a path in quotes.
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        for token in list.tokens.clone() {
            let TokenTree::Literal(literal) = token else { continue };
            let line = literal.span().start().line;
            let text = literal.to_string();
            if let Ok(path) = syn::parse_str::<syn::Path>(text.trim_matches('"')) {
                // One word alone is a word.
                if path.segments.len() > 1 {
                    self.mention(line, path.segments.iter().map(|segment| plain(&segment.ident)).collect());
                }
            }
        }
    }
}

/// An identifier's name, without the `r#` that a keyword needs.
fn plain(ident: &syn::Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}

/// Whether this is compiled for tests only: `cfg(test)`, or `cfg(all(…))` with it.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let text: String = list.tokens.to_string().split_whitespace().collect();
        text == "test"
            || text
                .strip_prefix("all(")
                .and_then(|rest| rest.strip_suffix(')'))
                .is_some_and(|rest| rest.split(',').any(|part| part == "test"))
    })
}
