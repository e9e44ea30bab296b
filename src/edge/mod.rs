//! Between the socket and `ProxyHttp`. Pingora's own listening service accepts; what it hands over goes through here: a place among
//! the connections of its listener, the PROXY protocol's header, TLS, and then its requests, each under its clock.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::StatusCode;
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
    task::unconstrained,
    time::{sleep, sleep_until, timeout_at},
};

use self::{
    caps::Place,
    client::Client,
    door::{Door, FIELDS_MAX},
};
use crate::{
    config::listener::ProxyProtocol,
    deadline::{Clock, Timer},
    exchange,
    live::{Live, Stage},
};

mod caps;
mod client;
mod door;
mod farewell;
mod gather;
pub mod http1;
pub mod http2;
mod patience;
pub mod ports;
mod proxied;
mod refusal;
pub mod tls;
mod websocket;

pub use self::websocket::PARTING_MAX;

/// What a connection's socket buffers. Reading needs none: a head is read where it is parsed, a body in large pieces. What is written
/// is gathered by [`gather`].
const BUFFERS: (usize, usize) = (0, 0);

/// Longest silence on an HTTP/2 connection without a request that is to close after GOAWAY.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// The listeners of a configuration, with the gateway behind them.
pub fn service<G>(live: &Arc<Live>, conf: &Arc<ServerConf>, gateway: G) -> (Service<Edge<G>>, Doors)
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
    let edge = Edge { proxy: Arc::new(proxy), doors: doors.clone() };
    (Service::with_listeners("gateway".to_owned(), listeners, edge), Doors(doors))
}

/// What Pingora's listening service hands connections to.
pub struct Edge<G> {
    proxy: Arc<HttpProxy<G>>,
    doors: Vec<Arc<Door>>,
}

/// The listeners, to be asked how they do.
pub struct Doors(Vec<Arc<Door>>);

impl Doors {
    /// Why new connections are better made elsewhere; empty if they are not.
    pub fn overloaded(&self) -> Vec<String> {
        let full = self.0.iter().filter(|door| door.caps.is_full());
        full.map(|door| format!("listener `{}` is full: it has as many connections as `limits.connections` allows", door.name))
            .collect()
    }
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

    async fn carry(&self, stream: Stream, door: &Arc<Door>) -> Result<(), Reason> {
        let mut place = door.caps.enter().map_err(|full| full.reason())?;
        let opened = Instant::now();
        let due = opened + door.http1.header_timeout;
        // Boxed: what a handshake needs is more than all that the connection needs for the rest of its life.
        let opening = Box::pin(open(stream, door, &mut place, due));
        let mut client = tokio::select! {
            biased;
            client = timeout_at(due.into(), opening) => client.map_err(|_| "timeout")??,
            () = lull(door) => return Err("draining".into()),
        };
        let fallen = client.fallen();
        let requests = Requests {
            proxy: self.proxy.clone(),
            door: door.clone(),
            carried: AtomicU32::new(0),
            open: AtomicU32::new(0),
            timer: Mutex::default(),
            heads: AtomicUsize::new(0),
            end: watch::Sender::new(false),
        };
        Arc::new(requests).carry(client, door.old_at(opened)).await;
        if let Ok(fallen) = fallen.await {
            fallen.part().await;
        }
        Ok(())
    }
}

/// Returns when a connection on which nothing has come is to close because the process ends.
async fn lull(door: &Door) {
    if door.live.stages().wait_for(|stage| *stage >= Stage::Closing).await.is_ok() {
        sleep(http1::LULL).await;
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

/// What a field counts beside its name and value, in bytes (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

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
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let Some(door) = self.door(&stream) else {
            tracing::error!(?stream, "a connection came by no listener of the configuration");
            return None;
        };
        let (_open, _held) = (door.metrics.accepted(), door.live.stores().hold());
        if let Err(reason) = self.carry(stream, door).await {
            door.metrics.refused(&reason);
        }
        None
    }
}

/// The requests of one connection.
struct Requests<G> {
    proxy: Arc<HttpProxy<G>>,
    door: Arc<Door>,
    carried: AtomicU32,
    /// Requests that are being carried.
    open: AtomicU32,
    /// What the clock of a request needs, handed on from one to the next over HTTP/1, where all are of one task.
    timer: Mutex<Timer>,
    /// Bytes of their header lists, over HTTP/2.
    heads: AtomicUsize,
    /// The client is to open another connection: an answer over HTTP/1 says `Connection: close`, HTTP/2 says GOAWAY, and what goes
    /// on is carried to its end. Pingora takes it for the end of the process, which would have it do the same.
    end: watch::Sender<bool>,
}

