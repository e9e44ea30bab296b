//! The services of the demo, each on its own port: the legacy shop, and what grew beside it.

use std::{net::SocketAddr, path::Path, thread};

use anyhow::Context;
use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::{
    apps::{
        HttpServerOptions,
        http_app::{HttpServer, ServeHttp},
    },
    protocols::http::ServerSession,
    services::{Service as _, listening::Service},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;

/// What a service answers to a method and a path.
type Answers = fn(&Method, &str) -> Answer;

/// A service as it is served: its answers, and the name by which it signs them.
struct App {
    name: String,
    answers: Answers,
}

/// An answer before it is framed.
struct Answer {
    status: StatusCode,
    content: Content,
}

enum Content {
    Html(String),
    Json(Value),
}

/// Starts all services of the demo, where the configuration's upstreams say they are. They run until the process ends.
///
/// # Errors
/// An upstream of the demo is missing in the configuration, or a certificate cannot be read.
pub fn start(config: &Config, tls: &Path) -> anyhow::Result<()> {
    let mut services = Vec::new();
    for (upstream, answers) in [
        ("legacy", legacy as Answers),
        ("orders", orders as Answers),
        ("catalogue", catalogue as Answers),
        ("inventory", inventory as Answers),
    ] {
        for (at, address) in endpoints(config, upstream)?.into_iter().enumerate() {
            let app = App { name: format!("{upstream}-{}", at + 1), answers };
            services.push(if upstream == "catalogue" { with_tls(app, address, tls)? } else { plain(app, address) });
        }
    }
    thread::Builder::new().name("demo".to_owned()).spawn(move || serve(services))?;
    Ok(())
}

fn endpoints(config: &Config, name: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = config.upstreams.iter().find(|(known, _)| known.as_str() == name);
    let (_, upstream) = found.with_context(|| format!("conf/banyan.yaml has no upstream `{name}`"))?;
    Ok(upstream.endpoints.iter().map(|endpoint| endpoint.address).collect())
}

/// HTTP/1.1, and HTTP/2 by prior knowledge.
fn plain(app: App, address: SocketAddr) -> Service<HttpServer<App>> {
    let mut service = service(app);
    service.add_tcp(&address.to_string());
    service
}

fn with_tls(app: App, address: SocketAddr, tls: &Path) -> anyhow::Result<Service<HttpServer<App>>> {
    let mut service = service(app);
    let file = |name: &str| tls.join(name).to_str().map(str::to_owned).context("the temporary directory's name is not UTF-8");
    service.add_tls(&address.to_string(), &file("catalogue.pem")?, &file("catalogue.key")?)?;
    Ok(service)
}

fn service(app: App) -> Service<HttpServer<App>> {
    let name = app.name.clone();
    let mut server = HttpServer::new_app(app);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    server.server_options = Some(options);
    Service::new(name, server)
}

fn serve(services: Vec<Service<HttpServer<App>>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the demo's services cannot run"),
    };
    let (_running, shutdown) = watch::channel(false);
    runtime.block_on(async {
        for mut service in services {
            let shutdown = shutdown.clone();
            tokio::spawn(async move { service.start_service(None, shutdown, 1).await });
        }
        std::future::pending::<()>().await;
    });
}

#[async_trait]
impl ServeHttp for App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let answer = (self.answers)(&head.method, head.uri.path());
        tracing::debug!(service = %self.name, method = %head.method, path = head.uri.path(), "demo request");
        frame(answer, &self.name)
    }
}

