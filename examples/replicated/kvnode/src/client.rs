//! The commands that talk to a cluster.
//!
//! They ask the addresses they were given in turn, and follow a node that names the leader. What
//! failed is tried again until the time is up: a write carries a request id, so the cluster makes
//! it once, also if only its answer was lost.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use base64::prelude::{Engine, BASE64_STANDARD};
use hyper::header::{HeaderName, HeaderValue, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use serde_json::{json, Value};

use crate::cli::To;
use crate::http::{Answer, Http};

/// What stands in a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// One attempt of a small request.
const ATTEMPT: Duration = Duration::from_secs(6);
/// One attempt of a request that moves all data.
const LONG: Duration = Duration::from_secs(600);

type Done = Result<ExitCode, String>;

/// A request, which may be sent several times.
struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    attempt: Duration,
}

impl Call {
    fn new(method: Method, path: String) -> Call {
        Call { method, path, headers: Vec::new(), body: Bytes::new(), attempt: ATTEMPT }
    }

    fn with_json(mut self, body: &Value) -> Call {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        self.body = Bytes::from(body.to_string());
        self
    }

    /// Names the request, so that it is done once.
    fn once(mut self) -> Result<Call, String> {
        let id = HeaderValue::from_str(&format!("{}-1", random())).map_err(|e| e.to_string())?;
        self.headers.push((HeaderName::from_static("x-request-id"), id));
        Ok(self)
    }

