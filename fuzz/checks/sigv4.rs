//! Any request head, at any time, gets an answer: no panic, and no identity without a valid signature.
//!
//! The input is text, so that seeds are readable: the time in seconds since 1970, the method, target and
//! (in virtual-hosted style) bucket, then one header a line. The seeds in `seeds/sigv4` are AWS's published
//! examples and requests that boto3 and minio-py made; each of them authenticates.

use weft::s3::auth::{AuthError, KeyCache, Payload, RootUser, SignedRequest, authenticate};

pub fn check(data: &[u8]) {
    let mut lines = data.split(|&b| b == b'\n');
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).ok();
    let (Some(now), Some(request_line)) = (text(), text()) else {
        return;
    };
    let mut words = request_line.split(' ');
    let method = words.next().unwrap_or_default();
    let (path, query) = words
        .next()
        .map_or(("", ""), |target| target.split_once('?').unwrap_or((target, "")));
    let headers: Vec<(&str, &[u8])> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            Some((
                std::str::from_utf8(&line[..colon]).ok()?,
                line[colon + 1..].trim_ascii(),
            ))
        })
        .collect();
    let request = SignedRequest {
        method,
        path,
        query,
        headers: headers.as_slice(),
        host_bucket: words.next(),
    };
    let now_unix_s = now.parse().unwrap_or(1_369_353_600);
    let root = |secret: &str| RootUser {
        access_key: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: secret.into(),
    };
    let mut cache = KeyCache::new();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    match authenticate(&request, now_unix_s, &root(secret), &mut cache) {
        Err(error) => assert!((400..=403).contains(&error.describe().1)),
        Ok(authenticated) => {
            // The cached key of the right secret must not help a wrong one.
            let other = authenticate(&request, now_unix_s, &root("another"), &mut cache);
            assert_eq!(other.err(), Some(AuthError::SignatureDoesNotMatch));
            assert!(authenticate(&request, now_unix_s, &root(secret), &mut cache).is_ok());
            if let Payload::Streaming {
                chunks: Some(mut signer),
                ..
            } = authenticated.payload
            {
                assert!(signer.verify_chunk(&[0; 32], &[b'0'; 64]).is_err());
            }
        }
    }
}
