#![no_main]

#[path = "../targets"]
mod targets {
    pub mod upgrade;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::upgrade::run(data));
