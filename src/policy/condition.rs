//! Conditions: `"StringLike": {"s3:prefix": ["home/*", "shared/"]}`.
//!
//! A block holds if every operator holds for every one of its keys. A key holds if one of its values fits, or with a negated
//! operator if none does. Invariant: a value of the wrong form is refused when the policy is read; a value of the wrong
//! form in a request fits nothing.
//!
//! Source: IAM user guide, "IAM JSON policy elements: Condition operators" and "Multivalued context keys".

use super::date;
use super::document::{PolicyError, scalars};
use super::evaluate::Context;
use super::json::Json;
use super::pattern::{Pattern, Syntax};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

/// A key of the request: `aws:SourceIp`, `s3:ExistingObjectTag/team`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// In lower case, without what follows the slash.
    pub name: Box<str>,
    /// What follows the slash, as written.
    pub argument: Option<Box<str>>,
}

/// The values of a key in a request: most have one.
pub type Values<'a> = Vec<Cow<'a, str>>;

/// The keys that S3 and IAM document for requests to S3, in lower case and in order. Those that take an argument end in `/`.
const KNOWN: [&str; 73] = [
    "aws:calledvia",
    "aws:currenttime",
    "aws:epochtime",
    "aws:multifactorauthage",
    "aws:multifactorauthpresent",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalisawsservice",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:principaltag/",
    "aws:principaltype",
    "aws:referer",
    "aws:requestedregion",
    "aws:requesttag/",
    "aws:resourceaccount",
    "aws:resourcetag/",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceip",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:tagkeys",
    "aws:tokenissuetime",
    "aws:useragent",
    "aws:userid",
    "aws:username",
    "aws:viaawsservice",
    "aws:vpcsourceip",
    "s3:accessgrantsinstancearn",
    "s3:accesspointnetworkorigin",
    "s3:authtype",
    "s3:dataaccesspointaccount",
    "s3:dataaccesspointarn",
    "s3:delimiter",
    "s3:existingjoboperation",
    "s3:existingobjecttag/",
    "s3:if-match",
    "s3:if-none-match",
    "s3:inventoryaccessibleoptionalfields",
    "s3:jobsuspendedcause",
    "s3:locationconstraint",
    "s3:max-keys",
    "s3:object-lock-legal-hold",
    "s3:object-lock-mode",
    "s3:object-lock-remaining-retention-days",
    "s3:object-lock-retain-until-date",
    "s3:objectcreationoperation",
    "s3:prefix",
    "s3:requestobjecttag/",
    "s3:requestobjecttagkeys",
    "s3:resourceaccount",
    "s3:signatureage",
    "s3:signatureversion",
    "s3:tlsversion",
    "s3:versionid",
    "s3:x-amz-acl",
    "s3:x-amz-content-sha256",
    "s3:x-amz-copy-source",
    "s3:x-amz-grant-full-control",
    "s3:x-amz-grant-read",
    "s3:x-amz-grant-read-acp",
    "s3:x-amz-grant-write",
    "s3:x-amz-grant-write-acp",
    "s3:x-amz-metadata-directive",
    "s3:x-amz-object-ownership",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
    "s3:x-amz-storage-class",
    "s3:x-amz-website-redirect-location",
];

impl Key {
    /// Reads a key; `None` if it has no service or no name.
    pub fn parse(text: &str) -> Option<Key> {
        let (name, argument) = match text.split_once('/') {
            None => (text, None),
            Some((name, argument)) => (name, Some(argument.into())),
        };
        let (service, rest) = name.split_once(':')?;
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_key = is_name(service) && is_name(rest) && argument.as_deref() != Some("");
        is_key.then(|| Key {
            name: name.to_ascii_lowercase().into(),
            argument,
        })
    }

    /// Whether requests to S3 may have it.
    pub fn is_known(&self) -> bool {
        let name = match self.argument {
            Some(_) => Cow::Owned(format!("{}/", self.name)),
            None => Cow::Borrowed(&*self.name),
        };
        KNOWN.binary_search(&&*name).is_ok()
    }
}

/// One operator with one key, and the values that it is held against.
#[derive(Clone, Debug)]
pub struct Condition {
    set: Set,
    if_exists: bool,
    pub(super) key: Key,
    test: Test,
    pub(super) negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// The key has one value.
    One,
    ForAll,
    ForAny,
}

