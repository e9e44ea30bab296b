//! The one atomic decision: how the script is asked, and what it answers.

use std::time::Duration;

use redis::{Cmd, Value};

/// The script, and the digest by which the server knows it.
pub struct Script {
    text: &'static str,
    digest: String,
}

/// What a limit is to the script; never changes.
#[derive(Clone, Debug)]
pub struct Words {
    pub kind: &'static str,
    /// Of a bucket: what drains in a microsecond. Of a window: its length in microseconds.
    pub pace: String,
    pub most: String,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// All of the cost of all keys, or nothing.
    Take,
    /// What there is, half of it at most.
    Lease,
}

/// One key of a question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub key: &'a str,
    pub words: &'a Words,
    pub cost: u32,
    /// Admitted before anybody asked; negative: given back.
    pub owed: i64,
}

/// What the script says of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    pub granted: u64,
    pub remaining: u64,
    pub reset: Duration,
    pub retry: Duration,
    pub wait: Duration,
}

/// Numbers that the script gives for each key.
const NUMBERS: usize = 5;

impl Script {
    pub fn new() -> Self {
        let text = include_str!("take.lua");
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// By its digest.
    pub fn known(&self, deed: Deed, questions: &[Question<'_>]) -> Cmd {
        ask("EVALSHA", &self.digest, deed, questions)
    }

    /// With its text, which the server then knows.
    pub fn whole(&self, deed: Deed, questions: &[Question<'_>]) -> Cmd {
        ask("EVAL", self.text, deed, questions)
    }
}

fn ask(command: &str, script: &str, deed: Deed, questions: &[Question<'_>]) -> Cmd {
    let mut cmd = redis::cmd(command);
    cmd.arg(script).arg(questions.len());
    for question in questions {
        cmd.arg(question.key);
    }
    cmd.arg(match deed {
        Deed::Take => "take",
        Deed::Lease => "lease",
    });
    for Question { words, cost, owed, .. } in questions {
        cmd.arg(words.kind).arg(&words.pace).arg(&words.most).arg(*cost).arg(*owed);
    }
    cmd
}

/// Reads an answer about so many keys. None: it is not one of this script.
pub fn read(value: &Value, keys: usize) -> Option<Vec<Told>> {
    let Value::Array(numbers) = value else { return None };
    let (_, told) = numbers.split_first()?;
    let told: Vec<_> = told.chunks_exact(NUMBERS).map_while(one).collect();
    (told.len() == keys).then_some(told)
}

fn one(numbers: &[Value]) -> Option<Told> {
    let mut numbers = numbers.iter().map_while(|number| match number {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let (granted, remaining) = (numbers.next()?, numbers.next()?);
    let mut times = numbers.map(Duration::from_micros);
    Some(Told { granted, remaining, reset: times.next()?, retry: times.next()?, wait: times.next()? })
}
