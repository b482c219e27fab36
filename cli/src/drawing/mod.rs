//! Draws a machine and who uses it: as text for terminals and as SVG. What is drawn is decided in `scene`, where it
//! stands in `layout`, how it looks in `text` and `svg`. Pure.

mod canvas;
mod layout;
mod marks;
mod palette;
mod scene;
mod svg;
mod text;

pub use palette::Ink;
pub use scene::{DrawnSlice, Subject, amount, counted, summary};
pub use svg::Theme;
pub use text::wrapped;

use lamina_crds::CpuSet;
use scene::Scene;
use serde::Serialize;

/// Whether codes for colours are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// They are.
    Codes,
    /// They are not; letters and signs say everything.
    None,
}

/// The drawing as lines of at most `width` characters; below 40 it is drawn as for 40.
pub fn text(subject: &Subject, width: usize, colour: Colour) -> String {
    let lines = text::lines(&Scene::of(subject), width);
    let printed = lines.iter().map(|line| match colour {
        Colour::Codes => line.coloured(),
        Colour::None => line.plain(),
    });
    printed.map(|line| line + "\n").collect()
}

/// The drawing as an SVG document of at most `width` pixels where the machine allows it.
pub fn svg(subject: &Subject, width: usize, theme: Theme) -> String {
    svg::document(&Scene::of(subject), width, theme)
}

/// What a drawing says, as data: one line of its legend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// The mark on its CPUs.
    pub mark: String,
    /// The slice, or what else the CPUs are.
    pub name: String,
    /// How many cores have such a CPU.
    pub cores: usize,
    /// The CPUs.
    pub cpus: CpuSet,
}

/// What every CPU of the machine is used for.
pub fn uses(subject: &Subject) -> Vec<Use> {
    let scene = Scene::of(subject);
    let one = |meaning: &scene::Meaning| Use {
        mark: scene.mark(&meaning.role),
        name: meaning.name.clone(),
        cores: meaning.cores,
        cpus: meaning.cpus.clone(),
    };
    scene.legend.iter().map(one).collect()
}

/// The same text in an ink, if colours are written.
pub fn inked(colour: Colour, ink: Ink, text: &str) -> String {
    match colour {
        Colour::Codes => palette::inked(ink, text),
        Colour::None => text.to_owned(),
    }
}