/// Which values fit.
#[derive(Clone, Debug)]
enum Test {
    Text(Vec<Pattern>),
    TextIgnoringCase(Vec<Pattern>),
    Arn(Vec<Pattern>),
    Number(Vec<f64>, Order),
    Date(Vec<i64>, Order),
    Bool(Vec<bool>),
    Binary(Vec<Vec<u8>>),
    Ip(Vec<Network>),
    /// Whether the key is absent.
    Null(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What an operator's name says.
#[derive(Clone, Copy)]
enum Form {
    Text,
    TextIgnoringCase,
    TextLike,
    Arn,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Null,
}

impl Condition {
    /// Reads a `Condition` element.
    pub(super) fn parse_block(block: &Json, syntax: Syntax) -> Result<Vec<Condition>, PolicyError> {
        let Json::Object(operators) = block else {
            return Err(PolicyError::new("Condition must be an object of operators"));
        };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let Json::Object(keys) = keys else {
                let message = format!("The condition {operator} must be an object of keys");
                return Err(PolicyError::new(message));
            };
            for (key, values) in keys {
                conditions.push(Condition::parse(operator, key, values, syntax)?);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, values: &Json, syntax: Syntax) -> Result<Condition, PolicyError> {
        let invalid_operator =
            || PolicyError::new(format!("Policy has an invalid condition operator: {operator}"));
        let (set, name) = match operator.split_once(':') {
            None => (Set::One, operator),
            Some(("ForAllValues", name)) => (Set::ForAll, name),
            Some(("ForAnyValue", name)) => (Set::ForAny, name),
            Some(_) => return Err(invalid_operator()),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            None => (name, false),
            Some(name) => (name, true),
        };
        let (form, negated) = form(name).ok_or_else(invalid_operator)?;
        if matches!(form, Form::Null) && (if_exists || set != Set::One) {
            return Err(invalid_operator());
        }
        let parsed = Key::parse(key)
            .ok_or_else(|| PolicyError::new(format!("Policy has an invalid condition key: {key}")))?;
        let values = scalars(values)
            .filter(|values| !values.is_empty())
            .ok_or_else(|| PolicyError::new(format!("The condition {operator} of {key} has no values")))?;
        let invalid_value = || {
            PolicyError::new(format!(
                "Policy has an invalid value in the condition {operator} of {key}"
            ))
        };
        let test = Test::parse(form, &values, syntax).ok_or_else(invalid_value)?;
        Ok(Condition {
            set,
            if_exists,
            key: parsed,
            test,
            negated,
        })
    }

    pub(super) fn holds(&self, context: &impl Context) -> bool {
        let values = context.values(&self.key);
        if let Test::Null(absent) = self.test {
            return values.is_none() == absent;
        }
        let Some(values) = values else {
            return match self.set {
                Set::One => self.if_exists || self.negated,
                Set::ForAll => true,
                Set::ForAny => self.if_exists,
            };
        };
        let mut fits = values.iter().map(|value| self.test.fits(value, context));
        match (self.set, self.negated) {
            (Set::One, false) => fits.any(|fits| fits),
            (Set::One, true) => !fits.any(|fits| fits),
            (Set::ForAll, negated) => fits.all(|fits| fits != negated),
            (Set::ForAny, negated) => fits.any(|fits| fits != negated),
        }
    }

    /// The texts of a positive comparison that have no variable in them: what the key is limited to, if it is.
    pub(super) fn limits(&self) -> Option<&[Pattern]> {
        let is_plain = !self.negated && !self.if_exists && self.set != Set::ForAll;
        match &self.test {
            Test::Text(patterns) | Test::Arn(patterns) if is_plain => Some(patterns),
            _ => None,
        }
    }

    /// The narrowest network of each value, if it is a positive one: its prefix in bits, of the address's.
    pub(super) fn networks(&self) -> Option<&[Network]> {
        match &self.test {
            Test::Ip(networks) if !self.negated && !self.if_exists && self.set != Set::ForAll => {
                Some(networks)
            }
            _ => None,
        }
    }
}

/// What an operator compares, and whether it is the negation.
fn form(name: &str) -> Option<(Form, bool)> {
    use Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    Some(match name {
        "StringEquals" => (Form::Text, false),
        "StringNotEquals" => (Form::Text, true),
        "StringEqualsIgnoreCase" => (Form::TextIgnoringCase, false),
        "StringNotEqualsIgnoreCase" => (Form::TextIgnoringCase, true),
        "StringLike" => (Form::TextLike, false),
        "StringNotLike" => (Form::TextLike, true),
        "ArnEquals" | "ArnLike" => (Form::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Form::Arn, true),
        "NumericEquals" => (Form::Number(Equal), false),
        "NumericNotEquals" => (Form::Number(Equal), true),
        "NumericLessThan" => (Form::Number(Less), false),
        "NumericLessThanEquals" => (Form::Number(LessOrEqual), false),
        "NumericGreaterThan" => (Form::Number(Greater), false),
        "NumericGreaterThanEquals" => (Form::Number(GreaterOrEqual), false),
        "DateEquals" => (Form::Date(Equal), false),
        "DateNotEquals" => (Form::Date(Equal), true),
        "DateLessThan" => (Form::Date(Less), false),
        "DateLessThanEquals" => (Form::Date(LessOrEqual), false),
        "DateGreaterThan" => (Form::Date(Greater), false),
        "DateGreaterThanEquals" => (Form::Date(GreaterOrEqual), false),
        "Bool" => (Form::Bool, false),
        "BinaryEquals" => (Form::Binary, false),
        "IpAddress" => (Form::Ip, false),
        "NotIpAddress" => (Form::Ip, true),
        "Null" => (Form::Null, false),
        _ => return None,
    })
}

impl Test {
    fn parse(form: Form, values: &[Cow<'_, str>], syntax: Syntax) -> Option<Test> {
        let patterns = |syntax| {
            let parse = |value: &Cow<'_, str>| Pattern::parse(value, syntax);
            values.iter().map(parse).collect::<Option<Vec<_>>>()
        };
        Some(match form {
            Form::Text => Test::Text(patterns(syntax.literal())?),
            Form::TextIgnoringCase => Test::TextIgnoringCase(patterns(syntax.literal())?),
            Form::TextLike => Test::Text(patterns(syntax)?),
            Form::Arn => Test::Arn(patterns(syntax)?),
            Form::Number(order) => Test::Number(
                values.iter().map(|value| number(value)).collect::<Option<_>>()?,
                order,
            ),
            Form::Date(order) => Test::Date(
                values
                    .iter()
                    .map(|value| date::parse(value))
                    .collect::<Option<_>>()?,
                order,
            ),
            Form::Bool => Test::Bool(values.iter().map(|value| boolean(value)).collect::<Option<_>>()?),
            Form::Binary => {
                let decode = |value: &Cow<'_, str>| STANDARD.decode(value.as_bytes()).ok();
                Test::Binary(values.iter().map(decode).collect::<Option<_>>()?)
            }
            Form::Ip => Test::Ip(
                values
                    .iter()
                    .map(|value| Network::parse(value))
                    .collect::<Option<_>>()?,
            ),
            Form::Null => match values {
                [value] => Test::Null(boolean(value)?),
                _ => return None,
            },
        })
    }

    fn fits(&self, value: &str, context: &impl Context) -> bool {
        let any = |patterns: &[Pattern], fits: fn(&super::pattern::Resolved, &str) -> bool| {
            let mut resolved = patterns.iter().filter_map(|pattern| pattern.resolve(context));
            resolved.any(|pattern| fits(&pattern, value))
        };
        match self {
            Test::Text(patterns) => any(patterns, |pattern, value| pattern.matches(value)),
            Test::TextIgnoringCase(patterns) => {
                any(patterns, |pattern, value| pattern.matches_ignoring_case(value))
            }
            Test::Arn(patterns) => any(patterns, |pattern, value| pattern.matches_arn(value)),
            Test::Number(numbers, order) => number(value).is_some_and(|value| {
                numbers
                    .iter()
                    .any(|number| value.partial_cmp(number).is_some_and(|is| order.has(is)))
            }),
            Test::Date(dates, order) => {
                date::parse(value).is_some_and(|value| dates.iter().any(|date| order.has(value.cmp(date))))
            }
            Test::Bool(values) => boolean(value).is_some_and(|value| values.contains(&value)),
            Test::Binary(values) => STANDARD.decode(value).is_ok_and(|value| values.contains(&value)),
            Test::Ip(networks) => value
                .parse()
                .is_ok_and(|address| networks.iter().any(|network| network.has(address))),
            Test::Null(_) => false,
        }
    }
}

impl Order {
    fn has(self, is: Ordering) -> bool {
        match self {
            Order::Equal => is.is_eq(),
            Order::Less => is.is_lt(),
            Order::LessOrEqual => is.is_le(),
            Order::Greater => is.is_gt(),
            Order::GreaterOrEqual => is.is_ge(),
        }
    }
}

/// Addresses that have their first bits in common: `203.0.113.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        (bits <= most).then_some(Network { address, bits })
    }

    /// An IPv4 address in IPv6's form is one of IPv4.
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = u32::from(network) ^ u32::from(address);
                differ.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = u128::from(network) ^ u128::from(address);
                differ.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it has so many addresses that whoever wrote it meant everyone: S3's bounds, /8 and /32.
    pub(super) fn is_wide(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.bits < 8,
            IpAddr::V6(_) => self.bits < 32,
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse()
        .ok()
        .filter(|number: &f64| is_number && number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_sorted() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn networks_have_their_addresses() {
        for (network, address, expected) in [
            ("203.0.113.0/24", "203.0.113.9", true),
            ("203.0.113.0/24", "::ffff:203.0.113.9", true),
            ("203.0.113.0/24", "203.0.114.9", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(
                network.has(address.parse().unwrap()),
                expected,
                "{network:?} {address}"
            );
        }
        for text in ["", "1.2.3.4/33", "::/129", "1.2.3/8", "1.2.3.4/", "1.2.3.4/+8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
