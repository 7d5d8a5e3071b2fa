//! Clusters of real processes on loopback, driven by the commands of kvnode.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mapleaf::Db;
use serde_json::Value;
use tempfile::TempDir;

/// Nothing in a test takes so long; what does is reported as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn kvnode(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvnode")).args(args).output().expect("to run kvnode")
}

/// Runs a command that must work, and returns what it prints.
fn works(args: &[&str]) -> String {
    let output = kvnode(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim_end().to_string()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A node, killed when it is dropped.
struct Node {
    id: u64,
    addr: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    fn status(&self) -> Option<Value> {
        let output = kvnode(&["status", "--addr", &self.addr]);
        serde_json::from_slice(&output.stdout).ok()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("to kill");
            child.wait().expect("to wait");
        }
    }

    /// Ends the node in order.
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let asked = Command::new("kill").arg(child.id().to_string()).status().expect("to run kill");
            assert!(asked.success());
            assert!(child.wait().expect("to wait").success(), "node {} failed", self.id);
        }
    }

    fn state_files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.dir).expect("a directory");
        let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("state-") && !name.ends_with("-lock")).collect()
    }

    /// All entries of the tables of the state machine, but the position of the node.
    fn tables(&self) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
        let files = self.state_files();
        let [file] = &files[..] else { panic!("{files:?}") };
        tables(&self.dir.join(file))
    }
}

fn tables(path: &Path) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
    let txn = Db::open_existing(path).and_then(|db| db.begin_read()).expect("the state");
    let mut all = BTreeMap::new();
    for table in txn.tables().expect("tables") {
        for entry in txn.bytes_table(&table.name).expect("a table").iter() {
            let (key, value) = entry.expect("an entry");
            if table.name != "raft" || key != b"applied" {
                all.insert((table.name.clone(), key.to_vec()), value.to_vec());
            }
        }
    }
    all
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster in a temporary directory.
struct Cluster {
    dir: TempDir,
    addrs: Vec<String>,
    options: Vec<String>,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts nodes, which are no cluster yet. One address more is kept for a node that joins.
    fn start(count: usize, options: &[&str]) -> Cluster {
        let listeners: Vec<_> = (0..=count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let addrs = listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string());
        let addrs = addrs.collect();
        drop(listeners);
        let options = options.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { dir: tempfile::tempdir().expect("a directory"), addrs, options, nodes: Vec::new() };
        for id in 1..=count as u64 {
            cluster.serve(id, &[]);
        }
        cluster
    }

    fn formed(count: usize, options: &[&str]) -> Cluster {
        let cluster = Cluster::start(count, options);
        works(&["init", "--addr", &cluster.addrs[0]]);
        cluster
    }

