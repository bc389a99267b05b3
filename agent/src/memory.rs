//! How the C library's allocator keeps memory.
//!
//! An agent needs several times its lasting memory for a moment when it fills an empty kernel. Left
//! alone the allocator keeps much of that for later, in arenas of which each thread may get its own
//! (mallopt(3), malloc_trim(3)). Where the C library is not GNU's, nothing is done here.

#[cfg(target_env = "gnu")]
use nix::libc;

/// Large blocks go back to the system when they are freed, at this size and above. To name it also
/// keeps the allocator from raising it.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Makes the allocator keep as little as it can; to be called before there are other threads,
/// which share one arena then.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE)] {
        #[expect(unsafe_code, reason = "the allocator is told in no other way")]
        // SAFETY: mallopt takes two numbers, and no other thread uses the allocator yet.
        let taken = unsafe { libc::mallopt(what, value) };
        if taken == 0 {
            eprintln!("the allocator does not take {value} for its parameter {what}");
        }
    }
}

/// Gives back what is free, in whole pages. It goes through all that is free while nobody else can
/// allocate, so it is for the end of large work.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the allocator is told in no other way")]
        // SAFETY: malloc_trim takes a number, locks what it looks at, and moves nothing.
        let given = unsafe { libc::malloc_trim(0) };
        tracing::debug!(given = given == 1, "gave free memory back");
    }
}
