//! The tree's layers name only what they may.
//!
//! A layer is a folder or a file of `src`; the table says which modules of the crate, and which crates that do
//! I/O, each may name. Code under `#[cfg(test)]` may name more, and is not looked at. Names are found in the text,
//! after comments and strings are taken out: what a macro makes up is not seen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What files whose path starts with `prefix` may name. The longest prefix that fits decides.
struct Layer {
    prefix: &'static str,
    /// Modules of the crate, as paths below `crate::`; what is below one of these may be named too.
    may_name: &'static [&'static str],
    /// Of sockets, files, clocks, threads and system calls: [`MACHINE`] for all.
    may_touch: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    pure("limits.rs", &["limits"]),
    pure("http/", &["http", "limits"]),
    pure("index/", &["index", "log", "limits"]),
    pure("log/", &["log", "limits"]),
    pure("policy/", &["policy", "limits"]),
    pure("s3/auth/", PURE_S3),
    pure("s3/checksum", PURE_S3),
    pure("s3/conditions.rs", PURE_S3),
    pure("s3/error.rs", PURE_S3),
    pure("s3/md5/", PURE_S3),
    pure("s3/metadata", PURE_S3),
    pure("s3/names.rs", PURE_S3),
    pure("s3/range.rs", PURE_S3),
    pure("s3/subresource.rs", PURE_S3),
    pure("s3/xml/", PURE_S3),
    // The operations, and whatever stands beside them: engine and codec, but no machine of their own.
    pure("s3/", &["s3", "http", "engine", "policy", "limits", "io::Io"]),
    // The trait `Io` and its plain types, and nothing that implements it.
    pure("engine/", &["engine", "log", "index", "limits", "io"]),
    pure("io/mod.rs", &["io", "limits"]),
    machine("io/uring/", &["io", "limits"]),
    // It speaks of the errors that it injects by their numbers, and asks whether a test panics.
    Layer {
        prefix: "io/sim/",
        may_name: &["io", "limits"],
        may_touch: &["libc", "std::thread"],
    },
    machine(
        "config/",
        &[
            "config",
            "limits",
            "check::Target",
            "io::SegmentId",
            "io::uring::Access",
            "io::uring::CoreChoice",
            "io::uring::FormatOptions",
            "io::uring::Formatting",
            "policy",
            "s3::auth",
        ],
    ),
    machine(
        "check/",
        &["check", "engine", "index", "log", "limits", "io", "io::uring"],
    ),
    machine(
        "server/",
        &["server", "config", "s3", "http", "engine", "io", "limits"],
    ),
    machine(
        "volumes.rs",
        &["volumes", "config", "log", "io", "io::uring", "limits"],
    ),
    pure("lib.rs", &[]),
    machine("main.rs", &["check", "config", "server", "volumes"]),
];

const PURE_S3: &[&str] = &[
    "s3::auth",
    "s3::checksum",
    "s3::md5",
    "s3::conditions",
    "s3::error",
    "s3::metadata",
    "s3::names",
    "s3::range",
    "s3::xml",
    "http",
    "policy",
    "limits",
];

/// What only the machine and the server may name.
const MACHINE: &[&str] = &[
    "rustix",
    "libc",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
    "tokio",
];

/// What the runtime is made of.
const RUNTIME: &[&str] = &["io_uring", "async_executor", "slab", "signal_hook"];

/// The one folder that names it.
const RUNTIME_FOLDER: &str = "io/uring/";

const fn pure(prefix: &'static str, may_name: &'static [&'static str]) -> Layer {
    Layer {
        prefix,
        may_name,
        may_touch: &[],
    }
}

const fn machine(prefix: &'static str, may_name: &'static [&'static str]) -> Layer {
    Layer {
        prefix,
        may_name,
        may_touch: MACHINE,
    }
}

#[test]
fn every_layer_names_only_what_it_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let files = rust_files(&source);
    assert!(
        files.len() > 30,
        "only {} files found under {}",
        files.len(),
        source.display()
    );
    for path in files {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        wrong.extend(violations(&name, &fs::read_to_string(&path).unwrap()));
    }
    assert!(
        wrong.is_empty(),
        "layers name what they may not:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_code_map_says_the_same() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = fs::read_to_string(page).unwrap();
    let mut mapped = BTreeSet::from(["lib"]);
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, path, _, names, _] = cells[..] else {
            continue;
        };
        let Some(path) = path.trim_matches('`').strip_prefix("src/") else {
            continue;
        };
        let own = path.trim_end_matches(['/', '.']).trim_end_matches(".rs");
        // A folder without a layer of its own has those of what is in it.
        let is_own = |layer: &&Layer| layer.prefix == path;
        let layers: Vec<&Layer> = match LAYERS.iter().find(is_own) {
            Some(layer) => vec![layer],
            None => LAYERS.iter().filter(|l| l.prefix.starts_with(path)).collect(),
        };
        let may_name = layers.iter().flat_map(|layer| layer.may_name).copied();
        let may_name: BTreeSet<&str> = may_name.filter(|name| ![own, "limits"].contains(name)).collect();
        let said = names.split('(').next().unwrap_or_default();
        let said: BTreeSet<&str> = said
            .split_whitespace()
            .map(|name| name.trim_matches('`'))
            .collect();
        assert_eq!(
            said, may_name,
            "src/{path} in ARCHITECTURE.md and in the table here"
        );
        mapped.insert(own);
    }
    let top = |layer: &Layer| layer.prefix.split(['/', '.']).next().unwrap_or_default();
    let layers: BTreeSet<&str> = LAYERS.iter().map(top).collect();
    assert_eq!(mapped, layers, "every folder of src/ is on the map");
}

