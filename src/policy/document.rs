//! A policy document: JSON to statements.
//!
//! Strict, as S3 is: an element that is not known, a list that is empty, an action that S3 does not have, a resource of
//! another bucket are refused, with the words of S3 where it has some. Bounds: `POLICY_BYTES_MAX` bytes.

use super::actions::{self, About};
use super::condition::Condition;
use super::json::Json;
use super::pattern::{Pattern, Syntax, glob};
use super::principal::Principals;
use crate::limits::POLICY_BYTES_MAX;
use std::borrow::Cow;
use std::fmt;

/// A document whose every word is understood.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) statements: Box<[Statement]>,
}

/// What a policy is attached to, which decides what it must say and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A user: it names no principals.
    Identity,
    /// The bucket of this name: it names principals, and no other bucket.
    Bucket(&'a str),
}

#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub effect: Effect,
    pub whom: Whom,
    pub actions: Listed<Pattern>,
    pub resources: Listed<Pattern>,
    pub conditions: Box<[Condition]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug)]
pub(super) enum Whom {
    /// Whoever the policy is attached to.
    Bearer,
    These(Principals),
    AllBut(Principals),
}

/// An element or its Not form.
#[derive(Clone, Debug)]
pub(super) enum Listed<T> {
    These(Box<[T]>),
    AllBut(Box<[T]>),
}

/// Why a document is no policy, for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    message: String,
}

impl PolicyError {
    pub(super) fn new(message: impl Into<String>) -> PolicyError {
        PolicyError {
            message: message.into(),
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PolicyError {}

const RESOURCE_BEGIN: &str = "arn:aws:s3:::";
const VERSIONS: [&str; 2] = ["2008-10-17", "2012-10-17"];

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    /// The first thing in it that is wrong.
    pub fn parse(text: &str, kind: Kind<'_>) -> Result<Policy, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            let message = format!("The policy is longer than {POLICY_BYTES_MAX} bytes");
            return Err(PolicyError::new(message));
        }
        if !text.trim_ascii_start().starts_with('{') {
            return Err(PolicyError::new(
                "Policies must be valid JSON and the first byte must be '{'",
            ));
        }
        let json = Json::parse(text)
            .map_err(|error| PolicyError::new(format!("This policy contains invalid Json: {error}")))?;
        let members = Members::of(&json, &["Version", "Id", "Statement"])?;
        let version = match members.get("Version") {
            None => VERSIONS[0],
            Some(Json::Text(version)) if VERSIONS.contains(&version.as_str()) => version,
            Some(_) => {
                return Err(PolicyError::new("The policy must contain a valid version string"));
            }
        };
        if !matches!(members.get("Id"), None | Some(Json::Text(_))) {
            return Err(PolicyError::new("Id must be a string"));
        }
        let syntax = match version == VERSIONS[1] {
            true => Syntax::Full,
            false => Syntax::Wildcards,
        };
        let statements = match members.required("Statement")? {
            Json::List(list) if list.is_empty() => {
                return Err(PolicyError::new(
                    "Could not parse the policy: Statement is empty!",
                ));
            }
            Json::List(list) => list
                .iter()
                .map(|json| Statement::parse(json, kind, syntax))
                .collect(),
            one => Statement::parse(one, kind, syntax).map(|statement| [statement].into()),
        }?;
        refuse_repeated_sids(&json)?;
        Ok(Policy { statements })
    }
}

impl Statement {
    fn parse(json: &Json, kind: Kind<'_>, syntax: Syntax) -> Result<Statement, PolicyError> {
        const ELEMENTS: [&str; 9] = [
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        let members = Members::of(json, &ELEMENTS)?;
        if !matches!(members.get("Sid"), None | Some(Json::Text(_))) {
            return Err(PolicyError::new("Sid must be a string"));
        }
        let effect = match members.required("Effect")? {
            Json::Text(effect) if effect == "Allow" => Effect::Allow,
            Json::Text(effect) if effect == "Deny" => Effect::Deny,
            Json::Text(other) => return Err(PolicyError::new(format!("Invalid effect: {other}"))),
            _ => return Err(PolicyError::new("Effect must be Allow or Deny")),
        };
        let whom = Whom::parse(&members, kind, effect)?;
        let names = members.listed("Action", "NotAction")?;
        let actions = names.parse(|action| read_action(action))?;
        let texts = members.listed("Resource", "NotResource")?;
        let resources = texts.parse(|resource| read_resource(resource, kind, syntax))?;
        if let (Kind::Bucket(bucket), Listed::These(names), Listed::These(texts)) = (kind, &names, &texts) {
            check_fit(bucket, names, texts)?;
        }
        let conditions = match members.get("Condition") {
            None => Vec::new(),
            Some(block) => Condition::parse_block(block, syntax)?,
        };
        if let (Kind::Bucket(_), Some(unknown)) = (
            kind,
            conditions.iter().find(|condition| !condition.key.is_known()),
        ) {
            let message = format!("Policy has an invalid condition key: {}", unknown.key.name);
            return Err(PolicyError::new(message));
        }
        Ok(Statement {
            effect,
            whom,
            actions,
            resources,
            conditions: conditions.into(),
        })
    }
}

impl Whom {
    fn parse(members: &Members<'_>, kind: Kind<'_>, effect: Effect) -> Result<Whom, PolicyError> {
        match (kind, members.get("Principal"), members.get("NotPrincipal")) {
            (_, Some(_), Some(_)) => Err(PolicyError::new(
                "A statement has Principal or NotPrincipal, not both",
            )),
            (Kind::Identity, None, None) => Ok(Whom::Bearer),
            (Kind::Identity, _, _) => Err(PolicyError::new(
                "The policy of a user names no principal: it is about this user",
            )),
            (Kind::Bucket(_), Some(json), None) => Ok(Whom::These(Principals::parse(json)?)),
            // Whoever is not listed, known or not, now or later: S3 does not take it.
            (Kind::Bucket(_), None, Some(_)) if effect == Effect::Allow => {
                Err(PolicyError::new("Allow with NotPrincipal is not allowed"))
            }
            (Kind::Bucket(_), None, Some(json)) => Ok(Whom::AllBut(Principals::parse(json)?)),
            (Kind::Bucket(_), None, None) => Err(PolicyError::new("Missing required field Principal")),
        }
    }
}

/// The members of an object, all of them known.
struct Members<'a>(&'a [(String, Json)]);

impl<'a> Members<'a> {
    fn of(json: &'a Json, known: &[&str]) -> Result<Members<'a>, PolicyError> {
        let Json::Object(members) = json else {
            return Err(PolicyError::new("Invalid policy syntax."));
        };
        match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Members(members)),
            Some((name, _)) => Err(PolicyError::new(format!("Unknown field {name}"))),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Json> {
        let found = self.0.iter().find(|(present, _)| present == name);
        found.map(|(_, json)| json)
    }

    fn required(&self, name: &str) -> Result<&'a Json, PolicyError> {
        self.get(name)
            .ok_or_else(|| PolicyError::new(format!("Missing required field {name}")))
    }

