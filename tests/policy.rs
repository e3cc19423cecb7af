//! Access policies: tables of what a document says, and the evaluator against a second one.
//!
//! The second evaluator (`twin`) is slow and obvious: it reads the JSON each time, matches wildcards by recursion, and follows
//! the rules in the order in which the manual tells them. It shares no code with the first. Invariant: no chance from
//! outside; a failing case prints its seed. `WEFT_POLICY_CASES` says how many cases are tried.

use std::borrow::Cow;
use weft::io::sim::Rng;
use weft::policy::{Ask, Context, Key, Kind, Policy, Principal, Requester, Values, evaluate, is_public};

#[path = "policy/twin.rs"]
mod twin;

/// The keys of a request, by name.
#[derive(Clone, Debug, Default)]
struct Facts(Vec<(String, Vec<String>)>);

impl Facts {
    fn of(pairs: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (name, value) in pairs {
            match facts.0.iter_mut().find(|(present, _)| present == name) {
                Some((_, values)) => values.push((*value).to_owned()),
                None => facts.0.push(((*name).to_owned(), vec![(*value).to_owned()])),
            }
        }
        facts
    }

    fn get(&self, name: &str) -> Option<&Vec<String>> {
        let found = self
            .0
            .iter()
            .find(|(present, _)| present.eq_ignore_ascii_case(name));
        found.map(|(_, values)| values)
    }
}

impl Context for Facts {
    fn values(&self, key: &Key) -> Option<Values<'_>> {
        let name = match &key.argument {
            None => key.name.to_string(),
            Some(argument) => format!("{}/{argument}", key.name),
        };
        Some(
            self.get(&name)?
                .iter()
                .map(|value| Cow::Borrowed(value.as_str()))
                .collect(),
        )
    }
}

const ALICE: Principal<'static> = Principal::User {
    account: "acct",
    name: "alice",
};
const OWNER: Principal<'static> = Principal::Owner { account: "acct" };
const STRANGER: Principal<'static> = Principal::Owner { account: "other" };

/// Whether a bucket of `acct` with this policy lets `principal` do it.
fn allows(policy: &str, principal: Principal<'_>, action: &str, resource: &str, facts: &Facts) -> bool {
    let policy = Policy::parse(policy, Kind::Bucket("b")).expect("a policy");
    let requester = Requester {
        principal,
        policies: &[],
    };
    evaluate(
        &requester,
        Ask { action, resource },
        Some("acct"),
        Some(&policy),
        facts,
    )
    .is_allowed()
}

fn statement(effect: &str, rest: &str) -> String {
    format!(
        "{{\"Version\": \"2012-10-17\", \"Statement\": [{{\"Effect\": \"{effect}\", \"Principal\": \"*\", \
         \"Action\": \"s3:GetObject\", \"Resource\": \"arn:aws:s3:::b/*\"{rest}}}]}}"
    )
}

/// Whether a condition holds for a request with these keys.
fn holds(condition: &str, facts: &[(&str, &str)]) -> bool {
    let policy = statement("Allow", &format!(", \"Condition\": {condition}"));
    allows(
        &policy,
        Principal::Anonymous,
        "s3:GetObject",
        "arn:aws:s3:::b/k",
        &Facts::of(facts),
    )
}

#[test]
fn a_deny_wins_over_every_allow_wherever_it_stands() {
    let allow = r#"{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}"#;
    let deny = r#"{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/secret/*"}"#;
    for both in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
        let policy = format!("{{\"Version\": \"2012-10-17\", \"Statement\": [{both}]}}");
        let can = |principal, key: &str| {
            let resource = format!("arn:aws:s3:::b/{key}");
            allows(&policy, principal, "s3:GetObject", &resource, &Facts::default())
        };
        for principal in [Principal::Anonymous, ALICE, STRANGER, OWNER] {
            assert!(
                can(principal, "open") && !can(principal, "secret/k"),
                "{principal:?}"
            );
        }
    }
}

