//! Case files: one text tells a story of requests, of what the services saw, and of the replies.
//!
//! A file has a title, then sections that begin with `--- `:
//!
//! - `config`: the configuration. `<name>` is the port of a service that answers 200 with its name; `<web>`, `<admin>` and
//!   `<nobody>` (where nothing listens) are what they say.
//! - `answer NAME`: what that service answers instead.
//! - `request`: a request, on a connection of its own; the length of a body is added. After it stand the two that are expected:
//! - `upstream NAME` or `upstream none`: the request that the service got.
//! - `reply`: the response that the client got.
//!
//! What changes from run to run stands as `<date>`, `<id>`, `<trace>`, `<span>`. `BLESS=1` writes what is there over what is expected.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, sync::Arc};

use super::{
    Connection, Gateway, Origin, Request, Response,
    client::{method_of, wire_head},
    gateway::{Ports, Start, names},
    origin::ok,
    port,
};

/// A file of `tests/cases`, read.
struct Case {
    title: String,
    config: String,
    answers: BTreeMap<String, String>,
    exchanges: Vec<Exchange>,
}

/// A request and what follows from it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Exchange {
    request: String,
    upstream: String,
    reply: String,
}

/// Names in a configuration that are no services.
const OWN: [&str; 4] = ["web", "admin", "dir", "nobody"];

