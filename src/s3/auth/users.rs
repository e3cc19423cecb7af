//! Those who may ask: the root user that the daemon was started with, and the users of its file.
//!
//! A table is whole and never changes: another takes its place. Invariants: an access key is one user's; a secret is in
//! no `Debug`, and leaves only to check a signature.

use super::{Credentials, RootUser};
use crate::policy::{Policy, Principal, Requester};
use ring::digest;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The root user, and all others.
#[derive(Debug)]
pub struct Users {
    root: User,
    anonymous: User,
    by_access_key: HashMap<String, User>,
    /// The user that an account is shown by, by canonical id.
    accounts: HashMap<String, String>,
}

#[derive(Debug)]
pub struct User {
    pub access_key: String,
    pub secret_key: Secret,
    /// In ARNs and in `${aws:username}`.
    pub name: String,
    pub display_name: String,
    /// The canonical id of the account that the user is of.
    pub account: String,
    pub email: Option<String>,
    pub rank: Rank,
    pub policies: Vec<Policy>,
    /// `aws:PrincipalTag/NAME`
    pub tags: BTreeMap<String, String>,
    pub disabled: bool,
}

/// What a user may do without a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// Everything, with what belongs to any account.
    Root,
    /// Everything with what belongs to the user's own account.
    Owner,
    /// Nothing.
    User,
    /// Nothing, and has no account: whoever signs nothing.
    Anonymous,
}

/// A secret key.
pub struct Secret(String);

impl Secret {
    pub fn new(secret: String) -> Secret {
        Secret(secret)
    }

    /// To sign with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Users {
    /// A table of the root user and `others`, whose access keys are all different.
    pub fn new(root: &RootUser, others: Vec<User>) -> Users {
        let root = User {
            access_key: root.access_key.clone(),
            secret_key: Secret::new(root.secret_key.clone()),
            name: "root".to_owned(),
            display_name: root.access_key.clone(),
            account: root_account(&root.access_key),
            email: None,
            rank: Rank::Root,
            policies: Vec::new(),
            tags: BTreeMap::new(),
            disabled: false,
        };
        let mut accounts = HashMap::from([(root.account.clone(), root.access_key.clone())]);
        // An account is known by its owner; without one, by the first of its users.
        for rank in [Rank::Owner, Rank::User] {
            for user in others.iter().filter(|user| user.rank == rank) {
                let shown_by = || user.access_key.clone();
                accounts.entry(user.account.clone()).or_insert_with(shown_by);
            }
        }
        let by_access_key = others.into_iter().map(|user| (user.access_key.clone(), user));
        Users {
            anonymous: User {
                access_key: String::new(),
                secret_key: Secret::new(String::new()),
                name: String::new(),
                display_name: String::new(),
                account: String::new(),
                email: None,
                rank: Rank::Anonymous,
                policies: Vec::new(),
                tags: BTreeMap::new(),
                disabled: true,
            },
            root,
            by_access_key: by_access_key.collect(),
            accounts,
        }
    }

    pub fn root(&self) -> &User {
        &self.root
    }

    /// Whoever signs nothing. No access key finds them.
    pub fn anonymous(&self) -> &User {
        &self.anonymous
    }

    /// How many there are beside the root user.
    pub fn count(&self) -> usize {
        self.by_access_key.len()
    }

    /// The user of an access key, disabled or not.
    pub fn find(&self, access_key: &str) -> Option<&User> {
        match access_key == self.root.access_key {
            true => Some(&self.root),
            false => self.by_access_key.get(access_key),
        }
    }

    /// The user that stands for an account, by its canonical id.
    pub fn of_account(&self, account: &str) -> Option<&User> {
        self.accounts.get(account).and_then(|key| self.find(key))
    }
}

impl Credentials for Users {
    fn secret(&self, access_key: &str) -> Option<&[u8]> {
        let user = self.find(access_key).filter(|user| !user.disabled)?;
        Some(user.secret_key.as_bytes())
    }
}

impl User {
    /// Who asks, in the words of policies.
    pub fn requester(&self) -> Requester<'_> {
        let account = &self.account;
        Requester {
            principal: match self.rank {
                Rank::Anonymous => Principal::Anonymous,
                Rank::Root | Rank::Owner => Principal::Owner { account },
                Rank::User => Principal::User {
                    account,
                    name: &self.name,
                },
            },
            policies: &self.policies,
        }
    }
}

/// The canonical id of the account of the root user that has this access key.
pub fn root_account(access_key: &str) -> String {
    let id = digest::digest(&digest::SHA256, access_key.as_bytes());
    id.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(access_key: &str, account: &str, rank: Rank) -> User {
        User {
            access_key: access_key.to_owned(),
            secret_key: Secret::new("s3cr3t-s3cr3t".to_owned()),
            name: access_key.to_owned(),
            display_name: access_key.to_owned(),
            account: account.to_owned(),
            email: None,
            rank,
            policies: Vec::new(),
            tags: BTreeMap::new(),
            disabled: access_key == "off",
        }
    }

    fn table() -> Users {
        let root = RootUser {
            access_key: "admin".to_owned(),
            secret_key: "s3cr3t-root".to_owned(),
        };
        let others = vec![
            user("a", "one", Rank::User),
            user("b", "one", Rank::Owner),
            user("off", "two", Rank::Owner),
        ];
        Users::new(&root, others)
    }

    #[test]
    fn secrets_are_given_for_keys_that_may_be_used() {
        let users = table();
        assert_eq!(users.secret("admin"), Some(b"s3cr3t-root".as_slice()));
        assert_eq!(users.secret("a"), Some(b"s3cr3t-s3cr3t".as_slice()));
        assert_eq!(users.secret("off"), None);
        assert_eq!(users.secret("nobody"), None);
    }

    #[test]
    fn an_account_is_shown_by_its_owner() {
        let users = table();
        let shown = |account: &str| users.of_account(account).map(|user| user.access_key.clone());
        let shown = |account: &str| shown(account).unwrap_or_default();
        assert_eq!(shown("one"), "b");
        assert_eq!(shown("two"), "off");
        assert_eq!(shown(&root_account("admin")), "admin");
        assert_eq!(shown("three"), "");
    }

    #[test]
    fn no_secret_is_printed() {
        assert!(!format!("{:?}", table()).contains("s3cr3t"));
    }
}
