//! Plays a user's service: runs threads, touches memory, listens, and tells on request what the kernel really gave it.
//!
//! Its name is the name it is called by. `NAME ask QUESTION` puts a question to the running `NAME`:
//! `affinity`, `memory`, `env VARIABLE`, `allocate MEBIBYTES`, `spin SECONDS`. Answers are one line of JSON.
//!
//! Only the standard library is used: the program is part of every guest image. SIGTERM ends it, as it ends any program
//! that does not mind; systemd counts that as a success.

#![expect(clippy::disallowed_methods, reason = "it plays a service, and tells what the kernel gave it")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Where the wish for threads comes from; the running example sets it to the CPUs of the service's slice.
const THREADS: &str = "GOMAXPROCS";

/// What a service touches at its start, in MiB, so that there are pages to look at.
const FIRST_MEMORY: usize = 4;

/// What has been allocated on request: touched, and kept.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn main() -> io::Result<()> {
    let mut arguments = env::args();
    let path = arguments.next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or("workload").to_owned();
    let rest: Vec<String> = arguments.collect();
    match rest.split_first() {
        Some((word, question)) if word == "ask" => ask(&name, &question.join(" ")),
        Some(_) | None => serve(&name),
    }
}

/// Works until it is ended.
fn serve(name: &str) -> io::Result<()> {
    allocate(FIRST_MEMORY);
    let wished = env::var(THREADS).ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    for number in 0..wished {
        named(format!("worker-{number}"), idle)?;
    }
    let listener = listener(name)?;
    println!("{name} serves");
    accept(&listener);
    Ok(())
}

fn named(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(work).map(drop)
}

/// A waiting thread wakes now and then, as those of real services do.
fn idle() {
    loop {
        thread::sleep(Duration::from_secs(5));
    }
}

/// An abstract socket needs no directory. Where a second service of the same name runs, the process id sets it apart.
fn listener(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&address(name)?)
        .or_else(|_| UnixListener::bind_addr(&address(&format!("{name}.{}", std::process::id()))?))
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("lamina-workload/{name}"))
}

fn ask(name: &str, question: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect_addr(&address(name)?)
        .map_err(|error| io::Error::new(error.kind(), format!("{name} does not answer: {error}")))?;
    writeln!(stream, "{question}")?;
    io::copy(&mut stream, &mut io::stdout()).map(drop)
}

fn accept(listener: &UnixListener) {
    for client in listener.incoming().flatten() {
        // One failed client is none of the next one's business.
        let _ = named("answer".to_owned(), move || {
            let _ = answer(client);
        });
    }
}

fn answer(client: UnixStream) -> io::Result<()> {
    let mut question = String::new();
    BufReader::new(client.try_clone()?).read_line(&mut question)?;
    let answer = reply(question.trim())?;
    writeln!(&client, "{answer}")
}

fn reply(question: &str) -> io::Result<String> {
    let (word, rest) = question.split_once(' ').unwrap_or((question, ""));
    Ok(match word {
        "affinity" => affinity()?,
        "memory" => memory(&fs::read_to_string("/proc/self/numa_maps")?),
        "env" => format!(
            "{{\"name\":{rest:?},\"value\":{}}}",
            env::var(rest).map_or("null".to_owned(), |value| format!("{value:?}"))
        ),
        "allocate" => format!("{{\"mebibytes\":{}}}", allocate(rest.parse().unwrap_or(0))),
        "spin" => format!("{{\"rounds\":{}}}", spin(Duration::from_secs(rest.parse().unwrap_or(0)))),
        unknown => format!(
            "{{\"error\":\"no question\",\"asked\":{unknown:?},\"known\":[\"affinity\",\"memory\",\"env\",\"allocate\",\"spin\"]}}"
        ),
    })
}

/// The CPUs and memory nodes that each thread of this process may use.
fn affinity() -> io::Result<String> {
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        // A thread that ended meanwhile uses nothing.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map_or(String::new(), |value| value.trim().to_owned())
        };
        threads.push(format!(
            "{{\"thread\":{},\"name\":{:?},\"cpus\":{:?},\"nodes\":{:?}}}",
            field("Pid:"),
            field("Name:"),
            field("Cpus_allowed_list:"),
            field("Mems_allowed_list:"),
        ));
    }
    Ok(format!("{{\"process\":{},\"threads\":[{}]}}", std::process::id(), threads.join(",")))
}

/// How many pages lie on which node, and how many mappings have which policy.
fn memory(maps: &str) -> String {
    let mut pages: BTreeMap<String, u64> = BTreeMap::new();
    let mut policies: BTreeMap<String, u64> = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split(' ').skip(1);
        if let Some(policy) = words.next() {
            *policies.entry(policy.to_owned()).or_default() += 1;
        }
        let nodes = words.filter_map(|word| word.strip_prefix('N')?.split_once('='));
        for (node, count) in nodes {
            *pages.entry(node.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
        }
    }
    format!("{{\"pages\":{pages:?},\"policies\":{policies:?}}}")
}

/// Touches every page of so many MiB, keeps them, and tells how many MiB are kept now.
fn allocate(mebibytes: usize) -> usize {
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    kept.extend((0..mebibytes).map(|_| vec![1; 1 << 20]));
    kept.len()
}

fn spin(duration: Duration) -> u64 {
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < duration {
        rounds += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_by_node_and_policy() {
        let maps = "55d0 default file=/bin/x mapped=3 N0=2 N1=1 kernelpagesize_kB=4\n7ff0 bind:1 anon=4 N1=4\n";
        let expected = r#"{"pages":{"0": 2, "1": 5},"policies":{"bind:1": 1, "default": 1}}"#;
        assert_eq!(memory(maps), expected);
    }
}
