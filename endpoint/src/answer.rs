//! Decides what a request is answered.

use http::{Method, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::health::Standing;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
/// What Prometheus reads, in the form that prometheus-client writes.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a request asks for that takes a look, if anything: one of these paths.
pub fn look(method: &Method, path: &str, mut paths: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let is_read = method == Method::GET || method == Method::HEAD;
    paths.find(|known| is_read && *known == path)
}

/// The answer to any other request, by a loop of this standing.
pub fn answer(method: &Method, path: &str, standing: &Standing, registry: &Registry, now: Instant) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    match path {
        "/livez" => judged(standing.stuck(now)),
        "/readyz" => judged(standing.unready(now)),
        "/metrics" => metrics(registry),
        _ => plain(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics"),
    }
}

fn judged(fault: Option<String>) -> Answer {
    match fault {
        None => plain(StatusCode::OK, "ok"),
        Some(fault) => plain(StatusCode::SERVICE_UNAVAILABLE, &fault),
    }
}

fn metrics(registry: &Registry) -> Answer {
    let mut body = String::new();
    match encode(&mut body, registry) {
        Ok(()) => Answer { status: StatusCode::OK, content_type: METRICS, body },
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Answer {
    Answer { status, content_type: TEXT, body: format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Health;

    fn asked(method: Method, path: &str, health: &Health) -> (u16, String) {
        let Answer { status, content_type: _, body } =
            answer(&method, path, &health.standing(), &Registry::default(), Instant::now());
        (status.as_u16(), body)
    }

    #[tokio::test(start_paused = true)]
    async fn each_path_answers_its_own_question() {
        let health = Health::beginning(Duration::from_secs(5), "the caches are not filled yet");
        let get = |path| asked(Method::GET, path, &health);
        assert_eq!(get("/livez"), (200, "ok\n".to_owned()));
        assert_eq!(get("/readyz"), (503, "the caches are not filled yet\n".to_owned()));
        assert_eq!(get("/metrics"), (200, "# EOF\n".to_owned()));
        assert_eq!(get("/").0, 404);
        assert_eq!(asked(Method::POST, "/metrics", &health).0, 405);
        health.lacks(None);
        assert_eq!(get("/readyz").0, 200);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(get("/livez").0, 503);
        assert_eq!(get("/readyz").0, 503);
    }

    #[test]
    fn a_look_is_taken_only_for_those_who_read() {
        let asked = |method, path| look(&method, path, ["/top", "/verify"].into_iter());
        assert_eq!(asked(Method::GET, "/verify"), Some("/verify"));
        assert_eq!(asked(Method::POST, "/verify"), None);
        assert_eq!(asked(Method::GET, "/verify/"), None);
    }
}
