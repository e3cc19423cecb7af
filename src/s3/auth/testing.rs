//! What the tests of this module share: AWS's example credentials, and requests that are easy to change.

use super::{AuthError, Authenticated, KeyCache, RootUser, SignedRequest, authenticate};
use ring::digest;

pub const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24T00:00:00Z, the time of AWS's examples.
pub const NOW: i64 = 1_369_353_600;
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub host_bucket: Option<String>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            headers: Vec::new(),
            host_bucket: None,
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub fn put(path: &str) -> Self {
        Self::new("PUT", path)
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = query.into();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Replaces the value of a header that is there.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let found = self
            .headers
            .iter_mut()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.expect("the header is there").1 = value.into();
        self
    }

    /// Replaces `from`, which must be there, in the value of a header.
    pub fn edit(self, name: &str, from: &str, to: &str) -> Self {
        let (_, value) = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .expect("the header is there");
        let value = String::from_utf8(value.clone()).unwrap();
        assert!(value.contains(from), "{value} has no {from}");
        self.set(name, &value.replacen(from, to, 1))
    }

    pub fn edit_query(mut self, from: &str, to: &str) -> Self {
        assert!(self.query.contains(from), "{} has no {from}", self.query);
        self.query = self.query.replacen(from, to, 1);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub fn host_bucket(mut self, bucket: &str) -> Self {
        self.host_bucket = Some(bucket.into());
        self
    }

    pub fn authenticate(&self, now_unix_s: i64) -> Result<Authenticated, AuthError> {
        self.authenticate_with(now_unix_s, &mut KeyCache::new())
    }

    pub fn authenticate_with(
        &self,
        now_unix_s: i64,
        cache: &mut KeyCache,
    ) -> Result<Authenticated, AuthError> {
        let root = RootUser {
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
        };
        let request = SignedRequest {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: self.headers.as_slice(),
            host_bucket: self.host_bucket.as_deref(),
        };
        authenticate(&request, now_unix_s, &root, cache)
    }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .unwrap()
}
