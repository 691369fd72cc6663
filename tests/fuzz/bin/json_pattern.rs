#![no_main]

#[path = "../targets"]
mod targets {
    pub mod json_pattern;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::json_pattern::run(data));
