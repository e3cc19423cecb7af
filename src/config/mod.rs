//! What was given, on the command line and in the environment, becomes what is valid.
//!
//! [`flags`] reads what was typed into a [`RawConfig`] of plain text; [`Config::from_raw`] is the one place
//! that judges it, so behind it no address is missing and no size is a word.
//!
//! Invariant: the well-known credentials are only ever used while every listener is on loopback. A secret
//! is in no error and no output, and nothing here prints a [`Config`].

mod cores;
mod days;
pub mod flags;
mod format;
mod size;
pub mod target;
pub mod users;

pub use format::{Format, RawFormat};

use crate::io::uring::{Access, CoreChoice};
use crate::limits::{DISK_TIMEOUT, DISK_TIMEOUT_S_MAX, LISTENERS_MAX};
use crate::s3::auth::{RootUser, Users};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use users::UsersError;

/// The credentials of the tutorial, for loopback alone.
const DEFAULT_ACCESS_KEY: &str = "rustfsadmin";
const DEFAULT_SECRET_KEY: &str = "rustfssecret";
const DEFAULT_LISTEN: &str = "127.0.0.1:9000";
/// Characters of an access key and of a secret key.
const ACCESS_KEY_LENGTH: std::ops::RangeInclusive<usize> = 1..=128;
const SECRET_KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=128;
/// Characters of a domain name (RFC 1035 2.3.4) and of one of its labels.
const DOMAIN_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// What was given, as it was given. An empty text counts as not given.
#[derive(Default)]
pub struct RawConfig {
    pub data: Vec<PathBuf>,
    pub degraded: bool,
    pub listen: Vec<String>,
    pub admin_listen: Option<String>,
    pub cores: Option<String>,
    pub capacity: Option<String>,
    pub memory: Option<String>,
    pub scrub_rate: Option<String>,
    pub domain: Option<String>,
    pub disk_timeout: Option<String>,
    pub abort_uploads_after: Option<String>,
    pub accept_damage: bool,
    pub users: Option<PathBuf>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

/// What a daemon runs by.
pub struct Config {
    /// Directories and block devices, at least one.
    pub data: Vec<PathBuf>,
    pub access: Access,
    /// At least one, at most `LISTENERS_MAX`.
    pub listen: Vec<SocketAddr>,
    /// Where metrics are served, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    pub cores: CoreChoice,
    /// Bytes of each volume; without it the volume decides.
    pub capacity_bytes: Option<u64>,
    /// Bytes; without it the machine decides.
    pub memory_bytes: Option<u64>,
    /// What the scrub of all cores reads; 0 for nothing, without it the volumes decide.
    pub scrub_bytes_per_s: Option<u64>,
    /// In lower case.
    pub domain: Option<String>,
    /// A disk operation that has not returned for so long fails.
    pub disk_timeout: Duration,
    /// Uploads that began longer ago are ended; without it none is.
    pub abort_uploads_after: Option<Duration>,
    /// What is lost is given up.
    pub accept_damage: bool,
    pub root: RootUser,
    /// The root user among them.
    pub users: Users,
    /// Where the others come from, now and when the daemon is told to read them again.
    pub users_file: Option<PathBuf>,
}

/// Why what was given is not valid. Each is one line that says what to give.
#[derive(Debug)]
pub enum ConfigError {
    NoData,
    Listen {
        given: String,
    },
    TooManyListeners {
        given: usize,
    },
    /// Two listeners would want the same port of the same address.
    SameAddress {
        one: SocketAddr,
        other: SocketAddr,
    },
    Cores {
        given: String,
    },
    Size {
        flag: &'static str,
        given: String,
    },
    ScrubRate {
        given: String,
    },
    Domain {
        given: String,
    },
    DiskTimeout {
        given: String,
    },
    Days {
        given: String,
    },
    /// Nothing that `weft inspect` can show.
    Target {
        given: String,
    },
    HalfOfCredentials {
        missing: &'static str,
    },
    AccessKey,
    SecretKey,
    Users(UsersError),
    /// The well-known credentials, and a listener that others can reach.
    DefaultCredentials {
        listen: SocketAddr,
    },
}

impl Config {
    /// Judges what was given.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_raw(raw: RawConfig) -> Result<Config, ConfigError> {
        let data: Vec<PathBuf> = raw
            .data
            .into_iter()
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if data.is_empty() {
            return Err(ConfigError::NoData);
        }
        let listen = listeners(&raw.listen)?;
        let admin_listen = given(&raw.admin_listen).map(address).transpose()?;
        refuse_same(&listen, admin_listen)?;
        let cores = match given(&raw.cores) {
            None => CoreChoice::All,
            Some(text) => cores::parse(text).ok_or_else(|| ConfigError::Cores {
                given: text.to_owned(),
            })?,
        };
        let capacity_bytes = size_of("--capacity", &raw.capacity)?;
        let memory_bytes = size_of("--memory", &raw.memory)?;
        let domain = given(&raw.domain).map(domain).transpose()?;
        let abort_uploads_after = match given(&raw.abort_uploads_after) {
            None => None,
            Some(text) => Some(days::parse(text).ok_or_else(|| ConfigError::Days {
                given: text.to_owned(),
            })?),
        };
        let scrub_bytes_per_s = given(&raw.scrub_rate).map(scrub_rate).transpose()?;
        let disk_timeout = given(&raw.disk_timeout).map(disk_timeout).transpose()?;
        let root = root_user(given(&raw.access_key), given(&raw.secret_key))?;
        let reachable = listen.iter().find(|address| !is_loopback(address.ip()));
        if let Some(&listen) = reachable
            && root.secret_key == DEFAULT_SECRET_KEY
        {
            return Err(ConfigError::DefaultCredentials { listen });
        }
        let users_file = raw.users.filter(|path| !path.as_os_str().is_empty());
        let users = match &users_file {
            None => Users::new(&root, Vec::new()),
            Some(path) => users::read(path, &root).map_err(ConfigError::Users)?,
        };
        Ok(Config {
            data,
            access: if raw.degraded {
                Access::Degraded
            } else {
                Access::Whole
            },
            listen,
            admin_listen,
            cores,
            capacity_bytes,
            memory_bytes,
            domain,
            scrub_bytes_per_s,
            disk_timeout: disk_timeout.unwrap_or(DISK_TIMEOUT),
            abort_uploads_after,
            accept_damage: raw.accept_damage,
            root,
            users,
            users_file,
        })
    }
}

