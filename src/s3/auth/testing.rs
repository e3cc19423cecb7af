//! What the tests of this module share: AWS's example credentials, and requests that are easy to change.

use super::date::Timestamp;
use super::{AuthError, Authenticated, KeyCache, RootUser, SignedRequest, authenticate};
use ring::{digest, hmac};

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

    /// Reads the text of a seed of the fuzz target: time, request line, headers.
    pub fn parse_seed(text: &str) -> (i64, Self) {
        let mut lines = text.lines();
        let now = lines.next().unwrap().parse().unwrap();
        let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let mut request = Self::new(words[0], words[1]);
        request.host_bucket = words.get(2).map(|bucket| bucket.to_string());
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        (now, request)
    }

    /// Signs in the plainest way that the documentation allows. Path, query and headers must be in
    /// canonical form already; `signed` is the sorted list of names. The time is [`NOW`].
    pub fn sign(self, signed: &str) -> Self {
        let content_sha256 = self
            .value("x-amz-content-sha256")
            .unwrap_or("UNSIGNED-PAYLOAD".into());
        let scope = "20130524/us-east-1/s3/aws4_request";
        let signature = self.signature_v4(signed, &content_sha256, "20130524T000000Z", scope);
        self.header(
            "Authorization",
            &format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={signature}"),
        )
    }

    /// Signs like [`Request::sign`], into the query. `parameters` are added to it first, all but
    /// `X-Amz-Signature`, in sorted order.
    pub fn presign(self, signed: &str, expires: &str) -> Self {
        let content_sha256 = self
            .value("x-amz-content-sha256")
            .unwrap_or("UNSIGNED-PAYLOAD".into());
        self.presign_as(signed, expires, &content_sha256)
    }

    pub fn presign_as(mut self, signed: &str, expires: &str, content_sha256: &str) -> Self {
        let scope = "20130524/us-east-1/s3/aws4_request";
        let claims = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS_KEY}%2F{}&X-Amz-Date=20130524T000000Z\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders={}",
            scope.replace('/', "%2F"),
            signed.replace(';', "%3B")
        );
        self.query = if self.query.is_empty() {
            claims
        } else {
            format!("{}&{claims}", self.query)
        };
        let signature = self.signature_v4(signed, content_sha256, "20130524T000000Z", scope);
        self.query += &format!("&X-Amz-Signature={signature}");
        self
    }

    fn signature_v4(&self, signed: &str, content_sha256: &str, timestamp: &str, scope: &str) -> String {
        assert!(Timestamp::from_compact(timestamp.as_bytes()).is_some());
        let mut query: Vec<&str> = self.query.split('&').collect();
        query.sort();
        let headers: String = signed
            .split(';')
            .map(|name| format!("{name}:{}\n", self.value(name).unwrap_or_default()))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{signed}\n{content_sha256}",
            self.method,
            self.path,
            query.join("&")
        );
        let hash = super::canonical::hex(&sha256(canonical.as_bytes()));
        let hash = std::str::from_utf8(&hash).unwrap();
        let mac = |key: &[u8], message: &str| -> Vec<u8> {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
                .as_ref()
                .to_vec()
        };
        let start = format!("AWS4{SECRET_KEY}").into_bytes();
        let key = scope.split('/').fold(start, |key, part| mac(&key, part));
        mac(&key, &format!("AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{hash}"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub fn value(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8(found.1.clone()).unwrap())
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

/// The seeds of the fuzz target: AWS's published examples, and requests of boto3 and minio-py. All are good.
pub const SEEDS: &[(&str, &str)] = &[
    (
        "aws-v2-buckets",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-buckets"),
    ),
    (
        "aws-v2-fetch",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-fetch"),
    ),
    ("aws-v2-get", include_str!("../../../fuzz/seeds/sigv4/aws-v2-get")),
    (
        "aws-v2-list",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-list"),
    ),
    (
        "aws-v2-presigned",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-presigned"),
    ),
    ("aws-v2-put", include_str!("../../../fuzz/seeds/sigv4/aws-v2-put")),
    (
        "aws-v2-unicode",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-unicode"),
    ),
    (
        "aws-v2-upload",
        include_str!("../../../fuzz/seeds/sigv4/aws-v2-upload"),
    ),
    (
        "aws-v4-chunked",
        include_str!("../../../fuzz/seeds/sigv4/aws-v4-chunked"),
    ),
    (
        "aws-v4-chunked-trailer",
        include_str!("../../../fuzz/seeds/sigv4/aws-v4-chunked-trailer"),
    ),
    ("aws-v4-get", include_str!("../../../fuzz/seeds/sigv4/aws-v4-get")),
    (
        "aws-v4-lifecycle",
        include_str!("../../../fuzz/seeds/sigv4/aws-v4-lifecycle"),
    ),
    (
        "aws-v4-list",
        include_str!("../../../fuzz/seeds/sigv4/aws-v4-list"),
    ),
    (
        "aws-v4-presigned",
        include_str!("../../../fuzz/seeds/sigv4/aws-v4-presigned"),
    ),
    ("aws-v4-put", include_str!("../../../fuzz/seeds/sigv4/aws-v4-put")),
    ("boto-copy", include_str!("../../../fuzz/seeds/sigv4/boto-copy")),
    ("boto-get", include_str!("../../../fuzz/seeds/sigv4/boto-get")),
    ("boto-list", include_str!("../../../fuzz/seeds/sigv4/boto-list")),
    (
        "boto-presigned-get",
        include_str!("../../../fuzz/seeds/sigv4/boto-presigned-get"),
    ),
    (
        "boto-presigned-put",
        include_str!("../../../fuzz/seeds/sigv4/boto-presigned-put"),
    ),
    (
        "boto-put-metadata",
        include_str!("../../../fuzz/seeds/sigv4/boto-put-metadata"),
    ),
    (
        "boto-put-unsigned-trailer",
        include_str!("../../../fuzz/seeds/sigv4/boto-put-unsigned-trailer"),
    ),
    (
        "boto-upload-part",
        include_str!("../../../fuzz/seeds/sigv4/boto-upload-part"),
    ),
    (
        "boto-v2-get",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-get"),
    ),
    (
        "boto-v2-presigned-get",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-presigned-get"),
    ),
    (
        "boto-v2-presigned-put",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-presigned-put"),
    ),
    (
        "boto-v2-put",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-put"),
    ),
    (
        "boto-v2-upload-part",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-upload-part"),
    ),
    (
        "boto-v2-uploads",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-uploads"),
    ),
    (
        "boto-v2-virtual-get",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-virtual-get"),
    ),
    (
        "boto-v2-virtual-list",
        include_str!("../../../fuzz/seeds/sigv4/boto-v2-virtual-list"),
    ),
    (
        "minio-presigned-get",
        include_str!("../../../fuzz/seeds/sigv4/minio-presigned-get"),
    ),
];

pub fn seed(name: &str) -> (i64, Request) {
    let (_, text) = SEEDS
        .iter()
        .find(|(n, _)| *n == name)
        .expect("a seed of that name");
    Request::parse_seed(text)
}
