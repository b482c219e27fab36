//! Decides how a drawing looks as SVG: the same frames, tiles and cells in pixels, for light and dark surroundings.

use std::fmt::Write;

use super::layout::{Block, FramePlace, Layout, Metrics, Size, lay_out, span};
use super::palette::{DARK, LIGHT, SLICES, Sheet};
use super::scene::{Frame, Meaning, Role, Scene, Thread, Tile, counted};
use super::text::wrapped;

/// The surroundings that a drawing is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark text on light ground.
    Light,
    /// Light text on dark ground.
    Dark,
}

const MARGIN: usize = 28;
const CELL: usize = 22;
const THREAD_GAP: usize = 2;
const CORE_EDGE: usize = 3;
const CORE_GAP: usize = 5;
const TILE_EDGE: usize = 10;
const TILE_TITLE: usize = 26;
const FRAME_EDGE: usize = 14;
const FRAME_TITLE: usize = 36;
const LEGEND_LINE: usize = 32;
/// Pixels of one character of the fixed-width face at 11 and 12 pixels, rounded up.
const NARROW: usize = 7;
const WIDE: usize = 8;

/// The whole document.
pub fn document(scene: &Scene, width: usize, theme: Theme) -> String {
    let sheet = match theme {
        Theme::Light => &LIGHT,
        Theme::Dark => &DARK,
    };
    let layout = lay_out(&scene.shape(block), &metrics(scene, width.saturating_sub(2 * MARGIN)));
    let columns = LegendColumns::of(scene);
    let inner = layout.size.x.max(columns.least()).max(scene.summary.chars().count() * WIDE);
    let mut page = Page { scene, sheet, body: String::new() };
    let mut top = page.header();
    page.frames(&layout, top);
    top += layout.size.y + FRAME_EDGE;
    top = page.offline(inner, top);
    top = page.legend(&columns, inner, top + 8);
    page.finish(Size { x: inner + 2 * MARGIN, y: top + MARGIN })
}

fn metrics(scene: &Scene, width: usize) -> Metrics {
    let titles = scene.frames.iter().flat_map(|frame| &frame.tiles).map(|tile| tile.title.chars().count());
    let frame_titles = scene.frames.iter().map(|frame| frame.title.chars().count());
    Metrics {
        width,
        core: cell_width(scene) + 2 * CORE_EDGE,
        core_gap: CORE_GAP,
        tile_edge: Size { x: 2 * TILE_EDGE, y: TILE_TITLE + TILE_EDGE },
        tile_least: titles.max().unwrap_or_default() * NARROW + 2 * TILE_EDGE,
        tile_gap: Size { x: TILE_EDGE, y: TILE_EDGE },
        frame_edge: Size { x: 2 * FRAME_EDGE, y: FRAME_TITLE + FRAME_EDGE },
        frame_least: frame_titles.max().unwrap_or_default() * WIDE + 2 * FRAME_EDGE,
        frame_gap: Size { x: FRAME_EDGE, y: FRAME_EDGE },
    }
}

fn block(tile: &Tile) -> Block {
    let height = span(tile.threads(), CELL, THREAD_GAP) + 2 * CORE_EDGE;
    Block { cores: tile.cores.len(), height, gap: CORE_GAP }
}

fn cell_width(scene: &Scene) -> usize {
    6 + scene.mark_width() * NARROW + 7 + scene.digits() * NARROW + 6
}

/// A document that grows.
struct Page<'a> {
    scene: &'a Scene,
    sheet: &'a Sheet,
    body: String,
}

/// A kind of text, named as its class in the document.
#[derive(Clone, Copy)]
enum Face {
    Name,
    Summary,
    Frame,
    Tile,
    Legend,
    List,
}

impl Face {
    fn class(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Summary => "summary",
            Self::Frame => "frame",
            Self::Tile => "tile",
            Self::Legend => "legend",
            Self::List => "list",
        }
    }
}