    /// The texts of an element or of its Not form, one of which must be there.
    fn listed(&self, name: &str, not_name: &str) -> Result<Listed<&'a str>, PolicyError> {
        let list = |name: &str, json| match texts(json) {
            Some(texts) if !texts.is_empty() => Ok(texts.into()),
            _ => Err(PolicyError::new(format!(
                "{name} must be a string, or a list of at least one"
            ))),
        };
        match (self.get(name), self.get(not_name)) {
            (Some(json), None) => Ok(Listed::These(list(name, json)?)),
            (None, Some(json)) => Ok(Listed::AllBut(list(not_name, json)?)),
            (None, None) => Err(PolicyError::new(format!("Missing required field {name}"))),
            (Some(_), Some(_)) => Err(PolicyError::new(format!(
                "A statement has {name} or {not_name}, not both"
            ))),
        }
    }
}

impl<T> Listed<T> {
    fn parse<U>(&self, read: impl Fn(&T) -> Result<U, PolicyError>) -> Result<Listed<U>, PolicyError> {
        let all = |list: &[T]| list.iter().map(&read).collect::<Result<Box<[U]>, _>>();
        Ok(match self {
            Listed::These(list) => Listed::These(all(list)?),
            Listed::AllBut(list) => Listed::AllBut(all(list)?),
        })
    }
}

/// An action has wildcards and no variables, and its case does not matter.
fn read_action(action: &str) -> Result<Pattern, PolicyError> {
    let invalid = || PolicyError::new(format!("Policy has invalid action: {action}"));
    let lower = action.to_ascii_lowercase();
    let is_known = lower == "*" || actions_of(&lower).next().is_some();
    Pattern::parse(&lower, Syntax::Wildcards)
        .filter(|_| is_known)
        .ok_or_else(invalid)
}

/// What the actions are about that fit a pattern in lower case.
fn actions_of(lower: &str) -> impl Iterator<Item = About> {
    let has_service = lower.starts_with("s3:") || lower == "*";
    let fit = move |(name, about): &(&str, About)| {
        (has_service && glob(lower, &name.to_ascii_lowercase())).then_some(*about)
    };
    actions::ACTIONS.iter().filter_map(fit)
}