fn size_of(flag: &'static str, text: &Option<String>) -> Result<Option<u64>, ConfigError> {
    let parse = |text: &str| {
        size::parse(text).ok_or_else(|| ConfigError::Size {
            flag,
            given: text.to_owned(),
        })
    };
    given(text).map(parse).transpose()
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn listeners(texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let texts: Vec<&str> = texts
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    if texts.len() > LISTENERS_MAX {
        return Err(ConfigError::TooManyListeners { given: texts.len() });
    }
    let texts = if texts.is_empty() {
        vec![DEFAULT_LISTEN]
    } else {
        texts
    };
    texts.into_iter().map(address).collect()
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError::Listen {
        given: text.to_owned(),
    })
}

/// Binding both would fail on the second, and say that somebody else is there.
fn refuse_same(listen: &[SocketAddr], admin_listen: Option<SocketAddr>) -> Result<(), ConfigError> {
    let all: Vec<SocketAddr> = listen.iter().copied().chain(admin_listen).collect();
    for (at, &other) in all.iter().enumerate() {
        if let Some(&one) = all[..at].iter().find(|one| are_same(**one, other)) {
            return Err(ConfigError::SameAddress { one, other });
        }
    }
    Ok(())
}

/// Whether a connection could be meant for either. With port 0 each gets a port of its own.
fn are_same(one: SocketAddr, other: SocketAddr) -> bool {
    let takes_all_of = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0
        && one.port() == other.port()
        && (one_ip == other_ip || takes_all_of(one_ip, other_ip) || takes_all_of(other_ip, one_ip))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Letters, digits and hyphens in labels; the port is not part of it, since clients send any.
fn domain(text: &str) -> Result<String, ConfigError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_LENGTH_MAX
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.len() > DOMAIN_LENGTH_MAX || !text.split('.').all(label) {
        return Err(ConfigError::Domain {
            given: text.to_owned(),
        });
    }
    Ok(text.to_ascii_lowercase())
}

/// Bytes a second; a bare 0 has no unit.
fn scrub_rate(text: &str) -> Result<u64, ConfigError> {
    let rate = if text == "0" { Some(0) } else { size::parse(text) };
    rate.ok_or_else(|| ConfigError::ScrubRate {
        given: text.to_owned(),
    })
}

