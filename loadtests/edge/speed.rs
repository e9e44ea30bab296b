//! Answers a second, and what each costs the gateway in processor time: small ones and bodies of 1 MiB, plain and over TLS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Ground, client, party};

const CONNECTIONS: usize = 8;
const WINDOW: Duration = Duration::from_secs(4);

pub fn tell(ground: &Ground) {
    let gateway = ground.gateway("");
    for (path, is_tls) in [("/small", false), ("/small", true), ("/huge", false), ("/huge", true)] {
        let answers = Arc::new(AtomicUsize::new(0));
        let runtime = party();
        for _ in 0..CONNECTIONS {
            let config = is_tls.then(|| ground.identity.plain_client());
            let target = if is_tls { gateway.tls } else { gateway.plain };
            runtime.spawn(visit(target, path, config, answers.clone()));
        }
        std::thread::sleep(Duration::from_millis(500));
        let (begun, cpu, first) = (Instant::now(), gateway.usage().cpu, answers.load(Relaxed));
        std::thread::sleep(WINDOW);
        let (count, used) = (answers.load(Relaxed) - first, gateway.usage().cpu - cpu);
        let what = if is_tls { "TLS" } else { "plain" };
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        let each = used.as_secs_f64() * 1e6 / count as f64;
        println!("{path} {what}: {rate:.0} answers a second, {each:.0} µs of the gateway's processor time each");
    }
}

async fn visit(target: std::net::SocketAddr, path: &str, config: Option<Arc<ClientConfig>>, answers: Arc<AtomicUsize>) {
    let stream = TcpStream::connect(target).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match config {
        None => ask(stream, path, &answers).await,
        Some(config) => {
            let name = "a.example".try_into().unwrap();
            ask(TlsConnector::from(config).connect(name, stream).await.unwrap(), path, &answers).await;
        }
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, answers: &AtomicUsize) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    loop {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        client::answer(&mut stream).await.unwrap();
        answers.fetch_add(1, Relaxed);
    }
}
