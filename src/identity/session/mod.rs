//! People who sign in with a browser: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636).
//!
//! Reading order: [`Login::step`] is a browser's way, request by request; each gives a [`Step`]. What has to be known from one to the
//! next the browser keeps itself, sealed (`seal`, `cookie`, `ticket`); `provider` talks to who vouches for people; `ended` knows sessions
//! that ended early, `logout` ends them, `refresh` lets one request renew a session for all.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::Url;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use self::{
    cookie::Channel,
    ended::{Ended, Which},
    provider::{Client, Provider, Tokens},
    refresh::{Renewals, Turn},
    seal::Seals,
    ticket::{Begun, random},
};
use super::{
    fields::Forward,
    jwt::{Jwt, Keys},
    token::Moment,
};
use crate::caller::{ClaimPath, Claims, Reason, words};

pub mod cookie;
pub mod ended;
pub mod provider;
pub mod seal;
mod address;
mod logout;
mod refresh;
mod ticket;

pub use self::ticket::{Session, Ticket};

/// Longest time from the first redirect to the callback.
const LOGIN_MAX: Duration = Duration::from_secs(600);

/// Most logins that one browser has begun and not ended: tabs. With more, all are forgotten but the last.
const BEGUN_MAX: usize = 5;

/// What is asked of a login.
pub struct Settings {
    /// Scopes with spaces between, `openid` among them.
    pub scopes: Box<str>,
    /// Where the provider sends the browser back to: an address of ours, as it is registered with the provider.
    pub redirect: Url,
    /// The path that ends a session.
    pub logout: Option<Box<str>>,
    /// Where the browser goes after that.
    pub after_logout: Option<Url>,
    /// The path at which the provider tells of ended sessions.
    pub backchannel: Option<Box<str>>,
    pub cookie: cookie::Name,
    /// Longest session.
    pub lifetime: Duration,
    /// Longest time without a request.
    pub idle: Duration,
    /// By how much the provider's clock and ours may differ.
    pub leeway: Duration,
    /// Where the roles of a person stand.
    pub roles: ClaimPath,
    /// What services are told of a person.
    pub forward: Forward,
}

/// One way to sign in.
pub struct Login {
    settings: Settings,
    seals: Seals,
    client: Client,
    provider: Provider,
    /// Verifies ID tokens, and logout tokens, with the same keys.
    id_tokens: Jwt,
    logout_tokens: Jwt,
    ended: Arc<Ended>,
    renewals: Renewals,
}

/// What a login is made of.
pub struct Parts {
    pub settings: Settings,
    pub seals: Seals,
    pub client: Client,
    pub provider: Provider,
    pub id_tokens: Jwt,
    pub logout_tokens: Jwt,
    /// Outlives the configuration.
    pub ended: Arc<Ended>,
}

/// A request, as far as it concerns a login.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    pub method: &'a Method,
    pub channel: Channel,
    /// Normalised.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// As it came: where to go back to.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    /// Of a back-channel logout.
    pub body: Option<&'a [u8]>,
    pub now: SystemTime,
}

/// What happens next.
#[derive(Debug)]
pub enum Step {
    /// The browser has a session.
    Session {
        session: Box<Session>,
        cookies: Vec<HeaderValue>,
    },
    /// It is sent elsewhere.
    Redirect {
        to: HeaderValue,
        cookies: Vec<HeaderValue>,
    },
    /// There is nothing more to do: a session was ended.
    Done {
        cookies: Vec<HeaderValue>,
    },
    /// There is no session, and this request can begin none.
    Anonymous,
    Failed(Fault),
}

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It answers no login that this browser has begun: forged, late, or twice.
    #[error("the answer belongs to no login that was begun here")]
    Unasked,
    /// The answer is another provider's (RFC 9207), or names none where it must.
    #[error("the answer is not of the provider that was asked")]
    MixedUp,
    /// The provider, or the person there, said no.
    #[error("the provider denied the login")]
    Denied,
    /// What the provider says of the person does not hold.
    #[error("the ID token is not good: {}", .0.word())]
    Token(Reason),
    /// The ID token is of another login, or for another client.
    #[error("the ID token is not of this login")]
    OtherLogin,
    /// A logout token that is none.
    #[error("the logout token is not good")]
    LogoutToken,
    /// The session or the grant behind it is over.
    #[error("the provider ended the grant")]
    Ended,
    #[error("the provider cannot be reached")]
    Unavailable,
    /// What would have to be kept is longer than cookies can be.
    #[error("the session is too large for cookies")]
    TooLarge,
}

