//! Rules in the Common Expression Language (CEL): over the request, the consumer and the claims, true or not.
//!
//! [`Expression::compile`] reads a text once, when the configuration is loaded, and finds there what can be found: names that do not
//! exist, types that do not fit, a cost without bound (`check`). [`Expression::holds`] evaluates it and builds no more than it names
//! (`values`). What goes wrong then refuses.

use std::{net::IpAddr, sync::Arc};

use cel::{Context, Env, ParseErrors, Program, Value};
use http::HeaderMap;
use serde_json::{Map, Value as Json};

use self::check::Names;
use crate::name::GroupName;

mod check;
mod values;

/// Longest expression, in bytes.
const TEXT_MAX: usize = 4 << 10;

/// Stack on which an expression is read, in bytes: its reader goes as deep as the text does. What is too deep to be evaluated on the
/// stack of a request is refused there.
const STACK: usize = 64 << 20;

/// Most elements of a list or a map that an expression is given. More refuse: the bound on cost stands on it.
pub const ELEMENTS_MAX: usize = 100;

/// An expression, compiled.
pub struct Expression {
    program: Program,
    env: Arc<Env>,
    names: Names,
}

/// What an expression can speak of.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub method: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// Host without port, in lower case.
    pub host: &'a str,
    /// The query without `?`, as it came.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub client: IpAddr,
    /// Empty if there is none.
    pub consumer: &'a str,
    pub groups: &'a [GroupName],
    /// What the caller's identity vouches for.
    pub claims: Option<&'a Map<String, Json>>,
}

/// What is wrong with an expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}, at character {at}")]
pub struct Fault {
    /// Where in the text, from 1.
    pub at: usize,
    pub what: String,
}

/// Why an expression gave no answer for a request. That refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failed {
    /// A map or list has more than [`ELEMENTS_MAX`] elements.
    #[error("`{0}` is too long to be looked through")]
    TooLong(&'static str),
    /// A query key that the expression names is there twice: which one counts is another's guess.
    #[error("a query key that the expression names is there twice")]
    Twice,
    /// Bytes that are no text.
    #[error("`{0}` is not text")]
    NotText(&'static str),
    /// It has no value: a claim that is not there, a type that does not fit.
    #[error("the expression has no value: {0}")]
    NoValue(String),
    #[error("the expression is neither true nor false")]
    NotBool,
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// It is no CEL, names what there is not, cannot be true or false, or could cost too much. The first such.
    pub fn compile(text: &str) -> Result<Self, Fault> {
        if text.len() > TEXT_MAX {
            return Err(Fault { at: TEXT_MAX, what: format!("an expression has at most {TEXT_MAX} bytes") });
        }
        let unread = |_| Fault { at: 1, what: "this could not be read".to_owned() };
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || Self::read(text));
            reader.map_err(drop).and_then(|reader| reader.join().map_err(drop)).map_err(unread)?
        })
    }

    fn read(text: &str) -> Result<Self, Fault> {
        let env = Env::stdlib().with_optional_support(false);
        let program = env.compile(text).map_err(|errors| unreadable(text, &errors))?;
        let names = check::check(text, &program)?;
        Ok(Self { program, env: Arc::new(env), names })
    }

    /// Whether it needs what the caller's identity vouches for.
    pub fn speaks_of_claims(&self) -> bool {
        !self.names.claims.is_empty()
    }

    /// Whether it is true of a request.
    ///
    /// # Errors
    /// It has no answer.
    pub fn holds(&self, scene: &Scene<'_>) -> Result<bool, Failed> {
        let mut context = Context::with_env(self.env.clone());
        values::bind(&mut context, &self.names, scene)?;
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Failed::NotBool),
            Err(error) => Err(Failed::NoValue(values::told(&error))),
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.program.source_info().source).finish()
    }
}

/// The parser's first error, with its place.
fn unreadable(text: &str, errors: &ParseErrors) -> Fault {
    let Some(error) = errors.errors.first() else { return Fault { at: 1, what: "this is no expression".to_owned() } };
    if error.msg.contains("Recursion limit") {
        return Fault { at: 1, what: "this is nested too deep".to_owned() };
    }
    let (line, column) = (usize::try_from(error.pos.0).unwrap_or(1), usize::try_from(error.pos.1).unwrap_or(1));
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let what = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg).lines().next().unwrap_or_default();
    // What could stand there instead would be a long list of the grammar's own words.
    let what = match what.split(" expecting ").next().unwrap_or_default() {
        ended if ended.contains("'<EOF>'") => "the expression ends too early",
        "" => "this is no expression",
        what => what,
    };
    Fault { at: (before + column).max(1), what: what.to_owned() }
}

#[cfg(test)]
mod tests;
