//! The files of a directory become one tree.

use super::{
    super::problem::{Path, Problem, Span},
    tree::{Entry, Map, Node, Value},
};

/// Sections that are maps by name: each file may add to them. Any other stands in one file only.
pub const NAMED: [&str; 3] = ["listeners", "upstreams", "routes"];

/// Puts the sections of all files together.
pub fn merge(roots: Vec<Node>) -> (Node, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut sections: Vec<Entry> = Vec::new();
    for root in roots {
        match root.value {
            Value::Map(map) => map.into_entries().into_iter().for_each(|section| add(&mut sections, section, &mut problems)),
            Value::Lost => {}
            _ => problems.push(
                Problem::error(Path::root(), "expected a map of sections such as `listeners:` and `routes:`").at(root.span),
            ),
        }
    }
    for section in sections.iter_mut().filter(|section| NAMED.contains(&section.key.name.as_str())) {
        unite(section, &mut problems);
    }
    let (map, _) = Map::new(sections);
    (Node { span: Span::default(), value: Value::Map(map) }, problems)
}

fn add(sections: &mut Vec<Entry>, section: Entry, problems: &mut Vec<Problem>) {
    let Some(first) = sections.iter_mut().find(|first| first.key.name == section.key.name) else {
        sections.push(section);
        return;
    };
    let path = Path::root().key(&section.key.name);
    match (&mut first.value.value, section.value.value) {
        (Value::Map(names), Value::Map(more)) if NAMED.contains(&section.key.name.as_str()) => names.append(more),
        (Value::Lost, value) => *first = Entry { key: section.key, value: Node { span: section.value.span, value } },
        (_, Value::Lost) => {}
        (_, _) if NAMED.contains(&section.key.name.as_str()) => {
            problems.push(Problem::error(path, "expected a map by name").at(section.key.span));
        }
        _ => problems.push(
            Problem::error(path.clone(), format!("the section `{}` stands in two files", section.key.name))
                .at(section.key.span)
                .help("only `listeners`, `upstreams` and `routes` may be spread over files")
                .also(path, "first here"),
        ),
    }
}

/// Sorts the names of a section that several files filled.
fn unite(section: &mut Entry, problems: &mut Vec<Problem>) {
    let Value::Map(names) = &mut section.value.value else { return };
    let (map, refused) = Map::new(std::mem::take(names).into_entries());
    *names = map;
    for Entry { key, .. } in refused {
        let path = Path::root().key(&section.key.name).key(&key.name);
        let message = format!("`{}` is defined twice in `{}`", key.name, section.key.name);
        problems.push(Problem::error(path.clone(), message).at(key.span).also(path, "first here"));
    }
}
