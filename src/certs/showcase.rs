//! What a TLS listener shows, chosen by the name that the client asks for (SNI, RFC 6066 §3), and what it asks for.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{Certified, Clients, Names, provider, tickets::Tickets};
use crate::config::listener::{Misdirected, TlsVersion};

/// Tickets after a full TLS 1.3 handshake: each is used once, and browsers open a second connection (RFC 8446 §C.4).
const TICKETS_SENT: usize = 2;

tokio::task_local! {
    /// What the certificate is for that the handshake of this task shows.
    static PRESENTED: RefCell<Option<Arc<Names>>>;
}

/// The TLS of one listener. It can be changed while it accepts; sessions that stand keep theirs.
#[derive(Debug, Default)]
pub struct Showcase(ArcSwapOption<Shown>);

/// What a listener shows and asks for, ready to be shown.
#[derive(Debug)]
pub struct Offer {
    /// Whole but for the tickets, whose keys outlive it.
    config: ServerConfig,
    clients: Option<Clients>,
    /// How often the keys of tickets change. None: there are no tickets.
    rotate: Option<Duration>,
    misdirected: Misdirected,
}

/// What new connections meet.
#[derive(Debug)]
pub struct Shown {
    pub config: Arc<ServerConfig>,
    pub misdirected: Misdirected,
    clients: Option<Clients>,
    tickets: Option<Arc<Tickets>>,
}

/// Which certificate is for whom.
#[derive(Debug, Default)]
struct Display {
    /// By exact name.
    exact: HashMap<String, Vec<Arc<Certified>>>,
    /// By what follows `*.`; a star stands for one label (RFC 6125 §6.4.3).
    under: HashMap<String, Vec<Arc<Certified>>>,
    /// For clients that name no host, or none that we know: the first, and those with the same names.
    default: Vec<Arc<Certified>>,
}

/// Runs a handshake, and says what the certificate is for that it showed.
pub async fn noting<T>(handshake: impl Future<Output = T>) -> (T, Option<Arc<Names>>) {
    let noted = async {
        let done = handshake.await;
        (done, PRESENTED.with(RefCell::take))
    };
    PRESENTED.scope(RefCell::default(), noted).await
}

impl Offer {
    /// # Errors
    /// The process's TLS provider does not have the versions.
    pub fn new(
        certificates: Vec<Certified>,
        min_version: TlsVersion,
        clients: Option<Clients>,
        rotate: Option<Duration>,
        misdirected: Misdirected,
    ) -> Result<Self, rustls::Error> {
        let versions = match min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Display::of(certificates)));
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are kept by clients, in tickets; a store of ours would be one more table to bound.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = if rotate.is_some() { TICKETS_SENT } else { 0 };
        // Early data can be replayed.
        config.max_early_data_size = 0;
        Ok(Self { config, clients, rotate, misdirected })
    }
}

impl Showcase {
    /// Shows this from now on. Tickets stay good, unless other clients pass now: a session that is resumed does not show its
    /// certificate again.
    ///
    /// # Errors
    /// There is no randomness for a key of tickets. What was shown stays.
    pub fn show(&self, offer: &Offer) -> Result<(), rustls::Error> {
        let before = self.0.load_full();
        let kept = before.as_ref().filter(|before| before.clients == offer.clients).and_then(|before| before.tickets.clone());
        let kept = kept.filter(|tickets| Some(tickets.rotate()) == offer.rotate);
        let tickets = match (offer.rotate, kept) {
            (Some(rotate), None) => Some(Arc::new(Tickets::new(rotate)?)),
            (_, kept) => kept,
        };
        let mut config = offer.config.clone();
        if let Some(tickets) = &tickets {
            config.ticketer = tickets.clone();
        }
        let (config, clients) = (Arc::new(config), offer.clients.clone());
        self.0.store(Some(Arc::new(Shown { config, misdirected: offer.misdirected, clients, tickets })));
        Ok(())
    }

    /// What a new connection meets. None: nothing was shown yet.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        self.0.load_full()
    }
}

impl Display {
    fn of(certificates: Vec<Certified>) -> Self {
        let mut display = Self::default();
        let certificates: Vec<Arc<Certified>> = certificates.into_iter().map(Arc::new).collect();
        for certified in &certificates {
            for name in certified.names.dns() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut display.under, parent),
                    None => (&mut display.exact, name),
                };
                map.entry(name.to_owned()).or_default().push(certified.clone());
            }
        }
        if let Some(first) = certificates.first() {
            display.default = certificates.iter().filter(|other| other.names == first.names).cloned().collect();
        }
        display
    }

    /// Those with the name itself, then those with a star for it.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Certified>> + Clone {
        let under = name.split_once('.').and_then(|(_, parent)| self.under.get(parent));
        self.exact.get(name).into_iter().chain(under).flatten()
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<&Arc<Certified>> {
        let name = hello.server_name().unwrap_or_default();
        let verifiable = |certified: &&Arc<Certified>| certified.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let mut named = self.named(name).peekable();
        match named.peek().copied() {
            Some(first) => Some(named.find(verifiable).unwrap_or(first)),
            None => self.default.iter().find(verifiable).or(self.default.first()),
        }
    }
}

impl ResolvesServerCert for Display {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certified = self.choose(&hello)?;
        // Outside of a handshake of ours nobody wants to know.
        _ = PRESENTED.try_with(|presented| presented.replace(Some(certified.names.clone())));
        Some(certified.shown().clone())
    }
}
