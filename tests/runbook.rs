//! The symptoms of `deploy/OPERATIONS.md`: each is reproduced on the built binary, the command below it is run as it is
//! written, and must print what the document shows.

mod paper;
mod scene;
mod symptoms;
