//! What can be known of an expression before there is a request: its names, its types, its cost.

use std::collections::BTreeSet;

use cel::{
    IdedExpr, Program,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators as op},
};

use super::{ELEMENTS_MAX, Fault};

/// Most steps that an expression may take, were every list as long as it may be. A step takes some 50 ns.
const STEPS_MAX: u64 = 100_000;

/// Deepest nesting, so that it is evaluated on any stack.
const DEPTH_MAX: usize = 64;

/// What an expression names: no more is built for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    pub method: bool,
    pub path: bool,
    pub host: bool,
    pub client_ip: bool,
    pub query: Keys,
    pub headers: Keys,
    pub consumer: bool,
    pub groups: bool,
    pub claims: Keys,
}

/// The keys of a map that an expression names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    These(BTreeSet<String>),
    /// It looks through the map, or computes a key.
    All,
}

impl Default for Keys {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(keys) if keys.is_empty())
    }

    fn add(&mut self, key: Option<&str>) {
        match (self, key) {
            (Self::These(keys), Some(key)) => drop(keys.insert(key.to_owned())),
            (keys, None) => *keys = Self::All,
            (Self::All, Some(_)) => {}
        }
    }
}

/// A type, as far as it is known. `Any`: it shows only with the request, as of a claim.
#[derive(Clone, PartialEq, Debug)]
enum Type {
    Any,
    Bool,
    Number,
    Text,
    Bytes,
    Null,
    List(Box<Type>),
    Map(Box<Type>),
}

impl Type {
    const fn name(&self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Bool => "a truth value",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// Whether a value of this type can be one of the other.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) => a.fits(b),
            _ => self == other,
        }
    }
}

/// What is known of a part of an expression.
struct Known {
    is: Type,
    /// Most elements, if it is a list or map.
    size: u64,
    /// Most steps.
    steps: u64,
}

/// Of a value whose size says nothing.
const fn plain(is: Type, steps: u64) -> Known {
    Known { is, size: ELEMENTS_MAX as u64, steps }
}

/// # Errors
/// The first fault, in the order of evaluation.
pub fn check(text: &str, program: &Program) -> Result<Names, Fault> {
    let mut checker = Checker { text, program, names: Names::default(), scope: Vec::new(), depth: 0 };
    let root = program.expression();
    let known = checker.known(root)?;
    if !known.is.fits(&Type::Bool) {
        return Err(checker.fault(root, format!("an expression is true or false, this is {}", known.is.name())));
    }
    if known.steps > STEPS_MAX {
        let what = format!("this could take {} steps, {STEPS_MAX} are allowed: loops within loops", known.steps);
        return Err(checker.fault(root, what));
    }
    Ok(checker.names)
}

struct Checker<'a> {
    text: &'a str,
    program: &'a Program,
    names: Names,
    /// Variables of the loops around, innermost last.
    scope: Vec<(String, Type, u64)>,
    depth: usize,
}