fn read_resource(resource: &str, kind: Kind<'_>, syntax: Syntax) -> Result<Pattern, PolicyError> {
    let invalid = || PolicyError::new(format!("Policy has invalid resource: {resource}"));
    let is_arn = resource == "*" || (resource.starts_with("arn:") && resource.split(':').count() >= 6);
    let pattern = Pattern::parse(resource, syntax)
        .filter(|_| is_arn)
        .ok_or_else(invalid)?;
    match kind {
        Kind::Identity => Ok(pattern),
        Kind::Bucket(bucket) => match resource == "*" || is_within(&pattern, bucket) {
            true => Ok(pattern),
            false => Err(invalid()),
        },
    }
}

/// Whether a pattern may be about a bucket or what is in it. It is asked about no other, so that a wildcard in its name, which
/// S3 takes, does not matter.
fn is_within(pattern: &Pattern, bucket: &str) -> bool {
    let begin = pattern.beginning();
    let arn = format!("{RESOURCE_BEGIN}{bucket}");
    let has_wildcard = pattern.as_text().is_none() && !pattern.has_variables();
    match begin.strip_prefix(arn.as_str()) {
        Some("") => has_wildcard || pattern.as_text().is_some(),
        Some(rest) => rest.starts_with('/'),
        None => has_wildcard && begin.starts_with(RESOURCE_BEGIN) && arn.starts_with(begin),
    }
}

/// Each statement has an action that can be asked for one of its resources.
fn check_fit(bucket: &str, actions: &[&str], resources: &[&str]) -> Result<(), PolicyError> {
    let bucket_arn = format!("{RESOURCE_BEGIN}{bucket}");
    let has_bucket = resources.iter().any(|resource| glob(resource, &bucket_arn));
    let has_objects = resources.iter().any(|resource| {
        *resource == "*"
            || resource
                .strip_prefix(&bucket_arn)
                .is_some_and(|rest| !rest.is_empty())
            || (resource.ends_with('*') && glob(resource, &format!("{bucket_arn}/x")))
    });
    let fits = actions.iter().all(|action| {
        let lower = action.to_ascii_lowercase();
        actions_of(&lower).any(|about| match about {
            About::Service => false,
            About::Bucket => has_bucket,
            About::Object => has_objects,
        })
    });
    match fits {
        true => Ok(()),
        false => Err(PolicyError::new(
            "Action does not apply to any resource(s) in statement",
        )),
    }
}

fn refuse_repeated_sids(policy: &Json) -> Result<(), PolicyError> {
    let Json::Object(members) = policy else {
        return Ok(());
    };
    let statements = members
        .iter()
        .find(|(name, _)| name == "Statement")
        .map(|(_, json)| json);
    let Some(Json::List(statements)) = statements else {
        return Ok(());
    };
    let mut sids: Vec<&str> = statements.iter().filter_map(sid).collect();
    sids.sort_unstable();
    match sids.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(PolicyError::new(format!(
            "Statement ids must be unique: {} is given twice",
            pair[0]
        ))),
    }
}

fn sid(statement: &Json) -> Option<&str> {
    let Json::Object(members) = statement else {
        return None;
    };
    members
        .iter()
        .find_map(|(name, json)| match (name.as_str(), json) {
            ("Sid", Json::Text(sid)) if !sid.is_empty() => Some(sid.as_str()),
            _ => None,
        })
}

/// One text, or a list of texts.
pub(super) fn texts(json: &Json) -> Option<Vec<&str>> {
    let text = |json: &Json| matches!(json, Json::Text(_));
    match json {
        Json::Text(one) => Some(vec![one]),
        Json::List(list) if list.iter().all(text) => Some(
            list.iter()
                .filter_map(|json| match json {
                    Json::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
        ),
        _ => None,
    }
}

/// One value, or a list: numbers and truth values count as the texts that they are written as.
pub(super) fn scalars(json: &Json) -> Option<Vec<Cow<'_, str>>> {
    let scalar = |json| match json {
        &Json::Bool(value) => Some(Cow::Borrowed(if value { "true" } else { "false" })),
        Json::Number(text) | Json::Text(text) => Some(Cow::Borrowed(text.as_str())),
        Json::Null | Json::List(_) | Json::Object(_) => None,
    };
    match json {
        Json::List(list) => list.iter().map(scalar).collect(),
        one => scalar(one).map(|one| vec![one]),
    }
}
