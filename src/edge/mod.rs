//! Between the socket and `ProxyHttp`. Pingora's own listening service accepts; what it hands over goes through here: a place among
//! the connections of its listener, the PROXY protocol's header, TLS, and then its requests, each under its clock.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    listeners::{L4BufferSettings, Listeners},
    protocols::{Stream, http::ServerSession, http::v2::server::H2Options},
    server::{ShutdownWatch, configuration::ServerConf},
    services::listening::Service,
};
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::{
    sync::{Notify, watch},
    time::{sleep_until, timeout_at},
};

use self::{caps::Place, client::Client, door::Door};
use crate::{config::listener::ProxyProtocol, deadline::Clock, exchange, live::Live};

mod caps;
mod client;
mod door;
mod farewell;
pub mod http1;
pub mod http2;
pub mod ports;
mod proxied;
mod refusal;
mod timer;
pub mod tls;

/// What a connection's socket buffers. Reading needs none: a head is read where it is parsed, a body in large pieces. Writing gathers
/// an answer's head and a short body into one segment.
const BUFFERS: (usize, usize) = (0, 8 << 10);

/// The listeners of a configuration, with the gateway behind them.
pub fn service<G>(live: &Arc<Live>, conf: &Arc<ServerConf>, gateway: G) -> Service<Edge<G>>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    let mut listeners = Listeners::new();
    let mut doors = Vec::new();
    for (name, listener) in &live.started_with().listeners {
        listeners.add_listener(ports::endpoint(listener).l4_buffer(L4BufferSettings::new(BUFFERS.0, BUFFERS.1)));
        doors.push(Arc::new(Door::new(name, listener, live)));
    }
    let mut options = HttpServerOptions::default();
    // Else Pingora answers CONNECT itself, before any hook: bare and unlogged. The hooks refuse it.
    options.allow_connect_method_proxying = true;
    let mut proxy = HttpProxy::new(gateway, conf.clone());
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    Service::with_listeners("gateway".to_owned(), listeners, Edge { proxy: Arc::new(proxy), doors })
}

/// What Pingora's listening service hands connections to.
pub struct Edge<G> {
    proxy: Arc<HttpProxy<G>>,
    doors: Vec<Arc<Door>>,
}

/// Why a connection comes to nothing before its first request: the `reason` of a metric.
type Reason = Cow<'static, str>;

impl<G> Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    fn door(&self, stream: &Stream) -> Option<&Arc<Door>> {
        let digest = stream.get_socket_digest()?;
        let local = digest.local_addr()?;
        self.doors.iter().find(|door| ports::is_local(&door.address, local))
    }

    async fn carry(&self, stream: Stream, door: &Arc<Door>, shutdown: &ShutdownWatch) -> Result<(), Reason> {
        let mut place = door.caps.enter().map_err(|full| full.reason())?;
        let opened = Instant::now();
        let due = opened + door.http1.header_timeout;
        let client = timeout_at(due.into(), open(stream, door, &mut place, due)).await.map_err(|_| "timeout")??;
        let requests = Arc::new(Requests {
            proxy: self.proxy.clone(),
            old_at: door.old_at(opened),
            door: door.clone(),
            carried: AtomicU32::new(0),
            enough: Notify::new(),
        });
        match client.is_http2() {
            true => requests.http2(client, shutdown).await,
            false => requests.http1(client, shutdown).await,
        }
        Ok(())
    }
}

/// From an accepted connection to one that can carry requests.
async fn open(stream: Stream, door: &Arc<Door>, place: &mut Place, due: Instant) -> Result<Client, Reason> {
    let is_trusted = |address: SocketAddr| door.live.snapshot().is_trusted(&address.ip());
    let stream = match door.proxy_protocol {
        ProxyProtocol::Off => stream,
        ProxyProtocol::Required if !is_trusted(peer(&stream)) => return Err("untrusted_proxy".into()),
        ProxyProtocol::Required => proxied::read(stream).await?,
    };
    let peer = peer(&stream);
    if !is_trusted(peer) {
        place.of(peer.ip()).map_err(|full| full.reason())?;
    }
    let stream = match &door.showcase {
        None => stream,
        Some(showcase) => {
            let secured = tls::accept(showcase, stream).await;
            Box::new(secured.map_err(|failure| format!("tls_{}", failure.label()))?)
        }
    };
    Client::meet(stream, door.clone(), due).await.map_err(|_| "closed".into())
}

