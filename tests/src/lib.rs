//! placeholder

mod book;
