//! What the demo runs on: its configuration on free ports, its certificates, its directory.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_yaml::Value;

use super::certificates::Authority;
use crate::config::{Config, load};

/// The configuration that the demo is made from.
const CONFIGURATION: &str = include_str!("../../../conf/banyan.yaml");

/// What stands above the configuration that is served.
const HEADING: &str = "# Made by `banyan demo` from conf/banyan.yaml. Edit it while the demo runs: the gateway reloads it.\n\n";

/// The set stage. Dropping it removes its directory.
pub struct Stage {
    directory: PathBuf,
    token: String,
    config: Config,
}

impl Stage {
    pub fn set() -> anyhow::Result<Self> {
        let (text, config) = on_free_ports(CONFIGURATION)?;
        let stage = Self { directory: private_directory()?, token: random_word()?, config };
        stage.furnish(&text).with_context(|| format!("cannot write the demo's files into {}", stage.directory.display()))?;
        Ok(stage)
    }

    /// The configuration file that the gateway is to serve.
    pub fn file(&self) -> PathBuf {
        self.directory.join("banyan.yaml")
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the certificates are.
    pub fn tls(&self) -> PathBuf {
        self.directory.join("tls")
    }

    fn furnish(&self, text: &str) -> anyhow::Result<()> {
        let authority = Authority::new("Banyan demo")?;
        let shop = authority.certify(&["shop.example", "*.shop.example", "localhost", "127.0.0.1"])?;
        let catalogue = authority.certify(&["catalogue.internal"])?;
        for folder in ["tls", "secrets"] {
            fs::create_dir(self.directory.join(folder))?;
        }
        for (name, content) in [
            ("banyan.yaml", text),
            ("tls/ca.pem", &authority.pem()),
            ("tls/shop.pem", &shop.cert),
            ("tls/shop.key", &shop.key),
            ("tls/catalogue.pem", &catalogue.cert),
            ("tls/catalogue.key", &catalogue.key),
            ("secrets/admin-token", &self.token),
        ] {
            write_private(&self.directory.join(name), content)?;
        }
        Ok(())
    }

    /// What to try, for the terminal.
    pub fn invitation(&self) -> anyhow::Result<String> {
        let listener = |name: &str| {
            let found = self.config.listeners.iter().find(|(known, _)| known.as_str() == name);
            found
                .and_then(|(_, listener)| listener.address.tcp())
                .with_context(|| format!("conf/banyan.yaml has no listener `{name}`"))
        };
        let (web, secure) = (listener("web")?, listener("secure")?);
        let admin = &self.config.admin.as_ref().context("conf/banyan.yaml has no admin listener")?.address;
        let (file, ca, token, port) = (self.file(), self.tls().join("ca.pem"), &self.token, secure.port());
        Ok(format!(
            "\
A legacy shop, two instances of its new order service, a catalogue and an inventory run in this process.
Banyan stands in front of them. Try, in another terminal:

  # the legacy shop
  curl -i -H 'Host: shop.example' http://{web}/
  # the new order service, under the shop's old path
  curl -i -H 'Host: shop.example' http://{web}/api/orders/1001
  # what has moved away
  curl -i -H 'Host: shop.example' http://{web}/blog/roots
  # HTTPS and HTTP/2; TLS to the catalogue behind it
  curl -i --cacert {ca} --resolve shop.example:{port}:127.0.0.1 https://shop.example:{port}/catalogue/teapot
  # no route: a problem of the gateway's own
  curl -i -H 'Host: nowhere.example' http://{web}/

Metrics, health and the active configuration: http://{admin}/metrics /healthz /readyz /config
Reload by hand: curl -X POST -H 'Authorization: Bearer {token}' http://{admin}/reload
The configuration, which is reloaded when you edit it: {file}
Ctrl-C ends the demo. What follows are logs.

",
            ca = ca.display(),
            file = file.display(),
        ))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What remains is a directory in the temporary folder: not worth a failure at the end.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The configuration with every local address moved to a free port, as text and as read.
fn on_free_ports(text: &str) -> anyhow::Result<(String, Config)> {
    let mut tree: Value = serde_yaml::from_str(text).context("conf/banyan.yaml is no YAML")?;
    Ports::default().relocate(&mut tree)?;
    let moved = HEADING.to_owned() + &serde_yaml::to_string(&tree)?;
    let config = load::from_text("conf/banyan.yaml", &moved).config;
    Ok((moved, config))
}

/// Free ports, one for each local address of the file, the same for the same.
///
/// They stay bound until all are found, so none is given twice.
#[derive(Default)]
struct Ports(BTreeMap<SocketAddr, TcpListener>);

impl Ports {
    fn relocate(&mut self, value: &mut Value) -> std::io::Result<()> {
        match value {
            Value::Mapping(map) => map.values_mut().try_for_each(|value| self.relocate(value)),
            Value::Sequence(items) => items.iter_mut().try_for_each(|item| self.relocate(item)),
            Value::String(text) => match text.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => self.free(address).map(|free| *text = free.to_string()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn free(&mut self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        if let Some(held) = self.0.get(&address) {
            return held.local_addr();
        }
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let free = held.local_addr()?;
        self.0.insert(address, held);
        Ok(free)
    }
}

/// A new directory that only we can enter.
fn private_directory() -> anyhow::Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("banyan-demo-{}", random_word()?));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    Ok(directory)
}

fn write_private(path: &Path, content: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content.as_bytes())
}

/// 128 bits of chance, in hexadecimal.
fn random_word() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_address_moves_and_no_two_meet() {
        let (_, config) = on_free_ports(CONFIGURATION).unwrap();
        let listeners = config.listeners.values().filter_map(|listener| listener.address.tcp());
        let endpoints = config.upstreams.values().flat_map(|upstream| upstream.endpoints.iter().map(|e| e.address));
        let all: Vec<_> = listeners.chain(endpoints).chain(config.admin.and_then(|admin| admin.address.tcp())).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), different.len());
        for address in all {
            assert!(!CONFIGURATION.contains(&address.to_string()), "{address} stayed");
        }
    }

    #[test]
    fn the_same_address_moves_to_the_same_port() {
        let mut tree: Value = serde_yaml::from_str("a: 127.0.0.1:1\nb: [127.0.0.1:1, 10.0.0.1:1, text]").unwrap();
        Ports::default().relocate(&mut tree).unwrap();
        assert_eq!(tree["a"], tree["b"][0]);
        assert_ne!(tree["a"], "127.0.0.1:1");
        assert_eq!((&tree["b"][1], &tree["b"][2]), (&Value::from("10.0.0.1:1"), &Value::from("text")));
    }

    #[test]
    fn the_stage_is_private_and_leaves_nothing_behind() {
        let stage = Stage::set().unwrap();
        let directory = stage.directory.clone();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&stage.tls().join("shop.key")), 0o600);
        assert_eq!(stage.invitation().unwrap().matches("\n  curl ").count(), 5);
        drop(stage);
        assert!(!directory.exists());
    }
}
