//! The `pod!` macro: declares a record shared with the kernel, and proves at compile time that it has no padding.

/// Declares a `repr(C)` record that crosses the boundary between kernel and user side.
///
/// It asserts at compile time that the record has exactly the stated size and that its fields fill it without padding
/// (padding would hand uninitialized kernel stack to the reader, and the verifier refuses it). With feature `user` it
/// also implements `aya::Pod`; this is the only place that does.
#[macro_export]
macro_rules! pod {
    (
        size: $size:literal,
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $( $(#[$field_attribute:meta])* pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_attribute])* pub $field: $type, )*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size, concat!(stringify!($name), " changed its size"));
            assert!(
                0 $( + size_of::<$type>() )* == $size,
                concat!(stringify!($name), " has padding between its fields")
            );
            assert!($size % align_of::<$name>() == 0 && align_of::<$name>() <= 8);
        };

        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "the one place that marks shared records as plain old data")]
        // SAFETY: `Pod` requires that the type can be copied from and to raw bytes. The record is `repr(C)` and
        // `Copy`, the asserts above rule out padding, and its fields are integers or arrays of integers, which
        // accept every bit pattern (enforced by there being no other field type with a `Pod` bound below).
        unsafe impl aya::Pod for $name where $( $type: aya::Pod ),* {}
    };
}
