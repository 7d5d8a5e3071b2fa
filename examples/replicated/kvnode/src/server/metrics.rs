//! GET /metrics: what to monitor, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use hyper::header::CONTENT_TYPE;

use super::status::{self, Status};
use super::{Counts, Engine, Handle};

/// GET /metrics
pub(crate) async fn metrics(Shared(app): Handle) -> Response {
    let mut text = Text(String::new());
    text.of_status(&status::of(&app).await);
    text.of_counts(&app.counts);
    if let Ok(engine) = &app.engine {
        text.of_files(engine);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text.0).into_response()
}

struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.metric("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help, value);
    }

    fn metric(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.head(kind, name, help);
        self.line(format_args!("kvnode_{name} {value}"));
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.line(format_args!("# HELP kvnode_{name} {help}\n# TYPE kvnode_{name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("text takes all that is written");
    }

    fn of_status(&mut self, status: &Status) {
        self.gauge(
            "damaged",
            "Whether the node serves nothing because its files are damaged.",
            status.damaged.is_some().into(),
        );
        self.gauge("is_leader", "Whether the node is the leader.", (status.role == "leader").into());
        self.gauge("has_leader", "Whether the node knows a leader.", status.leader.is_some().into());
        self.gauge("term", "The term of the node.", status.term);
        let positions = [
            ("last_log_index", "The last entry of the log.", status.last_log),
            ("committed_index", "The last entry that is committed.", status.committed),
            ("applied_index", "The last entry that is applied.", status.applied),
            ("snapshot_index", "The last entry of the snapshot.", status.snapshot),
            ("purged_index", "The last entry that was purged from the log.", status.purged),
        ];
        for (name, help, position) in positions {
            self.gauge(name, help, position.unwrap_or(0));
        }
        if let Some(millis) = status.quorum_ack_ms {
            self.gauge("quorum_ack_milliseconds", "Time since a majority has answered the leader.", millis);
        }
        self.head("gauge", "replication_lag_entries", "Entries that another node does not have yet.");
        let last = status.last_log.unwrap_or(0);
        for (id, replicated) in status.replicated.iter().filter(|(id, _)| **id != status.id) {
            let lag = last.saturating_sub(replicated.unwrap_or(0));
            self.line(format_args!("kvnode_replication_lag_entries{{node=\"{id}\"}} {lag}"));
        }
    }

    fn of_counts(&mut self, counts: &Counts) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.counter("writes_total", "Changes that clients asked this node for.", read(&counts.writes));
        self.counter("reads_total", "Linearizable reads that clients asked this node for.", read(&counts.reads));
        self.counter("stale_reads_total", "Stale reads.", read(&counts.stale_reads));
        self.counter(
            "failures_total",
            "Writes and reads that were refused or not known to be done.",
            read(&counts.failures),
        );
    }

    fn of_files(&mut self, engine: &Engine) {
        self.counter("log_changes_total", "Changes written to the log file.", engine.log.changes());
        self.counter("log_flushes_total", "Flushes of the log file by them.", engine.log.flushes());
        for (name, db) in [("log", engine.log.db().clone()), ("state", engine.state.db())] {
            // A file whose statistics cannot be read shows as damaged when it is used.
            let Ok(stats) = db.stats() else { continue };
            self.gauge(&format!("{name}_file_bytes"), "Length of the file.", stats.file_bytes);
            self.gauge(&format!("{name}_entries"), "Entries in the file.", stats.entries);
            self.gauge(&format!("{name}_readers"), "Open read transactions.", stats.readers);
        }
    }
}