impl Checker<'_> {
    fn fault(&self, node: &IdedExpr, what: String) -> Fault {
        let start = self.program.source_info().offset_for(node.id).map_or(0, |(start, _)| start as usize);
        Fault { at: start.min(self.text.len()) + 1, what }
    }

    fn known(&mut self, node: &IdedExpr) -> Result<Known, Fault> {
        if self.depth > DEPTH_MAX {
            return Err(self.fault(node, "this is nested too deep".to_owned()));
        }
        self.depth += 1;
        let known = self.part_known(node);
        self.depth -= 1;
        known
    }

    fn part_known(&mut self, node: &IdedExpr) -> Result<Known, Fault> {
        match &node.expr {
            Expr::Literal(literal) => Ok(plain(of_literal(literal), 1)),
            Expr::Ident(name) => self.variable(node, name),
            Expr::Select(select) => self.select(node, select),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(each) => self.each(node, each),
            Expr::List(list) => self.list(&list.elements),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(_) | Expr::Unspecified => Err(self.fault(node, "there are no messages here".to_owned())),
        }
    }

    fn variable(&mut self, node: &IdedExpr, name: &str) -> Result<Known, Fault> {
        if let Some((_, is, size)) = self.scope.iter().rev().find(|(known, ..)| known == name) {
            return Ok(Known { is: is.clone(), size: *size, steps: 1 });
        }
        match name {
            "claims" => {
                self.names.claims.add(None);
                Ok(plain(Type::Map(Box::new(Type::Any)), 1))
            }
            "request" | "consumer" => Err(self.fault(node, format!("`{name}` has no value of its own, name a part of it"))),
            _ => Err(self.fault(node, format!("unknown variable `{name}`, there are `request`, `consumer` and `claims`"))),
        }
    }

    /// Whether a node is this variable, and no loop has one of that name.
    fn is_root(&self, node: &IdedExpr, name: &str) -> bool {
        matches!(&node.expr, Expr::Ident(found) if found == name) && !self.scope.iter().any(|(known, ..)| known == name)
    }

    fn select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Result<Known, Fault> {
        for root in ["request", "consumer"] {
            if self.is_root(&select.operand, root) {
                return match select.test {
                    true => Err(self.fault(node, format!("`{root}.{}` is always there", select.field))),
                    false => self.part(node, root, &select.field),
                };
            }
        }
        let known = self.entry(node, &select.operand, Some(&select.field))?;
        Ok(if select.test { plain(Type::Bool, known.steps) } else { known })
    }

    /// `request.…` and `consumer.…`.
    fn part(&mut self, node: &IdedExpr, root: &str, field: &str) -> Result<Known, Fault> {
        let names = &mut self.names;
        let text = || Ok(plain(Type::Text, 1));
        let flag = match (root, field) {
            ("request", "method") => &mut names.method,
            ("request", "path") => &mut names.path,
            ("request", "host") => &mut names.host,
            ("request", "client_ip") => &mut names.client_ip,
            ("consumer", "name") => &mut names.consumer,
            ("consumer", "groups") => {
                names.groups = true;
                return Ok(plain(Type::List(Box::new(Type::Text)), 1));
            }
            ("request", "query" | "headers") => {
                let keys = if field == "query" { &mut names.query } else { &mut names.headers };
                keys.add(None);
                return Ok(plain(Type::Map(Box::new(Type::Text)), 1));
            }
            _ => {
                let parts = match root {
                    "request" => "`method`, `path`, `host`, `query`, `headers` and `client_ip`",
                    _ => "`name` and `groups`",
                };
                return Err(self.fault(node, format!("`{root}` has no `{field}`, it has {parts}")));
            }
        };
        *flag = true;
        text()
    }

    /// One entry of a map or element of a list. `key` is there if it is written in the expression.
    fn entry(&mut self, node: &IdedExpr, of: &IdedExpr, key: Option<&str>) -> Result<Known, Fault> {
        if let Some(known) = key.and_then(|key| self.named_entry(node, of, key)) {
            return known;
        }
        let whole = self.known(of)?;
        match whole.is {
            Type::Map(value) => Ok(plain(*value, whole.steps + 1)),
            Type::List(element) if key.is_none() => Ok(plain(*element, whole.steps + 1)),
            Type::Any => Ok(plain(Type::Any, whole.steps + 1)),
            other => Err(self.fault(node, format!("{} has no parts with names", other.name()))),
        }
    }

    /// An entry, by a written key, of one of the maps that we are given: then no other is built.
    fn named_entry(&mut self, node: &IdedExpr, of: &IdedExpr, key: &str) -> Option<Result<Known, Fault>> {
        if self.is_root(of, "claims") {
            self.names.claims.add(Some(key));
            return Some(Ok(plain(Type::Any, 2)));
        }
        match &of.expr {
            Expr::Select(SelectExpr { operand, field, test: false })
                if self.is_root(operand, "request") && matches!(field.as_str(), "query" | "headers") =>
            {
                Some(self.named(node, field, key))
            }
            _ => None,
        }
    }

    fn named(&mut self, node: &IdedExpr, map: &str, key: &str) -> Result<Known, Fault> {
        if map == "headers" && key.bytes().any(|b| b.is_ascii_uppercase()) {
            let what = format!("header names are in lower case here: `{}`", key.to_ascii_lowercase());
            return Err(self.fault(node, what));
        }
        let keys = if map == "query" { &mut self.names.query } else { &mut self.names.headers };
        keys.add(Some(key));
        Ok(plain(Type::Text, 2))
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Result<Known, Fault> {
        let (is, steps) = self.common(elements.iter())?;
        Ok(Known { is: Type::List(Box::new(is)), size: elements.len() as u64, steps })
    }

    fn map(&mut self, entries: &[cel::common::ast::IdedEntryExpr]) -> Result<Known, Fault> {
        let entries: Vec<_> = entries
            .iter()
            .filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(entry),
                EntryExpr::StructField(_) => None,
            })
            .collect();
        for entry in &entries {
            let key = self.known(&entry.key)?;
            if !key.is.fits(&Type::Text) {
                return Err(self.fault(&entry.key, format!("keys of maps are text here, this is {}", key.is.name())));
            }
        }
        let (is, steps) = self.common(entries.iter().map(|entry| &entry.value))?;
        Ok(Known { is: Type::Map(Box::new(is)), size: entries.len() as u64, steps: steps + entries.len() as u64 })
    }

    /// The type that all have, `Any` if they differ.
    fn common<'e>(&mut self, elements: impl Iterator<Item = &'e IdedExpr>) -> Result<(Type, u64), Fault> {
        let (mut common, mut steps) = (None, 1);
        for element in elements {
            let known = self.known(element)?;
            steps += known.steps;
            common = Some(match common {
                None => known.is,
                Some(common) if common == known.is => common,
                Some(_) => Type::Any,
            });
        }
        Ok((common.unwrap_or(Type::Any), steps))
    }

    /// A loop: what `all`, `exists`, `exists_one`, `map` and `filter` become.
    fn each(&mut self, node: &IdedExpr, each: &ComprehensionExpr) -> Result<Known, Fault> {
        let range = self.known(&each.iter_range)?;
        let element = match range.is {
            Type::List(element) => *element,
            Type::Map(_) => Type::Text,
            Type::Any => Type::Any,
            other => return Err(self.fault(node, format!("{} cannot be looked through", other.name()))),
        };
        let start = self.known(&each.accu_init)?;
        let depth = self.scope.len();
        self.scope.push((each.iter_var.clone(), element, ELEMENTS_MAX as u64));
        self.scope.extend(each.iter_var2.clone().map(|name| (name, Type::Any, ELEMENTS_MAX as u64)));
        // A loop that gathers, gathers one element a turn.
        self.scope.push((each.accu_var.clone(), start.is, range.size));
        let turn = self.known(&each.loop_cond)?.steps;
        let step = self.known(&each.loop_step)?;
        if let Some((_, is, _)) = self.scope.last_mut() {
            *is = step.is;
        }
        let result = self.known(&each.result)?;
        self.scope.truncate(depth);
        let turns = range.size.saturating_mul(turn.saturating_add(step.steps));
        Ok(Known { is: result.is, size: range.size, steps: range.steps.saturating_add(turns).saturating_add(result.steps) })
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Known, Fault> {
        if let (op::INDEX, [of, key]) = (call.func_name.as_str(), call.args.as_slice()) {
            return self.index(node, of, key);
        }
        if let (op::IN, [IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }, of]) =
            (call.func_name.as_str(), call.args.as_slice())
            && let Some(known) = self.named_entry(node, of, key.inner())
        {
            return known.map(|known| plain(Type::Bool, known.steps));
        }
        let mut given = Vec::with_capacity(3);
        for argument in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
            given.push(self.known(argument)?);
        }
        let steps = given.iter().fold(1, |sum: u64, known| sum.saturating_add(known.steps));
        let Some(known) = result(&call.func_name, call.target.is_some(), &given) else {
            return Err(self.fault(node, misfit(&call.func_name, &given)));
        };
        Ok(Known { steps: steps.saturating_add(known.steps), ..known })
    }

    fn index(&mut self, node: &IdedExpr, of: &IdedExpr, key: &IdedExpr) -> Result<Known, Fault> {
        let written = match &key.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
            _ => None,
        };
        let (entry, key) = (self.entry(node, of, written)?, self.known(key)?);
        match key.is {
            Type::Text | Type::Number | Type::Any => Ok(Known { steps: entry.steps.saturating_add(key.steps), ..entry }),
            other => Err(self.fault(node, format!("{} is no key", other.name()))),
        }
    }
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Number,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::Text,
    }
}

