//! Time series with retention. The keys are sensor and time, so the points of a sensor lie side by
//! side in the order of time, and old ones are removed as a range.

use mapleaf::{Db, Durability, Table};

/// Points by sensor and second.
const POINTS: Table<(&str, u64), f64> = Table::new("points");
const SENSORS: Table<&str, ()> = Table::new("sensors");

/// Stores points. A power loss may take the last second of them, so no commit waits for the disk.
fn record(db: &Db, sensor: &str, points: impl Iterator<Item = (u64, f64)>) -> mapleaf::Result<()> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Eventual);
    txn.table(SENSORS)?.insert(sensor, ())?;
    let mut table = txn.table(POINTS)?;
    for (second, value) in points {
        table.insert((sensor, second), value)?;
    }
    txn.commit()
}

/// The mean of a sensor from one second on and before another.
fn mean(db: &Db, sensor: &str, from: u64, to: u64) -> mapleaf::Result<Option<f64>> {
    let points = db.begin_read()?.table(POINTS)?;
    let (mut count, mut sum) = (0.0, 0.0);
    for entry in points.range((sensor, from)..(sensor, to))? {
        count += 1.0;
        sum += entry?.1;
    }
    Ok((count > 0.0).then(|| sum / count))
}

/// Removes all points before a second. Returns how many.
fn retain_from(db: &Db, second: u64) -> mapleaf::Result<u64> {
    db.write(|txn| {
        let sensors: Vec<_> = txn.table(SENSORS)?.range_owned(..)?.collect::<mapleaf::Result<_>>()?;
        let mut removed = 0;
        for (sensor, ()) in sensors {
            removed += txn.table(POINTS)?.remove_range((&*sensor, 0)..(&*sensor, second))?;
        }
        Ok(removed)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path().join("points.mapleaf"))?;
    for hour in 0..10 {
        let seconds = hour * 3600..(hour + 1) * 3600;
        record(&db, "cellar", seconds.clone().map(|second| (second, 12.0)))?;
        record(&db, "roof", seconds.map(|second| (second, second as f64)))?;
    }
    println!("on the roof: {:?}", mean(&db, "roof", 0, 3600)?);
    assert_eq!(mean(&db, "roof", 0, 3)?, Some(1.0));
    assert_eq!(mean(&db, "cellar", 0, 36_000)?, Some(12.0));

    assert_eq!(retain_from(&db, 32_400)?, 2 * 32_400);
    assert_eq!((mean(&db, "roof", 0, 32_400)?, mean(&db, "roof", 32_400, 32_401)?), (None, Some(32_400.0)));
    let points = db.begin_read()?.table(POINTS)?;
    assert_eq!(points.range(("roof", 0)..)?.next_back().transpose()?, Some((("roof", 35_999), 35_999.0)));
    Ok(())
}

#[cfg(test)]
#[test]
fn the_example_works() {
    main().expect("the example works");
}
