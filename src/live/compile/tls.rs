//! The TLS of a listener: its files are read and checked, so that a handshake finds nothing to fail at.

use crate::{
    certs::{Certified, Clients, Offer, Staple, Verdict, certified_key},
    config::{
        listener::{Certificate, ListenerTls, Tickets},
        problem::{Path, Problem},
    },
};

/// What a listener shows and asks for; none if a file is at fault.
pub fn offer(tls: &ListenerTls, at: &Path, problems: &mut Vec<Problem>) -> Option<Offer> {
    let here = at.key("certificates");
    if tls.certificates.is_empty() {
        problems.push(Problem::error(here.clone(), "there is no certificate").help("TLS needs at least one"));
    }
    let pairs = tls.certificates.iter().enumerate();
    let certificates: Vec<Certified> =
        pairs.filter_map(|(index, pair)| certificate(pair, &here.index(index), problems)).collect();
    let clients = tls.client_auth.as_ref().map(|auth| Clients::of(auth.mode, &auth.ca)).transpose();
    let clients = clients.map_err(|error| problems.push(error.problem(at.key("client_auth").key("ca")))).ok()?;
    let rotate = match tls.tickets {
        Tickets::On(keys) => Some(keys.rotate.as_std()),
        Tickets::Off => None,
    };
    Offer::new(certificates, tls.min_version, clients, rotate, tls.misdirected)
        .map_err(|error| problems.push(Problem::error(at.clone(), error.to_string())))
        .ok()
}

fn certificate(pair: &Certificate, at: &Path, problems: &mut Vec<Problem>) -> Option<Certified> {
    match certified_key(&pair.cert, &pair.key) {
        Ok(certified) => {
            doubt(pair, &certified, &at.key("cert"), problems);
            staple(pair, certified, &at.key("ocsp"), problems)
        }
        Err(error) => {
            let key = if error.is_of_key(&pair.key) { "key" } else { "cert" };
            problems.push(error.problem(at.key(key)));
            None
        }
    }
}

/// What will make clients refuse a certificate, or us see nothing in it.
fn doubt(pair: &Certificate, certified: &Certified, at: &Path, problems: &mut Vec<Problem>) {
    problems.extend(certified.stale.map(|stale| stale.warning(&pair.cert, at.clone())));
    if certified.names.is_empty() {
        let file = pair.cert.display();
        let message = format!("the certificate in `{file}` has no DNS name or address among its alternative names");
        let help = "clients verify nothing else; requests for any host are taken with it";
        problems.push(Problem::warning(at.clone(), message).help(help));
    }
}

/// The certificate with its OCSP response, if it has one that helps it.
fn staple(pair: &Certificate, certified: Certified, at: &Path, problems: &mut Vec<Problem>) -> Option<Certified> {
    let Some(file) = &pair.ocsp else { return Some(certified) };
    let staple = Staple::read(file, &certified.serial).map_err(|error| problems.push(error.problem(at.clone()))).ok()?;
    let mut doubt = |what: &str| {
        let message = format!("the OCSP response in `{}` {what}", file.display());
        problems.push(Problem::warning(at.clone(), message).help("it is not stapled"));
    };
    match (staple.verdict, staple.span.stale_now()) {
        (Verdict::Good, None) => {}
        (Verdict::Good, Some(stale)) => doubt(stale.words()),
        (Verdict::Revoked, _) => doubt("says that the certificate was revoked"),
        (Verdict::Unknown, _) => doubt("says that the certificate is not known"),
    }
    match staple.verdict {
        Verdict::Good => Some(certified.with(staple)),
        Verdict::Revoked | Verdict::Unknown => Some(certified),
    }
}
