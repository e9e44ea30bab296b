//! Real Redis servers, of Debian's package: one, a cluster, a master with its sentinel.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{eventually, port, tool::tool};

/// A server that keeps nothing on disk. Killed when dropped.
pub struct Redis {
    child: Child,
    dir: TempDir,
    port: u16,
    /// What it was started with, beside its port.
    arguments: Vec<String>,
    /// How to come in.
    login: Vec<String>,
}

/// Most tries to find ports that stay free until the server binds them.
const TRIES: usize = 3;

impl Redis {
    /// `None`: it is not installed, and the test is left out. `<dir>` stands for its folder, `<bus>` for a free port.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        Self::with_files(arguments, &[], &[])
    }

    /// The same with files in its folder, and what its own client needs to come in.
    pub fn with_files(arguments: &[&str], files: &[(&str, &str)], login: &[&str]) -> Option<Self> {
        tool("redis-server")?;
        let started = (0..TRIES).find_map(|_| Self::launch(arguments, files, login));
        Some(started.expect("a server on a free port"))
    }

    fn launch(arguments: &[&str], files: &[(&str, &str)], login: &[&str]) -> Option<Self> {
        let (dir, port, bus) = (TempDir::new().unwrap(), port::free(), port::free());
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let fill = |text: &&str| {
            let text = text.replace("<dir>", dir.path().to_str().unwrap());
            text.replace("<bus>", &bus.to_string()).replace("<port>", &port.to_string())
        };
        let arguments: Vec<_> = arguments.iter().map(fill).collect();
        let login = login.iter().map(fill).collect();
        let child = spawn(dir.path(), port, &arguments);
        let mut redis = Self { child, dir, port, arguments, login };
        redis.wait().then_some(redis)
    }

    /// Gives whether it answers.
    fn wait(&mut self) -> bool {
        eventually("the server answers, or ended", || match self.child.try_wait().unwrap() {
            Some(_) => Some(false),
            None => ["PONG", "LOADING"].iter().any(|word| self.ask(&["PING"]).contains(word)).then_some(true),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn bus(&self) -> u16 {
        let at = self.arguments.iter().position(|argument| argument == "--cluster-port").expect("it is of a cluster");
        self.arguments[at + 1].parse().unwrap()
    }

    /// What it answers to a command.
    pub fn ask(&self, command: &[&str]) -> String {
        let mut client = tool("redis-cli").expect("it comes with the server");
        let output = client.args(["-p", &self.port.to_string()]).args(&self.login).args(command).stderr(Stdio::null()).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    }

    /// It hears and answers nothing, but its connections stay.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again on the same port, empty.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), self.port, &self.arguments);
        assert!(self.wait(), "the server starts again");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three servers that share the slots.
pub fn cluster() -> Option<Vec<Redis>> {
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", "<bus>", "--cluster-node-timeout", "1000"];
    let nodes: Vec<_> = (0..3).map(|_| Redis::start(&arguments)).collect::<Option<_>>()?;
    for (node, slots) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
        let (port, bus) = (nodes[0].port().to_string(), nodes[0].bus().to_string());
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }
    for node in &nodes {
        eventually("the cluster is whole", || node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(()));
        eventually("all know all", || (node.ask(&["CLUSTER", "NODES"]).lines().count() == 3).then_some(()));
    }
    Some(nodes)
}

/// A sentinel that watches over a master named `limits`, and takes two seconds to believe that it is gone.
pub fn sentinel(master: &Redis) -> Option<Redis> {
    let watch = format!(
        "sentinel monitor limits 127.0.0.1 {} 1\nsentinel down-after-milliseconds limits 1000\nsentinel failover-timeout limits 3000\n",
        master.port()
    );
    Redis::with_files(&["<dir>/sentinel.conf", "--sentinel"], &[("sentinel.conf", &watch)], &[])
}

fn spawn(dir: &Path, port: u16, arguments: &[String]) -> Child {
    let mut server = tool("redis-server").expect("it was there before");
    // A file of settings comes first.
    let (file, others) = match arguments.split_first() {
        Some((file, others)) if file.ends_with(".conf") => (Some(file), others),
        _ => (None, arguments),
    };
    server.args(file).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", dir.to_str().unwrap()]);
    server.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]).args(others);
    let log = fs::File::create(dir.join("log")).unwrap();
    server.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().expect("it starts")
}
