//! Stable names for the types of the codecs that take any type of a kind.
//!
//! Floor: table.

/// A name for a type that is stored by a codec for many types, such as `Postcard` or `InPlace`.
///
/// The name becomes a part of the codec's name, which the table stores: `postcard<acme.order.v1>`.
/// Opening the table with a type of another name is an error. Choose a name with your own prefix,
/// and another one when the type changes so that it reads old bytes wrongly. The name that the
/// compiler gives to a type is not used, because it may change at any time.
///
/// ```
/// use mapleaf::codec::Named;
///
/// struct Order;
///
/// impl Named for Order {
///     fn stored_name() -> String {
///         "acme.order.v1".to_string()
///     }
/// }
///
/// // The name of a type with an argument contains that of the argument.
/// struct Page<T>(Vec<T>);
///
/// impl<T: Named> Named for Page<T> {
///     fn stored_name() -> String {
///         format!("acme.page.v1<{}>", T::stored_name())
///     }
/// }
///
/// assert_eq!(Page::<Order>::stored_name(), "acme.page.v1<acme.order.v1>");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no name that a table can store",
    note = "implement `mapleaf::codec::Named` for it; wrap types of other crates in a type of your own"
)]
pub trait Named {
    /// The name. It must not change once files with it exist.
    fn stored_name() -> String;
}
