//! Reads by members: a read transaction for each lookup, opening, and reads beside a writer.

use super::member::{together, Member, Variant, EXCLUSIVE, LMDB, SHARED};
use super::{column, copy, figure, halves, name_rows, per, rounds};
use crate::measure::{About, Run};
use crate::report::{median, Better, Figure, Row};
use crate::Res;

const RENEW: Variant = Variant { name: "lmdb", engine: "lmdb", flags: "renew" };
/// Entries that are looked up again and again, or half of all.
const PROBES_MAX: usize = 200_000;
const WARM_UP_MILLIS: u64 = 300;
const TIMED_MILLIS: u64 = 1_000;
/// New processes per round of `open`.
const OPENINGS: u32 = 21;

/// Begin, get and end by one process, opened shared, alone, and LMDB's renewal and reset; then by two processes.
pub(super) fn begin(run: &Run<'_>) -> Res<Vec<Figure>> {
    let variants = [RENEW, SHARED, EXCLUSIVE];
    let paths = variants.iter().map(|v| copy(run, v.engine, v.name)).collect::<Res<Vec<_>>>()?;
    let (mut pairs, mut alone) = (vec![Vec::new(); 2], Vec::new());
    for round in 0..=run.options.rounds {
        let mut one = Vec::new();
        for (variant, path) in variants.iter().zip(&paths) {
            let mut members = vec![reader(run, *variant, path)?];
            one.push(rate_of(&mut members)?);
            members.remove(0).close()?;
        }
        for (i, two) in pairs.iter_mut().enumerate() {
            let mut members = vec![reader(run, variants[i], &paths[i])?];
            let single = rate_of(&mut members)?;
            members.push(reader(run, variants[i], &paths[i])?);
            let both = rate_of(&mut members)?;
            members.into_iter().try_for_each(Member::close)?;
            if round > 0 {
                two.push((single, both));
            }
        }
        if round > 0 {
            alone.push(one);
        }
    }
    let values: Vec<Vec<f64>> = (0..variants.len()).map(|i| column(&alone, i)).collect();
    let unit = "lookups/s";
    let title = "begin a read transaction, get, end it; LMDB: renew, get, reset; one process";
    let about = About { id: "processes_begin", title, unit, better: Better::Higher };
    let against_lmdb = figure(run, about, LMDB.name, name_rows(&variants, &values, &values[0]));
    let about =
        About { id: "processes_begin_shared", title: "the same beside a process that has the file alone", ..about };
    let against_alone = figure(run, about, EXCLUSIVE.name, name_rows(&variants[1..], &values[1..], &values[2]));
    let title = "the same by two processes at the same time, both together";
    let about = About { id: "processes_begin_two", title, ..about };
    let rows = variants[..2].iter().zip(&pairs).map(|(variant, pairs)| Row {
        engine: variant.name.into(),
        values: pairs.iter().map(|(_, both)| *both).collect(),
        ratios: pairs.iter().map(|(single, both)| both / single).collect(),
        note: String::new(),
    });
    let by_two = figure(run, about, "one process of the same engine", rows.collect());
    Ok(vec![against_lmdb, against_alone, by_two])
}

/// A member that has its lists of entries, and has looked all of them up.
fn reader(run: &Run<'_>, variant: Variant, path: &std::path::Path) -> Res<Member> {
    let mut member = Member::open(run, variant, path, 0)?;
    member.ask(&format!("probes 0 {}", halves(run).0.min(PROBES_MAX)))?;
    member.ask("warm")?;
    Ok(member)
}

/// Lookups per second of all together, each in its own transaction.
fn rate_of(members: &mut [Member]) -> Res<f64> {
    together(members, |_| format!("txns {WARM_UP_MILLIS}"))?;
    let answers = together(members, |_| format!("txns {TIMED_MILLIS}"))?;
    Ok(answers.iter().map(|answer| per(answer[0], answer[1])).sum())
}

