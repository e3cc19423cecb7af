//! What policies find in a request: the values of condition keys.
//!
//! Nothing is made ahead: a value is looked for when a condition or a variable asks for it. Invariant: an address is that
//! of the connection; headers that say where a request comes from are the client's word, and count for nothing.
//!
//! Source: S3 user guide, "Bucket policy examples using condition keys"; Service authorization reference, "Condition keys for
//! Amazon S3"; IAM user guide, "AWS global condition context keys".

use crate::http::date::iso8601_ms;
use crate::http::uri::Query;
use crate::policy::{Context, Key as ConditionKey, Principal, Values};
use crate::s3::auth::{Placement, SignatureVersion};
use crate::s3::names::Key;
use crate::s3::request::Request;
use std::borrow::Cow;

pub struct RequestContext<'a, 'r> {
    pub request: &'a Request<'r>,
    /// The account that what is asked for belongs to.
    pub owner: Option<&'a str>,
    /// The key that it is asked about, as if it was to be listed.
    pub listed: Option<&'a Key>,
}

impl Context for RequestContext<'_, '_> {
    fn values(&self, key: &ConditionKey) -> Option<Values<'_>> {
        let request = self.request;
        let one = |value: Option<Cow<'static, str>>| value.map(|value| vec![value]);
        let owned = |value: String| Some(vec![Cow::Owned(value)]);
        if let Some(argument) = &key.argument {
            return match &*key.name {
                "aws:principaltag" => {
                    let value = request.user.tags.get(&**argument)?;
                    Some(vec![Cow::Borrowed(value.as_str())])
                }
                "s3:requestobjecttag" => {
                    let tags = self.request_tags()?;
                    let (_, value) = tags.into_iter().find(|(name, _)| **name == **argument)?;
                    owned(value)
                }
                _ => None,
            };
        }
        let requester = request.user.requester();
        match &*key.name {
            "aws:currenttime" => owned(iso8601_ms(request.now_ms).as_str().to_owned()),
            "aws:epochtime" => owned((request.now_ms / 1000).to_string()),
            "aws:sourceip" => owned(request.peer?.to_canonical().to_string()),
            "aws:securetransport" => one(Some(Cow::Borrowed("false"))),
            "aws:username" => match requester.principal {
                Principal::User { name, .. } => Some(vec![Cow::Borrowed(name)]),
                Principal::Owner { .. } | Principal::Anonymous => None,
            },
            "aws:userid" => match requester.principal {
                Principal::User { name, .. } => Some(vec![Cow::Borrowed(name)]),
                Principal::Owner { account } => Some(vec![Cow::Borrowed(account)]),
                Principal::Anonymous => None,
            },
            "aws:principalarn" => owned(requester.principal.arn()?),
            "aws:principalaccount" => Some(vec![Cow::Borrowed(requester.principal.account()?)]),
            "aws:principaltype" => one(Some(Cow::Borrowed(match requester.principal {
                Principal::Anonymous => "Anonymous",
                Principal::Owner { .. } => "Account",
                Principal::User { .. } => "User",
            }))),
            "aws:resourceaccount" | "s3:resourceaccount" => Some(vec![Cow::Borrowed(self.owner?)]),
            "aws:referer" => self.header("referer"),
            "aws:useragent" => self.header("user-agent"),
            "s3:authtype" => one(Some(Cow::Borrowed(match request.signed?.placement {
                Placement::Header => "REST-HEADER",
                Placement::Query => "REST-QUERY-STRING",
            }))),
            "s3:signatureversion" => one(Some(Cow::Borrowed(match request.signed?.version {
                SignatureVersion::V2 => "AWS",
                SignatureVersion::V4 => "AWS4-HMAC-SHA256",
            }))),
            "s3:signatureage" => {
                let signed_ms = request.signed?.unix_s?.saturating_mul(1000);
                let age_ms = (request.now_ms as i64).saturating_sub(signed_ms);
                owned(age_ms.max(0).to_string())
            }
            "s3:prefix" => match self.listed {
                Some(key) => Some(vec![String::from_utf8_lossy(key.as_bytes())]),
                None => self.parameter("prefix"),
            },
            "s3:delimiter" => self.parameter("delimiter"),
            "s3:max-keys" => self.parameter("max-keys"),
            "s3:versionid" => self.parameter("versionId"),
            "s3:requestobjecttagkeys" | "aws:tagkeys" => {
                let tags = self.request_tags()?;
                Some(tags.into_iter().map(|(name, _)| Cow::Owned(name)).collect())
            }
            "s3:if-match" => self.header("if-match"),
            "s3:if-none-match" => self.header("if-none-match"),
            "s3:object-lock-mode" => self.header("x-amz-object-lock-mode"),
            "s3:object-lock-legal-hold" => self.header("x-amz-object-lock-legal-hold"),
            "s3:object-lock-retain-until-date" => self.header("x-amz-object-lock-retain-until-date"),
            name => self.header(
                name.strip_prefix("s3:")
                    .filter(|name| name.starts_with("x-amz-"))?,
            ),
        }
    }
}

impl RequestContext<'_, '_> {
    fn header(&self, name: &str) -> Option<Values<'_>> {
        let value = self.request.field(name)?;
        Some(vec![String::from_utf8_lossy(value)])
    }

    fn parameter(&self, name: &str) -> Option<Values<'_>> {
        let value = self.request.query.get(name)?;
        Some(vec![Cow::Borrowed(value)])
    }

    /// The tags that the request gives an object; as a form writes them.
    fn request_tags(&self) -> Option<Vec<(String, String)>> {
        let header = std::str::from_utf8(self.request.field("x-amz-tagging")?).ok()?;
        let tags = Query::parse(header).ok()?;
        Some(
            tags.iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}