fn disk_timeout(text: &str) -> Result<Duration, ConfigError> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (1..=DISK_TIMEOUT_S_MAX).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| ConfigError::DiskTimeout {
            given: text.to_owned(),
        })
}

fn root_user(access_key: Option<&str>, secret_key: Option<&str>) -> Result<RootUser, ConfigError> {
    let (access_key, secret_key) = match (access_key, secret_key) {
        (None, None) => (DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY),
        (Some(access_key), Some(secret_key)) => (access_key, secret_key),
        (Some(_), None) => {
            return Err(ConfigError::HalfOfCredentials {
                missing: flags::SECRET_KEY_VARIABLE,
            });
        }
        (None, Some(_)) => {
            return Err(ConfigError::HalfOfCredentials {
                missing: flags::ACCESS_KEY_VARIABLE,
            });
        }
    };
    if !is_access_key(access_key) {
        return Err(ConfigError::AccessKey);
    }
    if !is_secret_key(secret_key) {
        return Err(ConfigError::SecretKey);
    }
    Ok(RootUser {
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
    })
}

fn is_access_key(access_key: &str) -> bool {
    // The others end the access key where clients write it: `Credential=KEY/20260101/..., SignedHeaders=...`.
    let is_key_byte = |byte: u8| byte.is_ascii_graphic() && !b"/,=:".contains(&byte);
    ACCESS_KEY_LENGTH.contains(&access_key.len()) && access_key.bytes().all(is_key_byte)
}

