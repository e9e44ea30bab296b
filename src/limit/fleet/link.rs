//! Connections to a server, to the master that sentinels name, or to a cluster.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};

/// Longest that a connection may take, in the background: names are looked up and TLS is agreed on.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Questions that wait in a connection to be written. What is in flight has its own limit.
const BUFFER: usize = 1024;

/// Where a store is, and how to come in.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub place: Place,
    pub username: Option<String>,
    pub password: Option<String>,
    pub tls: Option<Tls>,
    pub database: u8,
    /// Longest that a request waits for it.
    pub timeout: Duration,
    /// What its keys begin with.
    pub prefix: String,
    pub connections: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Server(Address),
    Sentinels { addresses: Vec<Address>, master: String, username: Option<String>, password: Option<String> },
    Cluster(Vec<Address>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// TLS to the store, in PEM.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Authorities that may vouch for it. None: those of the system.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key that we show.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// The settings make no connection: a certificate or key that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// How to connect, checked.
pub struct Dialler {
    way: Way,
}

enum Way {
    Server(Client),
    Sentinels { sentinels: Vec<Client>, master: String, settings: Box<Settings> },
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
pub enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }
}

impl Dialler {
    /// # Errors
    /// Certificates or keys that are none.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        way(settings).map(|way| Self { way }).map_err(|error| SettingsError(told(&error)))
    }

    /// # Errors
    /// Nobody answers, or not as whom we look for.
    pub async fn connect(&self) -> RedisResult<Connection> {
        match &self.way {
            Way::Server(client) => open(client).await.map(Connection::Server),
            Way::Sentinels { sentinels, master, settings } => {
                let address = ask_sentinels(sentinels, master).await?;
                master_at(&client(settings, &address)?).await.map(Connection::Server)
            }
            Way::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

fn way(settings: &Settings) -> RedisResult<Way> {
    Ok(match &settings.place {
        Place::Server(address) => Way::Server(client(settings, address)?),
        Place::Sentinels { addresses, master, username, password } => {
            let own = Settings { username: username.clone(), password: password.clone(), database: 0, ..settings.clone() };
            let sentinels = addresses.iter().map(|address| client(&own, address)).collect::<RedisResult<_>>()?;
            client(settings, addresses.first().unwrap_or(&Address { host: String::new(), port: 0 }))?;
            Way::Sentinels { sentinels, master: master.clone(), settings: Box::new(settings.clone()) }
        }
        Place::Cluster(addresses) => Way::Cluster(Box::new(cluster(settings, addresses)?)),
    })
}

fn client(settings: &Settings, address: &Address) -> RedisResult<Client> {
    let info = info(settings, address)?;
    match &settings.tls {
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
        None => Client::open(info),
    }
}

fn cluster(settings: &Settings, addresses: &[Address]) -> RedisResult<ClusterClient> {
    let nodes = addresses.iter().map(|address| info(settings, address)).collect::<RedisResult<Vec<_>>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT_MAX)
        .response_timeout(CONNECT_MAX)
        .retries(2)
        .min_retry_wait(1)
        .max_retry_wait(10)
        .tcp_settings(tcp());
    if let Some(tls) = &settings.tls {
        builder = builder.certs(certificates(tls));
    }
    builder.build()
}

fn info(settings: &Settings, Address { host, port }: &Address) -> RedisResult<ConnectionInfo> {
    let (host, port) = (host.clone(), *port);
    let address = match &settings.tls {
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host, port),
    };
    let mut redis = RedisConnectionInfo::default().set_db(i64::from(settings.database)).set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password);
    }
    Ok(address.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp()))
}

/// Small questions go out at once.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let client_tls = tls.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    TlsCertificates { client_tls, root_cert: tls.ca.clone() }
}

async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    // Who asks has its own deadline.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(BUFFER);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The address that the first sentinel gives that knows the master.
async fn ask_sentinels(sentinels: &[Client], master: &str) -> RedisResult<Address> {
    let mut last = None;
    for sentinel in sentinels {
        match ask_sentinel(sentinel, master).await {
            Ok(address) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| (redis::ErrorKind::EmptySentinelList, "no sentinels").into()))
}

async fn ask_sentinel(sentinel: &Client, master: &str) -> RedisResult<Address> {
    let mut connection = open(sentinel).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = tokio::time::timeout(CONNECT_MAX, question.query_async::<Option<(String, u16)>>(&mut connection)).await;
    let answer = answer.map_err(|_| late())??;
    answer
        .map(|(host, port)| Address { host, port })
        .ok_or_else(|| (redis::ErrorKind::MasterNameNotFoundBySentinel, "no sentinel knows the master").into())
}

/// A connection, if it is still the master: a sentinel can be behind.
async fn master_at(client: &Client) -> RedisResult<MultiplexedConnection> {
    let mut connection = open(client).await?;
    let role = redis::cmd("ROLE");
    let role = tokio::time::timeout(CONNECT_MAX, role.query_async::<Vec<Value>>(&mut connection)).await.map_err(|_| late())??;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
        _ => Err((redis::ErrorKind::Client, "it is not the master any more").into()),
    }
}

fn late() -> RedisError {
    (redis::ErrorKind::Io, "no answer in time").into()
}

/// The error as a text that shows no secret.
pub fn told(error: &RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.category()),
        None => error.to_string(),
    }
}
