//! Decides how a drawing looks on a terminal: frames of line characters, one cell for each CPU, a legend below.

use super::canvas::{Canvas, Line};
use super::layout::{Block, FramePlace, Layout, Metrics, Size, lay_out};
use super::palette::Ink;
use super::scene::{Frame, Meaning, Role, Scene, Thread, Tile, counted};

/// The narrowest sheet on which anything can be drawn.
pub const NARROWEST: usize = 40;
/// What a legend shows at least of the name of a slice, in characters.
const LEAST_NAME: usize = 12;
/// The least room for a list of CPUs beside its line, in characters.
const LEAST_LIST: usize = 16;
/// The most lines of frames with a number in every cell; larger machines show marks only, and lists of CPUs by cache.
const MOST_LINES: usize = 36;

/// The drawing in lines of at most `width` characters.
pub fn lines(scene: &Scene, width: usize) -> Vec<Line> {
    let width = width.max(NARROWEST);
    let mut lines = Vec::new();
    if !scene.name.is_empty() {
        lines.push(Line::of(Ink::Bold, &scene.name));
    }
    lines.extend(wrapped(&scene.summary, " · ", width).iter().map(|part| Line::of(Ink::Plain, part)));
    lines.push(Line::default());
    lines.extend(sheet(scene, width));
    lines.push(Line::default());
    lines.extend(offline(scene, width));
    lines.extend(legend(scene, width));
    lines
}

/// Whether cells hold the number of their CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cells {
    Numbers,
    MarksOnly,
}

fn sheet(scene: &Scene, width: usize) -> Vec<Line> {
    let numbers = lay_out(&scene.shape(block), &metrics(scene, Cells::Numbers, width));
    if numbers.size.y <= MOST_LINES && numbers.size.x <= width {
        return paint(scene, Cells::Numbers, &numbers);
    }
    let marks = lay_out(&scene.shape(block), &metrics(scene, Cells::MarksOnly, width));
    paint(scene, Cells::MarksOnly, &marks)
}

fn cell_width(scene: &Scene, cells: Cells) -> usize {
    match cells {
        Cells::Numbers => scene.digits() + scene.mark_width() + 3,
        Cells::MarksOnly => scene.mark_width(),
    }
}

fn block(tile: &Tile) -> Block {
    let threads = tile.threads();
    Block { cores: tile.cores.len(), height: threads, gap: usize::from(threads > 1) }
}

fn metrics(scene: &Scene, cells: Cells, width: usize) -> Metrics {
    let titles = scene.frames.iter().flat_map(|frame| &frame.tiles).map(|tile| tile.title.chars().count());
    let (title_lines, least) = match cells {
        Cells::Numbers => (1, 0),
        Cells::MarksOnly => (2, 13),
    };
    let frame_titles = scene.frames.iter().map(|frame| frame.title.chars().count() + 6);
    Metrics {
        width,
        core: cell_width(scene, cells),
        core_gap: 1,
        tile_edge: Size { x: 0, y: title_lines },
        tile_least: titles.max().unwrap_or_default().max(least),
        tile_gap: Size { x: 3, y: 1 },
        frame_edge: Size { x: 4, y: 2 },
        frame_least: frame_titles.max().unwrap_or_default(),
        frame_gap: Size { x: 2, y: 0 },
    }
}

fn paint(scene: &Scene, cells: Cells, layout: &Layout) -> Vec<Line> {
    let mut canvas = Canvas::new(layout.size);
    for (frame, place) in scene.frames.iter().zip(&layout.frames) {
        border(&mut canvas, frame, place);
        for (tile, (at, size)) in frame.tiles.iter().zip(&place.tiles) {
            let at = Size { x: place.at.x + 2 + at.x, y: place.at.y + 1 + at.y };
            paint_tile(&mut canvas, scene, cells, layout.columns, tile, (at, *size));
        }
    }
    canvas.into_lines()
}

fn border(canvas: &mut Canvas, frame: &Frame, place: &FramePlace) {
    let FramePlace { at, size, tiles: _ } = place;
    let title = format!(" {} ", frame.title);
    let rest = size.x.saturating_sub(title.chars().count() + 3);
    canvas.write(*at, Ink::Faint, "╭─");
    canvas.write(Size { x: at.x + 2, y: at.y }, Ink::Bold, &title);
    canvas.write(Size { x: at.x + 2 + title.chars().count(), y: at.y }, Ink::Faint, &format!("{}╮", "─".repeat(rest)));
    for y in at.y + 1..at.y + size.y - 1 {
        canvas.write(Size { x: at.x, y }, Ink::Faint, "│");
        canvas.write(Size { x: at.x + size.x - 1, y }, Ink::Faint, "│");
    }
    let bottom = format!("╰{}╯", "─".repeat(size.x - 2));
    canvas.write(Size { x: at.x, y: at.y + size.y - 1 }, Ink::Faint, &bottom);
}

fn paint_tile(canvas: &mut Canvas, scene: &Scene, cells: Cells, columns: usize, tile: &Tile, (at, size): (Size, Size)) {
    canvas.write(at, Ink::Faint, &tile.title);
    let mut top = at.y + 1;
    if cells == Cells::MarksOnly {
        canvas.write(Size { x: at.x, y: top }, Ink::Faint, &shortened(&tile.cpus.to_string(), size.x));
        top += 1;
    }
    let cell = cell_width(scene, cells);
    let Block { cores: _, height, gap } = block(tile);
    for (index, core) in tile.cores.iter().enumerate() {
        let (band, column) = (index / columns, index % columns);
        for (row, thread) in core.iter().enumerate() {
            let y = top + band * (height + gap) + row;
            canvas.write(Size { x: at.x + column * (cell + 1), y }, ink(&thread.role), &text_of(scene, cells, thread));
        }
    }
}

