//! The protocol's seam: a request's head and body in, a response out.
//!
//! The server below reads heads and bodies off connections and writes responses; it knows no S3. The
//! operations above know no socket. Nothing here does I/O of its own.

use crate::engine::{BodyReader, Bucket, Engine, Machine};
use crate::s3::access::Policies;
use crate::s3::auth::{KeyCache, Users};
use crate::s3::configuration;
use crate::s3::error::{ErrorCode, S3Error, S3Result};
use crate::s3::md5::Lanes;
use crate::s3::names::BucketName;
use crate::s3::xml::responses::Owner;
use ring::hmac;
use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// One core's S3 service.
pub struct Service<I: Machine> {
    pub engine: Engine<I>,
    /// Who may ask. A request keeps the table that it was judged by.
    users: RefCell<Rc<UsersHere>>,
    /// Virtual-host style: requests to `bucket.DOMAIN` name the bucket in their host.
    pub domain: Option<String>,
    /// Signing keys of requests seen before.
    pub keys: RefCell<KeyCache>,
    /// Hashes the bodies that this core has in flight, together.
    pub lanes: Lanes,
    /// Signs continuation tokens.
    pub token_key: hmac::Key,
    /// Policies of buckets that were asked for before.
    pub policies: Policies,
    /// Whom a bucket belongs to that says nothing else.
    root: Account,
}

/// The table that all cores have, counted on this one: a count that cores share would cost each request.
pub struct UsersHere(Arc<Users>);

impl Deref for UsersHere {
    type Target = Users;

    fn deref(&self) -> &Users {
        &self.0
    }
}

/// An account as listings show it.
#[derive(Clone)]
pub struct Account {
    pub id: String,
    pub display_name: String,
}

impl Account {
    pub fn as_owner(&self) -> Owner<'_> {
        Owner {
            id: &self.id,
            display_name: &self.display_name,
        }
    }
}

/// What buckets say their region is. Requests may be signed for any.
pub const REGION: &str = "us-east-1";

impl<I: Machine> Service<I> {
    /// A service for `users` over this core's engine.
    pub fn new(engine: Engine<I>, users: Arc<Users>, domain: Option<String>) -> Service<I> {
        let root = users.root();
        let derivation = hmac::Key::new(hmac::HMAC_SHA256, root.secret_key.as_bytes());
        let token_secret = hmac::sign(&derivation, b"weft continuation token");
        Service {
            policies: Policies::default(),
            root: Account {
                id: root.account.clone(),
                display_name: root.display_name.clone(),
            },
            engine,
            domain,
            lanes: Lanes::new(),
            keys: RefCell::new(KeyCache::new()),
            token_key: hmac::Key::new(hmac::HMAC_SHA256, token_secret.as_ref()),
            users: RefCell::new(Rc::new(UsersHere(users))),
        }
    }

    /// Who may ask, as of now.
    pub fn users(&self) -> Rc<UsersHere> {
        Rc::clone(&self.users.borrow())
    }

    /// From now on others may ask. Requests that are being served go on.
    pub fn set_users(&self, users: Arc<Users>) {
        self.users.replace(Rc::new(UsersHere(users)));
    }

    /// The canonical id of the account that a bucket belongs to.
    pub fn owner_id<'a>(&'a self, bucket: &'a Bucket) -> &'a str {
        configuration::owner(bucket).unwrap_or(&self.root.id)
    }

    /// The account that a bucket belongs to. One that the table of users does not have is shown by its id.
    pub fn owner(&self, bucket: &Bucket) -> Account {
        match configuration::owner(bucket) {
            None => self.root.clone(),
            Some(id) => {
                let users = self.users();
                let user = users.of_account(id);
                Account {
                    id: id.to_owned(),
                    display_name: user.map_or(id, |user| &user.display_name).to_owned(),
                }
            }
        }
    }

    /// The canonical id of the root user's account.
    pub fn root_id(&self) -> &str {
        &self.root.id
    }

    /// The bucket of that name.
    ///
    /// Errors: `NoSuchBucket`, and 503 while it may be on a volume that is missing.
    pub fn bucket(&self, name: &BucketName) -> S3Result<Bucket> {
        self.engine
            .bucket(name.as_str())
            .map_err(|refusal| S3Error::from(refusal).detail("BucketName", name.as_str()))
    }
}

/// A request's body as the transport delivers it: chunked coding is undone, `aws-chunked` is not.
pub trait Receive {
    /// The other end of the connection, if it is known.
    fn peer(&self) -> Option<IpAddr>;

    /// Bytes that the transport says will come, if it does: `Some(0)` without a body.
    fn length(&self) -> Option<u64>;

    /// The body is gathered whole, and holds so much memory of documents from now on.
    fn gathers(&mut self, bytes: usize);

    /// Puts the next bytes at the start of `dst`; returns how many, 0 only at the end of the body. The first
    /// call sends `100 Continue` if the client waits for it.
    ///
    /// # Errors
    /// The connection is then of no use but for an error response.
    fn receive(&mut self, dst: &mut [u8]) -> impl Future<Output = Result<usize, ReceiveError>> {
        self.receive_two(dst, &mut [])
    }

    /// As [`Receive::receive`], and what fills `first` goes on in `second`.
    fn receive_two(
        &mut self,
        first: &mut [u8],
        second: &mut [u8],
    ) -> impl Future<Output = Result<usize, ReceiveError>>;
}

/// Why a body does not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveError {
    /// The client closed before the end.
    Incomplete,
    /// Too few bytes came for too long.
    TooSlow,
    /// It came slower than others wanted to send, and there was no memory for all.
    GaveWay,
    /// The transfer coding is broken.
    Malformed,
}

impl From<ReceiveError> for S3Error {
    fn from(error: ReceiveError) -> S3Error {
        match error {
            ReceiveError::Incomplete => ErrorCode::IncompleteBody.into(),
            ReceiveError::TooSlow => ErrorCode::RequestTimeout.into(),
            ReceiveError::GaveWay => S3Error::new(ErrorCode::SlowDown)
                .message("The body came slowly while others waited for memory. Please try again later."),
            ReceiveError::Malformed => ErrorCode::InvalidRequest.into(),
        }
    }
}

/// A response. `Date`, `Server`, `x-amz-request-id`, `Content-Length` and `Connection` are the server's to add.
pub struct Response<I: Machine> {
    pub status: u16,
    pub headers: HeaderLines,
    pub body: ResponseBody<I>,
}

impl<I: Machine> Response<I> {
    /// A response without a body.
    pub fn empty(status: u16) -> Response<I> {
        Response {
            status,
            headers: HeaderLines::default(),
            body: ResponseBody::Empty,
        }
    }

    /// A response of XML.
    pub fn xml(status: u16, body: Vec<u8>) -> Response<I> {
        let response = Response {
            body: ResponseBody::Bytes(body),
            ..Response::empty(status)
        };
        response.header("Content-Type", "application/xml")
    }

    /// Appends a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Response<I> {
        self.headers.push(name, value);
        self
    }
}

/// Header lines in wire form, each ended by CR LF; values have passed `http::response`'s filter.
#[derive(Default)]
pub struct HeaderLines(pub Vec<u8>);

impl HeaderLines {
    /// Appends a line. Bytes that no header may hold are escaped.
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
