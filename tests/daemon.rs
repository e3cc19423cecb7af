//! The program from outside: exit codes, what it says, connections, and how it ends.
//!
//! Nothing here asks S3 anything but what is refused before an operation begins: the Python suite does that.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A directory that is on a disk, since memory has no direct I/O; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "daemon-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program without any variable of the machine that tests run on.
fn weft() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command
}

fn serve(scratch: &Scratch, listen: &str) -> Command {
    serve_in(scratch, listen, "256MiB")
}

fn serve_in(scratch: &Scratch, listen: &str, capacity: &str) -> Command {
    let mut command = weft();
    command.arg("serve").arg("--data").arg(scratch.0.join("data"));
    command.args(["--listen", listen, "--capacity", capacity]);
    command
}

/// A refusal: its exit code, and its one line on standard error.
fn refusal(command: &mut Command) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(
        text.lines().count(),
        1,
        "{text}{}",
        String::from_utf8_lossy(&stdout)
    );
    (status.code().expect("an exit code, not a signal"), text)
}

struct Daemon {
    child: Child,
    address: SocketAddr,
    /// The report.
    said: Vec<String>,
    _scratch: Scratch,
}

impl Daemon {
    /// Started, and serving.
    fn start() -> Daemon {
        let scratch = Scratch::new();
        let child = serve(&scratch, "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon = Daemon {
            child,
            address: nowhere,
            said: Vec::new(),
            _scratch: scratch,
        };
        for line in BufReader::new(daemon.child.stdout.take().unwrap()).lines() {
            daemon.said.push(line.unwrap());
            if let Some(address) = daemon.said.last().unwrap().strip_prefix("listening on http://") {
                daemon.address = address.parse().unwrap();
                return daemon;
            }
        }
        panic!("it ended before it listened: {:?}", daemon.said);
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// All that comes back when `bytes` is all that is sent.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        rest(&mut stream)
    }

