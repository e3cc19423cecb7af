//! Random requests and policies, and an evaluator of them that is as plain as can be.
//!
//! Vocabularies are small, so that what is asked for and what is written meet often.

use super::Facts;
use serde_json::{Value, json};
use weft::io::sim::Rng;
use weft::policy::{Ask, Kind, Policy, Principal, Requester, evaluate};

/// A request, and what is attached to whoever asks and to the bucket.
#[derive(Debug)]
pub struct Case {
    who: Who,
    own: Vec<Value>,
    bucket: Option<Value>,
    action: &'static str,
    resource: String,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Anonymous,
    Owner(&'static str),
    User(&'static str, &'static str),
}

#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub denied: bool,
    pub allowed: bool,
}

/// The bucket `b` belongs to it.
const OWNER: &str = "acct";
const ACTIONS: [&str; 3] = ["s3:GetObject", "s3:GetObjectAcl", "s3:PutObject"];
const ACTION_PATTERNS: [&str; 6] = ["s3:GetObject", "S3:GET*", "s3:*", "*", "s3:?utObject", "s3:*Acl"];
const KEYS: [&str; 6] = ["alice/1", "bob/1", "a", "*", "alice", "x/alice/y"];
const KEY_PATTERNS: [&str; 8] = [
    "*",
    "alice/*",
    "${aws:username}/*",
    "a?ice*",
    "${*}",
    "*/?",
    "a",
    "${s3:prefix, 'bob'}/1",
];
const TEXTS: [&str; 5] = ["a", "b", "al", "A", "${aws:username}"];
const TEXT_PATTERNS: [&str; 6] = ["a*", "?", "*", "al", "${aws:username}*", "b"];
const PRINCIPALS: [&str; 9] = [
    "*",
    "acct",
    "other",
    "arn:aws:iam::acct:root",
    "arn:aws:iam::other:root",
    "arn:aws:iam::acct:user/alice",
    "arn:aws:iam:::user/bob",
    "arn:aws:iam::other:user/alice",
    "arn:aws:iam::third:user/alice",
];

impl Case {
    pub fn from(rng: &mut Rng) -> Case {
        let who = match rng.below(5) {
            0 => Who::Anonymous,
            1 => Who::Owner(pick(rng, &["acct", "other"])),
            _ => Who::User(pick(rng, &["acct", "other"]), pick(rng, &["alice", "bob"])),
        };
        let own = match who {
            Who::Anonymous => Vec::new(),
            Who::Owner(_) | Who::User(..) => (0..rng.below(3)).map(|_| policy(rng, Whose::User)).collect(),
        };
        let bucket = (rng.below(4) > 0).then(|| policy(rng, Whose::Bucket));
        Case {
            who,
            own,
            bucket,
            action: pick(rng, &ACTIONS),
            resource: format!("arn:aws:s3:::b/{}", pick(rng, &KEYS)),
            facts: facts(rng, who),
        }
    }