impl Fault {
    /// A short word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::MixedUp => "mixed_up",
            Self::Denied => "denied",
            Self::Token(reason) => reason.word(),
            Self::OtherLogin => "other_login",
            Self::LogoutToken => "logout_token",
            Self::Ended => "ended",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too_large",
        }
    }
}

impl Login {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { settings, seals, client, provider, id_tokens, logout_tokens, ended } = parts;
        Arc::new(Self { settings, seals, client, provider, id_tokens, logout_tokens, ended, renewals: Renewals::default() })
    }

    /// Whether a request is for one of our own paths.
    pub fn owns(&self, path: &str) -> bool {
        path == self.settings.redirect.path() || self.is_logout(path) || self.is_backchannel(path)
    }

    /// Whether the provider speaks at this path, with a body.
    pub fn is_backchannel(&self, path: &str) -> bool {
        self.settings.backchannel.as_deref() == Some(path)
    }

    fn is_logout(&self, path: &str) -> bool {
        self.settings.logout.as_deref() == Some(path)
    }

    /// Whether a cookie is ours, and no service's.
    pub fn owns_cookie(&self, cookie: &str) -> bool {
        self.settings.cookie.owns(cookie)
    }

    /// Header fields that are the gateway's word.
    pub fn forward(&self) -> &Forward {
        &self.settings.forward
    }

    /// Sessions that ended early, which a new configuration takes over.
    pub fn ended(&self) -> &Arc<Ended> {
        &self.ended
    }

    /// What browsers keep it in.
    pub fn cookie(&self) -> &cookie::Name {
        &self.settings.cookie
    }

    /// The keys by which it verifies what the provider says.
    pub fn keys(&self) -> &Arc<Keys> {
        self.id_tokens.keys()
    }

    /// A browser's next step.
    pub async fn step(self: &Arc<Self>, visit: &Visit<'_>) -> Step {
        let done = if visit.path == self.settings.redirect.path() {
            self.callback(visit).await
        } else if self.is_backchannel(visit.path) {
            self.backchannel(visit).await
        } else if self.is_logout(visit.path) {
            Ok(self.logout(visit).await)
        } else {
            self.page(visit).await
        };
        done.unwrap_or_else(Step::Failed)
    }

    /// Any other page: for those who have a session.
    async fn page(self: &Arc<Self>, visit: &Visit<'_>) -> Result<Step, Fault> {
        let Some(session) = self.session(visit) else { return self.begin(visit).await };
        let now = seconds(visit.now);
        let renewed = match (&session.ticket.refresh, now >= session.ticket.renew) {
            (Some(_), true) => match self.renew(&session.ticket, now).await {
                Err(Fault::Ended) => return self.begin(visit).await,
                renewed => Some(renewed?),
            },
            // Written anew seldom: each time is a header field more.
            _ if now >= session.ticket.seen.saturating_add(self.settings.idle.as_secs() / 10) => Some(session.ticket.clone()),
            _ => None,
        };
        let Some(ticket) = renewed.map(|ticket| Ticket { seen: now, ..ticket }) else {
            return Ok(Step::Session { session: Box::new(session), cookies: Vec::new() });
        };
        let cookies = self.kept(visit, &ticket)?;
        let claims = ticket.claims().ok_or(Fault::Ended)?;
        Ok(Step::Session { session: Box::new(self.known(ticket, claims)), cookies })
    }

    /// The session that a browser has, if it is still one.
    fn session(&self, visit: &Visit<'_>) -> Option<Session> {
        let sealed = cookie::whole(visit.headers, self.settings.cookie.on(visit.channel))?;
        let ticket = Ticket::open(&self.seals, &sealed)?;
        if seconds(visit.now) >= ticket.until(self.settings.lifetime, self.settings.idle) {
            return None;
        }
        let claims = ticket.claims()?;
        if self.is_ended(&ticket, &claims) {
            return None;
        }
        Some(self.known(ticket, claims))
    }

    fn known(&self, ticket: Ticket, all: Map<String, Value>) -> Session {
        let mut claims = Claims::new(all);
        claims.roles = self.settings.roles.find(&claims.all).map(words).unwrap_or_default();
        Session { ticket, fields: self.settings.forward.fields(&claims.all), claims: Arc::new(claims) }
    }

    fn is_ended(&self, ticket: &Ticket, claims: &Map<String, Value>) -> bool {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let own = std::iter::once(Which::Own(&ticket.id));
        let theirs = text("sid").map(Which::Sid).into_iter().chain(text("sub").map(Which::Sub));
        self.ended.is_ended(ticket.started, own.chain(theirs))
    }

    fn kept(&self, visit: &Visit<'_>, ticket: &Ticket) -> Result<Vec<HeaderValue>, Fault> {
        let sealed = ticket.sealed(&self.seals).ok_or(Fault::Unavailable)?;
        let life = ticket.until(self.settings.lifetime, self.settings.idle).saturating_sub(seconds(visit.now));
        let name = self.settings.cookie.on(visit.channel);
        cookie::keep(visit.headers, name, &sealed, Duration::from_secs(life), visit.channel).ok_or(Fault::TooLarge)
    }

    /// Sends a person to the provider; programs are told that they have no session.
    async fn begin(&self, visit: &Visit<'_>) -> Result<Step, Fault> {
        if !is_navigation(visit) {
            return Ok(Step::Anonymous);
        }
        let endpoints = self.provider.endpoints().await?;
        let back = if self.owns(visit.path) { "/" } else { address::way_back(visit.target) };
        let begun = Begun::new(back, seconds(visit.now)).ok_or(Fault::Unavailable)?;
        let challenge = begun.challenge();
        let to = address::with_query(
            &endpoints.authorization,
            &[
                ("response_type", "code"),
                ("client_id", &self.client.id),
                ("redirect_uri", self.settings.redirect.as_str()),
                ("scope", &self.settings.scopes),
                ("state", &begun.state),
                ("nonce", &begun.nonce),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ],
        );
        let sealed = begun.sealed(&self.seals).ok_or(Fault::Unavailable)?;
        let mut cookies = self.forget_begun(visit);
        let name = self.begun_name(visit.channel, &begun.state);
        cookies.extend(cookie::keep(visit.headers, &name, &sealed, LOGIN_MAX, visit.channel).ok_or(Fault::TooLarge)?);
        redirect(&to, cookies)
    }

    /// Each login has its own cookie, so that tabs do not disturb each other.
    fn begun_name(&self, channel: Channel, state: &str) -> String {
        format!("{}-{}", self.settings.cookie.on(channel), state.get(..cookie::LOGIN_LEN).unwrap_or(state))
    }

    fn forget_begun(&self, visit: &Visit<'_>) -> Vec<HeaderValue> {
        let prefix = format!("{}-", self.settings.cookie.on(visit.channel));
        let begun: Vec<&str> =
            cookie::pairs(visit.headers).map(|(name, _)| name).filter(|name| name.starts_with(&prefix)).collect();
        match begun.len() {
            n if n < BEGUN_MAX => Vec::new(),
            _ => begun.into_iter().flat_map(|name| cookie::drop(visit.headers, name, visit.channel)).collect(),
        }
    }

    /// The provider sent the browser back.
    async fn callback(self: &Arc<Self>, visit: &Visit<'_>) -> Result<Step, Fault> {
        let query = visit.query.unwrap_or_default();
        let one = |name| address::only(query, name).map_err(|_| Fault::Unasked);
        if visit.method != Method::GET {
            return Err(Fault::Unasked);
        }
        let begun = self.begun(visit, &one("state")?.ok_or(Fault::Unasked)?)?;
        let endpoints = self.provider.endpoints().await?;
        match one("iss")? {
            Some(issuer) if issuer != *self.provider.issuer => return Err(Fault::MixedUp),
            None if endpoints.names_itself => return Err(Fault::MixedUp),
            _ => {}
        }
        if one("error")?.is_some() {
            return Err(Fault::Denied);
        }
        let code = one("code")?.ok_or(Fault::Unasked)?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.settings.redirect.as_str()),
            ("code_verifier", &begun.verifier),
        ];
        let tokens = self.provider.tokens(&endpoints, &self.client, &fields).await;
        let tokens = tokens.map_err(|fault| if fault == Fault::Ended { Fault::Denied } else { fault })?;
        let ticket = self.admitted(tokens, &begun, visit.now).await?;
        let mut cookies = self.kept(visit, &ticket)?;
        cookies.extend(cookie::drop(visit.headers, &self.begun_name(visit.channel, &begun.state), visit.channel));
        redirect(&begun.back, cookies)
    }

    /// The login that an answer is to.
    fn begun(&self, visit: &Visit<'_>, state: &str) -> Result<Begun, Fault> {
        let sealed = cookie::value(visit.headers, &self.begun_name(visit.channel, state)).ok_or(Fault::Unasked)?;
        let begun = Begun::open(&self.seals, sealed).ok_or(Fault::Unasked)?;
        let late = seconds(visit.now) >= begun.at.saturating_add(LOGIN_MAX.as_secs());
        match !late && bool::from(begun.state.as_bytes().ct_eq(state.as_bytes())) {
            true => Ok(begun),
            false => Err(Fault::Unasked),
        }
    }

    /// A session for whom the ID token names (OpenID Connect Core 1.0 §3.1.3.7).
    async fn admitted(&self, tokens: Tokens, begun: &Begun, now: SystemTime) -> Result<Ticket, Fault> {
        let token = tokens.id_token.ok_or(Fault::OtherLogin)?;
        let verified = self.id_tokens.authenticate(token.as_bytes(), || now).await.map_err(token_fault)?;
        let claims = &verified.claims.all;
        let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        let party = claims.get("azp").is_none_or(|party| *party == *self.client.id);
        let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audience| audience.len() > 1);
        if !bool::from(nonce.as_bytes().ct_eq(begun.nonce.as_bytes())) || !party || (several && !claims.contains_key("azp")) {
            return Err(Fault::OtherLogin);
        }
        let now = seconds(now);
        let renew = renewal(now, tokens.expires_in);
        let id = random().ok_or(Fault::Unavailable)?;
        Ok(Ticket { id, token, refresh: tokens.refresh, started: now, seen: now, renew })
    }

    /// Renews a session once, for all requests that bring it. It goes on when the one that began it is gone.
    async fn renew(self: &Arc<Self>, ticket: &Ticket, now: u64) -> Result<Ticket, Fault> {
        let Some(token) = &ticket.refresh else { return Err(Fault::Ended) };
        let mut outcome = match self.renewals.turn(token, now) {
            Turn::Wait(outcome) => outcome,
            Turn::Go(tell, outcome) => {
                let (login, ticket) = (self.clone(), ticket.clone());
                tokio::spawn(async move {
                    let renewed = login.renewed(ticket, now).await;
                    tell.send_replace(Some(renewed));
                });
                outcome
            }
            Turn::Full => return Err(Fault::Ended),
        };
        let told = outcome.wait_for(Option::is_some).await.map_err(|_| Fault::Unavailable)?;
        told.clone().unwrap_or(Err(Fault::Unavailable))
    }

    async fn renewed(&self, ticket: Ticket, now: u64) -> Result<Ticket, Fault> {
        let endpoints = self.provider.endpoints().await?;
        let refresh = ticket.refresh.clone().ok_or(Fault::Ended)?;
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
        let tokens = self.provider.tokens(&endpoints, &self.client, &fields).await?;
        let token = match tokens.id_token {
            Some(token) => self.same_person(&ticket, token, now).await?,
            None => ticket.token,
        };
        let renew = renewal(now, tokens.expires_in);
        Ok(Ticket { token, refresh: tokens.refresh.or(Some(refresh)), renew, ..ticket })
    }

    /// A new ID token must be of the same person and login (OpenID Connect Core 1.0 §12.2).
    async fn same_person(&self, ticket: &Ticket, token: String, now: u64) -> Result<String, Fault> {
        let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let verified = self.id_tokens.authenticate(token.as_bytes(), clock).await.map_err(token_fault)?;
        let before = ticket.claims().ok_or(Fault::Ended)?;
        let same = |name: &str| verified.claims.all.get(name) == before.get(name);
        let nonce = verified.claims.all.get("nonce").is_none_or(|nonce| Some(nonce) == before.get("nonce"));
        if same("sub") && same("iss") && nonce { Ok(token) } else { Err(Fault::Ended) }
    }
}

