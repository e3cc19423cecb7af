//! Access policies in the language of IAM: read strictly, and evaluated.
//!
//! [`Policy::parse`] reads a document, [`evaluate`] says what one or several say of a request. Nothing here knows how a
//! request came or where a policy is kept: values that conditions ask for come through [`Context`].
//!
//! Invariants: what is not understood is refused when it is read, never passed over when it is evaluated; an explicit
//! deny wins over every allow, whatever the order; a variable without a value makes an allow say nothing and keeps a
//! deny in force. No recursion on input but in the reader of JSON, which bounds it.
//!
//! Source: IAM user guide, "IAM JSON policy elements reference" and "Policy evaluation logic"; S3 user guide,
//! "Bucket policies for Amazon S3".

pub mod actions;
mod condition;
mod date;
mod document;
mod evaluate;
mod json;
mod pattern;
mod principal;

pub use condition::{Key, Values};
pub use document::{Kind, Policy, PolicyError};
pub use evaluate::{Ask, Context, Says, Verdict, evaluate, is_public};
pub use principal::{Principal, Requester};