    /// What the evaluator under test says.
    pub fn evaluated(&self) -> Outcome {
        let parse = |json: &Value, kind| {
            let text = json.to_string();
            Policy::parse(&text, kind).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let own: Vec<Policy> = self.own.iter().map(|json| parse(json, Kind::Identity)).collect();
        let bucket = self.bucket.as_ref().map(|json| parse(json, Kind::Bucket("b")));
        let requester = Requester {
            principal: match self.who {
                Who::Anonymous => Principal::Anonymous,
                Who::Owner(account) => Principal::Owner { account },
                Who::User(account, name) => Principal::User { account, name },
            },
            policies: &own,
        };
        let ask = Ask {
            action: self.action,
            resource: &self.resource,
        };
        let verdict = evaluate(&requester, ask, Some(OWNER), bucket.as_ref(), &self.facts);
        Outcome {
            denied: verdict.denied,
            allowed: verdict.is_allowed(),
        }
    }

    /// What the manual says, in its order: is there a deny; does the bucket's policy allow; do their own.
    pub fn expected(&self) -> Outcome {
        let (mut denied, mut own_allow) = (false, matches!(self.who, Who::Owner(_)));
        let (mut bucket_allows_them, mut bucket_allows_account) = (false, false);
        for policy in &self.own {
            for statement in statements(policy) {
                if self.fits(statement) {
                    match statement["Effect"].as_str() {
                        Some("Deny") => denied = true,
                        _ => own_allow = true,
                    }
                }
            }
        }
        for statement in self.bucket.iter().flat_map(statements) {
            let named = |element: &str| named(&statement[element], self.who);
            let (them, account) = match statement.get("NotPrincipal") {
                Some(_) => {
                    let (them, account) = named("NotPrincipal");
                    (!them && !account, false)
                }
                None => named("Principal"),
            };
            if (them || account) && self.fits(statement) {
                match statement["Effect"].as_str() {
                    Some("Deny") => denied = true,
                    _ => {
                        bucket_allows_them |= them;
                        bucket_allows_account |= account;
                    }
                }
            }
        }
        let is_own = matches!(self.who, Who::Owner(OWNER) | Who::User(OWNER, _));
        let allowed = if denied {
            false
        } else if self.who == Who::Anonymous {
            bucket_allows_them
        } else if is_own {
            own_allow || bucket_allows_them
        } else {
            own_allow && (bucket_allows_them || bucket_allows_account)
        };
        Outcome { denied, allowed }
    }

    fn fits(&self, statement: &Value) -> bool {
        let lower = self.action.to_lowercase();
        let has_action = |list: &Value| {
            strings(list)
                .iter()
                .any(|text| like(&text.to_lowercase(), &lower))
        };
        let action = match statement.get("NotAction") {
            Some(list) => !has_action(list),
            None => has_action(&statement["Action"]),
        };
        let resource = match statement.get("NotResource") {
            Some(list) => {
                let denies = statement["Effect"] == "Deny";
                strings(list).iter().all(|text| match self.filled(text) {
                    None => denies,
                    Some(pattern) => !like(&pattern, &self.resource),
                })
            }
            None => strings(&statement["Resource"])
                .iter()
                .any(|text| match self.filled(text) {
                    None => false,
                    Some(pattern) => like(&pattern, &self.resource),
                }),
        };
        action && resource && self.conditions_hold(&statement["Condition"])
    }

    fn conditions_hold(&self, block: &Value) -> bool {
        let Some(block) = block.as_object() else {
            return true;
        };
        for (operator, keys) in block {
            for (key, values) in keys.as_object().expect("keys") {
                if !self.holds(operator, key, &strings(values)) {
                    return false;
                }
            }
        }
        true
    }

    fn holds(&self, operator: &str, key: &str, values: &[String]) -> bool {
        let found = self.facts.get(key);
        if operator == "Null" {
            return (values[0] == "true") == found.is_none();
        }
        let for_all = operator.starts_with("ForAllValues:");
        let for_any = operator.starts_with("ForAnyValue:");
        let if_exists = operator.ends_with("IfExists");
        let name = operator.trim_end_matches("IfExists");
        let name = name.rsplit(':').next().expect("a name");
        let negated = name.contains("Not");
        let Some(found) = found else {
            return if for_all {
                true
            } else if for_any {
                if_exists
            } else {
                if_exists || negated
            };
        };
        let positive = name.replace("Not", "");
        let fits = |value: &String| values.iter().any(|wanted| self.compare(&positive, wanted, value));
        if for_all {
            found.iter().all(|value| fits(value) != negated)
        } else if for_any {
            found.iter().any(|value| fits(value) != negated)
        } else {
            found.iter().any(fits) != negated
        }
    }

    fn compare(&self, operator: &str, wanted: &str, value: &str) -> bool {
        let numbers = || {
            (
                value.parse::<f64>().ok(),
                wanted.parse::<f64>().expect("a number"),
            )
        };
        match operator {
            "StringEquals" => self.filled(wanted).is_some_and(|text| plain(&text) == value),
            "StringEqualsIgnoreCase" => self
                .filled(wanted)
                .is_some_and(|text| plain(&text).eq_ignore_ascii_case(value)),
            "StringLike" => self.filled(wanted).is_some_and(|text| like(&text, value)),
            "NumericEquals" => matches!(numbers(), (Some(a), b) if a == b),
            "NumericLessThan" => matches!(numbers(), (Some(a), b) if a < b),
            "NumericGreaterThanEquals" => matches!(numbers(), (Some(a), b) if a >= b),
            "Bool" => wanted == value,
            "IpAddress" => in_network(wanted, value),
            other => unreachable!("{other} is not made here"),
        }
    }

    /// The text with its variables filled in. Characters that variables put in are marked, so that they are no wildcards.
    fn filled(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let end = at + rest[at..].find('}').expect("an end");
            let inner = &rest[at + 2..end];
            let value = match inner {
                "*" | "?" | "$" => inner.to_owned(),
                _ => {
                    let (name, default) = match inner.split_once(", ") {
                        None => (inner, None),
                        Some((name, default)) => (name, Some(default.trim_matches('\''))),
                    };
                    match (self.facts.get(name).filter(|values| values.len() == 1), default) {
                        (Some(values), _) => values[0].clone(),
                        (None, Some(default)) => default.to_owned(),
                        (None, None) => return None,
                    }
                }
            };
            for c in value.chars() {
                out.push('\\');
                out.push(c);
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Some(out)
    }
}

/// A filled text where wildcards mean nothing.
fn plain(filled: &str) -> String {
    filled.replace('\\', "")
}

/// By the definition: a star is nothing, or one character and a star.
fn like(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => {
            like(chars.as_str(), text)
                || text
                    .chars()
                    .next()
                    .is_some_and(|first| like(pattern, &text[first.len_utf8()..]))
        }
        Some('?') => text
            .chars()
            .next()
            .is_some_and(|first| like(chars.as_str(), &text[first.len_utf8()..])),
        Some('\\') => {
            let literal = chars.next().expect("a marked character");
            text.strip_prefix(literal)
                .is_some_and(|rest| like(chars.as_str(), rest))
        }
        Some(literal) => text
            .strip_prefix(literal)
            .is_some_and(|rest| like(chars.as_str(), rest)),
    }
}

/// IPv4 alone, bit by bit.
fn in_network(network: &str, address: &str) -> bool {
    let bits = |text: &str| -> Option<String> {
        let parts: Vec<u8> = text
            .split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        Some(parts.iter().map(|part| format!("{part:08b}")).collect())
    };
    let (base, length) = network.split_once('/').expect("a length");
    let length: usize = length.parse().expect("a number");
    match (bits(base), bits(address)) {
        (Some(base), Some(address)) => base[..length] == address[..length],
        _ => false,
    }
}

/// Whether they are named themselves, and whether their account is.
fn named(element: &Value, who: Who) -> (bool, bool) {
    let texts = match element {
        Value::String(_) => strings(element),
        object => strings(&object["AWS"]),
    };
    let (mut them, mut account) = (false, false);
    for text in texts {
        let of_account = text
            .strip_prefix("arn:aws:iam::")
            .and_then(|rest| rest.strip_suffix(":root"));
        let of_account = of_account
            .map(str::to_owned)
            .or((!text.contains(':')).then(|| text.clone()));
        match who {
            _ if text == "*" => them = true,
            Who::Anonymous => {}
            Who::Owner(own) => them |= of_account.as_deref() == Some(own),
            Who::User(own, name) => {
                account |= of_account.as_deref() == Some(own);
                them |= text == format!("arn:aws:iam::{own}:user/{name}")
                    || text == format!("arn:aws:iam:::user/{name}");
            }
        }
    }
    (them, account)
}

fn statements(policy: &Value) -> Vec<&Value> {
    match &policy["Statement"] {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(strings).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Whose {
    User,
    Bucket,
}

fn policy(rng: &mut Rng, whose: Whose) -> Value {
    let mut list: Vec<Value> = (0..1 + rng.below(3)).map(|_| statement(rng, whose)).collect();
    let statement = match list.len() {
        1 if rng.below(2) == 0 => list.remove(0),
        _ => Value::Array(list),
    };
    json!({"Version": "2012-10-17", "Statement": statement})
}

fn statement(rng: &mut Rng, whose: Whose) -> Value {
    let effect = pick(rng, &["Allow", "Allow", "Deny"]);
    let mut made = json!({"Effect": effect});
    if whose == Whose::Bucket {
        let principals = match rng.below(3) {
            0 => json!("*"),
            _ => json!({"AWS": some(rng, &PRINCIPALS)}),
        };
        let element = match effect == "Deny" && rng.below(3) == 0 {
            true => "NotPrincipal",
            false => "Principal",
        };
        made[element] = principals;
    }
    made[pick(rng, &["Action", "Action", "NotAction"])] = some(rng, &ACTION_PATTERNS);
    let resources: Vec<String> = KEY_PATTERNS
        .iter()
        .map(|key| format!("arn:aws:s3:::b/{key}"))
        .collect();
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    made[pick(rng, &["Resource", "Resource", "NotResource"])] = some(rng, &resources);
    if rng.below(2) == 0 {
        let mut block = json!({});
        for _ in 0..1 + rng.below(2) {
            condition(rng, &mut block);
        }
        made["Condition"] = block;
    }
    made
}

fn condition(rng: &mut Rng, block: &mut Value) {
    const TEXT_KEYS: [&str; 4] = [
        "s3:prefix",
        "s3:delimiter",
        "aws:username",
        "s3:RequestObjectTagKeys",
    ];
    let set = pick(rng, &["", "", "ForAllValues:", "ForAnyValue:"]);
    let suffix = pick(rng, &["", "", "IfExists"]);
    let (operator, key, values) = match rng.below(6) {
        0 => {
            let operator = pick(
                rng,
                &[
                    "StringEquals",
                    "StringNotEquals",
                    "StringEqualsIgnoreCase",
                    "StringNotEqualsIgnoreCase",
                ],
            );
            (operator, pick(rng, &TEXT_KEYS), some(rng, &TEXTS))
        }
        1 => (
            pick(rng, &["StringLike", "StringNotLike"]),
            pick(rng, &TEXT_KEYS),
            some(rng, &TEXT_PATTERNS),
        ),
        2 => {
            let operator = pick(
                rng,
                &[
                    "NumericEquals",
                    "NumericNotEquals",
                    "NumericLessThan",
                    "NumericGreaterThanEquals",
                ],
            );
            (operator, "s3:max-keys", some(rng, &["1", "10", "10.5"]))
        }
        3 => ("Bool", "aws:SecureTransport", some(rng, &["true", "false"])),
        4 => {
            let networks = ["10.0.0.0/8", "10.1.2.0/24", "0.0.0.0/0", "192.0.2.1/32"];
            (
                pick(rng, &["IpAddress", "NotIpAddress"]),
                "aws:SourceIp",
                some(rng, &networks),
            )
        }
        _ => {
            block["Null"][pick(rng, &TEXT_KEYS)] = json!(pick(rng, &["true", "false"]));
            return;
        }
    };
    block[format!("{set}{operator}{suffix}")][key] = values;
}

fn facts(rng: &mut Rng, who: Who) -> Facts {
    let mut facts = Facts::default();
    let mut add = |name: &str, values: Vec<&str>| {
        facts
            .0
            .push((name.to_owned(), values.into_iter().map(str::to_owned).collect()));
    };
    if let Who::User(_, name) = who {
        add("aws:username", vec![name]);
    }
    for name in ["s3:prefix", "s3:delimiter"] {
        if rng.below(3) > 0 {
            add(name, vec![pick(rng, &["a", "b", "al", "A", "alice", ""])]);
        }
    }
    if rng.below(3) > 0 {
        let all = ["a", "b", "al", "c"];
        let from = rng.below(all.len() as u64) as usize;
        let to = from + 1 + rng.below((all.len() - from) as u64) as usize;
        add("s3:RequestObjectTagKeys", all[from..to].to_vec());
    }
    if rng.below(3) > 0 {
        add("s3:max-keys", vec![pick(rng, &["1", "10", "11", "many"])]);
    }
    add("aws:SecureTransport", vec!["false"]);
    if rng.below(4) > 0 {
        add(
            "aws:SourceIp",
            vec![pick(rng, &["10.1.2.3", "10.9.9.9", "192.0.2.1"])],
        );
    }
    facts
}

/// One of them, or a list of up to three.
fn some(rng: &mut Rng, all: &[&str]) -> Value {
    match rng.below(3) {
        0 => json!(all[rng.below(all.len() as u64) as usize]),
        count => json!(
            (0..count + 1)
                .map(|_| all[rng.below(all.len() as u64) as usize])
                .collect::<Vec<_>>()
        ),
    }
}

fn pick<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    all[rng.below(all.len() as u64) as usize]
}