fn text_of(scene: &Scene, cells: Cells, thread: &Thread) -> String {
    let (digits, width) = (scene.digits(), scene.mark_width());
    let mark = scene.mark(&thread.role);
    match cells {
        Cells::Numbers => format!(" {:>digits$} {mark:<width$} ", thread.cpu),
        Cells::MarksOnly => format!("{mark:<width$}"),
    }
}

fn ink(role: &Role) -> Ink {
    match role {
        Role::Slices(slices) => slices.first().map_or(Ink::Plain, |slice| Ink::Slice(*slice)),
        Role::Idle(_) => Ink::Idle,
        Role::Housekeeping => Ink::Kept,
        Role::Isolated | Role::Pods | Role::Free => Ink::Faint,
        Role::Offline(_) => Ink::Off,
    }
}

fn offline(scene: &Scene, width: usize) -> Vec<Line> {
    if scene.offline.is_empty() {
        return Vec::new();
    }
    let cell = cell_width(scene, Cells::Numbers) + 1;
    let per_line = (width.saturating_sub(9) / cell).max(1);
    let mut lines: Vec<Line> = Vec::new();
    for chunk in scene.offline.chunks(per_line) {
        let mut line = Line::of(Ink::Plain, if lines.is_empty() { "offline  " } else { "         " });
        for thread in chunk {
            line.push(Ink::Off, &text_of(scene, Cells::Numbers, thread));
            line.push(Ink::Plain, " ");
        }
        lines.push(line);
    }
    lines.push(Line::default());
    lines
}

fn legend(scene: &Scene, width: usize) -> Vec<Line> {
    let columns = LegendColumns::of(scene, width);
    scene.legend.iter().flat_map(|meaning| legend_lines(scene, meaning, &columns, width)).collect()
}

/// The widths of the legend's columns, in characters.
struct LegendColumns {
    mark: usize,
    name: usize,
    cores: usize,
    cpus: usize,
    note: usize,
}

impl LegendColumns {
    fn of(scene: &Scene, width: usize) -> Self {
        let longest = |text: &dyn Fn(&Meaning) -> String| {
            scene.legend.iter().map(|meaning| text(meaning).chars().count()).max().unwrap_or_default()
        };
        Self {
            mark: longest(&|meaning| scene.mark(&meaning.role)),
            name: longest(&|meaning| meaning.name.clone()).min(LEAST_NAME.max(width / 3)),
            cores: longest(&cores_text),
            cpus: longest(&cpus_text),
            note: longest(&|meaning| meaning.note.clone()),
        }
    }

    /// Where the note stands, or without room for notes and lists nothing.
    fn note_at(&self, width: usize) -> Option<usize> {
        let Self { mark, name, cores, cpus, note } = self;
        let at = mark + 4 + name + 2 + cores + 2 + cpus + 2;
        (at + note + 2 + LEAST_LIST <= width).then_some(at)
    }
}

/// One line, and more where the list of CPUs is long. A list that finds no room beside its line stands below it.
fn legend_lines(scene: &Scene, meaning: &Meaning, columns: &LegendColumns, width: usize) -> Vec<Line> {
    let LegendColumns { mark, name, cores, cpus, note } = *columns;
    let mut line = Line::default();
    line.push(ink(&meaning.role), &format!(" {:<mark$} ", scene.mark(&meaning.role)));
    line.push(Ink::Plain, &format!("  {:<name$}  ", shortened(&meaning.name, name)));
    line.push(Ink::Plain, &format!("{:>cores$}  {:>cpus$}  ", cores_text(meaning), cpus_text(meaning)));
    let mut lines = Vec::new();
    let (indent, note) = match columns.note_at(width) {
        Some(at) => (at, note),
        None => {
            lines.push(std::mem::replace(&mut line, Line::of(Ink::Plain, &" ".repeat(mark + 4))));
            (mark + 4, meaning.note.chars().count())
        }
    };
    let note = if note == 0 { 0 } else { note + 2 };
    line.push(Ink::Faint, &format!("{:<note$}", meaning.note));
    let indent = indent + note;
    for (index, part) in wrapped(&meaning.cpus.to_string(), ",", width.saturating_sub(indent)).iter().enumerate() {
        if index > 0 {
            lines.push(std::mem::replace(&mut line, Line::of(Ink::Plain, &" ".repeat(indent))));
        }
        line.push(Ink::Plain, part);
    }
    lines.push(line);
    lines
}

fn cores_text(meaning: &Meaning) -> String {
    match meaning.role {
        Role::Offline(_) => String::new(),
        Role::Slices(_) | Role::Idle(_) | Role::Housekeeping | Role::Isolated | Role::Pods | Role::Free => {
            counted(meaning.cores, "core", "cores")
        }
    }
}

fn cpus_text(meaning: &Meaning) -> String {
    counted(meaning.cpus.len(), "CPU", "CPUs")
}

/// The text cut to lines of at most `width` characters, after separators where there are any.
pub fn wrapped(text: &str, separator: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in text.split_inclusive(separator) {
        let last = lines.len() - 1;
        let taken = lines[last].chars().count();
        if taken > 0 && taken + part.trim_end().chars().count() > width {
            lines.push(part.to_owned());
        } else {
            lines[last].push_str(part);
        }
    }
    lines
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
