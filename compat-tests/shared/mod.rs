//! What the Rust test programs share: a client, requests, and a broker process. Each program
//! includes this folder and uses a part of it.

pub mod client;
pub mod process;
pub mod requests;
