//! Touches the network: listens on a thread of its own, so that a loop that is stuck is still told of.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::answer::{Answer, answer, look};
use crate::health::Health;
use crate::listen::Listen;
use crate::look::Looks;

/// How many are answered at once; others wait.
const MOST_AT_ONCE: usize = 16;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until the program ends. Whoever cannot listen works all the same: a probe that asks in vain says so.
pub fn serve(listen: Listen, health: Health, registry: Registry, looks: Looks) {
    let Listen::At(address) = listen else { return };
    let looked_at: Vec<_> = looks.paths().collect();
    match bind(address, health, registry, looks) {
        Ok(address) => info!(%address, looks = looked_at.join(" "), "answering /livez, /readyz and /metrics"),
        Err(error) => warn!(%address, %error, "cannot listen: nobody is told of probes and metrics"),
    }
}

fn bind(address: SocketAddr, health: Health, registry: Registry, looks: Looks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = Asked { health, registry: Arc::new(registry), looks };
    let listening = move || runtime.block_on(accept(listener, asked));
    std::thread::Builder::new().name("endpoint".to_owned()).spawn(listening)?;
    Ok(bound)
}

/// Everything that can be asked for.
#[derive(Clone)]
struct Asked {
    health: Health,
    registry: Arc<Registry>,
    looks: Looks,
}

async fn accept(listener: TcpListener, asked: Asked) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "cannot listen"),
    };
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let talk = converse(stream, asked.clone());
                tokio::spawn(async move {
                    if timeout(PATIENCE, talk).await.is_err() {
                        debug!("a request took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "a connection is lost");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, Asked { health, registry, looks }: Asked) {
    let service = service_fn(async |request: Request<Incoming>| {
        let (method, path) = (request.method(), request.uri().path());
        let told = match look(method, path, looks.paths()) {
            Some(path) => looks.told(path).await,
            None => answer(method, path, &health.standing(), &registry, Instant::now()),
        };
        Ok::<_, Infallible>(response(told))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = connection {
        debug!(%error, "a request is not answered");
    }
}

fn response(Answer { status, content_type, body }: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lamina\r\n\r\n").expect("a request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer comes");
        answer
    }

    /// The thread of this test is the stuck loop: it does nothing but ask.
    #[test]
    fn a_stuck_loop_is_told_of_over_the_network() {
        let health = Health::beginning(Duration::from_millis(300), "nothing was seen yet");
        let here = "127.0.0.1:0".parse().expect("an address");
        let address = bind(here, health.clone(), Registry::default(), Looks::none()).expect("a free port");
        health.rests(Duration::from_secs(60));
        health.lacks(None);
        assert!(get(address, "/livez").starts_with("HTTP/1.1 200 OK"));
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 OK"));
        assert!(get(address, "/metrics").contains("openmetrics-text"));
        health.works();
        std::thread::sleep(Duration::from_millis(600));
        let told = get(address, "/livez");
        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
        assert!(told.contains("the loop has not rested"), "{told}");
    }

    #[test]
    fn a_client_that_says_nothing_keeps_nobody_out() {
        let health = Health::beginning(Duration::from_secs(60), "nothing was seen yet");
        let here = "127.0.0.1:0".parse().expect("an address");
        let address = bind(here, health, Registry::default(), Looks::none()).expect("a free port");
        let silent: Vec<_> =
            (1..MOST_AT_ONCE).map(|_| TcpStream::connect(address).expect("somebody listens")).collect();
        assert!(get(address, "/livez").starts_with("HTTP/1.1 200 OK"));
        drop(silent);
    }
}