/// Plays a case file.
///
/// # Panics
/// When what happens is not what the file says.
#[track_caller]
pub fn check(name: &str) {
    let path = folder().join(format!("{name}.case"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let case = Case::parse(&text);
    let played = Case { exchanges: case.play(), ..case };
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, played.text()).unwrap();
        return;
    }
    let (expected, found) = (text.trim_end(), played.text());
    assert!(expected == found.trim_end(), "{}", difference(expected, &found));
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

impl Case {
    fn parse(text: &str) -> Self {
        let mut sections = text.split("\n--- ").map(|section| section.split_once('\n').unwrap_or((section, "")));
        let title = text.split("\n--- ").next().unwrap_or_default().trim_end().to_owned();
        let mut case = Self { title, config: String::new(), answers: BTreeMap::new(), exchanges: Vec::new() };
        sections.next();
        for (heading, body) in sections {
            case.section(heading.trim(), body.trim_end_matches('\n'));
        }
        case
    }

    fn section(&mut self, heading: &str, body: &str) {
        let body = body.to_owned();
        match (heading.split_once(' ').unwrap_or((heading, "")), self.exchanges.last_mut()) {
            (("config", ""), None) => self.config = body,
            (("answer", name), None) => drop(self.answers.insert(name.to_owned(), body)),
            (("request", ""), _) => self.exchanges.push(Exchange { request: body, ..Exchange::default() }),
            (("upstream", name), Some(exchange)) => exchange.upstream = format!("{name}\n{body}"),
            (("reply", ""), Some(exchange)) => exchange.reply = body,
            _ => panic!("unexpected section `{heading}`"),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n\n--- config\n{}\n", self.title, self.config);
        for (name, answer) in &self.answers {
            write!(text, "\n--- answer {name}\n{answer}\n").unwrap();
        }
        for Exchange { request, upstream, reply } in &self.exchanges {
            let upstream = upstream.trim_end();
            write!(text, "\n--- request\n{request}\n\n--- upstream {upstream}\n\n--- reply\n{}\n", reply.trim_end()).unwrap();
        }
        text
    }

    fn play(&self) -> Vec<Exchange> {
        let mut ports = Ports::default();
        ports.set("nobody", port::free());
        let services = self.services();
        for (name, service) in &services {
            ports.set(name, service.address().port());
        }
        let mut gateway = Start::on(&self.config).ports(ports).ready();
        let exchanges = self.exchanges.iter().map(|exchange| play(&exchange.request, &gateway, &services)).collect();
        gateway.assert_sound();
        exchanges
    }

    fn services(&self) -> BTreeMap<String, Origin> {
        let services = names(&self.config).filter(|name| !OWN.contains(name)).map(str::to_owned);
        services.map(|name| (name.clone(), self.service(name))).collect()
    }

    fn service(&self, name: String) -> Origin {
        let answer = self.answers.get(&name).map(|answer| message(answer, None));
        let answer = Arc::new(answer.unwrap_or_else(|| ok(&name)));
        Origin::answer(move |_| String::clone(&answer))
    }
}

fn play(request: &str, gateway: &Gateway, services: &BTreeMap<String, Origin>) -> Exchange {
    let before: Vec<usize> = services.values().map(Origin::count).collect();
    let sent = gateway.ports().fill(request, gateway.dir());
    let mut connection = Connection(super::wire::Wire::over(std::net::TcpStream::connect(gateway.web()).unwrap()));
    connection.send(message(&sent, Some(())));
    let reply = connection.try_response(method_of(&sent));
    let saw = services.iter().zip(before).find_map(|((name, service), before)| {
        let seen = service.requests();
        seen.get(before).map(|request| (name.as_str(), request.clone()))
    });
    let mask = Mask::new(&sent, saw.as_ref().map(|(_, request)| request), reply.as_ref().ok());
    let upstream = saw.map_or_else(
        || "none\n".to_owned(),
        |(name, request)| format!("{name}\n{}\n{}", request.head.text(), String::from_utf8_lossy(&request.body)),
    );
    let reply = match reply {
        Ok(reply) => format!("{}\n{}", reply.head.text(), reply.text()),
        Err(e) => format!("broken: {e}"),
    };
    let shown = |text: String| gateway.ports().mask(&mask.over(&text));
    Exchange { request: request.to_owned(), upstream: shown(upstream), reply: shown(reply) }
}

/// A message as it goes on the wire: line ends, and the length of its body unless the text says how it ends.
fn message(text: &str, request: Option<()>) -> String {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let lower = head.to_lowercase();
    let bodiless = body.is_empty() && request.is_some();
    match () {
        () if lower.contains("transfer-encoding:") => format!("{}{}\r\n\r\n", wire_head(head), body.replace('\n', "\r\n")),
        () if bodiless || lower.contains("content-length:") => format!("{}{body}", wire_head(head)),
        () => format!("{}{body}", wire_head(&format!("{head}\nContent-Length: {}", body.len()))),
    }
}

/// The values of one exchange that are others in the next run.
#[derive(Default)]
struct Mask(Vec<(String, &'static str)>);

impl Mask {
    /// Only what the client did not send is masked: a value that came back shows.
    fn new(sent: &str, upstream: Option<&Request>, reply: Option<&Response>) -> Self {
        let heads = [upstream.map(|request| &request.head), reply.map(|reply| &reply.head)];
        let values = |name: &'static str| heads.into_iter().flatten().flat_map(move |head| head.all(name)).map(str::to_owned);
        let ids = values("x-request-id").map(|id| (id, "<id>")).take(1);
        let dates = values("date").map(|date| (date, "<date>"));
        let traces = values("traceparent").flat_map(|value| {
            let parts: Vec<String> = value.split('-').map(str::to_owned).collect();
            match parts.as_slice() {
                [_, trace, span, _] => vec![(trace.clone(), "<trace>"), (span.clone(), "<span>")],
                _ => vec![],
            }
        });
        Self(ids.chain(dates).chain(traces).filter(|(value, _)| !value.is_empty() && !sent.contains(value)).collect())
    }

    fn over(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (value, mask)| text.replace(value, mask))
    }
}

/// The lines that differ, marked as in a diff.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let mut text = "the case went otherwise (- expected, + found; BLESS=1 to accept)\n".to_owned();
    let (mut e, mut f) = (0, 0);
    while e < expected.len() || f < found.len() {
        let here = expected.get(e);
        if here == found.get(f) {
            writeln!(text, "  {}", here.unwrap_or(&"")).unwrap();
            (e, f) = (e + 1, f + 1);
        } else if let Some(skip) = here.and_then(|line| found[f.min(found.len())..].iter().position(|other| other == line)) {
            found[f..f + skip].iter().for_each(|line| writeln!(text, "+ {line}").unwrap());
            f += skip;
        } else if let Some(line) = here {
            writeln!(text, "- {line}").unwrap();
            e += 1;
        } else {
            writeln!(text, "+ {}", found[f]).unwrap();
            f += 1;
        }
    }
    text
}
