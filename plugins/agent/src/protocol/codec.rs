//! Framing: a little-endian u32 length, then that many bytes of postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_FRAME;

const HEADER: usize = 4;

/// A message that can't be sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// Its body is longer than [`MAX_FRAME`].
    #[error("a message of {0} bytes exceeds the limit of {MAX_FRAME}")]
    Oversized(usize),
    /// It has no postcard form; can't happen for the types of this module.
    #[error("a message can't be encoded: {0}")]
    Unencodable(postcard::Error),
}

/// Bytes that are no message. The stream can't be trusted after one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A frame announced more than [`MAX_FRAME`] bytes.
    #[error("a frame of {0} bytes exceeds the limit of {MAX_FRAME}")]
    Oversized(usize),
    /// The body of a frame is not the message that was expected.
    #[error("a frame holds no valid message: {0}")]
    Malformed(postcard::Error),
    /// A message is followed by bytes inside its frame.
    #[error("a frame holds {0} bytes after its message")]
    Trailing(usize),
}

/// Appends `message` as one frame; leaves `out` as it was on an error.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let encoded = postcard::to_io(message, &mut *out).map(|_| ());
    let length = out.len() - start - HEADER;
    let error = match (encoded, u32::try_from(length)) {
        (Ok(()), Ok(header)) if length <= MAX_FRAME => {
            out[start..start + HEADER].copy_from_slice(&header.to_le_bytes());
            return Ok(());
        }
        (Ok(()), _) => EncodeError::Oversized(length),
        (Err(error), _) => EncodeError::Unencodable(error),
    };
    out.truncate(start);
    Err(error)
}

/// Turns a stream of bytes, however it was cut, back into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        // What was decoded is dropped here, once per read, not once per message.
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// The first error is final: where the next frame begins is unknown after
    /// it, so every later call returns it again.
    pub fn pop<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let popped = self.pop_frame();
        if let Err(error) = &popped {
            self.failed = Some(error.clone());
        }
        popped
    }

    /// How many bytes were pushed and not yet returned as a message: not zero
    /// at the end of a stream means that it was cut inside a message.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn pop_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        let rest = &self.buffer[self.start..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(DecodeError::Oversized(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let (message, trailing) = postcard::take_from_bytes(body).map_err(DecodeError::Malformed)?;
        if !trailing.is_empty() {
            return Err(DecodeError::Trailing(trailing.len()));
        }
        self.start += HEADER + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::samples::{damaged, request, response};
    use super::super::{ByteString, MAX_CHUNK, Message, Request, Response};
    use super::*;

    /// Feeds a stream in the pieces that `cuts` makes of it.
    fn decode<T: DeserializeOwned>(stream: &[u8], cuts: &[usize]) -> Result<Vec<T>, DecodeError> {
        let mut decoder = Decoder::new();
        let mut messages = Vec::new();
        let mut rest = stream;
        let mut sizes = cuts.iter().copied().chain([usize::MAX]);
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
            let (piece, later) = rest.split_at(size);
            rest = later;
            decoder.push(piece);
            while let Some(message) = decoder.pop()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn requests_survive_any_cut(messages in vec(request(), 0..8), cuts in vec(0_usize..40, 0..60)) {
            let mut stream = Vec::new();
            for message in &messages {
                encode(message, &mut stream).unwrap();
            }
            prop_assert_eq!(decode::<Message<Request>>(&stream, &cuts).unwrap(), messages);
        }

        #[test]
        fn responses_survive_any_cut(messages in vec(response(), 0..8), cuts in vec(0_usize..40, 0..60)) {
            let mut stream = Vec::new();
            for message in &messages {
                encode(message, &mut stream).unwrap();
            }
            prop_assert_eq!(decode::<Message<Response>>(&stream, &cuts).unwrap(), messages);
        }

        #[test]
        fn garbage_never_panics(stream in vec(any::<u8>(), 0..400), cuts in vec(0_usize..40, 0..20)) {
            let _ = decode::<Message<Request>>(&stream, &cuts);
            let _ = decode::<Message<Response>>(&stream, &cuts);
        }

        // Almost right is the harder garbage.
        #[test]
        fn damage_never_panics(stream in damaged(request()), cuts in vec(0_usize..40, 0..20)) {
            let _ = decode::<Message<Request>>(&stream, &cuts);
        }

        #[test]
        fn damaged_answers_never_panic(stream in damaged(response()), cuts in vec(0_usize..40, 0..20)) {
            let _ = decode::<Message<Response>>(&stream, &cuts);
        }

        // However it was cut, what is decoded is the same, the error included.
        #[test]
        fn cuts_change_nothing(stream in damaged(request()), cuts in vec(0_usize..40, 0..60)) {
            prop_assert_eq!(decode::<Message<Request>>(&stream, &cuts), decode::<Message<Request>>(&stream, &[]));
        }

        #[test]
        fn what_waits_is_never_more_than_a_frame_and_a_read(stream in damaged(request()), cuts in vec(1_usize..40, 1..60)) {
            let mut decoder = Decoder::new();
            let mut rest = stream.as_slice();
            for size in cuts {
                let (piece, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                decoder.push(piece);
                while let Ok(Some(_)) = decoder.pop::<Message<Request>>() {}
                prop_assert!(decoder.failed.is_some() || decoder.pending() < HEADER + MAX_FRAME);
            }
        }
    }

    #[test]
    fn the_first_variant_is_hello_for_every_version() {
        let mut stream = Vec::new();
        encode(&Message { id: 7, body: Request::Hello { version: 1 } }, &mut stream).unwrap();
        assert_eq!(stream, [3, 0, 0, 0, 7, 0, 1]);
    }

    #[test]
    fn a_full_chunk_fits_into_a_frame() {
        let bytes = ByteString(vec![0xff; MAX_CHUNK]);
        let mut stream = Vec::new();
        encode(&Message { id: u32::MAX, body: Request::Data { bytes } }, &mut stream).unwrap();
        assert!(stream.len() < MAX_FRAME);
    }

    #[test]
    fn an_oversized_message_is_not_sent() {
        let bytes = ByteString(vec![0; MAX_FRAME]);
        let mut stream = vec![9];
        let result = encode(&Message { id: 1, body: Request::Data { bytes } }, &mut stream);
        assert!(matches!(result, Err(EncodeError::Oversized(_))), "{result:?}");
        assert_eq!(stream, [9]);
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_body_arrives_and_for_good() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_le_bytes());
        let error = DecodeError::Oversized(u32::MAX as usize);
        assert_eq!(decoder.pop::<Message<Request>>(), Err(error.clone()));
        decoder.push(&[3, 0, 0, 0, 7, 0, 1]);
        assert_eq!(decoder.pop::<Message<Request>>(), Err(error));
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut decoder = Decoder::new();
        decoder.push(&[4, 0, 0, 0, 7, 0, 1, 0]);
        assert_eq!(decoder.pop::<Message<Request>>(), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn a_cut_stream_is_noticed() {
        let mut decoder = Decoder::new();
        decoder.push(&[3, 0, 0, 0, 7]);
        assert_eq!(decoder.pop::<Message<Request>>(), Ok(None));
        assert_eq!(decoder.pending(), 5);
    }
}
