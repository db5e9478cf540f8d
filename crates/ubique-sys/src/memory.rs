//! Memory of this process.

/// Gives freed memory back to the kernel: glibc keeps what lies between pieces that are in use. About 10 ms for 60 MB,
/// so it is for after something big went. Other C libraries do it by themselves.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers and may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
