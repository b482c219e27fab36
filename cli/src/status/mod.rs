//! Conducts the verb `status`: how topologies, hosts, slices and services of a cluster stand, once or at every change.

#![expect(clippy::disallowed_methods, reason = "tells how long ago things were")]

pub mod names;
pub mod standing;
pub mod told;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::arguments::{Detail, StatusArguments};
use crate::cluster::{Kubectl, News, Objects};
use crate::drawing::Colour;
use crate::formatted::formatted;
use crate::outcome::Outcome;
use crate::terminal::{self, Reader};
use names::Names;
use standing::{Status, status};
use told::told;

/// Tells how things stand.
///
/// # Errors
/// Fails when the cluster cannot be asked, or knows none of what is named.
pub fn run(arguments: &StatusArguments, colour: Colour) -> Result<Outcome> {
    let kubectl = Kubectl::of(&arguments.cluster);
    let names = Names::read(&arguments.names).map_err(anyhow::Error::msg)?;
    if !arguments.watch {
        let status = look(&kubectl, &names)?;
        show(arguments, &names, &status, colour)?;
        return Ok(status.outcome());
    }
    loop {
        // Listening begins before looking: nothing that happens in between is missed.
        let watch = kubectl.watch()?;
        let mut news = News::Changed;
        while news == News::Changed {
            let status = look(&kubectl, &names)?;
            terminal::between(arguments.output);
            if show(arguments, &names, &status, colour)? == Reader::Left {
                return Ok(status.outcome());
            }
            news = watch.next();
        }
    }
}

fn look(kubectl: &Kubectl, names: &Names) -> Result<Status> {
    let mut objects = Objects::read(&kubectl.objects()?)?;
    // Whoever may not read Leases is told of silent agents by the operator alone.
    if let Ok(leases) = kubectl.leases() {
        objects.note_leases(&leases)?;
    }
    let status = status(&objects, names, Timestamp::now());
    match names.missing(&objects).as_slice() {
        [] => Ok(status),
        [only] => {
            bail!("{only} is no topology, host, slice or service of this cluster; `kubectl lamina status` lists all")
        }
        several => bail!("{} are not known in this cluster; `kubectl lamina status` lists all", several.join(", ")),
    }
}

fn show(arguments: &StatusArguments, names: &Names, status: &Status, colour: Colour) -> Result<Reader> {
    let text = match arguments.output.for_programs() {
        Some(format) => formatted(format, status)?,
        None => {
            let detail = if names.is_empty() { arguments.output.detail() } else { Detail::Wide };
            told(status, detail, terminal::width(), colour, Timestamp::now())
        }
    };
    terminal::print(&text).context("write the answer")
}