    /// Sends the request until it is answered.
    async fn run(&self, to: &To) -> Result<Answer, String> {
        let (http, end) = (Http::new(), Instant::now() + Duration::from_secs(to.timeout));
        let mut turn = 0;
        let mut leader: Option<String> = None;
        loop {
            let addr = leader.take().unwrap_or_else(|| to.addr[turn % to.addr.len()].clone());
            let why = match self.attempt(&http, &addr).await {
                Ok(answer) => match redirect(&answer) {
                    Redirect::None => return Ok(answer),
                    Redirect::To(addr) => {
                        leader = Some(addr);
                        text_of(&answer)
                    }
                    Redirect::Elsewhere => text_of(&answer),
                },
                Err(e) => e,
            };
            if Instant::now() >= end {
                return Err(why);
            }
            if leader.is_none() {
                turn += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn attempt(&self, http: &Http, addr: &str) -> Result<Answer, String> {
        let body = Body::from(self.body.clone());
        let sent = http.send(self.method.clone(), addr, &self.path, &self.headers, body, self.attempt).await;
        sent.map_err(|e| e.to_string())
    }
}

/// Where to send a request next.
enum Redirect {
    /// Nowhere: it was answered.
    None,
    /// To the leader.
    To(String),
    /// To any other node.
    Elsewhere,
}

fn redirect(answer: &Answer) -> Redirect {
    match answer.status {
        StatusCode::MISDIRECTED_REQUEST => match json_of(answer)["leader_addr"].as_str() {
            Some(addr) => Redirect::To(addr.to_string()),
            None => Redirect::Elsewhere,
        },
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Redirect::Elsewhere,
        _ => Redirect::None,
    }
}

pub(crate) async fn init(to: &To) -> Done {
    done(&Call::new(Method::POST, "/admin/init".to_string()).run(to).await?)
}

pub(crate) async fn join(to: &To, id: u64, addr: &str) -> Done {
    let call = Call::new(Method::POST, "/admin/join".to_string()).with_json(&json!({ "id": id, "addr": addr }));
    done(&Call { attempt: LONG, ..call }.run(to).await?)
}

pub(crate) async fn leave(to: &To, id: u64) -> Done {
    let call = Call::new(Method::POST, "/admin/leave".to_string()).with_json(&json!({ "id": id }));
    done(&Call { attempt: LONG, ..call }.run(to).await?)
}

pub(crate) async fn status(to: &To) -> Done {
    let (http, call) = (Http::new(), Call::new(Method::GET, "/status".to_string()));
    let mut all = true;
    for addr in &to.addr {
        match call.attempt(&http, addr).await {
            Ok(answer) => print(text_of(&answer).as_bytes(), b"\n")?,
            Err(e) => {
                eprintln!("kvnode: {e}");
                all = false;
            }
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

pub(crate) async fn get(to: &To, key: &str, stale: bool) -> Done {
    let path = path("kv", key);
    let answer = if stale {
        let call = Call::new(Method::GET, format!("{path}?stale=true"));
        call.attempt(&Http::new(), &to.addr[0]).await?
    } else {
        Call::new(Method::GET, path).run(to).await?
    };
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(ExitCode::FAILURE);
    }
    checked(&answer)?;
    print(&answer.body, b"\n")?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn put(to: &To, key: &str, value: String) -> Done {
    let call = Call { body: Bytes::from(value), ..Call::new(Method::PUT, path("kv", key)) };
    done(&call.once()?.run(to).await?)
}

pub(crate) async fn del(to: &To, key: &str) -> Done {
    let answer = Call::new(Method::DELETE, path("kv", key)).once()?.run(to).await?;
    checked(&answer)?;
    Ok(if json_of(&answer)["existed"] == json!(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) async fn cas(to: &To, key: &str, expect: Option<String>, value: Option<String>) -> Done {
    let encoded = |text: Option<String>| text.map(|text| BASE64_STANDARD.encode(text));
    let body = json!({ "expect": encoded(expect), "value": encoded(value) });
    let answer = Call::new(Method::POST, path("cas", key)).with_json(&body).once()?.run(to).await?;
    checked(&answer)?;
    let told = json_of(&answer);
    if told["swapped"] == json!(true) {
        return Ok(ExitCode::SUCCESS);
    }
    match told["current"].as_str() {
        Some(current) => print(&BASE64_STANDARD.decode(current).map_err(|e| e.to_string())?, b"\n")?,
        None => eprintln!("kvnode: the key does not exist"),
    }
    Ok(ExitCode::FAILURE)
}

pub(crate) async fn scan(to: &To, from: &str, until: Option<&str>, limit: usize) -> Done {
    let mut path = format!("/scan?from={}&limit={limit}", utf8_percent_encode(from, PLAIN));
    if let Some(until) = until {
        path.push_str(&format!("&to={}", utf8_percent_encode(until, PLAIN)));
    }
    let answer = Call::new(Method::GET, path).run(to).await?;
    checked(&answer)?;
    for entry in json_of(&answer).as_array().into_iter().flatten() {
        let bytes = |name: &str| BASE64_STANDARD.decode(entry[name].as_str().unwrap_or_default());
        let (key, value) = (bytes("key").map_err(|e| e.to_string())?, bytes("value").map_err(|e| e.to_string())?);
        print(&key, b"\t")?;
        print(&value, b"\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn backup(to: &To, file: &Path) -> Done {
    let call = Call { attempt: LONG, ..Call::new(Method::GET, "/backup".to_string()) };
    let answer = call.run(to).await?;
    checked(&answer)?;
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let mut out = std::fs::File::create_new(file).map_err(failed)?;
    out.write_all(&answer.body).and_then(|()| out.sync_all()).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn done(answer: &Answer) -> Done {
    checked(answer).map(|()| ExitCode::SUCCESS)
}

/// An error if the answer is one.
fn checked(answer: &Answer) -> Result<(), String> {
    match answer.status {
        StatusCode::OK => Ok(()),
        _ => Err(text_of(answer)),
    }
}

/// The error of an answer, or all of it.
fn text_of(answer: &Answer) -> String {
    let told = json_of(answer);
    let whole = || String::from_utf8_lossy(&answer.body).into_owned();
    told["error"].as_str().map_or_else(whole, ToString::to_string)
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn path(kind: &str, key: &str) -> String {
    format!("/{kind}/{}", utf8_percent_encode(key, PLAIN))
}

fn print(bytes: &[u8], end: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.write_all(end)).map_err(|e| format!("writing the output: {e}"))
}

/// A number that hardly any other client has.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
