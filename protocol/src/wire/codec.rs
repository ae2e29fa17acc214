//! The encoding: big-endian integers, fixed arrays, and byte strings behind a `u16` length.
//!
//! Encodings are canonical: what [`Wire::decode`] accepts encodes back to the same bytes.

use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::time::UnixMillis;

/// The bytes are no message of the expected kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// A value with one encoding.
pub trait Wire: Sized {
    /// Appends the encoding.
    fn write(&self, w: &mut Writer);

    /// Reads one value.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are too few or out of range.
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// The encoding on its own.
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.write(&mut w);
        w.into_bytes()
    }

    /// Reads a value that must fill `bytes` exactly.
    ///
    /// # Errors
    /// [`Malformed`], also for bytes left over.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let value = Self::read(&mut r)?;
        r.end()?;
        Ok(value)
    }
}

/// Builds an encoding.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// What was reserved at the start, where nothing may be moved.
    reserved: Option<usize>,
}

impl Writer {
    /// For secrets of at most `len` bytes in all: a writer that grows leaves copies of what was written behind, in
    /// memory that nobody erases.
    pub fn reserving(len: usize) -> Self {
        let bytes = Vec::with_capacity(len);
        Self { reserved: Some(bytes.capacity()), bytes }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        let is_moved = self.reserved.is_some_and(|reserved| reserved != self.bytes.capacity());
        debug_assert!(!is_moved, "secrets were written beyond what was reserved for them");
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes whose number the reader knows.
    pub fn array(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// A byte string behind its `u16` length. Callers bound it; a longer one is cut to nothing, which no reader
    /// takes for the original.
    pub fn bytes(&mut self, value: &[u8]) {
        let Ok(len) = u16::try_from(value.len()) else {
            debug_assert!(false, "byte string over 65,535 bytes");
            self.u16(0);
            return;
        };
        self.u16(len);
        self.array(value);
    }

    /// A list behind its `u16` count.
    pub fn list<T: Wire>(&mut self, items: &[T]) {
        debug_assert!(items.len() <= usize::from(u16::MAX));
        let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
        self.u16(count);
        for item in items.iter().take(usize::from(count)) {
            item.write(self);
        }
    }
}

/// Reads an encoding from the front.
pub struct Reader<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, part: "" }
    }

    /// What follows is that part of the whole.
    pub fn begin(&mut self, part: &'static str) {
        self.part = part;
    }

    /// The part that is being read: where it broke, if it broke.
    pub fn part(&self) -> &'static str {
        self.part
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left; likewise in every method below.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[allow(clippy::missing_errors_doc)]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    #[allow(clippy::missing_errors_doc)]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Two bytes, big-endian.
    #[allow(clippy::missing_errors_doc)]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, big-endian.
    #[allow(clippy::missing_errors_doc)]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian.
    #[allow(clippy::missing_errors_doc)]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A byte string of at most `max` bytes behind its `u16` length.
    #[allow(clippy::missing_errors_doc)]
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(Malformed("byte string too long"));
        }
        self.take(len)
    }

    /// A list of at most `max` items behind its `u16` count.
    #[allow(clippy::missing_errors_doc)]
    pub fn list<T: Wire>(&mut self, max: usize) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        if count > max {
            return Err(Malformed("list too long"));
        }
        // The count is a claim until the items have been read, so it reserves no memory.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::read(self)?);
        }
        Ok(items)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Malformed`] when something is.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }
}

macro_rules! wire_via {
    ($type:ty, $to:expr, $from:expr) => {
        impl Wire for $type {
            fn write(&self, w: &mut Writer) {
                #[allow(clippy::redundant_closure_call)]
                $to(*self, w);
            }
            fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
                #[allow(clippy::redundant_closure_call)]
                $from(r)
            }
        }
    };
}

wire_via!(MemberIndex, |v: Self, w: &mut Writer| w.u16(v.0), |r: &mut Reader<'_>| Ok(Self(r.u16()?)));
wire_via!(Term, |v: Self, w: &mut Writer| w.u32(v.0), |r: &mut Reader<'_>| Ok(Self(r.u32()?)));
wire_via!(UnixMillis, |v: Self, w: &mut Writer| w.u64(v.0), |r: &mut Reader<'_>| Ok(Self(r.u64()?)));
wire_via!(MeetingId, |v: Self, w: &mut Writer| w.array(&v.0), |r: &mut Reader<'_>| Ok(Self(r.array()?)));
wire_via!(Epoch, |v: Self, w: &mut Writer| w.u32(v.number()), |r: &mut Reader<'_>| {
    Epoch::new(r.u32()?).ok_or(Malformed("epoch out of range"))
});
wire_via!([u8; 32], |v: Self, w: &mut Writer| w.array(&v), |r: &mut Reader<'_>| r.array());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_does_not_move() {
        let mut w = Writer::reserving(300);
        let place = w.bytes.as_ptr();
        w.u32(7);
        w.bytes(&[1; 200]);
        w.array(&[2; 94]);
        let bytes = w.into_bytes();
        assert_eq!((bytes.len(), bytes.as_ptr()), (300, place));
    }

    #[test]
    #[should_panic(expected = "beyond what was reserved")]
    #[cfg(debug_assertions)]
    fn writing_more_than_was_reserved_is_found() {
        let mut w = Writer::reserving(8);
        w.array(&[0; 1_000]);
        w.into_bytes();
    }
}
