//! What idle connections cost: resident memory of the gateway with so many, each after one answered request.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{Ground, client, gateway::Gateway, party};

const CONNECTIONS: usize = 8_000;

/// How many are opened at once.
const AT_ONCE: usize = 50;

pub fn tell(ground: &Ground) {
    println!("{CONNECTIONS} idle connections:");
    for is_tls in [false, true] {
        let gateway = ground.gateway("connections_per_ip: 16384");
        let before = gateway.usage().memory;
        let runtime = party();
        let held = runtime.block_on(open(&gateway, ground, is_tls));
        std::thread::sleep(Duration::from_secs(2));
        let with = gateway.usage().memory;
        let what = if is_tls { "TLS" } else { "plain" };
        let each = with.saturating_sub(before) as f64 / held.len() as f64 / 1024.0;
        println!("{what}: {:.1} KiB each ({} to {} KiB for {})", each, before >> 10, with >> 10, held.len());
        drop(held);
    }
}

trait Held: Send {}
impl<T: Send> Held for T {}

async fn open(gateway: &Gateway, ground: &Ground, is_tls: bool) -> Vec<Box<dyn Held>> {
    let turns = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut tasks: JoinSet<Option<Box<dyn Held>>> = JoinSet::new();
    let target = if is_tls { gateway.tls } else { gateway.plain };
    for _ in 0..CONNECTIONS {
        let (turns, config) = (turns.clone(), ground.identity.plain_client());
        tasks.spawn(async move {
            let _turn = turns.acquire().await.ok()?;
            let mut stream = TcpStream::connect(target).await.ok()?;
            if !is_tls {
                return ask(&mut stream).await.map(|()| Box::new(stream) as Box<dyn Held>);
            }
            let mut stream = TlsConnector::from(config).connect("a.example".try_into().ok()?, stream).await.ok()?;
            ask(&mut stream).await.map(|()| Box::new(stream) as Box<dyn Held>)
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Option<()> {
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: a.example\r\n\r\n").await.ok()?;
    client::answer(stream).await.ok().map(drop)
}