/// Opening and a first get in a new process, the lock file made before; then once more in the same process.
pub(super) fn open(run: &Run<'_>) -> Res<Vec<Figure>> {
    let variants = [LMDB, SHARED, EXCLUSIVE];
    let paths = variants.iter().map(|v| copy(run, v.engine, v.name)).collect::<Res<Vec<_>>>()?;
    for (variant, path) in variants.iter().zip(&paths) {
        Member::open(run, *variant, path, 0)?.close()?;
    }
    let mut again = vec![Vec::new(); variants.len()];
    let values = rounds(run, variants.len(), |i, counts| {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for place in 0..OPENINGS {
            let mut member = Member::open(run, variants[i], &paths[i], place)?;
            first.push(member.opening / 1e3);
            member.ask("close")?;
            second.push(member.ask(&format!("open {}", place + OPENINGS))?[0] / 1e3);
            member.close()?;
        }
        if counts {
            again[i].push(median(&second));
        }
        Ok(median(&first))
    })?;
    let title = "open and first get in a new process, the lock file made before, page cache warm";
    let about = About { id: "processes_open", title, unit: "us", better: Better::Lower };
    let new = figure(run, about, LMDB.name, name_rows(&variants, &values, &values[0]));
    let about = About { id: "processes_reopen", title: "the same once more in the same process", ..about };
    Ok(vec![new, figure(run, about, LMDB.name, name_rows(&variants, &again, &again[0]))])
}

/// Two readers, first alone and then with a third process that commits durably.
///
/// The writer may have its share of the processors: what the readers keep is compared with what they did alone, less the
/// part of two processors that the writer ran.
pub(super) fn beside(run: &Run<'_>) -> Res<Vec<Figure>> {
    const MILLIS: u64 = 2 * TIMED_MILLIS;
    let variants = [LMDB, SHARED];
    let (reads, writes) = halves(run);
    let mut engines = Vec::new();
    for variant in variants {
        let path = copy(run, variant.engine, variant.name)?;
        let readers = vec![reader(run, variant, &path)?, reader(run, variant, &path)?];
        engines.push((readers, Member::open(run, variant, &path, 0)?));
    }
    let (mut kept, mut notes) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let writes_order = format!("commits {} {reads} {}", MILLIS, writes.min(run.options.commits));
    let values = rounds(run, variants.len(), |i, counts| {
        let (readers, writer) = &mut engines[i];
        together(readers, |_| format!("gets {WARM_UP_MILLIS}"))?;
        let without = together(readers, |_| format!("gets {MILLIS}"))?;
        writer.tell(&writes_order)?;
        let with = together(readers, |_| format!("gets {MILLIS}"))?;
        let wrote = writer.answer()?;
        let rate = |answers: &[Vec<f64>]| answers.iter().map(|a| per(a[0], a[1])).sum::<f64>();
        let per_cpu =
            |answers: &[Vec<f64>]| column(answers, 0).iter().sum::<f64>() / column(answers, 2).iter().sum::<f64>();
        let processors = wrote[2] / wrote[1];
        let left = 1.0 - processors / 2.0;
        if counts {
            kept[i].push(rate(&with) / rate(&without) / left);
            let cycle = per_cpu(&with) / per_cpu(&without);
            notes[i].push([per(wrote[0], wrote[1]), processors, rate(&with) / rate(&without), cycle]);
        }
        Ok(rate(&with))
    })?;
    for (readers, writer) in engines {
        readers.into_iter().try_for_each(Member::close)?;
        writer.close()?;
    }
    let rows = variants.iter().enumerate().map(|(i, variant)| {
        let of = |n: usize| median(&notes[i].iter().map(|note| note[n]).collect::<Vec<_>>());
        Row {
            engine: variant.name.into(),
            values: values[i].clone(),
            ratios: kept[i].clone(),
            note: format!(
                "writer: {:.0} commits/s in {:.2} processors; readers: {:.2} x their rate alone, {:.2} x per second of processor",
                of(0), of(1), of(2), of(3)
            ),
        }
    });
    let title = "two processes read at full speed while a third commits durably";
    let about = About { id: "processes_beside", title, unit: "lookups/s", better: Better::Higher };
    let versus = "their rate alone on the processors that the writer leaves of two";
    Ok(vec![figure(run, about, versus, rows.collect())])
}
