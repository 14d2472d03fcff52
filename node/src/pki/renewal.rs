//! Placeholder while the rest lands.
