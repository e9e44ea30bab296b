//! Issuers made up for unit tests: who signs, and who answers over HTTP.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs.
pub enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

/// Made once: an RSA key costs a tenth of a second.
pub static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));

impl Signer {
    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// Its public half, or the secret.
    pub fn jwk(&self, kid: &str) -> Value {
        let half = |point: &[u8], at: usize| b64(&point[1..][at * (point.len() / 2)..][..point.len() / 2]);
        let ec = |curve: &str, pair: &EcdsaKeyPair| {
            let point = pair.public_key().as_ref();
            json!({ "kty": "EC", "crv": curve, "kid": kid, "x": half(point, 0), "y": half(point, 1) })
        };
        match self {
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": b64(public.n), "e": b64(public.e) })
            }
            Self::P256(pair) => ec("P-256", pair),
            Self::P384(pair) => ec("P-384", pair),
            Self::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(pair.public_key().as_ref()) }),
            Self::Secret(bytes) => json!({ "kty": "oct", "kid": kid, "k": b64(bytes) }),
        }
    }

    /// A signed token with this header, whose `alg` says how it is signed.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.sign(header["alg"].as_str().unwrap(), &header.to_string(), &claims.to_string())
    }

    /// Signs whatever texts, in a way that the header need not know of.
    pub fn sign(&self, alg: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(claims));
        let signature = self.signature(alg, message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    fn signature(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(rsa(alg), &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Secret(bytes) => hmac::sign(&hmac::Key::new(hash(alg), bytes), message).as_ref().to_vec(),
        }
    }
}

fn rsa(alg: &str) -> &'static dyn RsaEncoding {
    match alg {
        "RS256" => &RSA_PKCS1_SHA256,
        "RS384" => &RSA_PKCS1_SHA384,
        "RS512" => &RSA_PKCS1_SHA512,
        "PS256" => &RSA_PSS_SHA256,
        "PS384" => &RSA_PSS_SHA384,
        "PS512" => &RSA_PSS_SHA512,
        other => panic!("{other} is not an algorithm of RSA"),
    }
}

fn hash(alg: &str) -> hmac::Algorithm {
    match alg {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

/// An issuer's web server. It says what it is told to, and nothing unasked.
pub struct Provider {
    pub address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    requests: mpsc::UnboundedReceiver<String>,
}

struct Answers {
    next: VecDeque<(u16, String)>,
    /// When none is left.
    always: (u16, String),
    /// Held while answers are to wait.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Provider {
    pub async fn start(status: u16, body: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Answers { next: VecDeque::new(), always: (status, body.into()), gate: Arc::default() };
        let answers = Arc::new(Mutex::new(answers));
        let (told, requests) = mpsc::unbounded_channel();
        let shared = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), told.clone()));
            }
        });
        Self { address, answers, requests }
    }

    pub fn url(&self, path: &str) -> reqwest::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub fn now_says(&self, status: u16, body: impl Into<String>) {
        self.answers.lock().unwrap().always = (status, body.into());
    }

    /// What is said once, before anything else.
    pub fn says_once(&self, status: u16, body: impl Into<String>) {
        self.answers.lock().unwrap().next.push_back((status, body.into()));
    }

    /// Answers wait while this is held.
    pub async fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = self.answers.lock().unwrap().gate.clone();
        gate.lock_owned().await
    }

    /// The next request, head and body.
    pub async fn request(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }

    /// How many requests came that were not looked at.
    pub fn count(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }
}

/// One request a connection.
async fn serve(mut stream: TcpStream, answers: Arc<Mutex<Answers>>, told: mpsc::UnboundedSender<String>) {
    let mut text = String::new();
    let mut buffer = [0; 8192];
    while !is_whole(&text) {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => text.push_str(std::str::from_utf8(&buffer[..read]).unwrap()),
            _ => return,
        }
    }
    let gate = answers.lock().unwrap().gate.clone();
    told.send(text).ok();
    drop(gate.lock_owned().await);
    let (status, body) = {
        let mut answers = answers.lock().unwrap();
        answers.next.pop_front().unwrap_or_else(|| answers.always.clone())
    };
    let more = if status / 100 == 3 { "location: /elsewhere\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status} x\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}
