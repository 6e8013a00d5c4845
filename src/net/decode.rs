//! Content encodings, undone as the bytes arrive.
//!
//! Owns the list of encodings that are understood. Never bounds what comes out: whoever reads does, since only the reader
//! knows its limit.

use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use tokio::io::{AsyncBufRead, AsyncRead};

/// An encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Reads a `Content-Encoding`; `None`: one that is not understood, or several.
    pub fn read(header: Option<&http::HeaderValue>) -> Option<Self> {
        let Some(header) = header else { return Some(Self::Identity) };
        let text = header.to_str().ok()?.trim();
        [("", Self::Identity), ("identity", Self::Identity), ("gzip", Self::Gzip), ("x-gzip", Self::Gzip)]
            .into_iter()
            .chain([("br", Self::Brotli), ("zstd", Self::Zstd)])
            .find(|(word, _)| text.eq_ignore_ascii_case(word))
            .map(|(_, encoding)| encoding)
    }

    /// A reader of what is inside.
    pub fn decoder(self, from: impl AsyncBufRead + Send + 'static) -> Pin<Box<dyn AsyncRead + Send>> {
        match self {
            Self::Identity => Box::pin(from),
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(from);
                // What follows a member must be another one, so that nothing hides behind the end.
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Self::Brotli => {
                let mut decoder = BrotliDecoder::new(from);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Self::Zstd => {
                let mut decoder = ZstdDecoder::new(from);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        }
    }
}
