//! Holds the floors table of `docs/architecture.md`: modules import only downward.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where a module stands: its floor, and within the floor its place in a chain `a ← b`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    floor: u32,
    link: usize,
}

/// The table: modules that are there, and modules (in parentheses) that are to come.
#[derive(Default)]
struct Table {
    there: BTreeMap<String, Place>,
    planned: BTreeSet<String>,
}

#[test]
fn modules_import_only_downward() {
    let table = table();
    let mut wrong = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let module = module_of(&file);
        for imported in imports(&text, depth_of(&file)) {
            if !may_import(&table, &module, &imported) {
                wrong.push(format!("{} ({module}) imports {imported}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the floors of docs/architecture.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_the_modules_that_are_there() {
    let table = table();
    let there: BTreeSet<String> = sources().iter().map(|file| module_of(file)).filter(|module| module != "lib").collect();
    let told: BTreeSet<String> = table.there.keys().cloned().collect();
    assert_eq!(there, told, "modules in src/ (left) and in the table (right)");
    assert!(table.planned.is_disjoint(&there), "these are there, not planned: {:?}", table.planned);
}

fn may_import(table: &Table, from: &str, to: &str) -> bool {
    match (table.there.get(from), table.there.get(to)) {
        _ if from == to => true,
        (Some(from), Some(to)) => to.floor < from.floor || (to.floor == from.floor && to.link < from.link),
        _ => false,
    }
}

fn table() -> Table {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut table = Table::default();
    let rows = page.lines().skip_while(|line| !line.starts_with("| floor |")).skip(2).take_while(|line| line.starts_with('|'));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        read_row(&mut table, cells[0].parse().unwrap(), cells[1]);
    }
    assert!(!table.there.is_empty(), "docs/architecture.md has no floors table");
    table
}

/// `units ← name ← config`: each link may import those left of it. `a, b`: neither the other. `(c)`: planned.
fn read_row(table: &mut Table, floor: u32, modules: &str) {
    for (link, group) in modules.split('←').enumerate() {
        for module in group.split(',').map(str::trim) {
            match module.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
                Some(planned) => table.planned.insert(planned.to_owned()),
                None => table.there.insert(module.to_owned(), Place { floor, link }).is_none(),
            };
        }
    }
}

/// The modules that a source file imports by `crate::…` or `banyan::…`, or by enough `super::` to leave its own module.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let up = "super::".repeat(depth);
    let out: Vec<&str> = code.split('\n').filter_map(|line| line.strip_prefix("use ")?.strip_prefix(&up)).collect();
    ["crate::", "banyan::"].iter().flat_map(|root| after(&code, root)).chain(out).flat_map(first_names).collect()
}

/// What follows each `root` that is not the end of a longer word.
fn after<'a>(code: &'a str, root: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(root).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        whole.then(|| &code[at + root.len()..])
    })
}

/// The first names of a path, or of each path in braces.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.trim_start().strip_prefix('{') else {
        return vec![word(path)];
    };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `src/route/host.rs` → `route`, `src/units.rs` → `units`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// How many `super::` lead from a file to the crate's root.
fn depth_of(file: &Path) -> usize {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    inside.components().count() - usize::from(file.ends_with("mod.rs"))
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("rs") => files.push(path),
                _ => {}
            }
        }
    }
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn check(text: &str, depth: usize, expected: &[&str]) {
    assert_eq!(imports(text, depth), expected.iter().map(|name| (*name).to_owned()).collect(), "{text}");
}

#[test]
fn every_way_to_import_is_seen() {
    check("use crate::route::Router;", 1, &["route"]);
    check("use crate::{config::{Config, Route}, name::RouteName,\n    units};", 1, &["config", "name", "units"]);
    check("fn f() -> crate::exchange::Stop { $crate::reply::x() }", 1, &["exchange", "reply"]);
    check("pub(crate) fn f() {} // use crate::live", 1, &[]);
    check("/// See [`crate::server`].\nstruct A;", 1, &[]);
    check("use super::live;", 1, &["live"]);
    check("use super::sibling;", 2, &[]);
    check("use super::super::{live, proxy::Ctx};", 2, &["live", "proxy"]);
    check("use banyan::cli;", 1, &["cli"]);
    check("mod mycrate { pub use othercrate::x; }", 1, &[]);
}

#[test]
fn floors_and_links_decide() {
    let mut table = Table::default();
    read_row(&mut table, 1, "upstream, reply, (stores)");
    read_row(&mut table, 0, "units ← name ← config");
    for (from, to, expected) in [
        ("upstream", "config", true),
        ("config", "upstream", false),
        ("upstream", "reply", false),
        ("config", "units", true),
        ("units", "config", false),
        ("reply", "reply", true),
        ("reply", "stores", false),
        ("reply", "unheard", false),
    ] {
        assert_eq!(may_import(&table, from, to), expected, "{from} → {to}");
    }
    assert!(table.planned.contains("stores"));
}