    fn stop(mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < TIMEOUT, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes until the connection is closed.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One response with its body.
fn response(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = header(&head, "Content-Length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let lines = response.split("\r\n").take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

#[test]
fn the_version_and_the_help_are_no_failure() {
    let version = weft().arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("weft {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = weft().args(["serve", "--help"]).output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(version.status.success() && help.status.success());
    for said in [
        "Examples:",
        "WEFT_DATA",
        "WEFT_ACCESS_KEY",
        "--capacity",
        "Exit codes:",
    ] {
        assert!(text.contains(said), "{said}");
    }
    assert_eq!(weft().arg("serve").output().unwrap().status.code(), Some(2));
}

#[test]
fn default_credentials_do_not_leave_loopback() {
    let scratch = Scratch::new();
    let (code, text) = refusal(&mut serve(&scratch, "0.0.0.0:0"));
    assert!(
        code == 2 && text.contains("WEFT_ACCESS_KEY") && text.contains("WEFT_SECRET_KEY"),
        "{text}"
    );
    assert!(
        !scratch.0.join("data").exists(),
        "a refused start changes nothing"
    );
}

#[test]
fn a_start_that_cannot_be_says_why_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, flags, code, said) in [
        (address.as_str(), &[][..], 1, "--listen"),
        ("127.0.0.1:0", &["--cores", "4000"], 2, "--cores"),
        ("127.0.0.1:0", &["--cores", "0,0"], 2, "--cores"),
        ("127.0.0.1:0", &["--cores", "none"], 2, "--cores"),
        ("127.0.0.1:0", &["--domain", "a/b"], 2, "--domain"),
        ("127.0.0.1", &[], 2, "--listen"),
        (
            "127.0.0.1:0",
            &["--admin-listen", &address],
            1,
            "another --admin-listen",
        ),
        ("127.0.0.1:0", &["--admin-listen", "9001"], 2, "--admin-listen"),
        (&address, &["--admin-listen", &address], 2, "is given twice"),
        (&address, &["--listen", &address], 2, "is given twice"),
    ] {
        let scratch = Scratch::new();
        let (got, text) = refusal(serve(&scratch, listen).args(flags).stdout(Stdio::null()));
        assert!(
            got == code && text.starts_with("weft: ") && text.contains(said),
            "{got}: {text}"
        );
    }
    for size in ["255MiB", "0MiB", "1GB", "much"] {
        let (code, text) = refusal(weft().args(["serve", "--data", "x", "--capacity", size]));
        assert!(code == 2 && text.contains("--capacity"), "{code}: {text}");
    }
    for size in ["255MiB", "0MiB", "1GB", "much"] {
        let flags = ["serve", "--data", "x", "--cores", "1", "--memory", size];
        let (code, text) = refusal(weft().args(flags));
        assert!(code == 2 && text.contains("--memory"), "{code}: {text}");
    }
}

#[test]
fn a_directory_that_cannot_hold_a_volume_is_left_as_it_is() {
    let scratch = Scratch::new();
    let data = scratch.0.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.tex"), "years of work").unwrap();
    let (code, text) = refusal(serve(&scratch, "127.0.0.1:0").stdout(Stdio::null()));
    assert!(code == 1 && text.contains("thesis.tex"), "{code}: {text}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1);

    if !fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" /dev/shm tmpfs ")) {
        eprintln!("/dev/shm is no tmpfs here: nothing to refuse");
        return;
    }
    let memory = format!("/dev/shm/weft-daemon-test-{}", std::process::id());
    let (code, text) = refusal(weft().args(["serve", "--listen", "127.0.0.1:0", "--data", &memory]));
    assert!(
        code == 1 && text.contains("tmpfs") && text.contains("--data"),
        "{code}: {text}"
    );
    assert!(!Path::new(&memory).exists());
}

#[test]
fn a_capacity_that_the_disk_has_no_room_for_is_told_and_served() {
    let scratch = Scratch::new();
    let mut child = serve_in(&scratch, "127.0.0.1:0", "1PiB")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said: Vec<String> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.starts_with("listening on "))
        .collect();
    child.kill().unwrap();
    let warned = child.wait_with_output().unwrap().stderr;
    let warned = String::from_utf8(warned).unwrap();
    assert!(said.iter().any(|line| line.contains("1024 TiB")), "{said:?}");
    assert!(
        warned.lines().count() == 1 && warned.contains("--capacity"),
        "{warned}"
    );
}

#[test]
fn segment_files_that_are_gone_are_told_each_time() {
    let scratch = Scratch::new();
    let run = || {
        let mut child = serve(&scratch, "127.0.0.1:0")
            .args(["--cores", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = said
            .map_while(Result::ok)
            .any(|line| line.starts_with("listening on "));
        child.kill().unwrap();
        let warned = child.wait_with_output().unwrap().stderr;
        assert!(listens);
        String::from_utf8(warned).unwrap()
    };
    assert_eq!(run(), "");
    // A restore that has brought back the last one, and not yet those before it.
    let last = fs::File::create(scratch.0.join("data/segments/00000020.seg")).unwrap();
    last.set_len(1 << 20).unwrap();
    for _ in 0..2 {
        let warned = run();
        let told: Vec<&str> = warned.lines().filter(|line| line.contains("DAMAGE")).collect();
        assert!(
            told.len() == 1 && told[0].contains("segment files are missing"),
            "{warned}"
        );
    }
}

#[test]
fn a_second_daemon_is_refused_before_it_takes_the_port() {
    let daemon = Daemon::start();
    let mut second = weft();
    second
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(daemon._scratch.0.join("data"));
    let (code, text) = refusal(&mut second);
    assert!(code == 1 && text.contains("is in use by another weft"), "{text}");
    assert!(
        daemon
            .answer(b"GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n")
            .starts_with("HTTP/1.1 200 ")
    );
}

/// The kernel ends the writes of a killed process after the process. Its lock must last as long, so every ring holds it.
#[test]
fn the_lock_is_held_by_what_outlives_the_process() {
    let daemon = Daemon::start();
    let fdinfo = format!("/proc/{}/fdinfo", daemon.child.id());
    let infos = fs::read_dir(fdinfo).unwrap();
    let infos = infos.map(|info| fs::read_to_string(info.unwrap().path()).unwrap_or_default());
    let rings: Vec<String> = infos.filter(|info| info.contains("UserFiles")).collect();
    assert!(!rings.is_empty());
    for ring in rings {
        assert!(ring.contains("weft.lock"), "{ring}");
    }
}

#[test]
fn the_report_is_short_and_holds_no_secret() {
    let daemon = Daemon::start();
    let text = daemon.said.join("\n");
    assert!(daemon.said.len() <= 10, "{text}");
    for said in ["weft ", "data", "256 MiB", "CPU", "recovered", "stable storage"] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("rustfssecret"));
}

#[test]
fn both_signals_end_it_well_though_connections_are_idle() {
    for signal in ["-TERM", "-INT"] {
        let daemon = Daemon::start();
        let mut idle = daemon.connect();
        let mut used = daemon.connect();
        used.write_all(b"GET /-/ready HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        assert!(response(&mut used).starts_with("HTTP/1.1 200 "));
        let since = Instant::now();
        assert_eq!(daemon.stop(signal).code(), Some(0));
        assert!(
            since.elapsed() < Duration::from_secs(8),
            "it waited for connections that had nothing to do"
        );
        assert_eq!(rest(&mut idle) + &rest(&mut used), "");
    }
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let daemon = Daemon::start();
    let live = "GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n";
    let nothing = "DELETE /-/nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /";
    let mut stream = daemon.connect();
    stream
        .write_all([live, nothing, live, nothing, live].concat().as_bytes())
        .unwrap();
    let statuses: Vec<bool> = (0..5)
        .map(|_| response(&mut stream).starts_with("HTTP/1.1 200 "))
        .collect();
    assert_eq!(statuses, [true, false, true, false, true]);
}

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    let daemon = Daemon::start();
    let mut stream = daemon.connect();
    stream.set_nodelay(true).unwrap();
    for _ in 0..2 {
        for byte in b"GET /-/live HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n" {
            stream.write_all(&[*byte]).unwrap();
        }
        assert!(response(&mut stream).ends_with("\r\n\r\nok\n"));
    }
}

#[test]
fn every_response_has_an_id_of_its_own_a_date_and_a_server() {
    let daemon = Daemon::start();
    let mut ids = Vec::new();
    for request in [
        "GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let answer = daemon.answer(request.as_bytes());
        assert_eq!(header(&answer, "Server"), Some("weft"), "{answer}");
        assert!(header(&answer, "Date").unwrap().ends_with(" GMT"));
        ids.push(header(&answer, "x-amz-request-id").unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 16));
}

#[test]
fn heads_that_are_none_are_refused_and_end_the_connection() {
    let daemon = Daemon::start();
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(20_000));
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(101));
    for (request, status, code) in [
        ("nonsense\r\n\r\n", "400", "BadRequest"),
        ("GET / HTTP/1.1\nHost: h\n\n", "400", "BadRequest"),
        ("GET / HTTP/1.1\r\n\r\n", "400", "BadRequest"),
        (
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
            "BadRequest",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "400",
            "BadRequest",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501",
            "NotImplemented",
        ),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505", "NotImplemented"),
        (&long, "414", "InvalidURI"),
        (&large, "431", "RequestHeaderSectionTooLarge"),
        (&many, "431", "RequestHeaderSectionTooLarge"),
    ] {
        // What follows is never taken for a request.
        let answer = daemon.answer(format!("{request}GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(
            answer.contains(&format!("<Code>{code}</Code>")) && !answer.ends_with("ok\n"),
            "{answer}"
        );
        assert_eq!(header(&answer, "Connection"), Some("close"));
    }
    assert!(
        daemon
            .answer(b"GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n")
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn a_body_that_nobody_wants_is_never_read_as_a_request() {
    let daemon = Daemon::start();
    let live = "GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n";
    for (coding, expects_more) in [
        (format!("Content-Length: {}", live.len()), true),
        (format!("Content-Length: {}", 1 << 20), false),
        (
            format!("Content-Length: {}\r\nExpect: 100-continue", live.len()),
            true,
        ),
        ("Transfer-Encoding: chunked".to_owned(), false),
    ] {
        let refused = format!("GET /-/live HTTP/1.1\r\nHost: h\r\n{coding}\r\n\r\n{live}");
        let answer = daemon.answer(format!("{refused}{live}").as_bytes());
        let answers = answer.matches("HTTP/1.1 200 ").count();
        assert_eq!(answers, if expects_more { 2 } else { 1 }, "{coding}: {answer}");
    }
}

#[test]
fn a_client_that_waits_and_is_refused_is_not_asked_for_its_body() {
    let daemon = Daemon::start();
    let mut stream = daemon.connect();
    stream
        .write_all(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    let answer = rest(&mut stream);
    assert!(
        !answer.contains("100 Continue") && header(&answer, "Connection") == Some("close"),
        "{answer}"
    );
}

#[test]
fn a_refused_client_that_sends_all_of_its_body_first_is_still_told_why() {
    let daemon = Daemon::start();
    let mut stream = daemon.connect();
    stream
        .write_all(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 16777216\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![7; 16 << 20]).unwrap();
    let answer = rest(&mut stream);
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && header(&answer, "Connection") == Some("close"),
        "{answer}"
    );
}

#[test]
fn a_client_that_waits_with_an_empty_body_is_answered_twice() {
    let daemon = Daemon::start();
    let mut stream = daemon.connect();
    let request = b"GET /-/live HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).unwrap();
        assert!(response(&mut stream).starts_with("HTTP/1.1 100 Continue"));
        assert!(response(&mut stream).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn many_connections_at_once_are_all_served() {
    let daemon = Daemon::start();
    let mut streams: Vec<TcpStream> = (0..300).map(|_| daemon.connect()).collect();
    for _ in 0..3 {
        for stream in &mut streams {
            stream
                .write_all(b"GET /-/live HTTP/1.1\r\nHost: h\r\n\r\n")
                .unwrap();
        }
        for stream in &mut streams {
            assert!(response(stream).ends_with("ok\n"));
        }
    }
}
