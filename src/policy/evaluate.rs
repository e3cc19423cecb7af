//! What policies say of a request, and what follows.
//!
//! Source: IAM user guide, "Policy evaluation logic", "Cross-account policy evaluation logic"; S3 user guide, "How Amazon S3
//! authorizes a request" and "The meaning of public".

use super::condition::{Condition, Key, Values};
use super::document::{Effect, Listed, Policy, Statement, Whom};
use super::pattern::Pattern;
use super::principal::{Match, Principal, Requester};
use std::borrow::Cow;

/// What is to be done with what.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `s3:GetObject`
    pub action: &'a str,
    /// `arn:aws:s3:::bucket/key`
    pub resource: &'a str,
}

/// What conditions and variables find in a request.
pub trait Context {
    /// The values of a key: `None` if the request has no such key.
    fn values(&self, key: &Key) -> Option<Values<'_>>;

    /// The value of a key that has one.
    fn one(&self, key: &Key) -> Option<Cow<'_, str>> {
        let mut values = self.values(key)?;
        match values.len() {
            1 => values.pop(),
            _ => None,
        }
    }
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Nothing,
    Allows(Match),
    Denies,
}

/// What all policies together say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One denies: nothing that allows counts.
    pub denied: bool,
    /// The requester's own policies allow it, or they need none.
    pub own_policies_allow: bool,
    /// How the policy of what is asked for allows it.
    pub bucket_policy: Match,
    is_anonymous: bool,
    is_own: bool,
}

/// Evaluates the requester's policies, and the one of a bucket that belongs to the account `owner`. Without an owner it is
/// about what belongs to the requester.
pub fn evaluate(
    requester: &Requester<'_>,
    ask: Ask<'_>,
    owner: Option<&str>,
    bucket_policy: Option<&Policy>,
    context: &impl Context,
) -> Verdict {
    let principal = &requester.principal;
    let mut verdict = Verdict {
        denied: false,
        own_policies_allow: matches!(principal, Principal::Owner { .. }),
        bucket_policy: Match::None,
        is_anonymous: *principal == Principal::Anonymous,
        is_own: principal.account().is_some() && owner.is_none_or(|owner| principal.account() == Some(owner)),
    };
    for policy in requester.policies {
        match policy.says(ask, principal, context) {
            Says::Nothing => {}
            Says::Allows(_) => verdict.own_policies_allow = true,
            Says::Denies => verdict.denied = true,
        }
    }
    match bucket_policy.map_or(Says::Nothing, |policy| policy.says(ask, principal, context)) {
        Says::Nothing => {}
        Says::Allows(how) => verdict.bucket_policy = how,
        Says::Denies => verdict.denied = true,
    }
    verdict
}

impl Verdict {
    /// Whether the request may be served.
    pub fn is_allowed(&self) -> bool {
        if self.denied {
            return false;
        }
        match (self.is_anonymous, self.is_own) {
            (true, _) => self.bucket_policy == Match::Direct,
            (false, true) => self.own_policies_allow || self.bucket_policy == Match::Direct,
            // What belongs to others takes both: theirs to give it, and one's own to take it.
            (false, false) => self.own_policies_allow && self.bucket_policy != Match::None,
        }
    }
}

impl Policy {
    /// What this policy says of a request. Which statement comes first does not matter.
    pub fn says(&self, ask: Ask<'_>, principal: &Principal<'_>, context: &impl Context) -> Says {
        let mut says = Says::Nothing;
        for statement in &self.statements {
            let how = statement.applies(ask, principal, context);
            match (how, statement.effect) {
                (Match::None, _) => {}
                (_, Effect::Deny) => return Says::Denies,
                (how, Effect::Allow) => {
                    says = match says {
                        Says::Allows(before) => Says::Allows(before.max(how)),
                        Says::Nothing | Says::Denies => Says::Allows(how),
                    }
                }
            }
        }
        says
    }
}

impl Statement {
    fn applies(&self, ask: Ask<'_>, principal: &Principal<'_>, context: &impl Context) -> Match {
        let how = match &self.whom {
            Whom::Bearer => Match::Direct,
            Whom::These(principals) => principals.find(principal),
            Whom::AllBut(principals) => match principals.find(principal) {
                Match::None => Match::Direct,
                Match::Account | Match::Direct => Match::None,
            },
        };
        let applies = how != Match::None
            && self.has_action(ask.action, context)
            && self.has_resource(ask.resource, context)
            && self.conditions.iter().all(|condition| condition.holds(context));
        if applies { how } else { Match::None }
    }

    fn has_action(&self, action: &str, context: &impl Context) -> bool {
        let lower = action.to_ascii_lowercase();
        let fits = |pattern: &Pattern| {
            pattern.may_match(&lower) && pattern.resolve(context).is_some_and(|p| p.matches(&lower))
        };
        match &self.actions {
            Listed::These(list) => list.iter().any(fits),
            Listed::AllBut(list) => !list.iter().any(fits),
        }
    }

    fn has_resource(&self, resource: &str, context: &impl Context) -> bool {
        let fits = |pattern: &Pattern| pattern.resolve(context).map(|p| p.matches(resource));
        match &self.resources {
            Listed::These(list) => list
                .iter()
                .any(|pattern| pattern.may_match(resource) && fits(pattern) == Some(true)),
            // Nobody knows what a variable without a value would have left out: an allow says nothing then, and a
            // deny stays.
            Listed::AllBut(list) => list.iter().all(|pattern| match fits(pattern) {
                Some(fits) => !fits,
                None => self.effect == Effect::Deny,
            }),
        }
    }
}

/// Whether a bucket's policy gives something to whoever comes, in S3's sense of the word.
pub fn is_public(policy: &Policy) -> bool {
    policy.statements.iter().any(|statement| {
        let is_for_all = match &statement.whom {
            Whom::Bearer => false,
            Whom::These(principals) => principals.has_everyone(),
            Whom::AllBut(_) => true,
        };
        statement.effect == Effect::Allow && is_for_all && !statement.conditions.iter().any(is_narrow)
    })
}

/// Whether a condition limits a statement to values that are fixed.
fn is_narrow(condition: &Condition) -> bool {
    const FIXING: [&str; 13] = [
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
        "aws:username",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
    ];
    if &*condition.key.name == "aws:sourceip" {
        return condition
            .networks()
            .is_some_and(|networks| !networks.iter().any(|network| network.is_wide()));
    }
    FIXING.contains(&&*condition.key.name)
        && condition
            .limits()
            .is_some_and(|patterns| patterns.iter().all(|pattern| pattern.as_text().is_some()))
}
