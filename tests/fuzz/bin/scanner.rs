#![no_main]

#[path = "../targets"]
mod targets {
    pub mod scanner;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::scanner::run(data));
