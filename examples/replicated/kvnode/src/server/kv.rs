//! Keys and values.
//!
//! A key is the rest of the path, percent-decoded, and may be any bytes. Values are bodies of any
//! bytes; in JSON they are base64.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Shared};
use axum::response::{IntoResponse, Response as Answer};
use axum::Json;
use base64::prelude::{Engine as _, BASE64_STANDARD};
use hyper::{HeaderMap, StatusCode, Uri};
use mapleaf::ReadTxn;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{json, Value};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::refusal::Refusal;
use super::{App, Engine, Handle, VALUE_BYTES};
use crate::application::KV;
use crate::command::{Command, Origin, Outcome, Request, Response};

/// A read that is not confirmed after this time is refused.
const READ: Duration = Duration::from_secs(5);
/// Entries of a scan without a limit, and of any scan.
const SCANNED: usize = 1000;
const MOST_SCANNED: usize = 100_000;

/// `?stale=true`.
#[derive(Debug, Deserialize)]
pub(crate) struct Stale {
    #[serde(default)]
    stale: bool,
}

/// `?from=&to=&limit=&stale=true`; keys are percent-encoded.
#[derive(Debug, Default)]
struct Scan {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    limit: Option<usize>,
    stale: bool,
}

/// The body of a compare-and-swap.
#[derive(Debug, Deserialize)]
pub(crate) struct Swap {
    expect: Option<String>,
    value: Option<String>,
}

/// GET /kv/{key}
pub(crate) async fn get(Shared(app): Handle, uri: Uri, Query(options): Query<Stale>) -> Result<Answer, Refusal> {
    let key = key(&uri, "/kv/");
    let txn = begin_read(&app, options.stale).await?;
    match txn.table(KV)?.get(&key)? {
        Some(value) => Ok(value.to_vec().into_response()),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such key")),
    }
}

/// PUT /kv/{key}
pub(crate) async fn put(
    Shared(app): Handle,
    uri: Uri,
    headers: HeaderMap,
    value: Bytes,
) -> Result<Json<Value>, Refusal> {
    check_value(value.len())?;
    let response = write(&app, &headers, Command::Put { key: key(&uri, "/kv/"), value: value.to_vec() }).await?;
    Ok(Json(json!({ "index": response.index })))
}

/// DELETE /kv/{key}
pub(crate) async fn delete(Shared(app): Handle, uri: Uri, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let response = write(&app, &headers, Command::Delete { key: key(&uri, "/kv/") }).await?;
    let existed = response.outcome == Outcome::Deleted { existed: true };
    Ok(Json(json!({ "index": response.index, "existed": existed })))
}

/// POST /cas/{key}
pub(crate) async fn cas(
    Shared(app): Handle,
    uri: Uri,
    headers: HeaderMap,
    Json(swap): Json<Swap>,
) -> Result<Json<Value>, Refusal> {
    let (expect, value) = (decoded("expect", swap.expect)?, decoded("value", swap.value)?);
    check_value(value.as_ref().map_or(0, Vec::len))?;
    let response = write(&app, &headers, Command::Cas { key: key(&uri, "/cas/"), expect, value }).await?;
    let Outcome::Cas { swapped, current } = response.outcome else {
        return Err(Refusal::malformed("the request id was used for another kind of request"));
    };
    let current = current.map(|value| BASE64_STANDARD.encode(value));
    Ok(Json(json!({ "index": response.index, "swapped": swapped, "current": current })))
}

