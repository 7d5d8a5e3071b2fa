//! GET /: a page that shows the nodes, and refreshes itself.
//!
//! The node asks all members for their status, so that one page shows what each of them sees.

use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Html;
use hyper::Method;
use openraft::BasicNode;

use super::status::{self, Member, Status};
use super::{App, Handle};

/// A node that does not answer in this time is shown as not answering.
const ASKED: Duration = Duration::from_millis(400);

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1"><title>kvnode</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
h1 { font-size: 1.3rem } table { border-collapse: collapse }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th:first-child, td:first-child, .text { text-align: left }
.leader { background: #e8f4ea } .away { color: #b00020 }
</style></head><body>
"#;

/// GET /
pub(crate) async fn page(Shared(app): Handle) -> Html<String> {
    let own = status::of(&app).await;
    let mut rows = Vec::new();
    for member in members(&app, &own) {
        let told = if member.id == app.id { Some(own.clone()) } else { ask(&app, &member).await };
        rows.push((member, told));
    }
    Html(render(&own, &rows))
}

/// The members; a node that is in no cluster shows itself and its peers.
fn members(app: &App, own: &Status) -> Vec<Member> {
    if !own.members.is_empty() {
        return own.members.clone();
    }
    let peers = app.network.peers.iter().map(|(id, addr)| (*id, addr.clone()));
    let all = peers.chain([(app.id, app.addr.clone())]);
    let mut all: Vec<Member> = all.map(|(id, addr)| Member { id, addr, voter: false }).collect();
    all.sort_unstable_by_key(|member| member.id);
    all
}

async fn ask(app: &App, member: &Member) -> Option<Status> {
    let addr = app.network.addr(member.id, &BasicNode::new(&member.addr));
    let answer = app.network.http.send(Method::GET, &addr, "/status", &[], Body::empty(), ASKED).await.ok()?;
    serde_json::from_slice(&answer.body).ok()
}

fn render(own: &Status, rows: &[(Member, Option<Status>)]) -> String {
    let mut page = HEAD.to_string();
    let leader = match own.leader {
        Some(id) => format!("node {id} is the leader of term {}", own.term),
        None => "no leader is known".to_string(),
    };
    // The last entry that any node has committed: the lag counts from it.
    let newest = rows.iter().filter_map(|(_, status)| status.as_ref()?.committed).max().unwrap_or(0);
    let mut put = |text: &str| page.push_str(text);
    put(&format!("<h1>Seen by node {}: {leader}</h1>\n<table><tr>", own.id));
    for title in ["Node", "Address", "Role", "Term", "Last entry", "Committed", "Applied", "Snapshot", "Purged", "Lag"]
    {
        put(&format!("<th>{title}</th>"));
    }
    put("</tr>\n");
    for (member, status) in rows {
        put(&row(member, status.as_ref(), newest));
    }
    put("</table></body></html>\n");
    page
}

fn row(member: &Member, status: Option<&Status>, newest: u64) -> String {
    let (id, addr) = (member.id, escape(&member.addr));
    let Some(status) = status else {
        return format!("<tr class=\"away\"><td>{id}</td><td class=\"text\">{addr}</td><td class=\"text\" colspan=\"8\">does not answer</td></tr>\n");
    };
    if let Some(why) = &status.damaged {
        let why = escape(why);
        return format!("<tr class=\"away\"><td>{id}</td><td class=\"text\">{addr}</td><td class=\"text\" colspan=\"8\">serves nothing: {why}</td></tr>\n");
    }
    let class = if status.role == "leader" { " class=\"leader\"" } else { "" };
    let mut text = format!(
        "<tr{class}><td>{id}</td><td class=\"text\">{addr}</td><td class=\"text\">{}</td><td>{}</td>",
        status.role, status.term
    );
    for position in [status.last_log, status.committed, status.applied, status.snapshot, status.purged] {
        let shown = position.map_or_else(|| "-".to_string(), |position| position.to_string());
        write!(text, "<td>{shown}</td>").expect("text takes all that is written");
    }
    text.push_str(&format!("<td>{}</td></tr>\n", newest.saturating_sub(status.applied.unwrap_or(0))));
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
