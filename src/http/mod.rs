//! The HTTP/1.1 codec: bytes in, values out, values in, bytes out.
//!
//! It is sans-I/O: no socket, clock, runtime or file is named here, so that all of it is tested and
//! fuzzed on its own. `head` turns bytes into a request head and decides how its body is framed,
//! `body` undoes `Transfer-Encoding: chunked`, `aws_chunked` undoes S3's own `aws-chunked` inside of it,
//! `uri` decodes and encodes percent escapes as S3 does, `response` writes response heads, `date` has
//! the dates of both.
//!
//! Invariant: whatever a peer sends gives a value or an error, with memory bounded by `limits`.
//! It knows nothing of S3's operations, errors or signatures.

pub mod aws_chunked;
pub mod body;
pub mod date;
pub mod head;
pub mod response;
pub mod uri;

pub use aws_chunked::AwsChunkedDecoder;
pub use body::ChunkedDecoder;
pub use date::DateCache;
pub use head::{Framing, Head, HeadError, Method, is_token};
pub use response::{ResponseHead, push_header};
pub use uri::{Query, UriError};
