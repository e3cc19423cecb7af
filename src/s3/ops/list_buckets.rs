//! ListBuckets, in pages if asked for (S3 API reference, "ListBuckets").

use crate::engine::{BucketWalk, Machine};
use crate::limits::BUCKETS_MAX;
use crate::s3::auth::Rank;
use crate::s3::configuration::kind;
use crate::s3::error::{S3Error, S3Result};
use crate::s3::ops::continuation_token::{self, Scope};
use crate::s3::request::Request;
use crate::s3::service::{Response, Service};
use crate::s3::xml::responses::{self, BucketView, Owner};

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
        Some(token) => {
            let name = continuation_token::open(&service.token_key, Scope::Buckets, token)?;
            // It was sealed here, around a bucket's name.
            Some(String::from_utf8_lossy(&name).into_owned())
        }
        None => None,
    };
    let walk = BucketWalk {
        prefix: prefix.unwrap_or(""),
        after: after.as_deref(),
        location: region,
        // Root sees what belongs to anyone.
        configured: match request.user.account == service.root_id() {
            _ if request.user.rank == Rank::Root => None,
            true => Some((kind::OWNER, None)),
            false => Some((kind::OWNER, Some(request.user.account.as_bytes()))),
        },
        max,
    };
    let page = service.engine.buckets(&walk)?;
    let last = page.buckets.last().filter(|_| page.truncated);
    let next =
        last.map(|(name, _)| continuation_token::seal(&service.token_key, Scope::Buckets, name.as_bytes()));
    let views = page.buckets.iter().map(|(name, bucket)| BucketView {
        name,
        created_unix_ms: bucket.created_ms,
        region: &bucket.location,
    });
    let mut out = Vec::new();
    responses::list_buckets(
        &mut out,
        Owner {
            id: &request.user.account,
            display_name: &request.user.display_name,
        },
        views,
        prefix.map(str::as_bytes),
        next.as_deref(),
    );
    Ok(Response::xml(200, out))
}
