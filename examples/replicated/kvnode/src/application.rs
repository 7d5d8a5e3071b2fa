//! What a request does to the tables.
//!
//! ```text
//! kv        key -> value
//! requests  client -> number and answer of its last request, encoded by postcard
//! ```
//!
//! Invariants:
//!   KV-1  a request with an origin changes the tables once: when it comes again, the answer is the
//!       stored one. Answer and change are of one transaction.
//!   KV-2  what happens depends on the tables and on the entry only, so all nodes come to the same
//!       tables. That includes which clients are forgotten.

use mapleaf::{ErrorKind, Table, TableMut, WriteTxn};
use mapleaf_raft::Apply;
use openraft::LogId;

use crate::command::{Batch, Command, Origin, Outcome, Request, Response, Types};

/// The keys and values of the clients.
pub(crate) const KV: Table<&[u8], &[u8]> = Table::new("kv");
/// The last request of each client.
const REQUESTS: Table<u64, &[u8]> = Table::new("requests");

/// So many clients are remembered at least; those whose last request is oldest are forgotten.
const CLIENTS: u64 = 50_000;

/// The application of kvnode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyValue;

impl Apply<Types> for KeyValue {
    fn apply(&self, txn: &WriteTxn, entries: Vec<(LogId<u64>, Batch)>) -> mapleaf::Result<Vec<Vec<Response>>> {
        let mut tables = Tables { kv: txn.table(KV)?, requests: txn.table(REQUESTS)? };
        let answers = entries.into_iter().map(|(id, batch)| {
            let requests = batch.0.into_iter();
            requests.map(|request| tables.apply(id.index, request)).collect()
        });
        let answers = answers.collect::<mapleaf::Result<_>>()?;
        tables.forget_clients(CLIENTS)?;
        Ok(answers)
    }
}

struct Tables<'t> {
    kv: TableMut<'t, &'static [u8], &'static [u8]>,
    requests: TableMut<'t, u64, &'static [u8]>,
}

impl Tables<'_> {
    fn apply(&mut self, index: u64, request: Request) -> mapleaf::Result<Response> {
        let Some(origin) = request.origin else {
            return Ok(Response { index, outcome: self.change(request.command)? });
        };
        if let Some((number, response)) = self.last(origin.client)? {
            if number == origin.number {
                return Ok(response);
            }
            if number > origin.number {
                return Ok(Response { index, outcome: Outcome::Superseded(number) });
            }
        }
        let response = Response { index, outcome: self.change(request.command)? };
        self.remember(origin, &response)?;
        Ok(response)
    }

    fn change(&mut self, command: Command) -> mapleaf::Result<Outcome> {
        match self.try_change(command) {
            // Refused before anything was changed, and by every node alike.
            Err(e) if e.kind() == ErrorKind::TooLarge => Ok(Outcome::Refused(e.to_string())),
            outcome => outcome,
        }
    }

    fn try_change(&mut self, command: Command) -> mapleaf::Result<Outcome> {
        match command {
            Command::Put { key, value } => {
                self.kv.put(&key, &value)?;
                Ok(Outcome::Put)
            }
            Command::Delete { key } => Ok(Outcome::Deleted { existed: self.kv.delete(&key)? }),
            Command::Cas { key, expect, value } => {
                let current = self.kv.get(&key)?.map(<[u8]>::to_vec);
                if current != expect {
                    return Ok(Outcome::Cas { swapped: false, current });
                }
                match &value {
                    Some(value) => drop(self.kv.put(&key, value)?),
                    None => drop(self.kv.delete(&key)?),
                }
                Ok(Outcome::Cas { swapped: true, current: value })
            }
        }
    }

    /// The number and the answer of the last request of a client.
    fn last(&self, client: u64) -> mapleaf::Result<Option<(u64, Response)>> {
        let Some(bytes) = self.requests.get(client)? else { return Ok(None) };
        postcard::from_bytes(bytes).map(Some).map_err(|e| unreadable(client, &e))
    }

    fn remember(&mut self, origin: Origin, response: &Response) -> mapleaf::Result<()> {
        let last = postcard::to_stdvec(&(origin.number, response)).map_err(|e| unreadable(origin.client, &e))?;
        self.requests.put(origin.client, &last).map(drop)
    }

    /// Forgets the clients with the oldest requests when there are twice as many as are remembered.
    fn forget_clients(&mut self, remembered: u64) -> mapleaf::Result<()> {
        let surplus = self.requests.len().saturating_sub(remembered);
        if surplus < remembered {
            return Ok(());
        }
        let mut ages = Vec::new();
        for entry in self.requests.iter() {
            let (client, bytes) = entry?;
            let (_, response): (u64, Response) = postcard::from_bytes(bytes).map_err(|e| unreadable(client, &e))?;
            ages.push((response.index, client));
        }
        ages.sort_unstable();
        for (_, client) in ages.iter().take(surplus as usize) {
            self.requests.delete(*client)?;
        }
        Ok(())
    }
}

