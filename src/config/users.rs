//! The file of users: TOML to a table of those who may ask.
//!
//! Read whole and judged whole: one wrong line, and there is no table. Invariants: an error names the line, and never holds a
//! secret (so that a line is never quoted); access keys are one user's each.
//!
//! docs/access.md describes the file for operators.

use super::{is_access_key, is_secret_key};
use crate::limits::{POLICY_BYTES_MAX, USER_POLICIES_MAX, USERS_FILE_BYTES_MAX, USERS_MAX};
use crate::policy::{Kind, Policy};
use crate::s3::auth::{Rank, RootUser, Secret, User, Users, root_account};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Characters of a user's name (IAM user guide, "IAM and AWS STS quotas"), of other texts, and of a canonical id.
const NAME_LENGTH_MAX: usize = 64;
const TEXT_LENGTH_MAX: usize = 256;
const ID_LENGTH_MAX: usize = 128;
/// Tags of a user (ibid.).
const TAGS_MAX: usize = 50;

/// Why a file is no table of users. One line.
#[derive(Debug)]
pub enum UsersError {
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    TooLong {
        path: PathBuf,
    },
    Wrong {
        path: PathBuf,
        line: usize,
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    user: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    access_key: Spanned<String>,
    secret_key: Spanned<String>,
    display_name: Option<Spanned<String>>,
    id: Option<Spanned<String>>,
    email: Option<Spanned<String>>,
    #[serde(default)]
    disabled: bool,
    policies: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    tags: BTreeMap<String, Spanned<String>>,
}

/// Reads the users of a file.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(path: &Path, root: &RootUser) -> Result<Users, UsersError> {
    let failed = |source| UsersError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let length = file
        .take(USERS_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if length as u64 > USERS_FILE_BYTES_MAX {
        return Err(UsersError::TooLong {
            path: path.to_owned(),
        });
    }
    parse(&text, root).map_err(|(at, what)| UsersError::Wrong {
        path: path.to_owned(),
        line: 1 + text[..at.min(text.len())].matches('\n').count(),
        what,
    })
}

/// What is wrong, and at which byte.
type Wrong = (usize, String);

fn parse(text: &str, root: &RootUser) -> Result<Users, Wrong> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, one_line(error.message()))
    })?;
    if document.user.len() > USERS_MAX {
        let at = document.user[USERS_MAX].span().start;
        return Err((at, format!("more than {USERS_MAX} users are too many")));
    }
    let mut seen = Seen::default();
    let mut users = Vec::with_capacity(document.user.len());
    for entry in document.user {
        users.push(entry.into_inner().judge(text, root, &mut seen)?);
    }
    Ok(Users::new(root, users))
}

/// What may be given once.
#[derive(Default)]
struct Seen {
    access_keys: HashSet<String>,
    names: HashSet<(String, String)>,
    emails: HashSet<String>,
}

impl Entry {
    fn judge(self, text: &str, root: &RootUser, seen: &mut Seen) -> Result<User, Wrong> {
        let wrong = |of: &Spanned<String>, what: &str| Err((of.span().start, what.to_owned()));
        if !is_name(self.name.get_ref()) {
            return wrong(
                &self.name,
                "name must have 1 to 64 letters, digits or any of + = , . @ _ -",
            );
        }
        if !is_access_key(self.access_key.get_ref()) {
            return wrong(
                &self.access_key,
                "access_key must have 1 to 128 printable ASCII characters without / , = : and spaces",
            );
        }
        if !is_secret_key(self.secret_key.get_ref()) {
            return wrong(
                &self.secret_key,
                "secret_key must have 8 to 128 characters on one line",
            );
        }
        if let Some(id) = self.id.as_ref().filter(|id| !is_id(id.get_ref())) {
            return wrong(
                id,
                "id must have 1 to 128 printable ASCII characters without * ? / : \" and spaces",
            );
        }
        let texts = [&self.display_name, &self.email].into_iter().flatten();
        for given in texts.chain(self.tags.values()) {
            if given.get_ref().chars().count() > TEXT_LENGTH_MAX || given.get_ref().contains(char::is_control)
            {
                return wrong(given, "a text must have at most 256 characters on one line");
            }
        }
        if self.tags.len() > TAGS_MAX {
            return wrong(&self.name, "a user has at most 50 tags");
        }
        let account = self.account(root);
        let is_known = *self.access_key.get_ref() == root.access_key
            || !seen.access_keys.insert(self.access_key.get_ref().clone());
        if is_known {
            return wrong(&self.access_key, "access_key is that of another user");
        }
        let name = (account.clone(), self.name.get_ref().clone());
        if !seen.names.insert(name) {
            return wrong(&self.name, "name is that of another user of the same account");
        }
        if let Some(email) = &self.email
            && !seen.emails.insert(email.get_ref().to_ascii_lowercase())
        {
            return wrong(email, "email is that of another user");
        }
        let rank = match self.policies {
            None if account != root_account(&root.access_key) => Rank::Owner,
            None | Some(_) => Rank::User,
        };
        let name = self.name.into_inner();
        Ok(User {
            access_key: self.access_key.into_inner(),
            secret_key: Secret::new(self.secret_key.into_inner()),
            display_name: self
                .display_name
                .map_or_else(|| name.clone(), Spanned::into_inner),
            name,
            account,
            email: self.email.map(Spanned::into_inner),
            rank,
            policies: policies(text, self.policies.unwrap_or_default())?,
            tags: self
                .tags
                .into_iter()
                .map(|(name, value)| (name, value.into_inner()))
                .collect(),
            disabled: self.disabled,
        })
    }