impl<G> Requests<G>
where
    G: ProxyHttp + Send + Sync + 'static,
    G::CTX: Send + Sync,
{
    async fn carry(self: Arc<Self>, client: Client, old_at: Instant) {
        let ends = self.end.subscribe();
        let mut stages = self.door.live.stages();
        let (is_http2, writes) = (client.is_http2(), client.writes());
        let mut carrying = std::pin::pin!(async {
            match is_http2 {
                true => drop(self.process_new(Box::new(client), &ends).await),
                false => self.one_by_one(client, &ends).await,
            }
        });
        if self.outlives(&mut stages, old_at, carrying.as_mut()).await {
            return;
        }
        self.end.send_replace(true);
        let mut heard = None;
        loop {
            // Each stage wakes what is carried, which looks at it.
            tokio::select! {
                biased;
                () = &mut carrying => return,
                _ = stages.changed() => {}
                // A client that does not take leave, because it is gone maybe, is not waited for.
                () = sleep(LEAVE_MAX), if is_http2 => {
                    let taken = Some(writes.load(Relaxed));
                    if self.open.load(Relaxed) == 0 && heard == taken {
                        return;
                    }
                    heard = taken;
                }
            }
        }
    }

    /// Whether what is carried ends before its connection is to close.
    async fn outlives(&self, stages: &mut watch::Receiver<Stage>, old_at: Instant, mut carrying: Pin<&mut impl Future>) -> bool {
        let mut closing = std::pin::pin!(stages.wait_for(|stage| *stage >= Stage::Closing));
        let mut old = std::pin::pin!(sleep_until(old_at.into()));
        let mut woken: Option<Waker> = None;
        std::future::poll_fn(|cx| {
            if carrying.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            // Both wake this task when it is time. Looked at whenever it wakes, they would cost as much as finding a route. Each stage
            // wakes it once, so from the first on they are looked at.
            let is_time = self.door.live.is(Stage::Leaving) || old.is_elapsed();
            if !is_time && woken.as_ref().is_some_and(|woken| woken.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            woken = Some(cx.waker().clone());
            // Without regard to the budget of the turn, with none of which left they would not wake us.
            let ends = Pin::new(&mut unconstrained(closing.as_mut())).poll(cx).is_ready()
                || Pin::new(&mut unconstrained(old.as_mut())).poll(cx).is_ready();
            if ends { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    fn timer(&self) -> MutexGuard<'_, Timer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one request after the other. Between them, and until a head is whole, Pingora is not there: what it needs for a
    /// request is more than all else that a connection holds. How long is waited for a head is the gate's to say.
    async fn one_by_one(self: &Arc<Self>, client: Client, ends: &ShutdownWatch) {
        let (mut client, mut settings) = (Box::new(client), None::<HttpPersistentSettings>);
        while client.is_asked().await {
            let Some(reused) = self.process_new_http(session(client, settings), ends).await else { return };
            let (stream, kept) = reused.consume();
            let Ok(same) = stream.into_any().downcast::<Client>() else { return };
            (client, settings) = (same, kept);
        }
    }
}

/// One request's session. Apart, so that a connection that waits for a head has no room for it.
fn session(client: Box<Client>, settings: Option<HttpPersistentSettings>) -> ServerSession {
    let mut session = ServerSession::new_http1(client);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session.set_keepalive(Some(0));
    session
}

impl<G> Requests<G> {
    /// Holds a request's header list, if it has no more fields than over HTTP/1 and the connection may hold that much more.
    fn heads_with(&self, session: &ServerSession) -> Option<Held<'_>> {
        let fields = &session.req_header().headers;
        if fields.len() > FIELDS_MAX {
            return None;
        }
        let size = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
        let held = Held { all: &self.heads, size };
        (self.heads.fetch_add(size, Relaxed).saturating_add(size) <= self.door.heads_max).then_some(held)
    }

    async fn refuse_head(&self, mut session: ServerSession) -> Option<ReusedHttpStream> {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
        self.door.metrics.refused_head("http2_fields", status);
        // A client that is gone has no use for it.
        let _ = session.respond_error(status).await;
        None
    }
}

/// Bytes of the connection's header lists, until they are let go.
struct Held<'a> {
    all: &'a AtomicUsize,
    size: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.size, Relaxed);
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
        let _open = Counted::one_more(&self.open);
        let is_http2 = matches!(session, ServerSession::H2(_));
        let head = is_http2.then(|| self.heads_with(&session));
        if let Some(None) = head {
            return Box::pin(self.refuse_head(session)).await;
        }
        // Over HTTP/2 requests are carried side by side, and each has a timer of its own.
        let mut timer = if is_http2 { Timer::default() } else { std::mem::take(&mut *self.timer()) };
        // One place for both: this future is moved, with all its room.
        let reused = Clock::drive(self.door.terms, &mut timer, self.proxy.process_new_http(session, shutdown)).await;
        if !is_http2 {
            *self.timer() = timer;
        }
        reused
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.door.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.door.options)
    }
}

/// One more, until it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn one_more(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