#[test]
fn a_layer_that_names_what_it_may_not_is_found() {
    for (file, text) in [
        ("http/head.rs", "use crate::io::Io;"),
        ("http/head.rs", "fn f() { crate::engine::Engine::start(()); }"),
        ("http/head.rs", "use crate::{limits, s3::error::S3Error};"),
        ("http/head.rs", "use super::super::engine;"),
        (
            "http/head.rs",
            "fn f() -> std::time::Instant { std::time::Instant::now() }",
        ),
        ("index/walk.rs", "use crate::engine::Refusal;"),
        ("index/walk.rs", "use io_uring::IoUring;"),
        ("log/scanner.rs", "use std::fs::File;"),
        ("log/scanner.rs", "use std::{fs, io};"),
        ("s3/range.rs", "use crate::engine::Engine;"),
        ("s3/xml/mod.rs", "use crate::s3::service::Service;"),
        ("s3/ops/get.rs", "use crate::server::run;"),
        ("s3/ops/get.rs", "use crate::io::uring::Stream;"),
        ("engine/mod.rs", "use crate::io::{CoreId, uring::Machine};"),
        ("engine/mod.rs", "use crate::io::sim::World;"),
        ("engine/mod.rs", "use crate::s3::error::S3Error;"),
        ("engine/mod.rs", "use crate::http::Head;"),
        ("io/sim/mod.rs", "use crate::io::uring::Machine;"),
        ("io/uring/mod.rs", "use crate::engine::Message;"),
        ("server/mod.rs", "use ::async_executor::LocalExecutor;"),
        ("unheard_of.rs", "fn f() {}"),
    ] {
        assert!(!violations(file, text).is_empty(), "{file} may say {text}");
    }
}

