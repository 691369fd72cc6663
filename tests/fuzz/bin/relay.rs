#![no_main]

#[path = "../targets"]
mod targets {
    pub mod relay;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::relay::run(data));
