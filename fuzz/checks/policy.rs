//! Access policies: whatever the text, a policy or an error on it, and no panic when it is evaluated.

use std::borrow::Cow;
use weft::limits::POLICY_BYTES_MAX;
use weft::policy::{Ask, Context, Key, Kind, Policy, Principal, Requester, Values, evaluate, is_public};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for kind in [Kind::Identity, Kind::Bucket("b")] {
        match Policy::parse(text, kind) {
            Ok(policy) => check_policy(&policy, text, kind),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn check_policy(policy: &Policy, text: &str, kind: Kind<'_>) {
    assert!(text.len() <= POLICY_BYTES_MAX && serde_json::from_str::<serde_json::Value>(text).is_ok());
    let is_bucket = kind != Kind::Identity;
    assert!(!is_public(policy) || is_bucket, "only a bucket is public");
    let (own, bucket) = match is_bucket {
        true => (
            std::slice::from_ref(policy).get(1..).unwrap_or_default(),
            Some(policy),
        ),
        false => (std::slice::from_ref(policy), None),
    };
    for principal in [
        Principal::Anonymous,
        Principal::Owner { account: "acct" },
        Principal::User {
            account: "acct",
            name: "alice",
        },
    ] {
        let requester = Requester {
            principal,
            policies: own,
        };
        for (action, resource) in [
            ("s3:GetObject", "arn:aws:s3:::b/alice/k"),
            ("s3:ListBucket", "arn:aws:s3:::b"),
        ] {
            let ask = Ask { action, resource };
            let verdict = evaluate(&requester, ask, Some("acct"), bucket, &Facts);
            assert!(!(verdict.denied && verdict.is_allowed()));
            let owns = matches!(principal, Principal::Owner { .. });
            assert!(
                !owns || verdict.denied || verdict.is_allowed(),
                "an owner lacks nothing but what is denied"
            );
        }
    }
}

struct Facts;

impl Context for Facts {
    fn values(&self, key: &Key) -> Option<Values<'_>> {
        Some(match &*key.name {
            "aws:username" => vec![Cow::Borrowed("alice")],
            "aws:sourceip" => vec![Cow::Borrowed("203.0.113.9")],
            "aws:currenttime" => vec![Cow::Borrowed("2026-11-25T10:00:00Z")],
            "s3:max-keys" => vec![Cow::Borrowed("1e3")],
            "s3:requestobjecttagkeys" => vec![Cow::Borrowed("a"), Cow::Borrowed("b")],
            _ => return None,
        })
    }
}
