//! The protocol's seam: a request's head and body in, a response out.
//!
//! The server below reads heads and bodies off connections and writes responses; it knows no S3. The
//! operations above know no socket. Nothing here does I/O of its own.

use crate::engine::{BodyReader, Engine, Machine};
use crate::s3::auth::{KeyCache, RootUser};
use std::cell::RefCell;

/// One core's S3 service.
pub struct Service<I: Machine> {
    pub engine: Engine<I>,
    pub root: RootUser,
    /// The canonical id and display name that listings give as owner.
    pub owner_id: String,
    /// Virtual-host style: requests to `bucket.DOMAIN` name the bucket in their host.
    pub domain: Option<String>,
    /// What buckets say their region is.
    pub region: String,
    pub keys: RefCell<KeyCache>,
}

/// A request's body as the transport delivers it: chunked coding is undone, `aws-chunked` is not.
pub trait Receive {
    /// Bytes that the transport says will come, if it does.
    fn length(&self) -> Option<u64>;

    /// Puts the next bytes at the start of `dst`; returns how many, 0 only at the end of the body. The first
    /// call sends `100 Continue` if the client waits for it.
    ///
    /// # Errors
    /// The connection is then of no use but for an error response.
    fn receive(&mut self, dst: &mut [u8]) -> impl Future<Output = Result<usize, ReceiveError>>;
}

/// Why a body does not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveError {
    /// The client closed before the end.
    Incomplete,
    /// No byte came for too long.
    Stalled,
    /// The transfer coding is broken.
    Malformed,
}

/// A response. `Date`, `Server`, `x-amz-request-id`, `Content-Length` and `Connection` are the server's to add.
pub struct Response<I: Machine> {
    pub status: u16,
    pub headers: HeaderLines,
    pub body: ResponseBody<I>,
}

/// Header lines in wire form, each ended by CR LF; values have passed `http::response`'s filter.
#[derive(Default)]
pub struct HeaderLines(pub Vec<u8>);

impl HeaderLines {
    /// Appends a line. Bytes that no header may hold are left out.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        crate::http::push_header(&mut self.0, name, value.as_ref());
    }
}

/// What a response carries.
pub enum ResponseBody<I: Machine> {
    /// Nothing, and `Content-Length: 0` where the status allows one.
    Empty,
    /// The answer to HEAD: no body, but the length that GET would have.
    HeadOnly { length: u64 },
    /// XML, or an error.
    Bytes(Vec<u8>),
    /// An object's bytes, of this length.
    Object { reader: BodyReader<I>, length: u64 },
}
