//! Pages that cannot be read.
