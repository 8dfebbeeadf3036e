//! How the C library's allocator treats our buffers.
//!
//! Two sizes matter. fuser's receive buffers are 16 MiB a thread, of which a read-only mount touches a page:
//! as mappings of their own they cost what is touched, while glibc's default would move them to the heap,
//! and touch all, once one was freed. Piece buffers are 1 MiB and come and go all the time: from the heap
//! they are reused, as mappings each would cost 256 page faults.

/// Larger blocks are mappings: above a piece, below fuser's buffers.
#[cfg(target_env = "gnu")]
const MMAP_FROM_BYTES: i32 = 8 << 20;
/// Free heap kept for the next pieces: 16 runs of 4 pieces.
#[cfg(target_env = "gnu")]
const KEEP_BYTES: i32 = 64 << 20;

/// Sets the allocator up; once, first thing in the program.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes plain numbers and may be called at any time; a failure changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP_BYTES);
        // An arena a core, not eight: every arena keeps free memory of its own.
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
