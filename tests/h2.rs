//! HTTP/2 and WebSockets over its streams (RFC 8441): the built binary against a client that writes every frame
//! itself, Node's client, and Chromium.

mod abuse;
mod browser;
mod cleartext;
mod connection;
mod drain;
mod held;
mod link;
mod malformed;
mod node;
mod odd;
mod open_files;
mod plain;
mod raw;
mod routes;
mod silence;
mod slow;
mod stopped;
mod streams;
mod targets;
mod trailers;
mod traps;
mod websocket;
