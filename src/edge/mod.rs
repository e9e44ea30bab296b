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
    sync::watch,
    time::{sleep_until, timeout, timeout_at},
};

use self::{caps::Place, client::Client, door::Door};
use crate::{config::listener::ProxyProtocol, deadline::Clock, exchange, live::Live};

mod caps;
mod client;
mod door;
mod farewell;
pub mod http1;
pub mod http2;
mod patience;
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
        let mut client = timeout_at(due.into(), open(stream, door, &mut place, due)).await.map_err(|_| "timeout")??;
        let fallen = client.fallen();
        let requests = Requests {
            proxy: self.proxy.clone(),
            door: door.clone(),
            carried: AtomicU32::new(0),
            going_on: AtomicU32::new(0),
            end: watch::Sender::new(false),
        };
        Arc::new(requests).carry(client, door.old_at(opened), shutdown).await;
        if let Ok(fallen) = fallen.await {
            fallen.part().await;
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
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Some(door) = self.door(&stream) else {
            tracing::error!(?stream, "a connection came by no listener of the configuration");
            return None;
        };
        let _open = door.metrics.accepted();
        if let Err(reason) = self.carry(stream, door, shutdown).await {
            door.metrics.refused(&reason);
        }
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
    carried: AtomicU32,
    /// Requests that have not ended, and one over HTTP/1 that may still begin.
    going_on: AtomicU32,
    /// The client is to open another connection: an answer over HTTP/1 says `Connection: close`, HTTP/2 says GOAWAY, and what goes
    /// on is carried to its end. Pingora takes it for the end of the process, which would have it do the same.
    end: watch::Sender<bool>,
}

impl<G> Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn carry(self: Arc<Self>, client: Client, old_at: Instant, shutdown: &ShutdownWatch) {
        let ends = self.end.subscribe();
        let mut carrying = std::pin::pin!(async {
            match client.is_http2() {
                true => drop(self.process_new(Box::new(client), &ends).await),
                false => self.one_by_one(client, &ends, shutdown.clone()).await,
            }
        });
        let mut shutdown = shutdown.clone();
        tokio::select! {
            biased;
            () = &mut carrying => return,
            _ = shutdown.wait_for(|down| *down) => {}
            () = sleep_until(old_at.into()) => {}
        }
        self.end.send_replace(true);
        // Pingora waits without end for a client of HTTP/2 to agree.
        while timeout(self.door.http1.keepalive, &mut carrying).await.is_err() {
            if self.going_on.load(Relaxed) == 0 {
                return;
            }
        }
    }

    /// Carries one request after the other. Between them, and until a head is whole, Pingora is not there: what it needs for a
    /// request is more than all else that a connection holds. How long is waited for a head is the gate's to say.
    async fn one_by_one(self: &Arc<Self>, client: Client, ends: &ShutdownWatch, mut shutdown: ShutdownWatch) {
        let (mut client, mut settings) = (Box::new(client), None::<HttpPersistentSettings>);
        while is_asked(&mut client, &mut shutdown).await {
            let mut session = ServerSession::new_http1(client);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            session.set_keepalive(Some(0));
            let Some(reused) = self.process_new_http(session, ends).await else { return };
            let (stream, kept) = reused.consume();
            let Ok(same) = stream.into_any().downcast::<Client>() else { return };
            (client, settings) = (same, kept);
        }
    }
}

/// Waits for the next head; not when the gateway ends.
async fn is_asked(client: &mut Client, shutdown: &mut ShutdownWatch) -> bool {
    tokio::select! {
        biased;
        asked = client.is_asked() => asked,
        _ = shutdown.wait_for(|down| *down) => false,
    }
}

/// Counts for as long as it is held.
struct GoingOn<'a>(&'a AtomicU32);

impl<'a> GoingOn<'a> {
    fn of(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for GoingOn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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
            self.end.send_replace(true);
        }
        let _going_on = GoingOn::of(&self.going_on);
        Clock::drive(self.door.terms, self.proxy.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.door.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.door.options)
    }
}