    fn account(&self, root: &RootUser) -> String {
        match &self.id {
            Some(id) => id.get_ref().clone(),
            None => root_account(&root.access_key),
        }
    }
}

fn policies(text: &str, given: Vec<Spanned<String>>) -> Result<Vec<Policy>, Wrong> {
    if given.len() > USER_POLICIES_MAX {
        let what =
            format!("a user has at most {USER_POLICIES_MAX} policies, of {POLICY_BYTES_MAX} bytes each");
        return Err((given[USER_POLICIES_MAX].span().start, what));
    }
    let parse = |policy: Spanned<String>| {
        let start = policy.span().start;
        Policy::parse(policy.get_ref(), Kind::Identity).map_err(|error| {
            // The reader of JSON counts the lines of the policy, which begin after the quotes.
            let quotes = match text[start..].starts_with("'''") || text[start..].starts_with("\"\"\"") {
                true => 3,
                false => 1,
            };
            (start + quotes, one_line(&format!("policy: {error}")))
        })
    };
    given.into_iter().map(parse).collect()
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(is_letter)
}

fn is_id(id: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_graphic() && !b"*?/:\"".contains(&byte);
    (1..=ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(is_letter)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsersError::Read { path, source } => {
                write!(f, "the users in {} cannot be read: {source}", path.display())
            }
            UsersError::TooLong { path } => write!(
                f,
                "{} is longer than {} MiB: it is no file of users",
                path.display(),
                USERS_FILE_BYTES_MAX >> 20
            ),
            UsersError::Wrong { path, line, what } => {
                write!(f, "{}, line {line}: {what}", path.display())
            }
        }
    }
}

impl std::error::Error for UsersError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::auth::Credentials;

    fn root() -> RootUser {
        RootUser {
            access_key: "admin".to_owned(),
            secret_key: "long enough".to_owned(),
        }
    }

    fn refusal(text: &str) -> (usize, String) {
        let (at, what) = parse(text, &root()).expect_err("a refusal");
        (1 + text[..at].matches('\n').count(), what)
    }

    const ALICE: &str = "[[user]]\nname = \"alice\"\naccess_key = \"AK\"\nsecret_key = \"s3cr3t-s3cr3t\"\n";

    #[test]
    fn users_are_read_with_all_that_is_said_of_them() {
        let text = format!(
            "{ALICE}policies = ['''\n{{\"Statement\": {{\"Effect\": \"Allow\", \"Action\": \"s3:*\", \"Resource\": \"*\"}}}}''']\n\
             [[user]]\nname = \"bob\"\ndisplay_name = \"Bob\"\naccess_key = \"BK\"\nsecret_key = \"s3cr3t-bob\"\n\
             id = \"testx$id\"\nemail = \"b@example.com\"\ntags = {{ team = \"red\" }}\n\
             [[user]]\nname = \"carol\"\naccess_key = \"CK\"\nsecret_key = \"s3cr3t-carol\"\ndisabled = true\n"
        );
        let users = parse(&text, &root()).expect("users");
        assert_eq!(users.count(), 3);
        let [alice, bob, carol] = ["AK", "BK", "CK"].map(|key| users.find(key).expect("a user"));
        assert_eq!((alice.rank, alice.policies.len()), (Rank::User, 1));
        assert_eq!(alice.account, users.root().account);
        assert_eq!((bob.rank, bob.account.as_str()), (Rank::Owner, "testx$id"));
        assert_eq!(
            (bob.display_name.as_str(), bob.tags["team"].as_str()),
            ("Bob", "red")
        );
        assert_eq!(carol.rank, Rank::User);
        assert!(users.secret("CK").is_none() && users.secret("BK").is_some());
        assert_eq!(parse("", &root()).expect("no users").count(), 0);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_secrets() {
        let with = |line: &str| format!("{ALICE}{line}\n");
        for (text, line, what) in [
            (with("colour = 1"), 5, "colour"),
            (with("name = \"other\""), 5, "duplicate key"),
            (with("id = \"a b\""), 5, "id must"),
            (with("policies = ['{}']"), 5, "Statement"),
            (with("policies = ['''\n{\n]'''\n]"), 5, "Json"),
            (ALICE.replace("alice", "al ice"), 2, "name must"),
            (ALICE.replace("\"AK\"", "\"A K\""), 3, "access_key must"),
            (ALICE.replace("\"AK\"", "\"admin\""), 3, "another user"),
            (ALICE.replace("s3cr3t-s3cr3t", "s3cr3t"), 4, "secret_key must"),
            (ALICE.replace("s3cr3t-s3cr3t\"", "s3cr3t-s3cr3t"), 4, ""),
            (ALICE.replace("\"s3cr3t-s3cr3t\"", "['s3cr3t-s3cr3t']"), 4, ""),
            (format!("{ALICE}{ALICE}"), 7, "another user"),
            (format!("{ALICE}{}", ALICE.replace("AK", "BK")), 6, "same account"),
            ("[[user]]\nname = \"a\"\n".to_owned(), 1, "access_key"),
            ("users = 1".to_owned(), 1, "users"),
        ] {
            let (at, told) = refusal(&text);
            assert_eq!(at, line, "{text}: {told}");
            assert!(told.contains(what), "{text}: {told}");
            assert!(!told.contains("s3cr3t") && !told.contains('\n'), "{told}");
        }
    }
}
