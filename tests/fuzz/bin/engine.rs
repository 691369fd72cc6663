#![no_main]

#[path = "../targets"]
mod targets {
    pub mod engine;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::engine::run(data));