#[test]
fn what_a_layer_may_name_is_not_found() {
    for (file, text) in [
        (
            "http/head.rs",
            "// crate::engine\n/* use std::fs; */ const A: &str = \"crate::engine::x\";",
        ),
        (
            "http/head.rs",
            "use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};\nuse super::uri::Query;",
        ),
        ("http/head.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"),
        ("engine/mod.rs", "use crate::io::{CoreId, Io, SegmentId};"),
        (
            "s3/ops/get.rs",
            "use crate::{engine::Engine, http::Head, s3::{error::S3Error, range}};",
        ),
        (
            "io/uring/mod.rs",
            "use ::io_uring::IoUring; use std::time::Instant;",
        ),
        ("server/mod.rs", "use crate::io::uring::{self, Acceptor};"),
    ] {
        assert_eq!(violations(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

/// What `text`, the file `name` below `src`, names and may not. Pure code under test in here.
fn violations(name: &str, text: &str) -> Vec<String> {
    let Some(layer) = LAYERS
        .iter()
        .filter(|layer| name.starts_with(layer.prefix))
        .max_by_key(|l| l.prefix.len())
    else {
        return vec![format!(
            "{name}: is in no layer: give it one in tests/layering.rs"
        )];
    };
    let code = without_tests(&without_comments_and_strings(text));
    let mut wrong = Vec::new();
    for path in paths(&code) {
        let path = absolute(&path, name);
        if let Some(named) = path.strip_prefix("crate::") {
            if !may_name(layer, named) {
                wrong.push(format!("{name}: names {path}"));
            }
        } else if RUNTIME.iter().any(|krate| is_below(&path, krate)) && !name.starts_with(RUNTIME_FOLDER) {
            wrong.push(format!("{name}: names the runtime: {path}"));
        } else if MACHINE
            .iter()
            .any(|machine| !layer.may_touch.contains(machine) && is_below(&path, machine))
        {
            wrong.push(format!("{name}: names the machine: {path}"));
        }
    }
    wrong
}

fn may_name(layer: &Layer, named: &str) -> bool {
    // The machines are not part of `io` for those who may only name the trait.
    let is_machine = is_below(named, "io::uring") || is_below(named, "io::sim");
    let own_folder = layer.prefix.trim_end_matches('/').replace('/', "::");
    if is_machine && layer.prefix != "server/" && !is_below(named, &own_folder) {
        return layer
            .may_name
            .iter()
            .any(|may| may.starts_with("io::") && is_below(named, may));
    }
    layer
        .may_name
        .iter()
        .any(|may| is_below(named, may) || is_below(may, named) && !named.contains("::"))
}

/// Whether `path` is `module` or something in it.
fn is_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `super::` and `self::` as seen from the file `name`; paths from elsewhere are left as they are.
fn absolute(path: &str, name: &str) -> String {
    let mut module: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let mut rest = path.trim_start_matches("::");
    if !rest.starts_with("super::") {
        return rest.to_owned();
    }
    while let Some(above) = rest.strip_prefix("super::") {
        module.pop();
        rest = above;
    }
    let module: Vec<&str> = ["crate"].into_iter().chain(module).chain([rest]).collect();
    module.join("::")
}

/// Every path of at least two names in `code`, and every single name that `use` imports; groups in braces are
/// spelled out.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut in_use = false;
    for token in tokens(code) {
        match token {
            "use" => {
                in_use = true;
                current.clear();
            }
            "::" => current.push_str("::"),
            "{" if in_use => prefixes.push(format!(
                "{}{current}",
                prefixes.last().cloned().unwrap_or_default()
            )),
            "," | "}" | ";" if in_use => {
                if !current.is_empty() {
                    let path = format!("{}{current}", prefixes.last().cloned().unwrap_or_default());
                    found.push(path.trim_end_matches("::self").to_owned());
                }
                if token == "}" {
                    prefixes.pop();
                }
                in_use = token != ";";
            }
            "as" if in_use => current.push_str(" as "),
            name if name.starts_with(|first: char| first.is_alphanumeric() || first == '_') => {
                if current.ends_with("::") || current.ends_with(" as ") {
                    current.push_str(name);
                    if !in_use {
                        found.push(current.clone());
                    }
                } else {
                    current = name.to_owned();
                }
                continue;
            }
            _ => current.clear(),
        }
        if matches!(token, "{" | "," | "}" | ";") {
            current.clear();
        }
    }
    found
        .into_iter()
        .map(|path| path.split(" as ").next().unwrap_or_default().to_owned())
        .collect()
}

/// Names, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("::") {
            2
        } else if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// The code up to its tests, which stand last in every file; single items for tests are taken out too.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at + "#[cfg(test)]".len()..];
        // An item ends with its `;` or with the brace that closes its first one.
        let mut depth = 0usize;
        let end = item.char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && matches!(c, ';' | '}')).then_some(at + 1)
        });
        rest = &item[end.unwrap_or(item.len())..];
    }
    kept + rest
}

fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let end = |found: Option<usize>, extra: usize| found.map_or(bytes.len(), |end| at + end + extra);
        if rest.starts_with(b"//") {
            at = end(rest.iter().position(|&byte| byte == b'\n'), 0);
        } else if rest.starts_with(b"/*") {
            at = end(rest.windows(2).position(|pair| pair == b"*/"), 2);
        } else if let Some(hashes) = raw_string(rest, code.last()) {
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let open = hashes + 2;
            let body = &rest[open.min(rest.len())..];
            let length = body.windows(close.len()).position(|window| window == close);
            at = end(length.map(|length| open + length), close.len());
        } else if rest[0] == b'"' {
            at = end(string_length(rest), 0);
        } else if rest.starts_with(b"'\"'") || rest.starts_with(b"'{'") || rest.starts_with(b"'}'") {
            at += 3;
        } else if rest.starts_with(b"'\\\"'") || rest.starts_with(b"'\\''") {
            at += 4;
        } else {
            code.push(rest[0]);
            at += 1;
            continue;
        }
        code.push(b' ');
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The number of `#` of a raw string that starts here.
fn raw_string(rest: &[u8], before: Option<&u8>) -> Option<usize> {
    if rest[0] != b'r'
        || before.is_some_and(|&byte| byte != b'b' && (byte.is_ascii_alphanumeric() || byte == b'_'))
    {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    (rest.get(1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Bytes of the string that starts here, quotes included.
fn string_length(rest: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
