//! Conducts the verb `verify`: a host as it is asked, as systemd has it and as the kernel gives it, measured now where
//! that can be done, else as its agent said last.

#![expect(clippy::disallowed_methods, reason = "tells how long ago things were, and waits between two looks")]

pub mod answer;
pub mod told;

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lamina_crds::TopologyName;
use lamina_crds::measured::{HostVerification, VERIFY_PATH};

use crate::arguments::VerifyArguments;
use crate::cluster::objects::Host;
use crate::cluster::{Kubectl, Objects, agent};
use crate::drawing::Colour;
use crate::formatted::formatted;
use crate::here;
use crate::outcome::Outcome;
use crate::status::standing::is_silent;
use crate::terminal::{self, Reader};
use answer::{Answer, Source, Wishes, measured, said_last};
use told::{Detail, told};

/// Tells whether a host is as asked.
///
/// # Errors
/// Fails when this host cannot be looked at, or the cluster knows no such host.
pub fn run(arguments: &VerifyArguments, colour: Colour) -> Result<Outcome> {
    loop {
        let answer = match &arguments.host {
            None => measured(here::verification()?, Source::Here, &Wishes::new()),
            Some(host) => from_cluster(&Kubectl::of(&arguments.cluster), host)?,
        };
        if arguments.watch {
            terminal::between(arguments.output);
        }
        let reader = show(arguments, &answer, colour)?;
        if !arguments.watch || reader == Reader::Left {
            return Ok(answer.outcome());
        }
        std::thread::sleep(Duration::from_secs(arguments.interval.get().into()));
    }
}

fn from_cluster(kubectl: &Kubectl, name: &str) -> Result<Answer> {
    let (host, wishes) = look_up(kubectl, name)?;
    let why = match agent::ask(kubectl, &host, VERIFY_PATH) {
        Ok(answer) => {
            let found: HostVerification = serde_json::from_str(&answer)
                .with_context(|| format!("read what the agent of {name} answers; is it of another version?"))?;
            return Ok(measured(found, Source::Agent, &wishes));
        }
        Err(why) => why,
    };
    let is_silent = is_silent(&host, Timestamp::now());
    Ok(said_last(&host, why, is_silent, &wishes))
}

/// The host, and what the topologies wish for.
pub(crate) fn look_up(kubectl: &Kubectl, name: &str) -> Result<(Host, Wishes)> {
    let [host, topologies] = kubectl.host(name)?;
    let mut objects = Objects::read(&host)?;
    if let Ok(lease) = kubectl.lease(name) {
        objects.note_leases(&lease)?;
    }
    let wishes = Objects::read(&topologies)?.topologies.into_iter();
    let wishes = wishes.filter_map(|topology| Some((TopologyName::new(topology.name.as_str()).ok()?, topology.spec?)));
    let host = objects.hosts.into_iter().next().with_context(|| format!("{name} is no host of this cluster"))?;
    Ok((host, wishes.collect()))
}

fn show(arguments: &VerifyArguments, answer: &Answer, colour: Colour) -> Result<Reader> {
    let text = match arguments.output.for_programs() {
        Some(format) => formatted(format, answer)?,
        None => {
            let detail = if arguments.output.is_wide() { Detail::Everything } else { Detail::Slices };
            told(answer, detail, terminal::width(), colour, Timestamp::now())
        }
    };
    terminal::print(&text).context("write the answer")
}