/// What a function or operator gives, and the steps that it takes beside its arguments'. `None` if there is none that takes these.
fn result(name: &str, method: bool, given: &[Known]) -> Option<Known> {
    use Type as T;
    let is = |known: &Known, due: T| known.is.fits(&due);
    let yes_or_no = |steps| Some(plain(T::Bool, steps));
    match (name, method, given) {
        (op::LOGICAL_AND | op::LOGICAL_OR, false, [a, b]) if is(a, T::Bool) && is(b, T::Bool) => yes_or_no(0),
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, false, [a]) if is(a, T::Bool) => yes_or_no(0),
        (op::EQUALS | op::NOT_EQUALS, false, [a, b]) if a.is.fits(&b.is) || T::Null.fits(&a.is) || T::Null.fits(&b.is) => {
            yes_or_no(if matches!(a.is, T::List(_) | T::Map(_) | T::Any) { a.size.min(b.size) } else { 0 })
        }
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, false, [a, b]) => {
            let ordered = [T::Number, T::Text, T::Bytes, T::Bool].into_iter().any(|due| is(a, due.clone()) && is(b, due));
            yes_or_no(0).filter(|_| ordered)
        }
        (op::IN, false, [needle, range]) => match &range.is {
            T::List(element) if needle.is.fits(element) => yes_or_no(range.size),
            T::Map(_) if is(needle, T::Text) => yes_or_no(0),
            T::Any => yes_or_no(range.size),
            _ => None,
        },
        (op::CONDITIONAL, false, [which, a, b]) if is(which, T::Bool) => {
            let common = if a.is == b.is { a.is.clone() } else { T::Any };
            Some(Known { is: common, size: a.size.max(b.size), steps: 0 })
        }
        (op::ADD, false, [a, b]) => added(a, b),
        (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, false, [a, b]) if is(a, T::Number) && is(b, T::Number) => {
            Some(plain(T::Number, 0))
        }
        (op::NEGATE, false, [a]) if is(a, T::Number) => Some(plain(T::Number, 0)),
        ("size", _, [a]) if !matches!(a.is, T::Bool | T::Number | T::Null) => Some(plain(T::Number, 0)),
        ("contains" | "startsWith" | "endsWith", true, [a, b]) if is(a, T::Text) && is(b, T::Text) => yes_or_no(0),
        ("int" | "uint" | "double", false, [a]) if is(a, T::Number) || is(a, T::Text) => Some(plain(T::Number, 0)),
        ("string", false, [a]) if !matches!(a.is, T::List(_) | T::Map(_) | T::Null) => Some(plain(T::Text, 0)),
        _ => None,
    }
}

