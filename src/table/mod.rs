//! Typed tables: what lies between Rust values and the bytes that trees hold.
//!
//! Floor 8, the highest of the crate. Everything below works on bytes; here they get their types.

pub mod codec;
