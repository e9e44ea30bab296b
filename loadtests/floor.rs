//! The smallest proxy on Pingora, which every hop of Banyan is compared with: it names the service, and nothing else.
//!
//! `floor THREADS SERVICE PLAIN TLS CERT KEY`: listens on two addresses, plain and with TLS (HTTP/1.1 and HTTP/2).

#![allow(clippy::unwrap_used, reason = "a comparison fails by panicking")]

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::{Result, listeners::tls::TlsSettings, upstreams::peer::HttpPeer};
use pingora_core::server::{RunArgs, Server, configuration::ServerConf};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Floor(SocketAddr);

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [threads, service, plain, tls, cert, key] = words.try_into().expect("THREADS SERVICE PLAIN TLS CERT KEY");
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let conf = ServerConf { threads: threads.parse().unwrap(), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Floor(service.parse().unwrap()));
    proxy.add_tcp(&plain);
    let mut settings = TlsSettings::intermediate(&cert, &key).unwrap();
    settings.enable_h2();
    proxy.add_tls_with_settings(&tls, None, settings);
    server.add_service(proxy);
    server.run(RunArgs::default());
}