fn unreadable(client: u64, error: &postcard::Error) -> mapleaf::Error {
    mapleaf::Error::Usage { what: format!("the last request of client {client} cannot be stored or read: {error}") }
}

#[cfg(test)]
mod tests {
    use mapleaf::Db;

    use super::*;

    fn put(client: u64, number: u64, value: &str) -> Request {
        let command = Command::Put { key: b"k".to_vec(), value: value.as_bytes().to_vec() };
        Request { origin: Some(Origin { client, number }), command }
    }

    fn apply(db: &Db, index: u64, request: Request) -> Response {
        db.write(|txn| {
            let mut tables = Tables { kv: txn.table(KV)?, requests: txn.table(REQUESTS)? };
            let response = tables.apply(index, request)?;
            tables.forget_clients(3)?;
            Ok(response)
        })
        .expect("to apply")
    }

    fn value(db: &Db) -> Option<String> {
        let kv = db.begin_read().and_then(|txn| txn.table(KV)).expect("a table");
        let value = kv.get(b"k").expect("to read");
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn a_request_that_comes_again_gets_the_same_answer_and_changes_nothing() {
        let db = Db::in_memory().expect("a database");
        let first = apply(&db, 1, put(7, 1, "one"));
        apply(&db, 2, put(8, 1, "two"));
        assert_eq!(apply(&db, 3, put(7, 1, "one")), first);
        assert_eq!((first.index, value(&db).as_deref()), (1, Some("two")));
        apply(&db, 4, put(7, 2, "three"));
        assert_eq!(apply(&db, 5, put(7, 1, "one")).outcome, Outcome::Superseded(2));
        assert_eq!(value(&db).as_deref(), Some("three"));
    }

    #[test]
    fn a_swap_needs_the_expected_value() {
        let db = Db::in_memory().expect("a database");
        let cas = |expect: Option<&str>, value: Option<&str>| {
            let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
            let command = Command::Cas { key: b"k".to_vec(), expect: bytes(expect), value: bytes(value) };
            match apply(&db, 1, Request { origin: None, command }).outcome {
                Outcome::Cas { swapped, current } => (swapped, current.map(|v| String::from_utf8(v).unwrap())),
                outcome => panic!("{outcome:?}"),
            }
        };
        assert_eq!(cas(Some("a"), Some("b")), (false, None));
        assert_eq!(cas(None, Some("a")), (true, Some("a".into())));
        assert_eq!(cas(None, Some("b")), (false, Some("a".into())));
        assert_eq!(cas(Some("a"), None), (true, None));
        assert_eq!(value(&db), None);
    }

    #[test]
    fn a_key_that_is_too_long_is_refused_and_the_node_goes_on() {
        let db = Db::in_memory().expect("a database");
        let command = Command::Put { key: vec![0; mapleaf::MAX_KEY_BYTES + 1], value: Vec::new() };
        let response = apply(&db, 1, Request { origin: None, command });
        assert!(matches!(&response.outcome, Outcome::Refused(_)), "{response:?}");
        apply(&db, 2, put(1, 1, "one"));
        assert_eq!(value(&db).as_deref(), Some("one"));
    }

    #[test]
    fn the_clients_with_the_oldest_requests_are_forgotten() {
        let db = Db::in_memory().expect("a database");
        for client in 0..6 {
            apply(&db, 10 - client, put(client, 1, "x"));
        }
        let requests = db.begin_read().and_then(|txn| txn.table(REQUESTS)).expect("a table");
        let left: Vec<u64> = requests.iter().map(|entry| entry.expect("an entry").0).collect();
        assert_eq!(left, [0, 1, 2]);
    }
}
