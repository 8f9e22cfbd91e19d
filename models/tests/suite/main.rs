//! The networks as their users see them, in one binary to link once.

mod common;
mod counts;
mod families;
mod names;
mod networks;
mod plain;
mod speech;
mod text;
mod weights;
