//! The operator's side door: health, readiness, metrics, the active configuration, what consumers have used, and a reload for who has the token.
//!
//! `Desk::answer` is all of it and knows no socket; the rest is the shell around it. Listens apart from the traffic, so
//! it answers under overload too. `docs/operations/admin.md` describes every page.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::{apps::http_app::ServeHttp, protocols::http::ServerSession};
use pingora_http::RequestHeader;
use serde_json::json;

use self::{
    answer::{Answer, Problem},
    door::Door,
};
use crate::{config, observe::time};

mod answer;
mod door;

/// Longest wait for the rest of a request or for a slow reader: the door must not be held by one who stands in it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What a consumer has used of quota and rate limits. `None`: there is no such consumer.
pub type Use = dyn Fn(&str) -> Option<serde_json::Value> + Send + Sync;

/// What the pages show and do. The functions are called once a request, off the threads that carry traffic.
pub struct Gateway {
    /// Why the gateway should get no traffic; empty when it should.
    pub not_ready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    pub active: Box<dyn Fn() -> Active + Send + Sync>,
    /// The Prometheus text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Upstreams and their endpoints.
    pub upstreams: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Does to an endpoint what is asked, if there is such a one: says whether.
    pub tend: Box<dyn Fn(&Tend) -> bool + Send + Sync>,
    /// Loads the configuration anew: the new generation, or the mistakes as text.
    pub reload: Box<dyn Fn() -> Result<u64, String> + Send + Sync>,
    pub limits: Box<Use>,
    /// Forgets it, and gives what there is then.
    pub reset_limits: Box<Use>,
}

/// The active configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Active {
    pub generation: u64,
    pub hash: String,
    /// The effective configuration, without its secrets.
    pub config: serde_json::Value,
    /// When the configuration was last loaded, in vain or not.
    pub loaded_at: SystemTime,
    /// The mistakes for which the last load was refused.
    pub error: Option<String>,
    /// Changes that were loaded but apply only after a restart.
    pub waits_for_restart: Vec<String>,
}

/// What an operator wants of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tend {
    pub upstream: String,
    /// Its address.
    pub endpoint: String,
    /// It is to be emptied; else it is to take requests again.
    pub drains: bool,
}

impl Tend {
    /// Of `/upstreams/NAME/ADDRESS/drain`, or `…/resume`.
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("/upstreams/")?.split('/');
        let (upstream, endpoint, deed) = (parts.next()?, parts.next()?, parts.next()?);
        let drains = match (deed, parts.next()) {
            ("drain", None) => true,
            ("resume", None) => false,
            _ => return None,
        };
        Some(Self { upstream: upstream.to_owned(), endpoint: endpoint.to_owned(), drains })
    }
}

/// The admin listener's application.
pub struct App {
    desk: Arc<Desk>,
}

struct Desk {
    door: Door,
    gateway: Gateway,
}

/// What is asked: the parts of a request that matter here.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    /// What the request says it is for: its Host headers, and HTTP/2's `:authority`. Pingora has refused an absolute
    /// target of HTTP/1 that differs from Host.
    hosts: Vec<Vec<u8>>,
    origin: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
}

/// What is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page<'a> {
    Index,
    Health,
    Ready,
    Metrics,
    Config,
    Upstreams,
    Tend,
    Reload,
    /// Of a consumer.
    Limits(&'a str),
    /// Of a consumer's limits.
    Reset(&'a str),
}

impl App {
    pub fn new(config: &config::Admin, gateway: Gateway) -> Self {
        Self { desk: Arc::new(Desk { door: Door::new(config), gateway }) }
    }
}

#[async_trait]
impl ServeHttp for App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_read_timeout(Some(PATIENCE));
        session.set_write_timeout(Some(PATIENCE));
        session.set_total_drain_timeout(Some(PATIENCE));
        let asked = Asked::of(session.req_header());
        let (desk, head) = (self.desk.clone(), asked.method == Method::HEAD);
        // A reload reads files and compiles: not on the thread that answers the next health probe.
        let answer = tokio::task::spawn_blocking(move || desk.answer(&asked)).await;
        answer.unwrap_or_else(fault).into_response(head)
    }
}

fn fault(error: tokio::task::JoinError) -> Answer {
    tracing::error!(%error, "the admin listener could not answer");
    FAULT.into()
}

const FAULT: Problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The gateway could not answer.");

impl Desk {
    fn answer(&self, asked: &Asked) -> Answer {
        self.serve(asked).unwrap_or_else(Answer::from)
    }

