//! Who is asking, and whom a statement names.
//!
//! An account is whom buckets belong to; it has a canonical id. Its owner may do whatever it may; its users may do what
//! policies say. ARNs name accounts by that id: `arn:aws:iam::ID:root`, `arn:aws:iam::ID:user/NAME`.

use super::document::{Policy, PolicyError, texts};
use super::json::Json;

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal<'a> {
    /// Nobody signed the request.
    Anonymous,
    /// The owner of an account.
    Owner {
        account: &'a str,
    },
    User {
        account: &'a str,
        name: &'a str,
    },
}

/// Who is asking, and what limits them. Whatever comes to limit a request, as the policy of a session, comes here.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub principal: Principal<'a>,
    /// What their own policies allow and deny. The owner of an account needs none that allows.
    pub policies: &'a [Policy],
}

impl<'a> Principal<'a> {
    /// The canonical id of the account that asks.
    pub fn account(&self) -> Option<&'a str> {
        match self {
            Principal::Anonymous => None,
            Principal::Owner { account } | Principal::User { account, .. } => Some(account),
        }
    }

    pub fn arn(&self) -> Option<String> {
        match self {
            Principal::Anonymous => None,
            Principal::Owner { account } => Some(format!("arn:aws:iam::{account}:root")),
            Principal::User { account, name } => Some(format!("arn:aws:iam::{account}:user/{name}")),
        }
    }
}

/// Whom a statement names.
#[derive(Clone, Debug, Default)]
pub struct Principals(Vec<Named>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Everyone,
    /// An account: its owner, and those of its users whom their own policies allow it.
    Account(Box<str>),
    /// Users by account and name; an empty account is any.
    User {
        account: Box<str>,
        name: Box<str>,
    },
    /// An account by its canonical id, for itself alone.
    Canonical(Box<str>),
    /// A service, a role, somebody of another identity provider: nobody who can ask here.
    Absent,
}

/// How a statement names somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    None,
    /// The account: its owner decides who of its users may.
    Account,
    /// Themselves, or everyone.
    Direct,
}

impl Principals {
    pub(super) fn parse(json: &Json) -> Result<Principals, PolicyError> {
        let invalid = || PolicyError::new("Invalid principal in policy");
        match json {
            Json::Text(text) if text == "*" => Ok(Principals(vec![Named::Everyone])),
            Json::Object(kinds) if !kinds.is_empty() => {
                let mut named = Vec::new();
                for (kind, list) in kinds {
                    let list = texts(list).filter(|list| !list.is_empty()).ok_or_else(invalid)?;
                    for text in list {
                        named.push(Named::parse(kind, text).ok_or_else(invalid)?);
                    }
                }
                Ok(Principals(named))
            }
            _ => Err(invalid()),
        }
    }

    pub(super) fn find(&self, principal: &Principal<'_>) -> Match {
        let matches = self.0.iter().map(|named| named.matches(principal));
        matches.max().unwrap_or(Match::None)
    }

    pub(super) fn has_everyone(&self) -> bool {
        self.0.contains(&Named::Everyone)
    }
}

impl Named {
    fn parse(kind: &str, text: &str) -> Option<Named> {
        match kind {
            "AWS" if text == "*" => Some(Named::Everyone),
            "AWS" if !text.contains(':') => is_account(text).then(|| Named::Account(text.into())),
            "AWS" => Named::parse_arn(text),
            "CanonicalUser" => is_account(text).then(|| Named::Canonical(text.into())),
            "Service" | "Federated" if !text.is_empty() => Some(Named::Absent),
            _ => None,
        }
    }

    fn parse_arn(arn: &str) -> Option<Named> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next();
        let (Some("arn"), Some(partition), Some(service), Some(""), Some(account), Some(resource)) =
            (next(), next(), next(), next(), next(), next())
        else {
            return None;
        };
        if !partition.starts_with("aws") || !(account.is_empty() || is_account(account)) {
            return None;
        }
        match (service, resource) {
            ("iam", "root") if !account.is_empty() => Some(Named::Account(account.into())),
            ("iam", _) => match resource.split_once('/')? {
                // The path in front of a name is no part of it.
                ("user", path) => {
                    let name = path.rsplit('/').next()?;
                    if name.is_empty() || name.contains(['*', '?']) {
                        return None;
                    }
                    Some(Named::User {
                        account: account.into(),
                        name: name.into(),
                    })
                }
                ("role", name) if !name.is_empty() => Some(Named::Absent),
                _ => None,
            },
            ("sts", _) if resource.contains('/') => Some(Named::Absent),
            _ => None,
        }
    }

    fn matches(&self, principal: &Principal<'_>) -> Match {
        let direct = |is| if is { Match::Direct } else { Match::None };
        match (self, principal) {
            (Named::Everyone, _) => Match::Direct,
            (Named::Absent, _) | (_, Principal::Anonymous) => Match::None,
            (Named::Account(named), Principal::Owner { account }) => direct(**named == **account),
            (Named::Account(named), Principal::User { account, .. }) => match **named == **account {
                true => Match::Account,
                false => Match::None,
            },
            (Named::Canonical(named), Principal::Owner { account } | Principal::User { account, .. }) => {
                direct(**named == **account)
            }
            (Named::User { .. }, Principal::Owner { .. }) => Match::None,
            (
                Named::User {
                    account: named_account,
                    name: named,
                },
                Principal::User { account, name },
            ) => direct((named_account.is_empty() || **named_account == **account) && **named == **name),
        }
    }
}

/// A canonical id, or an account's number.
fn is_account(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"*?/:\"".contains(&byte))
}