    fn all(&self) -> String {
        let up = self.nodes.iter().filter(|node| node.child.is_some());
        up.map(|node| node.addr.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Starts a node, new or again, and waits until it answers.
    fn serve(&mut self, id: u64, more: &[&str]) {
        let addr = self.addrs[id as usize - 1].clone();
        let dir = self.dir.path().join(format!("node-{id}"));
        let peers: Vec<_> = (1..self.addrs.len()).map(|id| format!("{id}={}", self.addrs[id - 1])).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvnode"));
        command.args(["serve", "--id", &id.to_string(), "--addr", &addr, "--dir"]).arg(&dir);
        command.args(["--peers", &peers.join(",")]).args(&self.options).args(more).stdout(Stdio::null());
        let child = Some(command.spawn().expect("to start a node"));
        self.nodes.retain(|node| node.id != id);
        self.nodes.push(Node { id, addr, dir, child });
        self.nodes.sort_by_key(|node| node.id);
        until("the node answers", || self.node(id).status().is_some());
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("the node")
    }

    fn leader(&self) -> u64 {
        let mut leader = None;
        until("there is a leader", || {
            let told: Vec<_> = self.nodes.iter().filter_map(Node::status).collect();
            leader = told.iter().find(|status| status["role"] == "leader").and_then(|status| status["id"].as_u64());
            leader.is_some()
        });
        leader.expect("found above")
    }

    /// Stores `from` to `to` under their numbers.
    fn put(&self, range: std::ops::Range<u32>) {
        let all = self.all();
        for n in range {
            works(&["put", "--addr", &all, "--timeout", "30", &format!("key {n:04}"), &format!("value {n}")]);
        }
    }

    fn wait_for(&mut self, id: u64, key: u32) {
        let addr = self.node(id).addr.clone();
        let key = format!("key {key:04}");
        until(&format!("node {id} has {key}"), || kvnode(&["get", "--addr", &addr, "--stale", &key]).status.success());
    }

    /// Ends all nodes and checks that they have the same tables.
    fn compare(mut self) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
        self.nodes.iter_mut().for_each(Node::end);
        let mut states = self.nodes.iter().map(Node::tables);
        let first = states.next().expect("a node");
        states.for_each(|state| assert!(state == first, "two nodes differ"));
        first
    }
}

fn count(tables: &BTreeMap<(String, Vec<u8>), Vec<u8>>, table: &str) -> usize {
    tables.keys().filter(|(name, _)| name == table).count()
}

#[test]
fn a_cluster_goes_on_without_its_leader_which_catches_up_later() {
    let mut cluster = Cluster::formed(3, &[]);
    cluster.put(0..10);
    let leader = cluster.leader();
    cluster.node(leader).kill();
    cluster.put(10..20);
    assert_ne!(cluster.leader(), leader);
    assert_eq!(works(&["get", "--addr", &cluster.all(), "key 0003"]), "value 3");
    cluster.serve(leader, &[]);
    cluster.put(20..21);
    for id in 1..=3 {
        cluster.wait_for(id, 20);
    }
    assert_eq!(count(&cluster.compare(), "kv"), 21);
}

#[test]
fn all_nodes_killed_at_once_have_everything_again() {
    let mut cluster = Cluster::formed(3, &[]);
    cluster.put(0..10);
    cluster.nodes.iter_mut().for_each(Node::kill);
    for id in 1..=3 {
        cluster.serve(id, &[]);
    }
    let all = cluster.all();
    for n in 0..10 {
        assert_eq!(works(&["get", "--addr", &all, "--timeout", "30", &format!("key {n:04}")]), format!("value {n}"));
    }
}

#[test]
fn the_commands_say_what_they_did() {
    let cluster = Cluster::formed(3, &[]);
    let all = cluster.all();
    let code = |args: &[&str]| kvnode(&[args, &["--addr", &all]].concat()).status.code();
    assert_eq!(code(&["get", "a/b c"]), Some(1));
    assert_eq!(code(&["cas", "a/b c", "--value", "one"]), Some(0));
    assert_eq!(code(&["cas", "a/b c", "--value", "two"]), Some(1));
    assert_eq!(code(&["cas", "a/b c", "--expect", "one", "--value", "two"]), Some(0));
    assert_eq!(works(&["get", "--addr", &all, "a/b c"]), "two");
    assert_eq!(code(&["put", "b", "three"]), Some(0));
    assert_eq!(works(&["scan", "--addr", &all]), "a/b c\ttwo\nb\tthree");
    assert_eq!(works(&["scan", "--addr", &all, "--from", "b"]), "b\tthree");
    assert_eq!(works(&["scan", "--addr", &all, "--until", "b"]), "a/b c\ttwo");
    assert_eq!(works(&["scan", "--addr", &all, "--limit", "1"]), "a/b c\ttwo");
    assert_eq!(code(&["del", "b"]), Some(0));
    assert_eq!(code(&["del", "b"]), Some(1));
    assert_eq!(code(&["init"]), Some(2), "it is a cluster already");
    assert_eq!(code(&["join", "2", "127.0.0.1:1"]), Some(2), "it is a member already");
}

#[test]
fn a_minority_serves_stale_reads_only() {
    let mut cluster = Cluster::formed(3, &[]);
    cluster.put(0..1);
    cluster.wait_for(1, 0);
    cluster.node(2).kill();
    cluster.node(3).kill();
    let addr = cluster.node(1).addr.clone();
    let code = |args: &[&str]| kvnode(&[args, &["--addr", &addr, "--timeout", "1"]].concat()).status.code();
    assert_eq!(code(&["get", "key 0000", "--stale"]), Some(0));
    assert_eq!(code(&["get", "key 0000"]), Some(2));
    assert_eq!(code(&["put", "key 0001", "x"]), Some(2));
}

#[test]
fn a_node_that_lost_its_files_joins_again_by_snapshot() {
    let mut cluster = Cluster::formed(3, &["--snapshot-every", "20"]);
    cluster.put(0..60);
    let lost = if cluster.leader() == 3 { 2 } else { 3 };
    cluster.node(lost).kill();
    let (dir, addr) = (cluster.node(lost).dir.clone(), cluster.node(lost).addr.clone());
    fs::remove_dir_all(dir).expect("to remove");
    works(&["leave", "--addr", &cluster.all(), &lost.to_string()]);
    cluster.put(60..70);
    cluster.serve(lost, &[]);
    works(&["join", "--addr", &cluster.all(), &lost.to_string(), &addr]);
    cluster.put(70..71);
    cluster.wait_for(lost, 70);
    assert_ne!(cluster.node(lost).state_files(), ["state-1.mapleaf"], "no snapshot was installed");
    for id in 1..=3 {
        cluster.wait_for(id, 70);
    }
    assert_eq!(count(&cluster.compare(), "kv"), 71);
}

#[test]
fn a_node_with_a_damaged_file_says_so_and_serves_nothing() {
    let mut cluster = Cluster::formed(3, &[]);
    cluster.put(0..10);
    cluster.wait_for(2, 9);
    cluster.node(2).end();
    let file = cluster.node(2).dir.join("state-1.mapleaf");
    fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(8192)).expect("to cut");
    cluster.serve(2, &[]);
    let status = cluster.node(2).status().expect("a status");
    let why = status["damaged"].as_str().expect("it is damaged").to_string();
    assert!(why.contains("state-1.mapleaf"), "{why}");
    let read = kvnode(&["get", "--addr", &cluster.node(2).addr.clone(), "--stale", "key 0003"]);
    assert_eq!(read.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&read.stderr).contains(&why), "{read:?}");
    cluster.put(10..11);
}

#[test]
fn a_backup_seeds_a_new_cluster_that_others_join() {
    let cluster = Cluster::formed(3, &[]);
    cluster.put(0..10);
    let backup = cluster.dir.path().join("backup.mapleaf");
    let path = backup.to_str().expect("a path of text");
    works(&["backup", "--addr", &cluster.all(), path]);
    assert_eq!(count(&tables(&backup), "kv"), 10);
    assert_eq!(kvnode(&["backup", "--addr", &cluster.all(), path]).status.code(), Some(2), "it exists");

    let mut new = Cluster::start(0, &[]);
    new.addrs = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()).collect();
    new.serve(1, &["--seed", path]);
    let first = new.all();
    assert_eq!(works(&["get", "--addr", &first, "--timeout", "30", "key 0007"]), "value 7");
    new.serve(2, &[]);
    works(&["join", "--addr", &first, "2", &new.addrs[1].clone()]);
    new.put(10..11);
    new.wait_for(2, 10);
    new.wait_for(1, 10);
    assert_eq!(count(&new.compare(), "kv"), 11);
}
