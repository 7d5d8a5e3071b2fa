//! Requests to other nodes.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Keeps connections to other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Body>,
}

/// An answer with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The node cannot be reached: the request was not sent.
    #[error("{addr} cannot be reached ({why})")]
    Unreachable { addr: String, why: String },
    /// The connection broke or the time was up after the request was sent: it may have been done.
    #[error("{addr} did not answer ({why})")]
    Unknown { addr: String, why: String },
}

impl Http {
    pub(crate) fn new() -> Http {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        Http { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        addr: &str,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Body,
        limit: Duration,
    ) -> Result<Answer, NoAnswer> {
        let unreachable = |why: String| NoAnswer::Unreachable { addr: addr.to_string(), why };
        let unknown = |why: String| NoAnswer::Unknown { addr: addr.to_string(), why };
        let mut request = Request::builder().method(method).uri(format!("http://{addr}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|e| unreachable(e.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|e| match e.is_connect() {
                true => unreachable(describe(&e)),
                false => unknown(describe(&e)),
            })?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| unknown(e.to_string()))?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        let in_time = tokio::time::timeout(limit, answer).await;
        in_time.unwrap_or_else(|_| Err(unknown(format!("no answer within {} ms", limit.as_millis()))))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
