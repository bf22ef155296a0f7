//! What the black-box tests share. Each test file uses a part of it.
#![allow(dead_code, reason = "every test file compiles all of it and uses a part")]

pub mod case;
pub mod client;
pub mod command;
pub mod docs;
pub mod nginx;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod snip;
pub mod wait;