fn added(a: &Known, b: &Known) -> Option<Known> {
    match (&a.is, &b.is) {
        (Type::List(x), Type::List(y)) => {
            let element = if x == y { (**x).clone() } else { Type::Any };
            let size = a.size.saturating_add(b.size);
            Some(Known { is: Type::List(Box::new(element)), size, steps: 0 })
        }
        (Type::Map(_) | Type::Bool | Type::Null, _) | (_, Type::Map(_) | Type::Bool | Type::Null) => None,
        (Type::Any, other) | (other, Type::Any) => {
            Some(Known { is: other.clone(), size: a.size.saturating_add(b.size), steps: 0 })
        }
        (a, b) => a.fits(b).then(|| plain(a.clone(), 0)),
    }
}

/// Functions that are there, for those who look for one that is not.
const FUNCTIONS: [&str; 8] = ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string"];

fn misfit(name: &str, given: &[Known]) -> String {
    let types: Vec<&str> = given.iter().map(|known| known.is.name()).collect();
    let types = types.join(" and ");
    let operator = name.trim_matches(['_', '@']);
    match FUNCTIONS.contains(&name) {
        true => format!("`{name}` does not take {types}"),
        false if name.starts_with(['_', '@', '!', '-']) => format!("`{operator}` does not take {types}"),
        false => {
            format!("unknown function `{name}`, there are {} and `has`, `all`, `exists`, `exists_one`, `map`, `filter`", listed())
        }
    }
}

fn listed() -> String {
    FUNCTIONS.map(|name| format!("`{name}`")).join(", ")
}
