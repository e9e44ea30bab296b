//! Between the socket and `ProxyHttp`: Pingora's own listening service accepts; this counts connections and puts each request
//! under its clock.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    listeners::{Listeners, tls::TlsSettings},
    protocols::{Stream, http::ServerSession, http::v2::server::H2Options},
    server::{ShutdownWatch, configuration::ServerConf},
    services::listening::Service,
};
use pingora_proxy::{HttpProxy, ProxyHttp};

use self::client::Client;
use crate::{
    config::Config,
    deadline::{Clock, Terms},
    observe::metrics::{ListenerMetrics, Metrics},
    stores::Stores,
};

mod client;
mod http2;

/// Longest silence of an HTTP/2 connection without streams.
const H2_IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(75);

/// The listeners of a configuration, with the gateway behind them.
///
/// # Errors
/// TLS cannot be set up on a listener.
pub fn service<G>(config: &Config, stores: &Stores, conf: &Arc<ServerConf>, gateway: G) -> pingora_core::Result<Service<Edge<G>>>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    let mut listeners = Listeners::new();
    let mut counted = Vec::with_capacity(config.listeners.len());
    for (name, listener) in &config.listeners {
        let address = listener.address.to_string();
        match stores.showcases.get(name) {
            Some(showcase) => {
                let mut tls = TlsSettings::intermediate("", "")?;
                tls.set_cert_resolver(showcase.clone());
                tls.enable_h2();
                listeners.add_tls_with_settings(&address, None, tls);
            }
            None => listeners.add_tcp(&address),
        }
        counted.push((listener.address, stores.metrics.listener(name), Terms::from(&listener.limits)));
    }
    Ok(Service::with_listeners("gateway".to_owned(), listeners, Edge::new(conf, gateway, counted, stores.metrics.clone())))
}

/// What Pingora's listening service hands connections to.
pub struct Edge<G> {
    proxy: Arc<HttpProxy<G>>,
    /// By the address listened on.
    counted: Vec<(SocketAddr, ListenerMetrics, Terms)>,
    metrics: Arc<Metrics>,
}

impl<G> Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    fn new(
        conf: &Arc<ServerConf>,
        gateway: G,
        counted: Vec<(SocketAddr, ListenerMetrics, Terms)>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut proxy = HttpProxy::new(gateway, conf.clone());
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(H2_IDLE_MAX);
        // Else Pingora answers CONNECT itself, before any hook: bare and unlogged. The hooks refuse it.
        options.allow_connect_method_proxying = true;
        proxy.server_options = Some(options);
        proxy.handle_init_modules();
        Self { proxy: Arc::new(proxy), counted, metrics }
    }

    fn listener(&self, stream: &Stream) -> Option<(&ListenerMetrics, Terms)> {
        let local = stream.get_socket_digest().and_then(|digest| digest.local_addr().and_then(|a| a.as_inet().copied()))?;
        let is_of = |address: &SocketAddr| *address == local || (address.ip().is_unspecified() && address.port() == local.port());
        self.counted.iter().find(|(address, ..)| is_of(address)).map(|(_, metrics, terms)| (metrics, *terms))
    }
}

#[async_trait]
impl<G> ServerApp for Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (open, terms) = self.listener(&stream).map(|(metrics, terms)| (metrics.accepted(), terms)).unzip();
        let _open = open;
        let client = Client::new(stream, self.metrics.clone());
        let requests = Arc::new(Requests { proxy: self.proxy.clone(), terms: terms.unwrap_or_default() });
        requests.process_new(Box::new(client), shutdown).await
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Each request of a connection, HTTP/1 or HTTP/2.
struct Requests<G> {
    proxy: Arc<HttpProxy<G>>,
    terms: Terms,
}

#[async_trait]
impl<G> HttpServerApp for Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn process_new_http(self: &Arc<Self>, session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        Clock::drive(self.terms, self.proxy.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