fn token_fault(reason: Reason) -> Fault {
    match reason {
        Reason::Unavailable => Fault::Unavailable,
        other => Fault::Token(other),
    }
}

fn redirect(to: &str, cookies: Vec<HeaderValue>) -> Result<Step, Fault> {
    let to = HeaderValue::try_from(to).map_err(|_| Fault::Unavailable)?;
    Ok(Step::Redirect { to, cookies })
}

/// A little before the access token ends, and never at once.
fn renewal(now: u64, expires_in: Option<u64>) -> u64 {
    expires_in.map_or(u64::MAX, |life| now.saturating_add(life.saturating_sub(life / 10).max(5)))
}

fn seconds(now: SystemTime) -> u64 {
    Moment::from(now).seconds()
}

/// Whether a person waits for a page, so that a redirect to the provider is of use. A script would follow it to nowhere.
fn is_navigation(visit: &Visit<'_>) -> bool {
    if !matches!(*visit.method, Method::GET | Method::HEAD) {
        return false;
    }
    let text = |name: &str| visit.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(mode) = text("sec-fetch-mode") {
        return mode == "navigate";
    }
    let page = |accept: &str| accept.contains("text/html") || accept.contains("*/*");
    text("x-requested-with").is_none() && text(header::ACCEPT.as_str()).is_none_or(page)
}

#[cfg(test)]
mod tests;
