//! Serde structs as values, and a struct of fields as key: a diary of a bird watcher.
//!
//! `cargo run --example serde_structs --features serde`

use std::cmp::Reverse;

use mapleaf::codec::{Named, Postcard};
use mapleaf::{Db, Table};
use serde::{Deserialize, Serialize};

mapleaf::key_struct! {
    /// Sightings sort by place, then the newest first.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Sighting {
        place: String,
        day: Reverse<u32>,
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Weather {
    Sun,
    Rain { millimeters: u16 },
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Notes {
    birds: Vec<(String, u32)>,
    weather: Option<Weather>,
}

/// The table stores this name. A struct with other fields needs another one.
impl Named for Notes {
    fn stored_name() -> String {
        "diary.notes.v1".to_string()
    }
}

const DIARY: Table<Sighting, Postcard<Notes>> = Table::new("diary");

fn main() -> mapleaf::Result<()> {
    let db = Db::in_memory()?;
    let key = |place: &str, day| Sighting { place: place.to_string(), day: Reverse(day) };

    db.write(|txn| {
        let mut diary = txn.table(DIARY)?;
        let heron = Notes { birds: vec![("heron".to_string(), 2)], weather: Some(Weather::Sun) };
        diary.insert(key("lake", 20_260_501), heron)?;
        let weather = Some(Weather::Rain { millimeters: 12 });
        diary.insert(key("lake", 20_260_502), Notes { birds: vec![], weather })?;
        diary.insert(key("wood", 20_260_503), Notes { birds: vec![("wren".to_string(), 1)], weather: None })?;
        Ok::<_, mapleaf::Error>(())
    })?;

    let txn = db.begin_read()?;
    let diary = txn.table(DIARY)?;
    for entry in diary.prefix("lake".to_string())? {
        let (sighting, notes) = entry?;
        println!("{} on {}: {:?}, {:?}", sighting.place, sighting.day.0, notes.birds, notes.weather);
    }
    let newest = diary.prefix("lake".to_string())?.next().transpose()?.expect("an entry");
    assert_eq!(newest.0, key("lake", 20_260_502));
    assert_eq!(newest.1.weather, Some(Weather::Rain { millimeters: 12 }));

    // Another type is refused, and the error names both.
    let refused = txn.table(Table::<Sighting, &str>::new("diary")).expect_err("another type");
    assert!(refused.to_string().contains("postcard<diary.notes.v1>"), "{refused}");
    Ok(())
}