fn frame(answer: Answer, service: &str) -> Response<Vec<u8>> {
    let (kind, body) = match answer.content {
        Content::Html(text) => ("text/html; charset=utf-8", text),
        Content::Json(value) => ("application/json", format!("{value:#}\n")),
    };
    let head = Response::builder()
        .status(answer.status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header("x-served-by", service);
    head.body(body.into_bytes()).expect("status and headers are well formed: names and types are our own")
}

/// The monolith: pages, and under `/api` and `/catalogue` what the new services take over.
fn legacy(method: &Method, path: &str) -> Answer {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => page("The shop", "Welcome to the shop, all in one since 2009. <a href=\"/catalogue\">Catalogue</a>"),
        ["healthz"] => ok(json!({ "status": "ok" })),
        ["about"] => page("About", "One program does it all. For now."),
        ["catalogue"] => page("Catalogue", "<a href=\"/catalogue/teapot\">Teapot</a> <a href=\"/catalogue/kettle\">Kettle</a>"),
        ["catalogue", sku] => page("Article", &format!("Article {}, as the old shop shows it.", escape(sku))),
        ["blog", ..] => page("Blog", "How it all began."),
        ["reports", ..] => ok(json!({ "report": path, "made_by": "legacy" })),
        ["api", rest @ ..] => orders(method, &format!("/{}", rest.join("/"))),
        _ => Answer { status: StatusCode::NOT_FOUND, ..page("Not found", "The shop has no such page.") },
    }
}

/// The order service, which has left the monolith.
fn orders(method: &Method, path: &str) -> Answer {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (method.as_str(), segments.as_slice()) {
        (_, ["healthz"]) => ok(json!({ "status": "ok" })),
        ("POST", ["orders"]) => Answer { status: StatusCode::CREATED, ..ok(json!({ "id": 1003, "state": "received" })) },
        (_, ["orders"]) => ok(json!({ "orders": [order("1001"), order("1002")] })),
        (_, ["orders", id]) => ok(order(id)),
        (_, ["reports", ..]) => ok(json!({ "report": path, "made_by": "orders" })),
        _ => missing(path),
    }
}

fn order(id: &str) -> Value {
    json!({ "id": id, "article": "teapot", "state": "shipped" })
}

/// The catalogue service, behind TLS.
fn catalogue(_: &Method, path: &str) -> Answer {
    match path.strip_prefix("/items/") {
        Some(sku) if !sku.is_empty() => ok(json!({ "sku": sku, "price": { "amount": "24.00", "currency": "EUR" } })),
        _ => missing(path),
    }
}

/// The inventory service, over HTTP/2.
fn inventory(_: &Method, path: &str) -> Answer {
    match path.strip_prefix("/inventory.Stock/") {
        Some(item) if !item.is_empty() => ok(json!({ "item": item, "in_stock": 7 })),
        _ => missing(path),
    }
}

fn ok(value: Value) -> Answer {
    Answer { status: StatusCode::OK, content: Content::Json(value) }
}

fn missing(path: &str) -> Answer {
    Answer { status: StatusCode::NOT_FOUND, content: Content::Json(json!({ "error": "not found", "path": path })) }
}

/// A page of the old shop. The body is HTML.
fn page(title: &str, body: &str) -> Answer {
    let html = format!("<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{body}</p>\n");
    Answer { status: StatusCode::OK, content: Content::Html(html) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(service: Answers, request: (&Method, &str), expected: (u16, &str)) {
        let response = frame((service)(request.0, request.1), "test-1");
        let body = String::from_utf8(response.body().clone()).unwrap();
        assert_eq!(response.status(), expected.0, "{request:?}");
        assert!(body.contains(expected.1), "{request:?}: {body}");
        assert_eq!(response.headers()["content-length"], body.len().to_string());
    }

    #[test]
    fn the_legacy_shop_does_it_all() {
        check(legacy, (&Method::GET, "/"), (200, "<h1>The shop</h1>"));
        check(legacy, (&Method::GET, "/api/orders/7"), (200, "\"id\": \"7\""));
        check(legacy, (&Method::GET, "/catalogue/<b>"), (200, "&lt;b&gt;"));
        check(legacy, (&Method::GET, "/nothing"), (404, "no such page"));
    }

    #[test]
    fn the_new_services_do_one_thing_each() {
        check(orders, (&Method::POST, "/orders"), (201, "received"));
        check(orders, (&Method::GET, "/orders"), (200, "1002"));
        check(orders, (&Method::GET, "/api/orders"), (404, "not found"));
        check(catalogue, (&Method::GET, "/items/teapot"), (200, "24.00"));
        check(inventory, (&Method::GET, "/inventory.Stock/teapot"), (200, "in_stock"));
    }
}
