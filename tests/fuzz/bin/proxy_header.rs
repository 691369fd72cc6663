#![no_main]

#[path = "../targets"]
mod targets {
    pub mod proxy_header;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::proxy_header::run(data));
