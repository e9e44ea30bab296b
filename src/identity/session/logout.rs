//! How a session ends before its time.

use http::{HeaderValue, Method};
use reqwest::Url;
use serde_json::Value;

use super::{Fault, Login, Session, Step, Visit, address, cookie, ended::Which, seconds};
use crate::caller::Reason;

/// Largest back-channel logout request, in bytes: a form with one token.
const LOGOUT_MAX: usize = 32 << 10;

impl Login {
    /// The person signs out, here and at the provider (OpenID Connect RP-Initiated Logout 1.0).
    pub(super) async fn logout(&self, visit: &Visit<'_>) -> Step {
        let session = self.session(visit);
        let now = seconds(visit.now);
        if let Some(session) = &session {
            self.ended.end(Which::Own(&session.ticket.id), now, now.saturating_add(self.settings.lifetime.as_secs()), now);
        }
        let cookies = cookie::drop(visit.headers, self.settings.cookie.on(visit.channel), visit.channel);
        let there = match self.provider.endpoints().await {
            Ok(endpoints) => endpoints.end_session.as_ref().map(|end| self.farewell(end, session.as_ref())),
            Err(_) => None,
        };
        let here = self.settings.after_logout.as_ref().map(|url| url.as_str().to_owned());
        match there.or(here).and_then(|to| HeaderValue::try_from(to).ok()) {
            Some(to) => Step::Redirect { to, cookies },
            None => Step::Done { cookies },
        }
    }

    fn farewell(&self, end: &Url, session: Option<&Session>) -> String {
        let mut fields = vec![("client_id", &*self.client.id)];
        fields.extend(session.map(|session| ("id_token_hint", session.ticket.token.as_str())));
        fields.extend(self.settings.after_logout.as_ref().map(|url| ("post_logout_redirect_uri", url.as_str())));
        address::with_query(end, &fields)
    }

    /// The provider ends sessions (OpenID Connect Back-Channel Logout 1.0 §2.6).
    pub(super) async fn backchannel(&self, visit: &Visit<'_>) -> Result<Step, Fault> {
        let body = visit.body.filter(|body| visit.method == Method::POST && body.len() <= LOGOUT_MAX);
        let form = body.and_then(|body| std::str::from_utf8(body).ok()).ok_or(Fault::LogoutToken)?;
        let token = address::only(form, "logout_token").ok().flatten().ok_or(Fault::LogoutToken)?;
        let verified = self.logout_tokens.authenticate(token.as_bytes(), || visit.now).await;
        let verified = verified.map_err(|refusal| match refusal {
            Reason::Unavailable => Fault::Unavailable,
            _ => Fault::LogoutToken,
        })?;
        let claims = &verified.claims.all;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let event = claims.get("events").and_then(|events| events.get("http://schemas.openid.net/event/backchannel-logout"));
        let issued = claims.get("iat").and_then(Value::as_u64).ok_or(Fault::LogoutToken)?;
        if !event.is_some_and(Value::is_object) || claims.contains_key("nonce") || text("jti").is_none() {
            return Err(Fault::LogoutToken);
        }
        let which = text("sid").map(Which::Sid).or_else(|| text("sub").map(Which::Sub)).ok_or(Fault::LogoutToken)?;
        let now = seconds(visit.now);
        // A token that is sent again later ends nothing that began after it.
        let at = issued.min(now);
        self.ended.end(which, at, now.saturating_add(self.settings.lifetime.as_secs()), now);
        Ok(Step::Done { cookies: Vec::new() })
    }
}
