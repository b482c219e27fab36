//! Sends images to a registry that speaks the distribution protocol over plain HTTP, as one on loopback does.
//!
//! For registries that ask who one is there are `skopeo`, `crane` and `oras`, which read the same layouts.

use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::blob::Blob;
use crate::image::Image;

type Body = Full<Cursor<Vec<u8>>>;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A registry.
#[derive(Clone, Debug)]
pub struct Registry {
    address: String,
    client: Client<HttpConnector, Body>,
}

impl Registry {
    /// The registry at `address`, host and port.
    pub fn new(address: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address: address.to_owned(), client }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// Fails when it does not, or speaks another protocol.
    pub async fn answers(&self) -> Result<()> {
        self.send(Method::GET, self.uri("")?, None, Vec::new(), &[StatusCode::OK]).await.map(drop)
    }

    /// Sends an image to `repository` and names it `tag`; tells its digest, by which it is best asked for.
    ///
    /// # Errors
    /// Fails when the registry refuses a part.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<String> {
        for blob in [&image.layer, &image.config] {
            self.send_blob(blob, repository)
                .await
                .with_context(|| format!("sending {} of {repository}", blob.digest))?;
        }
        let Blob { media_type, bytes, digest } = &image.manifest;
        let uri = self.uri(&format!("{repository}/manifests/{tag}"))?;
        self.send(Method::PUT, uri, Some(media_type), bytes.clone(), &[StatusCode::CREATED])
            .await
            .with_context(|| format!("naming {repository}:{tag}"))?;
        self.must_have(repository, digest).await?;
        Ok(digest.clone())
    }

    /// A part that is there already is not sent again.
    async fn send_blob(&self, blob: &Blob, repository: &str) -> Result<()> {
        let there = self.uri(&format!("{repository}/blobs/{}", blob.digest))?;
        let known = [StatusCode::OK, StatusCode::NOT_FOUND];
        if self.send(Method::HEAD, there, None, Vec::new(), &known).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.uri(&format!("{repository}/blobs/uploads/"))?;
        let begun = self.send(Method::POST, begin, None, Vec::new(), &[StatusCode::ACCEPTED]).await?;
        let location = begun.headers().get(LOCATION).context("the registry names no place for an upload")?;
        let location = location.to_str().context("the place for an upload is no text")?;
        let place = self.upload(location, &blob.digest)?;
        let octets = Some("application/octet-stream");
        self.send(Method::PUT, place, octets, blob.bytes.clone(), &[StatusCode::CREATED]).await.map(drop)
    }

    async fn must_have(&self, repository: &str, digest: &str) -> Result<()> {
        let uri = self.uri(&format!("{repository}/manifests/{digest}"))?;
        let request = Request::builder().method(Method::HEAD).header(http::header::ACCEPT, crate::image::MANIFEST);
        let request = request.uri(uri).body(Body::default()).context("writing a request")?;
        let answer = self.answer(request).await?;
        ensure!(answer.status() == StatusCode::OK, "{repository} does not have {digest}: {}", answer.status());
        Ok(())
    }

    fn uri(&self, path: &str) -> Result<Uri> {
        let text = format!("http://{}/v2/{path}", self.address);
        text.parse().with_context(|| format!("{text} is no address"))
    }

    /// Where an upload goes: an address of its own, or a path, with or without a question.
    fn upload(&self, location: &str, digest: &str) -> Result<Uri> {
        let mark = if location.contains('?') { '&' } else { '?' };
        let base = if location.starts_with('/') { format!("http://{}", self.address) } else { String::new() };
        let text = format!("{base}{location}{mark}digest={digest}");
        text.parse().with_context(|| format!("{text} is no address"))
    }

    async fn send(
        &self,
        method: Method,
        uri: Uri,
        media_type: Option<&str>,
        bytes: Vec<u8>,
        wanted: &[StatusCode],
    ) -> Result<Response<()>> {
        let described = format!("{method} {uri}");
        let request = Request::builder().method(method).uri(uri);
        let request = match media_type {
            Some(media_type) => request.header(CONTENT_TYPE, media_type),
            None => request,
        };
        let request = request.body(Body::new(Cursor::new(bytes))).with_context(|| described.clone())?;
        let answer = self.answer(request).await.with_context(|| described.clone())?;
        if !wanted.contains(&answer.status()) {
            let (head, text) = answer.into_parts();
            bail!("{described} was answered with {}: {}", head.status, String::from_utf8_lossy(&text));
        }
        Ok(answer.map(drop))
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Vec<u8>>> {
        let answered = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let bytes = body.collect().await.context("reading an answer")?.to_bytes().to_vec();
            Ok(Response::from_parts(head, bytes))
        };
        tokio::time::timeout(PATIENCE, answered).await.context("the registry does not answer")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_where_the_registry_says() {
        let registry = Registry::new("127.0.0.1:5000");
        let place = |location: &str| registry.upload(location, "sha256:0").expect("an address").to_string();
        assert_eq!(place("http://one:1/v2/a?state=x"), "http://one:1/v2/a?state=x&digest=sha256:0");
        assert_eq!(place("/v2/a/uploads/1"), "http://127.0.0.1:5000/v2/a/uploads/1?digest=sha256:0");
    }
}
