//! ListBuckets, in pages if asked for (S3 API reference, "ListBuckets").

use crate::engine::Machine;
use crate::s3::error::{S3Error, S3Result};
use crate::s3::ops::continuation_token::{self, Scope};
use crate::s3::request::Request;
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses::{self, BucketView};

/// Buckets in one page (S3: 10,000).
const BUCKETS_MAX: usize = 10_000;

pub fn list_buckets<I: Machine>(service: &Service<I>, request: &Request<'_>) -> S3Result<Response<I>> {
    let max = request.number::<usize>("max-buckets")?.unwrap_or(BUCKETS_MAX);
    if max == 0 || max > BUCKETS_MAX {
        let message = "Argument max-buckets must be an integer between 1 and 10000";
        return Err(S3Error::invalid_argument(
            message,
            "max-buckets",
            &max.to_string(),
        ));
    }
    let prefix = request.query.get("prefix");
    let region = request.query.get("bucket-region");
    // An empty token is none, here and only here.
    let token = request.query.get("continuation-token");
    let after = match token.filter(|token| !token.is_empty()) {
        Some(token) => Some(continuation_token::open(
            &service.token_key,
            Scope::Buckets,
            token,
        )?),
        None => None,
    };
    let buckets = service.engine.buckets();
    let mut wanted = buckets
        .iter()
        .filter(|(name, _)| name.starts_with(prefix.unwrap_or("")))
        .filter(|(_, bucket)| region.is_none_or(|region| bucket.location == region))
        .filter(|(name, _)| after.as_deref().is_none_or(|after| name.as_bytes() > after));
    let page: Vec<_> = wanted.by_ref().take(max).collect();
    let next = wanted
        .next()
        .and(page.last())
        .map(|(name, _)| continuation_token::seal(&service.token_key, Scope::Buckets, name.as_bytes()));
    let views = page.iter().map(|(name, bucket)| BucketView {
        name,
        created_unix_ms: bucket.created_ms,
        region: &bucket.location,
    });
    let mut out = Vec::new();
    responses::list_buckets(
        &mut out,
        service.owner(),
        views,
        prefix.map(str::as_bytes),
        next.as_deref(),
    );
    Ok(Response::xml(200, out))
}