impl Page<'_> {
    fn header(&mut self) -> usize {
        let mut top = MARGIN;
        let Scene { name, summary, .. } = self.scene;
        if !name.is_empty() {
            self.text(Face::Name, MARGIN, top + 17, name);
            top += 30;
        }
        self.text(Face::Summary, MARGIN, top + 11, summary);
        top + 30
    }

    fn frames(&mut self, layout: &Layout, top: usize) {
        for (frame, place) in self.scene.frames.iter().zip(&layout.frames) {
            self.frame(frame, place, layout.columns, top);
        }
    }

    fn frame(&mut self, frame: &Frame, place: &FramePlace, columns: usize, top: usize) {
        let FramePlace { at, size, tiles } = place;
        let at = Size { x: MARGIN + at.x, y: top + at.y };
        self.panel(at, *size, 10, self.sheet.frame);
        self.text(Face::Frame, at.x + FRAME_EDGE, at.y + 23, &frame.title);
        for (tile, (inside, size)) in frame.tiles.iter().zip(tiles) {
            let at = Size { x: at.x + FRAME_EDGE + inside.x, y: at.y + FRAME_TITLE + inside.y };
            self.tile(tile, at, *size, columns);
        }
    }

    fn tile(&mut self, tile: &Tile, at: Size, size: Size, columns: usize) {
        self.panel(at, size, 7, self.sheet.tile);
        self.text(Face::Tile, at.x + TILE_EDGE, at.y + 17, &tile.title);
        let wide = cell_width(self.scene) + 2 * CORE_EDGE;
        let Block { cores: _, height: high, gap } = block(tile);
        for (index, core) in tile.cores.iter().enumerate() {
            let x = at.x + TILE_EDGE + index % columns * (wide + CORE_GAP);
            let y = at.y + TILE_TITLE + index / columns * (high + gap);
            let height = span(core.len(), CELL, THREAD_GAP) + 2 * CORE_EDGE;
            let fill = self.sheet.core;
            self.write(&format!(r#"<rect x="{x}" y="{y}" width="{wide}" height="{height}" rx="5" fill="{fill}"/>"#));
            for (row, thread) in core.iter().enumerate() {
                let y = y + CORE_EDGE + row * (CELL + THREAD_GAP);
                self.cell(Size { x: x + CORE_EDGE, y }, &thread.role, Some(thread));
            }
        }
    }

    /// One CPU, or with no thread a sample for the legend.
    fn cell(&mut self, at: Size, role: &Role, thread: Option<&Thread>) {
        let look = self.look(role);
        let (Size { x, y }, width) = (at, cell_width(self.scene));
        let Look { fill, border, dash, text } = look;
        self.write("<g>");
        if let Some(thread) = thread {
            self.write(&format!("<title>CPU {}: {}</title>", thread.cpu, escaped(&self.told(role))));
        }
        let dash = if dash { r#" stroke-dasharray="3 2""# } else { "" };
        self.write(&format!(
            r#"<rect x="{x}.5" y="{y}.5" width="{}" height="{}" rx="3" fill="{fill}" stroke="{border}"{dash}/>"#,
            width - 1,
            CELL - 1
        ));
        self.pattern(at, role);
        let base = y + 15;
        let mark = escaped(&self.scene.mark(role));
        if *role != Role::Free {
            self.write(&format!(r#"<text class="mark" x="{}" y="{base}" fill="{text}">{mark}</text>"#, x + 6));
        }
        if let Some(Thread { cpu, role: _ }) = thread {
            let x = x + width - 6;
            self.write(&format!(r#"<text class="cpu" x="{x}" y="{base}" fill="{text}">{cpu}</text>"#));
        }
        self.write("</g>\n");
    }

    /// What lies on a cell beside its colour: a bar for the second slice, stripes where colours begin anew.
    fn pattern(&mut self, at: Size, role: &Role) {
        let Role::Slices(slices) = role else { return };
        let (Size { x, y }, width) = (at, cell_width(self.scene));
        if slices.first().is_some_and(|slice| *slice >= SLICES.len()) {
            let height = CELL;
            self.write(&format!(
                r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="url(#stripes)"/>"#
            ));
        }
        if let Some(second) = slices.get(1) {
            let (fill, _) = SLICES[second % SLICES.len()];
            let (line, top) = (self.sheet.ground, y + CELL - 5);
            self.write(&format!(
                r#"<rect x="{}" y="{top}" width="{}" height="4" fill="{fill}" stroke="{line}" stroke-width="0.5"/>"#,
                x + 1,
                width - 2
            ));
        }
    }

    fn look(&self, role: &Role) -> Look {
        let sheet = self.sheet;
        let plain = Look { fill: sheet.tile, border: sheet.line, dash: false, text: sheet.faint };
        match role {
            Role::Slices(slices) => {
                let (fill, text) = SLICES[slices.first().copied().unwrap_or_default() % SLICES.len()];
                Look { fill, border: fill, dash: false, text }
            }
            Role::Idle(slice) => Look { border: SLICES[slice % SLICES.len()].0, dash: true, text: sheet.text, ..plain },
            Role::Housekeeping => Look { fill: "url(#hatch)", text: sheet.text, ..plain },
            Role::Isolated | Role::Pods | Role::Free => plain,
            Role::Offline(_) => Look { fill: sheet.ground, dash: true, ..plain },
        }
    }

    fn told(&self, role: &Role) -> String {
        let names = |slices: &[usize]| {
            let meanings = self.scene.legend.iter();
            let named: Vec<&str> = meanings.take(self.scene.marks.len()).map(|meaning| meaning.name.as_str()).collect();
            slices.iter().filter_map(|slice| named.get(*slice).copied()).collect::<Vec<_>>().join(", ")
        };
        match role {
            Role::Slices(slices) => names(slices),
            Role::Idle(slice) => format!("idle sibling, {}", names(&[*slice])),
            Role::Housekeeping => "housekeeping".to_owned(),
            Role::Isolated => "isolated".to_owned(),
            Role::Pods => "pods".to_owned(),
            Role::Free => "free".to_owned(),
            Role::Offline(slices) if slices.is_empty() => "offline".to_owned(),
            Role::Offline(slices) => format!("offline, of {}", names(slices)),
        }
    }

    fn offline(&mut self, inner: usize, top: usize) -> usize {
        let threads = &self.scene.offline;
        if threads.is_empty() {
            return top;
        }
        let cell = cell_width(self.scene) + CORE_GAP;
        let per_row = ((inner + CORE_GAP) / cell).max(1);
        self.text(Face::Tile, MARGIN, top + 15, "offline");
        let top = top + TILE_TITLE;
        for (index, thread) in threads.iter().enumerate() {
            let at = Size { x: MARGIN + index % per_row * cell, y: top + index / per_row * (CELL + CORE_GAP) };
            self.cell(at, &thread.role, Some(thread));
        }
        top + threads.len().div_ceil(per_row) * (CELL + CORE_GAP) + FRAME_EDGE
    }

    fn legend(&mut self, columns: &LegendColumns, inner: usize, mut top: usize) -> usize {
        for meaning in &self.scene.legend {
            let [name, cores, cpus, note, list] = columns.lefts();
            self.cell(Size { x: MARGIN, y: top }, &meaning.role, None);
            let base = top + 15;
            self.text(Face::Legend, MARGIN + name, base, &meaning.name);
            self.text(Face::Summary, MARGIN + cores, base, &columns.cores(meaning));
            self.text(Face::Summary, MARGIN + cpus, base, &counted(meaning.cpus.len(), "CPU", "CPUs"));
            self.text(Face::Summary, MARGIN + note, base, &meaning.note);
            let room = (inner.saturating_sub(list) / WIDE).max(LegendColumns::LIST);
            let lines = wrapped(&meaning.cpus.to_string(), ",", room);
            for (index, line) in lines.iter().enumerate() {
                self.text(Face::List, MARGIN + list, base + index * 17, line);
            }
            top += LEGEND_LINE + (lines.len() - 1) * 17;
        }
        top.saturating_sub(LEGEND_LINE - CELL)
    }

    fn panel(&mut self, at: Size, size: Size, radius: usize, fill: &str) {
        let (Size { x, y }, Size { x: width, y: height }, line) = (at, size, self.sheet.line);
        let (width, height) = (width - 1, height - 1);
        self.write(&format!(
            r#"<rect x="{x}.5" y="{y}.5" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{line}"/>"#
        ));
    }

    fn text(&mut self, face: Face, x: usize, y: usize, text: &str) {
        if !text.is_empty() {
            self.write(&format!(r#"<text class="{}" x="{x}" y="{y}">{}</text>"#, face.class(), escaped(text)));
        }
    }

    fn write(&mut self, element: &str) {
        let newline = if element == "<g>" || element.starts_with("<title>") { "" } else { "\n" };
        let _ = write!(self.body, "{element}{newline}");
    }

    fn finish(self, Size { x, y }: Size) -> String {
        let Self { scene, sheet, body } = self;
        let Sheet { ground, frame: _, tile, core: _, line: _, text, faint, hatch } = sheet;
        let title = if scene.name.is_empty() { "A machine" } else { &scene.name };
        let (title, summary) = (escaped(title), escaped(&scene.summary));
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{x}" height="{y}" viewBox="0 0 {x} {y}" role="img">
<title>{title}</title>
<desc>{summary}</desc>
<defs>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="6" height="6" fill="{tile}"/><line x1="0" y1="0" x2="0" y2="6" stroke="{hatch}" stroke-width="2.5" stroke-opacity="0.4"/>
</pattern>
<pattern id="stripes" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
<line x1="0" y1="0" x2="0" y2="7" stroke="#FFFFFF" stroke-width="3" stroke-opacity="0.28"/>
</pattern>
</defs>
<style>
text {{ font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }}
.name, .frame, .legend, .list {{ fill: {text}; }}
.name {{ font-size: 20px; font-weight: 600; }}
.summary {{ font-size: 13px; fill: {faint}; }}
.frame {{ font-size: 13px; font-weight: 600; }}
.tile {{ font-size: 11px; fill: {faint}; }}
.legend {{ font-size: 13px; font-weight: 600; }}
.list, .mark, .cpu {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
.list {{ font-size: 12px; }}
.mark, .cpu {{ font-size: 11px; }}
.mark {{ font-weight: 700; }}
.cpu {{ text-anchor: end; }}
</style>
<rect width="{x}" height="{y}" fill="{ground}"/>
{body}</svg>
"##
        )
    }
}

/// How one cell looks.
struct Look {
    fill: &'static str,
    border: &'static str,
    dash: bool,
    text: &'static str,
}

/// The widths of the legend's columns, in pixels.
struct LegendColumns {
    sample: usize,
    name: usize,
    cores: usize,
    cpus: usize,
    note: usize,
}

impl LegendColumns {
    /// The least room for a list of CPUs, in characters.
    const LIST: usize = 24;

    fn of(scene: &Scene) -> Self {
        let longest = |length: &dyn Fn(&Meaning) -> usize| {
            let most = scene.legend.iter().map(length).max().unwrap_or_default();
            if most == 0 { 0 } else { most * WIDE + 20 }
        };
        Self {
            sample: cell_width(scene) + 16,
            name: longest(&|meaning| meaning.name.chars().count() + 1),
            cores: longest(&|meaning| counted(meaning.cores, "core", "cores").len()),
            cpus: longest(&|meaning| counted(meaning.cpus.len(), "CPU", "CPUs").len()),
            note: longest(&|meaning| meaning.note.chars().count()),
        }
    }

    fn lefts(&self) -> [usize; 5] {
        let Self { sample, name, cores, cpus, note } = self;
        let mut left = *sample;
        [0, *name, *cores, *cpus, *note].map(|width| {
            left += width;
            left
        })
    }

    fn least(&self) -> usize {
        self.lefts()[4] + Self::LIST * WIDE
    }

    fn cores(&self, meaning: &Meaning) -> String {
        match meaning.role {
            Role::Offline(_) => String::new(),
            Role::Slices(_) | Role::Idle(_) | Role::Housekeeping | Role::Isolated | Role::Pods | Role::Free => {
                counted(meaning.cores, "core", "cores")
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
        escaped
    })
}
