//! Asks the kubelet: builds the program in `kubelet/` from its Go modules, and keeps what it answered, because the same
//! program answers the same instances the same way.

#![expect(clippy::disallowed_methods, reason = "questions and answers are files")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lamina_crds::CpuSet;
use lamina_e2e::cache::{Cache, Key};
use lamina_e2e::go_program::{GoBuilder, GoModule};
use serde::Deserialize;
use tokio::process::Command;

use crate::instance::Instance;

/// Where the modes of the kubelet put the requests of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletAnswer {
    /// The instance's number.
    pub id: u32,
    /// The modes, always in the same order.
    pub modes: Vec<ModeAnswer>,
}

/// The outcome of one mode.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ModeAnswer {
    /// Its name.
    pub mode: String,
    /// One place for each request, `None` where it was refused.
    #[serde(rename = "cpus")]
    pub places: Vec<Option<CpuSet>>,
    /// The kubelet's reason for its first refusal.
    #[serde(default)]
    pub refusal: Option<String>,
}

const MODULE: GoModule = GoModule {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/kubelet"),
    tags: "",
    sources: &["main.go", "machine.go", "modes.go"],
};

/// The kubelet's placement as a program.
#[derive(Debug)]
pub struct Kubelet {
    cache: Cache,
    program: PathBuf,
}

impl Kubelet {
    /// Builds the program unless the cache has it, which takes some minutes once.
    ///
    /// # Errors
    /// Fails without Go 1.26, or when the compiler does.
    pub async fn find() -> Result<Self> {
        let cache = Cache::open()?;
        let builder = GoBuilder::new(cache.clone());
        let program = builder.program("kubelet-peer", MODULE, ".").await?;
        builder.drop_compiler_cache()?;
        Ok(Self { cache, program })
    }

    /// The answers to all instances, in their order, from the cache where they were asked before.
    ///
    /// # Errors
    /// Fails when the program does, or when an answer is missing.
    pub async fn answers(&self, instances: &[Instance]) -> Result<Vec<KubeletAnswer>> {
        let questions = questions(instances)?;
        let built = self.program.parent().and_then(Path::file_name).context("the program is a cache entry")?;
        let key = Key::new().with("program", built.as_encoded_bytes()).with("questions", &questions);
        let what = format!("asking the kubelet about {} instances", instances.len());
        let entry = self.cache.entry("kubelet-answers", &key, &what, async |entry| self.ask(entry, &questions).await);
        read(&entry.await?.join("answers"), instances)
    }

    /// The answers to a few instances, without keeping them.
    ///
    /// # Errors
    /// As [`Self::answers`].
    pub async fn answers_once(&self, instances: &[Instance]) -> Result<Vec<KubeletAnswer>> {
        let folder = self.cache.root().join(format!("runs/kubelet-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let answers = match self.ask(&folder, &questions(instances)?).await {
            Ok(()) => read(&folder.join("answers"), instances),
            Err(error) => Err(error),
        };
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        answers
    }

    async fn ask(&self, folder: &Path, questions: &str) -> Result<()> {
        let asked = folder.join("questions");
        fs::write(&asked, questions).with_context(|| format!("writing {}", asked.display()))?;
        let mut peer = Command::new(&self.program);
        peer.stdin(File::open(&asked).context("opening the questions")?);
        peer.stdout(File::create(folder.join("answers")).context("creating a file for the answers")?);
        let status = peer.kill_on_drop(true).status().await.context("running the kubelet peer")?;
        ensure!(status.success(), "the kubelet peer ended with {status}");
        fs::remove_file(&asked).with_context(|| format!("removing {}", asked.display()))
    }
}

fn questions(instances: &[Instance]) -> Result<String> {
    let mut lines = String::new();
    for instance in instances {
        lines.push_str(&serde_json::to_string(instance).context("writing an instance")?);
        lines.push('\n');
    }
    Ok(lines)
}

fn read(path: &Path, instances: &[Instance]) -> Result<Vec<KubeletAnswer>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let answers: Vec<KubeletAnswer> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("reading the kubelet's answers")?;
    let in_order = answers.iter().map(|answer| answer.id).eq(instances.iter().map(|instance| instance.id));
    ensure!(in_order, "the kubelet peer answered {} of {} instances", answers.len(), instances.len());
    Ok(answers)
}
