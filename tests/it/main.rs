//! Integration tests: one binary, one module per subject.

mod bad_input;
mod crash_images;
mod crash_kill;
mod creation;
mod golden;
mod reexec;
mod workload;
