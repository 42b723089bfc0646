//! Linker arguments of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The exit of every thread that used the pool and the child of a fork call into the library for as long as the process
        // lives: dlclose must not unload it.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // The soname, under which programs that were linked with it look for it.
        let major = std::env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmempool.so.{major}");
    }
}