fn is_secret_key(secret_key: &str) -> bool {
    SECRET_KEY_LENGTH.contains(&secret_key.len()) && !secret_key.bytes().any(|byte| byte.is_ascii_control())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::NoData => write!(f, "no data directory is given: give --data DIR"),
            ConfigError::Listen { given } => write!(
                f,
                "{given:?} is no address to listen on: give --listen or --admin-listen ADDR:PORT, as 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000"
            ),
            ConfigError::TooManyListeners { given } => {
                write!(
                    f,
                    "{given} addresses to listen on are too many: give at most {LISTENERS_MAX}"
                )
            }
            ConfigError::SameAddress { one, other } if one == other => write!(
                f,
                "{one} is given twice: give each --listen and --admin-listen an address or a port of its own"
            ),
            ConfigError::SameAddress { one, other } => write!(
                f,
                "{one} and {other} have a port in common: give each --listen and --admin-listen one of its own"
            ),
            ConfigError::Cores { given } => write!(
                f,
                "{given:?} says no cores: give --cores a number, as 4, or a list of CPUs, as 0,2 or 0-3,8-11"
            ),
            ConfigError::Size { flag, given } => write!(
                f,
                "{given:?} is no size: give {flag} a whole number and KiB, MiB, GiB, TiB or PiB, as 512MiB or 2TiB"
            ),
            ConfigError::ScrubRate { given } => write!(
                f,
                "{given:?} is no rate: give --scrub-rate a size to read each second, as 512KiB or 10MiB, or 0 for none"
            ),
            ConfigError::Domain { given } => {
                write!(
                    f,
                    "{given:?} is no domain name: give --domain a name without a port, as s3.example.com"
                )
            }
            ConfigError::DiskTimeout { given } => write!(
                f,
                "{given:?} is no time for the disk: give --disk-timeout whole seconds from 1 to {DISK_TIMEOUT_S_MAX}, as 30"
            ),
            ConfigError::Days { given } => write!(
                f,
                "{given:?} is no number of days: give --abort-uploads-after a number greater than 0, as 7 or 0.5"
            ),
            ConfigError::Target { given } => write!(
                f,
                "{given:?} names nothing to inspect: give --segment 0000001a, --record 0000001a:8256, or --key BUCKET/KEY"
            ),
            ConfigError::HalfOfCredentials { missing } => {
                write!(f, "half of the credentials is missing: set {missing} too")
            }
            ConfigError::AccessKey => write!(
                f,
                "{} must have 1 to 128 printable ASCII characters without / , = : and spaces",
                flags::ACCESS_KEY_VARIABLE
            ),
            ConfigError::SecretKey => {
                write!(
                    f,
                    "{} must have 8 to 128 characters on one line",
                    flags::SECRET_KEY_VARIABLE
                )
            }
            ConfigError::Users(error) => error.fmt(f),
            ConfigError::DefaultCredentials { listen } => write!(
                f,
                "{listen} can be reached from other machines, so the default credentials are refused: set {} and {}",
                flags::ACCESS_KEY_VARIABLE,
                flags::SECRET_KEY_VARIABLE
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(listen: &[&str]) -> RawConfig {
        RawConfig {
            data: vec![PathBuf::from("data")],
            listen: listen.iter().map(|&text| text.to_owned()).collect(),
            ..RawConfig::default()
        }
    }

    impl PartialEq for ConfigError {
        fn eq(&self, other: &ConfigError) -> bool {
            format!("{self:?}") == format!("{other:?}")
        }
    }

    fn refusal(raw: RawConfig) -> ConfigError {
        Config::from_raw(raw).err().expect("a refusal")
    }

    fn with_keys(listen: &str, access_key: &str, secret_key: &str) -> RawConfig {
        RawConfig {
            access_key: Some(access_key.into()),
            secret_key: Some(secret_key.into()),
            ..raw(&[listen])
        }
    }

    #[test]
    fn what_is_not_given_has_a_default_and_empty_is_not_given() {
        let empty = RawConfig {
            cores: Some(String::new()),
            admin_listen: Some(String::new()),
            capacity: Some(String::new()),
            domain: Some(String::new()),
            access_key: Some(String::new()),
            secret_key: Some(String::new()),
            ..raw(&[""])
        };
        for raw in [raw(&[]), empty] {
            let config = Config::from_raw(raw).expect("valid");
            assert_eq!(config.listen, [DEFAULT_LISTEN.parse().unwrap()]);
            assert_eq!(config.cores, CoreChoice::All);
            assert_eq!(config.admin_listen, None);
            assert_eq!((config.capacity_bytes, config.domain), (None, None));
            assert_eq!(config.root.access_key, DEFAULT_ACCESS_KEY);
        }
        assert_eq!(refusal(RawConfig::default()), ConfigError::NoData);
    }

    #[test]
    fn default_credentials_are_for_loopback_alone() {
        for listen in [
            "127.0.0.1:9000",
            "127.8.9.1:1",
            "[::1]:9000",
            "[::ffff:127.0.0.1]:9000",
        ] {
            assert!(Config::from_raw(raw(&[listen])).is_ok(), "{listen}");
        }
        for listen in [
            "0.0.0.0:9000",
            "[::]:9000",
            "192.168.1.2:9000",
            "[::ffff:10.0.0.1]:1",
        ] {
            let expected = ConfigError::DefaultCredentials {
                listen: listen.parse().unwrap(),
            };
            assert_eq!(refusal(raw(&["127.0.0.1:9009", listen])), expected);
            assert_eq!(
                refusal(with_keys(listen, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY)),
                expected
            );
            assert!(Config::from_raw(with_keys(listen, "someone", "something else")).is_ok());
        }
    }

    #[test]
    fn a_refusal_says_what_to_set_and_never_the_secret() {
        let text = refusal(raw(&["0.0.0.0:9000"])).to_string();
        assert!(
            text.contains("WEFT_ACCESS_KEY") && text.contains("WEFT_SECRET_KEY"),
            "{text}"
        );
        for (access_key, secret_key) in [
            ("m=e", "s3cr3t-s3cr3t"),
            ("someone", "s3cr3t"),
            ("a/b", "s3cr3t-s3cr3t"),
        ] {
            let text = refusal(with_keys(DEFAULT_LISTEN, access_key, secret_key)).to_string();
            assert!(!text.contains("s3cr3t") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn credentials_come_together() {
        let half = RawConfig {
            access_key: Some("someone".into()),
            ..raw(&[])
        };
        assert_eq!(
            refusal(half),
            ConfigError::HalfOfCredentials {
                missing: "WEFT_SECRET_KEY"
            }
        );
        let half = RawConfig {
            secret_key: Some("something".into()),
            ..raw(&[])
        };
        assert_eq!(
            refusal(half),
            ConfigError::HalfOfCredentials {
                missing: "WEFT_ACCESS_KEY"
            }
        );
    }

    #[test]
    fn keys_that_no_client_could_send_are_refused() {
        for access_key in ["a b c", "a/b", "a,b", "a=b", "clé", "a\nb", &"a".repeat(129)] {
            assert_eq!(
                refusal(with_keys(DEFAULT_LISTEN, access_key, "long enough")),
                ConfigError::AccessKey
            );
        }
        for secret_key in ["1234567", "12345678\n", &"a".repeat(129)] {
            assert_eq!(
                refusal(with_keys(DEFAULT_LISTEN, "someone", secret_key)),
                ConfigError::SecretKey
            );
        }
    }

    #[test]
    fn addresses_are_addresses_with_ports() {
        for listen in [
            "localhost:9000",
            "127.0.0.1",
            ":9000",
            "9000",
            "127.0.0.1:65536",
            "http://127.0.0.1:9000",
        ] {
            assert_eq!(
                refusal(raw(&[listen])),
                ConfigError::Listen {
                    given: listen.to_owned()
                }
            );
        }
        let admin = RawConfig {
            admin_listen: Some("9001".to_owned()),
            ..raw(&[])
        };
        assert!(matches!(refusal(admin), ConfigError::Listen { given } if given == "9001"));
        let many = vec![DEFAULT_LISTEN; LISTENERS_MAX + 1];
        assert_eq!(
            refusal(raw(&many)),
            ConfigError::TooManyListeners {
                given: LISTENERS_MAX + 1
            }
        );
    }

    #[test]
    fn no_two_listeners_share_a_port_of_an_address() {
        let with = |listen: &[&str], admin: Option<&str>| RawConfig {
            admin_listen: admin.map(str::to_owned),
            ..with_keys_of(raw(listen))
        };
        for (listen, admin) in [
            (&["127.0.0.1:9000", "127.0.0.1:9000"][..], None),
            (&["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9000"], None),
            (&["127.0.0.1:9000"], Some("127.0.0.1:9000")),
            (&[], Some(DEFAULT_LISTEN)),
            (&["0.0.0.0:9000"], Some("127.0.0.1:9000")),
            (&["127.0.0.1:9000"], Some("0.0.0.0:9000")),
            (&["[::]:9000", "10.0.0.1:9000"], None),
            (&["[::ffff:10.0.0.1]:9000", "10.0.0.1:9000"], None),
            (&["[::1]:9000", "[::1]:9000"], None),
        ] {
            let refused = refusal(with(listen, admin));
            assert!(
                matches!(refused, ConfigError::SameAddress { .. }),
                "{listen:?} {admin:?}"
            );
        }
        for (listen, admin) in [
            (&["127.0.0.1:9000", "127.0.0.1:9001"][..], Some("127.0.0.1:9002")),
            (&["127.0.0.1:0", "127.0.0.1:0"], Some("127.0.0.1:0")),
            (&["127.0.0.1:9000", "127.0.0.2:9000", "[::1]:9000"], None),
            (&["0.0.0.0:9000"], Some("[::1]:9000")),
        ] {
            assert!(
                Config::from_raw(with(listen, admin)).is_ok(),
                "{listen:?} {admin:?}"
            );
        }
        let text = refusal(with(&["[::1]:9000"], Some("[::1]:9000"))).to_string();
        assert!(
            text.starts_with("[::1]:9000 is given twice") && text.contains("--admin-listen"),
            "{text}"
        );
    }

    fn with_keys_of(raw: RawConfig) -> RawConfig {
        RawConfig {
            access_key: Some("someone".into()),
            secret_key: Some("something else".into()),
            ..raw
        }
    }

    #[test]
    fn the_disk_has_whole_seconds() {
        let with = |seconds: &str| RawConfig {
            disk_timeout: Some(seconds.to_owned()),
            ..raw(&[])
        };
        for (given, seconds) in [("1", 1), ("3600", 3600), ("", 30)] {
            let config = Config::from_raw(with(given)).expect("valid");
            assert_eq!(config.disk_timeout, Duration::from_secs(seconds));
        }
        for given in ["0", "3601", "1.5", "-1", "30s"] {
            let expected = ConfigError::DiskTimeout {
                given: given.to_owned(),
            };
            assert_eq!(refusal(with(given)), expected);
        }
    }

    #[test]
    fn domains_are_names() {
        let with = |domain: &str| RawConfig {
            domain: Some(domain.to_owned()),
            ..raw(&[])
        };
        let config = Config::from_raw(with("S3.Example.COM")).expect("valid");
        assert_eq!(config.domain.as_deref(), Some("s3.example.com"));
        for domain in [
            "s3.example.com:9000",
            ".com",
            "a..b",
            "a_b",
            "a/b",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert_eq!(
                refusal(with(domain)),
                ConfigError::Domain {
                    given: domain.to_owned()
                }
            );
        }
    }
}