/// Who connects.
fn peer(stream: &Stream) -> SocketAddr {
    let digest = stream.get_socket_digest();
    let ends = digest.as_ref().map(|digest| (digest.peer_addr(), digest.local_addr()));
    ends.and_then(|(theirs, ours)| exchange::peer(theirs, ours)).unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
}

#[async_trait]
impl<G> ServerApp for Edge<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    /// Carries the connection in a task of its own: the one that this runs in keeps the room that Pingora's handshakes take for as
    /// long as it lasts, which is as much as all of ours.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (edge, door, shutdown) = (self.clone(), self.door(&stream)?.clone(), shutdown.clone());
        let open = door.metrics.accepted();
        tokio::spawn(async move {
            let _open = open;
            if let Err(reason) = edge.carry(stream, &door, &shutdown).await {
                door.metrics.refused(&reason);
            }
        });
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// The requests of one connection.
struct Requests<G> {
    proxy: Arc<HttpProxy<G>>,
    door: Arc<Door>,
    /// When the client is asked to open another connection.
    old_at: Instant,
    carried: AtomicU32,
    /// It has carried as many as it may.
    enough: Notify,
}

impl<G> Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    /// Carries one request after the other. Between them, and until a head is whole, Pingora is not there: what it needs for a
    /// request is more than all else that a connection holds.
    async fn http1(self: Arc<Self>, client: Client, shutdown: &ShutdownWatch) {
        let (mut client, mut settings) = (Box::new(client), None::<HttpPersistentSettings>);
        while self.is_asked(&mut client, shutdown).await {
            let mut session = ServerSession::new_http1(client);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            // How long is waited for the next head is the gate's to say.
            session.set_keepalive((!self.is_last(shutdown)).then_some(0));
            let Some(reused) = self.process_new_http(session, shutdown).await else { return };
            let (stream, kept) = reused.consume();
            let Ok(same) = stream.into_any().downcast::<Client>() else { return };
            (client, settings) = (same, kept);
        }
    }

    /// Waits for the next head; not when the gateway ends.
    async fn is_asked(&self, client: &mut Client, shutdown: &ShutdownWatch) -> bool {
        let mut shutdown = shutdown.clone();
        tokio::select! {
            biased;
            asked = client.is_asked() => asked,
            _ = shutdown.wait_for(|down| *down) => false,
        }
    }

    /// Carries requests until the client leaves, or is asked to: those that go on are carried to their end.
    async fn http2(self: Arc<Self>, client: Client, shutdown: &ShutdownWatch) {
        let (end, ends) = watch::channel(false);
        let mut carrying = std::pin::pin!(self.process_new(Box::new(client), &ends));
        let mut shutdown = shutdown.clone();
        tokio::select! {
            biased;
            _ = &mut carrying => return,
            _ = shutdown.wait_for(|down| *down) => {}
            () = self.enough.notified() => {}
            () = sleep_until(self.old_at.into()) => {}
        }
        end.send_replace(true);
        carrying.await;
    }

    /// Whether the next request is to be the connection's last.
    fn is_last(&self, shutdown: &ShutdownWatch) -> bool {
        let enough = |most| self.carried.load(Relaxed) + 1 >= most;
        *shutdown.borrow() || Instant::now() >= self.old_at || self.door.requests_per_connection.is_some_and(enough)
    }
}

#[async_trait]
impl<G> HttpServerApp for Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn process_new_http(self: &Arc<Self>, session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        let carried = self.carried.fetch_add(1, Relaxed) + 1;
        if self.door.requests_per_connection.is_some_and(|most| carried >= most) {
            self.enough.notify_one();
        }
        Clock::drive(self.door.terms, self.proxy.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.door.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.door.options)
    }
}
