//! Memory that was needed for a moment.

/// Gives memory that is free back to the kernel.
///
/// The allocator keeps it until it is asked for more, which an agent at rest never does: the text
/// of a file with 1,000 services alone is 1.3 MB. For after what is large and rare.
#[expect(unsafe_code, reason = "the allocator's function has no safe form")]
pub(crate) fn give_back() {
    // SAFETY: it takes no pointer and leaves alone what is in use; any thread may call it.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
