//! The connection to systemd over the system bus: calls, deadlines, errors that name attempt and object, and a new
//! connection after a loss. No proxy caches anything: systemd announces as constant what is not.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use zbus::message::Type;
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath};

use crate::host::HostError;

/// The well-known name of systemd on the bus.
pub const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The Manager object.
pub const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// The interface of the Manager object.
pub const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an ordinary call may take. systemd serves nothing during a reload, which takes seconds on a busy host, and
/// moving the pages of a large slice to other nodes takes about six seconds per gigabyte.
const CALL: Duration = Duration::from_secs(120);

/// How many answers are awaited at once. The bus takes 128 from one connection, and cuts it off beyond.
const MOST_AT_ONCE: usize = 32;

/// A connection that is made when it is needed and made anew when it was lost.
pub struct Bus {
    address: String,
    line: Option<Line>,
    calls: u64,
}

/// One call, as it is made and as it is named in an error.
pub struct Call<'a, B> {
    /// What is tried, as a verb: "start".
    pub attempt: &'static str,
    /// On what: a unit, or "systemd".
    pub object: &'a str,
    /// The object's path on the bus.
    pub path: &'a str,
    /// The method's interface.
    pub interface: &'a str,
    /// The method.
    pub method: &'a str,
    /// Its arguments.
    pub body: B,
}

impl Bus {
    /// A bus at a D-Bus address, such as `unix:path=/run/dbus/system_bus_socket`.
    pub fn new(address: String) -> Self {
        Self { address, line: None, calls: 0 }
    }

    /// How many calls were made since the start.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The connection; it is made if there is none, and systemd is asked to send its signals.
    ///
    /// # Errors
    /// [`HostError::Gone`] when there is no bus.
    pub async fn connection(&mut self) -> Result<Connection, HostError> {
        Ok(self.line().await?.connection.clone())
    }

    /// Makes a call and waits for the answer.
    ///
    /// # Errors
    /// [`HostError::Systemd`] with what systemd said; [`HostError::Gone`] when the connection is lost, in which case
    /// nobody knows whether the call took effect.
    pub async fn call<B: Serialize + DynamicType>(&mut self, call: Call<'_, B>) -> Result<Message, HostError> {
        let connection = self.connection().await?;
        self.calls += 1;
        let reply = send(&connection, call).await;
        if matches!(reply, Err(HostError::Gone(_))) {
            self.line = None;
        }
        reply
    }

    /// All properties of every interface of several objects, asked for at once; answers in the same order.
    ///
    /// # Errors
    /// As [`Bus::call`].
    pub async fn properties(&mut self, objects: &[(String, String)]) -> Result<Vec<Message>, HostError> {
        let connection = self.connection().await?;
        self.calls += objects.len() as u64;
        let calls = objects.iter().map(|(object, path)| send(&connection, read_all(object, path)));
        let replies = futures::stream::iter(calls).buffered(MOST_AT_ONCE).try_collect().await;
        if matches!(replies, Err(HostError::Gone(_))) {
            self.line = None;
        }
        replies
    }

    /// Jobs that end from now on; to be asked for before the job is.
    ///
    /// # Errors
    /// [`HostError::Gone`] when there is no bus.
    pub async fn ended_jobs(&mut self) -> Result<broadcast::Receiver<EndedJob>, HostError> {
        Ok(self.line().await?.jobs.subscribe())
    }

    async fn line(&mut self) -> Result<&Line, HostError> {
        let line = match self.line.take().filter(|line| !line.connection.is_closed()) {
            Some(line) => line,
            None => Line::open(&self.address).await?,
        };
        Ok(self.line.insert(line))
    }
}

/// A connection, and a task that listens on it for jobs that end.
struct Line {
    connection: Connection,
    jobs: broadcast::Sender<EndedJob>,
    listener: JoinHandle<()>,
}

/// A job that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// The job's path.
    pub path: OwnedObjectPath,
    /// How it ended: `done`, `failed`, ...
    pub result: String,
}

