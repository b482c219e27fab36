//! Answers the harness inside a guest: runs scripts, writes and reads files, over the guest's virtio-serial ports.

#![expect(clippy::disallowed_methods, reason = "it does in the guest what the harness asks for")]

#[path = "../host/frame.rs"]
mod frame;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use frame::{Frame, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// While nobody is connected a read returns at once; this keeps an idle guest from spinning.
const IDLE: Duration = Duration::from_millis(50);

/// How often a running script's client is checked for having left.
const CHECK: Duration = Duration::from_millis(250);

/// How long output may still arrive after a script has ended: what it left running keeps its pipes open.
const GRACE: Duration = Duration::from_millis(300);

/// The exit code of a script that took too long, as `timeout` gives it.
const TIMED_OUT: i64 = 124;

fn main() -> io::Result<()> {
    let serving: Vec<_> = ports()?.into_iter().map(|path| thread::spawn(move || serve(&path))).collect();
    for port in serving {
        port.join().map_err(|_| io::Error::other("a port's thread panicked"))??;
    }
    Ok(())
}

/// The harness's ports. Their device numbers differ between machines, their names do not.
fn ports() -> io::Result<Vec<PathBuf>> {
    let mut ports = Vec::new();
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.starts_with(frame::PORT_PREFIX) {
            ports.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    Ok(ports)
}

fn serve(path: &Path) -> io::Result<()> {
    let port = File::options().read(true).write(true).open(path)?;
    let line = Line::new(port.try_clone()?);
    let mut input = BufReader::with_capacity(64 << 10, port);
    loop {
        if input.fill_buf()?.is_empty() {
            thread::sleep(IDLE);
        } else if let Some(Frame { kind, request, number, body }) = Frame::read(&mut input)? {
            match kind {
                Kind::Sync => line.send(Kind::Synced, request, 0, &[]),
                Kind::Run => run(&line, request, number, &body),
                Kind::Put => finish(&line, request, put(number, &body)),
                Kind::Get => finish(&line, request, get(&line, request, &body)),
                Kind::Synced | Kind::Out | Kind::Err | Kind::End => {}
            }
        }
    }
}

/// The way back to the client, shared by the threads of one request.
#[derive(Clone)]
struct Line {
    port: Arc<Mutex<File>>,
    /// A second handle to look at the port while somebody writes.
    watch: Arc<File>,
}

impl Line {
    fn new(port: File) -> Self {
        let watch = port.try_clone().map_or_else(|error| panic!("duplicating a port's descriptor: {error}"), Arc::new);
        Self { port: Arc::new(Mutex::new(port)), watch }
    }

    fn send(&self, kind: Kind, request: u64, number: i64, body: &[u8]) {
        let frame = Frame { kind, request, number, body: body.to_vec() };
        // A client that has left is noticed by `client_has_left`, not here.
        let _ = locked(&self.port).write_all(&frame.encode());
    }

    /// A client says nothing while its script runs: a hang-up or new words mean that it is gone.
    fn client_has_left(&self) -> bool {
        let mut ports = [PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut ports, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

fn locked(port: &Mutex<File>) -> MutexGuard<'_, File> {
    port.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finish(line: &Line, request: u64, outcome: io::Result<()>) {
    if let Err(error) = &outcome {
        line.send(Kind::Err, request, 0, error.to_string().as_bytes());
    }
    line.send(Kind::End, request, i64::from(outcome.is_err()), &[]);
}

fn run(line: &Line, request: u64, seconds: i64, script: &[u8]) {
    let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    match start(script) {
        Err(error) => finish(line, request, Err(error)),
        Ok(child) => watch(line, request, limit, child),
    }
}

/// The script gets a process group of its own, so that all of it can be ended, and loses the channel's protection from
/// the memory killer.
fn start(script: &[u8]) -> io::Result<Child> {
    use std::os::unix::{ffi::OsStrExt, process::CommandExt};
    let script = std::ffi::OsStr::from_bytes(script);
    Command::new("/bin/bash")
        .args(["-c", "echo 0 > /proc/self/oom_score_adj; eval \"$0\""])
        .arg(script)
        .env_clear()
        .envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn watch(line: &Line, request: u64, limit: Duration, mut child: Child) {
    let begin = Instant::now();
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let open = Arc::new(Mutex::new(true));
    let drained = [
        child.stdout.take().map(|pipe| forward(line, request, Kind::Out, pipe, &open)),
        child.stderr.take().map(|pipe| forward(line, request, Kind::Err, pipe, &open)),
    ];
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait()));
    let mut is_killed = false;
    let status = loop {
        match end.recv_timeout(CHECK) {
            Ok(status) => break status,
            Err(_) if !is_killed && (begin.elapsed() > limit || line.client_has_left()) => {
                is_killed = true;
                let _ = group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
            }
            Err(_) => {}
        }
    };
    let last_call = Instant::now() + GRACE;
    for receiver in drained.into_iter().flatten() {
        let _ = receiver.recv_timeout(last_call.saturating_duration_since(Instant::now()));
    }
    // From here on nothing of this script is sent, even if it left something running that still talks.
    *open.lock().unwrap_or_else(PoisonError::into_inner) = false;
    let code = if is_killed { TIMED_OUT } else { status.map_or(-1, exit_code) };
    line.send(Kind::End, request, code, &[]);
}

fn exit_code(status: ExitStatus) -> i64 {
    status.code().map_or_else(|| -i64::from(status.signal().unwrap_or(0)), i64::from)
}

/// Sends what comes out of a pipe until it closes; the receiver then reports.
fn forward(
    line: &Line,
    request: u64,
    kind: Kind,
    mut pipe: impl Read + Send + 'static,
    open: &Arc<Mutex<bool>>,
) -> mpsc::Receiver<()> {
    let (line, open) = (line.clone(), open.clone());
    let (closed, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let open = open.lock().unwrap_or_else(PoisonError::into_inner);
            if *open {
                line.send(kind, request, 0, &buffer[..count]);
            }
        }
        closed.send(())
    });
    receiver
}

/// Replaces a file as a whole: a program that runs from it keeps its old content.
fn put(mode: i64, body: &[u8]) -> io::Result<()> {
    let split = body.iter().position(|byte| *byte == 0).ok_or_else(|| io::Error::other("the request has no path"))?;
    let path = PathBuf::from(String::from_utf8_lossy(&body[..split]).into_owned());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".lamina-put");
    fs::write(&unfinished, &body[split + 1..])?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(u32::try_from(mode).unwrap_or(0o600)))?;
    fs::rename(&unfinished, &path)
}

fn get(line: &Line, request: u64, path: &[u8]) -> io::Result<()> {
    let mut file = File::open(String::from_utf8_lossy(path).as_ref())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => line.send(Kind::Out, request, 0, &buffer[..count]),
        }
    }
}
