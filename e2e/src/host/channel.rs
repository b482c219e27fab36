//! Talks to the program that answers inside a guest, over the sockets of the guest's virtio-serial ports.

#![expect(clippy::disallowed_methods, reason = "requests are numbered by the clock")]

use std::{
    io::{BufReader, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};

use crate::{
    cache::Lock,
    host::{
        Output,
        frame::{Frame, Kind},
        machine,
    },
};

/// How much longer than its script a busy guest may take to report the end.
const SLACK: Duration = Duration::from_secs(60);

/// How long a guest that runs may take to say that it is there.
const SYNC: Duration = Duration::from_secs(30);

/// Who listens to output while it comes.
pub type Listener = Box<dyn FnMut(Kind, &[u8]) + Send>;

/// The way to the guest whose files are in one folder.
#[derive(Clone, Debug)]
pub struct Channel {
    folder: PathBuf,
}

impl Channel {
    /// The channel of the guest in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Whether the guest answers within `limit`.
    pub async fn answers(&self, limit: Duration) -> Result<()> {
        self.converse(move |folder| Conversation::open(folder, limit).map(drop)).await
    }

    /// Runs a script.
    pub async fn exec(&self, script: &str, limit: Duration) -> Result<Output> {
        let (sender, receiver) = mpsc::channel();
        let listener = Box::new(move |kind, piece: &[u8]| {
            // The receiver outlives the conversation.
            let _ = sender.send((kind, piece.to_vec()));
        });
        let code = self.exec_to(script, limit, listener).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for (kind, piece) in receiver {
            if kind == Kind::Out { stdout.extend(piece) } else { stderr.extend(piece) }
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { stdout: text(stdout), stderr: text(stderr), code })
    }

    /// Runs a script whose output goes to `listener` as it comes; tells its exit code.
    pub async fn exec_to(&self, script: &str, limit: Duration, mut listener: Listener) -> Result<i64> {
        let seconds = i64::try_from(limit.as_secs()).context("a command's limit is too long")?;
        let script = script.as_bytes().to_vec();
        self.converse(move |folder| {
            let mut conversation = Conversation::open(folder, SYNC)?;
            conversation.request(Kind::Run, seconds, script, limit + SLACK, &mut listener)
        })
        .await
    }

    /// Writes a file.
    pub async fn put(&self, path: &str, mode: u32, content: Vec<u8>) -> Result<()> {
        let body = [path.as_bytes(), &[0], &content].concat();
        let described = format!("writing {path}");
        self.converse(move |folder| {
            let mut conversation = Conversation::open(folder, SYNC)?;
            conversation.must(Kind::Put, i64::from(mode), body).map(drop)
        })
        .await
        .context(described)
    }

    /// Reads a file.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let body = path.as_bytes().to_vec();
        let read = self.converse(move |folder| Conversation::open(folder, SYNC)?.must(Kind::Get, 0, body));
        read.await.with_context(|| format!("reading {path}"))
    }

    /// Reading from a socket blocks; one thread per conversation is plenty.
    async fn converse<T: Send + 'static>(&self, talk: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || talk(&folder)).await?
    }
}

/// One client on one of the guest's ports.
struct Conversation {
    stream: BufReader<UnixStream>,
    _lane: Lock,
}

impl Conversation {
    fn open(folder: &Path, limit: Duration) -> Result<Self> {
        let (lane, number) = free_lane(folder)?;
        let stream = BufReader::new(connect(folder, &machine::socket(number))?);
        let mut conversation = Self { stream, _lane: lane };
        let request = conversation.send(Kind::Sync, 0, Vec::new(), limit)?;
        // Whatever an earlier client did not wait for comes first.
        while conversation.receive()? != (Frame { kind: Kind::Synced, request, number: 0, body: Vec::new() }) {}
        Ok(conversation)
    }

    /// A request that fails with what the guest says about it.
    fn must(&mut self, kind: Kind, number: i64, body: Vec<u8>) -> Result<Vec<u8>> {
        let (mut content, mut reason) = (Vec::new(), Vec::new());
        let code = self.request(kind, number, body, SLACK, &mut |kind, piece| {
            if kind == Kind::Out { content.extend_from_slice(piece) } else { reason.extend_from_slice(piece) }
        })?;
        if code != 0 {
            bail!("the guest says: {}", String::from_utf8_lossy(&reason));
        }
        Ok(content)
    }

    fn request(
        &mut self,
        kind: Kind,
        number: i64,
        body: Vec<u8>,
        limit: Duration,
        listener: &mut dyn FnMut(Kind, &[u8]),
    ) -> Result<i64> {
        let request = self.send(kind, number, body, limit)?;
        loop {
            let frame = self.receive()?;
            match frame.kind {
                _ if frame.request != request => {}
                Kind::End => return Ok(frame.number),
                Kind::Out | Kind::Err => listener(frame.kind, &frame.body),
                Kind::Sync | Kind::Synced | Kind::Run | Kind::Put | Kind::Get => {
                    bail!("the guest answered with {:?}", frame.kind)
                }
            }
        }
    }

    fn send(&mut self, kind: Kind, number: i64, body: Vec<u8>, limit: Duration) -> Result<u64> {
        let request = unused_number();
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(limit)).context("setting up the command channel")?;
        stream.write_all(&Frame { kind, request, number, body }.encode()).context("sending to the guest")?;
        Ok(request)
    }

    fn receive(&mut self) -> Result<Frame> {
        let frame = Frame::read(&mut self.stream).context("waiting for the guest's answer")?;
        frame.context("the guest's machine ended in the middle of a conversation")
    }
}

/// A port takes one client. With all of them taken, the first one's turn is awaited.
fn free_lane(folder: &Path) -> Result<(Lock, usize)> {
    let path = |lane: usize| folder.join(format!("lane{lane}.lock"));
    for lane in 0..machine::LANES {
        if let Some(lock) = Lock::try_acquire(&path(lane))? {
            return Ok((lock, lane));
        }
    }
    Ok((Lock::acquire(&path(0))?, 0))
}

/// Connects to a socket by way of its folder: a socket's own path may have 107 bytes only.
pub fn connect(folder: &Path, name: &str) -> Result<UnixStream> {
    let opened = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", folder.display()))?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))
        .with_context(|| format!("connecting to {name} in {}", folder.display()))
}

/// Differs from the numbers of every earlier client of the same guest.
fn unused_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
