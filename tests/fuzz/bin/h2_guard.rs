#![no_main]

#[path = "../targets"]
mod targets {
    pub mod h2_guard;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::h2_guard::run(data));
