//! The HTTP/1.1 side: a client over an in-memory stream, the proxy, and an app played by the test on a real socket.

mod apps;
mod forward;
mod generations;
mod keep_alive;
mod limits;
mod pool;
mod routes;
mod smuggling;
mod support;
mod targets;
mod tls;
mod upgrade;
