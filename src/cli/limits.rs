//! `banyan limits`: what a consumer has used, asked of the running gateway's admin listener.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;

use super::{Place, print};
use crate::config::{Admin, address::ListenAddress, load};

/// Show what a consumer has used of its quota and its rate limits, or have it forgotten.
///
/// Asks the gateway that runs on this machine, at the address of `admin` in the configuration.
#[derive(Args, Debug)]
pub struct Limits {
    #[command(flatten)]
    place: Place,
    /// The consumer.
    consumer: String,
    /// Forget what it has used. Needs `admin.token` in the configuration.
    #[arg(long)]
    reset: bool,
}

/// Longest wait for the gateway.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

impl Limits {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let loaded = load::load(self.place.path());
        let admin = loaded.config.admin.as_ref().context("the configuration has no `admin`, so the gateway cannot be asked")?;
        let name = &self.consumer;
        ensure!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
            "`{name}` is no name of a consumer"
        );
        let head = self.head(admin);
        let (status, body) = match &admin.address {
            ListenAddress::Tcp(address) => TcpStream::connect_timeout(address, PATIENCE).map_err(Into::into).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                asked(stream, &head)
            }),
            ListenAddress::Unix(path) => UnixStream::connect(path).map_err(Into::into).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                asked(stream, &head)
            }),
        }
        .with_context(|| format!("no gateway answers at {}", admin.address))?;
        ensure!(status == 200, "{}", detail(&body).unwrap_or_else(|| format!("the gateway answers {status}")));
        print(&body)
    }

    fn head(&self, admin: &Admin) -> String {
        let (method, page) = if self.reset { ("POST", "/reset") } else { ("GET", "") };
        let token = admin.token.as_ref().filter(|_| self.reset);
        let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal())).unwrap_or_default();
        let consumer = &self.consumer;
        format!(
            "{method} /limits/{consumer}{page} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{token}Connection: close\r\n\r\n"
        )
    }
}

/// The status and the body of what is answered.
fn asked(mut stream: impl Read + Write, head: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    parsed(&answer).context("its answer is no HTTP")
}

fn parsed(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    let status = std::str::from_utf8(head).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_vec()))
}

/// What a problem says.
fn detail(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    problem.get("detail")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(parsed(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}\n"), Some((200, b"{}\n".to_vec())));
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(parsed(bad), None);
        }
        assert_eq!(detail(br#"{"detail":"no"}"#).as_deref(), Some("no"));
    }
}
