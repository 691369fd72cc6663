#![no_main]

#[path = "../targets"]
mod targets {
    pub mod config;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::config::run(data));
