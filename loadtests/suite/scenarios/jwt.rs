//! The plain hop behind a token, signed with RS256, of which signature, issuer, audience and end are verified and the subject is told to the
//! service: by everyone in the same way. Warm, each token was seen before; cold, none was, or so long ago that nobody remembers it.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::ensure;
use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use super::{Ask, Contestant, Kind, Load, Party, SMALL, Scenario, Setup, Speech, Stage, beside_open};

pub struct Warm;
pub struct Cold;

/// Callers that come again and again.
const WARM: usize = 1_000;

/// More tokens than Banyan remembers, which is 100,000: each contestant sees them in turns, so each is forgotten before it comes again. HAProxy
/// remembers none.
const COLD: usize = 112_000;

/// Made once for all scenarios of a run.
static ISSUER: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| signed(COLD));

impl Scenario for Warm {
    fn name(&self) -> &'static str {
        "jwt"
    }

    fn about(&self) -> &'static str {
        "the same behind RS256 tokens of 1,000 callers who come again"
    }

    fn setup(&self) -> Setup {
        verifying()
    }

    fn load(&self, stage: &Stage) -> Load {
        load(&signed(WARM), stage)
    }

    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        verifiers(all)
    }

    fn premise(&self, _: &Stage, party: &Party) -> anyhow::Result<()> {
        refuses(party)
    }
}

impl Scenario for Cold {
    fn name(&self) -> &'static str {
        "jwt-cold"
    }

    fn about(&self) -> &'static str {
        "the same with a token that was not seen before in each request"
    }

    fn setup(&self) -> Setup {
        verifying()
    }

    fn load(&self, stage: &Stage) -> Load {
        load(&TOKENS, stage)
    }

    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        verifiers(all)
    }

    fn premise(&self, _: &Stage, party: &Party) -> anyhow::Result<()> {
        refuses(party)
    }
}

fn verifying() -> Setup {
    let der = ISSUER.public_key().as_der().expect("a public key");
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
    Setup { issuer: Some(pem), ..Setup::default() }
}

/// Those who can, and what Banyan costs without.
fn verifiers(all: &[Contestant]) -> Vec<Contestant> {
    beside_open(all.iter().filter(|who| matches!(who.kind, Kind::Banyan | Kind::Haproxy)))
}

fn load(tokens: &[String], stage: &Stage) -> Load {
    let asks = tokens.iter().map(|token| Ask::get("/", SMALL).bearing(token)).collect();
    Load { speech: Speech::Http1, asks, connections: stage.connections() }
}

/// Without a token, and with one that another key signed, nothing is to be had.
fn refuses(party: &Party) -> anyhow::Result<()> {
    if party.kind == Kind::Open {
        return Ok(());
    }
    let status = party.status("/")?;
    ensure!(status == 401, "a request without a token was answered with {status}");
    let stranger = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let status = party.status_bearing("/", &token(&stranger, 0, end()))?;
    ensure!(status == 401, "a forged token was answered with {status}");
    if party.kind == Kind::Banyan {
        party.status_bearing("/", &token(&ISSUER, 0, end()))?;
        let line = party.logged("\"auth\":\"jwt\"")?;
        ensure!(line.contains("\"status\":200"), "the access log does not tell who vouched: {line}");
    }
    Ok(())
}

/// An hour from now, in seconds since 1970.
fn end() -> u64 {
    let end = SystemTime::now() + Duration::from_secs(3_600);
    end.duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

/// So many tokens, signed on two threads.
fn signed(count: usize) -> Vec<String> {
    let (half, end) = (count / 2, end());
    let some = move |from: usize, to: usize| (from..to).map(|n| token(&ISSUER, n, end)).collect::<Vec<_>>();
    let other = std::thread::spawn(move || some(half, count));
    let mut tokens = some(0, half);
    tokens.extend(other.join().expect("it signs"));
    tokens
}

/// About as long as tokens are.
fn token(issuer: &RsaKeyPair, caller: usize, end: u64) -> String {
    let claims = format!(
        r#"{{"iss":"https://idp.example/","aud":"api","sub":"user-{caller}","azp":"web","exp":{end},"iat":{},"jti":"0f8fad5b-d9cb-469f-a165-{caller:012}","scope":"openid profile orders:read orders:write","realm_access":{{"roles":["clerk","auditor"]}}}}"#,
        end - 3_600,
    );
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(claims));
    let mut signature = vec![0; issuer.public_modulus_len()];
    issuer.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("it signs");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
