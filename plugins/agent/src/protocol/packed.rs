//! Compression of a piece of a file, for connections that are slower than it.

use super::MAX_CHUNK;

/// What is saved must be worth the work on both sides.
const WORTH: usize = 8;

/// Compresses a piece of a file; `None` where that doesn't pay.
pub fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < 256 {
        return None;
    }
    let packed = lz4_flex::block::compress(bytes);
    (packed.len() < bytes.len() - bytes.len() / WORTH).then_some(packed)
}

/// Undoes [`pack`]; `None` for what is no piece of `length` bytes.
pub fn unpack(packed: &[u8], length: u32) -> Option<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_CHUNK)?;
    let bytes = lz4_flex::block::decompress(packed, length).ok()?;
    (bytes.len() == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_what_comes_out(word in vec(any::<u8>(), 1..40), times in 1_usize..400) {
            let bytes = word.repeat(times);
            if let Some(packed) = pack(&bytes) {
                prop_assert!(packed.len() < bytes.len());
                prop_assert_eq!(unpack(&packed, bytes.len() as u32), Some(bytes));
            }
        }

        #[test]
        fn garbage_is_nothing(bytes in vec(any::<u8>(), 0..400), length in any::<u32>()) {
            if let Some(bytes) = unpack(&bytes, length) {
                prop_assert_eq!(bytes.len(), length as usize);
            }
        }
    }

    #[test]
    fn only_what_gets_smaller_is_packed() {
        assert!(pack(&[b'x'; 1000]).is_some());
        assert!(pack(b"short").is_none());
        let hash = blake3::Hasher::new().finalize_xof();
        let mut noise = vec![0; 10_000];
        { hash }.fill(&mut noise);
        assert!(pack(&noise).is_none());
    }
}
