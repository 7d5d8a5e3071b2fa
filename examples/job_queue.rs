//! A job queue with worker threads. A job lies in one of three tables, and moves in one
//! transaction: no job is lost or done twice, also if the process is killed.

use std::thread;

use mapleaf::{Db, Table};

/// Waiting jobs by priority, lowest first, and number.
const WAITING: Table<(u8, u64), &str> = Table::new("waiting");
const RUNNING: Table<u64, (u8, &str)> = Table::new("running");
const DONE: Table<u64, &str> = Table::new("done");

fn submit(db: &Db, number: u64, priority: u8, text: &str) -> mapleaf::Result<()> {
    db.write(|txn| txn.table(WAITING)?.insert((priority, number), text).map(drop))
}

/// Takes the most urgent job.
fn take(db: &Db) -> mapleaf::Result<Option<(u64, String)>> {
    db.write(|txn| {
        let first = txn.table(WAITING)?.first()?.map(|(key, text)| (key, text.to_string()));
        let Some(((priority, number), text)) = first else { return Ok(None) };
        txn.table(WAITING)?.remove((priority, number))?;
        txn.table(RUNNING)?.insert(number, (priority, text.as_str()))?;
        Ok(Some((number, text)))
    })
}

fn finish(db: &Db, number: u64, result: &str) -> mapleaf::Result<()> {
    db.write(|txn| {
        txn.table(RUNNING)?.remove(number)?;
        txn.table(DONE)?.insert(number, result).map(drop)
    })
}

/// Puts the jobs back that a process took and did not finish. Called before the workers start.
fn take_back(db: &Db) -> mapleaf::Result<()> {
    db.write(|txn| {
        let left: Vec<_> = txn.table(RUNNING)?.range_owned(..)?.collect::<mapleaf::Result<_>>()?;
        for (number, (priority, text)) in left {
            txn.table(RUNNING)?.remove(number)?;
            txn.table(WAITING)?.insert((priority, number), &text)?;
        }
        Ok(())
    })
}

fn work(db: &Db) -> mapleaf::Result<()> {
    while let Some((number, text)) = take(db)? {
        finish(db, number, &text.to_uppercase())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path().join("jobs.mapleaf"))?;
    for number in 0..100 {
        submit(&db, number, (number % 3) as u8, &format!("job {number}"))?;
    }
    assert_eq!(take(&db)?.map(|(number, _)| number), Some(0));
    take_back(&db)?;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&db))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    let txn = db.begin_read()?;
    assert_eq!((txn.table(WAITING)?.len(), txn.table(RUNNING)?.len(), txn.table(DONE)?.len()), (0, 0, 100));
    println!("the last job said {:?}", txn.table(DONE)?.get(99)?);
    Ok(())
}

#[cfg(test)]
#[test]
fn the_example_works() {
    main().expect("the example works");
}
