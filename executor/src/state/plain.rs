//! Values of fixed size as bytes, little-endian.

/// A value of fixed size.
pub(crate) trait Plain: Copy + Send + 'static {
    /// Its bytes.
    const BYTES: usize;
    /// Puts them at the end of `out`.
    fn put(self, out: &mut Vec<u8>);
    /// The value again; `bytes` has [`Self::BYTES`] of them.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Plain for $number {
            const BYTES: usize = size_of::<$number>();

            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$number>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }
        }
    )*};
}

numbers!(u8, u32, i32, u64, i64, i128, f64);

impl<A: Plain, B: Plain> Plain for (A, B) {
    const BYTES: usize = A::BYTES + B::BYTES;

    fn put(self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let (a, b) = bytes.split_at(A::BYTES);
        (A::get(a), B::get(b))
    }
}

impl<T: Plain> Plain for [T; 2] {
    const BYTES: usize = 2 * T::BYTES;

    fn put(self, out: &mut Vec<u8>) {
        self[0].put(out);
        self[1].put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let (a, b) = bytes.split_at(T::BYTES);
        [T::get(a), T::get(b)]
    }
}
