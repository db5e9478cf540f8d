//! Memory of this process.

/// Gives freed memory back to the kernel: glibc keeps what lies between pieces that are in use. About 10 ms for 60 MB,
/// so it is for after something big went, and for a thread of its own: others go on meanwhile, as long as what they
/// allocate comes from the few pieces of each size that each thread keeps for itself. Other C libraries do it by themselves.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers and may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
