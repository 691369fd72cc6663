#![no_main]

#[path = "../targets"]
mod targets {
    pub mod handshakes;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::handshakes::run(data));