#[test]
fn principals_are_who_they_are_said_to_be() {
    let can = |principals: &str, principal| {
        let policy = format!(
            "{{\"Statement\": {{\"Effect\": \"Allow\", \"Principal\": {principals}, \"Action\": \"s3:GetObject\", \
             \"Resource\": \"arn:aws:s3:::b/*\"}}}}"
        );
        allows(
            &policy,
            principal,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            &Facts::default(),
        )
    };
    let stranger_of = |name| Principal::User {
        account: "other",
        name,
    };
    for (principals, principal, expected) in [
        (r#""*""#, Principal::Anonymous, true),
        (r#"{"AWS": "*"}"#, Principal::Anonymous, true),
        (r#"{"AWS": ["arn:aws:iam::acct:user/alice"]}"#, ALICE, true),
        (r#"{"AWS": ["arn:aws:iam:::user/alice"]}"#, ALICE, true),
        (r#"{"AWS": "arn:aws:iam::acct:user/team/alice"}"#, ALICE, true),
        (r#"{"AWS": "arn:aws:iam::acct:user/bob"}"#, ALICE, false),
        (r#"{"AWS": "arn:aws:iam::other:user/alice"}"#, ALICE, false),
        // The account's owner says who of its users may.
        (r#"{"AWS": "arn:aws:iam::acct:root"}"#, ALICE, false),
        (r#"{"AWS": "other"}"#, STRANGER, true),
        (r#"{"AWS": "arn:aws:iam::other:root"}"#, STRANGER, true),
        (r#"{"AWS": "arn:aws:iam::other:root"}"#, stranger_of("eve"), false),
        (r#"{"CanonicalUser": "other"}"#, STRANGER, true),
        (r#"{"CanonicalUser": "another"}"#, STRANGER, false),
        // Without a policy of its own a user of another account may not take what it is given.
        (r#""*""#, stranger_of("eve"), false),
        (r#"{"Service": "cloudtrail.amazonaws.com"}"#, STRANGER, false),
        (r#"{"Federated": "x"}"#, Principal::Anonymous, false),
    ] {
        assert_eq!(can(principals, principal), expected, "{principals} {principal:?}");
    }
}

#[test]
fn who_is_not_named_is_denied() {
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"},
        {"Effect": "Deny", "NotPrincipal": {"AWS": ["arn:aws:iam::acct:user/alice", "arn:aws:iam::acct:root"]},
         "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}]}"#;
    for (principal, expected) in [
        (ALICE, true),
        (OWNER, true),
        (STRANGER, false),
        (Principal::Anonymous, false),
    ] {
        let can = allows(
            policy,
            principal,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            &Facts::default(),
        );
        assert_eq!(can, expected, "{principal:?}");
    }
}

#[test]
fn actions_and_resources_have_wildcards() {
    let can = |action: &str, resource: &str, asked: &str, of: &str| {
        let policy = format!(
            "{{\"Version\": \"2012-10-17\", \"Statement\": {{\"Effect\": \"Allow\", \"Principal\": \"*\", {action}, {resource}}}}}"
        );
        let facts = Facts::of(&[("aws:username", "alice*")]);
        allows(&policy, Principal::Anonymous, asked, of, &facts)
    };
    let all = r#""Resource": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]"#;
    for (action, resource, asked, of, expected) in [
        (r#""Action": "*""#, all, "s3:ListBucket", "arn:aws:s3:::b", true),
        (
            r#""Action": "S3:getobject""#,
            all,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action": "s3:Get*"}"#.trim_end_matches('}'),
            all,
            "s3:GetObjectAcl",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action": "s3:Get??ject""#,
            all,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action": "s3:GetObject""#,
            all,
            "s3:GetObjectVersion",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""NotAction": "s3:Put*""#,
            all,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""NotAction": ["s3:Get*", "s3:Put*"]"#,
            all,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/a?c/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/aéc/d/e",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/a?c/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/ac/d",
            false,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/*.jpg""#,
            "s3:GetObject",
            "arn:aws:s3:::b/x.jpg.jpg",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""NotResource": "arn:aws:s3:::b/x/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/y",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""NotResource": "arn:aws:s3:::b/x/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/x/y",
            false,
        ),
        // What a variable puts in is text, whatever it looks like.
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${aws:username}/k""#,
            "s3:GetObject",
            "arn:aws:s3:::b/alice*/k",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${aws:username}/k""#,
            "s3:GetObject",
            "arn:aws:s3:::b/alice-too/k",
            false,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${*}${?}${$}{x}""#,
            "s3:GetObject",
            "arn:aws:s3:::b/*?${x}",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${*}""#,
            "s3:GetObject",
            "arn:aws:s3:::b/x",
            false,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${aws:userid}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b//x",
            false,
        ),
        (
            r#""Action": "s3:*""#,
            r#""Resource": "arn:aws:s3:::b/${aws:userid, 'nobody'}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/nobody/x",
            true,
        ),
        (
            r#""Action": "s3:*""#,
            r#""NotResource": "arn:aws:s3:::b/${aws:userid}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/y",
            false,
        ),
    ] {
        assert_eq!(
            can(action, resource, asked, of),
            expected,
            "{action} {resource} {of}"
        );
    }
}

#[test]
fn a_deny_whose_variable_has_no_value_stays() {
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"},
        {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "NotResource": "arn:aws:s3:::b/${aws:username}/*"}]}"#;
    let can = |facts: &[(&str, &str)]| {
        allows(
            policy,
            Principal::Anonymous,
            "s3:GetObject",
            "arn:aws:s3:::b/alice/k",
            &Facts::of(facts),
        )
    };
    assert!(can(&[("aws:username", "alice")]));
    assert!(!can(&[("aws:username", "bob")]));
    assert!(!can(&[]));
}

#[test]
fn conditions_hold_as_their_operators_say() {
    let address = ("aws:sourceip", "203.0.113.9");
    let date = ("aws:currenttime", "2026-11-25T10:00:00Z");
    for (condition, facts, expected) in [
        (
            r#"{"StringEquals": {"s3:prefix": ["a", "b"]}}"#,
            vec![("s3:prefix", "b")],
            true,
        ),
        (
            r#"{"StringEquals": {"s3:prefix": "a*"}}"#,
            vec![("s3:prefix", "ab")],
            false,
        ),
        (
            r#"{"StringEquals": {"S3:PREFIX": "a"}}"#,
            vec![("s3:prefix", "a")],
            true,
        ),
        (r#"{"StringEquals": {"s3:prefix": "a"}}"#, vec![], false),
        (r#"{"StringEqualsIfExists": {"s3:prefix": "a"}}"#, vec![], true),
        (
            r#"{"StringEqualsIfExists": {"s3:prefix": "a"}}"#,
            vec![("s3:prefix", "b")],
            false,
        ),
        (
            r#"{"StringNotEquals": {"s3:prefix": ["a", "b"]}}"#,
            vec![("s3:prefix", "b")],
            false,
        ),
        (r#"{"StringNotEquals": {"s3:prefix": "a"}}"#, vec![], true),
        (
            r#"{"StringEqualsIgnoreCase": {"s3:prefix": "ÄB"}}"#,
            vec![("s3:prefix", "äb")],
            true,
        ),
        (
            r#"{"StringNotEqualsIgnoreCase": {"s3:prefix": "AB"}}"#,
            vec![("s3:prefix", "ab")],
            false,
        ),
        (
            r#"{"StringLike": {"s3:prefix": "home/*/?"}}"#,
            vec![("s3:prefix", "home/a/b/c")],
            true,
        ),
        (
            r#"{"StringLike": {"s3:prefix": "${aws:username}/*"}}"#,
            vec![("s3:prefix", "al/x"), ("aws:username", "al")],
            true,
        ),
        (
            r#"{"StringLike": {"s3:prefix": "${aws:username}/*"}}"#,
            vec![("s3:prefix", "al/x")],
            false,
        ),
        (
            r#"{"StringNotLike": {"s3:prefix": "home/*"}}"#,
            vec![("s3:prefix", "home/x")],
            false,
        ),
        (
            r#"{"NumericLessThanEquals": {"s3:max-keys": 10}}"#,
            vec![("s3:max-keys", "10")],
            true,
        ),
        (
            r#"{"NumericLessThan": {"s3:max-keys": "10"}}"#,
            vec![("s3:max-keys", "10")],
            false,
        ),
        (
            r#"{"NumericGreaterThan": {"s3:max-keys": "9.5"}}"#,
            vec![("s3:max-keys", "10")],
            true,
        ),
        (
            r#"{"NumericNotEquals": {"s3:max-keys": "10"}}"#,
            vec![("s3:max-keys", "10.0")],
            false,
        ),
        (
            r#"{"NumericEquals": {"s3:max-keys": "10"}}"#,
            vec![("s3:max-keys", "ten")],
            false,
        ),
        (
            r#"{"DateGreaterThan": {"aws:CurrentTime": "2026-11-25"}}"#,
            vec![date],
            true,
        ),
        (
            r#"{"DateLessThan": {"aws:CurrentTime": "2026-11-25T11:00:00+02:00"}}"#,
            vec![date],
            false,
        ),
        (
            r#"{"DateLessThanEquals": {"aws:EpochTime": "1764064800"}}"#,
            vec![("aws:epochtime", "1764064800")],
            true,
        ),
        (
            r#"{"Bool": {"aws:SecureTransport": true}}"#,
            vec![("aws:securetransport", "false")],
            false,
        ),
        (
            r#"{"Bool": {"aws:SecureTransport": "False"}}"#,
            vec![("aws:securetransport", "false")],
            true,
        ),
        (
            r#"{"BinaryEquals": {"aws:userid": "QUJD"}}"#,
            vec![("aws:userid", "QUJD")],
            true,
        ),
        (
            r#"{"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "203.0.113.0/24"]}}"#,
            vec![address],
            true,
        ),
        (
            r#"{"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}"#,
            vec![address],
            false,
        ),
        (
            r#"{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}"#,
            vec![],
            false,
        ),
        (
            r#"{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/a*"}}"#,
            vec![("aws:principalarn", "arn:aws:iam::acct:user/alice")],
            true,
        ),
        (
            r#"{"ArnEquals": {"aws:PrincipalArn": "arn:*:user/alice"}}"#,
            vec![("aws:principalarn", "arn:aws:iam::acct:user/alice")],
            false,
        ),
        (
            r#"{"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::acct:*"}}"#,
            vec![("aws:principalarn", "arn:aws:iam::acct:user/alice")],
            false,
        ),
        (r#"{"Null": {"s3:prefix": "true"}}"#, vec![], true),
        (r#"{"Null": {"s3:prefix": "false"}}"#, vec![], false),
        (
            r#"{"Null": {"s3:prefix": "false"}}"#,
            vec![("s3:prefix", "")],
            true,
        ),
        // Every key and every operator must hold.
        (
            r#"{"StringEquals": {"s3:prefix": "a", "s3:delimiter": "/"}}"#,
            vec![("s3:prefix", "a"), ("s3:delimiter", "/")],
            true,
        ),
        (
            r#"{"StringEquals": {"s3:prefix": "a", "s3:delimiter": "/"}}"#,
            vec![("s3:prefix", "a")],
            false,
        ),
        (
            r#"{"StringEquals": {"s3:prefix": "a"}, "Null": {"s3:delimiter": "false"}}"#,
            vec![("s3:prefix", "a")],
            false,
        ),
        (
            r#"{"StringEquals": {"s3:ExistingObjectTag/Team": "red"}}"#,
            vec![("s3:existingobjecttag/Team", "red")],
            true,
        ),
    ] {
        assert_eq!(holds(condition, &facts), expected, "{condition} {facts:?}");
    }
}

#[test]
fn several_values_of_a_key_hold_for_all_or_for_any() {
    let key = "s3:requestobjecttagkeys";
    let tags = |names: &[&'static str]| names.iter().map(|name| (key, *name)).collect::<Vec<_>>();
    for (operator, names, expected) in [
        ("ForAllValues:StringEquals", vec!["a", "b"], true),
        ("ForAllValues:StringEquals", vec!["a", "c"], false),
        ("ForAllValues:StringEquals", vec![], true),
        ("ForAnyValue:StringEquals", vec!["a", "c"], true),
        ("ForAnyValue:StringEquals", vec!["c", "d"], false),
        ("ForAnyValue:StringEquals", vec![], false),
        ("ForAnyValue:StringEqualsIfExists", vec![], true),
        // Negated, and in part the same: none may be listed, or one that is not is enough.
        ("ForAllValues:StringNotEquals", vec!["c", "d"], true),
        ("ForAllValues:StringNotEquals", vec!["a", "c"], false),
        ("ForAllValues:StringNotEquals", vec![], true),
        ("ForAnyValue:StringNotEquals", vec!["a", "c"], true),
        ("ForAnyValue:StringNotEquals", vec!["a", "b"], false),
        ("ForAnyValue:StringNotEquals", vec![], false),
        ("StringNotEquals", vec!["a", "c"], false),
        ("StringEquals", vec!["a", "c"], true),
    ] {
        let condition = format!("{{\"{operator}\": {{\"s3:RequestObjectTagKeys\": [\"a\", \"b\"]}}}}");
        assert_eq!(holds(&condition, &tags(&names)), expected, "{operator} {names:?}");
    }
}

#[test]
fn what_is_no_policy_is_refused() {
    let good = statement("Allow", "");
    Policy::parse(&good, Kind::Bucket("b")).expect("the base of what follows");
    let condition = |condition: &str| statement("Allow", &format!(", \"Condition\": {condition}"));
    for (text, why) in [
        (String::new(), "first byte"),
        ("[]".to_owned(), "first byte"),
        ("{".to_owned(), "Json"),
        (format!("{good} x"), "Json"),
        ("{}".to_owned(), "Statement"),
        (r#"{"Statement": []}"#.to_owned(), "empty"),
        (good.replace("2012-10-17", "2012-10-18"), "version"),
        (good.replace("\"Effect\"", "\"effect\""), "effect"),
        (good.replace("\"Allow\"", "\"allow\""), "Invalid effect"),
        (
            good.replace("\"Effect\"", "\"Effect\": \"Deny\", \"Effect\""),
            "given twice",
        ),
        (good.replace("\"Principal\": \"*\", ", ""), "Principal"),
        (
            good.replace("\"Principal\": \"*\"", "\"Principal\": \"x\""),
            "principal",
        ),
        (
            good.replace("\"Principal\": \"*\"", "\"Principal\": {\"AWS\": []}"),
            "principal",
        ),
        (
            good.replace(
                "\"Principal\": \"*\"",
                "\"Principal\": {\"AWS\": \"arn:aws:iam::acct:user/*\"}",
            ),
            "principal",
        ),
        (
            good.replace("\"Principal\": \"*\"", "\"Principal\": {\"Nobody\": \"x\"}"),
            "principal",
        ),
        (good.replace("\"Principal\"", "\"NotPrincipal\""), "NotPrincipal"),
        (
            good.replace(
                "\"Principal\": \"*\"",
                "\"Principal\": \"*\", \"NotPrincipal\": \"*\"",
            ),
            "not both",
        ),
        (good.replace("s3:GetObject", "s3:GetObjects"), "invalid action"),
        (good.replace("s3:GetObject", "iam:GetUser"), "invalid action"),
        (good.replace("\"s3:GetObject\"", "[]"), "Action"),
        (good.replace("\"s3:GetObject\"", "[1]"), "Action"),
        (
            good.replace("\"Action\"", "\"NotAction\": \"s3:*\", \"Action\""),
            "not both",
        ),
        (good.replace("s3:GetObject", "s3:ListBucket"), "does not apply"),
        (
            good.replace("arn:aws:s3:::b/*", "arn:aws:s3:::b"),
            "does not apply",
        ),
        (
            good.replace("arn:aws:s3:::b/*", "arn:aws:s3:::c/*"),
            "invalid resource",
        ),
        (
            good.replace("arn:aws:s3:::b/*", "arn:aws:s3:::bc/*"),
            "invalid resource",
        ),
        (
            good.replace("arn:aws:s3:::b/*", "arn:aws:s3:::b${aws:username}"),
            "invalid resource",
        ),
        (good.replace("arn:aws:s3:::b/*", "b/*"), "invalid resource"),
        (
            good.replace("arn:aws:s3:::b/*", "arn:aws:s3:::b/${aws"),
            "invalid resource",
        ),
        (statement("Allow", ", \"Extra\": 1"), "Unknown field"),
        (statement("Allow", ", \"Sid\": 1"), "Sid"),
        (condition("[]"), "Condition"),
        (condition(r#"{"StringIs": {"s3:prefix": "a"}}"#), "operator"),
        (
            condition(r#"{"ForSome:StringEquals": {"s3:prefix": "a"}}"#),
            "operator",
        ),
        (
            condition(r#"{"NullIfExists": {"s3:prefix": "true"}}"#),
            "operator",
        ),
        (
            condition(r#"{"StringEquals": {"s3:nothing": "a"}}"#),
            "condition key",
        ),
        (condition(r#"{"StringEquals": {"prefix": "a"}}"#), "condition key"),
        (condition(r#"{"StringEquals": {"s3:prefix": []}}"#), "no values"),
        (
            condition(r#"{"StringEquals": {"s3:prefix": {"a": 1}}}"#),
            "no values",
        ),
        (condition(r#"{"NumericEquals": {"s3:max-keys": "ten"}}"#), "value"),
        (
            condition(r#"{"DateEquals": {"aws:CurrentTime": "now"}}"#),
            "value",
        ),
        (
            condition(r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}"#),
            "value",
        ),
        (condition(r#"{"Bool": {"aws:SecureTransport": "yes"}}"#), "value"),
        (statement("Allow", &" ".repeat(20 * 1024)), "longer"),
    ] {
        let error = Policy::parse(&text, Kind::Bucket("b"))
            .expect_err(&text)
            .to_string();
        assert!(error.contains(why), "{text}\n{error}");
    }
    let error = Policy::parse(&good, Kind::Identity)
        .expect_err("a principal")
        .to_string();
    assert!(error.contains("principal"), "{error}");
}

#[test]
fn public_is_what_everyone_may_do_without_a_fixed_limit() {
    let of = |effect: &str, rest: &str| {
        is_public(&Policy::parse(&statement(effect, rest), Kind::Bucket("b")).expect("a policy"))
    };
    for (effect, condition, expected) in [
        ("Allow", "", true),
        ("Deny", "", false),
        (
            "Allow",
            r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/16"}}"#,
            false,
        ),
        (
            "Allow",
            r#"{"IpAddress": {"aws:SourceIp": ["10.0.0.0/16", "0.0.0.0/0"]}}"#,
            true,
        ),
        (
            "Allow",
            r#"{"NotIpAddress": {"aws:SourceIp": "10.0.0.0/16"}}"#,
            true,
        ),
        (
            "Allow",
            r#"{"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/16"}}"#,
            true,
        ),
        (
            "Allow",
            r#"{"StringEquals": {"aws:PrincipalAccount": "acct"}}"#,
            false,
        ),
        ("Allow", r#"{"StringLike": {"aws:PrincipalAccount": "*"}}"#, true),
        ("Allow", r#"{"StringEquals": {"s3:prefix": "a"}}"#, true),
        ("Allow", r#"{"StringEquals": {"aws:Referer": "http://x/"}}"#, true),
    ] {
        let rest = match condition {
            "" => String::new(),
            condition => format!(", \"Condition\": {condition}"),
        };
        assert_eq!(of(effect, &rest), expected, "{effect} {condition}");
    }
}

#[test]
fn wildcards_take_no_more_than_the_product_of_both_lengths() {
    let policy = statement("Allow", "").replace("b/*", &format!("b/{}b", "*a".repeat(400)));
    let key = format!("arn:aws:s3:::b/{}", "a".repeat(1000));
    assert!(!allows(
        &policy,
        Principal::Anonymous,
        "s3:GetObject",
        &key,
        &Facts::default()
    ));
}

#[test]
fn the_slow_and_obvious_evaluator_says_the_same() {
    let cases: u64 = match std::env::var("WEFT_POLICY_CASES") {
        Ok(text) => text.parse().expect("a number of cases"),
        Err(_) => 20_000,
    };
    let mut counts = [0u64; 3];
    for seed in 0..cases {
        let case = twin::Case::from(&mut Rng::new(seed));
        let expected = case.expected();
        let got = case.evaluated();
        assert_eq!(got, expected, "seed {seed}: {case:#?}");
        counts[match (got.denied, got.allowed) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }] += 1;
    }
    println!(
        "{cases} cases: {} denied, {} allowed, {} neither",
        counts[0], counts[1], counts[2]
    );
    // Cases that all ended the same way would show nothing.
    assert!(counts.iter().all(|count| *count > cases / 50), "{counts:?}");
}
