//! "What if": try changes in nested transactions, look at their outcome, and keep the best.
//!
//! A warehouse has to send 60 boxes. Each plan is tried on the real data, inside one write
//! transaction; nobody else sees it. Plans that cost more, or that fail half-way, leave no trace.

use mapleaf::{Db, NestedTxn, Result, Table};

const STOCK: Table<&str, u32> = Table::new("stock");
const ORDERS: Table<(&str, u32), u32> = Table::new("orders");

/// A plan takes boxes from places, in this order. Taking from a place costs 10, and each box 1.
const PLANS: [&[&str]; 4] = [&["harbour", "tower", "mill"], &["tower", "mill"], &["mill", "harbour"], &["tower"]];
const WANTED: u32 = 60;

/// Carries out a plan. Returns what it costs, or `None` if there are not enough boxes.
fn carry_out(txn: &mut NestedTxn<'_>, order: u32, plan: &[&str]) -> Result<Option<u32>> {
    let (mut missing, mut costs) = (WANTED, 0);
    for place in plan {
        let there = txn.table(STOCK)?.get(place)?.unwrap_or(0);
        let taken = there.min(missing);
        txn.table(STOCK)?.insert(place, there - taken)?;
        txn.table(ORDERS)?.insert((place, order), taken)?;
        missing -= taken;
        costs += 10 + taken;
        if missing == 0 {
            return Ok(Some(costs));
        }
    }
    Ok(None)
}

fn main() -> Result<()> {
    let db = Db::in_memory()?;
    db.write(|txn| {
        let mut stock = txn.table(STOCK)?;
        stock.put_all([("harbour", 20), ("mill", 45), ("tower", 30)])?;
        Ok(())
    })?;

    let mut txn = db.begin_write()?;
    let mut best: Option<(usize, u32)> = None;
    for (number, plan) in PLANS.iter().enumerate() {
        let mut attempt = txn.begin_nested()?;
        let costs = carry_out(&mut attempt, 1, plan)?;
        println!("plan {number} {plan:?}: {costs:?}");
        // Dropping the attempt takes back everything, also the table of orders.
        drop(attempt);
        best = match (best, costs) {
            (Some((_, least)), Some(costs)) if costs >= least => best,
            (_, Some(costs)) => Some((number, costs)),
            (_, None) => best,
        };
    }
    assert!(txn.table_info("orders")?.is_none());
    let (number, costs) = best.expect("some plan has enough boxes");
    assert_eq!((number, costs), (1, 80));

    // With savepoints the steps back may cross. This one goes back to the state before the order.
    let before = txn.savepoint()?;
    txn.nested(|attempt| carry_out(attempt, 1, PLANS[0]))?;
    txn.rollback_to(&before)?;
    txn.nested(|attempt| carry_out(attempt, 1, PLANS[number]))?;
    txn.commit()?;

    let txn = db.begin_read()?;
    assert_eq!(txn.table(STOCK)?.get("tower")?, Some(0));
    assert_eq!(txn.table(STOCK)?.get("harbour")?, Some(20));
    assert_eq!(txn.table(ORDERS)?.len(), 2);
    Ok(())
}
