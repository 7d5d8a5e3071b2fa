//! How a table is opened, and what the flags of a table say.
//!
//! Floor: catalog. Every call that opens a table passes a [`TableSpec`] down. A new table gets the
//! codecs and flags of the spec; those of an existing table are compared with it.
//!
//! Failure: none.

/// Flag bits of a table record.
pub(crate) mod flags {
    use crate::page::meta::features;
    use crate::page::order::Order;
    use crate::page::value_set::Shape;

    /// Several values per key.
    pub(crate) const MULTIMAP: u32 = 1;
    /// Two bits for the order of keys: 0 bytewise, 1 descending, 3 a comparison with a name. 2 is
    /// reserved.
    pub(crate) const KEY_ORDER: u32 = 0b110;
    pub(crate) const DESCENDING: u32 = 1 << 1;
    /// Reserved.
    pub(crate) const NATIVE_ORDER: u32 = 2 << 1;
    pub(crate) const NAMED_ORDER: u32 = 3 << 1;
    /// Flags that this build supports.
    pub(crate) const KNOWN: u32 = MULTIMAP | VALUE_BYTES | KEY_ORDER;
    /// Of a multimap: the bytes of each value, in the upper half of the flags. 0: values may have
    /// any length.
    pub(crate) const VALUE_BYTES: u32 = 0xFFFF << VALUE_BYTES_AT;
    pub(crate) const VALUE_BYTES_AT: u32 = 16;

    /// How a table with these flags stores values.
    pub(crate) fn shape(flags: u32) -> Shape {
        match (flags & MULTIMAP != 0, (flags >> VALUE_BYTES_AT) as u16) {
            (false, _) => Shape::Single,
            (true, 0) => Shape::Variable,
            (true, width) => Shape::Fixed(width),
        }
    }

    /// The flags of a multimap whose values all have this size, if they have one.
    pub(crate) fn of_multimap(fixed_bytes: Option<u16>) -> u32 {
        MULTIMAP | u32::from(fixed_bytes.unwrap_or(0)) << VALUE_BYTES_AT
    }

    /// The flags of a table that stores values like this.
    pub(crate) fn of_shape(shape: Shape) -> u32 {
        if shape.is_multi() {
            of_multimap(shape.width().map(|width| width as u16))
        } else {
            0
        }
    }

    /// Whether the order of keys has a name.
    pub(crate) fn is_order_named(flags: u32) -> bool {
        flags & KEY_ORDER == NAMED_ORDER
    }

    /// The order of the keys of a table with these flags. A comparison with a name is not known.
    pub(crate) fn order(flags: u32) -> Order {
        Order::of_flags((flags & KEY_ORDER) as u16)
    }

    /// The required features of a file that has a table with these flags.
    pub(crate) fn features(flags: u32) -> u64 {
        let of = |bits: u32, feature: u64| if flags & bits != 0 { feature } else { 0 };
        of(MULTIMAP, features::MULTIMAP) | of(KEY_ORDER, features::KEY_ORDERS)
    }
}

/// The order of the keys of a table, as its user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TableOrder<'a> {
    #[default]
    Bytewise,
    Descending,
    Named(&'a str),
}

/// How a table is opened, and how a missing one is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableSpec<'a> {
    pub(crate) codecs: Asked<'a>,
    /// Flags of a new table.
    pub(crate) flags: u32,
    /// The flags that are compared with those of an existing table.
    pub(crate) compared: u32,
    /// The name of the order of keys, if the flags say that it has one.
    pub(crate) key_order: &'a str,
}

impl<'a> TableSpec<'a> {
    /// A table of any codecs and flags, for code that does not look at entries.
    pub(crate) fn any() -> TableSpec<'a> {
        TableSpec { codecs: Asked::Bytes, flags: 0, compared: 0, key_order: "" }
    }

    /// A table of any codecs and key order, with one value per key.
    pub(crate) fn bytes() -> TableSpec<'a> {
        TableSpec { compared: flags::MULTIMAP, ..TableSpec::any() }
    }

    /// A table of these types, without flags.
    pub(crate) fn types(key: &'a str, value: &'a str) -> TableSpec<'a> {
        TableSpec { codecs: Asked::Types(key, value), compared: u32::MAX, ..TableSpec::any() }
    }

    /// A multimap of any codecs and key order; a new one has values of any size.
    pub(crate) fn multi_bytes() -> TableSpec<'a> {
        TableSpec { flags: flags::MULTIMAP, compared: flags::MULTIMAP, ..TableSpec::any() }
    }

    /// The same with keys in this order.
    pub(crate) fn in_order(self, order: TableOrder<'a>) -> TableSpec<'a> {
        let (order, key_order) = match order {
            TableOrder::Bytewise => (0, ""),
            TableOrder::Descending => (flags::DESCENDING, ""),
            TableOrder::Named(name) => (flags::NAMED_ORDER, name),
        };
        TableSpec { flags: self.flags & !flags::KEY_ORDER | order, key_order, ..self }
    }

    /// The same for a multimap; its values have this size, if they have one.
    pub(crate) fn multi(self, fixed_bytes: Option<u16>) -> TableSpec<'a> {
        TableSpec { flags: flags::of_multimap(fixed_bytes), ..self }
    }

    /// A table that was made with exactly these codecs, without flags.
    pub(crate) fn made(key: &'a str, value: &'a str) -> TableSpec<'a> {
        TableSpec { codecs: Asked::Made(key, value), ..TableSpec::types(key, value) }
    }
}

/// How a table is opened. An empty codec name means that keys, or values, have no type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// As bytes, whatever codecs the table has.
    Bytes,
    /// With these codecs for keys and values. Keys or values without a type also open as `str` or
    /// `bytes`.
    Types(&'a str, &'a str),
    /// Only if the table was created with exactly these codecs.
    Made(&'a str, &'a str),
}

impl<'a> Asked<'a> {
    /// Returns the key and value codec with which a missing table is created.
    pub(crate) fn codecs_of_new(self) -> (&'a str, &'a str) {
        match self {
            Asked::Bytes => ("", ""),
            Asked::Types(key, value) | Asked::Made(key, value) => (key, value),
        }
    }
}

/// The kind of a table, for error messages.
pub(super) fn kind_text(flags: u32, key_order: &str) -> String {
    let kind = match flags::shape(flags).width() {
        Some(width) => format!("a multimap table of values of {width} bytes"),
        None if flags & flags::MULTIMAP != 0 => "a multimap table".to_string(),
        None => "a table".to_string(),
    };
    match flags & flags::KEY_ORDER {
        0 => format!("{kind} with keys in bytewise order"),
        flags::DESCENDING => format!("{kind} with keys in descending order"),
        _ => format!("{kind} with keys in the order '{key_order}'"),
    }
}
