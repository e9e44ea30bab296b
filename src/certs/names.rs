//! What a certificate is for: the names and addresses that it proves (RFC 6125, RFC 9110 §4.3.4).

use std::net::IpAddr;

use x509_parser::prelude::{GeneralName, X509Certificate};

/// The names in a certificate. Its common name is none of them (RFC 6125 §6.4.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// In lower case: `shop.example`, `*.shop.example`. Sorted, so that the same names are the same wherever they stand.
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        for name in alternatives(certificate) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(octets) => names.addresses.extend(address(octets)),
                _ => {}
            }
        }
        names.dns.sort_unstable_by(|a, b| b.cmp(a));
        names.addresses.sort_unstable();
        names
    }

    pub fn dns(&self) -> impl Iterator<Item = &str> {
        self.dns.iter().map(String::as_str)
    }

    /// Neither a DNS name nor an address: nothing can be said of hosts.
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.addresses.is_empty()
    }

    /// Whether the certificate proves that we are this host, in lower case and without port; an IPv6 address may have its brackets.
    pub fn covers(&self, host: &str) -> bool {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => self.dns.iter().any(|name| is_for(name, host)),
        }
    }
}

/// The subject alternative names, as they stand in a certificate.
pub(super) fn alternatives<'a, 'c>(certificate: &'a X509Certificate<'c>) -> &'a [GeneralName<'c>] {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default()
}

pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

/// A star stands for one label, the leftmost (RFC 6125 §6.4.3).
fn is_for(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expected: bool) {
        let names = Names {
            dns: ["shop.example", "*.wild.example"].map(str::to_owned).into(),
            addresses: vec![[192, 0, 2, 7].into(), "2001:db8::1".parse().unwrap()],
        };
        assert_eq!(names.covers(host), expected, "{host}");
    }

    #[test]
    fn a_name_is_for_its_host_and_a_star_for_one_label() {
        check("shop.example", true);
        check("a.shop.example", false);
        check("example", false);
        check("a.wild.example", true);
        check("a.b.wild.example", false);
        check("wild.example", false);
        check(".wild.example", false);
        check("", false);
    }

    #[test]
    fn an_address_is_covered_by_addresses_alone() {
        check("192.0.2.7", true);
        check("192.0.2.8", false);
        check("[2001:db8::1]", true);
        check("[2001:db8::2]", false);
        let star = Names { dns: vec!["*.0.2.7".to_owned()], addresses: Vec::new() };
        assert!(!star.covers("192.0.2.7"));
    }
}