    fn serve(&self, asked: &Asked) -> Result<Answer, Problem> {
        self.door.knows(&asked.hosts)?;
        let page = Page::of(&asked.path).ok_or(NOT_FOUND)?;
        page.allows(&asked.method)?;
        match page {
            Page::Index => Ok(Answer::text(INDEX)),
            Page::Health => Ok(Answer::text("ok\n")),
            Page::Ready => Ok(self.ready()),
            Page::Metrics => Ok(Answer::metrics((self.gateway.metrics)())),
            Page::Config => Ok(self.config()),
            Page::Upstreams => Ok(Answer::json(StatusCode::OK, &(self.gateway.upstreams)())),
            Page::Tend => {
                self.door.may_change(asked)?;
                self.tend(&asked.path)
            }
            Page::Reload => {
                self.door.may_change(asked)?;
                self.reload()
            }
            Page::Limits(consumer) => limits((self.gateway.limits)(consumer)),
            Page::Reset(consumer) => {
                self.door.may_change(asked)?;
                limits((self.gateway.reset_limits)(consumer))
            }
        }
    }

    fn ready(&self) -> Answer {
        let reasons = (self.gateway.not_ready)();
        let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
    }

    fn config(&self) -> Answer {
        let active = (self.gateway.active)();
        Answer::json(
            StatusCode::OK,
            &json!({
                "generation": active.generation,
                "hash": active.hash,
                "last_reload": {
                    "at": time::rfc3339(active.loaded_at),
                    "success": active.error.is_none(),
                    "error": active.error,
                },
                "waits_for_restart": active.waits_for_restart,
                "config": active.config,
            }),
        )
    }

    fn tend(&self, path: &str) -> Result<Answer, Problem> {
        match Tend::of(path).is_some_and(|tend| (self.gateway.tend)(&tend)) {
            true => Ok(Answer::json(StatusCode::OK, &(self.gateway.upstreams)())),
            false => Err(NO_ENDPOINT),
        }
    }

    fn reload(&self) -> Result<Answer, Problem> {
        let generation = (self.gateway.reload)().map_err(Problem::refused)?;
        let waits = (self.gateway.active)().waits_for_restart;
        Ok(Answer::json(StatusCode::OK, &json!({ "generation": generation, "waits_for_restart": waits })))
    }
}

fn limits(used: Option<serde_json::Value>) -> Result<Answer, Problem> {
    used.map(|used| Answer::json(StatusCode::OK, &used)).ok_or(NO_CONSUMER)
}

const NO_CONSUMER: Problem = Problem::new(StatusCode::NOT_FOUND, "no_such_consumer", "There is no consumer of this name.");

const NOT_FOUND: Problem = Problem::new(StatusCode::NOT_FOUND, "no_such_page", "There is no such page; `/` lists them.");

const NO_ENDPOINT: Problem =
    Problem::new(StatusCode::NOT_FOUND, "no_such_endpoint", "There is no such endpoint; `/upstreams` lists them.");

const INDEX: &str = "\
Banyan, admin listener

GET  /healthz                        200 as long as the process lives
GET  /readyz                         200 if it should get traffic, else 503 with the reasons
GET  /metrics                        Prometheus metrics
GET  /config                         the active configuration, without secrets
GET  /upstreams                      upstreams and their endpoints: state, requests in flight, latency, why one is out
POST /upstreams/NAME/ADDRESS/drain   the endpoint takes no new requests; needs the bearer token
POST /upstreams/NAME/ADDRESS/resume  it takes them again; needs the bearer token
POST /reload                         loads the configuration anew; needs the bearer token
GET  /limits/CONSUMER                what a consumer has used of its quota and rate limits
POST /limits/CONSUMER/reset          forgets it; needs the bearer token
";

impl<'a> Page<'a> {
    fn of(path: &'a str) -> Option<Self> {
        match path {
            "/" => Some(Self::Index),
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            "/config" => Some(Self::Config),
            "/upstreams" => Some(Self::Upstreams),
            "/reload" => Some(Self::Reload),
            path => match path.strip_prefix("/limits/") {
                Some(rest) => Self::of_consumer(rest),
                None => Tend::of(path).map(|_| Self::Tend),
            },
        }
    }

    fn of_consumer(rest: &'a str) -> Option<Self> {
        match rest.split_once('/') {
            None => Some(Self::Limits(rest)),
            Some((consumer, "reset")) => Some(Self::Reset(consumer)),
            Some(_) => None,
        }
    }

    fn allows(self, method: &Method) -> Result<(), Problem> {
        let refusal = |allow| {
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This page takes other methods.");
            Err(problem.with(header::ALLOW, allow))
        };
        match self {
            Self::Reload | Self::Tend | Self::Reset(_) if *method != Method::POST => refusal("POST"),
            Self::Reload | Self::Tend | Self::Reset(_) => Ok(()),
            _ if *method != Method::GET && *method != Method::HEAD => refusal("GET, HEAD"),
            _ => Ok(()),
        }
    }
}

impl Asked {
    fn of(head: &RequestHeader) -> Self {
        let first = |name| head.headers.get(name).map(|value| value.as_bytes().to_vec());
        let hosts = head.headers.get_all(header::HOST).iter().map(|value| value.as_bytes().to_vec());
        let target = head.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
        Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            hosts: hosts.chain(target).collect(),
            origin: first(header::ORIGIN),
            authorization: first(header::AUTHORIZATION),
        }
    }
}

#[cfg(test)]
mod tests;
