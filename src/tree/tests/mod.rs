//! Tests of the tree over a `Vec` of pages.
