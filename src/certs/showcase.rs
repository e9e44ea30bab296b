//! The certificates that a TLS listener shows, chosen by the name that the client asks for (SNI, RFC 6066 §3).

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certified;

/// The certificates of one listener. They can be changed while it accepts; sessions that stand keep theirs.
#[derive(Debug, Default)]
pub struct Showcase(ArcSwapOption<Shown>);

#[derive(Debug)]
struct Shown {
    /// By exact name.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`; a star stands for one label (RFC 6125 §6.4.3).
    under: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that name no host, or none that we know.
    default: Option<Arc<CertifiedKey>>,
}

impl Showcase {
    /// Shows these from now on. Where several have a name, the first that the client can verify serves it: RSA and ECDSA side by side.
    pub fn show(&self, certificates: &[Certified]) {
        let mut shown = Shown {
            exact: HashMap::new(),
            under: HashMap::new(),
            default: certificates.first().map(|certified| certified.key.clone()),
        };
        for certified in certificates {
            for name in &certified.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut shown.under, parent),
                    None => (&mut shown.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(certified.key.clone());
            }
        }
        self.0.store(Some(Arc::new(shown)));
    }
}

impl Shown {
    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.trim_end_matches('.');
        self.exact.get(name).or_else(|| self.under.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Showcase {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load_full()?;
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| shown.named(&name)).map_or(&[][..], Vec::as_slice);
        let verifiable = named.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        verifiable.or(named.first()).or(shown.default.as_ref()).cloned()
    }
}