impl Line {
    async fn open(address: &str) -> Result<Self, HostError> {
        let connection = connect(address).await?;
        let removed =
            removed_jobs(&connection).await.map_err(|error| HostError::Gone(format!("listen to systemd: {error}")))?;
        let (jobs, _) = broadcast::channel(1024);
        let listener = tokio::spawn(pass_on(removed, jobs.clone()));
        Ok(Self { connection, jobs, listener })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn removed_jobs(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder().msg_type(Type::Signal).interface(MANAGER).member("JobRemoved").build()?;
    MessageStream::for_match_rule(rule, connection, NonZeroUsize::new(1024)).await
}

/// Empties the stream for ever: a full one would hold up every reply behind it. Nobody need be listening.
async fn pass_on(mut removed: MessageStream, jobs: broadcast::Sender<EndedJob>) {
    while let Some(Ok(message)) = removed.next().await {
        if let Ok((_, path, _, result)) = body::<(u32, OwnedObjectPath, String, String)>(&message) {
            let _ = jobs.send(EndedJob { path, result });
        }
    }
}

/// The path of a unit's object, `unit_dbus_path_from_name` in systemd: everything but letters and digits is escaped,
/// and so is a digit in front. Asking it loads the unit.
pub fn unit_path(unit: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// A call that reads all properties of all interfaces of an object.
fn read_all<'a>(object: &'a str, path: &'a str) -> Call<'a, (&'static str,)> {
    let interface = "org.freedesktop.DBus.Properties";
    Call { attempt: "read the properties of", object, path, interface, method: "GetAll", body: ("",) }
}

/// The arguments of a message as a type.
///
/// # Errors
/// [`HostError::Systemd`] when they are of another type.
pub fn body<T>(message: &Message) -> Result<T, HostError>
where
    T: for<'de> serde::Deserialize<'de> + zbus::Type,
{
    message.body().deserialize::<T>().map_err(|error| HostError::Systemd {
        attempt: "understand",
        object: "systemd".to_owned(),
        message: error.to_string(),
    })
}

/// Listed units: name, ..., load state, ... as `ListUnitsByPatterns` has them; the name comes first.
pub type ListedUnit = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// The property dictionary of [`Bus::properties`].
pub type PropertyMap<'a> = HashMap<&'a str, zbus::Variant<'a>>;

async fn connect(address: &str) -> Result<Connection, HostError> {
    let attempt = async {
        let connection = zbus::connection::Builder::address(address).build().await?;
        let subscribed =
            connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await.map(drop);
        match subscribed {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with(".AlreadySubscribed") => Ok(connection),
            Ok(()) => Ok(connection),
            Err(error) => Err(error),
        }
    };
    match tokio::time::timeout(CONNECT, attempt).await {
        Ok(connected) => connected.map_err(|error| HostError::Gone(format!("connect to {address}: {error}"))),
        Err(_) => Err(HostError::Gone(format!("connect to {address}: no answer in {} s", CONNECT.as_secs()))),
    }
}

async fn send<B: Serialize + DynamicType>(connection: &Connection, call: Call<'_, B>) -> Result<Message, HostError> {
    let Call { attempt, object, path, interface, method, body } = call;
    let sent = connection.call_method(Some(SYSTEMD), path, Some(interface), method, &body);
    match tokio::time::timeout(CALL, sent).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(named(attempt, object, &error)),
        Err(_) => Err(HostError::Gone(format!("{attempt} {object}: no answer in {} s", CALL.as_secs()))),
    }
}

fn named(attempt: &'static str, object: &str, error: &zbus::Error) -> HostError {
    let message = match error {
        zbus::Error::MethodError(name, text, _) => {
            format!("{} ({name})", text.as_deref().unwrap_or("no further word"))
        }
        zbus::Error::FDO(error) if !is_loss(error) => error.to_string(),
        other => return HostError::Gone(format!("{attempt} {object}: {other}")),
    };
    HostError::Systemd { attempt, object: object.to_owned(), message }
}

/// Errors that the bus gives in place of systemd: systemd left the bus, or re-executed itself with the call in hand.
fn is_loss(error: &zbus::fdo::Error) -> bool {
    use zbus::fdo::Error;
    matches!(
        error,
        Error::NoReply(_)
            | Error::Disconnected(_)
            | Error::ServiceUnknown(_)
            | Error::NameHasNoOwner(_)
            | Error::Timeout(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths_are_escaped_as_systemd_does() {
        assert_eq!(
            unit_path("orchestrator-agent-runner.service"),
            "/org/freedesktop/systemd1/unit/orchestrator_2dagent_2drunner_2eservice"
        );
        assert_eq!(unit_path("3a.slice"), "/org/freedesktop/systemd1/unit/_33a_2eslice");
    }
}
