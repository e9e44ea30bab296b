//! Cookies as we write and read them (RFC 6265): bound to the host, out of reach of scripts, in pieces where one would be too long.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderValue, header::COOKIE};

/// Longest value of one cookie, in bytes. Browsers take 4096 with name and attributes.
const VALUE_MAX: usize = 3_800;

/// Most pieces of one value. With the others they make a header section that services still take.
const PIECES_MAX: usize = 5;

/// How much of a login's `state` is in the name of its cookie.
pub const LOGIN_LEN: usize = 8;

/// The name of a cookie, by the scheme on which it is sent: over TLS no other host can have set one of its name.
#[derive(Clone, Debug)]
pub struct Name {
    plain: Box<str>,
    bound: Box<str>,
}

/// How the browser came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    Plain,
    Tls,
}

impl Name {
    pub fn new(name: &str) -> Self {
        Self { plain: name.into(), bound: format!("__Host-{name}").into() }
    }

    pub fn on(&self, channel: Channel) -> &str {
        match channel {
            Channel::Plain => &self.plain,
            Channel::Tls => &self.bound,
        }
    }

    /// Whether a cookie is this one, a piece of it (`.0`), or one of a login that has begun (`-` and eight characters).
    pub fn owns(&self, cookie: &str) -> bool {
        let bare = cookie.strip_prefix("__Host-").unwrap_or(cookie);
        bare.strip_prefix(&*self.plain).is_some_and(|rest| match rest.as_bytes() {
            [] => true,
            [b'.', piece] => piece.is_ascii_digit(),
            [b'-', login @ ..] => login.len() == LOGIN_LEN,
            _ => false,
        })
    }
}

/// All cookies of a request, in their order.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
}

/// The value of a cookie. Of two of one name the first counts: browsers send the one with the longest path first.
pub fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    pairs(headers).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A value that may come in pieces: `name`, or `name.0`, `name.1` and so on.
pub fn whole<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    if let Some(value) = value(headers, name) {
        return Some(value.into());
    }
    let pieces: String = (0..PIECES_MAX).map_while(|piece| value(headers, &format!("{name}.{piece}"))).collect();
    (!pieces.is_empty()).then_some(pieces.into())
}

/// The `Set-Cookie` fields that keep a value, in pieces if need be, and take away what `headers` has of it in another form. `None`:
/// longer than we keep.
pub fn keep(headers: &HeaderMap, name: &str, value: &str, life: Duration, channel: Channel) -> Option<Vec<HeaderValue>> {
    let pieces: Vec<&[u8]> = value.as_bytes().chunks(VALUE_MAX).collect();
    if pieces.len() > PIECES_MAX {
        return None;
    }
    let names: Vec<String> = match pieces.len() {
        0 | 1 => vec![name.to_owned()],
        n => (0..n).map(|piece| format!("{name}.{piece}")).collect(),
    };
    let kept = names.iter().zip(pieces);
    let mut set: Vec<_> =
        kept.filter_map(|(name, piece)| field(name, std::str::from_utf8(piece).ok()?, life.as_secs(), channel)).collect();
    set.extend(others(headers, name, &names).filter_map(|name| field(name, "", 0, channel)));
    Some(set)
}

/// The `Set-Cookie` fields that take a value away, whatever its form.
pub fn drop(headers: &HeaderMap, name: &str, channel: Channel) -> Vec<HeaderValue> {
    others(headers, name, &[]).filter_map(|name| field(name, "", 0, channel)).collect()
}

/// Cookies of the request that are this one or a piece of it, except these.
fn others<'h>(headers: &'h HeaderMap, name: &'h str, except: &'h [String]) -> impl Iterator<Item = &'h str> {
    let is_piece = move |found: &str| match found.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|piece| piece.len() == 1 && piece.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    };
    pairs(headers).map(|(found, _)| found).filter(move |found| is_piece(found) && !except.iter().any(|kept| kept == found))
}

fn field(name: &str, value: &str, life: u64, channel: Channel) -> Option<HeaderValue> {
    let secure = if channel == Channel::Tls { "; Secure" } else { "" };
    let mut field =
        HeaderValue::try_from(format!("{name}={value}; Path=/; Max-Age={life}{secure}; HttpOnly; SameSite=Lax")).ok()?;
    field.set_sensitive(true);
    Some(field)
}

/// What is left of the cookies without those. `None`: there is none of those among them.
pub fn without(headers: &HeaderMap, gone: impl Fn(&str) -> bool) -> Option<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).trim_matches([' ', '\t']).to_owned();
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let (mut left, mut found) = (Vec::new(), false);
    for pair in lines.flat_map(|line| line.split(';')).map(|pair| pair.trim_matches([' ', '\t'])).filter(|pair| !pair.is_empty())
    {
        match gone(&name(pair)) {
            true => found = true,
            false => left.push(pair),
        }
    }
    found.then(|| left.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn shown(fields: &[HeaderValue]) -> Vec<&str> {
        fields.iter().map(|field| field.to_str().unwrap()).collect()
    }

    #[test]
    fn a_cookie_is_bound_to_its_host_and_out_of_reach() {
        let name = Name::new("session");
        let life = Duration::from_secs(60);
        let set = keep(&headers(&[]), name.on(Channel::Tls), "v", life, Channel::Tls).unwrap();
        assert_eq!(shown(&set), ["__Host-session=v; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"]);
        let set = keep(&headers(&[]), name.on(Channel::Plain), "v", life, Channel::Plain).unwrap();
        assert_eq!(shown(&set), ["session=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"]);
    }

    #[test]
    fn a_long_value_comes_back_from_its_pieces() {
        let value: String = (0..10_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        let set = keep(&headers(&["s=old; s.7=x"]), "s", &value, Duration::from_secs(60), Channel::Plain).unwrap();
        assert!(shown(&set).iter().all(|field| field.len() <= 4_096));
        assert_eq!(
            shown(&set)[3..],
            ["s=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax", "s.7=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]
        );
        let sent: Vec<&str> = shown(&set)[..3].iter().map(|field| field.split(';').next().unwrap()).collect();
        assert_eq!(whole(&headers(&[&sent.join("; ")]), "s").unwrap(), value);
        assert_eq!(whole(&headers(&sent), "s").unwrap(), value, "HTTP/2 sends one line each");
        let long = "x".repeat(VALUE_MAX * PIECES_MAX + 1);
        assert_eq!(keep(&headers(&[]), "s", &long, Duration::from_secs(60), Channel::Plain), None);
    }

    #[test]
    fn cookies_are_read_as_they_come() {
        let headers = headers(&["a=1;b=2; c=x=y", "a=3"]);
        assert_eq!((value(&headers, "a"), value(&headers, "b"), value(&headers, "c")), (Some("1"), Some("2"), Some("x=y")));
        assert_eq!((value(&headers, "d"), whole(&headers, "a").as_deref()), (None, Some("1")));
    }

    #[test]
    fn our_cookies_do_not_reach_the_service() {
        let name = Name::new("session");
        let ours = |cookie: &str| name.owns(cookie);
        assert_eq!(
            without(&headers(&["a=1; __Host-session=x; session.0=y; session-abcdefgh=z; sessions=2; session-id=3"]), ours)
                .unwrap(),
            "a=1; sessions=2; session-id=3"
        );
        assert_eq!(without(&headers(&["a=1", "session=x"]), ours).unwrap(), "a=1");
        assert_eq!(without(&headers(&["session=x"]), ours).unwrap(), "");
        assert_eq!(without(&headers(&["a=1; sessions=2"]), ours), None);
    }
}
