//! Between the socket and `ProxyHttp`: Pingora's own listening service accepts; this counts connections and puts each request
//! under its clock.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    listeners::Listeners,
    protocols::{Stream, http::ServerSession, http::v2::server::H2Options},
    server::{ShutdownWatch, configuration::ServerConf},
    services::listening::Service,
};
use pingora_proxy::{HttpProxy, ProxyHttp};

use self::client::Client;
use crate::{
    certs::Showcase,
    config::Config,
    deadline::Clock,
    observe::metrics::{ListenerMetrics, Metrics},
    stores::Stores,
};

mod client;
pub mod tls;

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
        listeners.add_tcp(&address);
        counted.push((listener.address, stores.metrics.listener(name), stores.showcases.get(name).cloned()));
    }
    Ok(Service::with_listeners("gateway".to_owned(), listeners, Edge::new(conf, gateway, counted, stores.metrics.clone())))
}

type Door = (SocketAddr, ListenerMetrics, Option<Arc<Showcase>>);

/// What Pingora's listening service hands connections to.
pub struct Edge<G> {
    requests: Arc<Requests<G>>,
    /// By the address listened on.
    counted: Vec<Door>,
    metrics: Arc<Metrics>,
}

impl<G> Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    fn new(conf: &Arc<ServerConf>, gateway: G, counted: Vec<Door>, metrics: Arc<Metrics>) -> Self {
        let mut proxy = HttpProxy::new(gateway, conf.clone());
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(H2_IDLE_MAX);
        proxy.server_options = Some(options);
        proxy.handle_init_modules();
        Self { requests: Arc::new(Requests(Arc::new(proxy))), counted, metrics }
    }

    fn listener(&self, stream: &Stream) -> Option<&Door> {
        let local = stream.get_socket_digest().and_then(|digest| digest.local_addr().and_then(|a| a.as_inet().copied()))?;
        let is_of = |address: &SocketAddr| *address == local || (address.ip().is_unspecified() && address.port() == local.port());
        self.counted.iter().find(|(address, ..)| is_of(address))
    }
}

#[async_trait]
impl<G> ServerApp for Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (_, metrics, showcase) = self.listener(&stream)?;
        let _open = metrics.accepted();
        let stream = match showcase {
            Some(showcase) => Box::new(tls::accept(showcase, stream).await.ok()?),
            None => stream,
        };
        let client = Client::new(stream, self.metrics.clone());
        self.requests.process_new(Box::new(client), shutdown).await
    }

    async fn cleanup(&self) {
        self.requests.http_cleanup().await;
    }
}

/// Each request of each connection, HTTP/1 or HTTP/2.
struct Requests<G>(Arc<HttpProxy<G>>);

#[async_trait]
impl<G> HttpServerApp for Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn process_new_http(self: &Arc<Self>, session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        Clock::drive(self.0.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.0.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }

    async fn http_cleanup(&self) {
        self.0.http_cleanup().await;
    }
}
