//! What the pages say of files is true.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use banyan::{
    exchange::{Elsewhere, Limited, LoginFault, Relayed, Stop, UpstreamFault as Fault},
    reply::told,
};
use http::HeaderValue;

#[test]
fn every_link_to_a_file_leads_to_one() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if !page.parent().unwrap().join(link).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_decision_has_the_next_number_and_a_state() {
    let mut names: Vec<String> =
        fs::read_dir(root().join("docs/decisions")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for (at, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}-", at + 1)), "{name}");
        let text = fs::read_to_string(root().join("docs/decisions").join(name)).unwrap();
        assert!(text.contains("**State:**"), "{name} has no state");
    }
}

#[test]
fn every_answer_of_our_own_is_listed_as_it_is() {
    let page = fs::read_to_string(root().join("docs/operations/answers.md")).unwrap();
    let faults = [
        Fault::NoEndpoint,
        Fault::Connect,
        Fault::ConnectTimeout,
        Fault::Tls,
        Fault::ResponseTimeout,
        Fault::IdleTimeout,
        Fault::Reset,
        Fault::Protocol,
        Fault::Broken(std::time::Duration::ZERO),
        Fault::Full,
    ];
    let others = [
        Stop::Malformed("a rule"),
        Stop::Framing("a rule"),
        Stop::UriTooLong,
        Stop::Version,
        Stop::TransferCoding,
        Stop::HeadTimeout,
        Stop::Misdirected,
        Stop::NoRoute,
        Stop::MethodNotAllowed(HeaderValue::from_static("GET")),
        Stop::BodyTooLarge,
        Stop::HeadersTooLarge,
        Stop::Unauthenticated(Vec::new()),
        Stop::Elsewhere(Box::new(Elsewhere { to: HeaderValue::from_static("/"), cookies: Vec::new() })),
        Stop::SignedOut(Vec::new()),
        Stop::Login(LoginFault::Invalid),
        Stop::Login(LoginFault::Denied),
        Stop::Login(LoginFault::Unavailable),
        Stop::Forbidden(None),
        Stop::Undecided,
        Stop::Limited(Limited { by: "rate_limit", retry_after: Duration::ZERO }),
        Stop::Uncounted,
        Stop::Limited(Limited { by: "concurrency", retry_after: Duration::ZERO }),
        Stop::Limited(Limited { by: "quota", retry_after: Duration::ZERO }),
        Stop::Overloaded(Duration::ZERO),
        Stop::Relayed(Arc::new(Relayed { status: http::StatusCode::FOUND, fields: Vec::new() })),
        Stop::Mishap(http::StatusCode::SERVICE_UNAVAILABLE),
        Stop::RequestTimeout,
        Stop::ClientTimeout,
        Stop::Fault(std::io::Error::other("of ours").into()),
    ];
    for stop in others.into_iter().chain(faults.map(Stop::Upstream)) {
        let told = told(&stop);
        let row = format!("| `{}` | {} | {} | `{}` |", told.code, told.status.as_u16(), told.grpc, told.flag.code());
        assert!(page.contains(&row), "docs/operations/answers.md has no row {row}");
    }
}

/// Targets of `[…](…)` that are no URL and no anchor.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|link| link.split('#').next().unwrap())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.contains(char::is_whitespace))
        .collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() && name != "target" && !name.starts_with('.') => folders.push(path),
                Some("md") => pages.push(path),
                _ => {}
            }
        }
    }
    pages
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn links_are_found_as_written() {
    assert_eq!(links("[a](b.md) and [c](https://x) and [d](e/f.md#g) and [h](#i)"), ["b.md", "e/f.md"]);
}
