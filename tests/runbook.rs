//! `deploy/OPERATIONS.md` is true: each of its symptoms is brought about on the built binary, the command that stands below
//! it is run as it stands, and prints what the paper shows.

mod paper;
mod scene;
mod symptoms;
