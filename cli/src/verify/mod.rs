//! Conducts the verb `verify`: a host as it is asked, as systemd has it and as the kernel gives it, measured now where
//! that can be done, else as its agent said last.

#![expect(clippy::disallowed_methods, reason = "tells how long ago things were, and waits between two looks")]

pub mod answer;
pub mod told;

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lamina_crds::TopologyName;
use lamina_crds::measured::VERIFY_PATH;

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
use told::told;

/// Tells whether a host is as asked.
///
/// # Errors
/// Fails when this host cannot be looked at, or the cluster knows no such host.
pub fn run(arguments: &VerifyArguments, colour: Colour) -> Result<Outcome> {
    loop {
        let answer = match &arguments.look.host {
            None => measured(here::verification()?, Source::Here, &Wishes::new()),
            Some(host) => from_cluster(&Kubectl::of(&arguments.cluster), host)?,
        };
        if arguments.look.watch {
            terminal::between(arguments.output);
        }
        let reader = show(arguments, &answer, colour)?;
        if !arguments.look.watch || reader == Reader::Left {
            return Ok(answer.outcome());
        }
        std::thread::sleep(Duration::from_secs(arguments.look.interval.get().into()));
    }
}

fn from_cluster(kubectl: &Kubectl, name: &str) -> Result<Answer> {
    let (host, wishes) = look_up(kubectl, name)?;
    let why = match agent::ask(kubectl, &host, VERIFY_PATH) {
        Ok(answer) => return Ok(measured(agent::understood(&answer, &host)?, Source::Agent, &wishes)),
        Err(why) => why,
    };
    let is_silent = is_silent(&host, Timestamp::now());
    Ok(said_last(&host, why, is_silent, &wishes))
}

/// The host, and what the topologies wish for.
fn look_up(kubectl: &Kubectl, name: &str) -> Result<(Host, Wishes)> {
    let mut objects = Objects::read(&kubectl.host(name)?)?;
    if let Ok(lease) = kubectl.lease(name) {
        objects.note_leases(&lease)?;
    }
    let wishes = Objects::read(&kubectl.topologies()?)?.topologies.into_iter();
    let wishes = wishes.filter_map(|topology| Some((TopologyName::new(topology.name.as_str()).ok()?, topology.spec?)));
    Ok((objects.host(name)?, wishes.collect()))
}

fn show(arguments: &VerifyArguments, answer: &Answer, colour: Colour) -> Result<Reader> {
    let text = match arguments.output.for_programs() {
        Some(format) => formatted(format, answer)?,
        None => told(answer, arguments.output.detail(), terminal::width(), colour, Timestamp::now()),
    };
    terminal::print(&text).context("write the answer")
}