/// GET /scan
pub(crate) async fn scan(Shared(app): Handle, uri: Uri) -> Result<Json<Value>, Refusal> {
    let scan = Scan::of(uri.query().unwrap_or_default())?;
    let txn = begin_read(&app, scan.stale).await?;
    let kv = txn.table(KV)?;
    let limit = scan.limit.unwrap_or(SCANNED).min(MOST_SCANNED);
    let entries = match &scan.to {
        Some(to) if *to <= scan.from => kv.range(&b""[..]..&b""[..])?,
        Some(to) => kv.range(&scan.from[..]..&to[..])?,
        None => kv.range(&scan.from[..]..)?,
    };
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in entries.take(limit) {
        let (key, value) = entry?;
        bytes += key.len() + value.len();
        if bytes > VALUE_BYTES && !found.is_empty() {
            break;
        }
        found.push(json!({ "key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(value) }));
    }
    Ok(Json(Value::Array(found)))
}

/// GET /backup: the state of this node, after all that was acknowledged before.
pub(crate) async fn backup(Shared(app): Handle, Query(options): Query<Stale>) -> Result<Answer, Refusal> {
    let engine = app.engine()?;
    if !options.stale {
        confirm(&app, engine).await?;
    }
    let db = engine.state.db();
    let made = tokio::task::spawn_blocking(move || {
        let path = db.path().map(|path| path.with_extension(format!("backup-{}", unused_number())));
        let path = path.ok_or_else(|| Refusal::malformed("the state is in memory"))?;
        db.compact_to(&path)?;
        let file = std::fs::File::open(&path);
        // The name goes at once; the open file stays until it is sent.
        let removed = std::fs::remove_file(&path);
        removed.and(file).map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    });
    let made = made.await.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(Body::from_stream(ReceiverStream::new(read_file(made?))).into_response())
}

/// The bytes of a file, read while they are sent.
fn read_file(mut file: std::fs::File) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || loop {
        let mut chunk = vec![0; 256 << 10];
        let read = file.read(&mut chunk).map(|count| {
            chunk.truncate(count);
            Bytes::from(chunk)
        });
        let ends = read.as_ref().map_or(true, Bytes::is_empty);
        if chunks.blocking_send(read).is_err() || ends {
            break;
        }
    });
    receiver
}

/// A transaction that sees what a read may see.
async fn begin_read(app: &App, stale: bool) -> Result<ReadTxn, Refusal> {
    let engine = app.engine()?;
    if stale {
        app.counts.stale_reads.fetch_add(1, Ordering::Relaxed);
    } else {
        app.counts.reads.fetch_add(1, Ordering::Relaxed);
        confirm(app, engine).await?;
    }
    Ok(engine.state.db().begin_read()?)
}

async fn confirm(app: &App, engine: &Engine) -> Result<(), Refusal> {
    let confirmed = tokio::time::timeout(READ, engine.reads.confirm()).await;
    let confirmed = confirmed.unwrap_or_else(|_| Err(Refusal::unavailable("no majority has confirmed the leader")));
    confirmed.inspect_err(|_| count_failure(app))
}

/// Has the cluster make a change.
async fn write(app: &App, headers: &HeaderMap, command: Command) -> Result<Response, Refusal> {
    let origin = origin(headers)?;
    let engine = app.engine()?;
    app.counts.writes.fetch_add(1, Ordering::Relaxed);
    has_majority(app, engine).inspect_err(|_| count_failure(app))?;
    let written = engine.writes.write(Request { origin, command }).await;
    let response = written.inspect_err(|_| count_failure(app))?;
    match response.outcome {
        Outcome::Superseded(number) => {
            let what = format!("this client has sent request {number} already; the answer to this one is forgotten");
            Err(Refusal::new(StatusCode::CONFLICT, what))
        }
        Outcome::Refused(why) => Err(Refusal::malformed(why)),
        _ => Ok(response),
    }
}

fn count_failure(app: &App) {
    app.counts.failures.fetch_add(1, Ordering::Relaxed);
}

/// Refuses a write at once if the leader has not heard of a majority for long: nothing was done, so
/// the client may go on elsewhere.
fn has_majority(app: &App, engine: &Engine) -> Result<(), Refusal> {
    let metrics = engine.raft.metrics();
    let metrics = metrics.borrow();
    let alone = metrics.membership_config.voter_ids().count() == 1;
    match metrics.millis_since_quorum_ack {
        Some(millis) if !alone && millis > 4 * app.election_ms => {
            Err(Refusal::unavailable(format!("no majority has answered for {millis} ms")))
        }
        _ => Ok(()),
    }
}

fn origin(headers: &HeaderMap) -> Result<Option<Origin>, Refusal> {
    let Some(id) = headers.get("x-request-id") else { return Ok(None) };
    let parts = id.to_str().ok().and_then(|id| id.split_once('-'));
    let parts = parts.and_then(|(client, number)| Some((client.parse().ok()?, number.parse().ok()?)));
    let (client, number) = parts.ok_or_else(|| Refusal::malformed("x-request-id must be CLIENT-N, two numbers"))?;
    Ok(Some(Origin { client, number }))
}

fn key(uri: &Uri, before: &str) -> Vec<u8> {
    percent_decode_str(uri.path().strip_prefix(before).unwrap_or_default()).collect()
}

fn decoded(what: &str, text: Option<String>) -> Result<Option<Vec<u8>>, Refusal> {
    let decoded = text.map(|text| BASE64_STANDARD.decode(text)).transpose();
    decoded.map_err(|e| Refusal::malformed(format!("{what} is not base64: {e}")))
}

fn check_value(len: usize) -> Result<(), Refusal> {
    if len > VALUE_BYTES {
        let what = format!("a value of {len} bytes; at most {VALUE_BYTES} are allowed");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, what));
    }
    Ok(())
}

impl Scan {
    fn of(query: &str) -> Result<Scan, Refusal> {
        let mut scan = Scan::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, text) = part.split_once('=').unwrap_or((part, ""));
            let value: Vec<u8> = percent_decode_str(text).collect();
            match name {
                "from" => scan.from = value,
                "to" => scan.to = Some(value).filter(|to| !to.is_empty()),
                "limit" => scan.limit = Some(text.parse().map_err(|e| Refusal::malformed(format!("limit: {e}")))?),
                "stale" => scan.stale = text == "true",
                _ => return Err(Refusal::malformed(format!("{name:?} is no parameter of a scan"))),
            }
        }
        Ok(scan)
    }
}

/// A number that no other call in this process gets.
fn unused_number() -> u64 {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
