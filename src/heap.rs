//! Memory that was freed between what is in use: the C library keeps it for ever. After hours of meetings that come and go
//! that is most of the process.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "the C library's own call, which no crate wraps"))]

/// Gives free pages back to the system. Blocking: for some milliseconds nobody else may be given memory.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: it takes a number, and touches nothing but free memory, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries do so by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
