//! The orders of keys that a program has registered.
//!
//! Floor: catalog. The catalog stores the name of an order, never its comparison. The program gives
//! the comparison each time that it opens the file.
//!
//! Failure: [`TableRecord::check_order`] refuses a table whose order is not registered.

use super::spec::flags;
use super::TableRecord;
use crate::error::{Error, Result};
use crate::page::order::{Compare, Order};

/// Comparisons with their names.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeyOrders(Vec<(String, Compare)>);

impl KeyOrders {
    /// Registers a comparison, in place of another one with this name.
    pub(crate) fn register(&mut self, name: String, compare: Compare) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, compare));
    }

    /// The order of a table with these flags and this name of its order.
    pub(crate) fn find(&self, table_flags: u32, name: &str) -> Order {
        match flags::order(table_flags) {
            Order::Unknown => {
                let known = self.0.iter().find(|(known, _)| known == name);
                known.map_or(Order::Unknown, |(_, compare)| Order::Named(*compare))
            }
            order => order,
        }
    }
}

impl TableRecord {
    /// The record with the order of its keys.
    pub(crate) fn with_order(mut self, orders: &KeyOrders) -> TableRecord {
        if !self.root.order.is_bytewise() {
            self.root.order = orders.find(self.flags, &self.key_order);
        }
        self
    }

    /// Returns an error if keys of the table cannot be compared, because this program has not
    /// registered the comparison.
    #[inline]
    pub(crate) fn check_order(&self, name: &str) -> Result<()> {
        match self.root.order.is_known() {
            true => Ok(()),
            false => Err(unknown_order(name, &self.key_order)),
        }
    }
}

#[cold]
pub(crate) fn unknown_order(name: &str, key_order: &str) -> Error {
    Error::usage(format!(
        "table '{name}' has keys in the order '{key_order}', which this program has not registered; open the database \
         with Options::key_order(\"{key_order}\", ..)"
    ))
}
