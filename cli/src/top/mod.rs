//! Conducts the verb `top`: looks twice at what the units of a host use, this one or one of a cluster, and tells the
//! difference.

pub mod told;
pub mod used;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lamina_crds::measured::{HostUsage, USAGE_PATH};

use crate::arguments::TopArguments;
use crate::cluster::objects::Host;
use crate::cluster::{Kubectl, Objects, agent};
use crate::formatted::formatted;
use crate::here;
use crate::outcome::Outcome;
use crate::terminal::{self, Reader};
use told::told;
use used::{Used, is_later, used};

/// Answers out of the agent's cache are the same for a second: so often another is asked for.
const MOST_LOOKS: usize = 3;

/// Tells what slices and services use.
///
/// # Errors
/// Fails when the host cannot be looked at.
pub fn run(arguments: &TopArguments) -> Result<Outcome> {
    let subject = Subject::of(arguments)?;
    let pause = Duration::from_secs(arguments.look.interval.get().into());
    let mut first = subject.look()?;
    loop {
        let second = later(&subject, &first, pause)?;
        if arguments.look.watch {
            terminal::between(arguments.output);
        }
        let reader = show(arguments, &used(&first, second.clone()))?;
        if !arguments.look.watch || reader == Reader::Left {
            return Ok(Outcome::Done);
        }
        first = second;
    }
}

/// Whose use is told.
enum Subject {
    Here,
    Agent { kubectl: Kubectl, host: Box<Host> },
}

impl Subject {
    fn of(arguments: &TopArguments) -> Result<Self> {
        let Some(name) = &arguments.look.host else { return Ok(Self::Here) };
        let kubectl = Kubectl::of(&arguments.cluster);
        let host = Objects::read(&kubectl.host(name)?)?.host(name)?;
        Ok(Self::Agent { kubectl, host: Box::new(host) })
    }

    fn look(&self) -> Result<HostUsage> {
        let (kubectl, host) = match self {
            Self::Here => return here::usage(),
            Self::Agent { kubectl, host } => (kubectl, host),
        };
        match agent::ask(kubectl, host, USAGE_PATH) {
            Ok(answer) => agent::understood(&answer, host),
            Err(why) => bail!("{}: {why}; run `kubectl-lamina top` on the host itself", host.name),
        }
    }
}

fn later(subject: &Subject, first: &HostUsage, pause: Duration) -> Result<HostUsage> {
    for _ in 0..MOST_LOOKS {
        std::thread::sleep(pause);
        let second = subject.look()?;
        if is_later(first, &second) {
            return Ok(second);
        }
        if second.uptime_microseconds < first.uptime_microseconds {
            bail!("{} was started anew meanwhile; ask again", second.host);
        }
    }
    bail!("{} tells the same again and again; ask again", first.host)
}

fn show(arguments: &TopArguments, used: &Used) -> Result<Reader> {
    let text = match arguments.output.for_programs() {
        Some(format) => formatted(format, used)?,
        None => told(used, arguments.output.detail()),
    };
    terminal::print(&text).context("write the answer")
}
